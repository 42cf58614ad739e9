"""The E-step of tiles: one after the other, in blocks that add up in one order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from numbasaem.projection.view_projections import ViewProjections

from .shift_prior import visible_shifts
from .window_expectation import WindowExpectation
from .window_tiles import region_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from numbasaem.geometry.ball_functions import BallFunctions
    from numbasaem.geometry.view_grid import ViewGrid

    from .feature_statistics import FeatureStatistics
    from .hypotheses import Hypotheses

_MOST_BLOCKS = 1024
"""Largest number of blocks, whose statistics all travel where others work on them."""
_SMALLEST_EMPTY = 1e-6
"""Share of neighbourhoods, so that the prior can move away from either end."""


@dataclass(frozen=True)
class TilePlace:
    """Place of a tile and its margins in a micrograph.

    Attributes
    ----------
    windows : tuple of two slices
        Rows and columns of the windows of the tile and its margins.
    pixels : tuple of two slices
        Rows and columns of the pixels that they cover.
    inside : tuple of two slices
        Rows and columns of the tile's own windows among `windows`.
    """

    windows: tuple[slice, slice]
    pixels: tuple[slice, slice]
    inside: tuple[slice, ...]


def place_of(
    tile: tuple[slice, slice], shape: tuple[int, int], size: int, reach: int
) -> TilePlace:
    """Place of a tile in a micrograph.

    Parameters
    ----------
    tile, shape, size, reach
        As in :func:`numbasaem.observations.window_tiles.region_of`.

    Returns
    -------
    TilePlace
        The place.
    """
    windows, pixels = region_of(tile, shape, size, reach)
    inside = tuple(
        slice(part.start - around.start, part.stop - around.start)
        for part, around in zip(tile, windows, strict=True)
    )
    return TilePlace(windows, pixels, inside)


@dataclass(frozen=True)
class Tile:
    """All that the statistics of a tile depend on.

    Attributes
    ----------
    pixels : float32, shape (rows, columns)
        Pixels of the tile and its margins.
    whole : bool, shape (rows - L + 1, columns - L + 1)
        Windows of both that may hold a particle.
    inside : tuple of two slices
        Rows and columns of the tile's own windows.
    """

    pixels: NDArray[np.float32]
    whole: NDArray[np.bool_]
    inside: tuple[slice, ...]

    def statistics(
        self, e_step: WindowExpectation, threads: int | None = None
    ) -> FeatureStatistics:
        """Statistics of the tile, beside its neighbours.

        Parameters
        ----------
        e_step : WindowExpectation
            The E-step under some hypotheses.
        threads : int, optional
            Threads to run on; all that Numba may use if left out.

        Returns
        -------
        FeatureStatistics
            Sums over its windows.
        """
        counting = np.zeros_like(self.whole)
        counting[self.inside] = self.whole[self.inside]
        return e_step.statistics(self.pixels, self.whole, counting, threads)[0]


def blocks_of(chosen: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Divide chosen tiles into blocks, whoever will work on them.

    Parameters
    ----------
    chosen : intp, shape (n,)
        Numbers of the tiles.

    Returns
    -------
    list of intp arrays
        Blocks of as many consecutive tiles each, but for the last one: of a single
        tile, unless these are too many.
    """
    length = max(1, -(-len(chosen) // _MOST_BLOCKS))
    return [chosen[start : start + length] for start in range(0, len(chosen), length)]


def block_statistics(
    e_step: WindowExpectation, tiles: Iterable[Tile], threads: int | None = None
) -> FeatureStatistics:
    """Statistics of the tiles of a block, added up in their order.

    Parameters
    ----------
    e_step : WindowExpectation
        The E-step under some hypotheses.
    tiles : iterable of Tile
        At least one; one at a time is asked for.
    threads : int, optional
        Threads to run on; all that Numba may use if left out.

    Returns
    -------
    FeatureStatistics
        Sums over their windows.
    """
    return reduce(add, (tile.statistics(e_step, threads) for tile in tiles))


def view_projections(
    basis: BallFunctions,
    views: ViewGrid,
    point_spreads: NDArray[np.float64] | None = None,
) -> ViewProjections:
    """Projections as windows see them, the same bits wherever they are made.

    Parameters
    ----------
    basis : BallFunctions
        Functions that span the volumes.
    views : ViewGrid
        The rotations.
    point_spreads : float64, shape (G, 2L - 1, 2L - 1), optional
        Point spread of each of G optics groups.

    Returns
    -------
    ViewProjections
        Projections of each group.
    """
    with threadpool_limits(1):  # BLAS on more threads may round otherwise
        return ViewProjections(basis, views, point_spreads)


def empty_probability(shift_prior: NDArray[np.float64]) -> float:
    """Probability of an empty neighbourhood: all that windows take of a shift prior.

    Parameters
    ----------
    shift_prior : float64, shape (2L, 2L)
        rho of equation (17).

    Returns
    -------
    float
        Between 0 and 1, away from both.
    """
    occupied = visible_shifts(shift_prior).sum()
    return float(np.clip(1 - occupied, _SMALLEST_EMPTY, 1 - _SMALLEST_EMPTY))


def window_e_step(hypotheses: Hypotheses, reach: int) -> WindowExpectation:
    """E-step of windows under some hypotheses.

    Parameters
    ----------
    hypotheses : Hypotheses
        What may explain the windows, in the projections of one optics group.
    reach : int
        Particles closer than this, in pixels on both axes, exclude each other.

    Returns
    -------
    WindowExpectation
        The E-step.
    """
    return WindowExpectation(
        hypotheses.operator,
        hypotheses.volume_coefficients,
        hypotheses.noise_variance,
        empty_probability(hypotheses.shift_prior),
        hypotheses.rotation_prior,
        reach,
    )
