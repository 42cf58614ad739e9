"""Grids of pixels and voxels about their centre, and the disc and ball in them.

The centre of an image or a volume of side L is at index L // 2.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Number = TypeVar("_Number", np.int64, np.float64)

NYQUIST = 0.5
"""Largest frequency that pixels hold, in cycles per pixel: the c of (6)."""


def offsets(size: int) -> NDArray[np.int64]:
    """Distances along an axis from its centre, with their sign.

    Parameters
    ----------
    size : int
        L, samples along the axis.

    Returns
    -------
    int64, shape (L,)
        Distances; zero at index L // 2.
    """
    return np.arange(size) - size // 2


def lattice(axis: NDArray[_Number], n_axes: int) -> NDArray[_Number]:
    """Positions of all samples of a square or a cube.

    Parameters
    ----------
    axis : int64 or float64, shape (L,)
        Positions along each axis, such as :func:`offsets`.
    n_axes : int
        2 for a square, 3 for a cube.

    Returns
    -------
    dtype of `axis`, shape (n_axes, L, L) or (n_axes, L, L, L)
        Components in the order of the indices: (y, x) or (z, y, x).
    """
    return np.stack(np.meshgrid(*[axis] * n_axes, indexing="ij"))


def disc(size: int) -> NDArray[np.bool_]:
    """Pixels of the disc of radius L // 2 in an image.

    Parameters
    ----------
    size : int
        L, pixels a side.

    Returns
    -------
    bool, shape (L, L)
        Whether a pixel is in it, its rim included.
    """
    squares = offsets(size) ** 2
    return np.add.outer(squares, squares) <= (size // 2) ** 2


def ball(size: int, radius: float | None = None) -> NDArray[np.bool_]:
    """Voxels of a ball in a volume.

    Parameters
    ----------
    size : int
        L, voxels a side.
    radius : float, optional
        Radius in voxels; L // 2 if left out.

    Returns
    -------
    bool, shape (L, L, L)
        Whether a voxel is in it, its rim included.
    """
    squared_radius = (size // 2 if radius is None else radius) ** 2
    return _squared_distances(offsets(size)) <= squared_radius


def distances(axis: NDArray[np.int64 | np.floating]) -> NDArray[np.float64]:
    """Distance of every sample of a cube from the origin: its shells.

    Parameters
    ----------
    axis : int64 or float64, shape (L,)
        Positions along each axis: :func:`offsets`, or frequencies.

    Returns
    -------
    float64, shape (L, L, L)
        Distances in the unit of `axis`.
    """
    return np.asarray(np.sqrt(_squared_distances(axis)), dtype=np.float64)


def _squared_distances(
    axis: NDArray[np.int64 | np.floating],
) -> NDArray[np.int64 | np.floating]:
    squares = axis**2
    return np.asarray(np.add.outer(np.add.outer(squares, squares), squares))
