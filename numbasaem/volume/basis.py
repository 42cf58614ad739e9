"""The volume as spherical Bessel functions times spherical harmonics, (6)-(8)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize.elementwise import find_root
from scipy.sparse.linalg import LinearOperator, cg
from scipy.special import spherical_jn

from numbasaem.errors import NumericalError, expected

from .rotations import real_wigner

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_NYQUIST = 0.5
"""The c of (6): bandlimit in cycles per pixel."""

_FIT_TOLERANCE = 1e-13
"""Relative residual of the normal equations at which a fit is done."""

_NEAR_ZERO = 1e-4
"""Distance from a zero where three terms of a series and a quotient are as exact."""


@dataclass(frozen=True)
class VolumeBasis:
    """Band-limited real volumes of a given size, up to a given degree.

    Parameters
    ----------
    size : int
        L, voxels a side; at least 5, odd or even.
    ell_max : int
        Highest degree of the spherical harmonics, at least 0. Degrees that have no
        radial function are allowed and contribute nothing.

    Raises
    ------
    InputError
        If the size or the degree is out of range.

    Notes
    -----
    With real harmonics Y^R and real coefficients x, the Fourier transform of the
    volume is the sum of x_{l,m,s} (-i)^l Y^R_{l,m}(theta, phi) j_{l,s}(k) at
    frequencies of c k cycles per pixel, c = 1/2 and k <= 1, and zero beyond. By the
    normalization (7) the basis functions are orthonormal over all of space.

    Examples
    --------
    >>> basis = VolumeBasis(size=11, ell_max=10)
    >>> basis.n_coefficients
    219
    """

    size: int
    ell_max: int

    def __post_init__(self) -> None:
        """Check the arguments and make them plain integers."""
        for name, smallest in (("size", 5), ("ell_max", 0)):
            value = getattr(self, name)
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not whole or value < smallest:
                raise expected(name, f"a whole number of at least {smallest}", value)
            object.__setattr__(self, name, int(value))

    @cached_property
    def radial_counts(self) -> tuple[int, ...]:
        """S(ell) for each degree: the zeros u_{ell,s} < pi floor(L / 2)."""
        return tuple(len(self.radial_zeros(ell)) for ell in range(self.ell_max + 1))

    @cached_property
    def n_coefficients(self) -> int:
        """Number of coefficients M."""
        return sum(
            (2 * ell + 1) * count for ell, count in enumerate(self.radial_counts)
        )

    @cached_property
    def indices(self) -> NDArray[np.int64]:
        """Each coefficient's (ell, m, s), int64 of shape (M, 3), read-only.

        By degree, then m from -ell to ell, then s from 1.
        """
        indices = np.array(
            [
                (ell, m, s)
                for ell, count in enumerate(self.radial_counts)
                for m in range(-ell, ell + 1)
                for s in range(1, count + 1)
            ],
            dtype=np.int64,
        )
        indices.flags.writeable = False
        return indices

    def radial_zeros(self, ell: int) -> NDArray[np.float64]:
        """Zeros u_{ell,s} of the spherical Bessel function that the basis uses.

        Parameters
        ----------
        ell : int
            Degree.

        Returns
        -------
        float64, shape (S(ell),)
            Positive zeros below pi floor(L / 2), ascending, read-only.
        """
        return spherical_bessel_zeros(ell, np.pi * (self.size // 2))

    def expand(self, volume: ArrayLike) -> NDArray[np.float64]:
        """Coefficients of a volume: the least-squares fit within L // 2 of its centre.

        Parameters
        ----------
        volume : array, shape (L, L, L)
            Volume, indexed [z, y, x], its centre at index L // 2.

        Returns
        -------
        float64, shape (M,)
            Real coefficients.

        Raises
        ------
        InputError
            If the volume is not a finite cube of this size.
        NumericalError
            If the fit does not converge.

        Notes
        -----
        Conjugate gradients on the normal equations. They are well conditioned, since
        the sampled functions are nearly orthonormal on the ball: singular values lie
        between 1/2 and 1, and some twenty steps reach rounding error at any size.
        """
        voxels = np.asarray(volume, dtype=np.float64)
        if voxels.shape != (self.size,) * 3:
            what = f"a cube of {self.size} voxels a side"
            raise expected("volume", what, f"shape {voxels.shape}")
        if not np.isfinite(voxels).all():
            raise expected("volume", "finite voxels", "NaN or infinity")
        samples = _Samples(self, inside_ball=True)
        normal = LinearOperator(
            (self.n_coefficients, self.n_coefficients),
            matvec=lambda x: samples.adjoint(samples.apply(x)),
            dtype=np.float64,
        )
        target = samples.adjoint(voxels.ravel()[samples.voxels])
        coefficients, failed = cg(normal, target, rtol=_FIT_TOLERANCE)
        if failed:
            found = f"none after {failed} iterations"
            raise NumericalError("volume", "a fit that converges", found)
        return np.asarray(coefficients)

    def evaluate(self, coefficients: ArrayLike) -> NDArray[np.float64]:
        """Volume with the given coefficients, on the whole grid.

        Parameters
        ----------
        coefficients : array, shape (M,)
            Real coefficients.

        Returns
        -------
        float64, shape (L, L, L)
            Volume, indexed [z, y, x], its centre at index L // 2.

        Raises
        ------
        InputError
            If there are not M finite coefficients.
        """
        samples = _Samples(self, inside_ball=False)
        values = samples.apply(self._checked(coefficients))
        return values.reshape((self.size,) * 3)

    def project(
        self, coefficients: ArrayLike, rotations: ArrayLike
    ) -> NDArray[np.float64]:
        """Projections of the rotated volume, equation (16).

        Parameters
        ----------
        coefficients : array, shape (M,)
            Real coefficients.
        rotations : array, shape (K, 3, 3)
            Rotation matrices on (x, y, z) columns.

        Returns
        -------
        float64, shape (K, L, L)
            Integrals along z, indexed [y, x], zero farther than L // 2 from the
            centre.

        Raises
        ------
        InputError
            If there are not M finite coefficients or `rotations` are not rotations.
        """
        from numbasaem.projection.operator import project

        return project(self, self._checked(coefficients), rotations)

    def rotate(
        self, coefficients: ArrayLike, rotation: ArrayLike
    ) -> NDArray[np.float64]:
        """Coefficients of the rotated volume f(R^T r).

        Parameters
        ----------
        coefficients : array, shape (M,)
            Real coefficients.
        rotation : array, shape (3, 3)
            Rotation matrix R on (x, y, z) columns.

        Returns
        -------
        float64, shape (M,)
            Real coefficients.

        Raises
        ------
        InputError
            If there are not M finite coefficients or `rotation` is not a rotation.
        """
        blocks = self._blocks(self._checked(coefficients))
        matrices = real_wigner(np.asarray(rotation)[np.newaxis], self.ell_max)
        rotated = [matrix[0] @ x for matrix, x in zip(matrices, blocks, strict=True)]
        return np.concatenate([x.ravel() for x in rotated])

    def restrict(self, coefficients: ArrayLike, ell_max: int) -> NDArray[np.float64]:
        """Drop the degrees above `ell_max`.

        Parameters
        ----------
        coefficients : array, shape (M,)
            Real coefficients.
        ell_max : int
            Highest degree to keep, at most that of this basis.

        Returns
        -------
        float64
            Coefficients in ``VolumeBasis(size, ell_max)``.

        Raises
        ------
        InputError
            If there are not M finite coefficients or `ell_max` is out of range.
        """
        x = self._checked(coefficients)
        lower = VolumeBasis(self.size, ell_max)
        if lower.ell_max > self.ell_max:
            raise expected("ell_max", f"at most {self.ell_max}", ell_max)
        return x[: lower.n_coefficients].copy()

    def lift(self, coefficients: ArrayLike, ell_max: int) -> NDArray[np.float64]:
        """Add degrees up to `ell_max`, with zeros as coefficients.

        Parameters
        ----------
        coefficients : array, shape (M,)
            Real coefficients.
        ell_max : int
            Highest degree, at least that of this basis.

        Returns
        -------
        float64
            Coefficients in ``VolumeBasis(size, ell_max)``.

        Raises
        ------
        InputError
            If there are not M finite coefficients or `ell_max` is out of range.
        """
        x = self._checked(coefficients)
        higher = VolumeBasis(self.size, ell_max)
        if higher.ell_max < self.ell_max:
            raise expected("ell_max", f"at least {self.ell_max}", ell_max)
        return np.pad(x, (0, higher.n_coefficients - x.size))

    def to_complex(self, coefficients: ArrayLike) -> NDArray[np.complex128]:
        """Complex coefficients of (6).

        Parameters
        ----------
        coefficients : array, shape (M,)
            Real coefficients.

        Returns
        -------
        complex128, shape (M,)
            In the order of `indices`; x_{l,-m,s} = (-1)^(l+m) conj(x_{l,m,s}).

        Raises
        ------
        InputError
            If there are not M finite coefficients.
        """
        x = self._checked(coefficients)
        ell, m, _ = self.indices.T
        partner = x[self._partner]
        positive = (-1.0) ** m * (x - 1j * partner) / np.sqrt(2)
        negative = (partner + 1j * x) / np.sqrt(2)
        in_harmonics = np.where(m > 0, positive, np.where(m < 0, negative, x))
        return np.asarray(_POWERS_OF_I[-ell % 4] * in_harmonics)

    def from_complex(self, coefficients: ArrayLike) -> NDArray[np.float64]:
        """Real coefficients from those of (6); inverse of :meth:`to_complex`.

        Parameters
        ----------
        coefficients : array, shape (M,)
            Complex coefficients of a real volume, in the order of `indices`.

        Returns
        -------
        float64, shape (M,)
            Real coefficients.

        Raises
        ------
        InputError
            If there are not M finite coefficients, or they are not conjugate-symmetric
            as those of a real volume are.
        """
        z = np.asarray(coefficients, dtype=np.complex128)
        self._check(z)
        ell, m, _ = self.indices.T
        mirrored = (-1.0) ** (ell + m) * z[self._partner].conj()
        largest = np.abs(z).max()
        asymmetry = np.abs(z - mirrored).max()
        if asymmetry > 1e-8 * largest:
            raise expected(
                "coefficients",
                "x[l, -m, s] = (-1)^(l + m) conj(x[l, m, s])",
                f"a difference of {asymmetry:.1e} where the largest is {largest:.1e}",
            )
        in_harmonics = _POWERS_OF_I[ell % 4] * z
        positive = np.sqrt(2) * (-1.0) ** m * in_harmonics.real
        negative = np.sqrt(2) * in_harmonics.imag
        x = np.where(m > 0, positive, np.where(m < 0, negative, in_harmonics.real))
        return np.asarray(x)

    def _checked(self, coefficients: ArrayLike) -> NDArray[np.float64]:
        x = np.asarray(coefficients, dtype=np.float64)
        self._check(x)
        return x

    def _check(self, coefficients: NDArray[np.inexact]) -> None:
        if coefficients.shape != (self.n_coefficients,):
            what = f"shape ({self.n_coefficients},)"
            raise expected("coefficients", what, f"{coefficients.shape}")
        if not np.isfinite(coefficients).all():
            raise expected("coefficients", "finite values", "NaN or infinity")

    def _blocks(self, coefficients: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Coefficients of each degree, shape (2 ell + 1, S(ell))."""
        sizes = [(2 * ell + 1) * n for ell, n in enumerate(self.radial_counts)]
        parts = np.split(coefficients, np.cumsum(sizes)[:-1])
        return [part.reshape(2 * ell + 1, -1) for ell, part in enumerate(parts)]

    @cached_property
    def _partner(self) -> NDArray[np.int64]:
        """Position of (ell, -m, s) for each coefficient."""
        ell, m, _ = self.indices.T
        step = np.array(self.radial_counts)[ell]
        return np.asarray(np.arange(self.n_coefficients) - 2 * m * step)


