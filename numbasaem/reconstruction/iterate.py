"""Algorithm 1 on the data of one run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.aliases import no_progress
from numbasaem.geometry.rotations import random_rotations
from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.geometry.views import nearest_directions
from numbasaem.observations.hypotheses import Hypotheses
from numbasaem.volume.basis import VolumeBasis
from numbasaem.volume.symmetry import invariant_volumes

from .current_stage import basis_of, grid_of
from .held_out import (
    held_out,
    judge,
    march_is_over,
    rows_of_stage,
    still_rises,
    take_best,
)
from .maximization import expected_log_likelihood
from .minibatches import minibatches
from .state import Iteration, RunPlace
from .update import likelihood_fell, maximize, overshot, step_back
from .view_prior import moved_view_weights, rotation_prior

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from numbasaem.aliases import OnProgress
    from numbasaem.observations.protocol import Observations
    from numbasaem.observations.statistics import Statistics
    from numbasaem.projection.operator import ProjectionOperator
    from numbasaem.projection.view_projections import ViewProjections
    from numbasaem.schedule import Stage
    from numbasaem.settings import Settings

    from .state import RunState

_ALONE = RunPlace()


def iterations(
    state: RunState,
    data: Observations,
    settings: Settings,
    n_stages: int,
    on_progress: OnProgress = no_progress,
    place: RunPlace = _ALONE,
) -> Iterator[Iteration]:
    """Go on from a state, to the end of the first `n_stages` stages.

    Parameters
    ----------
    state : RunState
        In/out: current state; it has taken in each iteration that is yielded.
    data : Observations
        Data of the run.
    settings : Settings
        Settings of the reconstruction.
    n_stages : int
        Stages of the schedule to do.
    on_progress : callable
        Called with what is being done and the share of it that is done.
    place : RunPlace
        Name of the run, and the number of iterations before it and in all.

    Yields
    ------
    Iteration
        What happened.

    Raises
    ------
    NumericalError
        If the numbers overflow; the state is not to be used then.

    Warns
    -----
    RunWarning
        If an iteration saw no particle or nothing of some part of the volume, the shift
        prior collapsed, the noise is lost in rounding or the likelihood fell.

    Notes
    -----
    Algorithm 1, once a stage.
    """
    for number, stage in enumerate(settings.schedule[:n_stages]):
        if number < state.stage:
            continue
        if number > state.stage:
            if march_is_over(state.history):
                return
            _begin_stage(state, settings.size, settings.schedule[state.stage], stage)
        yield from _iterations_of_stage(
            state, data, settings, stage, on_progress, place
        )


def _iterations_of_stage(
    state: RunState,
    data: Observations,
    settings: Settings,
    stage: Stage,
    on_progress: OnProgress,
    place: RunPlace,
) -> Iterator[Iteration]:
    """Iterations that are left of the current stage."""
    basis, grid = basis_of(state, settings), grid_of(state, settings)
    unturned = data.projections(basis, grid)
    views, operator = grid, unturned
    symmetric = invariant_volumes(basis, settings.symmetry)
    kept_back = held_out(settings, data)
    seen = np.delete(np.arange(len(data)), kept_back)
    batches = minibatches(settings, len(seen), data.patches_each)
    if state.minibatches:
        batches.restore(state.minibatches)
    while not _is_done(state, stage, settings):
        started = time.perf_counter()
        chosen = seen[batches.choose(state.generator)]
        if settings.batching == "stochastic":
            # Rotations that stay let a few views part with all particles, each fitted
            # by itself; other schemes add up or compare iterations.
            views = grid.turned(random_rotations(1, state.generator)[0])
            operator = operator.at(views)
        hypotheses = hypotheses_of(state, operator, views, settings)
        fresh, halves = _expectation(
            data, chosen, hypotheses, settings.prior_or_default != "none", on_progress
        )
        q = expected_log_likelihood(hypotheses, fresh)
        state.view_mass = state.view_mass + nearest_directions(
            views, grid, _mass_of_views(fresh, hypotheses, views)
        )
        statistics = batches.combine(fresh)
        comparable = stage.step is None and settings.batching == "full"
        if comparable and overshot(state, fresh):
            update = step_back(state)
        else:
            # The last step is plain: no iteration follows that could take it back.
            last = comparable and state.iteration + 1 == stage.n_iterations
            step = 1.0 if last or likelihood_fell(state, fresh) else stage.step
            update = maximize(
                operator, symmetric, state, views, statistics, step, settings, halves
            )
        state.minibatches = batches.state()
        evidence = judge(state, data, kept_back, unturned, grid, settings)
        state.iteration += 1
        row = Iteration(
            run=place.run,
            stage=state.stage,
            n_stages=len(settings.schedule),
            ell_max=stage.ell_max,
            iteration=state.iteration,
            n_iterations=stage.n_iterations,
            total_done=place.n_before + len(state.history) + 1,
            total=place.total,
            evidence_per_patch=fresh.evidence / fresh.n_patches,
            held_out_evidence_per_patch=evidence,
            log_likelihood_per_patch=fresh.log_likelihood / fresh.n_patches,
            q_per_patch=q / fresh.n_patches,
            noise_variance=state.noise_variance,
            empty_fraction=fresh.empty_mass / fresh.n_patches,
            volume_change=update.change,
            seconds=time.perf_counter() - started,
            n_unconstrained=update.n_unconstrained,
        )
        state.history.append(row)
        if _is_done(state, stage, settings):
            take_best(state)
        yield row


def _expectation(
    data: Observations,
    chosen: NDArray[np.intp],
    hypotheses: Hypotheses,
    in_halves: bool,
    on_progress: OnProgress,
) -> tuple[Statistics, tuple[Statistics, Statistics] | None]:
    """Statistics of the chosen observations, and of every second of them if asked."""

    def of(members: NDArray[np.intp]) -> Statistics:
        return data.expectation(
            members, hypotheses, lambda share: on_progress("expectation", share)
        )

    if not in_halves or len(chosen) < 2:
        return of(chosen), None
    halves = of(chosen[::2]), of(chosen[1::2])
    return halves[0] + halves[1], halves


def _mass_of_views(
    statistics: Statistics, hypotheses: Hypotheses, views: ViewGrid
) -> NDArray[np.float64]:
    """Posterior of each view, of particles alone: what is empty says nothing."""
    n_rotations = len(views)
    prior = hypotheses.rotation_prior
    uninformed = np.full(n_rotations, 1 / n_rotations) if prior is None else prior
    mass = statistics.rotation_mass - statistics.empty_mass * uninformed
    return np.asarray(mass.reshape(views.n_views, -1).sum(axis=1))


def hypotheses_of(
    state: RunState,
    operator: ProjectionOperator | ViewProjections,
    views: ViewGrid,
    settings: Settings,
) -> Hypotheses:
    """What explains the data, by the current estimate of a run.

    Parameters
    ----------
    state : RunState
        State of the run.
    operator : ProjectionOperator or ViewProjections
        Projections of the current stage, as the data see them.
    views : ViewGrid
        Their rotations.
    settings : Settings
        Settings of the reconstruction.

    Returns
    -------
    Hypotheses
        Volume, priors and noise.
    """
    return Hypotheses(
        operator,
        state.volume_coefficients,
        state.shift_prior,
        state.noise_variance,
        rotation_prior(state, views, settings),
    )


def _is_done(state: RunState, stage: Stage, settings: Settings) -> bool:
    """Whether the current stage has come to its end."""
    if state.iteration >= stage.n_iterations or _stalled(state, settings):
        return True
    return stage.is_open and not still_rises(rows_of_stage(state))


def _stalled(state: RunState, settings: Settings) -> bool:
    """Whether Q gained no more than epsilon in the stage's last iteration."""
    if settings.stopping is None or state.iteration < 2:
        return False
    before, last = state.history[-2:]
    return last.q_per_patch - before.q_per_patch <= settings.stopping


def _begin_stage(state: RunState, size: int, last: Stage, following: Stage) -> None:
    """Begin the next stage with the volume of the last one."""
    basis = VolumeBasis(size, last.ell_max)
    state.volume_coefficients = basis.lift(state.volume_coefficients, following.ell_max)
    state.em_step = state.last_move = np.zeros_like(state.volume_coefficients)
    state.mean_volume, state.best = state.volume_coefficients, None
    before, after = ViewGrid(last.n_rotations), ViewGrid(following.n_rotations)
    state.view_mass = np.zeros(after.n_views)
    state.view_weights = moved_view_weights(state.view_weights, before, after)
    state.stage, state.iteration, state.minibatches = state.stage + 1, 0, {}
