"""Prior of the rotations: how often each view direction occurs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numbasaem.geometry.view_grid import ViewGrid
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
        Probability of each rotation, the same at all in-plane angles; None stands for
        the uniform prior.
    """
    if settings.views == "uniform":
        return None
    n_rotations = settings.schedule[state.stage].n_rotations
    prior = view_kernel(n_rotations) @ state.view_weights
    n_angles = ViewGrid(n_rotations).n_angles
    return np.repeat(prior / prior.sum() / n_angles, n_angles)


def uniform_view_weights(n_rotations: int) -> NDArray[np.float64]:
    """Equal weights of all view directions.

    Parameters
    ----------
    n_rotations : int
        About how many rotations the grid has.

    Returns
    -------
    float64, shape (n_views,)
        Weights; they sum to 1.
    """
    n_views = ViewGrid(n_rotations).n_views
    return np.full(n_views, 1 / n_views)


def learned_view_weights(
    view_weights: NDArray[np.float64],
    n_rotations: int,
    statistics: Statistics,
    step: float,
) -> NDArray[np.float64]:
    """Take a step of EM for the weights of view directions, a mixture of known kernels.

    Parameters
    ----------
    view_weights : float64, shape (n_views,)
        Weights under which the statistics were taken.
    n_rotations : int
        About how many rotations the grid has.
    statistics : Statistics
        Statistics of an iteration; patches count as far as they are not empty.
    step : float
        Length of the step, 1 for EM; it is taken in the logarithm.

    Returns
    -------
    float64, shape (n_views,)
        New weights; they sum to 1.
    """
    kernel = view_kernel(n_rotations)
    prior = kernel @ view_weights
    mass = statistics.rotation_mass.reshape(len(view_weights), -1).sum(axis=1)
    odds = np.maximum(mass / prior - statistics.empty_mass, 0)
    weights = view_weights * (odds @ kernel) ** step
    return np.asarray(weights / weights.sum())


def moved_view_weights(
    view_weights: NDArray[np.float64], before: int, after: int
) -> NDArray[np.float64]:
    """Weights of the same view directions on a grid of another number of rotations.

    Parameters
    ----------
    view_weights : float64, shape (n_views,)
        Weights on the grid of about `before` rotations.
    before, after : int
        About how many rotations the grids have.

    Returns
    -------
    float64, shape (n_views after,)
        Weights on the other grid; unchanged if the number is the same.
    """
    if after == before:
        return view_weights
    return np.asarray(view_kernel(after, before) @ view_weights)
