"""Where the particles lie that the windows of a micrograph show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from .protocol import Positions

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LIKELY = 0.5
"""Probability from which a place is more likely to hold a particle than not."""


def peaks(posterior: NDArray[np.float32], size: int) -> Positions:
    """Find the places where a particle is more likely than not.

    Parameters
    ----------
    posterior : float32, shape (rows - L + 1, columns - L + 1)
        Posterior of a particle whose window begins at each pixel, as of
        :func:`pixel_expectation`.
    size : int
        L, side of a window, pixels.

    Returns
    -------
    Positions
        Highest posteriors within one pixel, in each axis, whose sum over those nine is
        above one half.
    """
    values = posterior.astype(np.float64)
    highest = ndimage.maximum_filter(values, 3, mode="constant")
    near = 9 * ndimage.uniform_filter(values, 3, mode="constant")
    corners = np.argwhere((values > 0) & (values == highest) & (near > _LIKELY))
    probability = np.minimum(near[tuple(corners.T)], 1.0)
    return Positions(corners.astype(np.float64) + size // 2, probability)
