"""Micrographs as the window model sees them: tiles of positions, whole particles."""

from __future__ import annotations

from functools import reduce
from itertools import pairwise
from operator import add
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.errors import expected

from .protocol import by_optics_group, variance_and_brightest
from .window_expectation import Hypotheses, Regions, tile_windows, whole_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from numbasaem.micrographs.optics_groups import OpticsGroups

    from .patch_expectation import Statistics
    from .protocol import PixelSums

TILES_AT_ONCE = 8
"""Tiles held with their margins at a time."""
_SMALLEST_EMPTY = 1e-6
"""Share of neighbourhoods, so that the prior can move away from either end."""


def region_windows(size: int) -> int:
    """Windows along a side of a tile with its margin.

    Parameters
    ----------
    size : int
        L, side of a window.

    Returns
    -------
    int
        So many that the margin takes no more than a sixth of it.
    """
    side = tile_windows(size)
    return -(-12 * (size - 1) // side) * side


def tile_bounds(n_pixels: int, size: int) -> list[tuple[int, int]]:
    """Divide the windows along one axis of a micrograph evenly.

    Parameters
    ----------
    n_pixels : int
        Length of the axis.
    size : int
        L, side of a window.

    Returns
    -------
    list of (int, int)
        First window of each tile, and the one behind its last.
    """
    n_windows = n_pixels - size + 1
    n_tiles = -(-n_windows // (region_windows(size) - 2 * (size - 1)))
    n_tiles = max(n_tiles, min(2, n_windows))  # so that every micrograph has halves
    return list(pairwise(n_windows * i // n_tiles for i in range(n_tiles + 1)))


def tiles_of(shape: tuple[int, int], size: int) -> list[tuple[slice, slice]]:
    """Divide the windows of a micrograph into tiles, row by row.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of pixels.
    size : int
        L, side of a window.

    Returns
    -------
    list of two slices
        Rows and columns of each tile's windows.
    """
    rows, columns = (tile_bounds(n, size) for n in shape)
    return [(slice(*row), slice(*column)) for row in rows for column in columns]


def pixels_of(
    tile: tuple[slice, slice], shape: tuple[int, int], size: int
) -> tuple[slice, slice]:
    """Pixels that belong to a tile and to no other one.

    Parameters
    ----------
    tile : tuple of two slices
        Its windows.
    shape : tuple of int
        Rows and columns of the micrograph.
    size : int
        L, side of a window.

    Returns
    -------
    tuple of two slices
        Those at which its windows begin, to the edge where there are no further ones.
    """
    rows, columns = (
        slice(part.start, n if part.stop == n - size + 1 else part.stop)
        for part, n in zip(tile, shape, strict=True)
    )
    return rows, columns


class Windows:
    """Tiles of micrographs in the memory of this process, as `Observations`.

    Parameters
    ----------
    micrographs : sequence of float32 arrays, shape (rows, columns)
        Pixels.
    usable : sequence of bool arrays, shape (rows, columns)
        Pixels that the run may see; others are as good as not there.
    size : int
        L, side of a window.
    sums : sequence of PixelSums
        Of all micrographs, also where the run sees a part of them.
    threads : int, optional
        Threads to run on; all that Numba may use if left out.
    optics : OpticsGroups, optional
        Groups of the micrographs.
    """

    def __init__(
        self,
        micrographs: Sequence[NDArray[np.float32]],
        usable: Sequence[NDArray[np.bool_]],
        size: int,
        sums: Sequence[PixelSums],
        threads: int | None = None,
        optics: OpticsGroups | None = None,
    ) -> None:
        self._micrographs, self._size, self._threads = micrographs, size, threads
        self._whole = [whole_windows(one, size) for one in usable]
        self._tiles = [
            (number, tile)
            for number, pixels in enumerate(micrographs)
            for tile in tiles_of((len(pixels), pixels.shape[1]), size)
            if self._whole[number][tile].any()
        ]
        if not self._tiles:
            found = "none in a run's micrographs or half micrograph"
            raise expected("micrographs", f"{size} x {size} usable pixels", found)
        owners = np.array([number for number, _ in self._tiles])
        self.optics = None if optics is None else optics.take(owners)
        self.variance, _ = variance_and_brightest(sums)
        n_windows = sum(int(whole.sum()) for whole in self._whole)
        self.patches_each = n_windows / size**2 / len(self._tiles)

    def __len__(self) -> int:
        """How many tiles there are."""
        return len(self._tiles)

    def expectation(
        self,
        chosen: NDArray[np.intp],
        images: NDArray[np.float64],
        shift_prior: NDArray[np.float64],
        noise_variance: float,
        rotation_prior: NDArray[np.float64] | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> Statistics:
        """Statistics of the chosen tiles; see `Observations`.

        Of the shift prior only the probability of empty matters.
        """
        size = self._size
        shown = np.delete(np.delete(shift_prior, size, 0), size, 1).sum()
        empty = float(np.clip(1 - shown, _SMALLEST_EMPTY, 1 - _SMALLEST_EMPTY))

        def of_group(mine: NDArray[np.intp], images: NDArray[np.float64]) -> Statistics:
            hypotheses = Hypotheses(images, noise_variance, empty, rotation_prior)
            found = []
            for first in range(0, len(mine), TILES_AT_ONCE):
                regions = self._regions(mine[first : first + TILES_AT_ONCE])
                found.append(hypotheses.statistics(regions, self._threads)[0])
                if on_progress is not None:
                    on_progress(min(1.0, (first + TILES_AT_ONCE) / len(mine)))
            return reduce(add, found)

        return by_optics_group(self.optics, chosen, images, of_group)

    def _regions(self, chosen: NDArray[np.intp]) -> Regions:
        """Copy tiles with the margin of their neighbourhoods, what is there of it."""
        n_windows, margin = region_windows(self._size), self._size - 1
        n_pixels = n_windows + margin
        pixels = np.zeros((len(chosen), n_pixels, n_pixels), np.float32)
        whole = np.zeros((len(chosen), n_windows, n_windows), bool)
        counting = np.zeros_like(whole)
        for at, number in enumerate(chosen):
            micrograph, (rows, columns) = self._tiles[number]
            corner = rows.start - margin, columns.start - margin
            _paste(self._micrographs[micrograph], corner, pixels[at])
            _paste(self._whole[micrograph], corner, whole[at])
            inside = np.ix_(
                margin + np.arange(rows.stop - rows.start),
                margin + np.arange(columns.stop - columns.start),
            )
            counting[at][inside] = whole[at][inside]
        return Regions(pixels, whole, counting)


def _paste(
    source: NDArray[np.generic], corner: tuple[int, int], target: NDArray[np.generic]
) -> None:
    """Copy what `target` covers of `source` when its first entry lies at `corner`."""
    here, there = [], []
    for start, n_source, n_target in zip(
        corner, source.shape, target.shape, strict=True
    ):
        low, high = max(start, 0), min(start + n_target, n_source)
        there.append(slice(low, high))
        here.append(slice(low - start, high - start))
    target[tuple(here)] = source[tuple(there)]
