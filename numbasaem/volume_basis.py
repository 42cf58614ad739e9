"""The volume as spherical Bessel functions times spherical harmonics, (6)-(8)."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg, optimize
from scipy.special import spherical_jn

from .errors import expected
from .rotations import real_spherical_harmonics, real_wigner

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_NYQUIST = 0.5
"""The c of (6): bandlimit, cycles per pixel."""
_NEAR_A_ZERO = 1e-5


class VolumeBasis:
    """Band-limited real volumes of a given size, up to a given degree.

    Parameters
    ----------
    size : int
        L, voxels a side; at least 5, odd or even.
    ell_max : int
        Highest degree of the spherical harmonics, at least 0.

    Attributes
    ----------
    size, ell_max : int
        As given.
    radial_counts : tuple of int
        S(ell): spherical Bessel functions of each degree, by the Nyquist rule
        u_{ell,s} < pi floor(L/2). Zero for degrees that have none.
    indices : int, shape (M, 3)
        (ell, m, s) of each coefficient: by degree, then m from -ell to ell, then s
        from 1.
    n_coefficients : int
        M.

    Raises
    ------
    InputError
        If the size or the degree is out of range.

    Notes
    -----
    With real harmonics Y^R and real coefficients x, the Fourier transform is
    sum x_{lms} (-i)^l Y^R_lm(theta, phi) j_{l,s}(k) for |xi| = c k <= c = 1/2 cycles
    per pixel, and zero beyond. By the normalization (7) the functions are orthonormal
    over all of space.
    """

    def __init__(self, size: int, ell_max: int) -> None:
        if not isinstance(size, int | np.integer) or size < 5:
            raise expected("size", "a whole number of at least 5", size)
        if not isinstance(ell_max, int | np.integer) or ell_max < 0:
            raise expected("ell_max", "a whole number of at least 0", ell_max)
        self.size = int(size)
        self.ell_max = int(ell_max)
        counts = [len(self.radial_zeros(ell)) for ell in range(self.ell_max + 1)]
        self.radial_counts = tuple(counts)
        self.indices = np.array(
            [
                (ell, m, s)
                for ell, count in enumerate(counts)
                for m in range(-ell, ell + 1)
                for s in range(1, count + 1)
            ]
        )
        self.n_coefficients = len(self.indices)

    def __repr__(self) -> str:
        """Size and degree."""
        return f"VolumeBasis(size={self.size}, ell_max={self.ell_max})"

    def radial_zeros(self, ell: int) -> NDArray[np.float64]:
        """Zeros u_{ell,s} of the spherical Bessel function that the basis uses.

        Parameters
        ----------
        ell : int
            Degree.

        Returns
        -------
        float64, shape (S(ell),)
            Positive zeros below pi floor(L/2), in order.
        """
        return spherical_bessel_zeros(ell, np.pi * (self.size // 2))

    def expand(self, volume: ArrayLike) -> NDArray[np.float64]:
        """Coefficients of the volume in the basis.

        Parameters
        ----------
        volume : array, shape (L, L, L)
            Volume, indexed [z, y, x], its centre at index L // 2.

        Returns
        -------
        float64, shape (M,)
            Least-squares fit over the voxels within L // 2 of the centre.

        Raises
        ------
        InputError
            If the volume is not a finite cube of this size.
        """
        voxels = np.asarray(volume, dtype=np.float64)
        if voxels.shape != (self.size,) * 3:
            raise expected(
                "volume", f"a cube of {self.size} voxels a side", f"shape {voxels.shape}"
            )
        if not np.isfinite(voxels).all():
            raise expected("volume", "finite voxels", "NaN or infinity")
        q, r = self._factors
        inside = voxels.ravel()[self._ball]
        solution: NDArray[np.float64] = linalg.solve_triangular(r, q.T @ inside)
        return solution

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
            If there are not M coefficients.
        """
        x = self._checked(coefficients)
        volume = np.zeros(self.size**3)
        start = 0
        for ell, harmonics in enumerate(self._harmonics(slice(None))):
            radial = self._radial(ell, slice(None))
            stop = start + len(harmonics) * len(radial)
            block = x[start:stop].reshape(len(harmonics), len(radial))
            volume += np.einsum("mv,mv->v", harmonics, block @ radial)
            start = stop
        return volume.reshape((self.size,) * 3)

    def project(self, coefficients: ArrayLike, rotations: ArrayLike) -> NDArray:
        """Projections of the volume, equation (16).

        Parameters
        ----------
        coefficients : array, shape (M,)
            Real coefficients.
        rotations : array, shape (K, 3, 3)
            Rotation matrices on (x, y, z) columns.

        Returns
        -------
        float64, shape (K, L, L)
            Integrals along z of the rotated volumes, indexed [y, x].

        Raises
        ------
        InputError
            If there are not M coefficients or `rotations` are not rotations.
        """
        from .projection import project

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
            If there are not M coefficients or `rotation` is not a rotation.
        """
        x = self._checked(coefficients)
        turned = np.empty_like(x)
        start = 0
        matrices = real_wigner(np.asarray(rotation)[np.newaxis], self.ell_max)
        for matrix, count in zip(matrices, self.radial_counts, strict=True):
            stop = start + matrix.shape[1] * count
            block = x[start:stop].reshape(matrix.shape[1], count)
            turned[start:stop] = (matrix[0] @ block).ravel()
            start = stop
        return turned

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
            If there are not M coefficients or `ell_max` is higher than this basis's.
        """
        x = self._checked(coefficients)
        if ell_max > self.ell_max:
            raise expected("ell_max", f"at most {self.ell_max}", ell_max)
        return x[: VolumeBasis(self.size, ell_max).n_coefficients].copy()

    def lift(self, coefficients: ArrayLike, ell_max: int) -> NDArray[np.float64]:
        """Add degrees up to `ell_max`, with coefficients zero.

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
            If there are not M coefficients or `ell_max` is lower than this basis's.
        """
        x = self._checked(coefficients)
        if ell_max < self.ell_max:
            raise expected("ell_max", f"at least {self.ell_max}", ell_max)
        lifted = np.zeros(VolumeBasis(self.size, ell_max).n_coefficients)
        lifted[: x.size] = x
        return lifted

    def to_complex(self, coefficients: ArrayLike) -> NDArray[np.complex128]:
        """The paper's complex coefficients x_{l,m,s}.

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
            If there are not M coefficients.
        """
        x = self._checked(coefficients)
        ell, m, _ = self.indices.T
        mirrored = x[self._mirrored]
        sign = (-1.0) ** m
        positive = sign * (x - 1j * mirrored) / np.sqrt(2)
        negative = (mirrored + 1j * x) / np.sqrt(2)
        value = np.where(m > 0, positive, np.where(m < 0, negative, x))
        return np.asarray((-1j) ** ell * value)

    def from_complex(self, coefficients: ArrayLike) -> NDArray[np.float64]:
        """Real coefficients from the paper's complex ones.

        Parameters
        ----------
        coefficients : array, shape (M,)
            Complex coefficients of a real volume.

        Returns
        -------
        float64, shape (M,)
            Real coefficients; inverse of :meth:`to_complex`.

        Raises
        ------
        InputError
            If there are not M coefficients, or they are not those of a real volume.
        """
        z = np.asarray(coefficients, dtype=np.complex128)
        if z.shape != (self.n_coefficients,):
            raise expected("coefficients", f"shape ({self.n_coefficients},)", z.shape)
        ell, m, _ = self.indices.T
        partner = (-1.0) ** (ell + m) * z[self._mirrored].conj()
        if not np.allclose(z, partner, rtol=1e-8, atol=1e-8 * np.abs(z).max(initial=0)):
            raise expected("coefficients", "x[l,-m] = (-1)^(l+m) conj(x[l,m])", "others")
        value = 1j**ell * z
        sign = (-1.0) ** m
        positive = np.sqrt(2) * sign * value.real
        negative = np.sqrt(2) * value.imag
        return np.where(m > 0, positive, np.where(m < 0, negative, value.real))

    def _checked(self, coefficients: ArrayLike) -> NDArray[np.float64]:
        x = np.asarray(coefficients, dtype=np.float64)
        if x.shape != (self.n_coefficients,):
            raise expected("coefficients", f"shape ({self.n_coefficients},)", x.shape)
        return x

    @cached_property
    def _mirrored(self) -> NDArray[np.intp]:
        """Position of (ell, -m, s) for each coefficient."""
        position = {tuple(index): i for i, index in enumerate(self.indices.tolist())}
        return np.array([position[ell, -m, s] for ell, m, s in self.indices.tolist()])

    @cached_property
    def _grid(self) -> NDArray[np.intp]:
        """Offsets (x, y, z) of all voxels from the centre, in memory order."""
        offset = np.arange(self.size) - self.size // 2
        z, y, x = np.meshgrid(offset, offset, offset, indexing="ij")
        return np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)

    @cached_property
    def _ball(self) -> NDArray[np.intp]:
        """Voxels within L // 2 of the centre."""
        distance_2 = (self._grid**2).sum(axis=1)
        return np.flatnonzero(distance_2 <= (self.size // 2) ** 2)

    @cached_property
    def _factors(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """QR factors of the basis sampled on the ball."""
        columns = [
            np.einsum("mv,sv->vms", harmonics, self._radial(ell, self._ball)).reshape(
                len(self._ball), -1
            )
            for ell, harmonics in enumerate(self._harmonics(self._ball))
        ]
        q, r = linalg.qr(np.concatenate(columns, axis=1), mode="economic")
        return q, r

    def _harmonics(
        self, voxels: NDArray[np.intp] | slice
    ) -> list[NDArray[np.float64]]:
        return real_spherical_harmonics(self.ell_max, self._grid[voxels])

    def _radial(
        self, ell: int, voxels: NDArray[np.intp] | slice
    ) -> NDArray[np.float64]:
        """Radial factors of one degree in real space, shape (S(ell), n_voxels)."""
        distance_2 = (self._grid[voxels] ** 2).sum(axis=1)
        values, where = np.unique(distance_2, return_inverse=True)
        table = radial_functions(ell, self.radial_zeros(ell), np.sqrt(values))
        return table[:, where]


def radial_functions(
    ell: int, zeros: NDArray[np.float64], radius: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Radial factors of the basis functions in real space.

    Parameters
    ----------
    ell : int
        Degree.
    zeros : float64, shape (S,)
        Zeros u of the spherical Bessel function.
    radius : float64, shape (n,)
        Distances from the centre, pixels.

    Returns
    -------
    float64, shape (S, n)
        4 pi c^3 times the integral over k in [0, 1] of j_{l,s}(k) j_l(pi r k) k^2.

    Notes
    -----
    The inverse Fourier transform of (6), with the integral in closed form (Lommel):
    for j_l(u) = 0 that of j_l(u k) j_l(v k) k^2 is u j_{l+1}(u) j_l(v) / (u^2 - v^2).
    """
    v = 2 * np.pi * _NYQUIST * radius[np.newaxis]
    u = zeros[:, np.newaxis]
    next_bessel = spherical_jn(ell + 1, u)
    near = np.abs(u - v) < _NEAR_A_ZERO
    away = np.where(near, 1.0, u - v)
    slope = np.where(
        near, next_bessel * (1 - (v - u) / u), spherical_jn(ell, v) / away
    )
    integral = u * next_bessel * slope / (u + v)
    scale = 4 * np.pi * _NYQUIST**3 * 4 / np.abs(next_bessel)
    result: NDArray[np.float64] = scale * integral
    return result


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
        Zeros in order, to machine precision; read-only.

    Notes
    -----
    Those of j_0 are multiples of pi; between neighbouring zeros of j_{ell-1} lies
    exactly one of j_ell.
    """
    # one zero more is needed per degree passed, since each degree loses the last
    zeros = np.pi * np.arange(1, int(upper / np.pi) + ell + 2)
    for degree in range(1, ell + 1):
        zeros = np.array(
            [
                optimize.brentq(
                    lambda x, degree=degree: spherical_jn(degree, x),
                    low,
                    high,
                    xtol=1e-15,
                    rtol=4 * np.finfo(float).eps,
                )
                for low, high in zip(zeros[:-1], zeros[1:], strict=True)
            ]
        )
    # the bound itself is a zero of j_0: keep rounding from letting it in
    kept = zeros[zeros < upper * (1 - 1e-12)]
    kept.flags.writeable = False
    return kept
