"""Point spreads, and groups of micrographs that share one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_ALIKE = 0.05
"""Largest relative difference of point spreads that count as one."""
LARGEST_COUNT = 16
"""Largest number of optics groups: an M-step costs as many times what one costs."""


@dataclass(frozen=True)
class PointSpread:
    """What a projection is convolved with before it is cropped to its box.

    Attributes
    ----------
    values : float64, shape (2L - 1, 2L - 1)
        Its values, displacement (0, 0) in the middle.
    share_outside : float
        Share of a particle's energy that leaves its box, if the particle fills the disc
        in the box and has the same power at all frequencies.
    """

    values: NDArray[np.float64]
    share_outside: float


@dataclass(frozen=True)
class OpticsGroups:
    """Micrographs in groups that show particles alike.

    Attributes
    ----------
    point_spreads : float64, shape (n_groups, 2L - 1, 2L - 1)
        Point spread of each group.
    group : intp, shape (n,)
        Group of each micrograph, or of each piece of one.
    """

    point_spreads: NDArray[np.float64]
    group: NDArray[np.intp]

    def take(self, micrograph: NDArray[np.intp]) -> OpticsGroups:
        """Groups of pieces of micrographs.

        Parameters
        ----------
        micrograph : intp, shape (n,)
            Number of each piece's micrograph.

        Returns
        -------
        OpticsGroups
            The same groups, with those of the pieces.
        """
        return OpticsGroups(self.point_spreads, self.group[micrograph])


def group_point_spreads(
    point_spreads: Sequence[NDArray[np.float64]],
) -> OpticsGroups:
    """Put micrographs of nearly the same point spread into one group.

    Parameters
    ----------
    point_spreads : sequence of float64, shape (2L - 1, 2L - 1)
        Point spread of each micrograph.

    Returns
    -------
    OpticsGroups
        As many groups as keep their point spreads within 5 % of each other, but no more
        than 16. The point spread of a group is the mean over its micrographs.
    """
    alike = _ALIKE
    while True:
        leaders: list[NDArray[np.float64]] = []
        group = np.empty(len(point_spreads), np.intp)
        for number, spread in enumerate(point_spreads):
            away = [np.linalg.norm(spread - leader) for leader in leaders]
            nearest = int(np.argmin(away)) if away else -1
            if not away or away[nearest] > alike * np.linalg.norm(leaders[nearest]):
                leaders.append(spread)
                nearest = len(leaders) - 1
            group[number] = nearest
        if len(leaders) <= LARGEST_COUNT:
            break
        alike *= 1.5
    means = [
        np.mean([s for s, own in zip(point_spreads, group, strict=True) if own == g], 0)
        for g in range(len(leaders))
    ]
    return OpticsGroups(np.array(means), group)