_POWERS_OF_I = np.array([1, 1j, -1, -1j])


class _Samples:
    """Basis functions sampled on voxels, as a matrix that is never written out.

    Voxels at the same distance from the centre share their radial factors. The ball
    keeps its harmonics, for use in every step of a fit; the cube makes them degree by
    degree.
    """

    def __init__(self, basis: VolumeBasis, *, inside_ball: bool) -> None:
        self._basis = basis
        offset = np.arange(basis.size) - basis.size // 2
        z, y, x = np.meshgrid(offset, offset, offset, indexing="ij")
        points = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1).astype(np.float64)
        squared = (points**2).sum(axis=1)
        farthest = (basis.size // 2) ** 2 if inside_ball else squared.max()
        self.voxels = np.flatnonzero(squared <= farthest)
        self._points = points[self.voxels]
        distances, self._shell = np.unique(squared[self.voxels], return_inverse=True)
        self._radial = [
            radial_functions(ell, basis.radial_zeros(ell), np.sqrt(distances))
            for ell in range(basis.ell_max + 1)
        ]
        self._kept = list(self._fresh_harmonics()) if inside_ball else None

    def _fresh_harmonics(self) -> Iterator[NDArray[np.float64]]:
        return _harmonics_by_degree(self._basis.ell_max, self._points)

    def _by_degree(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        harmonics = self._kept if self._kept is not None else self._fresh_harmonics()
        return zip(harmonics, self._radial, strict=True)

    def apply(self, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values at the voxels of the volume with these coefficients."""
        values = np.zeros(len(self.voxels))
        blocks = self._basis._blocks(coefficients)
        for block, (harmonics, radial) in zip(blocks, self._by_degree(), strict=True):
            by_order = (block @ radial)[:, self._shell]
            values += np.einsum("mv,mv->v", harmonics, by_order)
        return values

    def adjoint(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Inner products of the sampled basis functions with these values."""
        parts = []
        for harmonics, radial in self._by_degree():
            by_shell = [
                np.bincount(self._shell, row, minlength=radial.shape[1])
                for row in harmonics * values
            ]
            parts.append((np.array(by_shell) @ radial.T).ravel())
        return np.concatenate(parts)


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
        4 pi c^3 times the integral over k in [0, 1] of j_{l,s}(k) j_l(v k) k^2 for
        v = 2 pi c r; times a real harmonic, a basis function.

    Notes
    -----
    The inverse Fourier transform of (6). By Lommel's formula the integral of
    j_l(u k) j_l(v k) k^2 is u j_{l+1}(u) j_l(v) / (u^2 - v^2) where j_l(u) = 0. The
    quotient j_l(v) / (u - v) comes from Taylor's series at u where both vanish.
    """
    u, v = zeros[:, np.newaxis], 2 * np.pi * _NYQUIST * radius
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
    scale = 4 * np.pi * _NYQUIST**3 * _normalization(next_bessel)
    return np.asarray(scale * u * next_bessel * quotient / (u + v))


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
    # The first zero lies beyond ell and the next ones at least pi apart: intervals
    # shorter than that hold one zero or none.
    start = max(ell, 1)
    edges = np.linspace(start, max(upper, start), int(upper) + 2)
    values = spherical_jn(ell, edges)
    crossing = np.flatnonzero(values[:-1] * values[1:] < 0)
    bracket = (edges[crossing], edges[crossing + 1])
    zeros = find_root(lambda u: spherical_jn(ell, u), bracket).x
    # the bound may be a zero itself: keep rounding from letting it in
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
    list of float64 arrays
        Entry ell has shape (2 ell + 1, P), orders from -ell to ell.

    Notes
    -----
    From (8): sqrt(2) (-1)^m Re Y_l^m for m > 0, Y_l^0, and sqrt(2) (-1)^m Im Y_l^|m|
    for m < 0.
    """
    return list(_harmonics_by_degree(ell_max, np.asarray(directions, np.float64)))


def _harmonics_by_degree(
    ell_max: int, directions: NDArray[np.float64]
) -> Iterator[NDArray[np.float64]]:
    """Yield the real harmonics of one degree after the other.

    Legendre functions by the recursion over the degree, the power of sin(theta) taken
    out: with that of exp(i m phi) it is a power of x + i y, smooth at the poles.
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
