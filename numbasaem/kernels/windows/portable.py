"""Plain-Numba twins of the vector operations in `numbasaem.kernels.windows.direct`.

They take the same flat arrays and offsets, define what the vector code computes, and
are the path of processors without vector registers that Numba can use.
"""

from __future__ import annotations

import math

from .._jit import STRICT, kernel
from ..layout import HEADROOM, LOG2_FLUSH, TILE


@kernel(STRICT)
def add_evidence(side, lanes, operands):  # type: ignore[no-untyped-def]
    """Add a panel's rotations to the evidence of every window of a tile.

    For the window at (y, x), y, x = 0..T-1, and rotation a = 0..2*lanes-1

        e[y, x, a] = bias[a] + sum_{i, j} pixels[y+i, x+j] template[i, j, a],

    of which rotations a and lanes + a share a sum:

        total * 2**level += 2**e[y, x, a] + 2**e[y, x, lanes + a].

    The level is a whole number, 0 at first, and moves up to the exponent where that is
    above it by more than `HEADROOM`; powers below 2**-50 of it count as zero.

    Parameters
    ----------
    side, lanes : tuple of int
        As many zeros as L, and as rotations side by side in a register.
    operands : tuple
        `pixels` (T+L-1, T+L-1) with T = `TILE`; `template` (L, L, 2, lanes); `bias`
        (2, lanes); in/out: `level` and `total` (T, T, lanes); each a flat float32
        array followed by its offset.

    Returns
    -------
    None
        Writes `level` and `total`.

    Notes
    -----
    S(r) = sum_k pi_k exp a(r, k), with 1/sigma**2 in the template, the energy and all
    priors in the bias. L**2 multiply-adds a window and rotation.
    """
    size, n_lanes = len(side), len(lanes)
    pixels, p, template, t, bias, b, level, v, total, s = operands
    for y in range(TILE):
        for x in range(TILE):
            for lane in range(n_lanes):
                entry = (y * TILE + x) * n_lanes + lane
                for a in (lane, n_lanes + lane):
                    e = bias[b + a]
                    for i in range(size):
                        for j in range(size):
                            pixel = p + (y + i) * (TILE + size - 1) + x + j
                            height = t + (i * size + j) * 2 * n_lanes + a
                            e += pixels[pixel] * template[height]
                    if e > level[v + entry] + HEADROOM:
                        step = level[v + entry] - round(e)
                        total[s + entry] *= math.exp(step * math.log(2.0))
                        level[v + entry] = round(e)
                    exponent = e - level[v + entry]
                    if exponent > LOG2_FLUSH:
                        total[s + entry] += math.exp(exponent * math.log(2.0))


@kernel(STRICT)
def weigh_windows(side, lanes, operands):  # type: ignore[no-untyped-def]
    """Weights of a panel's rotations in every window of a tile.

        weight[y, x, a] = 2**(e[y, x, a] - log2_sum[y, x]),

    zero below 2**-50, with the exponents e of :func:`add_evidence`.

    Parameters
    ----------
    side, lanes : tuple of int
        As many zeros as L, and as rotations side by side in a register.
    operands : tuple
        `pixels`, `template` and `bias` as in :func:`add_evidence`; `log2_sum` (T, T);
        output: `weight` (T, T, 2, lanes); in/out: `mass` (2, lanes), to which the
        weights of all windows are added; each followed by its offset.

    Returns
    -------
    None
        Writes `weight` and `mass`.

    Notes
    -----
    w(r, k), once the sum over the neighbourhood is known. L**2 multiply-adds a window
    and rotation.
    """
    size, n_lanes = len(side), len(lanes)
    pixels, p, template, t, bias, b, log2_sum, z, weight, w, mass, m = operands
    for y in range(TILE):
        for x in range(TILE):
            window = y * TILE + x
            for a in range(2 * n_lanes):
                e = bias[b + a]
                for i in range(size):
                    for j in range(size):
                        pixel = p + (y + i) * (TILE + size - 1) + x + j
                        height = t + (i * size + j) * 2 * n_lanes + a
                        e += pixels[pixel] * template[height]
                exponent = e - log2_sum[z + window]
                value = e * 0
                if exponent > LOG2_FLUSH:
                    value += math.exp(exponent * math.log(2.0))
                weight[w + window * 2 * n_lanes + a] = value
                mass[m + a] += value


@kernel(STRICT)
def add_windows(side, lanes, operands):  # type: ignore[no-untyped-def]
    """Add up all windows of a tile, each times its weight.

        sums[i, j, a] += sum_{y, x} weight[y, x, a] pixels[y+i, x+j]

    Parameters
    ----------
    side, lanes : tuple of int
        As many zeros as L, and as rotations side by side in a register.
    operands : tuple
        `pixels` as in :func:`add_evidence`; `weight` (T, T, 2, lanes); in/out: `sums`
        (L, L, 2, lanes); each followed by its offset.

    Returns
    -------
    None
        Writes `sums`.

    Notes
    -----
    A tile's share of b_k = sum_r w(r, k) W_r. L**2 multiply-adds a window and rotation.
    """
    size, n_lanes = len(side), len(lanes)
    pixels, p, weight, w, sums, s = operands
    for i in range(size):
        for j in range(size):
            for y in range(TILE):
                for x in range(TILE):
                    pixel = pixels[p + (y + i) * (TILE + size - 1) + x + j]
                    for a in range(2 * n_lanes):
                        share = weight[w + (y * TILE + x) * 2 * n_lanes + a]
                        sums[s + (i * size + j) * 2 * n_lanes + a] += pixel * share
