"""Prior of the rotations: how often each view direction occurs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numbasaem.geometry.views import view_kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numbasaem.observations.statistics import Statistics
    from numbasaem.settings import Settings

    from .state import RunState


def rotation_prior(state: RunState, settings: Settings) -> NDArray[np.float64] | None:
    """Prior of the rotations of a run.

    Parameters
    ----------
    state : RunState
        Current state.
    settings : Settings
        Settings of the reconstruction.

    Returns
    -------
    float64, shape (K,), or None
        Probability of each rotation; None stands for the uniform prior.
    """
    if settings.views == "uniform":
        return None
    prior = view_kernel(len(state.view_weights)) @ state.view_weights
    return np.asarray(prior / prior.sum())


def uniform_view_weights(n_rotations: int) -> NDArray[np.float64]:
    """Equal weights of all view directions.

    Parameters
    ----------
    n_rotations : int
        K.

    Returns
    -------
    float64, shape (K,)
        Weights; they sum to 1.
    """
    return np.full(n_rotations, 1 / n_rotations)


def learned_view_weights(
    view_weights: NDArray[np.float64], statistics: Statistics, step: float
) -> NDArray[np.float64]:
    """Take a step of EM for the weights of view directions, a mixture of known kernels.

    Parameters
    ----------
    view_weights : float64, shape (K,)
        Weights under which the statistics were taken.
    statistics : Statistics
        Statistics of an iteration; patches count as far as they are not empty.
    step : float
        Length of the step, 1 for EM; it is taken in the logarithm.

    Returns
    -------
    float64, shape (K,)
        New weights; they sum to 1.
    """
    kernel = view_kernel(len(view_weights))
    prior = kernel @ view_weights
    odds = np.maximum(statistics.rotation_mass / prior - statistics.empty_mass, 0)
    weights = view_weights * (odds @ kernel) ** step
    return np.asarray(weights / weights.sum())


def moved_view_weights(
    view_weights: NDArray[np.float64], n_rotations: int
) -> NDArray[np.float64]:
    """Weights of the same view directions on a grid of another number of rotations.

    Parameters
    ----------
    view_weights : float64, shape (K,)
        Weights on the grid of K rotations.
    n_rotations : int
        Number of rotations of the other grid.

    Returns
    -------
    float64, shape (n_rotations,)
        Weights on the other grid; unchanged if the number is the same.
    """
    if n_rotations == len(view_weights):
        return view_weights
    weights = view_kernel(n_rotations, len(view_weights)) @ view_weights
    return np.asarray(weights)
