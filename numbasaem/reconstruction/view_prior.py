"""Prior of the rotations: how often each view direction occurs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.geometry.views import view_kernel

from .current_stage import grid_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numbasaem.observations.statistics import Statistics
    from numbasaem.settings import Settings

    from .state import RunState


def rotation_prior(
    state: RunState, views: ViewGrid, settings: Settings
) -> NDArray[np.float64] | None:
    """Prior of the rotations of an E-step.

    Parameters
    ----------
    state : RunState
        Current state.
    views : ViewGrid
        The rotations, K of them.
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
    prior = view_kernel(views, grid_of(state, settings)) @ state.view_weights
    return np.repeat(prior / prior.sum() / views.n_angles, views.n_angles)


def uniform_view_weights(views: ViewGrid) -> NDArray[np.float64]:
    """Equal weights of all view directions.

    Parameters
    ----------
    views : ViewGrid
        Grid of the directions.

    Returns
    -------
    float64, shape (n_views,)
        Weights; they sum to 1.
    """
    return np.full(views.n_views, 1 / views.n_views)


def learned_view_weights(
    state: RunState,
    views: ViewGrid,
    statistics: Statistics,
    step: float,
    settings: Settings,
) -> NDArray[np.float64]:
    """Take a step of EM for the weights of view directions, a mixture of known kernels.

    Parameters
    ----------
    state : RunState
        State with the weights under which the statistics were taken.
    views : ViewGrid
        Rotations that the statistics refer to.
    statistics : Statistics
        Statistics of an iteration; patches count as far as they are not empty.
    step : float
        Length of the step, 1 for EM; it is taken in the logarithm.
    settings : Settings
        Settings of the reconstruction.

    Returns
    -------
    float64, shape (n_views,)
        New weights; they sum to 1.
    """
    kernel = view_kernel(views, grid_of(state, settings))
    prior = kernel @ state.view_weights
    prior /= prior.sum()
    mass = statistics.rotation_mass.reshape(views.n_views, -1).sum(axis=1)
    odds = np.maximum(mass / prior - statistics.empty_mass, 0)
    weights = state.view_weights * (odds @ kernel) ** step
    return np.asarray(weights / weights.sum())


def moved_view_weights(
    view_weights: NDArray[np.float64], before: ViewGrid, after: ViewGrid
) -> NDArray[np.float64]:
    """Weights of the same view directions on another grid.

    Parameters
    ----------
    view_weights : float64, shape (n_views,)
        Weights on the grid before.
    before, after : ViewGrid
        The grids.

    Returns
    -------
    float64, shape (n_views after,)
        Weights on the other grid; unchanged if it has as many rotations.
    """
    if len(after) == len(before):
        return view_weights
    return np.asarray(view_kernel(after, before) @ view_weights)
