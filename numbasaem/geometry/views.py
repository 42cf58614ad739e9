"""View directions: a mixture of kernels about those of a grid of views."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from .view_grid import ViewGrid

if TYPE_CHECKING:
    from numpy.typing import NDArray

KERNELS_KEPT = 4
"""Number of view kernels that stay in memory: the last ones used."""


@lru_cache(maxsize=KERNELS_KEPT)
def view_kernel(n: int, n_sources: int | None = None) -> NDArray[np.float64]:
    """Kernels that spread view directions of a grid over the views near them.

    Parameters
    ----------
    n : int
        About how many rotations the :class:`ViewGrid` has.
    n_sources : int, optional
        The same of the grid of the directions; `n` if left out.

    Returns
    -------
    float64, shape (n_views, n_source_views), read-only
        Column j holds the probability of each view about direction j: a Gaussian, half
        the sources' step wide, of the angle between the directions.

    Raises
    ------
    InputError
        If a number of rotations is not a whole number of at least 8.
    """
    views, sources = ViewGrid(n), ViewGrid(n_sources or n)
    kernel: NDArray[np.float64] = views.directions @ sources.directions.T
    np.clip(kernel, -1, 1, out=kernel)
    kernel -= 1
    kernel /= (sources.step / 2) ** 2
    np.exp(kernel, out=kernel)
    kernel /= kernel.sum(axis=0)
    kernel.flags.writeable = False
    return kernel


def view_kernel_bytes(n_rotations: int, n_columns: int | None = None) -> int:
    """Bytes that a view kernel takes at its peak, while it is built.

    Parameters
    ----------
    n_rotations : int
        About how many rotations the grid has.
    n_columns : int, optional
        The same of the grid of the directions; `n_rotations` if left out.

    Returns
    -------
    int
        Bytes of the kernel, the views of both grids and the sum of each column. The
        kernel alone stays, as one of the last :data:`KERNELS_KEPT`.

    Examples
    --------
    >>> view_kernel_bytes(20_000)
    2131648
    """
    rows = ViewGrid(n_rotations).n_views
    columns = ViewGrid(n_columns or n_rotations).n_views
    return 8 * (rows * columns + 9 * (rows + columns) + columns)
