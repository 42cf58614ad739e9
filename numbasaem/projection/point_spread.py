"""Images convolved with a point spread and cropped to their box."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def image_filter(point_spread: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrix that takes an image through a point spread and crops it to its box.

    Parameters
    ----------
    point_spread : float64, shape (2L - 1, 2L - 1)
        Displacement (0, 0) in the middle.

    Returns
    -------
    float64, shape (L * L, L * L)
        Matrix for the pixels of image[y, x], row by row.
    """
    size = (len(point_spread) + 1) // 2
    moved = np.subtract.outer(np.arange(size), np.arange(size)) + size - 1
    blocks = point_spread[moved[:, None, :, None], moved[None, :, None, :]]
    return np.ascontiguousarray(blocks.reshape(size**2, size**2))


def seen_through(
    images: NDArray[np.float64], point_spread: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Take images through a point spread, cropped to their box.

    Parameters
    ----------
    images : float64, shape (n, L, L)
        Projections.
    point_spread : float64, shape (2L - 1, 2L - 1)
        Displacement (0, 0) in the middle.

    Returns
    -------
    float64, shape (n, L, L)
        Images through the point spread.
    """
    flat = images.reshape(len(images), -1) @ image_filter(point_spread).T
    return np.ascontiguousarray(flat.reshape(images.shape))
