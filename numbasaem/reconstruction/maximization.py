"""The M-step: volume, shift prior, rotation prior and noise from the statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from numbasaem.errors import expected
from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.observations.feature_statistics import FeatureStatistics
from numbasaem.projection.operator import ProjectionOperator
from numbasaem.projection.view_projections import ViewProjections

from .normal_equations import normal_equations

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from numbasaem.observations.hypotheses import Hypotheses
    from numbasaem.observations.statistics import Statistics
    from numbasaem.volume.basis import VolumeBasis


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
    equations = normal_equations(operator, stats)
    if prior_precision is not None:
        equations = equations.with_precision(prior_precision)
    return equations.solve()


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
