"""Picking from the files of micrographs, prepared as the particle's map demands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.aliases import OnProgress, PathLike
from numbasaem.geometry.rotations import relion_angles
from numbasaem.io.mrc import read_volume
from numbasaem.micrographs.preparation import Preparation, preparation_of
from numbasaem.micrographs.reading import PixelSizes, prepared_micrographs
from numbasaem.micrographs.sources import list_micrographs
from numbasaem.observations.patch_cutting import (
    cut_patches,
    untouched_particles,
    untouched_patches,
)

from .tables import PickedParticles
from .template import template_of_map, template_of_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numbasaem.micrographs.sources import MicrographList

    from .template import ParticleTemplate

_COARSER = 1.01
"""Ratio of voxel to pixel from which micrographs are downsampled to meet a map."""


@dataclass(frozen=True)
class _Picker:
    """A template, and how micrographs are made ready for it."""

    template: ParticleTemplate
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
    template, settings = template_of_run(run)
    pixel_sizes = PixelSizes(pixel_size or settings.pixel_size)
    picker = _Picker(template, preparation_of(settings), pixel_sizes)
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
    pixels = pixel_sizes.of(first, first.header()[1])
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
    picker = _Picker(template, preparation, pixel_sizes)
    return _picked(listed, picker, on_progress)


def _picked(
    listed: MicrographList, picker: _Picker, on_progress: OnProgress
) -> PickedParticles:
    template, size = picker.template, picker.preparation.size
    names: list[str] = []
    groups: list[int] = []
    coordinates, views, probabilities = [], [], []
    for file in listed.files:
        several = len(file.open()[0]) > 1
        micrographs = prepared_micrographs(file, picker.preparation, picker.pixel_sizes)
        for number, micrograph in enumerate(micrographs, start=1):
            name = f"{number:06d}@{file.name}" if several else file.name
            on_progress(f"picking {name}", 0.0)
            progress = partial(on_progress, f"picking {name}")
            imaged = template.seen_through(micrograph.point_spread)
            particles = imaged.positions(micrograph.pixels, on_progress=progress)
            live = untouched_particles(micrograph.excluded, particles.centres, size)
            centres = particles.centres[live]
            coordinates.append(micrograph.original_coordinates(centres))
            views.append(imaged.likeliest_rotations(micrograph.pixels, centres))
            probabilities.append(particles.probability[live])
            names += [name] * len(centres)
            groups += [file.optics_group] * len(centres)
    pixel_size = picker.pixel_sizes.common
    assert pixel_size is not None
    binning = (picker.preparation.pixel_size or pixel_size) / pixel_size
    return PickedParticles(
        micrograph_names=names,
        coordinates=np.concatenate(coordinates),
        angles=relion_angles(np.concatenate(views)),
        probability=np.concatenate(probabilities),
        optics_groups=groups,
        pixel_size=pixel_size,
        box=round(size * binning),
        optics=listed.optics,
    )
