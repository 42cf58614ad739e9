"""Run the experiments of section IV of the paper and set the results beside it.

    python tools/reproduce_paper.py --out reproduction [--data FOLDER] [--resume]
                                    [--quick] [--only NAME ...]

Each reconstruction is one `numbasaem reconstruct`, in a process of its own. Every
finished piece leaves a `result.json`; `--resume` goes on from those. At the end
`index.html`, `results.csv` and `figures/` have everything. Exit status 1 says that a
volume was missing, so that its experiments were not run.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from numbasaem.assessment.alignment import evaluate_against
from numbasaem.assessment.fsc import fourier_shell_correlation, resolution
from numbasaem.io.atomic_models import load_volume
from numbasaem.io.mrc import read_micrographs, read_volume
from numbasaem.picking.algorithm import (
    empty_patch_f1,
    is_empty,
    pick,
    share_found_within_one_pixel,
    true_patch_shifts,
)
from numbasaem.reconstruction.maximization import uniform_shift_prior
from numbasaem.report.figures import STYLE, slices, surfaces
from numbasaem.report.record import read_record
from numbasaem.report.shapes import FineMap
from numbasaem.settings import Settings
from numbasaem.simulation.files import simulate_to_folder
from numbasaem.simulation.scene import simulate
from numbasaem.simulation.settings import SimulationSettings
from numbasaem.volume.basis import VolumeBasis
from numbasaem.volume.rotations import rotation_grid

Volume = NDArray[np.float64]

SIZE, ELL_MAX, N_ROTATIONS = 11, (6, 8, 10), 552
PIXELS, N_MICROGRAPHS = 2992, 4
SOURCES = {
    "Shepp-Logan": ("shepp-logan",),
    "TRPV1": ("emd_8117.map.gz", "emd_8117.map", "TRPV1_31.mrc"),
    "80S ribosome": ("emd_2660.map.gz", "emd_2660.map", "80S_21.mrc"),
    "BPTI": ("1QLQ.pdb",),
}
PAPER_MINUTES = {6: 45, 8: 75, 10: 300}
PAPER_MEMORY = "1.51 TB (of the machine)"
SNRS = (10.0, 3.5, 1.0, 0.35, 0.1, 0.035, 0.01)
"""Of the figure on picking: from nearly all found to nothing found."""
EXCERPT = 220
"""Pixels a side of the pictures of micrographs."""


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


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

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


QUICK = Scale(
    pixels=396,
    n_micrographs=1,
    rotations=60,
    most_iterations=2,
    batch_fraction=0.3,
    picking_pixels=198,
    snrs=(10.0, 0.01),
    own_seeds=(0,),
    experiments=(EXPERIMENTS[0], EXPERIMENTS[7], EXPERIMENTS[8]),
    picking_volumes=("TRPV1",),
)


def paper_settings(experiment: Experiment, scale: Scale, variance: float) -> Settings:
    """Settings of the paper: one start, plain steps of EM, the noise known."""
    return Settings(
        size=SIZE,
        ell_max=ELL_MAX,
        iterations=tuple(min(n, scale.most_iterations) for n in experiment.iterations),
        rotations=scale.rotations,
        batch_fraction=scale.batch_fraction,
        noise_variance=variance,
        starts=1,
        over_relaxation=1.0,
        level=False,
        halves=False,
    )


def own_settings(scale: Scale, seed: int) -> Settings:
    """Settings of this program: a search among starts, long steps, noise learned.

    Minibatches are smaller and rotations more towards the end: 552 are 30 degrees
    apart, and what lies between them blurs the finest shells.
    """
    counts, finer = (7, 4, 10, 6), (1, 1, 2, 4)
    return Settings(
        size=SIZE,
        ell_max=(6, 8, 10, 10),
        iterations=tuple(min(n, scale.most_iterations) for n in counts),
        rotations=tuple(scale.rotations * n for n in finer),
        batch_fraction=max(scale.batch_fraction / 2.5, 0.02),
        halves=False,
        seed=seed,
    )


class Reproduction:
    """The folder that everything is in.

    Parameters
    ----------
    out, data : Path
        Where results go, and where volumes are looked for.
    scale : Scale
        How much of everything.
    """

    def __init__(self, out: Path, data: Path, scale: Scale) -> None:
        self.out, self.data, self.scale = out, data, scale
        self.missing: set[str] = set()

    def source(self, volume: str) -> str | None:
        """Where a volume is; None if it is missing."""
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
            wanted = ", ".join(SOURCES[experiment.volume])
            yield {"experiment": experiment.name, "row": f"not run: no {wanted}"}
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

    def _simulated(
        self, experiment: Experiment, source: str, folder: Path
    ) -> dict[str, Any]:
        """Micrographs of an experiment, made unless they are there."""
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
        found: dict[str, Any] = json.loads(record.read_text())
        return found

    def _reconstructed(
        self,
        experiment: Experiment,
        row: str,
        settings: Settings,
        folder: Path,
        truth: dict[str, Any],
    ) -> dict[str, Any]:
        """One reconstruction and its figures, unless they are there."""
        done = folder / "result.json"
        if done.exists():
            found: dict[str, Any] = json.loads(done.read_text())
            return found
        say(f"{experiment.name}: reconstructing, {row}")
        folder.mkdir(parents=True, exist_ok=True)
        wanted = folder / "wanted.toml"
        wanted.write_text(settings.to_toml())
        run, data = folder / "run", folder.parent / "data"
        micrographs = sorted(map(str, data.glob("micrograph_*.mrc")))
        command = ["reconstruct", *micrographs, "--out", str(run)]
        command += ["--settings", str(wanted), "--no-report"]
        if (run / "run.h5").exists():
            command.append("--resume")
        began = time.perf_counter()
        peak = run_command(command, folder / "log.txt")
        seconds = time.perf_counter() - began
        reference, _ = read_volume(data / "volume_true.mrc")
        result = self._compared(run, reference, folder)
        result |= {
            "experiment": experiment.name,
            "figure": experiment.figure,
            "row": row,
            "snr": experiment.snr,
            "iterations": "+".join(map(str, settings.iterations)),
            "requested": truth["requested"],
            "placed": sum(truth["placed"]),
            "seconds": round(seconds, 1),
            "peak_mb": round(peak / 1e6),
        }
        done.write_text(json.dumps(result, indent=1))
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

    def low_degree(self) -> dict[str, Any] | None:
        """BPTI at degree 10 and truncated to degree 2, as in figure 7."""
        folder = self.out / "bpti-expanded"
        estimates = sorted(folder.glob("own-*/run/volume.mrc")) or sorted(
            folder.glob("paper/run/volume.mrc")
        )
        if not estimates:
            return None
        estimate, _ = read_volume(estimates[0])
        truth, _ = read_volume(folder / "data" / "volume_true.mrc")
        basis = VolumeBasis(SIZE, ELL_MAX[-1])
        coefficients = basis.expand(truth)
        coefficients[basis.indices[:, 0] > 2] = 0
        truncated = basis.evaluate(coefficients)
        high = evaluate_against(estimate, truth)
        low = fourier_shell_correlation(truncated, truth)
        draw(
            self.out / "figure-7",
            {
                "Truth": truth,
                "Degree 10": high.alignment.volume,
                "Degree 2": truncated,
            },
            {"estimate at degree 10": high.fsc, "truth at degree 2": low},
        )
        return {
            "experiment": "figure-7",
            "figure": "7",
            "row": "BPTI at degree 10, and its truth cut to degree 2",
            "fsc": [round(float(value), 3) for value in high.fsc],
            "ceiling": [round(float(value), 3) for value in low],
        }

    def picking(self) -> list[dict[str, Any]]:
        """Algorithm 2 with the truth over a grid of SNR, as in figure 8."""
        found = []
        spacings = ("separated", "arbitrary")
        for volume, spacing in product(self.scale.picking_volumes, spacings):
            source = self.source(volume)
            name = f"{volume.split()[0].lower()}-{spacing}"
            done = self.out / "figure-8" / f"{name}.json"
            if source is None:
                continue
            if not done.exists():
                say(f"figure 8: {name}")
                done.parent.mkdir(parents=True, exist_ok=True)
                curves = picked(load_volume(source, SIZE)[0], spacing, self.scale)
                done.write_text(
                    json.dumps({"volume": volume, "spacing": spacing} | curves)
                )
            found.append(json.loads(done.read_text()))
        if found:
            draw_picking(self.out / "figures", found)
        return found

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
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(6.9, 2.2))
            grid = figure.subplots(1, len(pictures))
            for axes, (name, pixels) in zip(grid, pictures.items(), strict=True):
                axes.imshow(pixels, "gray")
                axes.set_title(name)
                axes.set_axis_off()
            # how patches cut particles, as in figure 2
            for line in range(0, EXCERPT, SIZE):
                for draw_line in (grid[0].axhline, grid[0].axvline):
                    draw_line(line - 0.5, color="#d95f02", lw=0.2)
            save(figure, self.out / "figures" / "micrographs")


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
        found = pick(pixels, images, prior, sample.noise_variance).patch_shifts
        scores["f1"].append(empty_patch_f1(empty, is_empty(found, SIZE)))
        scores["f1_always_empty"].append(empty_patch_f1(empty, np.ones_like(empty)))
        scores["within_one_pixel"].append(
            share_found_within_one_pixel(true, found, SIZE)
        )
        scores["placed"].append(sample.placed[0])
    return scores


def draw(
    folder: Path,
    volumes: dict[str, NDArray[Any]],
    curves: dict[str, NDArray[np.float64]],
    history: list[float] | None = None,
) -> None:
    """Surfaces and slices of maps, their FSC, and the likelihood's history."""
    fine = {
        name: FineMap.of(np.asarray(volume, np.float64), 1.0)
        for name, volume in volumes.items()
    }
    with matplotlib.rc_context(STYLE):
        save(surfaces(fine), folder / "surfaces")
        save(slices(fine), folder / "slices")
        figure = Figure(figsize=(6.9, 2.4))
        grid = figure.subplots(1, 1 if history is None else 2, squeeze=False)[0]
        for name, curve in curves.items():
            grid[0].plot(curve, "o-", ms=3, label=name)
        grid[0].axhline(0.5, ls="--", lw=0.8, color="0.3")
        grid[0].set(xlabel="shell", ylabel="FSC", ylim=(-0.1, 1.05))
        grid[0].legend()
        if history is not None:
            grid[1].plot(history)
            grid[1].set(xlabel="iteration", ylabel="log-likelihood per patch")
        save(figure, folder / "curves")


