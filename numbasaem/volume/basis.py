"""The volume as spherical Bessel functions times spherical harmonics, (6)-(8)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse.linalg import LinearOperator, cg

from numbasaem.errors import NumericalError, expected
from numbasaem.geometry.ball_functions import BallFunctions
from numbasaem.geometry.grids import lattice, offsets
from numbasaem.geometry.special_functions import harmonics_by_degree, radial_functions
from numbasaem.geometry.wigner import real_wigner
from numbasaem.projection.operator import project

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_FIT_TOLERANCE = 1e-13
"""Largest relative residual of the normal equations of a fit that is done."""


@dataclass(frozen=True)
class VolumeBasis(BallFunctions):
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
            wanted = f"a cube of {self.size} voxels a side"
            raise expected("volume", wanted, f"shape {voxels.shape}")
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
        blocks = self.blocks(self._checked(coefficients))
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
        float64, shape (M of the result,)
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
        float64, shape (M of the result,)
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
            Coefficients, in the order of `indices`; x_{l,-m,s} = (-1)^(l+m)
            conj(x_{l,m,s}).

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
            wanted = f"shape ({self.n_coefficients},)"
            raise expected("coefficients", wanted, f"{coefficients.shape}")
        if not np.isfinite(coefficients).all():
            raise expected("coefficients", "finite values", "NaN or infinity")

    @cached_property
    def _partner(self) -> NDArray[np.int64]:
        """Position of (ell, -m, s) for each coefficient."""
        ell, m, _ = self.indices.T
        step = np.array(self.radial_counts)[ell]
        return np.asarray(np.arange(self.n_coefficients) - 2 * m * step)


_POWERS_OF_I = np.array([1, 1j, -1, -1j])


class _Samples:
    """Basis functions sampled on voxels: a matrix that is never stored.

    Voxels at the same distance from the centre share their radial factors. The
    harmonics of the ball are kept, for every step of a fit uses them; those of the cube
    are made degree by degree.
    """

    def __init__(self, basis: VolumeBasis, *, inside_ball: bool) -> None:
        self._basis = basis
        z, y, x = lattice(offsets(basis.size), 3)
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
        return harmonics_by_degree(self._basis.ell_max, self._points)

    def _by_degree(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        harmonics = self._kept if self._kept is not None else self._fresh_harmonics()
        return zip(harmonics, self._radial, strict=True)

    def apply(self, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values at the voxels of the volume with these coefficients."""
        values = np.zeros(len(self.voxels))
        blocks = self._basis.blocks(coefficients)
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
