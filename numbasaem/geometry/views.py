"""View directions: a mixture of kernels about those of a grid of views."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .view_grid import ViewGrid


def view_kernel(views: ViewGrid, sources: ViewGrid) -> NDArray[np.float64]:
    """Kernels that spread view directions of a grid over the views near them.

    Parameters
    ----------
    views : ViewGrid
        Views that the directions are spread over.
    sources : ViewGrid
        Grid of the directions.

    Returns
    -------
    float64, shape (n_views, n_source_views)
        Column j holds the probability of each view about direction j: a Gaussian, half
        the sources' step wide, of the angle between the directions.
    """
    cosines = np.clip(views.directions @ sources.directions.T, -1, 1)
    kernel: NDArray[np.float64] = np.exp((cosines - 1) / (sources.step / 2) ** 2)
    kernel /= kernel.sum(axis=0)
    return kernel


def nearest_directions(
    views: ViewGrid, sources: ViewGrid, mass: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mass of views, given to the nearest directions of another grid.

    Parameters
    ----------
    views : ViewGrid
        Views that have the mass.
    sources : ViewGrid
        Grid of the directions.
    mass : float64, shape (n_views,)
        Mass of each view.

    Returns
    -------
    float64, shape (n_source_views,)
        Mass of each direction.
    """
    nearest = (views.directions @ sources.directions.T).argmax(axis=1)
    return np.asarray(np.bincount(nearest, mass, sources.n_views), np.float64)