def draw_excerpt(folder: Path) -> None:
    """A corner of the first micrograph of a simulation."""
    pixels = read_micrographs(folder / "micrograph_0001.mrc")[0][0]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.3, 2.3))
        axes = figure.subplots()
        axes.imshow(pixels[:EXCERPT, :EXCERPT], "gray")
        axes.set_axis_off()
        save(figure, folder / "excerpt")


def draw_picking(folder: Path, found: list[dict[str, Any]]) -> None:
    """Both panels of figure 8, for both spacings."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.9, 4.6))
        grid = figure.subplots(2, 2, sharex=True)
        for curves in found:
            row = grid[("separated", "arbitrary").index(curves["spacing"])]
            (line,) = row[0].semilogx(curves["snr"], curves["f1"], "o-", ms=3)
            row[0].semilogx(
                curves["snr"], curves["f1_always_empty"], "--", c=line.get_color()
            )
            row[1].semilogx(
                curves["snr"], curves["within_one_pixel"], "o-", label=curves["volume"]
            )
            row[0].set(ylabel=f"F1 of empty patches\n{curves['spacing']}")
            row[1].set(ylabel="found within one pixel", ylim=(-0.02, 1.02))
        grid[0, 1].legend()
        for axes in grid[1]:
            axes.set(xlabel="SNR")
        save(figure, folder / "picking")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG and PDF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix in ("png", "pdf"):
        figure.savefig(path.with_suffix(f".{suffix}"))
        figure.set_layout_engine("none")


def run_command(arguments: list[str], log: Path) -> int:
    """Run `numbasaem`, its output into a file; peak memory of the process, bytes."""
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "numbasaem", *arguments],
            stdout=stream,
            stderr=stream,
        )
        peak = 0
    while process.poll() is None:
        # not from getrusage, which counts what this process held when it forked
        with suppress(OSError):
            status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            peak = max([peak, *(int(x.split()[1]) for x in status if "VmHWM" in x)])
        time.sleep(0.2)
    if process.returncode != 0:
        last = " ".join(log.read_text().splitlines()[-1:])
        raise SystemExit(f"{last} (status {process.returncode}; see {log})")
    return 1024 * peak


def write_page(
    out: Path, rows: list[dict[str, Any]], picking: list[dict[str, Any]]
) -> None:
    """Write the page and the table of all figures."""
    columns = (
        "figure",
        "experiment",
        "row",
        "snr",
        "iterations",
        "requested",
        "placed",
        "correlation",
        "fsc",
        "ceiling",
        "shell_at_half",
        "ceiling_at_half",
        "hand",
        "log_likelihood",
        "seconds_per_iteration",
        "seconds",
        "peak_mb",
    )
    with (out / "results.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(
            {name: words(row.get(name, "")) for name in columns} for row in rows
        )
    paper = ", ".join(f"{ell}: {60 * m}" for ell, m in PAPER_MINUTES.items())
    beside = {"seconds_per_iteration": f"<br>(paper {paper})"}
    header = "".join(
        f"<th>{escape(name.replace('_', ' '))}{beside.get(name, '')}</th>"
        for name in columns
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td>{escape(words(row.get(name, '')))}</td>" for name in columns)
        + "</tr>"
        for row in rows
    )
    pictures = "".join(section(out, name) for name in experiments_of(rows))
    page = f"""<!doctype html><meta charset="utf-8"><title>Section IV</title>
