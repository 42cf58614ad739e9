"""Picking from the files of micrographs, prepared as the particle's map demands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from numbasaem.aliases import OnProgress, PathLike
from numbasaem.errors import InputError, expected, warn
from numbasaem.geometry.rotations import relion_angles
from numbasaem.io.mrc import read_volume, write_micrograph
from numbasaem.io.names import told_apart
from numbasaem.micrographs.copies import Copies
from numbasaem.micrographs.fourier_crop import resampled
from numbasaem.micrographs.pixel_sizes import PixelSizes, same_pixel_size
from numbasaem.micrographs.preparation import Preparation, preparation_of
from numbasaem.micrographs.reading import file_of_source, prepared_micrographs
from numbasaem.micrographs.sources import list_micrographs
from numbasaem.observations.patch_cutting import cut_patches, untouched_patches
from numbasaem.observations.window_positions import LIKELY
from numbasaem.reconstruction.checkpoint import load_checkpoint

from .selection import LEAST, check_rate, surest
from .tables import PickedParticles
from .template import template_of_map, template_of_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from numbasaem.micrographs.sources import MicrographFile, MicrographList
    from numbasaem.settings import Settings

    from .template import ParticleTemplate

_COARSER = 1.01
"""Ratio of voxel to pixel from which micrographs are downsampled to meet a map.

Where it is that of pixel to voxel, the map is resampled.
"""
_SMALLEST_BOX = 5
"""Smallest side of a map, pixels of the micrographs."""


@dataclass(frozen=True)
class _Picker:
    """A template, and how micrographs are made ready for it."""

    template: ParticleTemplate
    preparation: Preparation
    pixel_sizes: PixelSizes
    probability_maps: Path | None
    fdr: float | None

    @property
    def pixel_size(self) -> float:
        """Angstrom per prepared pixel of the micrographs read so far."""
        pixel_size = self.preparation.pixel_size or self.pixel_sizes.common
        assert pixel_size is not None
        return pixel_size


def pick_with_run(
    sources: Sequence[PathLike],
    run: Path,
    on_progress: OnProgress,
    pixel_size: float | None = None,
    probability_maps: Path | None = None,
    fdr: float | None = None,
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
        Angstrom per pixel of the micrographs, in place of what the files say; without
        it, the one given to the run overrules headers like those of its micrographs.
    probability_maps : Path, optional
        Folder for a map of each micrograph, NAME_probability.mrc: the probability that
        a particle's centre is at each prepared pixel.
    fdr : float, optional
        Largest share of false ones that is to be expected among the picks; left out,
        each is more likely right than not.

    Returns
    -------
    PickedParticles
        All particles, best first in each micrograph.

    Raises
    ------
    InputError
        If the folder holds no readable run that has begun, a micrograph cannot be
        used or has other pixels than those of a run that did not downsample, or no pick
        is as sure as `fdr` demands.
    """
    check_rate(fdr)
    listed = list_micrographs(sources)
    template, settings = template_of_run(run)
    description = load_checkpoint(run / "run.h5")[0]
    origin = description["sources"][0]
    first = listed.files[0]
    moved = (description["folder"], run) if "folder" in description else None
    given = pixel_size or _given_to_run(settings, origin, moved, first)
    pixel_sizes = PixelSizes(given)
    pixels = pixel_sizes.of(first, first.header()[1])
    preparation = preparation_of(settings)
    of_run = origin.get("pixel_size") or settings.pixel_size
    downsamples = preparation.pixel_size is not None
    if not (downsamples or of_run is None or same_pixel_size(pixels, of_run)):
        wanted = f"pixels of {of_run:g} A, those of {run}"
        raise expected(first.path, wanted, f"{pixels:g} A")
    picker = _Picker(template, preparation, pixel_sizes, probability_maps, fdr)
    return _picked(listed, picker, on_progress)


def _given_to_run(
    settings: Settings,
    origin: Mapping[str, Any],
    moved: tuple[str, Path] | None,
    file: MicrographFile,
) -> float | None:
    """Pixel size given to a run, if its micrographs have headers like this file's."""
    if settings.pixel_size is None or "pixel_size" not in origin:
        return settings.pixel_size
    in_header = file.header()[1]
    if in_header is None:
        return settings.pixel_size
    try:
        of_run = file_of_source(origin, moved).header()[1]
    except InputError:  # It was moved on its own, or deleted, since.
        return None
    return settings.pixel_size if in_header == of_run else None


