"""Linear equations (29) of the M-step, with their matrix or without it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy import linalg, sparse
from scipy.sparse.linalg import LinearOperator, cg
from threadpoolctl import threadpool_limits

from numbasaem.errors import expected, warn
from numbasaem.observations.feature_statistics import FeatureStatistics
from numbasaem.projection.view_projections import LARGEST_MATRIX, ViewProjections

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from numbasaem.observations.statistics import Statistics
    from numbasaem.projection.operator import ProjectionOperator

_SMALLEST_RIDGE = 1e-9
"""Smallest ridge, over the largest diagonal entry: far below any seen coefficient's."""
_TOLERANCE = 1e-8
"""Largest residual of a solution, over the right side, both as preconditioned."""
_MOST_ITERATIONS = 300
"""Iterations after which a solution is taken as it is: with a prior, 40 are many."""


class NormalEquations(ABC):
    """Equations (A + precision) x = y, maybe for the combinations of some volumes."""

    @property
    @abstractmethod
    def n_unknowns(self) -> int:
        """Number of unknowns n, M before any restriction."""

    @property
    @abstractmethod
    def trace(self) -> float:
        """Sum of the diagonal of the matrix."""

    @abstractmethod
    def with_precision(self, prior_precision: ArrayLike) -> Self:
        """Equations with a Gaussian prior of mean zero.

        Parameters
        ----------
        prior_precision : array, shape (M,)
            Added to the diagonal of A.

        Returns
        -------
        NormalEquations
            The equations with it.

        Raises
        ------
        InputError
            If the precision has another shape or is negative.
        """

    @abstractmethod
    def restricted(self, volumes: NDArray[np.float64]) -> NormalEquations:
        """Equations of the combinations of a few volumes.

        Parameters
        ----------
        volumes : float64, shape (M, n)
            Coefficients of each of these volumes, orthonormal. Each is made of the
            functions of one degree and one radial function, the same for all of them.

        Returns
        -------
        NormalEquations
            Equations of their n weights.
        """

    @abstractmethod
    def products(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Products of the matrix and some vectors.

        Parameters
        ----------
        vectors : float64, shape (n_vectors, n)
            The vectors.

        Returns
        -------
        float64, shape (n_vectors, n)
            The products.
        """

    @abstractmethod
    def n_unconstrained(self) -> int:
        """Count the dimensions that nothing constrains: the rank the matrix lacks.

        Returns
        -------
        int
            Dimensions that :meth:`solve` leaves to its ridge; without the matrix, the
            fewest that there may be.
        """

    @abstractmethod
    def solve(self) -> NDArray[np.float64]:
        """Solve the equations.

        Returns
        -------
        float64, shape (n,)
            Solution. What nothing has seen comes out as zero, or near it.
        """


def normal_equations(
    operator: ProjectionOperator | ViewProjections, stats: Statistics
) -> NormalEquations:
    """Linear equations (29) of the volume that maximizes the likelihood.

    Parameters
    ----------
    operator : ProjectionOperator or ViewProjections
        Projections in the K rotations that `stats` refers to.
    stats : Statistics
        Sufficient statistics of the E-step.

    Returns
    -------
    NormalEquations
        A x = y, A of equation (34) and y of (30).

    Raises
    ------
    InputError
        If the statistics are of other rotations or another size.

    Notes
    -----
    All sums are taken on one thread, so that they have the same bits on every machine.
    Of more than `LARGEST_MATRIX` coefficients in steerable features, A is not formed.
    """
    if (
        isinstance(stats, FeatureStatistics)
        and isinstance(operator, ViewProjections)
        and operator.basis.n_coefficients > LARGEST_MATRIX
    ):
        return IterativeEquations.of_statistics(operator, stats)
    return DenseEquations(stats.normal_matrix(operator), stats.right_side(operator))


@dataclass(frozen=True)
class DenseEquations(NormalEquations):
    """Equations with their matrix, solved by Cholesky's factors.

    Attributes
    ----------
    matrix : float64, shape (n, n)
        A, positive semidefinite.
    right_side : float64, shape (n,)
        y.
    """

    matrix: NDArray[np.float64]
    right_side: NDArray[np.float64]

    @property
    def n_unknowns(self) -> int:
        """Number of unknowns; see :class:`NormalEquations`."""
        return self.right_side.size

    @property
    def trace(self) -> float:
        """Sum of the diagonal; see :class:`NormalEquations`."""
        return float(np.trace(self.matrix))

    def with_precision(self, prior_precision: ArrayLike) -> DenseEquations:
        """Equations with a prior; see :class:`NormalEquations`."""
        matrix = self.matrix.copy()
        precision = _checked_precision(prior_precision, self.n_unknowns)
        np.einsum("ii->i", matrix)[:] += precision
        return replace(self, matrix=matrix)

    def restricted(self, volumes: NDArray[np.float64]) -> DenseEquations:
        """Equations of combinations of volumes; see :class:`NormalEquations`."""
        with threadpool_limits(1):
            matrix = volumes.T @ self.matrix @ volumes
            right_side = volumes.T @ self.right_side
        return replace(self, matrix=matrix, right_side=right_side)

    def products(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Products of matrix and vectors; see :class:`NormalEquations`."""
        with threadpool_limits(1):
            return vectors @ self.matrix

    def n_unconstrained(self) -> int:
        """Count what nothing constrains; see :class:`NormalEquations`."""
        largest = np.diag(self.matrix).max(initial=0.0)
        if largest <= 0:
            return self.n_unknowns
        with threadpool_limits(1):
            *_, rank, _ = linalg.lapack.dpstrf(
                self.matrix, tol=_SMALLEST_RIDGE * largest
            )
        return self.n_unknowns - int(rank)

    def solve(self) -> NDArray[np.float64]:
        """Solve the equations; see :class:`NormalEquations`."""
        system = self.matrix.copy()
        diagonal = np.einsum("ii->i", system)
        largest = diagonal.max(initial=0.0)
        if largest <= 0:
            return np.zeros_like(self.right_side)
        diagonal += _SMALLEST_RIDGE * largest
        with threadpool_limits(1):
            factors = linalg.cho_factor(system, overwrite_a=True)
            return np.asarray(linalg.cho_solve(factors, self.right_side))


@dataclass(frozen=True)
class IterativeEquations(NormalEquations):
    """Equations without their matrix, solved by conjugate gradients.

    Attributes
    ----------
    operator : ViewProjections
        Projections in the rotations that the statistics refer to.
    statistics : FeatureStatistics
        Statistics whose A it is.
    right_side : float64, shape (n,)
        y.
    means : tuple of float64, shape (S(ell), S(ell)) for entry ell
        Average of A over all rotations of the molecule: these blocks, one for each
        degree, the same for all its orders.
    precision : float64, shape (M,)
        Added to the diagonal of A.
    volumes : sparse array, shape (M, n), or None
        Volumes of whose combinations the equations are; None for all volumes.

    Notes
    -----
    Over evenly spread rotations, A is near its average. With the factors L L^T of the
    average, the unknowns u of x = L^-T u have a matrix near the identity, in which
    conjugate gradients take few steps. Symmetric volumes combine the orders of a degree
    alike for all its radial functions, so that L^-T maps them onto each other.
    """

    operator: ViewProjections
    statistics: FeatureStatistics
    right_side: NDArray[np.float64]
    means: tuple[NDArray[np.float64], ...]
    precision: NDArray[np.float64]
    volumes: sparse.csr_array | None = None

    @classmethod
    def of_statistics(
        cls, operator: ViewProjections, statistics: FeatureStatistics
    ) -> IterativeEquations:
        """Equations of all volumes, without a prior.

        Parameters
        ----------
        operator : ViewProjections
            Projections in the rotations that the statistics refer to.
        statistics : FeatureStatistics
            Sufficient statistics of the E-step.

        Returns
        -------
        IterativeEquations
            The equations.

        Raises
        ------
        InputError
            If the statistics are of other rotations or another size.
        """
        right_side = statistics.right_side(operator)
        weights = statistics.view_weight.reshape(operator.n_groups, -1).sum(axis=1)
        with threadpool_limits(1):
            means = tuple(operator.mean_gram(weights))
        precision = np.zeros_like(right_side)
        return cls(operator, statistics, right_side, means, precision)

    @property
    def n_unknowns(self) -> int:
        """Number of unknowns; see :class:`NormalEquations`."""
        return self.right_side.size

    @property
    def trace(self) -> float:
        """Sum of the diagonal of A + precision for all volumes.

        It is that of the average: turning the molecule leaves it as it is.
        """
        traces = [(2 * ell + 1) * np.trace(mean) for ell, mean in enumerate(self.means)]
        return float(sum(traces) + self.precision.sum())

    def with_precision(self, prior_precision: ArrayLike) -> IterativeEquations:
        """Equations with a prior; see :class:`NormalEquations`."""
        precision = _checked_precision(prior_precision, self.precision.size)
        return replace(self, precision=self.precision + precision)

    def restricted(self, volumes: NDArray[np.float64]) -> IterativeEquations:
        """Equations of combinations of volumes; see :class:`NormalEquations`."""
        columns = sparse.csr_array(volumes)
        return replace(
            self, volumes=columns, right_side=np.asarray(columns.T @ self.right_side)
        )

    def products(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Products of matrix and vectors; see :class:`NormalEquations`."""
        return np.array(
            [self._combine(self._product(self._volume(v))) for v in vectors]
        )

    def n_unconstrained(self) -> int:
        """Count what is sure to be unconstrained; see :class:`NormalEquations`.

        A pair of views constrains no more dimensions than it has features.
        """
        if self.precision.min(initial=np.inf) > self._ridge:
            return 0
        n_pairs = len(self.statistics.feature_sums)
        seen = self.statistics.view_weight.reshape(n_pairs, -1).any(axis=1)
        n_seen = int(np.count_nonzero(seen)) * self.operator.n_features
        return max(0, self.n_unknowns - n_seen)

    def solve(self) -> NDArray[np.float64]:
        """Solve the equations; see :class:`NormalEquations`.

        Warns
        -----
        RunWarning
            If the iteration does not converge.
        """
        if self._ridge <= 0 or not self.right_side.any():
            return np.zeros_like(self.right_side)
        with threadpool_limits(1):
            roots = self._roots()

            def apart(unknowns: NDArray[np.float64]) -> NDArray[np.float64]:
                return self._by_degree(roots, self._volume(unknowns))

            def together(volume: NDArray[np.float64]) -> NDArray[np.float64]:
                adjoint = [root.T for root in roots]
                return self._combine(self._by_degree(adjoint, volume))

            def product(unknowns: NDArray[np.float64]) -> NDArray[np.float64]:
                volume = apart(unknowns)
                return together(self._product(volume) + self._ridge * volume)

            shape = self.n_unknowns, self.n_unknowns
            system = LinearOperator(shape, matvec=product, dtype=np.float64)
            target = together(self._volume(self.right_side))
            unknowns, failed = cg(
                system, target, rtol=_TOLERANCE, maxiter=_MOST_ITERATIONS
            )
            if failed:
                warn(
                    f"the M-step is not solved to {_TOLERANCE:g} after "
                    f"{_MOST_ITERATIONS} iterations of conjugate gradients; more "
                    "patches, or a lower degree, would help"
                )
            return self._combine(apart(unknowns))

    @cached_property
    def _ridge(self) -> float:
        """Ridge of the matrix: a share of the largest of its diagonal, on average."""
        largest = max(np.diag(mean).max(initial=0.0) for mean in self._blocks)
        return float(_SMALLEST_RIDGE * largest)

    @cached_property
    def _blocks(self) -> list[NDArray[np.float64]]:
        """Average of A + precision over all rotations, for each degree."""
        precisions = self.operator.basis.blocks(self.precision)
        return [
            mean + np.diag(precision.mean(axis=0))
            for mean, precision in zip(self.means, precisions, strict=True)
        ]

    def _roots(self) -> list[NDArray[np.float64]]:
        """L^-T of each block L L^T."""
        roots = []
        for block in self._blocks:
            identity = np.eye(len(block))
            factor = linalg.cholesky(block + self._ridge * identity)
            roots.append(linalg.solve_triangular(factor, identity))
        return roots

    def _by_degree(
        self, matrices: list[NDArray[np.float64]], volume: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Volume whose radial functions of each degree a matrix has mixed."""
        result, blocks = np.empty_like(volume), self.operator.basis.blocks
        for target, block, matrix in zip(
            blocks(result), blocks(volume), matrices, strict=True
        ):
            target[:] = block @ matrix.T
        return result

    def _product(self, volume: NDArray[np.float64]) -> NDArray[np.float64]:
        """Product of A + precision and a volume."""
        product = self.statistics.normal_product(self.operator, volume)
        return product + self.precision * volume

    def _volume(self, unknowns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Volume of these unknowns."""
        return unknowns if self.volumes is None else self.volumes @ unknowns

    def _combine(self, volume: NDArray[np.float64]) -> NDArray[np.float64]:
        """Inner products of a volume with those of the unknowns."""
        return volume if self.volumes is None else self.volumes.T @ volume


def _checked_precision(
    prior_precision: ArrayLike, n_coefficients: int
) -> NDArray[np.float64]:
    """Refuse a precision of another shape, or a negative one."""
    precision = np.asarray(prior_precision, dtype=np.float64)
    if precision.shape != (n_coefficients,) or not (precision >= 0).all():
        raise expected(
            "prior_precision",
            f"{n_coefficients} values of at least 0",
            f"shape {precision.shape}",
        )
    return precision
