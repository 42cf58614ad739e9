"""The patch model: how a micrograph is cut, and what a patch shows of a particle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numbasaem.errors import expected
from numbasaem.micrographs.excluded_areas import free_squares

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from numbasaem.micrographs.preparation import Prepared

    from .protocol import ChangePixels


def patch_origins(shape: Sequence[int], size: int) -> NDArray[np.intp]:
    """Top-left corners (y, x) of the patches of a micrograph, row by row.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the micrograph, pixels.
    size : int
        L, side of a patch, pixels.

    Returns
    -------
    intp, shape (n_patches, 2)
        Corners of the non-overlapping patches that fit; a remainder of less than L
        pixels at the bottom and right is not used.
    """
    rows, columns = (np.arange(n // size) * size for n in shape)
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)


def cut_patches(micrograph: ArrayLike, size: int) -> NDArray[np.float32]:
    """Cut a micrograph into the non-overlapping patches of section III-A.

    Parameters
    ----------
    micrograph : array, shape (rows, columns)
        Pixels.
    size : int
        L, side of a patch and of a projection, pixels.

    Returns
    -------
    float32, shape (n_patches, L, L)
        Patches in the order of :func:`patch_origins`.

    Raises
    ------
    InputError
        If the micrograph is not two-dimensional or smaller than 2L on a side.
    """
    pixels = np.asarray(micrograph)
    if pixels.ndim != 2 or min(pixels.shape) < 2 * size:
        raise expected(
            "micrograph", f"at least {2 * size} pixels a side", f"shape {pixels.shape}"
        )
    rows, columns = (n // size for n in pixels.shape)
    whole = pixels[: rows * size, : columns * size]
    tiles = whole.reshape(rows, size, columns, size).swapaxes(1, 2)
    return np.ascontiguousarray(tiles.reshape(-1, size, size), dtype=np.float32)


def untouched_patches(excluded: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Patches that touch no excluded area.

    Parameters
    ----------
    excluded : bool, shape (rows, columns)
        Excluded pixels of the micrograph.
    size : int
        L, side of a patch, pixels.

    Returns
    -------
    bool, shape (n_patches,)
        One for each, in the order of :func:`patch_origins`.
    """
    return free_squares(excluded, size).ravel()


def cut_live_patches(
    prepared: Iterable[Prepared], size: int, change: ChangePixels | None = None
) -> Iterator[NDArray[np.float32]]:
    """Cut prepared micrographs into patches.

    Parameters
    ----------
    prepared : iterable of Prepared
        Micrographs.
    size : int
        L, side of a patch, pixels.
    change : callable, optional
        Takes the pixels of each to those that are cut.

    Yields
    ------
    float32, shape (n_patches, L, L)
        Patches of each micrograph, without those that touch an excluded area.
    """
    for micrograph in prepared:
        live = untouched_patches(micrograph.excluded, size)
        pixels = micrograph.pixels if change is None else change(micrograph.pixels)
        yield cut_patches(pixels, size)[live]


def check_patches(patches: ArrayLike, size: int) -> NDArray[np.float32]:
    """Patches as the kernels take them: contiguous float32, of one size, finite.

    Parameters
    ----------
    patches : array, shape (n_patches, L, L)
        Patches; converted if they are of another type or layout.
    size : int
        L, the side expected.

    Returns
    -------
    float32, shape (n_patches, L, L)
        The same patches, without a copy where none is needed.

    Raises
    ------
    InputError
        If the shape is another one or a pixel is NaN, infinite or beyond float32.
    """
    given = np.asarray(patches)
    if given.ndim != 3 or given.shape[1:] != (size, size):
        raise expected("patches", f"shape (P, {size}, {size})", f"shape {given.shape}")
    with np.errstate(over="ignore"):
        checked = np.require(given, np.float32, ["C", "W"])
    if not np.isfinite(checked).all():
        n_bad = int((~np.isfinite(checked)).any(axis=(1, 2)).sum())
        raise expected("patches", "finite pixels", f"NaN or infinity in {n_bad}")
    return checked


def crop_shift_pad(image: ArrayLike, shift: Sequence[int]) -> NDArray[np.float64]:
    """What a patch shows of a projection: C T Z of equations (18)-(19).

    Parameters
    ----------
    image : array, shape (L, L)
        Projection.
    shift : (int, int)
        (s_y, s_x), each in 0..2L-1; a coordinate equal to L leaves the patch empty.

    Returns
    -------
    float64, shape (L, L)
        patch[i, j] = Z[(i + s_y) mod 2L, (j + s_x) mod 2L], with Z the projection
        padded with zeros to 2L.

    Raises
    ------
    InputError
        If the image is not square or a shift is outside 0..2L-1.
    """
    pixels = np.asarray(image, dtype=np.float64)
    if pixels.ndim != 2 or pixels.shape[0] != pixels.shape[1]:
        raise expected("image", "a square array", f"shape {pixels.shape}")
    size = len(pixels)
    if not all(0 <= s < 2 * size for s in shift):
        raise expected("shift", f"values in 0..{2 * size - 1}", tuple(shift))
    padded = np.pad(pixels, (0, size))
    rows, columns = ((np.arange(size) + s) % (2 * size) for s in shift)
    return padded[np.ix_(rows, columns)]
