"""Rotations: even grids, random draws and angles, RELION's among them.

A rotation is a 3 x 3 matrix R on (x, y, z) columns; it takes the function f to
f(R^T r).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from numbasaem.errors import expected

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_PHI = 2**0.5
_PSI = 1.533751168755204288118041
"""Positive root of psi^4 = psi + 4, Alexa's choice to go with sqrt(2)."""

_TOLERANCE = 1e-6


def rotation_grid(n: int) -> NDArray[np.float64]:
    """Rotations that cover SO(3) evenly.

    A super-Fibonacci spiral: it exists for every n, is deterministic, and treats view
    directions and in-plane angles alike. The product of a spherical grid and in-plane
    angles exists for few n only, and favours its own axis.

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
    M. Alexa, "Super-Fibonacci spirals: fast, low-discrepancy sampling of SO(3)",
    CVPR 2022.

    Examples
    --------
    >>> rotation_grid(552).shape
    (552, 3, 3)
    """
    check_number(n, at_least=1)
    s = np.arange(n, dtype=np.float64) + 0.5
    return _from_torus(s / n, 2 * np.pi * s / _PHI, 2 * np.pi * s / _PSI)


def random_rotations(n: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Independent rotations, uniform over SO(3).

    Parameters
    ----------
    n : int
        Number of rotations, at least 0.
    generator : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    float64, shape (n, 3, 3)
        Rotation matrices on (x, y, z) columns.

    Raises
    ------
    InputError
        If n is not a whole number of at least 0.

    Notes
    -----
    The subgroup algorithm of [57]: three uniform variates make a point of the
    three-sphere.

    Examples
    --------
    >>> rotations = random_rotations(4, np.random.default_rng(0))
    >>> np.allclose(rotations @ rotations.mT, np.eye(3))
    True
    """
    check_number(n, at_least=0)
    share, alpha, beta = generator.random((3, n))
    return _from_torus(1 - share, 2 * np.pi * alpha, 2 * np.pi * beta)


def check_number(n: object, at_least: int) -> None:
    """Refuse what is no number of rotations.

    Parameters
    ----------
    n : int
        The number.
    at_least : int
        Smallest one that can be used.

    Raises
    ------
    InputError
        If it is none, or smaller.
    """
    if not isinstance(n, int | np.integer) or isinstance(n, bool) or n < at_least:
        raise expected("rotations", f"a whole number of at least {at_least}", n)


def _from_torus(
    share: NDArray[np.float64], alpha: NDArray[np.float64], beta: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Rotations of unit quaternions, the vector first and the scalar last.

    `share` is the squared length of the first two components, `alpha` and `beta` are
    the angles of the first and the last two; uniform arguments give uniform rotations.
    """
    first, last = np.sqrt(share), np.sqrt(1 - share)
    quaternions = np.stack(
        [
            first * np.sin(alpha),
            first * np.cos(alpha),
            last * np.sin(beta),
            last * np.cos(beta),
        ],
        axis=1,
    )
    return np.asarray(Rotation.from_quat(quaternions).as_matrix())


def check_rotations(rotations: ArrayLike) -> NDArray[np.float64]:
    """Rotations as a checked float64 array.

    Parameters
    ----------
    rotations : array, shape (K, 3, 3)
        Rotation matrices.

    Returns
    -------
    float64, shape (K, 3, 3)
        The same matrices.

    Raises
    ------
    InputError
        If there is no matrix, the shape is another one, an entry is not finite, or a
        matrix is not orthonormal with determinant 1.
    """
    matrices = np.asarray(rotations, dtype=np.float64)
    if matrices.ndim != 3 or matrices.shape[1:] != (3, 3) or len(matrices) == 0:
        raise expected("rotations", "shape (K, 3, 3), K >= 1", f"{matrices.shape}")
    finite = np.isfinite(matrices).all(axis=(1, 2))
    if not finite.all():
        where = f"rotations[{np.argmin(finite)}]"
        raise expected(where, "finite entries", "NaN or infinity")
    gram = matrices @ matrices.transpose(0, 2, 1)
    deviation = np.abs(gram - np.eye(3)).max(axis=(1, 2))
    determinant = np.linalg.det(matrices)
    faulty = (deviation > _TOLERANCE) | (determinant < 0)
    if faulty.any():
        first = int(np.argmax(faulty))
        raise expected(
            f"rotations[{first}]",
            "an orthonormal matrix of determinant 1",
            f"one off by {deviation[first]:.1e}, determinant {determinant[first]:.6g}",
        )
    return matrices


def relion_angles(rotations: ArrayLike) -> NDArray[np.float64]:
    """Angles rot, tilt and psi of RELION for rotations.

    Parameters
    ----------
    rotations : array, shape (K, 3, 3)
        Rotation matrices on (x, y, z) columns; K may be 0.

    Returns
    -------
    float64, shape (K, 3)
        rot, tilt, psi in degrees: each matrix is the inverse of the intrinsic ZYZ
        rotation by them. Where tilt is 0 or 180 degrees only the sum or difference of
        rot and psi counts; how they share it is arbitrary.

    Raises
    ------
    InputError
        If `rotations` are not rotation matrices.
    """
    if np.shape(rotations) == (0, 3, 3):
        return np.empty((0, 3))
    inverse = check_rotations(rotations).transpose(0, 2, 1)
    return np.rad2deg(zyz_angles(inverse).T)


def rotations_from_relion(angles: ArrayLike) -> NDArray[np.float64]:
    """Rotations of RELION's rot, tilt and psi; inverse of :func:`relion_angles`.

    Parameters
    ----------
    angles : array, shape (K, 3)
        rot, tilt, psi in degrees.

    Returns
    -------
    float64, shape (K, 3, 3)
        Rotation matrices on (x, y, z) columns.

    Raises
    ------
    InputError
        If the shape is another one or an angle is not finite.
    """
    degrees = np.asarray(angles, dtype=np.float64)
    if degrees.ndim != 2 or degrees.shape[1] != 3:
        raise expected("angles", "shape (K, 3)", f"{degrees.shape}")
    if not np.isfinite(degrees).all():
        raise expected("angles", "finite values", "NaN or infinity")
    rotation = Rotation.from_euler("ZYZ", degrees, degrees=True)
    return np.asarray(rotation.inv().as_matrix())


def zyz_angles(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles a, b, c of Rz(a) Ry(b) Rz(c).

    Where both z axes coincide, a is arbitrary; c is computed after it, so that the two
    together are right.

    Parameters
    ----------
    matrices : float64, shape (K, 3, 3)
        Rotation matrices.

    Returns
    -------
    float64, shape (3, K)
        Angles, radians.
    """
    x, y, z = matrices[:, :, 2].T
    first = np.arctan2(y, x)
    # the second row of Rz(c), from the y axis that Rz(a) turned and Ry(b) kept
    sine, cosine = (
        np.cos(first) * matrices[:, 1, column] - np.sin(first) * matrices[:, 0, column]
        for column in (0, 1)
    )
    return np.stack([first, np.arctan2(np.hypot(x, y), z), np.arctan2(sine, cosine)])
