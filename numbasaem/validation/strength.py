r"""How much particles differ in strength: as much as noise demands, or too little.

Let the map be s times as strong, and :math:`\ell(s)` the log-likelihood of data that
the map was made without. If they are particles of the map in white noise, then at s = 1
(White, Econometrica 50, 1, 1982)

.. math:: \operatorname{Var} \ell'(1) = -E\,\ell''(1),
          \qquad \ell'(s) = (x \cdot y - s\, x^T A x) / \sigma^2

with the posterior's y and A at that strength. Where windows were chosen for their
likeness to a template, noise itself is what is like it: all are about as strong as the
choice demands, and the left side is a fraction of the right one. Particles that differ
more than that, in ice or in their structure, make it larger; that is no objection.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import chi2

from numbasaem.reconstruction.result import HALVES

from .evidence import groups_of, hypotheses_about

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from numbasaem.observations.protocol import Observations
    from numbasaem.reconstruction.state import RunState
    from numbasaem.settings import Settings

_DIFFERENCE = 0.05
"""Change of the strength over which l' is differentiated."""


@dataclass(frozen=True)
class Scatter:
    """How much the particles' strength differs, over what noise demands.

    Attributes
    ----------
    ratio : float
        Variance of l' among groups of observations, over the mean of -l''.
    n_free : int
        Degrees of freedom of that variance.

    Examples
    --------
    >>> bool(Scatter(0.3, 2).chance > 0.2), bool(Scatter(0.3, 38).chance < 1e-5)
    (True, True)
    """

    ratio: float
    n_free: int

    @property
    def chance(self) -> float:
        """Probability of a ratio as low or lower, where 1 is expected."""
        return float(chi2.cdf(self.ratio * self.n_free, self.n_free))


def scatter_of_strength(
    runs: Mapping[str, RunState],
    halves: tuple[Observations, ...],
    settings: Settings,
    stride: int = 1,
) -> Scatter:
    """Compare the particles' strengths, in each half under the map of the other half.

    Parameters
    ----------
    runs : mapping of str to RunState
        Runs on both halves.
    halves : tuple of Observations
        The halves of the data, in the order of the runs.
    settings : Settings
        Settings of the runs.
    stride : int
        One observation of so many is asked.

    Returns
    -------
    Scatter
        Of both halves together.
    """
    squares, information, n_free = 0.0, 0.0, 0
    for name, data in zip(HALVES, halves[::-1], strict=True):
        slopes = _slopes(runs[name], data, settings, stride)
        at_map = slopes.mean(axis=0)
        n_free += len(at_map) - 1
        squares += float(np.sum((at_map - at_map.mean()) ** 2))
        second = np.mean(slopes[0] - slopes[1]) / (2 * _DIFFERENCE)
        information += float(second) * (len(at_map) - 1)
    return Scatter(squares / max(information, np.finfo(float).tiny), n_free)


def _slopes(
    state: RunState, data: Observations, settings: Settings, stride: int
) -> NDArray[np.float64]:
    """Give l' of each group, a little below the map's strength and a little above."""
    x = state.volume_coefficients
    hypotheses = hypotheses_about(state, data, settings)
    slopes = []
    for strength in (1 - _DIFFERENCE, 1 + _DIFFERENCE):
        scaled = replace(hypotheses, volume_coefficients=strength * x)
        for group in groups_of(data, stride):
            statistics = data.expectation(group, scaled)
            # f x explains 2 f x.y - f^2 x.A x, from which both are told.
            once, twice = (
                statistics.explained_energy(hypotheses.operator, factor * x)
                for factor in (1, 2)
            )
            linear, square = once - twice / 4, once - twice / 2
            slopes.append((linear - strength * square) / state.noise_variance)
    return np.reshape(slopes, (2, -1))
