r"""First, second and third autocorrelations of micrographs, in one pass.

Over the pixels x of a micrograph P that count, n of them,

.. math:: a_1 = \frac1n \sum_x P(x), \quad
          a_2[u] = \frac1n \sum_x P(x) P(x + u), \quad
          a_3[u, v] = \frac1n \sum_x P(x) P(x + u) P(x + v).

Sums over blocks of pixels, many particles wide, tell how much each of them scatters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from numbasaem.errors import expected
from numbasaem.kernels.autocorrelation import GROUP, TILE, autocorrelation_sums
from numbasaem.micrographs.reading import MicrographReader, list_inputs
from numbasaem.settings import Settings
from numbasaem.threads import running_threads

from .lags import Lags, lags_within

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numbasaem.micrographs.reading import Micrographs

BOXES_A_SIDE = 4
"""Least side of a micrograph, in boxes."""
_BLOCK_BOXES = (4, 16)
"""Rows and columns of a block of pixels, in boxes, at most."""
_CHUNKS = 32
"""Number of shares that the blocks are dealt into, on any number of threads."""
_LEAST_BLOCKS = 2
"""Least number of blocks, whose scatter is known."""


@dataclass(frozen=True)
class Autocorrelations:
    """Sums of products of one, two and three pixels; those of micrographs add.

    Attributes
    ----------
    size : int
        L, side of a particle's box in pixels: lags are shorter.
    n_pixels : int
        Pixels x that the sums run over.
    sums : float64, shape (1 + n_lags + n_pairs,)
        Sums of the first, the second and the third order, at the lags of
        :func:`~numbasaem.autocorrelation.lags.lags_within`; without the third where
        only two were taken.
    scatter : float64, of the same shape
        Variance of each sum, told from blocks of pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from numbasaem import autocorrelations
    >>> noise = np.random.default_rng(0).standard_normal((256, 256))
    >>> moments = autocorrelations([noise], size=5)
    >>> (moments + moments).n_pixels, round(float(moments.second[0]), 1)
    (124992, 1.0)
    """

    size: int
    n_pixels: int
    sums: NDArray[np.float64]
    scatter: NDArray[np.float64]

    def __add__(self, other: Autocorrelations) -> Autocorrelations:
        """Autocorrelations of both sets of pixels together."""
        if not isinstance(other, Autocorrelations):
            return NotImplemented
        if other.size != self.size:
            raise expected("size", f"{self.size} of both", other.size)
        return Autocorrelations(
            self.size,
            self.n_pixels + other.n_pixels,
            self.sums + other.sums,
            self.scatter + other.scatter,
        )

    @property
    def lags(self) -> Lags:
        """Lags of the second and the third order."""
        return lags_within(self.size)

    @property
    def values(self) -> NDArray[np.float64]:
        """All orders, float64 of shape (1 + n_lags + n_pairs,)."""
        return self.sums / self.n_pixels

    @property
    def errors(self) -> NDArray[np.float64]:
        """Standard deviation of each value, float64 of the same shape."""
        return np.asarray(np.sqrt(self.scatter)) / self.n_pixels

    @property
    def first(self) -> float:
        """Mean a_1 of the pixels."""
        return float(self.sums[0]) / self.n_pixels

    @property
    def second(self) -> NDArray[np.float64]:
        """Second order a_2[u], float64 of shape (n_lags,)."""
        return self.by_order(self.values)[1]

    @property
    def third(self) -> NDArray[np.float64]:
        """Third order a_3[u, v], float64 of shape (n_pairs,)."""
        return self.by_order(self.values)[2]

    def by_order(self, values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Split an array like `sums` into its three orders.

        Parameters
        ----------
        values : float64, shape (1 + n_lags + n_pairs,)
            The array.

        Returns
        -------
        list of float64, shapes (1,), (n_lags,) and (n_pairs,)
            Its parts, of the orders that were taken.
        """
        n_first_two = 1 + len(self.lags.single)
        ends = [1, n_first_two] if len(values) > n_first_two else [1]
        return np.split(values, ends)


