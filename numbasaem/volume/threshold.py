"""The level that tells a molecule from what surrounds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def otsu_threshold(values: NDArray[np.floating]) -> float:
    """Otsu's threshold, which splits values into the two classes furthest apart.

    Parameters
    ----------
    values : array, shape (n,)
        Values, two at least.

    Returns
    -------
    float
        Level of the largest variance between the two classes. It may lie between any
        two values: there is no histogram.

    Examples
    --------
    >>> otsu_threshold(np.array([0.0, 1.0, 0.5, 8.0, 9.0]))
    4.5
    """
    ordered = np.sort(values.astype(np.float64), axis=None)
    below = np.arange(1, len(ordered))
    above = len(ordered) - below
    sums = np.cumsum(ordered)[:-1]
    apart = sums / below - (ordered.sum() - sums) / above
    cut = int(np.argmax(below * above * apart**2))
    return float(ordered[cut : cut + 2].mean())
