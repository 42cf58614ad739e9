"""Picking from the files of micrographs, prepared as the particle's map demands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.aliases import OnProgress, PathLike
from numbasaem.errors import expected
from numbasaem.io.coordinates import read_topaz, write_boxes, write_topaz
from numbasaem.io.mrc import read_volume
from numbasaem.io.star import COORDINATES, read_particles, write_particles
from numbasaem.micrographs.preparation import Preparation, preparation_of
from numbasaem.micrographs.reading import PixelSizes, prepared_micrographs
from numbasaem.micrographs.sources import list_micrographs
from numbasaem.observations.patch_cutting import cut_patches
from numbasaem.volume.rotations import relion_angles

from .algorithm import Match, likeliest_rotations, match_picks, pick, surest_apart
from .template import particle_of_map, particle_of_run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from numbasaem.micrographs.sources import MicrographList

    from .template import KnownParticle

SUFFIXES = (".star", ".box", ".txt")

_COARSER = 1.01
"""Ratio of voxel to pixel from which micrographs are downsampled to meet a map."""


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
        Figure of merit; see :class:`numbasaem.picking.algorithm.Picks`.
    optics_groups : list of int, length n
        Row of `optics` of each particle's micrograph.
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
    pixel_size: float
    box: int
    optics: pd.DataFrame | None


@dataclass(frozen=True)
class _Picker:
    """A particle, and how micrographs are made ready for it."""

    particle: KnownParticle
    preparation: Preparation
    pixel_sizes: PixelSizes


def pick_with_run(
    sources: Sequence[PathLike],
    run: Path,
    on_progress: OnProgress,
    pixel_size: float | None = None,
) -> PickedParticles:
    """Find the particle of a reconstruction, preparing micrographs as it did.

    Parameters
    ----------
    sources : sequence of path-like
        Micrographs, as
        :func:`numbasaem.micrographs.sources.list_micrographs` takes them.
    run : Path
        Output folder of the reconstruction.
    on_progress : callable
        Called with what is being done and the share of it that is done.
    pixel_size : float, optional
        Angstrom per pixel, in place of what run and files say.

    Returns
    -------
    PickedParticles
        All particles, best first in each micrograph.

    Raises
    ------
    InputError
        If the folder holds no readable run that has begun, or a micrograph cannot be
        used.
    """
    listed = list_micrographs(sources)
    particle, settings = particle_of_run(run)
    pixel_sizes = PixelSizes(pixel_size or settings.pixel_size)
    picker = _Picker(particle, preparation_of(settings), pixel_sizes)
    return _picked(listed, picker, on_progress)


def pick_with_map(
    sources: Sequence[PathLike],
    volume: PathLike,
    on_progress: OnProgress,
    pixel_size: float | None = None,
    invert: bool = False,
) -> PickedParticles:
    """Find the particle of a map.

    Micrographs of smaller pixels than the map's voxels are prepared as raw ones are:
    mended, downsampled to those voxels, flattened, cleaned and normalised.

    Parameters
    ----------
    sources : sequence of path-like
        Micrographs, as
        :func:`numbasaem.micrographs.sources.list_micrographs` takes them.
    volume : path-like
        The map.
    on_progress : callable
        Called with what is being done and the share of it that is done.
    pixel_size : float, optional
        Angstrom per pixel, in place of what the files say.
    invert : bool
        Whether particles are darker than ice in the micrographs.

    Returns
    -------
    PickedParticles
        All particles, best first in each micrograph.

    Raises
    ------
    InputError
        If the map or a micrograph cannot be used, or the negative of the map fits the
        micrographs better.
    """
    listed = list_micrographs(sources)
    density, voxel_size = read_volume(volume)
    first = listed.files[0]
    pixel_sizes = PixelSizes(pixel_size)
    pixels = pixel_sizes.of(first.path, first.open()[1])
    raw = voxel_size is not None and voxel_size > _COARSER * pixels
    preparation = Preparation(
        size=len(density),
        pixel_size=voxel_size if raw else None,
        mend=raw,
        invert=invert,
        flatten=raw,
        clean=raw,
        level=True,
        normalise=raw,
    )
    prepared = next(prepared_micrographs(first, preparation, pixel_sizes))
    live = prepared.live_patches(len(density))
    patches = cut_patches(prepared.pixels, len(density))[live]
    particle = particle_of_map(volume, density, patches)
    picker = _Picker(particle, preparation, pixel_sizes)
    return _picked(listed, picker, on_progress)


def _picked(
    listed: MicrographList, picker: _Picker, on_progress: OnProgress
) -> PickedParticles:
    particle, size = picker.particle, picker.preparation.size
    names: list[str] = []
    groups: list[int] = []
    coordinates, views, merits = [], [], []
    for file in listed.files:
        several = len(file.open()[0]) > 1
        prepared = prepared_micrographs(file, picker.preparation, picker.pixel_sizes)
        for number, one in enumerate(prepared, start=1):
            name = f"{number:06d}@{file.name}" if several else file.name
            on_progress(f"picking {name}", 0.0)
            progress = partial(on_progress, f"picking {name}")
            seen = particle.seen_through(one.point_spread)
            centres, probability = pick_on_four_grids(one.pixels, seen, progress)
            live = one.live_particles(centres, size)
            coordinates.append(one.original_coordinates(centres[live]))
            views.append(likeliest_rotations(one.pixels, centres[live], seen.images))
            merits.append(probability[live])
            names += [name] * int(live.sum())
            groups += [file.optics_group] * int(live.sum())
    pixel_size = picker.pixel_sizes.common
    assert pixel_size is not None
    binning = (picker.preparation.pixel_size or pixel_size) / pixel_size
    return PickedParticles(
        micrograph_names=names,
        coordinates=np.concatenate(coordinates),
        angles=relion_angles(particle.rotations[np.concatenate(views)]),
        probability=np.concatenate(merits),
        optics_groups=groups,
        pixel_size=pixel_size,
        box=round(size * binning),
        optics=listed.optics,
    )


def pick_on_four_grids(
    pixels: NDArray[np.float32],
    particle: KnownParticle,
    on_progress: Callable[[float], None],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find particles in patches cut from four places, half a patch apart.

    A patch shows one particle, the likeliest. Where particles touch, one that shares
    all its patches with better visible ones is found on another grid.

    Parameters
    ----------
    pixels : float32, shape (rows, columns)
        Prepared micrograph.
    particle : KnownParticle
        What to look for.
    on_progress : callable
        Called with the share that is done.

    Returns
    -------
    centres : float64, shape (n, 2)
        (y, x) of the pixel at index L // 2 of each particle's box, best first.
    probability : float64, shape (n,)
        Figure of merit, as in :class:`numbasaem.picking.algorithm.Picks`.
    """
    size = particle.images.shape[-1]
    half = size // 2
    offsets = [(y, x) for y in (0, half) for x in (0, half)]
    offsets = [
        offset
        for offset in offsets
        if min(np.subtract(pixels.shape, offset)) >= 2 * size
    ]
    centres, probability = [], []
    for number, (y, x) in enumerate(offsets):
        found = pick(
            pixels[y:, x:],
            particle.images,
            particle.shift_prior,
            particle.noise_variance,
        )
        centres.append(found.centres + np.array([y, x]))
        probability.append(found.probability)
        on_progress((number + 1) / len(offsets))
    places, merits = np.concatenate(centres), np.concatenate(probability)
    kept = surest_apart(places, merits, size / 2)
    return places[kept], merits[kept]


