"""Which functions span the volumes of a ball, and in which order, (6)-(8)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.errors import expected

from .special_functions import spherical_bessel_zeros

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class BallFunctions:
    """Spherical Bessel functions times spherical harmonics, of a size and a degree.

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

    Examples
    --------
    >>> functions = BallFunctions(size=11, ell_max=10)
    >>> functions.n_coefficients
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
        """Triples (ell, m, s) of the coefficients; int64, shape (M, 3), read-only.

        In the order of ell, then m from -ell to ell, then s from 1.
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
        """Zeros u_{ell,s} of the spherical Bessel function that the functions use.

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

    def blocks(self, coefficients: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Coefficients by degree, as views of the array.

        Parameters
        ----------
        coefficients : float64, shape (..., M)
            Coefficients along the last axis.

        Returns
        -------
        list of float64, shape (..., 2 ell + 1, S(ell)) for entry ell
            Coefficients of each degree; writing to them writes to `coefficients`.
        """
        leading = coefficients.shape[:-1]
        parts, start = [], 0
        for ell, count in enumerate(self.radial_counts):
            shape = (2 * ell + 1, count)
            stop = start + (2 * ell + 1) * count
            parts.append(coefficients[..., start:stop].reshape(*leading, *shape))
            start = stop
        return parts
