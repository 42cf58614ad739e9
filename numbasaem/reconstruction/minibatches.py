"""Which patches each iteration sees, and the march from low to high frequency."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from numbasaem.observations.models import observation_model
from numbasaem.observations.statistics import Statistics
from numbasaem.random_streams import Stream, random_stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numbasaem.settings import Settings

_SHARE = 0.05
"""Share of the patches that the paper's minibatches have."""


class Minibatches(Protocol):
    """Scheme that chooses patches and keeps statistics of earlier ones."""

    def choose(self, generator: np.random.Generator) -> NDArray[np.intp]:
        """Choose the patches that the next E-step sees."""

    def combine(self, fresh: Statistics) -> Statistics:
        """Make the statistics of the M-step from those of the chosen patches."""

    def state(self) -> dict[str, object]:
        """State to keep, so that a run can go on later."""

    def restore(self, state: dict[str, object]) -> None:
        """Go on from a kept state."""


class StochasticBatches:
    """A fresh minibatch each iteration; its statistics are used once (Algorithm 1).

    Parameters
    ----------
    n_patches : int
        Number of all patches.
    n_chosen : int
        Number of patches of a minibatch, floor(S n_patches).
    """

    def __init__(self, n_patches: int, n_chosen: int) -> None:
        self.n_patches = n_patches
        self.n_chosen = n_chosen

    def choose(self, generator: np.random.Generator) -> NDArray[np.intp]:
        """Draw a minibatch uniformly, without replacement."""
        drawn = generator.choice(self.n_patches, self.n_chosen, replace=False)
        return np.sort(drawn)  # neighbours in memory are read together

    def combine(self, fresh: Statistics) -> Statistics:
        """Use the fresh statistics alone."""
        return fresh

    def state(self) -> dict[str, object]:
        """Nothing is kept between iterations."""
        return {}

    def restore(self, state: dict[str, object]) -> None:
        """Nothing was kept between iterations."""


class OnlineBatches(StochasticBatches):
    """Minibatches whose statistics are averaged with step (t + 2)**-0.6.

    The average forgets the early iterations, made under a poor volume, and smooths
    the noise of a single minibatch.
    """

    _POWER = 0.6

    def __init__(self, n_patches: int, n_chosen: int) -> None:
        super().__init__(n_patches, n_chosen)
        self.average: Statistics | None = None
        self.n_averaged = 0

    def combine(self, fresh: Statistics) -> Statistics:
        """Move the running average towards the fresh statistics."""
        if self.average is None:
            self.average = fresh
        else:
            step = (self.n_averaged + 2) ** -self._POWER
            self.average = replace(
                self.average.scaled(1 - step) + fresh.scaled(step),
                log_likelihood=fresh.log_likelihood,
                n_patches=self.average.n_patches
                + step * (fresh.n_patches - self.average.n_patches),
            )
        self.n_averaged += 1
        return self.average

    def state(self) -> dict[str, object]:
        """Keep the running average."""
        return {"average": self.average, "n_averaged": self.n_averaged}

    def restore(self, state: dict[str, object]) -> None:
        """Go on with the running average."""
        self.average = state["average"]  # type: ignore[assignment]
        self.n_averaged = int(state["n_averaged"])  # type: ignore[call-overload]


