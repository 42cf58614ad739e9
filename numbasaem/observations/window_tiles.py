"""Tiles of a micrograph: which windows are worked on together, and their pixels."""

from __future__ import annotations

from itertools import pairwise

from .window_expectation import tile_windows


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
