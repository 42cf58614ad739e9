"""Rotation matrices of the real spherical harmonics, degree by degree."""

from __future__ import annotations

import numba
import numpy as np

from ._jit import STRICT, kernel, parallel_kernel


@kernel(STRICT)
def _product(  # type: ignore[no-untyped-def]
    degree_one, lower, i, a, b, ell
):
    """Entry (a, b) of the lower degree times entries of row i of degree 1."""
    row = degree_one[i + 1]
    top = ell - 1
    if b == ell:
        return row[2] * lower[a + top, 2 * top] - row[0] * lower[a + top, 0]
    if b == -ell:
        return row[2] * lower[a + top, 0] + row[0] * lower[a + top, 2 * top]
    return row[1] * lower[a + top, b + top]


@kernel(STRICT)
def _neighbours_inside(degree_one, lower, m, b, ell):  # type: ignore[no-untyped-def]
    """Products with the orders next to m that are closer to zero."""
    if m == 0:
        return _product(degree_one, lower, 1, 1, b, ell) + _product(
            degree_one, lower, -1, -1, b, ell
        )
    if m == 1:
        return np.sqrt(2.0) * _product(degree_one, lower, 1, 0, b, ell)
    if m == -1:
        return np.sqrt(2.0) * _product(degree_one, lower, -1, 0, b, ell)
    if m > 0:
        return _product(degree_one, lower, 1, m - 1, b, ell) - _product(
            degree_one, lower, -1, 1 - m, b, ell
        )
    return _product(degree_one, lower, 1, m + 1, b, ell) + _product(
        degree_one, lower, -1, -m - 1, b, ell
    )


@kernel(STRICT)
def _neighbours_outside(degree_one, lower, m, b, ell):  # type: ignore[no-untyped-def]
    """Products with the orders next to m that are farther from zero."""
    if m > 0:
        return _product(degree_one, lower, 1, m + 1, b, ell) + _product(
            degree_one, lower, -1, -m - 1, b, ell
        )
    return _product(degree_one, lower, 1, m - 1, b, ell) - _product(
        degree_one, lower, -1, 1 - m, b, ell
    )


@parallel_kernel(STRICT)
def raise_degree(degree_one: np.ndarray, lower: np.ndarray, wigner: np.ndarray) -> None:
    r"""Wigner matrices of one degree from those of the degree below.

    The caller starts from degree 1, the rotation matrices themselves in the order
    y, z, x of their axes.

    Parameters
    ----------
    degree_one : float64, shape (n_rotations, 3, 3)
        Wigner matrices of degree 1.
    lower : float64, shape (n_rotations, 2 ell - 1, 2 ell - 1)
        Wigner matrices of degree ell - 1, at least 1; orders ascend from 1 - ell.
    wigner : float64, shape (n_rotations, 2 ell + 1, 2 ell + 1)
        Output: Wigner matrices of degree ell, entry [k, m' + ell, m + ell].

    Returns
    -------
    None
        Writes `wigner`.

    Notes
    -----
    The D of (9) for real harmonics. Degree ell is the part of highest degree in the
    product of degrees 1 and ell - 1, hence with :math:`\mu = |m'|`

    .. math:: D^\ell_{m'm} = \frac{\sqrt{\ell^2 - \mu^2}\, U
              \pm \tfrac12 \sqrt{(1 + \delta_{\mu 0}) (\ell + \mu - 1)(\ell + \mu)}\, V
              - \tfrac12 \sqrt{(\ell - \mu - 1)(\ell - \mu)}\, W}
              {\sqrt{d}},

    where d is :math:`\ell^2 - m^2` or, at :math:`|m| = \ell`,
    :math:`2\ell(2\ell - 1)`; the sign of V is minus and W is absent at
    :math:`\mu = 0`; U, V and W are products of entries of both degrees: see
    J. Ivanic and K. Ruedenberg, J. Phys. Chem. 100 (1996) 6342 and, for signs,
    102 (1998) 9099. No angles, so no pole is special.

    Cost O(ell^2) per rotation. A recursion, hence strict arithmetic; the error is
    about 1e-14 at degree 40.
    """
    ell = wigner.shape[1] // 2
    for k in numba.prange(len(wigner)):
        for row in range(2 * ell + 1):
            m = row - ell
            size = abs(m)
            along = np.sqrt(float(ell * ell - m * m))
            inside = 0.5 * np.sqrt(float((ell + size - 1) * (ell + size)))
            outside = 0.5 * np.sqrt(float((ell - size - 1) * (ell - size)))
            if m == 0:
                inside *= -np.sqrt(2.0)
                outside = 0.0
            for column in range(2 * ell + 1):
                b = column - ell
                squared = ell * ell - b * b
                if squared == 0:
                    squared = 2 * ell * (2 * ell - 1)
                total = inside * _neighbours_inside(degree_one[k], lower[k], m, b, ell)
                # beyond the last order the lower degree has no entries to read
                if size < ell:
                    total += along * _product(degree_one[k], lower[k], 0, m, b, ell)
                if outside > 0.0:
                    total -= outside * _neighbours_outside(
                        degree_one[k], lower[k], m, b, ell
                    )
                wigner[k, row, column] = total / np.sqrt(float(squared))