def autocorrelations(
    micrographs: Micrographs,
    size: int,
    *,
    settings: Settings | None = None,
    threads: int | None = None,
) -> Autocorrelations:
    """Take the autocorrelations of micrographs, one after the other.

    Parameters
    ----------
    micrographs : sequence of array, shape (rows, columns), or of paths
        Micrographs whose particles are bright and whose background is 0, or files of
        them; pixels as large as those of the volume.
    size : int
        L, side of a particle's box in pixels.
    settings : Settings, optional
        How each micrograph is prepared, as by :func:`numbasaem.reconstruct`; it is
        used as it is if left out.
    threads : int, optional
        Threads of the kernel; as many as Numba has if left out. The result does not
        depend on it.

    Returns
    -------
    Autocorrelations
        Sums over all micrographs.

    Raises
    ------
    InputError
        If a micrograph cannot be read or used, or measures less than 4 L a side, or
        the settings have another size.

    Examples
    --------
    >>> import numpy as np
    >>> from numbasaem import autocorrelations
    >>> noise = np.random.default_rng(0).standard_normal((256, 256))
    >>> moments = autocorrelations([noise], size=5)
    >>> len(moments.lags.single), moments.second.shape, moments.third.shape
    (35, (35,), (503,))
    """
    lags_within(size)
    settings = settings or Settings(size=size, level=False)
    if settings.size != size:
        raise expected("settings", f"the size {size}", settings.size)
    reader = MicrographReader(settings)
    prepared = reader.prepared(list_inputs(micrographs), lambda *_: None)
    parts = (
        autocorrelations_of_pixels(
            reader.sources[-1]["name"], each.pixels, each.excluded, size, threads
        )
        for each in prepared
    )
    total = next(parts)
    for part in parts:
        total += part
    return total


def autocorrelations_of_pixels(
    where: str,
    pixels: NDArray[np.float32],
    excluded: NDArray[np.bool_],
    size: int,
    threads: int | None = None,
) -> Autocorrelations:
    """Take the autocorrelations of one prepared micrograph.

    Parameters
    ----------
    where : str
        Name of the micrograph, for errors.
    pixels : float32, shape (rows, columns)
        The micrograph.
    excluded : bool, shape (rows, columns)
        Pixels that no product may have.
    size : int
        L, side of a particle's box in pixels.
    threads : int, optional
        Threads of the kernel.

    Returns
    -------
    Autocorrelations
        Sums over all pixels from which every lag leads to a pixel that is there and
        not excluded.

    Raises
    ------
    InputError
        If it measures less than 4 L a side, or too little is left of it.
    """
    least = BOXES_A_SIDE * size
    if min(pixels.shape) < least:
        wanted = f"at least {least} pixels a side for lags below {size}"
        raise expected(where, wanted, pixels.shape)
    lags, (tiles, places) = lags_within(size), _tiles(size)
    block = _block_shape(pixels.shape, size)
    n_blocks = int(
        np.prod([-(-n // m) for n, m in zip(pixels.shape, block, strict=True)])
    )
    moments = np.empty((_CHUNKS, 3, TILE * len(tiles) + 1))
    block_pixels = np.empty(n_blocks, np.int64)
    counted = counted_pixels(excluded, size)
    with running_threads(threads):
        autocorrelation_sums(
            np.ascontiguousarray(pixels, np.float32),
            counted,
            block,
            lags.single,
            tiles,
            moments,
            block_pixels,
        )
    used = np.count_nonzero(block_pixels)
    if used < _LEAST_BLOCKS:
        wanted = f"at least {_LEAST_BLOCKS} blocks of {block} pixels free to use"
        raise expected(where, wanted, used)
    sums, squares, weighted = moments.sum(axis=0)[:, places]
    n_pixels = int(block_pixels.sum())
    mean = sums / n_pixels
    spread = squares - 2 * mean * weighted + mean**2 * float((block_pixels**2).sum())
    scatter = np.maximum(spread, 0) * used / (used - 1)
    return Autocorrelations(size, n_pixels, sums, scatter)


def counted_pixels(excluded: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Find the pixels from which every lag leads to a pixel that may be used.

    Parameters
    ----------
    excluded : bool, shape (rows, columns)
        Pixels that no product may have.
    size : int
        L, side of a particle's box in pixels.

    Returns
    -------
    bool, shape (rows, columns)
        Whether sums run over each pixel.
    """
    reach = 2 * size - 1
    free = np.zeros_like(excluded)
    free[: 1 - size, size - 1 : 1 - size] = True
    if excluded.any():
        # The window of a pixel reaches down by `size`, and as far to either side.
        near = ndimage.maximum_filter(excluded, (size, reach), origin=(-(size // 2), 0))
        free &= ~near
    return free


def _block_shape(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    """Rows and columns of blocks that divide a micrograph almost evenly."""
    rows, columns = (
        -(-n // -(-n // (boxes * size)))
        for n, boxes in zip(shape, _BLOCK_BOXES, strict=True)
    )
    return rows, columns


@lru_cache(maxsize=8)
def _tiles(size: int) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Tiles that hold all products, and where each of `Autocorrelations.sums` is."""
    lags = lags_within(size)
    n_lags = len(lags.single)
    # The lag after the last one stands for no pixel: its products are of two.
    first = np.concatenate([np.full(n_lags, n_lags), lags.first])
    second = np.concatenate([np.arange(n_lags), lags.second])
    groups = np.stack([first // GROUP, second // GROUP], axis=1)
    tiles, number = np.unique(groups, axis=0, return_inverse=True)
    places = number.ravel() * TILE + first % GROUP * GROUP + second % GROUP
    of_first_order = TILE * len(tiles)
    return tiles, np.concatenate([[of_first_order], places])
