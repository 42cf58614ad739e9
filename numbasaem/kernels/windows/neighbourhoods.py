"""Sums of the evidence over the neighbourhoods of all windows, whatever its range."""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from .._jit import STRICT, kernel, parallel_kernel

_FARTHEST = 200
"""Power of two by which a term may be smaller than a float64 sum, far beyond what
changes the sum."""


@kernel(STRICT)
def _sum_of(value, exponent, other, other_exponent, powers):  # type: ignore[no-untyped-def]
    """Value * 2**exponent + other * 2**other_exponent, over the larger power; it."""
    highest = max(exponent, other_exponent)
    value *= powers[min(highest - exponent, _FARTHEST)]
    return value + other * powers[min(highest - other_exponent, _FARTHEST)], highest


@kernel(STRICT)
def _running_sums(significand, exponent, order, length, powers, sums, exponents):  # type: ignore[no-untyped-def]
    """Sums within segments, from the first entry or, with order -1, from the last."""
    n = significand.size
    for start in range(0, n, length):
        stop = min(start + length, n)
        value, highest = 0.0, np.int64(0)
        for i in range(stop - start):
            x = start + i if order > 0 else stop - 1 - i
            value, highest = _sum_of(
                value, highest, significand[x], np.int64(exponent[x]), powers
            )
            sums[x], exponents[x] = value, highest


@kernel(STRICT)
def _add_line(  # type: ignore[no-untyped-def]
    significand, exponent, reach, powers, room, room_exponents, sums, exponents
):
    """Sums over up to `reach` entries on either side, relative to the largest.

    A neighbourhood is the end of one segment of its length and the beginning of the
    next, so that its sum is that of two running sums, however far it reaches.
    """
    n, length = significand.size, 2 * reach + 1
    begin, end = room[0], room[1]
    begins, ends = room_exponents[0], room_exponents[1]
    _running_sums(significand, exponent, 1, length, powers, begin, begins)
    _running_sums(significand, exponent, -1, length, powers, end, ends)
    boundary = length  # of the segment of `first`
    for x in range(n):
        first, last = x - reach, min(x + reach, n - 1)
        if first >= boundary:
            boundary += length
        if first <= 0:
            sums[x], exponents[x] = begin[last], begins[last]
        elif last < boundary:
            sums[x], exponents[x] = end[first], ends[first]
        else:
            sums[x], exponents[x] = _sum_of(
                end[first], ends[first], begin[last], begins[last], powers
            )


@parallel_kernel(STRICT)
def neighbourhood_sums(size, significand, exponent, sums, exponents, log2_sum):  # type: ignore[no-untyped-def]
    """Logarithm of one plus the evidence of all windows that overlap each window.

    Parameters
    ----------
    size : int
        L, side of a window.
    significand : float64, shape (rows, columns)
        Evidence of each window over 2**exponent, at least 0.
    exponent : int32, shape of `significand`
        Exponents of at least 0, and 0 where the evidence is 0.
    sums, exponents : float64 and int64, shape of `significand`
        Work space.
    log2_sum : float32, shape of `significand`
        Output: log2(1 + sum of the evidence of windows less than L away on both axes).

    Returns
    -------
    None
        Writes `log2_sum`.

    Notes
    -----
    The denominator of w(r, k), first along rows, then along columns. All terms of a sum
    are at least 0 and are taken relative to the largest, so that nothing cancels or
    overflows, whatever their range.
    """
    n_rows, n_columns = significand.shape
    powers = np.empty(_FARTHEST + 1)
    for step in range(_FARTHEST):
        powers[step] = math.ldexp(1.0, -step)
    powers[_FARTHEST] = 0.0
    for y in prange(n_rows):
        _add_line(
            significand[y],
            exponent[y],
            size - 1,
            powers,
            np.empty((2, n_columns)),
            np.empty((2, n_columns), np.int64),
            sums[y],
            exponents[y],
        )
    for x in prange(n_columns):
        value, highest = np.empty(n_rows), np.empty(n_rows, np.int64)
        _add_line(
            np.ascontiguousarray(sums[:, x]),
            np.ascontiguousarray(exponents[:, x]),
            size - 1,
            powers,
            np.empty((2, n_rows)),
            np.empty((2, n_rows), np.int64),
            value,
            highest,
        )
        for y in range(n_rows):
            level = max(highest[y], 0)
            total = math.ldexp(value[y], highest[y] - level) + math.ldexp(1.0, -level)
            log2_sum[y, x] = level + math.log2(total)
