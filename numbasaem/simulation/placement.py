"""Where particles go: at random, none of them too close to another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

FEW_ACCEPTED = 0.05
"""Share of useful draws below which the free area is looked at more finely."""


def place_squares(
    extent: int, side: int, count: int | None, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Place squares one by one, uniformly among the positions still free.

    No two come closer than `side` along both axes, equation (5). Candidates are drawn
    from cells that may hold a free position; when few of them succeed, the cells are
    quartered and those that a single square blocks are forgotten. Cells of one position
    leave exactly the free positions, so the last placement ends in true jamming.

    Parameters
    ----------
    extent : int
        Positions run from 0 to ``extent - 1`` along both axes.
    side : int
        Side of the squares.
    count : int or None
        Stop at this many; None goes on until none fits.
    generator : Generator
        Source of the draws.

    Returns
    -------
    ndarray, shape (n, 2), int64
        Positions (y, x) in the order of placement, n at most `count`.
    """
    cell = 1 << max(side // 2, 1).bit_length() - 1
    corner = np.arange(0, extent, cell)
    cells = np.stack(np.meshgrid(corner, corner, indexing="ij"), -1).reshape(-1, 2)
    placed = np.empty((0, 2), dtype=np.int64)
    while len(cells) and (count is None or len(placed) < count):
        if cell == 1:
            draws = generator.permutation(cells)
        else:
            missing = len(cells) if count is None else count - len(placed)
            drawn = min(len(cells) // 4, 2 * missing) + 16
            chosen = cells[generator.integers(len(cells), size=drawn)]
            draws = chosen + generator.integers(cell, size=(drawn, 2))
        accepted = _accepted(draws, placed, extent, side)
        placed = np.concatenate([placed, accepted])
        if cell == 1:
            break
        if len(accepted) < FEW_ACCEPTED * len(draws):
            cell //= 2
            quarters = cell * np.array([(0, 0), (0, 1), (1, 0), (1, 1)])
            cells = (cells[:, None] + quarters).reshape(-1, 2)
            cells = cells[(cells < extent).all(axis=1)]
        middle = (cell - 1) / 2
        blocked = _nearest(cells + middle, placed) + middle < side
        cells = cells[~blocked]
    return placed[:count]


def _accepted(
    draws: NDArray[np.int64], placed: NDArray[np.int64], extent: int, side: int
) -> NDArray[np.int64]:
    """Draws, in order, that meet neither a placed square nor an accepted draw."""
    draws = draws[(draws < extent).all(axis=1)]
    draws = draws[_nearest(draws, placed) >= side]
    if not len(draws):
        return draws
    pairs = cKDTree(draws).query_pairs(side - 0.5, p=np.inf, output_type="ndarray")
    alive = [True] * len(draws)
    for earlier, later in pairs[np.lexsort(pairs.T[::-1])].tolist():
        if alive[earlier]:
            alive[later] = False
    return draws[alive]


def _nearest(
    points: NDArray[np.floating] | NDArray[np.int64], placed: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Distance to the nearest placed square along the axis where it is larger."""
    if not len(placed):
        return np.full(len(points), np.inf)
    return np.asarray(cKDTree(placed).query(points, p=np.inf)[0])
