"""Special functions of the ball, (6)-(8): Bessel zeros, radial functions, harmonics."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize.elementwise import find_root
from scipy.special import spherical_jn

from .grids import NYQUIST

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_NEAR_ZERO = 1e-4
"""Distance from a zero below which three terms of a series replace a quotient."""


def radial_functions(
    ell: int, zeros: NDArray[np.float64], radius: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Radial factors of the basis functions in real space.

    Parameters
    ----------
    ell : int
        Degree.
    zeros : float64, shape (S,)
        Zeros u of the spherical Bessel function of this degree.
    radius : float64, shape (n,)
        Distances from the centre, pixels.

    Returns
    -------
    float64, shape (S, n)
        4 pi c^3 times the integral over k in [0, 1] of j_{l,s}(k) j_l(v k) k^2, where
        v = 2 pi c r. Times a real harmonic it is a basis function.

    Notes
    -----
    The inverse Fourier transform of (6). By Lommel's formula the integral of
    j_l(u k) j_l(v k) k^2 is u j_{l+1}(u) j_l(v) / (u^2 - v^2) where j_l(u) = 0. The
    quotient j_l(v) / (u - v) comes from Taylor's series at u where both vanish.
    """
    u, v = zeros[:, np.newaxis], 2 * np.pi * NYQUIST * radius
    next_bessel = spherical_jn(ell + 1, u)
    step = v - u
    near = np.abs(step) < _NEAR_ZERO
    series = next_bessel * (
        1 - step / u + step**2 * (6 + ell * (ell + 1) - u**2) / (6 * u**2)
    )
    away = np.where(near, 1.0, -step)
    # j_l at the rounded zero is not quite 0, and this quotient would magnify it
    difference = spherical_jn(ell, v) - spherical_jn(ell, u)
    quotient = np.where(near, series, difference / away)
    scale = 4 * np.pi * NYQUIST**3 * _normalization(next_bessel)
    return np.asarray(scale * u * next_bessel * quotient / (u + v))


def normalized_bessel(
    ell: int, zeros: NDArray[np.float64], k: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Spherical Bessel functions j_{l,s} of (7), normalized on the unit ball.

    Parameters
    ----------
    ell : int
        Degree.
    zeros : float64, shape (S,)
        Zeros u of the spherical Bessel function of this degree.
    k : float64, shape (n,)
        Frequencies in units of Nyquist, at most 1.

    Returns
    -------
    float64, shape (S, n)
        Values at the frequencies.
    """
    scale = _normalization(spherical_jn(ell + 1, zeros))
    return np.asarray(scale[:, np.newaxis] * spherical_jn(ell, np.outer(zeros, k)))


def _normalization(next_bessel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Factor of (7), from j_{l+1} at the zeros of j_l."""
    return 4 / np.abs(next_bessel)


@lru_cache(maxsize=256)
def spherical_bessel_zeros(ell: int, upper: float) -> NDArray[np.float64]:
    """Positive zeros of the spherical Bessel function j_ell below a bound.

    Parameters
    ----------
    ell : int
        Degree.
    upper : float
        Bound, not included.

    Returns
    -------
    float64, shape (S,)
        Zeros, ascending, to rounding error; read-only.
    """
    # The first zero lies beyond ell, and zeros are at least pi apart: intervals shorter
    # than pi hold one zero or none.
    start = max(ell, 1)
    edges = np.linspace(start, max(upper, start), int(upper) + 2)
    values = spherical_jn(ell, edges)
    crossing = np.flatnonzero(values[:-1] * values[1:] < 0)
    bracket = (edges[crossing], edges[crossing + 1])
    zeros = find_root(lambda u: spherical_jn(ell, u), bracket).x
    # the bound may be a zero itself, which rounding must not let in
    kept = np.asarray(zeros[zeros < upper * (1 - 1e-12)])
    kept.flags.writeable = False
    return kept


def real_spherical_harmonics(
    ell_max: int, directions: ArrayLike
) -> list[NDArray[np.float64]]:
    """Real orthonormal spherical harmonics.

    Parameters
    ----------
    ell_max : int
        Highest degree.
    directions : array, shape (P, 3)
        Vectors (x, y, z) of any length; the zero vector counts as the z axis.

    Returns
    -------
    list of float64, shape (2 ell + 1, P) for entry ell
        Values of each degree, orders from -ell to ell.

    Notes
    -----
    From (8): sqrt(2) (-1)^m Re Y_l^m for m > 0, Y_l^0, and sqrt(2) (-1)^m Im Y_l^|m|
    for m < 0.
    """
    return list(harmonics_by_degree(ell_max, np.asarray(directions, np.float64)))


def harmonics_by_degree(
    ell_max: int, directions: NDArray[np.float64]
) -> Iterator[NDArray[np.float64]]:
    """Yield the real harmonics of one degree after the other.

    Parameters
    ----------
    ell_max : int
        Highest degree.
    directions : float64, shape (P, 3)
        Vectors (x, y, z) of any length; the zero vector counts as the z axis.

    Yields
    ------
    float64, shape (2 ell + 1, P)
        Values of degree ell, from 0 on; see :func:`real_spherical_harmonics`.

    Notes
    -----
    Legendre functions come from the recursion over the degree, without their power of
    sin(theta): that and exp(i m phi) make a power of x + i y, smooth at the poles.
    """
    length = np.linalg.norm(directions, axis=1)
    x, y, z = (directions / np.where(length > 0, length, 1)[:, np.newaxis]).T
    z = np.where(length > 0, z, 1)
    waves = np.ones((1, len(z)), dtype=complex)
    before, legendre = np.zeros((0, len(z))), np.full((1, len(z)), (4 * np.pi) ** -0.5)
    yield legendre
    for ell in range(1, ell_max + 1):
        m = np.arange(ell)[:, np.newaxis]
        ratio = np.sqrt((4 * ell**2 - 1) / (ell**2 - m**2))
        raised = ratio * z * legendre
        decay = np.sqrt(((ell - 1) ** 2 - m[:-1] ** 2) / (4 * (ell - 1) ** 2 - 1))
        raised[:-1] -= ratio[:-1] * decay * before
        topmost = np.sqrt((2 * ell + 1) / (2 * ell)) * legendre[-1:]
        before, legendre = legendre, np.concatenate([raised, topmost])
        waves = np.concatenate([waves, waves[-1:] * (x + 1j * y)])
        scaled = np.sqrt(2) * legendre[1:]
        yield np.concatenate(
            [(scaled * waves[1:].imag)[::-1], legendre[:1], scaled * waves[1:].real]
        )
