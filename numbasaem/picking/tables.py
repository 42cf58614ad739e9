"""Tables of picks: what they hold, how they are written, and how they compare."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from numbasaem.aliases import PathLike
from numbasaem.errors import expected
from numbasaem.io.coordinates import read_boxes, read_topaz, write_boxes, write_topaz
from numbasaem.io.cryosparc import read_locations, write_locations
from numbasaem.io.names import told_apart
from numbasaem.io.relion import (
    COORDINATES,
    FIGURE_OF_MERIT,
    read_particles,
    write_particles,
)
from numbasaem.io.star import check_text
from numbasaem.io.tiff import SUFFIXES as TIFF_SUFFIXES
from numbasaem.io.tiff import read_tiff_shape
from numbasaem.micrographs.sources import list_micrographs

from .scores import CalibrationBin, calibration, match_of, right_picks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from numpy.typing import ArrayLike, NDArray

SUFFIXES = (".star", ".box", ".txt", ".cs")
"""Suffixes of the formats that picks are written in."""


@dataclass(frozen=True)
class PickedParticles:
    """Particles found in several micrographs.

    Attributes
    ----------
    micrograph_names : list of str, length n
        The micrograph of each particle.
    coordinates : float64, shape (n, 2)
        (y, x) in pixels of the micrographs as they were given.
    angles : float64, shape (n, 3)
        RELION's rot, tilt and psi of the likeliest view, degrees.
    probability : float64, shape (n,)
        Figure of merit; see
        :class:`numbasaem.observations.window_positions.Positions`.
    optics_groups : list of int, length n
        Row of `optics` of each particle's micrograph.
    micrograph_uids : list of int or None, length n
        Number by which cryoSPARC knows it.
    micrograph_shapes : intp, shape (n, 2)
        Its rows and columns as it was given.
    pixel_size : float
        Angstrom per pixel of the micrographs as they were given.
    box : int
        Side of the particle's box in such pixels.
    optics : pandas.DataFrame or None
        RELION's table of optics groups, if the list of micrographs had one.
    """

    micrograph_names: list[str]
    coordinates: NDArray[np.float64]
    angles: NDArray[np.float64]
    probability: NDArray[np.float64]
    optics_groups: list[int]
    micrograph_uids: list[int | None]
    micrograph_shapes: NDArray[np.intp]
    pixel_size: float
    box: int
    optics: pd.DataFrame | None

    def only(self, kept: NDArray[np.bool_]) -> PickedParticles:
        """Some of the particles.

        Parameters
        ----------
        kept : bool, shape (n,)
            Which.

        Returns
        -------
        PickedParticles
            Those, in the same order.
        """
        return replace(
            self,
            micrograph_names=list(compress(self.micrograph_names, kept)),
            coordinates=self.coordinates[kept],
            angles=self.angles[kept],
            probability=self.probability[kept],
            optics_groups=list(compress(self.optics_groups, kept)),
            micrograph_uids=list(compress(self.micrograph_uids, kept)),
            micrograph_shapes=self.micrograph_shapes[kept],
        )


def check_table(
    path: Path, sources: Sequence[PathLike], made: Path | None = None
) -> None:
    """Refuse, before any picking, a file that the picks cannot be written to.

    Parameters
    ----------
    path : Path
        Where picks are to go.
    sources : sequence of path-like
        Micrographs, as
        :func:`numbasaem.micrographs.sources.list_micrographs` takes them.
    made : Path, optional
        A folder that will exist by then.

    Raises
    ------
    InputError
        If its suffix stands for no format, its folder does not exist, there are several
        micrographs and the format holds one, in all or in a file (a stack counts as
        several), or it cannot hold their names.
    """
    _check_name(path, made)
    listed = list_micrographs(sources).files
    if path.suffix.lower() == ".box":
        _check_one_micrograph(path, sum(file.header()[0][0] for file in listed))
    elif path.suffix.lower() == ".star":
        for file in listed:
            check_text(path, file.name)
    elif path.suffix.lower() == ".cs":
        for file in listed:
            if file.header()[0][0] > 1:
                wanted = "files of one micrograph each, or a .star or .txt"
                raise expected(path, wanted, f"the stack {file.path}")


def write_picks(path: Path, picks: PickedParticles) -> None:
    """Write picks in the format that the suffix stands for.

    Parameters
    ----------
    path : Path
        ``.star`` (RELION), ``.box`` (EMAN, one micrograph), ``.txt`` (Topaz) or
        ``.cs`` (cryoSPARC).
    picks : PickedParticles
        The particles.

    Raises
    ------
    InputError
        If the file cannot be written or the format cannot hold the picks.
    """
    _check_name(path)
    suffix = path.suffix.lower()
    if suffix == ".box":
        _check_one_micrograph(path, len(set(picks.micrograph_names)))
        write_boxes(path, picks.coordinates, picks.box)
    elif suffix == ".txt":
        heights = picks.micrograph_shapes[:, 0]
        centres = _as_topaz_counts(picks.micrograph_names, picks.coordinates, heights)
        write_topaz(path, picks.micrograph_names, centres, picks.probability)
    elif suffix == ".cs":
        write_locations(
            path,
            micrograph_names=picks.micrograph_names,
            micrograph_uids=picks.micrograph_uids,
            micrograph_shapes=picks.micrograph_shapes,
            coordinates=picks.coordinates,
            pixel_size=picks.pixel_size,
            figure_of_merit=picks.probability,
        )
    else:
        write_particles(
            path,
            micrograph_names=picks.micrograph_names,
            coordinates=picks.coordinates,
            angles=picks.angles,
            pixel_size=picks.pixel_size,
            figure_of_merit=picks.probability,
            optics=picks.optics,
            optics_groups=picks.optics_groups,
        )


class TableScores(NamedTuple):
    """How good the picks of a table are.

    Attributes
    ----------
    recall : float
        Share of the particles that are found; nan of none.
    precision : float
        Share of the picks that are right; nan of none.
    calibration : list of CalibrationBin
        Picks by their probability, and how many of them are right; empty if the table
        states no probabilities.
    """

    recall: float
    precision: float
    calibration: list[CalibrationBin]


def match_tables(found: Path, true: Path, tolerance_px: float) -> TableScores:
    """Recall, precision and calibration of a table of picks.

    Parameters
    ----------
    found, true : Path
        Picks, and the particles that there are: ``.star``, ``.txt`` (Topaz), ``.cs``
        (cryoSPARC) or ``.box`` (EMAN, one micrograph without a name). Micrographs go by
        their names without suffix, and without folders where that tells them apart.
    tolerance_px : float
        Largest distance of a match, pixels.

    Returns
    -------
    TableScores
        Over all micrographs of either table.

    Raises
    ------
    InputError
        If a table cannot be read, the two cannot be compared, or the tolerance is not
        positive, or if a TIFF micrograph of a table, of which a ``.txt`` counts rows
        from the top, is not there to tell how many it has.
    """
    if not tolerance_px > 0:
        raise expected("tolerance_px", "a number of pixels above 0", tolerance_px)
    picks, particles = _read(found), _read(true)
    if ".txt" in (found.suffix.lower(), true.suffix.lower()):
        picks, particles = _as_topaz(picks), _as_topaz(particles)
    if picks.names is None:
        particles = _without_names(particles, picks)
    elif particles.names is None:
        picks = _without_names(picks, particles)
    shorten = told_apart(picks.names or (), particles.names or ())
    names, true_names = (table.short_names(shorten) for table in (picks, particles))
    _refuse_ambiguous_names(picks, set(names), set(true_names))
    _refuse_ambiguous_names(particles, set(true_names), set(names))
    right = np.zeros(len(names), bool)
    for name in set(names):
        of_picks, of_particles = names == name, true_names == name
        right[of_picks] = right_picks(
            picks.centres[of_picks], particles.centres[of_particles], tolerance_px
        )
    match = match_of(right, len(true_names))
    return TableScores(*match, calibration(picks.probability, right))


def _as_topaz_counts(
    names: Sequence[str], centres: NDArray[np.float64], heights: ArrayLike
) -> NDArray[np.float64]:
    """Centres (y, x) with rows of TIFF files counted from the top, as Topaz does."""
    is_tiff = np.array([_is_tiff(name) for name in names], dtype=bool)
    turned = np.array(centres, dtype=np.float64).reshape(-1, 2)
    turned[is_tiff, 0] = np.asarray(heights)[is_tiff] - 1 - turned[is_tiff, 0]
    return turned


def _is_tiff(name: str) -> bool:
    return name.lower().endswith(TIFF_SUFFIXES)


def _check_name(path: Path, made: Path | None = None) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise expected(path, f"a name in {', '.join(SUFFIXES)}", path.name)
    if path.parent != made and not path.parent.is_dir():
        raise expected(path, "a file in a folder that exists", f"none at {path.parent}")


def _check_one_micrograph(path: Path, n_micrographs: int) -> None:
    if n_micrographs > 1:
        raise expected(path, "one micrograph, or a .star or .txt", n_micrographs)


def _heights(table: Path, names: Sequence[str]) -> list[int]:
    """Rows of the TIFF micrographs that a table names, and 0 for others."""
    heights = dict.fromkeys(names, 0)
    for name in filter(_is_tiff, heights):
        file = name.rpartition("@")[2]
        places = (table.parent / file, Path(file))
        place = next((place for place in places if place.exists()), None)
        if place is None:
            wanted = f"{file} beside it: Topaz counts rows of TIFF from the top"
            raise expected(table, wanted, "no such file")
        heights[name] = read_tiff_shape(place)[1]
    return [heights[name] for name in names]


@dataclass(frozen=True)
class _Table:
    """Picks of a file: names of their micrographs, none in a .box, and centres.

    Probabilities are nan where the file states none.
    """

    path: Path
    names: list[str] | None
    centres: NDArray[np.float64]
    probability: NDArray[np.float64]

    def short_names(self, shorten: Callable[[str], str]) -> NDArray[np.object_]:
        """Short name of the micrograph of each pick."""
        names = [""] * len(self.centres) if self.names is None else self.names
        return np.array([shorten(name) for name in names], dtype=object)


def _read(path: Path) -> _Table:
    suffix = path.suffix.lower()
    if suffix == ".box":
        centres = read_boxes(path)[0]
        return _Table(path, None, centres, np.full(len(centres), np.nan))
    if suffix == ".txt":
        return _Table(path, *read_topaz(path))
    if suffix == ".cs":
        return _Table(path, *read_locations(path))
    if suffix != ".star":
        raise expected(path, f"picks in {', '.join(SUFFIXES)}", f"the name {path.name}")
    table = read_particles(path).particles
    x, y = (table[column].to_numpy(np.float64) for column in COORDINATES)
    merit = np.full(len(table), np.nan)
    if FIGURE_OF_MERIT in table:
        merit = pd.to_numeric(table[FIGURE_OF_MERIT], errors="coerce").to_numpy(float)
    names = list(table["rlnMicrographName"])
    return _Table(path, names, np.stack([y, x], axis=1), merit)


def _as_topaz(table: _Table) -> _Table:
    """Table with rows counted as Topaz does, where they are not yet."""
    if table.names is None or table.path.suffix.lower() == ".txt":
        return table
    heights = _heights(table.path, table.names)
    centres = _as_topaz_counts(table.names, table.centres, heights)
    return replace(table, centres=centres)


def _without_names(table: _Table, box: _Table) -> _Table:
    """Table of the one micrograph that a .box is compared with."""
    n_micrographs = len(set(table.names or ()))
    if n_micrographs > 1:
        wanted = f"one micrograph, as {box.path.name} holds"
        raise expected(table.path, wanted, n_micrographs)
    return replace(table, names=None)


def _refuse_ambiguous_names(
    table: _Table, names: Collection[str], others: Collection[str]
) -> None:
    """Refuse a name that the other table has in one folder or in several."""
    for name in set(names) - set(others):
        longer = sorted(other for other in others if other.endswith(f"/{name}"))
        if longer:
            wanted = f"names with folders, as {longer[0]}"
            raise expected(table.path, wanted, name)
