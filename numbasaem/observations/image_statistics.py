"""Sufficient statistics of patches, kept as images of each projection."""

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

    from numbasaem.projection.operator import ProjectionOperator

MATRIX_BYTES = 32_000_000
"""Bytes of the projection matrices from which A is summed up at a time."""


@dataclass(frozen=True, kw_only=True)
class ImageStatistics(Statistics):
    """Sufficient statistics of a set of patches, as images.

    Attributes
    ----------
    visible_weight : float64, shape (K, L, L)
        m_k: posterior weight with which each projection pixel was inside a patch. With
        optics groups (n_groups * K, L, L), one group after the other.
    weighted_patch : float64, shape of `visible_weight`
        b_k: patches moved back onto the projection, weighted by their posterior.
    """

    visible_weight: NDArray[np.float64]
    weighted_patch: NDArray[np.float64]

    of_each_group: ClassVar[tuple[str, ...]] = ("visible_weight", "weighted_patch")

    @classmethod
    def of_nothing(cls, n_rotations: int, size: int) -> ImageStatistics:
        """Statistics of no patch.

        Parameters
        ----------
        n_rotations : int
            Number of projections.
        size : int
            L, side of a projection, pixels.

        Returns
        -------
        ImageStatistics
            Zeros.
        """
        images = np.zeros((n_rotations, size, size))
        return cls(
            visible_weight=images,
            weighted_patch=images.copy(),
            shift_mass=np.zeros((2 * size, 2 * size)),
            rotation_mass=np.zeros(n_rotations),
            log_likelihood=0.0,
            patch_energy=0.0,
            n_patches=0,
        )

    @property
    def particle_mass(self) -> float:
        """Posterior expected number of particles; see :class:`Statistics`."""
        return float(self.visible_weight.sum()) / self.size**2

    @property
    def pixels_in_view(self) -> float:
        """Number of pixels of a particle's disc that a patch shows, on average."""
        return float(self.visible_weight[:, disc(self.size)].sum()) / self.n_patches

    def normal_matrix(self, operator: ProjectionOperator) -> NDArray[np.float64]:
        """Matrix A, equation (34); see :class:`Statistics`."""
        self._check(operator)
        n_pixels, n_coefficients = self.size**2, operator.basis.n_coefficients
        n_rotations = operator.n_rotations
        weight = self.visible_weight.reshape(
            operator.n_groups, n_rotations, n_pixels, 1
        )
        roots = np.sqrt(weight[:, :, operator.disc])
        matrix = np.zeros((n_coefficients, n_coefficients))
        step = max(1, MATRIX_BYTES // (8 * n_pixels * n_coefficients))
        with threadpool_limits(1):
            for group, root in enumerate(roots):
                for start in range(0, n_rotations, step):
                    stop = min(start + step, n_rotations)
                    views = operator.matrices(start, stop, operator.disc, group)
                    flat = (root[start:stop] * views).reshape(-1, n_coefficients)
                    matrix += flat.T @ flat
        return matrix

    def right_side(self, operator: ProjectionOperator) -> NDArray[np.float64]:
        """Right side y, equation (30); see :class:`Statistics`."""
        self._check(operator)
        with threadpool_limits(1):
            return operator.adjoint(self.weighted_patch)

    def normal_product(
        self, operator: ProjectionOperator, coefficients: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """A times a vector; see :class:`Statistics`."""
        self._check(operator)
        with threadpool_limits(1):
            images = operator.project(coefficients)
            return operator.adjoint(self.visible_weight * images)

    def explained_energy(
        self, operator: ProjectionOperator, coefficients: NDArray[np.float64]
    ) -> float:
        """2 x.y - x^T A x; see :class:`Statistics`."""
        images = operator.project(coefficients)
        remainder = 2 * self.weighted_patch - self.visible_weight * images
        return float(np.vdot(images, remainder))

    def _check(self, operator: ProjectionOperator) -> None:
        """Refuse the projections of other rotations or of another size."""
        size = operator.basis.size
        shape = (operator.n_groups * operator.n_rotations, size, size)
        if self.visible_weight.shape != shape:
            raise expected(
                "statistics",
                f"images of shape {shape}",
                f"shape {self.visible_weight.shape}",
            )


def statistics_bytes(n_rotations: int, size: int) -> int:
    """Memory of one set of statistics.

    Parameters
    ----------
    n_rotations : int
        Number of projections, of all optics groups.
    size : int
        L, side of a projection, pixels.

    Returns
    -------
    int
        Bytes of the images; the rest is small beside them.
    """
    return 2 * 8 * n_rotations * size**2
