"""Wigner matrices: how rotations mix the real spherical harmonics of a degree."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg

from numbasaem.kernels.wigner import wigner_matrices

from .rotations import check_rotations, zyz_angles

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def real_wigner(rotations: ArrayLike, ell_max: int) -> tuple[NDArray[np.float64], ...]:
    """Wigner matrices in the real spherical harmonics.

    Parameters
    ----------
    rotations : array, shape (K, 3, 3)
        Rotation matrices on (x, y, z) columns.
    ell_max : int
        Highest degree, at least 0.

    Returns
    -------
    tuple of float64, shape (K, 2 ell + 1, 2 ell + 1) for entry ell
        Matrices D of each degree, orders from -ell to ell. The rotated function
        f(R^T r) has coefficients x'_m' = sum_m D[k, m', m] x_m.

    Raises
    ------
    InputError
        If `rotations` are not rotation matrices.

    Notes
    -----
    The D of (9), for real coefficients. All factors are orthogonal, so errors do not
    grow with the degree as they do in sums of factorials and in recursions over it.
    """
    angles = zyz_angles(check_rotations(rotations))
    multiples = angles[:, :, np.newaxis] * np.arange(ell_max + 1)
    cosines, sines = np.cos(multiples), np.sin(multiples)
    matrices = []
    for ell in range(ell_max + 1):
        wigner = np.empty((angles.shape[1], 2 * ell + 1, 2 * ell + 1))
        wigner_matrices(cosines, sines, _tilt_series(ell), wigner)
        matrices.append(wigner)
    return tuple(matrices)


@lru_cache(maxsize=128)
def _tilt_series(ell: int) -> NDArray[np.float64]:
    """Fourier series of the rotation about y, as the kernel takes them.

    With B the quarter turn that takes z to y, Ry(b) = B Rz(b) B^T, and Rz(b) holds
    cos(n b) on the diagonal and -+ sin(n b) between orders n and -n.
    """
    quarter = _quarter_turn(ell)
    series = np.zeros((2, ell + 1, ell + 1, ell + 1))
    p = np.arange(ell + 1)
    even = ((p[:, np.newaxis] + p) % 2 == 0)[:, :, np.newaxis]
    for part, rows in enumerate((quarter[ell:], quarter[ell::-1])):
        plus, minus = rows[:, ell:], rows[:, ell::-1].copy()
        minus[:, 0] = 0  # order 0 has no partner
        cosine = plus[:, np.newaxis] * plus + minus[:, np.newaxis] * minus
        sine = minus[:, np.newaxis] * plus - plus[:, np.newaxis] * minus
        series[part] = np.where(even, cosine, sine)
    series[1, 0] = 0
    series[1, :, 0] = 0
    series.flags.writeable = False
    return series


def _quarter_turn(ell: int) -> NDArray[np.float64]:
    """Wigner matrix of the rotation by -pi/2 about x, which takes z to y.

    Exponential of the angular momentum about x, whose eigenvalues are -ell ... ell.
    """
    m = np.arange(-ell, ell + 1)
    ladder = np.sqrt(ell * (ell + 1) - m[:-1] * m[1:]) / 2
    _, vectors = linalg.eigh_tridiagonal(np.zeros(2 * ell + 1), ladder)
    powers_of_i = np.array([1, 1j, -1, -1j])[m % 4]
    turn = (vectors * powers_of_i) @ vectors.T
    to_real = _real_from_complex(ell)
    return np.ascontiguousarray((to_real.conj() @ turn @ to_real.T).real)


def _real_from_complex(ell: int) -> NDArray[np.complex128]:
    """Matrix that takes the harmonics (8) to the real ones, orders from -ell."""
    matrix = np.zeros((2 * ell + 1, 2 * ell + 1), dtype=complex)
    matrix[ell, ell] = 1
    m = np.arange(1, ell + 1)
    sign = (-1.0) ** m
    matrix[ell + m, ell + m] = sign / np.sqrt(2)
    matrix[ell + m, ell - m] = 1 / np.sqrt(2)
    matrix[ell - m, ell + m] = -1j * sign / np.sqrt(2)
    matrix[ell - m, ell - m] = 1j / np.sqrt(2)
    return matrix
