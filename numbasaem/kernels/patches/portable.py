"""Plain-Numba twins of the vector operations in `numbasaem.kernels.patches.direct`.

They take the same flat arrays and offsets, define what the vector code computes, and
are the path of processors without vector registers that Numba can use.
"""

from __future__ import annotations

import math

from .._jit import STRICT, kernel
from ..layout import LOG2_FLUSH


@kernel(STRICT)
def weigh(side, lanes, operands):  # type: ignore[no-untyped-def]
    """Weights of all shifts of a group of patches, for two rotations.

    For displacement (u - (L-1), v - (L-1)), u, v = 0..2L-2, and rotation r = 0, 1

        x[r, u, v] = bias[r, u, v]
                     + sum_{i, j} patch[i, j] template[r, i+u-(L-1), j+v-(L-1)]

    over the pixels that both the patch and the projection have, and

        weight[r, u, v] = 2**(x[r, u, v] - level),

    zero below 2**-50, so that no product is ever denormal: 1e6 such weights are less
    than 1e-9 of the posterior. No x may exceed the level by 127 or more.

    Parameters
    ----------
    side, lanes : tuple of int
        As many zeros as L, and as patches side by side.
    operands : tuple
        `patch` (L, L, lanes); `template` (2, L, L); `bias` (2, 2L-1, 2L-1); `level`
        (lanes); outputs: `weight` (2, 2L-1, 2L-1, lanes), `total` (2, lanes), the sum
        of each rotation's weights, and `peak` (lanes), the largest x of each patch;
        each a flat float32 array followed by its offset.

    Returns
    -------
    None
        Writes `weight`, `total` and `peak`.

    Notes
    -----
    Equation (24) and the numerator of (23), with 1/sigma**2 in the template, energy
    and prior in the bias. L**4 multiply-adds a patch and rotation.
    """
    size, n_lanes = len(side), len(lanes)
    patch, p, template, t, bias, b, level, f, weight, w, total, a, peak, h = operands
    n = 2 * size - 1
    for lane in range(n_lanes):
        peak[h + lane] = -math.inf
        for r in range(2):
            total[a + r * n_lanes + lane] = 0
            for u in range(n):
                for v in range(n):
                    down, right = u - size + 1, v - size + 1
                    shift = (r * n + u) * n + v
                    x = bias[b + shift]
                    for i in range(max(0, -down), min(size, size - down)):
                        for j in range(max(0, -right), min(size, size - right)):
                            height = ((r * size + i + down) * size) + j + right
                            pixel = patch[p + (i * size + j) * n_lanes + lane]
                            x += pixel * template[t + height]
                    peak[h + lane] = max(peak[h + lane], x)
                    exponent = x - level[f + lane]
                    value = x * 0
                    if exponent > LOG2_FLUSH:
                        value += math.exp(exponent * math.log(2.0))
                    weight[w + shift * n_lanes + lane] = value
                    total[a + r * n_lanes + lane] += value


@kernel(STRICT)
def add_weights(side, lanes, operands):  # type: ignore[no-untyped-def]
    """Add the weights of two rotations to the mass of each shift.

    Parameters
    ----------
    side, lanes : tuple of int
        As many zeros as L, and as patches side by side.
    operands : tuple
        `weight` (2, (2L-1)**2, lanes); in/out: `shift_mass` ((2L-1)**2, lanes); each
        followed by its offset.

    Returns
    -------
    None
        Writes `shift_mass`.

    Notes
    -----
    The sum over rotations in equation (36).
    """
    size, n_lanes = len(side), len(lanes)
    weight, w, shift_mass, m = operands
    n = (2 * size - 1) ** 2 * n_lanes
    for u in range(n):
        shift_mass[m + u] += weight[w + u] + weight[w + n + u]


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