def pick_with_map(
    sources: Sequence[PathLike],
    volume: PathLike,
    on_progress: OnProgress,
    pixel_size: float | None = None,
    invert: bool = False,
    probability_maps: Path | None = None,
    fdr: float | None = None,
) -> PickedParticles:
    """Find the particle of a map.

    Micrographs of smaller pixels than the map's voxels are prepared as raw ones are:
    mended, downsampled to those voxels, flattened, cleaned and normalised. A map of
    smaller voxels than the micrographs' pixels is resampled to these.

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
    probability_maps : Path, optional
        As in :func:`pick_with_run`.
    fdr : float, optional
        As in :func:`pick_with_run`.

    Returns
    -------
    PickedParticles
        All particles, best first in each micrograph.

    Raises
    ------
    InputError
        If the map or a micrograph cannot be used, the negative of the map fits the
        micrographs better, or no pick is as sure as `fdr` demands.
    """
    check_rate(fdr)
    listed = list_micrographs(sources)
    density, voxel_size = read_volume(volume)
    first = listed.files[0]
    pixel_sizes = PixelSizes(pixel_size)
    pixels = pixel_sizes.of(first, first.header()[1])
    if voxel_size is None:
        warn(f"{volume}: no voxel size in the header; taken to be {pixels:g} A")
    elif voxel_size * _COARSER < pixels:
        density = _resampled(volume, density, voxel_size, pixels)
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
    live = untouched_patches(prepared.excluded, len(density))
    patches = cut_patches(prepared.pixels, len(density))[live]
    template = template_of_map(volume, density, patches)
    picker = _Picker(template, preparation, pixel_sizes, probability_maps, fdr)
    return _picked(listed, picker, on_progress)


def _resampled(
    name: PathLike, density: NDArray[np.floating], voxel_size: float, pixel_size: float
) -> NDArray[np.floating]:
    """Sample a map as coarsely as micrographs, in as wide a box."""
    size = ceil(len(density) * voxel_size / pixel_size - 0.01)
    if size < _SMALLEST_BOX:
        wanted = f"a map of at least {_SMALLEST_BOX} pixels of {pixel_size:g} A a side"
        raise expected(name, wanted, f"{len(density)} voxels of {voxel_size:g} A")
    return resampled(density, pixel_size / voxel_size, size)


def _picked(
    listed: MicrographList, picker: _Picker, on_progress: OnProgress
) -> PickedParticles:
    template, size = picker.template, picker.preparation.size
    least = LIKELY if picker.fdr is None else LEAST
    copies = Copies()
    shorten = told_apart([file.name for file in listed.files])
    names: list[str] = []
    groups: list[int] = []
    uids: list[int | None] = []
    shapes: list[tuple[int, ...]] = []
    coordinates, views, probabilities = [], [], []
    for file in listed.files:
        several = len(file.open()[0]) > 1
        micrographs = prepared_micrographs(file, picker.preparation, picker.pixel_sizes)
        for number, micrograph in enumerate(micrographs, start=1):
            if copies.original_of(micrograph.identity) is not None:
                continue
            name = f"{number:06d}@{file.name}" if several else file.name
            on_progress(f"picking {name}", 0.0)
            progress = partial(on_progress, f"picking {name}")
            imaged = template.seen_through(micrograph.point_spread)
            probability_map = imaged.probability_map(
                micrograph.pixels, micrograph.excluded, on_progress=progress
            )
            if picker.probability_maps is not None:
                path = _map_path(picker.probability_maps, shorten(name))
                write_micrograph(path, probability_map, picker.pixel_size)
            particles = imaged.positions(probability_map, least)
            centres = particles.centres
            coordinates.append(micrograph.original_coordinates(centres))
            views.append(imaged.likeliest_rotations(micrograph.pixels, centres))
            probabilities.append(particles.probability)
            names += [name] * len(centres)
            groups += [file.optics_group] * len(centres)
            uids += [file.uid] * len(centres)
            shapes += [micrograph.original_shape] * len(centres)
    pixel_size = picker.pixel_sizes.common
    assert pixel_size is not None
    binning = picker.pixel_size / pixel_size
    picks = PickedParticles(
        micrograph_names=names,
        coordinates=np.concatenate(coordinates),
        angles=relion_angles(np.concatenate(views)),
        probability=np.concatenate(probabilities),
        optics_groups=groups,
        micrograph_uids=uids,
        micrograph_shapes=np.array(shapes, np.intp).reshape(-1, 2),
        pixel_size=pixel_size,
        box=round(size * binning),
        optics=listed.optics,
    )
    if picker.fdr is None:
        return picks
    return picks.only(surest(picks.probability, picker.fdr))


def check_maps(folder: Path) -> None:
    """Make, before any picking, the folder that maps of probabilities go to.

    Parameters
    ----------
    folder : Path
        The folder, in one that exists.

    Raises
    ------
    InputError
        If it cannot be made.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        wanted = "a folder, or a name for one in a folder that exists"
        raise expected(folder, wanted, error.strerror or error) from error


def _map_path(folder: Path, name: str) -> Path:
    """File of the map of probabilities of a micrograph."""
    return folder / f"{name.replace('/', '_')}_probability.mrc"
