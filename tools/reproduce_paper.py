"""Run the experiments of section IV of the paper and set the results beside it.

    python tools/reproduce_paper.py --out reproduction [--data FOLDER] [--resume]
                                    [--quick] [--only NAME ...]

Each reconstruction is one `numbasaem reconstruct`, in a process of its own. Every
finished piece leaves a `result.json`; `--resume` goes on from those. At the end all
results are in `index.html`, `results.csv` and `figures/`. Exit status 1 means that a
volume was missing, so that its experiments were not run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from problems import timed
from reproduction_moments import FIGURE, Fits, MomentsFigure
from reproduction_page import (
    EXCERPT,
    draw,
    draw_excerpt,
    draw_micrographs,
    draw_picking,
    write_page,
)
from reproduction_process import run_command, say

from numbasaem.assessment.alignment import evaluate_against
from numbasaem.assessment.fsc import fourier_shell_correlation, resolution
from numbasaem.geometry.rotations import rotation_grid
from numbasaem.io.atomic_models import load_volume
from numbasaem.io.mrc import read_volume
from numbasaem.observations.patch_positions import is_empty
from numbasaem.observations.shift_prior import uniform_shift_prior
from numbasaem.picking.algorithm import pick
from numbasaem.picking.scores import (
    empty_patch_f1,
    share_found_within_one_pixel,
    true_patch_shifts,
)
from numbasaem.report.record import read_record
from numbasaem.settings import Settings
from numbasaem.simulation.files import simulate_to_folder
from numbasaem.simulation.scene import simulate
from numbasaem.simulation.settings import SimulationSettings
from numbasaem.volume.basis import VolumeBasis

Volume = NDArray[np.float64]

SIZE, ELL_MAX, N_ROTATIONS = 11, (6, 8, 10), 552
PIXELS, N_MICROGRAPHS = 2992, 4
SOURCES = {
    "Shepp-Logan": ("shepp-logan",),
    "TRPV1": ("emd_8117.map.gz", "emd_8117.map", "TRPV1_31.mrc"),
    "80S ribosome": ("emd_2660.map.gz", "emd_2660.map", "80S_21.mrc"),
    "BPTI": ("1QLQ.pdb",),
}
SNRS = (10.0, 3.5, 1.0, 0.35, 0.1, 0.035, 0.01)
"""Signal-to-noise ratios of the figure on picking: from nearly all found to none."""


@dataclass(frozen=True)
class Experiment:
    """One reconstruction of the paper."""

    figure: str
    volume: str
    method: str
    snr: float
    iterations: tuple[int, ...]
    spacing: str = "separated"

    @property
    def name(self) -> str:
        """Name of its folder."""
        volume = self.volume.split()[0].lower()
        return f"{volume}-{self.method}" + "-arbitrary" * (self.spacing == "arbitrary")


EXPERIMENTS = (
    Experiment("3b", "Shepp-Logan", "original", 3.5, (7, 10, 8)),
    Experiment("3e", "Shepp-Logan", "expanded", 3.5, (31, 19, 18)),
    Experiment("4b", "TRPV1", "original", 1.0, (14, 9, 12)),
    Experiment("4e", "TRPV1", "expanded", 3.5, (25, 8, 4)),
    Experiment("5b", "80S ribosome", "original", 1.0, (12, 16, 8)),
    Experiment("5e", "80S ribosome", "expanded", 3.5, (8, 8, 13)),
    Experiment("6b", "BPTI", "original", 0.75, (15, 10, 9)),
    Experiment("6e", "BPTI", "expanded", 3.5, (22, 6, 15)),
    Experiment("10", "TRPV1", "original", 1.0, (17, 12, 7), "arbitrary"),
)


OF_MOMENTS = "bpti-expanded"
"""Experiment whose data and volume figure 7 shows."""


@dataclass(frozen=True)
class Scale:
    """Size of the reproduction: pixels, rotations, iterations, experiments."""

    pixels: int = PIXELS
    n_micrographs: int = N_MICROGRAPHS
    rotations: int = N_ROTATIONS
    most_iterations: int = 10**6
    batch_fraction: float = 0.05
    picking_pixels: int = 990
    snrs: tuple[float, ...] = SNRS
    own_seeds: tuple[int, ...] = (0, 1)
    experiments: tuple[Experiment, ...] = EXPERIMENTS
    picking_volumes: tuple[str, ...] = tuple(SOURCES)
    fits: Fits = field(default_factory=Fits)


QUICK = Scale(
    pixels=396,
    n_micrographs=1,
    rotations=216,
    most_iterations=5,
    batch_fraction=0.3,
    picking_pixels=198,
    snrs=(10.0, 0.01),
    own_seeds=(0,),
    experiments=(EXPERIMENTS[0], EXPERIMENTS[7], EXPERIMENTS[8]),
    picking_volumes=("TRPV1",),
    fits=Fits(clean=(2,), noisy=(2,), n_starts=1),
)


def paper_settings(experiment: Experiment, scale: Scale, variance: float) -> Settings:
    """Settings of the paper: one start, plain steps of EM, the noise known."""
    return Settings.preset(
        "paper",
        size=SIZE,
        iterations=tuple(min(n, scale.most_iterations) for n in experiment.iterations),
        rotations=scale.rotations,
        batch_fraction=scale.batch_fraction,
        noise_variance=variance,
        level=False,
        halves=False,
    )


def own_settings(scale: Scale, seed: int) -> Settings:
    """Settings of this program, which are its defaults; noise is learned."""
    settings = Settings(size=SIZE, halves=False, seed=seed)
    if scale.most_iterations >= max(stage.n_iterations for stage in settings.march):
        return settings
    return settings.changed(
        iterations=(scale.most_iterations,) * len(settings.march),
        rotations=scale.rotations,
    )


class Reproduction:
    """The folder that holds all results.

    Parameters
    ----------
    out, data : Path
        Folder of the results, and folder of the volumes.
    scale : Scale
        Size of the reproduction.
    """

    def __init__(self, out: Path, data: Path, scale: Scale) -> None:
        self.out, self.data, self.scale = out, data, scale
        self.missing: set[str] = set()

    def source(self, volume: str) -> str | None:
        """Name or path of a volume; None if it is missing."""
        for name in SOURCES[volume]:
            if name == "shepp-logan":
                return name
            if (self.data / name).exists():
                return str(self.data / name)
        self.missing.add(volume)
        return None

    def run(self, experiment: Experiment) -> Iterator[dict[str, Any]]:
        """All rows of an experiment."""
        source = self.source(experiment.volume)
        if source is None:
            yield self._not_run(experiment.name, experiment.volume)
            return
        folder = self.out / experiment.name
        truth = self._simulated(experiment, source, folder / "data")
        variance = truth["noise_variance"]
        rows = {"paper": paper_settings(experiment, self.scale, variance)}
        if experiment.method == "expanded":
            for seed in self.scale.own_seeds:
                rows[f"own, seed {seed}"] = own_settings(self.scale, seed)
        for row, settings in rows.items():
            place = folder / row.replace(", ", "-").replace(" ", "")
            yield self._reconstructed(experiment, row, settings, place, truth)

    def _not_run(self, experiment: str, volume: str) -> dict[str, Any]:
        """The row of an experiment whose volume is missing."""
        wanted = ", ".join(SOURCES[volume])
        return {"experiment": experiment, "row": f"not run: no {wanted}"}

    def _simulated(
        self, experiment: Experiment, source: str, folder: Path
    ) -> dict[str, Any]:
        """Simulate the micrographs of an experiment, unless they are there."""
        record = folder / "simulation.json"
        if not record.exists():
            say(f"{experiment.name}: simulating")
            volume, _ = load_volume(source, SIZE)
            settings = SimulationSettings(
                size=SIZE,
                pixels=self.scale.pixels,
                snr=experiment.snr,
                micrographs=self.scale.n_micrographs,
                spacing=experiment.spacing,  # type: ignore[arg-type]
                density=0.4 if experiment.spacing == "arbitrary" else None,
                method=experiment.method,  # type: ignore[arg-type]
                ell_max=ELL_MAX[-1],
            )
            simulate_to_folder(folder, volume, settings)
        if not (folder / "excerpt.png").exists():
            draw_excerpt(folder)
        truth: dict[str, Any] = json.loads(record.read_text())
        return truth

    def _reconstructed(
        self,
        experiment: Experiment,
        row: str,
        settings: Settings,
        folder: Path,
        truth: dict[str, Any],
    ) -> dict[str, Any]:
        """Do one reconstruction and draw its figures, unless they are there."""
        kept = folder / "result.json"
        if kept.exists():
            result: dict[str, Any] = json.loads(kept.read_text())
            return result
        say(f"{experiment.name}: reconstructing, {row}")
        folder.mkdir(parents=True, exist_ok=True)
        recipe = folder / "wanted.toml"
        recipe.write_text(settings.to_toml())
        run, data = folder / "run", folder.parent / "data"
        micrographs = sorted(map(str, data.glob("micrograph_*.mrc")))
        command = ["reconstruct", *micrographs, "--out", str(run)]
        command += ["--settings", str(recipe), "--no-report"]
        if (run / "run.h5").exists():
            command.append("--resume")
        peak, seconds = timed(lambda: run_command(command, folder / "log.txt"))
        reference, _ = read_volume(data / "volume_true.mrc")
        result = self._compared(run, reference, folder)
        result |= {
            "experiment": experiment.name,
            "figure": experiment.figure,
            "row": row,
            "snr": experiment.snr,
            "iterations": "+".join(str(stage.n_iterations) for stage in settings.march),
            "requested": truth["requested"],
            "placed": sum(truth["placed"]),
            "seconds": round(seconds, 1),
            "peak_mb": round(peak / 1e6),
        }
        kept.write_text(json.dumps(result, indent=1))
        return result

    def _compared(
        self, run: Path, reference: NDArray[np.float32], folder: Path
    ) -> dict[str, Any]:
        """Figures of a run beside the truth, and the pictures of both."""
        record = read_record(run)
        comparison = evaluate_against(record.volume, reference)
        basis = VolumeBasis(SIZE, ELL_MAX[-1])
        ceiling = fourier_shell_correlation(
            basis.evaluate(basis.expand(reference)), reference
        )
        march = record.full.history
        draw(
            folder,
            {"Truth": reference, "Estimate": comparison.alignment.volume},
            {"estimate": comparison.fsc, "best expansion of the truth": ceiling},
            [row.log_likelihood_per_patch for row in march],
        )
        per_stage = {
            ell_max: float(
                np.median([row.seconds for row in march if row.ell_max == ell_max])
            )
            for ell_max in sorted({row.ell_max for row in march})
        }
        return {
            "correlation": round(comparison.correlation, 4),
            "fsc": [round(float(value), 3) for value in comparison.fsc],
            "ceiling": [round(float(value), 3) for value in ceiling],
            "shell_at_half": round(comparison.resolution_half.shell, 2),
            "ceiling_at_half": round(resolution(ceiling, 0.5, 1.0, SIZE).shell, 2),
            "hand": comparison.hand,
            "log_likelihood": round(march[-1].log_likelihood_per_patch, 4),
            "seconds_per_iteration": {k: round(v, 2) for k, v in per_stage.items()},
        }

    def moments(self) -> list[dict[str, Any]]:
        """BPTI by EM and by its autocorrelations, as in figure 7."""
        experiment = next(each for each in EXPERIMENTS if each.name == OF_MOMENTS)
        source = self.source(experiment.volume)
        if source is None:
            return [self._not_run(FIGURE, experiment.volume)]
        folder = self.out / experiment.name
        self._simulated(experiment, source, folder / "data")
        return MomentsFigure(self.out, folder).rows(self.scale.fits)

    def picking(self) -> list[dict[str, Any]]:
        """Algorithm 2 with the truth over a grid of SNR, as in figure 8."""
        panels = []
        spacings = ("separated", "arbitrary")
        for volume, spacing in product(self.scale.picking_volumes, spacings):
            source = self.source(volume)
            name = f"{volume.split()[0].lower()}-{spacing}"
            kept = self.out / "figure-8" / f"{name}.json"
            if source is None:
                continue
            if not kept.exists():
                say(f"figure 8: {name}")
                kept.parent.mkdir(parents=True, exist_ok=True)
                curves = picked(load_volume(source, SIZE)[0], spacing, self.scale)
                kept.write_text(
                    json.dumps({"volume": volume, "spacing": spacing} | curves)
                )
            panels.append(json.loads(kept.read_text()))
        if panels:
            draw_picking(self.out / "figures", panels)
        return panels

    def micrographs(self) -> None:
        """Micrographs at three SNRs, and with arbitrary spacing: figures 1, 2 and 9."""
        source = self.source("TRPV1") or "shepp-logan"
        volume, _ = load_volume(source, SIZE)
        pictures = {}
        for snr, spacing in (
            (10.0, "separated"),
            (1.0, "separated"),
            (0.1, "separated"),
            (1.0, "arbitrary"),
        ):
            sample = simulate(
                volume,
                size=SIZE,
                pixels=EXCERPT,
                snr=snr,
                spacing=spacing,
                density=0.4 if spacing == "arbitrary" else None,
            )
            pictures[f"{spacing}, SNR {snr:g}"] = sample.micrographs[0]
        draw_micrographs(self.out / "figures", pictures, SIZE)


def picked(volume: NDArray[Any], spacing: str, scale: Scale) -> dict[str, list[float]]:
    """Scores of Algorithm 2 with the true projections, for each SNR."""
    scores: dict[str, list[float]] = {
        "snr": list(scale.snrs),
        "f1": [],
        "f1_always_empty": [],
        "within_one_pixel": [],
        "placed": [],
    }
    basis, rotations = VolumeBasis(SIZE, ELL_MAX[-1]), rotation_grid(scale.rotations)
    for snr in scale.snrs:
        sample = simulate(
            volume,
            size=SIZE,
            pixels=scale.picking_pixels,
            snr=snr,
            spacing=spacing,
            density=0.4 if spacing == "arbitrary" else None,
        )
        images = basis.project(basis.expand(sample.volume_true), rotations)
        pixels = sample.micrographs[0]
        true = true_patch_shifts(sample.coordinates[0], pixels.shape, SIZE)
        empty = is_empty(true, SIZE)
        prior = uniform_shift_prior(SIZE, float(empty.mean()))
        shifts = pick(pixels, images, prior, sample.noise_variance).patch_shifts
        scores["f1"].append(empty_patch_f1(empty, is_empty(shifts, SIZE)))
        scores["f1_always_empty"].append(empty_patch_f1(empty, np.ones_like(empty)))
        scores["within_one_pixel"].append(
            share_found_within_one_pixel(true, shifts, SIZE)
        )
        scores["placed"].append(sample.placed[0])
    return scores


def main() -> int:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("reproduction"))
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("NUMBASAEM_DATA", "../shared/data")),
        help="folder of the volumes",
    )
    names = [experiment.name for experiment in EXPERIMENTS]
    names += [FIGURE, "picking"]
    parser.add_argument("--only", nargs="+", choices=names)
    parser.add_argument("--quick", action="store_true", help="a small row of each kind")
    parser.add_argument(
        "--resume", action="store_true", help="go on with what --out has"
    )
    options = parser.parse_args()
    if options.out.exists() and any(options.out.iterdir()) and not options.resume:
        parser.error(f"--out: {options.out} is not empty; --resume goes on with it")
    began = time.perf_counter()
    scale = QUICK if options.quick else Scale()
    reproduction = Reproduction(options.out, options.data, scale)
    wanted = options.only or names
    rows = [
        row
        for experiment in scale.experiments
        if experiment.name in wanted
        for row in reproduction.run(experiment)
    ]
    if FIGURE in wanted:
        rows += reproduction.moments()
    picking = reproduction.picking() if "picking" in wanted else []
    reproduction.micrographs()
    write_page(options.out, rows, picking)
    say(
        f"{options.out / 'index.html'}, after "
        f"{(time.perf_counter() - began) / 60:.1f} min"
    )
    for volume in sorted(reproduction.missing):
        say(
            f"not run: {volume}, for want of {' or '.join(SOURCES[volume])} "
            f"in {options.data}"
        )
    return 1 if reproduction.missing else 0


if __name__ == "__main__":
    sys.exit(main())
