"""Energy of the part of a projection that a shifted patch sees."""

from __future__ import annotations

import numpy as np

from .._jit import STRICT, kernel


@kernel(STRICT)
def visible_energies(images, energies):  # type: ignore[no-untyped-def]
    """Energy of the part of each projection that a shifted patch sees.

    Parameters
    ----------
    images : float64, shape (n_rotations, L, L)
        Projections.
    energies : float64, shape (n_rotations, 2L-1, 2L-1)
        Output: for displacement (u - (L-1), v - (L-1)), the sum of squares over the
        projection pixels that lie inside the patch.

    Returns
    -------
    None
        Writes `energies`.

    Notes
    -----
    ||C T_l Z P R f||**2 of equation (24) from a summed-area table, O(L**2) for all
    shifts of a rotation.
    """
    n_rotations, size, _ = images.shape
    table = np.zeros((size + 1, size + 1))
    for k in range(n_rotations):
        for i in range(size):
            for j in range(size):
                table[i + 1, j + 1] = (
                    table[i, j + 1]
                    + table[i + 1, j]
                    - table[i, j]
                    + images[k, i, j] ** 2
                )
        for u in range(2 * size - 1):
            top, bottom = max(0, u - size + 1), min(size, u + 1)
            for v in range(2 * size - 1):
                left, right = max(0, v - size + 1), min(size, v + 1)
                inside = (
                    table[bottom, right]
                    - table[top, right]
                    - table[bottom, left]
                    + table[top, left]
                )
                energies[k, u, v] = max(inside, 0.0)
