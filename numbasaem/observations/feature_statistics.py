"""Sufficient statistics of the window model, kept as sums of steerable features."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from numbasaem.errors import expected

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numbasaem.projection.steerable import ViewProjections

_MATRIX_BYTES = 32_000_000
"""Memory of the matrices Q_d from which A is summed up at a time."""


@dataclass(frozen=True)
class FeatureStatistics:
    """Sufficient statistics of a set of windows; those of a union are the sum.

    Attributes
    ----------
    view_weight : float64, shape (n_views, n_angles)
        m_{d,psi}: posterior weight of each rotation, summed over windows.
    feature_sums : float64, shape (n_pairs, 2H)
        Features of the windows turned back onto p and q of each pair of views, weighted
        by their posterior.
    rotation_mass : float64, shape (K,)
        Posterior of each rotation, of what is empty as its prior is, in patches.
    evidence : float
        Composite log-likelihood above that of noise alone.
    window_energy : float
        Sum over windows of the square of their central pixel.
    empty_mass : float
        Posterior expected number of patches that hold no particle.
    n_patches : float
        Windows seen over L**2.
    n_weighed : int
        Windows that the weighing pass took; the others hold a negligible weight.
    """

    view_weight: NDArray[np.float64]
    feature_sums: NDArray[np.float64]
    rotation_mass: NDArray[np.float64]
    evidence: float
    window_energy: float
    empty_mass: float
    n_patches: float
    n_weighed: int

    def __add__(self, other: FeatureStatistics) -> FeatureStatistics:
        """Statistics of both sets of windows together."""
        if not isinstance(other, FeatureStatistics):
            return NotImplemented
        shapes = [(s.view_weight.shape, s.feature_sums.shape) for s in (self, other)]
        if shapes[0] != shapes[1]:
            raise expected("statistics", f"shapes {shapes[0]}", f"shapes {shapes[1]}")
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return FeatureStatistics(*(a + b for a, b in pairs))

    def scaled(self, factor: float) -> FeatureStatistics:
        """Statistics of the same windows counted `factor` times, except their number.

        Parameters
        ----------
        factor : float
            Factor on all sums but `evidence`, `n_patches` and `n_weighed`.

        Returns
        -------
        FeatureStatistics
            Of the same windows.
        """
        return replace(
            self,
            view_weight=self.view_weight * factor,
            feature_sums=self.feature_sums * factor,
            rotation_mass=self.rotation_mass * factor,
            window_energy=self.window_energy * factor,
            empty_mass=self.empty_mass * factor,
        )

    def right_side(self, operator: ViewProjections) -> NDArray[np.float64]:
        """Right side y of the linear equations (29).

        Parameters
        ----------
        operator : ViewProjections
            Projections in the rotations that these statistics refer to.

        Returns
        -------
        float64, shape (M,)
            y = sum_d Q_d^T h_d, equation (30).

        Raises
        ------
        InputError
            If the statistics are of other rotations or another basis.
        """
        self._check(operator)
        with threadpool_limits(1):
            return operator.adjoint(self.feature_sums)

    def normal_matrix(self, operator: ViewProjections) -> NDArray[np.float64]:
        """Matrix A of the linear equations (29).

        Parameters
        ----------
        operator : ViewProjections
            Projections in the rotations that these statistics refer to.

        Returns
        -------
        float64, shape (M, M)
            A = sum_d Q_d^T G_d Q_d, equation (34) without an image of any rotation.

        Raises
        ------
        InputError
            If the statistics are of other rotations or another basis.
        """
        self._check(operator)
        n_coefficients = operator.basis.n_coefficients
        n_features = 2 * operator.features.n_half
        matrix = np.zeros((n_coefficients, n_coefficients))
        step = max(1, _MATRIX_BYTES // (8 * n_features * n_coefficients))
        with threadpool_limits(1):
            for start in range(0, operator.n_pairs, step):
                stop = min(start + step, operator.n_pairs)
                matrices = operator.matrices(start, stop)
                weighted = [
                    gram @ matrix_of_pair
                    for gram, matrix_of_pair in zip(
                        self._weighted_grams(operator, start, stop),
                        matrices,
                        strict=True,
                    )
                ]
                flat = matrices.reshape(-1, n_coefficients)
                matrix += flat.T @ np.concatenate(weighted)
        return (matrix + matrix.T) / 2

    def normal_product(
        self, operator: ViewProjections, coefficients: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Product of the matrix A of (29) and a vector, without the matrix.

        Parameters
        ----------
        operator : ViewProjections
            Projections in the rotations that these statistics refer to.
        coefficients : float64, shape (M,)
            The vector.

        Returns
        -------
        float64, shape (M,)
            The product.

        Raises
        ------
        InputError
            If the statistics are of other rotations or another basis.
        """
        self._check(operator)
        with threadpool_limits(1):
            both = operator.coefficients(coefficients)
            grams = self._weighted_grams(operator, 0, operator.n_pairs)
            weighted = [gram @ pair for gram, pair in zip(grams, both, strict=True)]
            return operator.adjoint(np.array(weighted))

    def explained_energy(
        self, operator: ViewProjections, coefficients: NDArray[np.float64]
    ) -> float:
        """Energy of the windows that a volume explains.

        Parameters
        ----------
        operator : ViewProjections
            Projections in the rotations that these statistics refer to.
        coefficients : float64, shape (M,)
            The volume.

        Returns
        -------
        float
            2 x.y - x^T A x.
        """
        with threadpool_limits(1):
            both = operator.coefficients(coefficients)
            energies = operator.energies(both)
            linear = 2 * float(np.vdot(both, self.feature_sums))
            return linear - float(np.vdot(self.view_weight, energies))

    def _weighted_grams(self, operator: ViewProjections, start: int, stop: int):  # type: ignore[no-untyped-def]
        """G_d of some pairs of views, one after the other."""
        weight = self.view_weight.reshape(operator.n_pairs, 2, -1)
        return (operator.weighted_gram(weight[pair]) for pair in range(start, stop))

    def _check(self, operator: ViewProjections) -> None:
        """Refuse the projections of other rotations or of another basis."""
        shape = (operator.n_pairs, 2 * operator.features.n_half)
        if self.feature_sums.shape != shape:
            raise expected(
                "statistics",
                f"sums of features of shape {shape}",
                f"shape {self.feature_sums.shape}",
            )
