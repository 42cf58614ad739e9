"""Sufficient statistics of the E-step, and what the M-step asks of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from numbasaem.errors import expected
from numbasaem.geometry.grids import disc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from numbasaem.micrographs.optics_groups import OpticsGroups
    from numbasaem.projection.operator import ProjectionOperator

MATRIX_BYTES = 32_000_000
"""Bytes of the projection matrices from which A is summed up at a time."""
_NO_IMAGES = np.empty((0, 0, 0))


@dataclass(frozen=True)
class Statistics:
    """Sufficient statistics of a set of patches; those of two sets add up.

    The M-step uses nothing but :meth:`right_side`, :meth:`normal_matrix`,
    :meth:`explained_energy` and the numbers. A class that keeps its statistics in
    another space than that of pixels offers the same.

    Attributes
    ----------
    visible_weight : float64, shape (n_rotations, L, L)
        m_k: posterior weight with which each projection pixel was inside a patch. With
        optics groups (n_groups * n_rotations, L, L), one group after the other.
    weighted_patch : float64, shape of `visible_weight`
        b_k: patches moved back onto the projection, weighted by their posterior.
    shift_mass : float64, shape (2L, 2L)
        Posterior of each shift of equation (17), summed over patches. The shifts that
        leave a patch empty are one state; they share its mass as they share its prior.
    rotation_mass : float64, shape (n_rotations,)
        Posterior of each rotation, summed over patches.
    log_likelihood : float
        Sum over patches of log p(I_p), natural, Gaussian constant included.
    patch_energy : float
        Sum over patches of ||I_p||**2.
    n_patches : float
        Number of patches seen; in the window model, that of windows over L**2.

    Examples
    --------
    >>> from numbasaem import expectation
    >>> patches = np.random.default_rng(0).random((6, 5, 5), dtype=np.float32)
    >>> prior = np.full((10, 10), 0.01)
    >>> halves = (patches[:3], patches[3:])
    >>> first, second = (expectation(half, patches, prior, 1.0) for half in halves)
    >>> (first + second).n_patches
    6
    """

    visible_weight: NDArray[np.float64]
    weighted_patch: NDArray[np.float64]
    shift_mass: NDArray[np.float64]
    rotation_mass: NDArray[np.float64]
    log_likelihood: float
    patch_energy: float
    n_patches: float

    def __add__(self, other: Statistics) -> Statistics:
        """Statistics of both sets of patches together."""
        if not isinstance(other, Statistics):
            return NotImplemented
        if self.visible_weight.shape != other.visible_weight.shape:
            raise expected(
                "statistics",
                f"images of shape {self.visible_weight.shape}",
                f"shape {other.visible_weight.shape}",
            )
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return Statistics(*(a + b for a, b in pairs))

    def scaled(self, factor: float) -> Statistics:
        """Statistics of the same patches, each counted `factor` times.

        Parameters
        ----------
        factor : float
            Factor of all sums but `log_likelihood` and `n_patches`.

        Returns
        -------
        Statistics
            Statistics with their sums multiplied.
        """
        return replace(
            self,
            visible_weight=self.visible_weight * factor,
            weighted_patch=self.weighted_patch * factor,
            shift_mass=self.shift_mass * factor,
            rotation_mass=self.rotation_mass * factor,
            patch_energy=self.patch_energy * factor,
        )

    @staticmethod
    def of_nothing(n_rotations: int, size: int) -> Statistics:
        """Statistics of no patch.

        Parameters
        ----------
        n_rotations : int
            Number of projections.
        size : int
            L, side of a projection, pixels.

        Returns
        -------
        Statistics
            Zeros.
        """
        images = np.zeros((n_rotations, size, size))
        return Statistics(
            visible_weight=images,
            weighted_patch=images.copy(),
            shift_mass=np.zeros((2 * size, 2 * size)),
            rotation_mass=np.zeros(n_rotations),
            log_likelihood=0.0,
            patch_energy=0.0,
            n_patches=0,
        )

    @staticmethod
    def of_groups(groups: Sequence[Statistics]) -> Statistics:
        """Statistics of optics groups, each under its own views of the volume.

        Parameters
        ----------
        groups : sequence of Statistics
            One for each group.

        Returns
        -------
        Statistics
            Statistics of all patches, the images of the groups one after the other.
        """
        first, *others = (
            replace(group, visible_weight=_NO_IMAGES, weighted_patch=_NO_IMAGES)
            for group in groups
        )
        return replace(
            sum(others, start=first),
            visible_weight=np.concatenate([group.visible_weight for group in groups]),
            weighted_patch=np.concatenate([group.weighted_patch for group in groups]),
        )

    @property
    def size(self) -> int:
        """L, side of a patch, pixels."""
        return len(self.shift_mass) // 2

    @property
    def n_pixels(self) -> float:
        """Number of pixels of the patches."""
        return self.n_patches * self.size**2

    @property
    def empty_mass(self) -> float:
        """Posterior expected number of patches that hold no particle."""
        size = self.size
        return float(
            self.shift_mass[size].sum()
            + self.shift_mass[:, size].sum()
            - self.shift_mass[size, size]
        )

    @property
    def pixels_in_view(self) -> float:
        """Number of pixels of a particle's disc that a patch shows, on average."""
        return float(self.visible_weight[:, disc(self.size)].sum()) / self.n_patches

    @property
    def evidence(self) -> float:
        """Log-likelihood less that of the likeliest white noise without particles.

        Minibatches can be compared by it: it fluctuates a hundred times less than the
        log-likelihood, since the energy of the pixels drops out. Minus infinity if all
        pixels are zero.
        """
        if self.patch_energy <= 0:
            return -math.inf
        variance = self.patch_energy / self.n_pixels
        white = -self.n_pixels * (1 + math.log(2 * math.pi * variance)) / 2
        return self.log_likelihood - white

    def normal_matrix(self, operator: ProjectionOperator) -> NDArray[np.float64]:
        """Matrix A of the linear equations (29).

        Parameters
        ----------
        operator : ProjectionOperator
            Projections in the rotations that these statistics refer to.

        Returns
        -------
        float64, shape (M, M)
            A = sum_k Phi_k^T diag(m_k) Phi_k, equation (34); positive semidefinite.

        Raises
        ------
        InputError
            If the statistics are of other rotations or another size.

        Notes
        -----
        On one thread, so that the sum is the same bits wherever it is taken.
        """
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
        """Right side y of the linear equations (29).

        Parameters
        ----------
        operator : ProjectionOperator
            Projections in the rotations that these statistics refer to.

        Returns
        -------
        float64, shape (M,)
            y = sum_k Phi_k^T b_k, equation (30).

        Raises
        ------
        InputError
            If the statistics are of other rotations or another size.
        """
        self._check(operator)
        with threadpool_limits(1):
            return operator.adjoint(self.weighted_patch)

    def normal_product(
        self, operator: ProjectionOperator, coefficients: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Product of the matrix A of (29) and a vector, without the matrix.

        Parameters
        ----------
        operator : ProjectionOperator
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
            If the statistics are of other rotations or another size.
        """
        self._check(operator)
        with threadpool_limits(1):
            images = operator.project(coefficients)
            return operator.adjoint(self.visible_weight * images)

    def explained_energy(
        self, operator: ProjectionOperator, coefficients: NDArray[np.float64]
    ) -> float:
        """Energy of the patches that a volume explains.

        Parameters
        ----------
        operator : ProjectionOperator
            Projections in the rotations that these statistics refer to.
        coefficients : float64, shape (M,)
            The volume.

        Returns
        -------
        float
            2 x.y - x^T A x: `patch_energy` less this is the expected squared residual.
        """
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


def by_optics_group(
    optics: OpticsGroups | None,
    chosen: NDArray[np.intp],
    images: NDArray[np.float64],
    statistics_of: Callable[[NDArray[np.intp], NDArray[np.float64]], Statistics],
) -> Statistics:
    """Statistics of observations, each under the images of its optics group.

    Parameters
    ----------
    optics : OpticsGroups or None
        Groups of all observations; None if there are none.
    chosen : intp, shape (n,)
        Numbers of the observations.
    images : float64, shape (n_groups * n_rotations, L, L)
        Projections as each group sees them.
    statistics_of : callable
        Function from observations, at least one, and images to statistics.

    Returns
    -------
    Statistics
        Statistics of all.
    """
    if optics is None:
        return statistics_of(chosen, images)
    group_of_chosen = optics.group[chosen]
    groups = []
    for number, group_images in enumerate(np.split(images, len(optics.point_spreads))):
        members = chosen[group_of_chosen == number]
        groups.append(
            statistics_of(members, group_images)
            if len(members)
            else Statistics.of_nothing(*group_images.shape[:2])
        )
    return Statistics.of_groups(groups)


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