def match_tables(found: Path, true: Path, tolerance_px: float) -> Match:
    """Recall and precision of a table of picks.

    Parameters
    ----------
    found, true : Path
        Picks, and the particles that there are: ``.star`` or ``.txt`` (Topaz).
        Micrographs go by their names without folder and suffix.
    tolerance_px : float
        Largest distance of a match, pixels.

    Returns
    -------
    Match
        Over all micrographs of either table.

    Raises
    ------
    InputError
        If a table cannot be read or the tolerance is not positive.
    """
    if not tolerance_px > 0:
        raise expected("tolerance_px", "a number of pixels above 0", tolerance_px)
    picks, particles = _centres_by_micrograph(found), _centres_by_micrograph(true)
    nothing = np.empty((0, 2))
    n_picks = sum(len(centres) for centres in picks.values())
    n_particles = sum(len(centres) for centres in particles.values())
    n_right = 0
    for name, centres in picks.items():
        match = match_picks(centres, particles.get(name, nothing), tolerance_px)
        n_right += round(match.precision * len(centres))
    return Match(
        recall=n_right / n_particles if n_particles else float("nan"),
        precision=n_right / n_picks if n_picks else float("nan"),
    )


def _centres_by_micrograph(path: Path) -> dict[str, NDArray[np.float64]]:
    """Coordinates (n, 2) of a table, by micrograph."""
    if path.suffix.lower() == ".txt":
        names, centres, _ = read_topaz(path)  # names without suffix
        stems = np.array([Path(name).name for name in names], dtype=object)
    else:
        table = read_particles(path).particles
        listed = table["rlnMicrographName"]
        stems = np.array([Path(name).stem for name in listed], dtype=object)
        x, y = (table[column].to_numpy(np.float64) for column in COORDINATES)
        centres = np.stack([y, x], axis=1)
    return {stem: centres[stems == stem] for stem in set(stems)}


def check_table_name(path: Path, made: Path | None = None) -> None:
    """Refuse a file that picks cannot be written to.

    Parameters
    ----------
    path : Path
        Where picks are to go.
    made : Path, optional
        A folder that will exist by then.

    Raises
    ------
    InputError
        If its suffix stands for no format or its folder does not exist.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise expected(path, f"a name in {', '.join(SUFFIXES)}", path.name)
    if path.parent != made and not path.parent.is_dir():
        raise expected(path, "a file in a folder that exists", f"none at {path.parent}")


def write_picks(path: Path, picks: PickedParticles) -> None:
    """Write picks in the format that the suffix stands for.

    Parameters
    ----------
    path : Path
        ``.star`` (RELION), ``.box`` (EMAN, one micrograph) or ``.txt`` (Topaz).
    picks : PickedParticles
        The particles.

    Raises
    ------
    InputError
        If the file cannot be written or the format cannot hold the picks.
    """
    check_table_name(path)
    suffix = path.suffix.lower()
    if suffix == ".box":
        found = len(set(picks.micrograph_names))
        if found > 1:
            raise expected(path, "one micrograph, or a .star or .txt", found)
        write_boxes(path, picks.coordinates, picks.box)
    elif suffix == ".txt":
        write_topaz(path, picks.micrograph_names, picks.coordinates, picks.probability)
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
