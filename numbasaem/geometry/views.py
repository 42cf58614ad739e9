"""View directions: a mixture of kernels about those of the rotation grid."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from .rotations import grid_step, rotation_grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

KERNELS_KEPT = 4
"""Number of view kernels that stay in memory: the last ones used."""


@lru_cache(maxsize=KERNELS_KEPT)
def view_kernel(n: int, n_sources: int | None = None) -> NDArray[np.float64]:
    """Kernels that spread view directions of a grid over the rotations near them.

    Parameters
    ----------
    n : int
        Number of rotations of :func:`rotation_grid`, at least 1.
    n_sources : int, optional
        Number of rotations of the grid of the directions; `n` if left out.

    Returns
    -------
    float64, shape (n, n_sources), read-only
        Column j holds the probability of each rotation about direction j: a Gaussian,
        half the sources' step wide, of the angle between the directions. All in-plane
        angles are alike.

    Raises
    ------
    InputError
        If a number of rotations is not a whole number of at least 1.
    """
    n_sources = n_sources or n
    directions, sources = rotation_grid(n)[:, 2], rotation_grid(n_sources)[:, 2]
    # in place, for this array is the largest of a run with learned views
    kernel: NDArray[np.float64] = directions @ sources.T
    np.clip(kernel, -1, 1, out=kernel)
    kernel -= 1
    kernel /= (grid_step(n_sources) / 2) ** 2
    np.exp(kernel, out=kernel)
    kernel /= kernel.sum(axis=0)
    kernel.flags.writeable = False
    return kernel


def view_kernel_bytes(n_rotations: int, n_columns: int | None = None) -> int:
    """Bytes that a view kernel takes at its peak, while it is built.

    Parameters
    ----------
    n_rotations : int
        Number of rotations of the grid, at least 1.
    n_columns : int, optional
        Number of rotations of the grid of the directions; `n_rotations` if left out.

    Returns
    -------
    int
        Bytes of the kernel, the two grids and the sum of each column. The kernel alone
        stays, as one of the last :data:`KERNELS_KEPT`.

    Examples
    --------
    >>> view_kernel_bytes(20_000)
    3203040000
    """
    columns = n_columns or n_rotations
    grids = 9 * (n_rotations + columns)
    return 8 * (n_rotations * columns + grids + columns)
