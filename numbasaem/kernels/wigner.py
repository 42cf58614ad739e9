"""Rotation matrices of the real spherical harmonics."""

from __future__ import annotations

import numba
import numpy as np

from ._jit import FAST, kernel, parallel_kernel


@kernel(FAST)
def _dot(left, right):  # type: ignore[no-untyped-def]
    """Sum of the products of two rows as long as the first."""
    total = 0.0
    for n in range(len(left)):
        total += left[n] * right[n]
    return total


@parallel_kernel(FAST)
def wigner_matrices(
    cosines: np.ndarray, sines: np.ndarray, tilt_series: np.ndarray, wigner: np.ndarray
) -> None:
    r"""Fill in the Wigner matrices of one degree for every rotation.

    The caller has split the rotations into angles about z, y and z, tabulated their
    multiples, and holds one table per degree for the angle about y.

    Parameters
    ----------
    cosines, sines : float64, shape (3, n_rotations, at least ell + 1)
        Cosine and sine of n times each ZYZ angle, for n from 0.
    tilt_series : float64, shape (2, ell + 1, ell + 1, ell + 1)
        Fourier coefficients T[i, p, q, n] of the rotation by b about y, between the
        harmonics of orders p and q: i = 0 for the cosines of longitude, i = 1 for
        the sines (zero where p or q is 0). Waves are cos(n b) where p + q is even
        and sin(n b) where it is odd.
    wigner : float64, shape (n_rotations, 2 ell + 1, 2 ell + 1)
        Output: entry [k, m' + ell, m + ell].

    Returns
    -------
    None
        Writes `wigner`.

    Notes
    -----
    The D of (9) in real harmonics, for active rotations
    :math:`R = R_z(a) R_y(b) R_z(c)`. A rotation about z mixes orders m and -m only,
    one about y mixes cosines with cosines (:math:`C`) and sines with sines
    (:math:`S`): for p, q >= 0

    .. math::
        D_{p,q} &= C_{pq} \cos pa \cos qc - S_{pq} \sin pa \sin qc \\
        D_{-p,q} &= C_{pq} \sin pa \cos qc + S_{pq} \cos pa \sin qc \\
        D_{p,-q} &= -C_{pq} \cos pa \sin qc - S_{pq} \sin pa \cos qc \\
        D_{-p,-q} &= -C_{pq} \sin pa \sin qc + S_{pq} \cos pa \cos qc

    Cost O(n_rotations ell^3). Plain sums of bounded terms, hence the reassociating
    flags; every entry is summed by one thread.
    """
    ell = wigner.shape[1] // 2
    for k in numba.prange(wigner.shape[0]):
        for p in range(ell + 1):
            cos_a, sin_a = cosines[0, k, p], sines[0, k, p]
            for q in range(ell + 1):
                cos_c, sin_c = cosines[2, k, q], sines[2, k, q]
                waves = cosines[1, k] if (p + q) % 2 == 0 else sines[1, k]
                c = _dot(tilt_series[0, p, q], waves)
                s = _dot(tilt_series[1, p, q], waves)
                # for p or q = 0 two of these are one entry: the later is the right one
                wigner[k, ell - p, ell - q] = s * cos_a * cos_c - c * sin_a * sin_c
                wigner[k, ell + p, ell - q] = -c * cos_a * sin_c - s * sin_a * cos_c
                wigner[k, ell - p, ell + q] = c * sin_a * cos_c + s * cos_a * sin_c
                wigner[k, ell + p, ell + q] = c * cos_a * cos_c - s * sin_a * sin_c
