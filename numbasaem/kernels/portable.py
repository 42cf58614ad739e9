"""Plain-Numba twins of the vector operations in `numbasaem.kernels.simd`.

They take the same flat arrays and offsets, define what the vector code computes, and
are the path of processors without vector registers that Numba can use.
"""

from __future__ import annotations

import math

from ._jit import STRICT, kernel

LOG2_FLUSH = -50.0
"""Weights below 2**-50 of the largest become zero: products never get denormal."""


@kernel(STRICT)
def correlate(side, lanes, operands):  # type: ignore[no-untyped-def]
    """Base-2 log-weights of all shifts of a group of patches, for two rotations.

    For displacement (u - (L-1), v - (L-1)), u, v = 0..2L-2, and rotation r = 0, 1

        out[r, u, v] = bias[r, u, v]
                       + sum_{i, j} patch[i, j] template[r, i+u-(L-1), j+v-(L-1)]

    over the pixels that both the patch and the projection have.

    Parameters
    ----------
    side, lanes : tuple of int
        As many zeros as L, and as patches side by side.
    operands : tuple
        `patch` (L, L, lanes); `template` (2, L, L); `bias` (2, 2L-1, 2L-1); outputs:
        `out` (2, 2L-1, 2L-1, lanes) and `peak` (lanes), the largest value of each
        patch; each a flat float32 array followed by its offset.

    Returns
    -------
    None
        Writes `out` and `peak`.

    Notes
    -----
    The exponent of equation (24), with 1/sigma**2 in the template, energy and prior
    in the bias. L**4 multiply-adds a patch and rotation.
    """
    size, n_lanes = len(side), len(lanes)
    patch, p, template, t, bias, b, out, o, peak, h = operands
    n = 2 * size - 1
    for lane in range(n_lanes):
        peak[h + lane] = -math.inf
        for r in range(2):
            for u in range(n):
                for v in range(n):
                    down, right = u - size + 1, v - size + 1
                    at = (r * n + u) * n + v
                    value = bias[b + at]
                    for i in range(max(0, -down), min(size, size - down)):
                        for j in range(max(0, -right), min(size, size - right)):
                            seen = ((r * size + i + down) * size) + j + right
                            pixel = patch[p + (i * size + j) * n_lanes + lane]
                            value += pixel * template[t + seen]
                    out[o + at * n_lanes + lane] = value
                    peak[h + lane] = max(peak[h + lane], value)


@kernel(STRICT)
def exponentiate(side, lanes, operands):  # type: ignore[no-untyped-def]
    """Turn log-weights into weights 2**(x - reference) and add them up.

    Weights below 2**-50 become zero: no product is ever denormal, and 1e6 of them
    are less than 1e-9 of the posterior.

    Parameters
    ----------
    side, lanes : tuple of int
        As many zeros as L, and as patches side by side.
    operands : tuple
        In/out: `weight` ((2L-1)**2, lanes); `reference` (lanes); in/out: `shift_mass`
        ((2L-1)**2, lanes), increased by the weights; output: `total` (lanes), their
        sum; each followed by its offset.

    Returns
    -------
    None
        Writes `weight`, `shift_mass` and `total`.

    Notes
    -----
    Numerator of equation (23).
    """
    size, n_lanes = len(side), len(lanes)
    weight, w, reference, f, shift_mass, m, total, t = operands
    for lane in range(n_lanes):
        total[t + lane] = 0
        for u in range((2 * size - 1) ** 2):
            at = u * n_lanes + lane
            exponent = weight[w + at] - reference[f + lane]
            value = weight[w + at] * 0
            if exponent > LOG2_FLUSH:
                value += math.exp(exponent * math.log(2.0))
            weight[w + at] = value
            shift_mass[m + at] += value
            total[t + lane] += value


@kernel(STRICT)
def box_sums(side, lanes, operands):  # type: ignore[no-untyped-def]
    """Sum, for each projection pixel, the weights of the shifts that show it.

    Projection pixel t is inside the patch for displacements t-(L-1)..t, hence

        visible[y, x] = sum_{u = y..y+L-1} sum_{v = x..x+L-1} weight[u, v].

    Parameters
    ----------
    side, lanes : tuple of int
        As many zeros as L, and as patches side by side.
    operands : tuple
        `weight` (2L-1, 2L-1, lanes); scratch `along_rows` (2L-1, L, lanes); output:
        `visible` (L, L, lanes); each followed by its offset.

    Returns
    -------
    None
        Writes `along_rows` and `visible`.

    Notes
    -----
    One patch's share of the visible weight m_k = sum_l w_l V_l.
    """
    size, n_lanes = len(side), len(lanes)
    weight, w, along_rows, a, visible, v = operands
    n = 2 * size - 1
    for lane in range(n_lanes):
        for u in range(n):
            for x in range(size):
                value = weight[w] * 0
                for k in range(size):
                    value += weight[w + (u * n + x + k) * n_lanes + lane]
                along_rows[a + (u * size + x) * n_lanes + lane] = value
        for y in range(size):
            for x in range(size):
                value = weight[w] * 0
                for k in range(size):
                    value += along_rows[a + ((y + k) * size + x) * n_lanes + lane]
                visible[v + (y * size + x) * n_lanes + lane] = value


@kernel(STRICT)
def adjoint(side, lanes, operands):  # type: ignore[no-untyped-def]
    """Weighted patch moved back to where the projection has it.

        weighted[y, x] = sum_{i, j} patch[i, j] weight[y-i + L-1, x-j + L-1]

    Parameters
    ----------
    side, lanes : tuple of int
        As many zeros as L, and as patches side by side.
    operands : tuple
        `patch` (L, L, lanes); `weight` (2L-1, 2L-1, lanes); output: `weighted`
        (L, L, lanes); each followed by its offset.

    Returns
    -------
    None
        Writes `weighted`.

    Notes
    -----
    One patch's share of b_k = sum_l w_l unshift_l(I_p), which with Phi_k gives
    equation (30). L**4 multiply-adds.
    """
    size, n_lanes = len(side), len(lanes)
    patch, p, weight, w, weighted, b = operands
    n = 2 * size - 1
    for lane in range(n_lanes):
        for y in range(size):
            for x in range(size):
                value = patch[p] * 0
                for i in range(size):
                    for j in range(size):
                        u = (y - i + size - 1) * n + x - j + size - 1
                        value += (
                            patch[p + (i * size + j) * n_lanes + lane]
                            * weight[w + u * n_lanes + lane]
                        )
                weighted[b + (y * size + x) * n_lanes + lane] = value


@kernel(STRICT)
def add_lanes(side, lanes, operands):  # type: ignore[no-untyped-def]
    """Add up the two images of all patches of a group, each times its own factor.

        total[pixel] += sum_lane scale[lane] images[pixel, lane]

    Parameters
    ----------
    side, lanes : tuple of int
        As many zeros as L, and as patches side by side.
    operands : tuple
        `images` (n, lanes), with n the next multiple of `lanes` from 2 L**2 on;
        `scale` (lanes); in/out: `total` (n); each followed by its offset.

    Returns
    -------
    None
        Writes `total`.

    Notes
    -----
    Division by the denominator of equation (23), once it is known.
    """
    size, n_lanes = len(side), len(lanes)
    images, i, scale, s, total, t = operands
    for pixel in range(-(-2 * size * size // n_lanes) * n_lanes):
        for lane in range(n_lanes):
            total[t + pixel] += images[i + pixel * n_lanes + lane] * scale[s + lane]
