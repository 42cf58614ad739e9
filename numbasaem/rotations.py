"""Rotations: grids, random draws, RELION's angles and Wigner matrices."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation
from scipy.special import sph_harm_y

from .errors import expected

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_PHI = np.sqrt(2.0)
_PSI = 1.533751168755204288118041
_TOLERANCE = 1e-6


def rotation_grid(n: int) -> NDArray[np.float64]:
    """Rotations that cover SO(3) evenly.

    A super-Fibonacci spiral: it exists for every n, is deterministic, and treats the
    view direction and the in-plane angle alike, where a product of a spherical grid
    with in-plane angles exists for few n only.

    Parameters
    ----------
    n : int
        Number of rotations, at least 1.

    Returns
    -------
    float64, shape (n, 3, 3)
        Rotation matrices on (x, y, z) columns.

    Raises
    ------
    InputError
        If n is not a whole number of at least 1.

    References
    ----------
    M. Alexa, "Super-Fibonacci Spirals: Fast, Low-Discrepancy Sampling of SO(3)",
    CVPR 2022.
    """
    if not isinstance(n, int | np.integer) or n < 1:
        raise expected("rotations", "a whole number of at least 1", n)
    s = np.arange(n) + 0.5
    inner, outer = np.sqrt(s / n), np.sqrt(1 - s / n)
    alpha, beta = 2 * np.pi * s / _PHI, 2 * np.pi * s / _PSI
    quaternions = np.stack(
        [
            inner * np.sin(alpha),
            inner * np.cos(alpha),
            outer * np.sin(beta),
            outer * np.cos(beta),
        ],
        axis=1,
    )
    return _matrices(quaternions)


def random_rotations(n: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Independent rotations, uniform over SO(3).

    Parameters
    ----------
    n : int
        Number of rotations.
    generator : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    float64, shape (n, 3, 3)
        Rotation matrices on (x, y, z) columns.

    Notes
    -----
    The subgroup algorithm of [57]: a point on the three-sphere from three uniforms.
    """
    share, first, second = generator.random((3, n))
    inner, outer = np.sqrt(1 - share), np.sqrt(share)
    first, second = 2 * np.pi * first, 2 * np.pi * second
    quaternions = np.stack(
        [
            inner * np.sin(first),
            inner * np.cos(first),
            outer * np.sin(second),
            outer * np.cos(second),
        ],
        axis=1,
    )
    return _matrices(quaternions)


def _matrices(quaternions: NDArray[np.float64]) -> NDArray[np.float64]:
    matrices: NDArray[np.float64] = Rotation.from_quat(quaternions).as_matrix()
    return matrices


def check_rotations(rotations: ArrayLike) -> NDArray[np.float64]:
    """Rotations as a checked float64 array.

    Parameters
    ----------
    rotations : array, shape (K, 3, 3)
        Rotation matrices.

    Returns
    -------
    float64, shape (K, 3, 3)
        The same.

    Raises
    ------
    InputError
        If there is none, the shape is another one, or one is not a rotation.
    """
    matrices = np.asarray(rotations, dtype=np.float64)
    if matrices.ndim != 3 or matrices.shape[1:] != (3, 3) or len(matrices) == 0:
        raise expected("rotations", "shape (K, 3, 3), K >= 1", matrices.shape)
    if not np.isfinite(matrices).all():
        raise expected("rotations", "finite entries", "NaN or infinity")
    gram = matrices @ matrices.transpose(0, 2, 1)
    orthonormal = np.abs(gram - np.eye(3)).max() < _TOLERANCE
    if not orthonormal or (np.linalg.det(matrices) < 0).any():
        raise expected("rotations", "orthonormal matrices of determinant 1", "others")
    return matrices


def relion_angles(rotations: ArrayLike) -> NDArray[np.float64]:
    """RELION's rot, tilt and psi of rotations.

    Parameters
    ----------
    rotations : array, shape (K, 3, 3)
        Rotation matrices.

    Returns
    -------
    float64, shape (K, 3)
        Degrees. The matrix is the inverse of the intrinsic ZYZ rotation by them.

    Raises
    ------
    InputError
        If `rotations` are not rotation matrices.
    """
    inverse = Rotation.from_matrix(check_rotations(rotations)).inv()
    return _zyz(inverse, degrees=True)


def rotations_from_relion(angles: ArrayLike) -> NDArray[np.float64]:
    """Rotations of RELION's rot, tilt and psi.

    Parameters
    ----------
    angles : array, shape (K, 3)
        Degrees.

    Returns
    -------
    float64, shape (K, 3, 3)
        Rotation matrices.

    Raises
    ------
    InputError
        If the shape is another one or an angle is not finite.
    """
    degrees = np.asarray(angles, dtype=np.float64)
    if degrees.ndim != 2 or degrees.shape[1] != 3 or not np.isfinite(degrees).all():
        raise expected("angles", "finite values of shape (K, 3)", degrees.shape)
    turn = Rotation.from_euler("ZYZ", degrees, degrees=True)
    matrices: NDArray[np.float64] = turn.inv().as_matrix()
    return matrices


