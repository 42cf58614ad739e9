"""Figure 7 of the paper: BPTI by EM beside BPTI by its autocorrelations.

What the paper shows of autocorrelation analysis is a volume of degree 2 from
autocorrelations without noise. Here are fits to those at higher degrees too, and fits
to the autocorrelations of the micrographs that EM has.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from problems import timed
from reproduction_page import Curve, draw_beside
from reproduction_process import say

from numbasaem import VolumeBasis, align, autocorrelations, fit_autocorrelations
from numbasaem.assessment.alignment import evaluate_against
from numbasaem.assessment.fsc import fourier_shell_correlation, resolution
from numbasaem.autocorrelation.fit import autocorrelations_of_volume
from numbasaem.autocorrelation.model import model_of
from numbasaem.autocorrelation.moments import Autocorrelations
from numbasaem.io.mrc import read_volume, write_volume

FIGURE = "figure-7"
"""Name of the figure, and of its folder."""
DENSITY = 0.001
"""Particles a pixel in autocorrelations without noise, which only scales them."""
DEGREE_OF_EM = 10
SOURCES = {"clean": "moments without noise", "noisy": "moments of micrographs"}
"""What the autocorrelations of a fit are of, by the name in its folder's name."""


@dataclass(frozen=True)
class Fits:
    """Degrees of the fits to autocorrelations, and random first volumes of each.

    The products of three features, each a column of a matrix as long as the third order
    and a row of derivatives at each view, double from degree 4 to 6 and again to 10,
    while views grow fivefold from 4 to 10.
    """

    clean: tuple[int, ...] = (2, 4, 6)
    noisy: tuple[int, ...] = (2, 4)
    n_starts: int = 5


class MomentsFigure:
    """The figure: its rows and its picture.

    Parameters
    ----------
    out : Path
        Folder of all results; fits that are there are not made again.
    experiment : Path
        Folder of the experiment with the data and, if it has been run, EM's volume.
    """

    def __init__(self, out: Path, experiment: Path) -> None:
        self.folder, self.experiment = out / FIGURE, experiment
        self.data = experiment / "data"
        self.truth, self.voxel_size = read_volume(self.data / "volume_true.mrc")

    def rows(self, fits: Fits) -> list[dict[str, Any]]:
        """Make all estimates and draw them; a row for each."""
        wanted = [("clean", degree) for degree in fits.clean]
        wanted += [("noisy", degree) for degree in fits.noisy]
        places = [
            self._by_moments(source, degree, fits.n_starts) for source, degree in wanted
        ]
        of_em = self._by_em()
        if of_em:
            places.insert(0, of_em)
        rows = [json.loads((place / "result.json").read_text()) for place in places]
        self._draw(rows, [read_volume(place / "volume.mrc")[0] for place in places])
        return rows

    def _by_em(self) -> Path | None:
        """Folder of EM's estimate: a run of this program, or else the paper's."""
        runs = [
            run
            for pattern in ("own-*", "paper")
            for run in sorted(self.experiment.glob(pattern))
            if (run / "result.json").exists()
        ]
        if not runs:
            return None
        volume, _ = read_volume(runs[0] / "run" / "volume.mrc")
        result = json.loads((runs[0] / "result.json").read_text())
        return self._kept(
            f"em-degree-{DEGREE_OF_EM}",
            f"EM, {result['row']}",
            DEGREE_OF_EM,
            volume,
            {name: result[name] for name in ("snr", "iterations", "seconds")},
        )

    def _by_moments(self, source: str, degree: int, n_starts: int) -> Path:
        """Folder of a fit to autocorrelations, which is made unless it is there."""
        name = f"{source}-degree-{degree}"
        if (self.folder / name / "result.json").exists():
            return self.folder / name
        say(f"{FIGURE}: {SOURCES[source]}, degree {degree}")
        basis = VolumeBasis(len(self.truth), degree)
        model_of.cache_clear()  # seconds are those of this fit done by itself
        fit, seconds = timed(
            lambda: fit_autocorrelations(
                self._moments(source, basis), basis, n_starts=n_starts
            )
        )
        return self._kept(
            name,
            SOURCES[source],
            degree,
            basis.evaluate(fit.volume_coefficients),
            {
                "misfit": float(f"{fit.misfit:.3g}"),
                "stalled": "yes" if fit.stalled else "no",
                "seconds": round(seconds, 1),
            },
        )

    def _moments(self, source: str, basis: VolumeBasis) -> Autocorrelations:
        """Autocorrelations of the truth at the degree of a basis, or of the data."""
        if source == "clean":
            return autocorrelations_of_volume(basis, basis.expand(self.truth), DENSITY)
        micrographs = sorted(map(str, self.data.glob("micrograph_*.mrc")))
        return autocorrelations(micrographs, basis.size)

    def _kept(
        self,
        name: str,
        row: str,
        degree: int,
        volume: NDArray[Any],
        more: dict[str, Any],
    ) -> Path:
        """Folder with an estimate, turned like the truth, and what it comes to."""
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        comparison = evaluate_against(volume, self.truth)
        cut = self._truth_at(degree)
        ceiling = fourier_shell_correlation(cut, self.truth)
        result = {
            "experiment": FIGURE,
            "figure": "7",
            "row": row,
            "degree": degree,
            "correlation": round(comparison.correlation, 4),
            "correlation_at_degree": round(align(volume, cut).correlation, 4),
            "fsc": [round(float(value), 3) for value in comparison.fsc],
            "ceiling": [round(float(value), 3) for value in ceiling],
            "shell_at_half": round(comparison.resolution_half.shell, 2),
            "ceiling_at_half": round(
                resolution(ceiling, 0.5, 1.0, len(self.truth)).shell, 2
            ),
            "hand": comparison.hand,
        }
        write_volume(
            place / "volume.mrc", comparison.alignment.volume, self.voxel_size or 1.0
        )
        (place / "result.json").write_text(json.dumps(result | more, indent=1))
        return place

    def _truth_at(self, degree: int) -> NDArray[np.float64]:
        """The truth's best expansion up to a degree."""
        basis = VolumeBasis(len(self.truth), degree)
        return basis.evaluate(basis.expand(self.truth))

    def _draw(self, rows: list[dict[str, Any]], volumes: list[NDArray[Any]]) -> None:
        """Draw all estimates beside the truth, and the FSC of each with it."""
        names = [f"{row['row']}, degree {row['degree']}" for row in rows]
        noisy = SOURCES["noisy"]
        curves = {
            name: Curve(row["fsc"], row["degree"], "--" if row["row"] == noisy else "-")
            for name, row in zip(names, rows, strict=True)
        }
        curves |= {
            f"truth, degree {row['degree']}": Curve(row["ceiling"], row["degree"], ":")
            for row in rows
        }
        draw_beside(
            self.folder,
            {"truth": self.truth} | dict(zip(names, volumes, strict=True)),
            curves,
        )
