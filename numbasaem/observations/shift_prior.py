"""Tables of the shift prior (17): how likely a patch shows each part of a particle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def uniform_shift_prior(size: int, empty_probability: float) -> NDArray[np.float64]:
    """Shift prior with one probability for empty and one for all other shifts.

    Parameters
    ----------
    size : int
        L.
    empty_probability : float
        Probability that a patch holds no part of a particle.

    Returns
    -------
    float64, shape (2L, 2L)
        rho, sums to 1.
    """
    n_empty = 4 * size - 1
    n_visible = (2 * size - 1) ** 2
    prior = np.full((2 * size, 2 * size), (1 - empty_probability) / n_visible)
    prior[size] = empty_probability / n_empty
    prior[:, size] = empty_probability / n_empty
    return prior


def visible_shifts(shift_prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of the shifts that show something.

    Parameters
    ----------
    shift_prior : float64, shape (2L, 2L)
        rho.

    Returns
    -------
    float64, shape (2L - 1, 2L - 1)
        rho without the row and the column of the shifts that leave a patch empty.
    """
    size = len(shift_prior) // 2
    return np.delete(np.delete(shift_prior, size, 0), size, 1)
