"""Tiles of a micrograph: which windows are worked on together, and their pixels."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.errors import expected
from numbasaem.kernels.windows.steerable import BLOCK

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from numbasaem.settings import Settings

_SIDE = 18
"""Side of a tile with its margins, in sizes of a window."""


def reach_of(settings: Settings, pixel_size: float | None) -> int:
    """Distance in pixels from which two particles may both be.

    Parameters
    ----------
    settings : Settings
        Settings of the reconstruction.
    pixel_size : float or None
        Angstrom per pixel of the prepared micrographs.

    Returns
    -------
    int
        L, unless the settings tell the least distance of particles.

    Raises
    ------
    InputError
        If that distance is below one pixel, or the pixel size is not known.
    """
    if settings.least_distance is None:
        return settings.size
    if pixel_size is None:
        wanted = "a pixel size with it, such as `pixel_size`"
        raise expected("least_distance", wanted, "none")
    if settings.least_distance < pixel_size:
        wanted = f"at least one pixel, {pixel_size:g} A"
        raise expected("least_distance", wanted, f"{settings.least_distance:g} A")
    return math.ceil(settings.least_distance / pixel_size)


def tile_windows(size: int, reach: int) -> int:
    """Largest number of windows along a side of a tile, without its margins.

    Parameters
    ----------
    size : int
        L, side of a window, pixels.
    reach : int
        Particles closer than this, in pixels on both axes, exclude each other: the
        margin is one less.

    Returns
    -------
    int
        Windows, so many that those of a tile with its margins fill whole blocks, and
        that the margins are small beside them.
    """
    margin = reach - 1
    return BLOCK * -(-(_SIDE * size + 2 * margin) // BLOCK) - 2 * margin


def tiles_of(
    shape: tuple[int, ...], size: int, reach: int
) -> list[tuple[slice, slice]]:
    """Divide the windows of a micrograph into tiles, row by row.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of pixels.
    size, reach : int
        As in :func:`tile_windows`.

    Returns
    -------
    list of two slices
        Rows and columns of each tile's windows; of as many rows of tiles above the
        middle as below it, so that a micrograph has halves.

    Raises
    ------
    InputError
        If particles were to be farther apart than the micrograph is long.
    """
    if reach > max(size, *shape):
        wanted = f"at most the {max(shape)} pixels of a micrograph"
        raise expected("least_distance", wanted, f"{reach} pixels")
    side = tile_windows(size, reach)
    n_rows, n_columns = (n - size + 1 for n in shape)
    rows = _divided(n_rows, 2 * -(-n_rows // (2 * side)))
    columns = _divided(n_columns, -(-n_columns // side))
    return [(row, column) for row in rows for column in columns]


def _divided(n: int, n_parts: int) -> list[slice]:
    """Divide n windows along an axis as evenly as can be."""
    bounds = (n * part // n_parts for part in range(n_parts + 1))
    return [slice(*ends) for ends in pairwise(bounds) if ends[0] < ends[1]]


def region_of(
    tile: tuple[slice, slice], shape: tuple[int, int], size: int, reach: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Windows of a tile with its margins, as far as there are any.

    Parameters
    ----------
    tile : tuple of two slices
        Rows and columns of the tile's windows.
    shape : tuple of int
        Rows and columns of the micrograph.
    size, reach : int
        As in :func:`tile_windows`.

    Returns
    -------
    windows : tuple of two slices
        Rows and columns of the windows.
    pixels : tuple of two slices
        Rows and columns of the pixels that they cover.
    """
    rows, columns = (
        slice(max(0, part.start - reach + 1), min(n - size + 1, part.stop + reach - 1))
        for part, n in zip(tile, shape, strict=True)
    )
    below, right = (slice(s.start, s.stop + size - 1) for s in (rows, columns))
    return (rows, columns), (below, right)


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


def seen_pixels(
    shape: tuple[int, int], size: int, reach: int, seen: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Pixels that belong to some of the tiles of a micrograph.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the micrograph.
    size, reach : int
        As in :func:`tile_windows`.
    seen : bool, shape (n_tiles,)
        Whether each tile is one of them.

    Returns
    -------
    bool, shape (rows, columns)
        Whether each pixel belongs to them.
    """
    pixels = np.zeros(shape, bool)
    for tile, is_seen in zip(tiles_of(shape, size, reach), seen, strict=True):
        pixels[pixels_of(tile, shape, size)] = is_seen
    return pixels


def whole_windows_of_tiles(
    whole: NDArray[np.bool_], size: int, reach: int
) -> NDArray[np.intp]:
    """Count the whole windows of each tile of a micrograph.

    Parameters
    ----------
    whole : bool, shape (rows - L + 1, columns - L + 1)
        By :func:`whole_windows`.
    size, reach : int
        As in :func:`tile_windows`.

    Returns
    -------
    intp, shape (n_tiles,)
        Numbers of windows.
    """
    shape = tuple(n + size - 1 for n in whole.shape)
    tiles = tiles_of(shape, size, reach)
    return np.array([np.count_nonzero(whole[tile]) for tile in tiles], np.intp)


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