def _zyz(rotation: Rotation, *, degrees: bool) -> NDArray[np.float64]:
    """Intrinsic ZYZ angles; where the first and last axis coincide, the last is 0."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Gimbal lock")
        angles: NDArray[np.float64] = rotation.as_euler("ZYZ", degrees=degrees)
    return angles


def real_wigner(
    rotations: ArrayLike, ell_max: int
) -> tuple[NDArray[np.float64], ...]:
    """Wigner matrices in the real spherical harmonics.

    Parameters
    ----------
    rotations : array, shape (K, 3, 3)
        Rotation matrices.
    ell_max : int
        Highest degree.

    Returns
    -------
    tuple of float64 arrays
        Entry ell has shape (K, 2 ell + 1, 2 ell + 1), orders from -ell to ell. The
        rotated function f(R^T r) has coefficients x'_m' = sum_m D[k, m', m] x_m.

    Raises
    ------
    InputError
        If `rotations` are not rotation matrices.

    Notes
    -----
    The D of (9). R = Rz(a) Ry(b) Rz(c), and Ry(b) = B Rz(b) B^T with B the quarter
    turn that takes z to y: only rotations about z, which mix m with -m, and one fixed
    matrix per degree, from exact quadrature. All factors are orthogonal, so errors do
    not grow with the degree.
    """
    turn = Rotation.from_matrix(check_rotations(rotations))
    first, middle, last = _zyz(turn, degrees=False).T
    matrices = []
    for ell in range(ell_max + 1):
        quarter = _quarter_turn(ell)
        tilted = quarter @ _turn_about_z(ell, middle) @ quarter.T
        matrices.append(_turn_about_z(ell, first) @ tilted @ _turn_about_z(ell, last))
    return tuple(matrices)


def _turn_about_z(ell: int, angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation by each angle about z, shape (K, 2 ell + 1, 2 ell + 1)."""
    result = np.zeros((len(angle), 2 * ell + 1, 2 * ell + 1))
    m = np.arange(-ell, ell + 1)
    waves = np.outer(angle, m)
    result[:, ell - m, ell + m] = np.sin(waves)
    result[:, ell + m, ell + m] = np.cos(waves)
    return result


@lru_cache(maxsize=128)
def _quarter_turn(ell: int) -> NDArray[np.float64]:
    """Wigner matrix of the rotation by -pi/2 about x, which takes z to y."""
    nodes, weights = np.polynomial.legendre.leggauss(ell + 1)
    n_longitudes = 2 * ell + 1
    longitude = 2 * np.pi * np.arange(n_longitudes) / n_longitudes
    height = np.repeat(nodes, n_longitudes)
    ring = np.sqrt(1 - height**2)
    around = np.tile(longitude, ell + 1)
    points = np.stack([ring * np.cos(around), ring * np.sin(around), height], axis=1)
    weight = np.repeat(weights, n_longitudes) * 2 * np.pi / n_longitudes
    turn = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    before = real_spherical_harmonics(ell, points)[ell]
    after = real_spherical_harmonics(ell, points @ turn)[ell]
    matrix: NDArray[np.float64] = (before * weight) @ after.T
    matrix.flags.writeable = False
    return matrix


def real_spherical_harmonics(
    ell_max: int, directions: ArrayLike
) -> list[NDArray[np.float64]]:
    """Real orthonormal spherical harmonics.

    Parameters
    ----------
    ell_max : int
        Highest degree.
    directions : array, shape (n, 3)
        Vectors (x, y, z) of any length; the zero vector counts as the z axis.

    Returns
    -------
    list of float64 arrays
        Entry ell has shape (2 ell + 1, n), orders from -ell to ell.

    Notes
    -----
    From (8): sqrt(2) (-1)^m Re Y_l^m for m > 0, Y_l^0, and sqrt(2) (-1)^m Im Y_l^|m|
    for m < 0.
    """
    x, y, z = np.asarray(directions, dtype=np.float64).T
    theta = np.arctan2(np.hypot(x, y), z)
    phi = np.arctan2(y, x)
    tables = []
    for ell in range(ell_max + 1):
        table = np.empty((2 * ell + 1, len(theta)))
        for m in range(ell + 1):
            harmonic = sph_harm_y(ell, m, theta, phi)
            factor = np.sqrt(2) * (-1) ** m if m else 1.0
            table[ell - m] = factor * harmonic.imag
            table[ell + m] = factor * harmonic.real
        tables.append(table)
    return tables