<style>body{{font:15px sans-serif;margin:2em;max-width:75em}}
.wide{{overflow-x:auto}}table{{border-collapse:collapse;font-size:11px}}
td,th{{border:1px solid #ccc;padding:3px 6px;white-space:nowrap}}
img{{max-width:100%}}</style>
<h1>Section IV of the paper, reproduced</h1>
<p>The paper ran on 96 cores; memory: {escape(PAPER_MEMORY)}. Rows "paper" have its
iterations, one start and plain EM; rows "own" search among starts, take long steps and
learn the noise, on the same micrographs. "ceiling" is the FSC of the best expansion of
the true volume with the truth, or for figure 7 that of the truth cut to degree 2.</p>
<div class="wide"><table><tr>{header}</tr>{body}</table></div>
<h2>Micrographs (figures 1, 2, 9)</h2><img src="figures/micrographs.png">
{'<h2>Picking (figure 8)</h2><img src="figures/picking.png">' if picking else ""}
{pictures}"""
    (out / "index.html").write_text(page, encoding="utf-8")


def experiments_of(rows: list[dict[str, Any]]) -> list[str]:
    """Names of the experiments in the table, each once and in its order."""
    return list(dict.fromkeys(row["experiment"] for row in rows))


def section(out: Path, experiment: str) -> str:
    """An experiment's pictures: of a micrograph, then of each row."""
    page = f"<h2>{escape(experiment)}</h2>"
    if (out / experiment / "data" / "excerpt.png").exists():
        page += f'<img src="{experiment}/data/excerpt.png" width="{EXCERPT}">'
    for row in (out / experiment, *sorted((out / experiment).glob("*/"))):
        if (row / "surfaces.png").exists():
            place = row.relative_to(out)
            page += f"<h3>{escape(row.name)}</h3>" + "".join(
                f'<img src="{place}/{name}.png">'
                for name in ("surfaces", "slices", "curves")
            )
    return page


def words(value: object) -> str:
    """A cell of the table."""
    if isinstance(value, list):
        return " ".join(f"{item:.3f}" for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key}: {item}" for key, item in value.items())
    return "" if value is None else str(value)


def say(what: str) -> None:
    """Tell what is being done."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {what}\n")


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
    parser.add_argument("--only", nargs="+", choices=[*names, "picking"])
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
    wanted = options.only or [*names, "picking"]
    rows = [
        row
        for experiment in scale.experiments
        if experiment.name in wanted
        for row in reproduction.run(experiment)
    ]
    figure_7 = reproduction.low_degree()
    rows += [figure_7] if figure_7 else []
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