class IncrementalBatches:
    """Fixed random blocks whose statistics are kept and replaced one at a time [54].

    The M-step sees all blocks visited so far; every step raises the free energy.

    Parameters
    ----------
    n_patches : int
        Number of all patches.
    n_chosen : int
        Number of patches of a block, about.
    generator : numpy.random.Generator
        Deals the patches to blocks.
    """

    def __init__(
        self, n_patches: int, n_chosen: int, generator: np.random.Generator
    ) -> None:
        n_blocks = max(1, round(n_patches / n_chosen))
        order = generator.permutation(n_patches)
        self.blocks = [np.sort(block) for block in np.array_split(order, n_blocks)]
        self.kept: dict[int, Statistics] = {}
        self.n_visits = 0

    def choose(self, generator: np.random.Generator) -> NDArray[np.intp]:
        """Take the blocks in turn."""
        return self.blocks[self.n_visits % len(self.blocks)]

    def combine(self, fresh: Statistics) -> Statistics:
        """Replace the block's statistics and add up all that are kept."""
        self.kept[self.n_visits % len(self.blocks)] = fresh
        self.n_visits += 1
        first, *others = (self.kept[i] for i in sorted(self.kept))
        total = first
        for other in others:
            total = total + other
        return total

    def state(self) -> dict[str, object]:
        """Keep every block's members and statistics."""
        return {"blocks": self.blocks, "kept": self.kept, "n_visits": self.n_visits}

    def restore(self, state: dict[str, object]) -> None:
        """Go on with the kept statistics."""
        self.blocks = state["blocks"]  # type: ignore[assignment]
        self.kept = state["kept"]  # type: ignore[assignment]
        self.n_visits = int(state["n_visits"])  # type: ignore[call-overload]


def minibatches(
    settings: Settings, n_observations: int, patches_each: float = 1.0
) -> Minibatches:
    """Make the scheme of minibatches that a run's settings name.

    Parameters
    ----------
    settings : Settings
        Settings of the reconstruction: scheme, share and seed.
    n_observations : int
        Number of all observations of the run.
    patches_each : float
        Number of patches that an observation is worth.

    Returns
    -------
    Minibatches
        The scheme, at its beginning.
    """
    length = n_chosen(settings, n_observations, patches_each)
    if settings.batching == "incremental":
        dealer = random_stream(settings.seed, Stream.BLOCKS)
        return IncrementalBatches(n_observations, length, dealer)
    if settings.batching == "online":
        return OnlineBatches(n_observations, length)
    return StochasticBatches(n_observations, length)


def minibatch_length(
    n_observations: int,
    fraction: float | None,
    patches_each: float = 1.0,
    fewest: int = 4000,
) -> int:
    """Number of observations of a minibatch.

    Parameters
    ----------
    n_observations : int
        Number of all observations.
    fraction : float or None
        S, in (0, 1]. None is the paper's 0.05, but at least `fewest` patches, if there
        are as many.
    patches_each : float
        Number of patches that an observation is worth; above 1 for larger pieces.
    fewest : int
        Fewest patches.

    Returns
    -------
    int
        floor(S n_observations), but at least one.

    Examples
    --------
    >>> [minibatch_length(n, None) for n in (1000, 10_000, 300_000)]
    [1000, 4000, 15000]
    """
    if fraction is None:
        least = math.ceil(fewest / patches_each)
        return max(int(_SHARE * n_observations), min(n_observations, least))
    return max(1, int(fraction * n_observations))


def n_chosen(settings: Settings, n_observations: int, patches_each: float) -> int:
    """Number of observations that an iteration sees.

    Parameters
    ----------
    settings : Settings
        Settings of the reconstruction.
    n_observations : int
        Number of all observations of the run.
    patches_each : float
        Number of patches that an observation is worth.

    Returns
    -------
    int
        Number of a minibatch, or of all of them.
    """
    if settings.batching == "full":
        return n_observations
    fewest = observation_model(settings.model).minibatch
    fraction = settings.batch_fraction
    return minibatch_length(n_observations, fraction, patches_each, fewest)


def n_kept(settings: Settings, n_observations: int, patches_each: float) -> int:
    """Number of sets of statistics of earlier iterations that are kept.

    Parameters
    ----------
    settings : Settings
        Settings of the reconstruction.
    n_observations : int
        Number of all observations of the run.
    patches_each : float
        Number of patches that an observation is worth.

    Returns
    -------
    int
        Largest number of sets.
    """
    if settings.batching == "incremental":
        in_block = n_chosen(settings, n_observations, patches_each)
        n_blocks = max(1, round(n_observations / in_block))
        return min(n_blocks, max(stage.n_iterations for stage in settings.schedule))
    return 1 if settings.batching == "online" else 0
