"""What data say of a map that was made without them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.reconstruction.current_stage import basis_of, grid_of
from numbasaem.reconstruction.iterate import hypotheses_of
from numbasaem.reconstruction.result import HALVES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from numbasaem.observations.hypotheses import Hypotheses
    from numbasaem.observations.protocol import Observations
    from numbasaem.reconstruction.state import RunState
    from numbasaem.settings import Settings

_N_GROUPS = 20
"""Number of groups of patches, over which means and their deviations are taken."""


@dataclass(frozen=True)
class Mean:
    """A mean over groups of patches.

    Attributes
    ----------
    value : float
        The mean.
    deviation : float
        Its standard deviation.
    """

    value: float
    deviation: float

    def __str__(self) -> str:
        """Put both in words."""
        return f"{self.value:.4f} +- {self.deviation:.4f}"

    def ahead_of(self, other: Mean) -> float:
        """Difference to another mean in standard deviations."""
        spread = float(np.hypot(self.deviation, other.deviation))
        return (self.value - other.value) / max(spread, np.finfo(float).tiny)


def held_out_evidence(
    runs: Mapping[str, RunState],
    halves: tuple[Observations, ...],
    settings: Settings,
    stride: int = 1,
) -> Mean:
    """Evidence of each half of the data for the map of the other half.

    Parameters
    ----------
    runs : mapping of str to RunState
        Runs on the halves, or on one, whose maps are asked about.
    halves : tuple of Observations
        The halves of the data, in the order of the runs.
    settings : Settings
        Settings of the runs.
    stride : int
        One observation of so many is asked.

    Returns
    -------
    Mean
        Over groups of patches.
    """
    return mean_of(
        np.concatenate(
            [
                evidence_of_groups(runs[name], other_half, settings, stride)
                for name, other_half in zip(HALVES, halves[::-1], strict=True)
                if name in runs
            ]
        )
    )


def mean_of(values: NDArray[np.float64]) -> Mean:
    """Mean of independent values and its standard deviation.

    Parameters
    ----------
    values : float64, shape (n,)
        The values, at least two.

    Returns
    -------
    Mean
        Their mean.
    """
    return Mean(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))


def groups_of(data: Observations, stride: int) -> list[NDArray[np.intp]]:
    """Divide the observations that are asked.

    Parameters
    ----------
    data : Observations
        The data.
    stride : int
        One observation of so many is asked, if there are enough for all groups.

    Returns
    -------
    list of intp, shape (n,)
        Numbers of those of each group.
    """
    n_groups = min(_N_GROUPS, len(data))
    asked = np.arange(0, len(data), min(stride, len(data) // n_groups))
    return np.array_split(asked, n_groups)


def hypotheses_about(
    state: RunState, data: Observations, settings: Settings
) -> Hypotheses:
    """Make what explains data by a map, in rotations that are the same each time.

    Parameters
    ----------
    state : RunState
        State of the run whose map it is.
    data : Observations
        Data that are asked, which need not be the run's.
    settings : Settings
        Settings of the run.

    Returns
    -------
    Hypotheses
        Volume, priors and noise.
    """
    views = grid_of(state, settings)
    operator = data.projections(basis_of(state, settings), views)
    return hypotheses_of(state, operator, views, settings)


def evidence_of_groups(
    state: RunState, data: Observations, settings: Settings, stride: int = 1
) -> NDArray[np.float64]:
    """Log-likelihood per patch above the likeliest white noise, of groups of patches.

    Parameters
    ----------
    state : RunState
        State of a run whose map is asked about.
    data : Observations
        Data that are asked.
    settings : Settings
        Settings of the run.
    stride : int
        One observation of so many is asked, if there are enough for all groups.

    Returns
    -------
    float64, shape (n_groups,)
        That of each group.
    """
    hypotheses = hypotheses_about(state, data, settings)
    groups = [data.expectation(group, hypotheses) for group in groups_of(data, stride)]
    n_pixels = np.array([group.n_patches for group in groups]) * settings.size**2
    energy = np.array([group.patch_energy for group in groups])
    variance = energy.sum() / n_pixels.sum()
    white = -(energy / variance + n_pixels * np.log(2 * np.pi * variance)) / 2
    evidence = np.array([group.log_likelihood for group in groups]) - white
    return np.asarray(evidence * settings.size**2 / n_pixels)
