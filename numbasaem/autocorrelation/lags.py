"""Lags at which autocorrelations are taken: each distinct product once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.errors import expected

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALLEST_SIZE = 5
"""Least side of a box, as of a volume's basis."""


@dataclass(frozen=True)
class Lags:
    """Lags between the pixels of one particle, without repetition.

    Attributes
    ----------
    single : int64, shape (n_lags, 2)
        Lags u as (y, x), shorter than L, in the order of rows: y > 0, or y = 0 and
        x >= 0. The first is zero. The others are those seen from the other pixel.
    first, second : int64, shape (n_pairs,)
        Numbers of the lags u and v of each triple of pixels x, x + u, x + v. The
        triple's first pixel in the order of rows is x, its last is x + v, and u - v is
        shorter than L too: of six orders of three pixels one is left.
    """

    single: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]

    @property
    def repeated(self) -> NDArray[np.float64]:
        """Coincident pairs of pixels of each triple, float64 of shape (n_pairs,).

        It is delta_u + delta_v + delta_{u - v}: what noise adds to.
        """
        zeros = [self.first == 0, self.second == 0, self.first == self.second]
        return np.asarray(np.sum(zeros, axis=0), np.float64)


@lru_cache(maxsize=8)
def lags_within(size: int) -> Lags:
    """List the lags between pixels of a particle.

    Parameters
    ----------
    size : int
        L, side of the particle's box in pixels.

    Returns
    -------
    Lags
        Lags shorter than L; arrays are read-only.

    Raises
    ------
    InputError
        If `size` is below 5.
    """
    if size < SMALLEST_SIZE:
        wanted = f"a whole number of at least {SMALLEST_SIZE}"
        raise expected("size", wanted, size)
    y, x = np.mgrid[:size, 1 - size : size].reshape(2, -1)
    kept = ((y > 0) | (x >= 0)) & (y**2 + x**2 < size**2)
    single = np.stack([y[kept], x[kept]], axis=1).astype(np.int64)
    first, second = np.triu_indices(len(single))
    between = ((single[first] - single[second]) ** 2).sum(axis=1) < size**2
    arrays = single, first[between], second[between]
    for array in arrays:
        array.flags.writeable = False
    return Lags(*arrays)
