"""Record of a run that a report shows, read from the files of the run's folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from numbasaem.aliases import PathLike
from numbasaem.assessment.fsc import Resolution, is_mostly_negative, resolution
from numbasaem.errors import InputError, expected
from numbasaem.io.mrc import read_volume
from numbasaem.io.names import printable
from numbasaem.io.relion import read_fsc
from numbasaem.micrographs.pixel_sizes import PixelSizes
from numbasaem.micrographs.preparation import preparation_of
from numbasaem.micrographs.reading import file_of_source, prepared_micrographs
from numbasaem.picking.template import template_of_run
from numbasaem.reconstruction.checkpoint import load_checkpoint
from numbasaem.reconstruction.contrast import other_contrast
from numbasaem.reconstruction.current_stage import grid_of
from numbasaem.reconstruction.detection import Detectability, detectability
from numbasaem.reconstruction.journal import VALIDATION
from numbasaem.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numbasaem.observations.window_positions import Positions
    from numbasaem.reconstruction.state import Iteration, RunState

HALF_MAP_CRITERION = 0.143
"""Least correlation of half maps that counts as resolved."""
_EXCERPT_PATCHES = 40
"""Number of patches a side of the excerpt: picking it takes about a second."""
_NEARLY_ALL, _NEARLY_NONE = 0.98, 0.02
"""Shares of empty patches above and below which a reader is warned."""


@dataclass(frozen=True)
class Excerpt:
    """Part of a micrograph and the particles found there.

    Attributes
    ----------
    name : str
        Name of the micrograph's file, as it can be printed.
    pixels : float32, shape (rows, columns)
        Prepared pixels of the part, from the micrograph's first pixel on.
    excluded : bool, shape (rows, columns)
        Pixels where the camera saw nothing or that are contaminated.
    particles : Positions
        Particles found in the rest.
    """

    name: str
    pixels: NDArray[np.float32]
    excluded: NDArray[np.bool_]
    particles: Positions


@dataclass(frozen=True)
class RunRecord:
    """A finished run.

    Attributes
    ----------
    folder : Path
        Folder of the run.
    settings : Settings
        Settings of the run.
    sources : list of dict
        Name and SHA-256 of each input.
    runs : dict of str to RunState
        Last state of every run, random starts included.
    volume : float64, shape (L, L, L)
        The map.
    half_volumes : tuple of float64, shape (L, L, L)
        The half maps, two or none.
    fsc : float64, shape (L // 2 + 1,), or None
        Correlation of the half maps, no mask.
    pixel_size : float
        Angstrom per voxel.
    begun_in : str or None
        The folder when the run began, if that is known.
    """

    folder: Path
    settings: Settings
    sources: list[dict[str, Any]]
    runs: dict[str, RunState]
    volume: NDArray[np.float64]
    half_volumes: tuple[NDArray[np.float64], ...]
    fsc: NDArray[np.float64] | None
    pixel_size: float
    begun_in: str | None = None

    @property
    def full(self) -> RunState:
        """Last state of the run on all patches."""
        return self.runs["full"]

    @property
    def last(self) -> Iteration:
        """Last iteration of the run on all patches."""
        return self.full.history[-1]

    @property
    def maps(self) -> dict[str, NDArray[np.float64]]:
        """Every map by its name."""
        names = ("Map", "Half map 1", "Half map 2")
        return dict(zip(names, (self.volume, *self.half_volumes), strict=False))

    @property
    def resolution(self) -> Resolution | None:
        """Resolution at which the half maps cease to agree."""
        if self.fsc is None:
            return None
        size = len(self.volume)
        return resolution(self.fsc, HALF_MAP_CRITERION, self.pixel_size, size)

    @property
    def seconds(self) -> float:
        """Wall time of all iterations."""
        rows = (row for state in self.runs.values() for row in state.history)
        return sum(row.seconds for row in rows)

    @property
    def views(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """View directions and the number of particles seen from each.

        float64, shape (n_views, 3): (x, y, z) in the map; float64, shape (n_views,).
        """
        views = grid_of(self.full, self.settings)
        return views.directions, np.maximum(self.full.view_mass, 0.0)

    @cached_property
    def excerpt(self) -> Excerpt | None:
        """Picks in a corner of the first micrograph; None if its file is gone."""
        moved = None if self.begun_in is None else (self.begun_in, self.folder)
        file = file_of_source(self.sources[0], moved)
        preparation = preparation_of(self.settings)
        pixel_sizes = PixelSizes(self.settings.pixel_size)
        try:
            prepared = next(prepared_micrographs(file, preparation, pixel_sizes))
        except InputError:
            return None
        side = _EXCERPT_PATCHES * self.settings.size
        pixels = prepared.pixels[:side, :side]
        template = template_of_run(self.folder)[0].seen_through(prepared.point_spread)
        excluded = prepared.excluded[:side, :side]
        probability_map = template.probability_map(
            pixels, excluded, self.settings.threads
        )
        particles = template.positions(probability_map)
        return Excerpt(printable(file.name), pixels, excluded, particles)

    @cached_property
    def detectability(self) -> Detectability | None:
        """Whether the molecule could have been picked; None if that is not known."""
        return detectability(self.folder)

    @property
    def warnings(self) -> list[str]:
        """Sentences that a reader should know before the map is believed."""
        sentences = []
        if is_mostly_negative(self.volume):
            other = other_contrast(self.settings)
            sentences.append(
                f"The map is mostly negative: if particles are {other} in the "
                f"micrographs, run again with `contrast={other}`."
            )
        if self.fsc is None:
            sentences.append(
                "There are no half maps, so nothing here measures the resolution."
            )
        elif self.resolution is not None and not self.resolution.crossed:
            sentences.append(
                f"The half maps agree above {HALF_MAP_CRITERION} up to the last shell: "
                "the size of the box limits the resolution, not the data."
            )
        if self.last.empty_fraction > _NEARLY_ALL:
            sentences.append("Nearly every patch was found empty.")
        if self.last.empty_fraction < _NEARLY_NONE:
            sentences.append(
                "Hardly any patch was found empty: noise may pass as signal."
            )
        return sentences

    @cached_property
    def validation(self) -> dict[str, Any] | None:
        """Result of :meth:`numbasaem.Validation.record`, if the run was validated."""
        path = self.folder / VALIDATION
        if not path.exists():
            return None
        try:
            verdict = json.loads(path.read_text("utf-8"))
            of_control = verdict["control_fsc"]
            return {
                "verdict": str(verdict["verdict"]),
                "checks": [dict(check) for check in verdict["checks"]],
                "fsc": list(verdict["fsc"]),
                "control_fsc": None if of_control is None else list(of_control),
                "omissions": list(verdict.get("omissions", [])),
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise expected(path, "a verdict and its checks", repr(error)) from error


def read_record(folder: PathLike) -> RunRecord:
    """Read the files of a finished run.

    Parameters
    ----------
    folder : path-like
        Output folder of a reconstruction.

    Returns
    -------
    RunRecord
        The run.

    Raises
    ------
    InputError
        If there is no finished run or a file is damaged.
    """
    folder = Path(folder)
    description, runs = load_checkpoint(folder / "run.h5")
    if "full" not in runs or not (folder / "volume.mrc").exists():
        raise expected(folder, "a run that has ended", "no volume.mrc")
    settings = Settings(**description["settings"])
    volume, pixel_size = read_volume(folder / "volume.mrc")
    halves, fsc = [], None
    if settings.halves:
        halves = [read_volume(folder / f"volume_half{n}.mrc")[0] for n in (1, 2)]
        _, fsc = read_fsc(folder / "fsc.star")
    return RunRecord(
        folder=folder,
        settings=settings,
        sources=description["sources"],
        runs=runs,
        volume=volume.astype(np.float64),
        half_volumes=tuple(half.astype(np.float64) for half in halves),
        fsc=fsc,
        pixel_size=pixel_size or 1.0,
        begun_in=description.get("folder"),
    )
