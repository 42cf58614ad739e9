"""Sufficient statistics of windows, kept as sums of steerable features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from threadpoolctl import threadpool_limits

from numbasaem.errors import expected
from numbasaem.geometry.grids import disc

from .statistics import Statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numbasaem.projection.view_projections import ViewProjections

_MATRIX_BYTES = 32_000_000
"""Memory of the matrices Q_d from which A is summed up at a time."""


@dataclass(frozen=True, kw_only=True)
class FeatureStatistics(Statistics):
    """Sufficient statistics of a set of windows, as features.

    `log_likelihood` counts each particle where it stands, and `patch_energy` the sum
    over them of the square of their central pixel; all visible shifts are alike.

    Attributes
    ----------
    view_weight : float64, shape (n_views, n_angles)
        m_{d,psi}: posterior weight of each rotation, summed over windows. With optics
        groups (n_groups * n_views, n_angles), one group after the other.
    feature_sums : float64, shape (n_pairs, 2H)
        Features of the windows turned back onto p and q of each pair of views, weighted
        by their posterior; with optics groups (n_groups * n_pairs, 2H).
    n_weighed : int
        Windows that the weighing pass took; the others hold a negligible weight.
    """

    view_weight: NDArray[np.float64]
    feature_sums: NDArray[np.float64]
    n_weighed: int

    counts: ClassVar[frozenset[str]] = Statistics.counts | {"n_weighed"}
    of_each_group: ClassVar[tuple[str, ...]] = ("view_weight", "feature_sums")

    @classmethod
    def of_nothing(cls, operator: ViewProjections) -> FeatureStatistics:
        """Statistics of no window.

        Parameters
        ----------
        operator : ViewProjections
            Projections in the rotations that they refer to.

        Returns
        -------
        FeatureStatistics
            Zeros.
        """
        views, size = operator.views, operator.basis.size
        n_groups = operator.n_groups
        return cls(
            view_weight=np.zeros((n_groups * views.n_views, views.n_angles)),
            feature_sums=np.zeros((n_groups * operator.n_pairs, operator.n_features)),
            shift_mass=np.zeros((2 * size, 2 * size)),
            rotation_mass=np.zeros(len(views)),
            log_likelihood=0.0,
            patch_energy=0.0,
            n_patches=0,
            n_weighed=0,
        )

    @property
    def particle_mass(self) -> float:
        """Posterior expected number of particles; see :class:`Statistics`."""
        return float(self.view_weight.sum())

    @property
    def pixels_in_view(self) -> float:
        """Number of pixels of a particle's disc that a patch shows, on average."""
        return self.particle_mass * int(disc(self.size).sum()) / self.n_patches

    def right_side(self, operator: ViewProjections) -> NDArray[np.float64]:
        """Right side y = sum_d Q_d^T h_d; see :class:`Statistics`."""
        self._check(operator)
        with threadpool_limits(1):
            return operator.adjoint(self.feature_sums)

    def normal_matrix(self, operator: ViewProjections) -> NDArray[np.float64]:
        """Matrix A = sum_d Q_d^T G_d Q_d; see :class:`Statistics`."""
        self._check(operator)
        n_coefficients = operator.basis.n_coefficients
        matrix = np.zeros((n_coefficients, n_coefficients))
        step = max(1, _MATRIX_BYTES // (8 * operator.n_features * n_coefficients))
        weight = self.view_weight.reshape(operator.n_groups, operator.n_pairs, 2, -1)
        with threadpool_limits(1):
            for group, weight_of_pairs in enumerate(weight):
                for start in range(0, operator.n_pairs, step):
                    pairs = slice(start, start + step)
                    matrices = operator.matrices(pairs, group)
                    weighted = [
                        operator.weighted_gram(weight_of_pair) @ matrix_of_pair
                        for weight_of_pair, matrix_of_pair in zip(
                            weight_of_pairs[pairs], matrices, strict=True
                        )
                    ]
                    flat = matrices.reshape(-1, n_coefficients)
                    matrix += flat.T @ np.concatenate(weighted)
        return (matrix + matrix.T) / 2

    def normal_product(
        self, operator: ViewProjections, coefficients: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """A times a vector; see :class:`Statistics`."""
        self._check(operator)
        with threadpool_limits(1):
            both = operator.coefficients(coefficients)
            return operator.adjoint(operator.gram_product(self.view_weight, both))

    def explained_energy(
        self, operator: ViewProjections, coefficients: NDArray[np.float64]
    ) -> float:
        """2 x.y - x^T A x; see :class:`Statistics`."""
        with threadpool_limits(1):
            both = operator.coefficients(coefficients)
            energies = operator.energies(both)
            linear = 2 * float(np.vdot(both, self.feature_sums))
            return linear - float(np.vdot(self.view_weight, energies))

    def _check(self, operator: ViewProjections) -> None:
        """Refuse the projections of other rotations or of another basis."""
        shape = (operator.n_groups * operator.n_pairs, operator.n_features)
        if self.feature_sums.shape != shape:
            raise expected(
                "statistics",
                f"sums of features of shape {shape}",
                f"shape {self.feature_sums.shape}",
            )
