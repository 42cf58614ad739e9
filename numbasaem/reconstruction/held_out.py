"""Data that no step of a run sees: when a stage ends, and which volume it ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numbasaem.observations.hypotheses import Hypotheses
from numbasaem.random_streams import Stream, random_stream

from .state import Estimate
from .view_prior import rotation_prior

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from numbasaem.geometry.view_grid import ViewGrid
    from numbasaem.observations.protocol import Observations
    from numbasaem.projection.operator import ProjectionOperator
    from numbasaem.projection.view_projections import ViewProjections
    from numbasaem.settings import Settings

    from .state import Iteration, RunState

_SHARE = 0.05
_FEWEST = 8
"""Number of observations from which one can be spared."""
_PATCHES = 2500
"""Number of patches that suffice: their evidence is known to a few thousandths."""
_KEPT = 0.8
"""Factor by which the mean of the latest volumes forgets, an iteration."""
_SPAN = 5
"""Number of iterations whose mean evidence is compared with that of as many before."""
_LEAST_GAIN = 0.001
"""Share of the evidence below which a gain is none."""


def held_out(settings: Settings, data: Observations) -> NDArray[np.intp]:
    """Choose the observations that no step of a run is to see.

    Parameters
    ----------
    settings : Settings
        Settings of the reconstruction.
    data : Observations
        Data of the run.

    Returns
    -------
    intp, shape (n,)
        Their numbers, ascending: a twentieth, but no more than 2500 patches need. None
        where every stage has a given number of iterations, or of fewer than eight
        observations; the evidence of those seen then has to do.
    """
    is_open = any(stage.is_open for stage in settings.schedule)
    if not is_open or len(data) < _FEWEST:
        return np.zeros(0, np.intp)
    enough = _PATCHES / data.patches_each
    n_held = max(1, round(min(_SHARE * len(data), enough)))
    drawn = random_stream(settings.seed, Stream.HELD_OUT).permutation(len(data))
    return np.sort(drawn[:n_held])


def judge(
    state: RunState,
    data: Observations,
    chosen: NDArray[np.intp],
    operator: ProjectionOperator | ViewProjections,
    views: ViewGrid,
    settings: Settings,
) -> float | None:
    """Ask held-out data about the mean of the latest volumes; keep it if it is best.

    The mean lags behind by a few iterations, and has less of the noise of minibatches.

    Parameters
    ----------
    state : RunState
        In/out: state after an iteration.
    data : Observations
        Data of the run.
    chosen : intp, shape (n,)
        Numbers of those held out.
    operator : ProjectionOperator or ViewProjections
        Projections of the current stage, in rotations that are the same each time.
    views : ViewGrid
        Those rotations.
    settings : Settings
        Settings of the reconstruction.

    Returns
    -------
    float or None
        Evidence per patch; None if none are held out.
    """
    latest = state.volume_coefficients
    state.mean_volume = _KEPT * state.mean_volume + (1 - _KEPT) * latest
    if not len(chosen):
        return None
    hypotheses = Hypotheses(
        operator,
        state.mean_volume,
        state.shift_prior,
        state.noise_variance,
        rotation_prior(state, views, settings),
    )
    statistics = data.expectation(chosen, hypotheses)
    evidence = statistics.evidence / statistics.n_patches
    before = _evidence(rows_of_stage(state))
    if evidence > max(before, default=-np.inf):
        state.best = Estimate(
            state.mean_volume, state.shift_prior, state.noise_variance
        )
    return evidence


def take_best(state: RunState) -> None:
    """End a stage with what held-out data liked best in it.

    Parameters
    ----------
    state : RunState
        In/out: state of the run.
    """
    if state.best is None:
        return
    state.volume_coefficients = state.best.volume_coefficients
    state.shift_prior = state.best.shift_prior
    state.noise_variance = state.best.noise_variance


def rows_of_stage(state: RunState) -> list[Iteration]:
    """Iterations of the current stage, as far as they are done."""
    return state.history[len(state.history) - state.iteration :]


def still_rises(rows: Sequence[Iteration]) -> bool:
    """Whether the evidence rises, beyond its scatter.

    Parameters
    ----------
    rows : sequence of Iteration
        Iterations of a stage.

    Returns
    -------
    bool
        False once the last five have no more than the five before.
    """
    if len(rows) < 2 * _SPAN:
        return True
    before, last = np.array(_evidence(rows[-2 * _SPAN :])).reshape(2, _SPAN)
    scatter = np.sqrt((before.var(ddof=1) + last.var(ddof=1)) / _SPAN)
    least = max(scatter, _LEAST_GAIN * abs(last.mean()))
    return bool(last.mean() - before.mean() > least)


def march_is_over(history: Sequence[Iteration]) -> bool:
    """Whether the last two stages gained nothing.

    Parameters
    ----------
    history : sequence of Iteration
        What happened, to the end of a stage.

    Returns
    -------
    bool
        True if held-out evidence was no higher after each than after the one before it.
    """
    held = [row for row in history if row.held_out_evidence_per_patch is not None]
    stages = sorted({row.stage for row in held})[-3:]
    if len(stages) < 3:
        return False
    levels = [
        np.mean(_evidence([row for row in held if row.stage == stage][-_SPAN:]))
        for stage in stages
    ]
    return bool(levels[2] <= levels[1] <= levels[0])


def _evidence(rows: Sequence[Iteration]) -> list[float]:
    """Held-out evidence, or that of the data seen if none are held out."""
    return [
        row.evidence_per_patch
        if row.held_out_evidence_per_patch is None
        else row.held_out_evidence_per_patch
        for row in rows
    ]
