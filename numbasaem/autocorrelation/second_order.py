r"""First and second autocorrelations alone, which are cheap for boxes of any size.

The sums over the pixels x of a micrograph that count are those of
:mod:`~numbasaem.autocorrelation.moments`. The second order,

.. math:: \sum_x c(x) P(x)\, P(x + u), \quad c(x) = 1 \text{ where } x
          \text{ counts, else } 0,

is a correlation of two images: a product of their Fourier transforms, which add over
blocks of rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

from .lags import lags_within
from .moments import Autocorrelations, counted_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_BLOCK_ROWS = 256
"""Least number of rows that are transformed at a time."""


def first_two_orders(
    pixels: NDArray[np.float32], excluded: NDArray[np.bool_], size: int
) -> Autocorrelations:
    """Take the first two orders of one prepared micrograph.

    Parameters
    ----------
    pixels : float32, shape (rows, columns)
        The micrograph.
    excluded : bool, shape (rows, columns)
        Pixels that no product may have.
    size : int
        L, side of a particle's box in pixels.

    Returns
    -------
    Autocorrelations
        Sums over all pixels from which every lag leads to a pixel that is there and
        not excluded; none if there is no such pixel. The third order is left out, and
        the scatter is that of Gaussian pixels with this second order.
    """
    lags = lags_within(size).single
    counted = counted_pixels(excluded, size)
    usable = np.where(excluded, np.float32(0), pixels)
    shape = [fft.next_fast_len(n + size - 1, real=True) for n in _block_shape(pixels)]
    spectrum = np.zeros((shape[0], shape[1] // 2 + 1), complex)
    for centres, reached in _blocks(usable, counted, size):
        spectrum += np.conj(fft.rfft2(centres, shape)) * fft.rfft2(reached, shape)
    products = fft.irfft2(spectrum, shape)
    second = products[lags[:, 0], lags[:, 1]]
    total = usable.sum(where=counted, dtype=np.float64)
    n_pixels = int(np.count_nonzero(counted))
    return Autocorrelations(
        size,
        n_pixels,
        np.concatenate([[total], second]),
        _scatter(second, n_pixels),
    )


def _block_shape(pixels: NDArray[np.float32]) -> tuple[int, int]:
    """Rows and columns of pixels that a block counts."""
    return min(len(pixels), _BLOCK_ROWS), pixels.shape[1]


def _blocks(
    usable: NDArray[np.float32], counted: NDArray[np.bool_], size: int
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Pixels that count in each block of rows, and all that lags lead to from them."""
    n_rows, _ = _block_shape(usable)
    for top in range(0, len(usable), n_rows):
        own = slice(top, top + n_rows)
        centres = np.where(counted[own], usable[own], 0.0)
        if centres.any():
            yield centres, usable[top : top + n_rows + size - 1].astype(np.float64)


def _scatter(second: NDArray[np.float64], n_pixels: int) -> NDArray[np.float64]:
    """Variances of the sums of both orders, as Gaussian pixels have them.

    With the mean products C(u) at lags u of either sign, they are n sum C(u) and, by
    Bartlett's formula without its product at 2 u, n sum C(u)^2, twice that at u = 0.
    """
    if n_pixels == 0:
        return np.zeros(1 + second.size)
    mean = second / n_pixels
    power = 2 * np.sum(mean**2) - mean[0] ** 2
    first = max(2 * np.sum(mean) - mean[0], mean[0])
    scatter = np.full(1 + second.size, n_pixels * power)
    scatter[0] = n_pixels * first
    scatter[1] *= 2
    return scatter
