"""Sums of products of a micrograph's pixels at fixed distances from each other."""

from __future__ import annotations

import numba
import numpy as np

from ._jit import FAST, kernel, parallel_kernel

GROUP = 4
"""Lags of a group: a tile is the GROUP x GROUP sums of two groups."""
TILE = GROUP * GROUP
"""Sums of a tile."""
_STRIP_ROWS = 4
"""Rows of a block that are worked on at a time: their shifted copies fit a cache."""


@kernel(FAST)
def _shifted(
    pixels: np.ndarray, top: int, left: int, stride: int, strip: np.ndarray
) -> None:
    """Copy rows from `top`, columns from `left`, zero outside of the micrograph."""
    n_rows, n_columns = pixels.shape
    for row in range(strip.size // stride):
        for column in range(stride):
            y, x = top + row, left + column
            inside = 0 <= y < n_rows and 0 <= x < n_columns
            strip[row * stride + column] = pixels[y, x] if inside else np.float32(0)


@kernel(FAST)
def _multiply(
    centres: np.ndarray,
    strip: np.ndarray,
    offsets: np.ndarray,
    group: int,
    products: np.ndarray,
) -> None:
    """Products of the centres with a group of shifted strips.

    The row after the last lag holds the centres themselves, those after it zeros.
    """
    for number in range(GROUP):
        index = group * GROUP + number
        row = products[number]
        if index < offsets.size:
            shifted = strip[offsets[index] : offsets[index] + centres.size]
            for i in range(centres.size):
                row[i] = centres[i] * shifted[i]
        elif index == offsets.size:
            row[:] = centres
        else:
            row[:] = np.float32(0)


@kernel(FAST)
def _add_tile(
    products: np.ndarray, strip: np.ndarray, offsets: np.ndarray, sums: np.ndarray
) -> None:
    """Add the inner products of four rows with four shifted strips, in registers."""
    n = products.shape[1]
    p0, p1, p2, p3 = products[0], products[1], products[2], products[3]
    s0 = strip[offsets[0] : offsets[0] + n]
    s1 = strip[offsets[1] : offsets[1] + n]
    s2 = strip[offsets[2] : offsets[2] + n]
    s3 = strip[offsets[3] : offsets[3] + n]
    a00 = a01 = a02 = a03 = np.float32(0)
    a10 = a11 = a12 = a13 = np.float32(0)
    a20 = a21 = a22 = a23 = np.float32(0)
    a30 = a31 = a32 = a33 = np.float32(0)
    for i in range(n):
        a00 += p0[i] * s0[i]
        a01 += p0[i] * s1[i]
        a02 += p0[i] * s2[i]
        a03 += p0[i] * s3[i]
        a10 += p1[i] * s0[i]
        a11 += p1[i] * s1[i]
        a12 += p1[i] * s2[i]
        a13 += p1[i] * s3[i]
        a20 += p2[i] * s0[i]
        a21 += p2[i] * s1[i]
        a22 += p2[i] * s2[i]
        a23 += p2[i] * s3[i]
        a30 += p3[i] * s0[i]
        a31 += p3[i] * s1[i]
        a32 += p3[i] * s2[i]
        a33 += p3[i] * s3[i]
    tile = (a00, a01, a02, a03, a10, a11, a12, a13)
    for i in range(8):
        sums[i] += tile[i]
    tile = (a20, a21, a22, a23, a30, a31, a32, a33)
    for i in range(8):
        sums[8 + i] += tile[i]


@kernel(FAST)
def _block_sums(
    pixels: np.ndarray,
    counted: np.ndarray,
    block: tuple[int, int, int, int],
    lags: np.ndarray,
    tiles: np.ndarray,
    sums: np.ndarray,
) -> int:
    """Write the sums of one block; return how many pixels count in it."""
    top, left, n_rows, n_columns = block
    margin = np.abs(lags).max()
    stride = n_columns + 2 * margin
    offsets = lags[:, 0] * stride + lags[:, 1]
    n_groups = (offsets.size + GROUP - 1) // GROUP
    padded = np.zeros(n_groups * GROUP, np.int64)
    padded[: offsets.size] = offsets
    length = (_STRIP_ROWS - 1) * stride + n_columns
    strip = np.empty((_STRIP_ROWS + margin) * stride, np.float32)
    centres = np.empty(length, np.float32)
    products = np.empty((GROUP, length), np.float32)
    n_counted = 0
    sums[:] = 0.0
    for row in range(0, n_rows, _STRIP_ROWS):
        _shifted(pixels, top + row, left - margin, stride, strip)
        centres[:] = np.float32(0)
        for y in range(row, min(row + _STRIP_ROWS, n_rows)):
            for x in range(n_columns):
                if (
                    top + y < counted.shape[0]
                    and left + x < counted.shape[1]
                    and counted[top + y, left + x]
                ):
                    value = pixels[top + y, left + x]
                    centres[(y - row) * stride + x] = value
                    sums[-1] += value
                    n_counted += 1
        group = -1
        for tile in range(len(tiles)):
            if tiles[tile, 0] != group:
                group = tiles[tile, 0]
                _multiply(centres, strip[margin:], offsets, group, products)
            first = tiles[tile, 1] * GROUP
            _add_tile(
                products,
                strip[margin:],
                padded[first : first + GROUP],
                sums[tile * TILE : (tile + 1) * TILE],
            )
    return n_counted


@parallel_kernel(FAST)
def autocorrelation_sums(
    pixels: np.ndarray,
    counted: np.ndarray,
    block_shape: tuple[int, int],
    lags: np.ndarray,
    tiles: np.ndarray,
    moments: np.ndarray,
    block_pixels: np.ndarray,
) -> None:
    r"""Sum products of two and of three pixels over the blocks of a micrograph.

    Parameters
    ----------
    pixels : float32, shape (rows, columns)
        Micrograph P.
    counted : bool, shape (rows, columns)
        Pixels x that the sums run over; from each of them all lags lead to pixels of
        the micrograph.
    block_shape : (int, int)
        Rows and columns of a block; blocks are numbered row by row.
    lags : int64, shape (n_lags, 2)
        Lags u as (y, x): y > 0, or y = 0 and x >= 0.
    tiles : int64, shape (n_tiles, 2)
        Pairs of groups of :data:`GROUP` lags each, in the order of the first. After
        the last lag the first group of a pair may hold one that stands for no pixel:
        its sums are of two.
    moments : float64, shape (n_chunks, 3, 16 n_tiles + 1)
        Output, for the blocks of each chunk: the sum over blocks of S_b, of S_b
        squared and of S_b n_b, where S_b are a block's sums, tile after tile and then
        the sum of its pixels, and n_b its pixels that count.
    block_pixels : int64, shape (n_blocks,)
        Output: n_b.

    Returns
    -------
    None
        Writes `moments` and `block_pixels`.

    Notes
    -----
    The sums of a block are

    .. math:: S[u, v] = \sum_x P(x) P(x + u) P(x + v).

    Sixteen of them stay in registers while x runs over a few rows, in float32; what
    rows add up to is float64. A chunk is a fixed number of blocks, one after the other
    on one thread. Plain sums of products, hence the reassociating flags.
    """
    n_rows, n_columns = block_shape
    across = (pixels.shape[1] + n_columns - 1) // n_columns
    n_chunks = len(moments)
    n_blocks = len(block_pixels)
    for chunk in numba.prange(n_chunks):
        sums = np.empty(moments.shape[2])
        own = moments[chunk]
        own[:] = 0.0
        for number in range(
            chunk * n_blocks // n_chunks, (chunk + 1) * n_blocks // n_chunks
        ):
            top = number // across * n_rows
            left = number % across * n_columns
            block = (top, left, n_rows, n_columns)
            n_counted = _block_sums(pixels, counted, block, lags, tiles, sums)
            block_pixels[number] = n_counted
            for i in range(sums.size):
                own[0, i] += sums[i]
                own[1, i] += sums[i] * sums[i]
                own[2, i] += sums[i] * n_counted
