"""Tiles of a micrograph: which windows are worked on together, and their pixels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.errors import expected
from numbasaem.kernels.layout import SPECTRAL, SQUARE
from numbasaem.kernels.llvm import LANES
from numbasaem.kernels.windows import spectral
from numbasaem.kernels.windows import statistics as windows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

FOURIER_FROM = spectral.faster_from(LANES)
"""Smallest L whose products are taken through Fourier transforms."""
_WIDEST = 16
"""Rotations in step on the widest processors."""


def region_windows(size: int) -> int:
    """Number of windows along a side of a tile with its margin.

    Parameters
    ----------
    size : int
        L, side of a window.

    Returns
    -------
    int
        Windows, so many that the margin is at most a sixth of them.
    """
    side = tile_windows(size)
    return -(-12 * (size - 1) // side) * side


def tile_bounds(n_pixels: int, size: int) -> list[tuple[int, int]]:
    """Divide the windows along one axis of a micrograph evenly.

    Parameters
    ----------
    n_pixels : int
        Length of the axis.
    size : int
        L, side of a window.

    Returns
    -------
    list of (int, int)
        First window of each tile, and the window after its last.
    """
    n_windows = n_pixels - size + 1
    n_tiles = -(-n_windows // (region_windows(size) - 2 * (size - 1)))
    n_tiles = max(n_tiles, min(2, n_windows))  # so that every micrograph has halves
    return list(pairwise(n_windows * i // n_tiles for i in range(n_tiles + 1)))


def tiles_of(shape: tuple[int, int], size: int) -> list[tuple[slice, slice]]:
    """Divide the windows of a micrograph into tiles, row by row.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of pixels.
    size : int
        L, side of a window.

    Returns
    -------
    list of two slices
        Rows and columns of each tile's windows.
    """
    rows, columns = (tile_bounds(n, size) for n in shape)
    return [(slice(*row), slice(*column)) for row in rows for column in columns]


def pixels_of(
    tile: tuple[slice, slice], shape: tuple[int, int], size: int
) -> tuple[slice, slice]:
    """Pixels that belong to a tile and to no other one.

    Parameters
    ----------
    tile : tuple of two slices
        Rows and columns of the tile's windows.
    shape : tuple of int
        Rows and columns of the micrograph.
    size : int
        L, side of a window.

    Returns
    -------
    tuple of two slices
        Rows and columns of the pixels at which its windows begin; those of the last
        tile reach to the edge of the micrograph.
    """
    rows, columns = (
        slice(part.start, n if part.stop == n - size + 1 else part.stop)
        for part, n in zip(tile, shape, strict=True)
    )
    return rows, columns


def tile_windows(size: int) -> int:
    """Windows along a side of the tiles that are worked on in one go.

    Parameters
    ----------
    size : int
        L, side of a window.

    Returns
    -------
    int
        Regions whose windows are a multiple of it leave no part of a tile idle.
    """
    return windows.tile_windows(SPECTRAL if is_spectral(size) else SQUARE, size)


def is_spectral(size: int) -> bool:
    """Whether products are taken through Fourier transforms."""
    return LANES > 1 and FOURIER_FROM <= size <= spectral.LARGEST


def whole_windows(usable: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Windows without an unusable pixel.

    Parameters
    ----------
    usable : bool, shape (rows, columns)
        Of each pixel.
    size : int
        L, side of a window.

    Returns
    -------
    bool, shape (rows - L + 1, columns - L + 1)
        Of the window that begins at each pixel.
    """
    view = np.lib.stride_tricks.sliding_window_view
    down = view(usable, size, axis=0).all(axis=-1)
    return np.asarray(view(down, size, axis=1).all(axis=-1))


def checked_micrograph(
    micrograph: ArrayLike, mask: ArrayLike | None, size: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Pixels of a micrograph, and the windows that may hold a particle.

    Parameters
    ----------
    micrograph : array, shape (rows, columns)
        Pixels.
    mask : bool array, shape (rows, columns), or None
        False where a pixel is not to be used.
    size : int
        L, side of a window.

    Returns
    -------
    pixels : float32, shape (rows, columns)
        Pixels, 0 where they are not to be used.
    whole : bool, shape (rows - L + 1, columns - L + 1)
        Windows without an unusable pixel, at least one.

    Raises
    ------
    InputError
        If the shapes disagree, or no window is whole.
    """
    pixels = np.ascontiguousarray(micrograph, dtype=np.float32)
    if pixels.ndim != 2:
        raise expected("micrograph", "shape (rows, columns)", f"shape {pixels.shape}")
    usable = np.ones(pixels.shape, bool) if mask is None else np.asarray(mask, bool)
    if usable.shape != pixels.shape:
        raise expected("mask", f"shape {pixels.shape}", f"shape {usable.shape}")
    if min(pixels.shape) < size:
        wanted = f"at least {size} x {size} pixels"
        raise expected("micrograph", wanted, f"shape {pixels.shape}")
    whole = whole_windows(usable, size)
    if not whole.any():
        raise expected("mask", f"{size} x {size} usable pixels", "none")
    return np.where(usable, pixels, np.float32(0)), whole


@dataclass(frozen=True)
class Regions:
    """Pieces of micrographs, all of one shape.

    Attributes
    ----------
    pixels : float32, shape (n_regions, rows, columns)
        Pixels, finite.
    whole : bool, shape (n_regions, rows - L + 1, columns - L + 1)
        Windows that may hold a particle.
    counting : bool, of the same shape
        Those of them that are summed up; the others are there for their neighbours.
    """

    pixels: NDArray[np.float32]
    whole: NDArray[np.bool_]
    counting: NDArray[np.bool_]

    def tiles(self, side: int, wanted: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Region, row and column of the tiles with a window that is wanted."""
        rows, columns = (range(0, n, side) for n in wanted.shape[1:])
        corners = [
            (n, y, x)
            for n in range(len(wanted))
            for y in rows
            for x in columns
            if wanted[n, y : y + side, x : x + side].any()
        ]
        return np.array(corners, np.int64).reshape(-1, 3)


def tile_bytes(n_rotations: int, size: int) -> int:
    """Memory of a block of tiles: what it writes, and what its kernel works on.

    Parameters
    ----------
    n_rotations : int
        K.
    size : int
        L, side of a window, pixels.

    Returns
    -------
    int
        Bytes, on the widest processors.
    """
    n_padded = n_rotations + 2 * _WIDEST
    slab = 8 * n_padded * (size**2 + 1)
    side = tile_windows(size) + size
    return slab + 4 * side**2 * (2 * _WIDEST * 3 + 4)
