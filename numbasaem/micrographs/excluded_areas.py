"""Excluded areas of a micrograph, and the boxes that are free of them.

Excluded is where the camera saw nothing, such as constant borders, and what is neither
ice nor particles: crystals, carbon, the edges of holes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage, special

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HOT_DEVIATIONS = 8.0
"""Deviations from its neighbours' median beyond which a pixel is hot."""
_CONSTANT_SIDE = 9
"""Pixels a side of a square that is constant only where the camera saw nothing."""
_CLEAN_PATCHES = 4
"""Patches a side of a box, so large that particles change its variance little."""
_CLEAN_DEVIATIONS = 6.0
"""Deviations of the logarithm of a variance beyond which it is no chance."""
_CLEAN_RATIO = 2.0
"""Ratio to the variance of ice and particles above which it is something else."""
_MEDIAN_IN_DEVIATIONS = float(special.ndtri(0.75))
"""Median of the absolute values of a Gaussian."""


def mended(
    pixels: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Replace hot pixels and find constant areas.

    Parameters
    ----------
    pixels : float32, shape (rows, columns)
        As the camera gave them.

    Returns
    -------
    pixels : float32, shape (rows, columns)
        Pixels that stand out by 8 deviations from the median of the 3 x 3 about them
        are that median; those of constant areas are the median of all others.
    constant : bool, shape (rows, columns)
        Pixels of constant squares of 9 x 9.
    """
    square = (_CONSTANT_SIDE, _CONSTANT_SIDE)
    highest = ndimage.maximum_filter(pixels, square)
    centres = highest == ndimage.minimum_filter(pixels, square)
    constant = ndimage.maximum_filter(centres, square)
    if constant.all():
        return pixels, constant
    neighbours = ndimage.median_filter(pixels, 3)
    difference = pixels - neighbours
    deviation = spread_of_noise(difference[~constant])
    hot = np.abs(difference) > _HOT_DEVIATIONS * deviation
    result = np.where(hot & (deviation > 0), neighbours, pixels)
    result[constant] = np.median(result[~constant])
    return result, constant


def contaminated(pixels: NDArray[np.floating], size: int) -> NDArray[np.bool_]:
    """Find what is neither ice nor particles.

    Parameters
    ----------
    pixels : array, shape (rows, columns)
        Micrograph without what varies slowly.
    size : int
        L, side of a patch, pixels.

    Returns
    -------
    bool, shape (rows, columns)
        Pixels whose variance, in a box of 4 L a side about them, is more than twice the
        median variance, its logarithm more than 6 deviations above the median's.
    """
    side = min(_CLEAN_PATCHES * size, *pixels.shape)
    mean = ndimage.uniform_filter(pixels, side, output=np.float64)
    square = ndimage.uniform_filter(np.square(pixels, dtype=np.float64), side)
    variance = np.maximum(square - mean**2, np.finfo(np.float64).tiny)
    # No logarithm of the quotient, which overflows where most of the area is constant.
    excess = np.log(variance) - np.log(np.median(variance))
    limit = max(np.log(_CLEAN_RATIO), _CLEAN_DEVIATIONS * spread_of_noise(excess))
    return np.asarray(excess > limit)


def cropped_mask(
    excluded: NDArray[np.bool_], shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Bring a mask to the pixels of a downsampled micrograph.

    Parameters
    ----------
    excluded : bool, shape (rows, columns)
        Excluded pixels of the micrograph as it was given.
    shape : tuple of int
        Rows and columns after downsampling.

    Returns
    -------
    bool, shape `shape`
        Pixels in which or beside which an excluded pixel lies.
    """
    if shape == excluded.shape:
        return excluded
    mask = np.zeros(shape, bool)
    places = np.argwhere(excluded) * np.array(shape) // np.array(excluded.shape)
    mask[tuple(places.T)] = True
    return np.asarray(ndimage.maximum_filter(mask, 3), dtype=bool)


def free_squares(excluded: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Squares, side by side from the first pixel on, that hold no excluded pixel.

    Parameters
    ----------
    excluded : bool, shape (rows, columns)
        Excluded pixels.
    size : int
        Pixels a side of a square.

    Returns
    -------
    bool, shape (rows // size, columns // size)
        Whether each whole square is free.
    """
    rows, columns = (n // size for n in excluded.shape)
    whole = excluded[: rows * size, : columns * size]
    squares = whole.reshape(rows, size, columns, size)
    return np.asarray(~squares.any(axis=(1, 3)))


def spread_of_noise(values: NDArray[np.floating]) -> float:
    """Standard deviation of a Gaussian, from the median of absolute deviations.

    Parameters
    ----------
    values : array, any shape but an empty one
        Draws, a few of which may be of something else.

    Returns
    -------
    float
        0 if more than half of the values are equal.
    """
    middle = np.median(values)
    spread = float(np.median(np.abs(values - middle)))
    return spread / _MEDIAN_IN_DEVIATIONS
