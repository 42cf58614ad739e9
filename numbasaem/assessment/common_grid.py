"""Two maps of other voxels or boxes, brought onto one grid."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from numbasaem.errors import expected, warn
from numbasaem.micrographs.fourier_crop import resampled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SAME = 1e-3
"""Relative difference of voxel sizes that are the same: headers hold float32."""
_WIDEST = 2
"""Largest ratio of the common box to the smaller one.

A molecule that fills the smaller one is then still whole where it is off the centre.
"""


class Map(NamedTuple):
    """A volume as a file holds it.

    Attributes
    ----------
    name : object
        The file, as errors and warnings name it.
    volume : array, shape (L, L, L)
        Voxels; the centre is index L // 2.
    voxel_size : float or None
        Angstrom per voxel, None where the file does not say.
    """

    name: object
    volume: NDArray[np.floating]
    voxel_size: float | None


def on_common_grid(
    first: Map, second: Map
) -> tuple[NDArray[np.floating], NDArray[np.floating], float | None]:
    """Bring two maps to the coarser voxels of the two, in one box.

    Parameters
    ----------
    first, second : Map
        The maps.

    Returns
    -------
    first, second : array, shape (L, L, L)
        Volumes; as they were given where voxels and boxes are the same.
    voxel_size : float or None
        Angstrom per voxel; None if neither map says.

    Raises
    ------
    InputError
        If the boxes differ and a map does not state its voxel size.
    """
    known = [each.voxel_size for each in (first, second) if each.voxel_size is not None]
    alike = not known or max(known) <= min(known) * (1 + _SAME)
    voxel_size = known[-1] if known and alike else max(known, default=None)
    if alike and len(first.volume) == len(second.volume):
        return first.volume, second.volume, voxel_size
    for each in (first, second):
        if each.voxel_size is None:
            wanted = "a voxel size in the header, or boxes of one size"
            found = f"{len(first.volume)} and {len(second.volume)} voxels a side"
            raise expected(each.name, wanted, found)
    assert voxel_size is not None
    if alike:
        first, second = (
            each._replace(voxel_size=voxel_size) for each in (first, second)
        )
    sides = [_side(each, voxel_size) for each in (first, second)]
    size = min(max(sides), _WIDEST * min(sides))
    return (
        _resampled(first, voxel_size, size),
        _resampled(second, voxel_size, size),
        voxel_size,
    )


def _side(each: Map, voxel_size: float) -> int:
    """Voxels of this size along a side of a map's box."""
    assert each.voxel_size is not None
    return ceil(len(each.volume) * each.voxel_size / voxel_size * (1 - _SAME))


def _resampled(each: Map, voxel_size: float, size: int) -> NDArray[np.floating]:
    """Volume of a map on another grid; a warning says so."""
    assert each.voxel_size is not None
    if each.voxel_size == voxel_size and len(each.volume) == size:
        return each.volume
    warn(
        f"{each.name}: {len(each.volume)} voxels a side of {each.voxel_size:.4g} A "
        f"compared as {size} of {voxel_size:.4g} A"
    )
    return resampled(each.volume, voxel_size / each.voxel_size, size)
