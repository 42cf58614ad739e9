"""The M-step: volume, shift prior, rotation prior and noise from the statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg, special
from threadpoolctl import threadpool_limits

from numbasaem.errors import expected
from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.observations.feature_statistics import FeatureStatistics
from numbasaem.projection.operator import ProjectionOperator
from numbasaem.projection.view_projections import ViewProjections

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from numbasaem.observations.hypotheses import Hypotheses
    from numbasaem.observations.statistics import Statistics
    from numbasaem.volume.basis import VolumeBasis

_SMALLEST_RIDGE = 1e-9
"""Smallest ridge, over the largest diagonal entry: far below any seen coefficient's."""


def maximization(
    basis: VolumeBasis,
    rotations: ArrayLike | ViewGrid,
    stats: Statistics,
    prior_precision: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Volume that maximizes the expected log-likelihood, equation (29).

    Parameters
    ----------
    basis : VolumeBasis
        Basis of the volume, M coefficients.
    rotations : array, shape (K, 3, 3), or ViewGrid
        Rotations that `stats` refers to; a ViewGrid for those of windows.
    stats : Statistics
        Sufficient statistics of the E-step.
    prior_precision : array, shape (M,), optional
        Noise variance over prior variance of each coefficient: a Gaussian prior of
        mean zero. None, the default, is the maximum-likelihood step of the paper.

    Returns
    -------
    float64, shape (M,)
        Real volume coefficients.

    Raises
    ------
    InputError
        If the statistics are of other rotations or another size, or the precision is
        negative.

    Examples
    --------
    >>> from numbasaem import VolumeBasis, expectation, random_rotations
    >>> basis = VolumeBasis(5, 2)
    >>> rotations = random_rotations(20, np.random.default_rng(0))
    >>> images = basis.project(np.ones(basis.n_coefficients), rotations)
    >>> stats = expectation(images, images, np.full((10, 10), 0.01), 0.01)
    >>> maximization(basis, rotations, stats).shape == (basis.n_coefficients,)
    True
    """
    operator: ProjectionOperator | ViewProjections
    if isinstance(stats, FeatureStatistics):
        if not isinstance(rotations, ViewGrid):
            found = f"a {type(rotations).__name__}"
            raise expected("rotations", "a ViewGrid for statistics of windows", found)
        operator = ViewProjections(basis, rotations)
    else:
        if isinstance(rotations, ViewGrid):
            rotations = rotations.rotations
        operator = ProjectionOperator(basis, rotations)
    return solve(*normal_equations(operator, stats), prior_precision)


def normal_equations(
    operator: ProjectionOperator | ViewProjections, stats: Statistics
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrix A and right side y of the linear equations (29).

    Parameters
    ----------
    operator : ProjectionOperator or ViewProjections
        Projections in the K rotations that `stats` refers to.
    stats : Statistics
        Sufficient statistics of the E-step.

    Returns
    -------
    matrix : float64, shape (M, M)
        A = sum_k Phi_k^T diag(m_k) Phi_k, equation (34); positive semidefinite.
    right_side : float64, shape (M,)
        y = sum_k Phi_k^T b_k, equation (30).

    Raises
    ------
    InputError
        If the statistics are of other rotations or another size.

    Notes
    -----
    The sum is taken on one thread, so that it has the same bits on every machine.
    """
    return stats.normal_matrix(operator), stats.right_side(operator)


def solve(
    matrix: NDArray[np.float64],
    right_side: NDArray[np.float64],
    prior_precision: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Solve the normal equations (29), with a Gaussian prior if one is given.

    Parameters
    ----------
    matrix : float64, shape (M, M)
        A, positive semidefinite.
    right_side : float64, shape (M,)
        y.
    prior_precision : array, shape (M,), optional
        Added to the diagonal of A.

    Returns
    -------
    float64, shape (M,)
        Solution. Coefficients that no patch has seen come out as zero.

    Raises
    ------
    InputError
        If the precision has another shape or is negative.
    """
    system = matrix.copy()
    diagonal = np.einsum("ii->i", system)
    if prior_precision is not None:
        precision = np.asarray(prior_precision, dtype=np.float64)
        if precision.shape != right_side.shape or not (precision >= 0).all():
            raise expected(
                "prior_precision",
                f"{right_side.size} values of at least 0",
                f"shape {precision.shape}",
            )
        diagonal += precision
    largest = diagonal.max(initial=0.0)
    if largest <= 0:
        return np.zeros_like(right_side)
    diagonal += _SMALLEST_RIDGE * largest
    with threadpool_limits(1):
        solution: NDArray[np.float64] = linalg.cho_solve(
            linalg.cho_factor(system, overwrite_a=True), right_side
        )
    return solution


def restricted_equations(
    volumes: NDArray[np.float64],
    matrix: NDArray[np.float64],
    right_side: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Normal equations (29) of the combinations of a few volumes.

    Parameters
    ----------
    volumes : float64, shape (M, n)
        Coefficients of each of these volumes.
    matrix : float64, shape (M, M)
        A.
    right_side : float64, shape (M,)
        y.

    Returns
    -------
    matrix : float64, shape (n, n)
        Matrix of the equations for the n weights.
    right_side : float64, shape (n,)
        Right side of these equations.
    """
    with threadpool_limits(1):
        return volumes.T @ matrix @ volumes, volumes.T @ right_side


def n_unconstrained_dimensions(matrix: NDArray[np.float64]) -> int:
    """Count the dimensions of the volume that no patch constrains: the rank A lacks.

    Parameters
    ----------
    matrix : float64, shape (M, M)
        A, positive semidefinite.

    Returns
    -------
    int
        Dimensions of the volume that :func:`solve` leaves to its ridge.
    """
    largest = np.diag(matrix).max(initial=0.0)
    with threadpool_limits(1):
        *_, rank, _ = linalg.lapack.dpstrf(matrix, tol=_SMALLEST_RIDGE * largest)
    return len(matrix) - int(rank) if largest > 0 else len(matrix)


def noise_variance(
    operator: ProjectionOperator | ViewProjections,
    coefficients: NDArray[np.float64],
    stats: Statistics,
) -> float:
    """Noise variance that maximizes the expected log-likelihood.

    Parameters
    ----------
    operator : ProjectionOperator or ViewProjections
        Projections in the rotations that `stats` refers to.
    coefficients : float64, shape (M,)
        Volume after the M-step.
    stats : Statistics
        Sufficient statistics of the E-step.

    Returns
    -------
    float
        (sum_p ||I_p||**2 - 2 x.y + x^T A x) / (n_patches L**2), the mean squared
        residual under the posterior.
    """
    explained = stats.explained_energy(operator, coefficients)
    return (stats.patch_energy - explained) / stats.n_pixels


def expected_log_likelihood(hypotheses: Hypotheses, stats: Statistics) -> float:
    """Expected complete log-likelihood Q of equations (22) and (25).

    Parameters
    ----------
    hypotheses : Hypotheses
        Where Q is taken: volume, rho, noise variance and rotation prior.
    stats : Statistics
        Statistics under the current estimate.

    Returns
    -------
    float
        Q, natural logarithm, Gaussian constant included.
    """
    operator, variance = hypotheses.operator, hypotheses.noise_variance
    n_pixels = stats.n_pixels
    explained = noise_variance(operator, hypotheses.volume_coefficients, stats)
    residual = explained * n_pixels
    gaussian = residual / variance + n_pixels * np.log(2 * np.pi * variance)
    with np.errstate(divide="ignore"):
        log_prior = np.where(stats.shift_mass > 0, np.log(hypotheses.shift_prior), 0.0)
    prior = np.sum(stats.shift_mass * log_prior)
    if hypotheses.rotation_prior is None:
        views = -stats.n_patches * np.log(operator.n_rotations)
    else:
        views = special.xlogy(stats.rotation_mass, hypotheses.rotation_prior).sum()
    return float(prior + views - gaussian / 2)


def shift_prior_table(stats: Statistics) -> NDArray[np.float64]:
    """Shift prior of equation (37): the mean posterior of each shift.

    Parameters
    ----------
    stats : Statistics
        Statistics under the current estimate.

    Returns
    -------
    float64, shape (2L, 2L)
        rho, sums to 1.
    """
    prior: NDArray[np.float64] = stats.shift_mass / stats.shift_mass.sum()
    return prior
