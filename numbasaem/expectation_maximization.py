"""Algorithm 1 on one set of patches."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from .checkpoint import Iteration, RunState
from .expectation_step import Statistics, expectation
from .maximization_step import (
    expected_log_likelihood,
    noise_variance,
    normal_equations,
    shift_prior_table,
    solve,
    uniform_shift_prior,
)
from .projection import ProjectionOperator
from .rotations import rotation_grid
from .schedule import minibatches
from .volume_basis import VolumeBasis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from .inputs import OnProgress
    from .schedule import Stage
    from .settings import Settings

_FIRST_EMPTY_PROBABILITY = 0.5


def random_start(
    patches: NDArray[np.float32], settings: Settings, run: int, start: int
) -> RunState:
    """First state of a run: independent Gaussian voxels.

    Parameters
    ----------
    patches : float32, shape (n_patches, L, L)
        Patches of the run.
    settings : Settings
        Settings of the reconstruction.
    run, start : int
        Number of the run and of the start: another volume for each, but the same
        minibatches for all starts of a run, so that their likelihoods compare.

    Returns
    -------
    RunState
        The volume is scaled so that projections have as much power as the pixels;
        the noise variance, unless it is known, is that of the pixels.
    """
    size, first = settings.size, settings.schedule[0]
    variance = settings.noise_variance or float(np.var(patches, dtype=np.float64))
    generator = np.random.default_rng([settings.seed, 1, run, start])
    basis = VolumeBasis(size, first.ell_max)
    volume = basis.expand(generator.standard_normal((size, size, size)))
    images = basis.project(volume, rotation_grid(first.n_rotations))
    return RunState(
        volume_coefficients=volume * np.sqrt(variance / np.mean(images**2)),
        shift_prior=uniform_shift_prior(size, _FIRST_EMPTY_PROBABILITY),
        noise_variance=variance,
        rotation_mass=np.zeros(first.n_rotations),
        generator=np.random.default_rng([settings.seed, 3, run]),
        stage=0,
        iteration=0,
        minibatches={},
        history=[],
    )


def iterations(
    state: RunState,
    patches: NDArray[np.float32],
    settings: Settings,
    n_stages: int,
    on_progress: OnProgress,
) -> Iterator[Iteration]:
    """Go on from a state, to the end of the first `n_stages` stages.

    Parameters
    ----------
    state : RunState
        In/out: current state; it has taken in each iteration that is yielded.
    patches : float32, shape (n_patches, L, L)
        Patches of the run.
    settings : Settings
        Settings of the reconstruction.
    n_stages : int
        Stages of the schedule to do.
    on_progress : callable
        Called with what is being done and the share of it that is done.

    Yields
    ------
    Iteration
        What happened. Its `run`, `total_done` and `total` are for the caller to set.

    Notes
    -----
    Algorithm 1, once a stage.
    """
    for number, stage in enumerate(settings.schedule[:n_stages]):
        if number < state.stage:
            continue
        if number > state.stage:
            _march(state, settings.size, settings.schedule[state.stage], stage)
        basis = VolumeBasis(settings.size, stage.ell_max)
        operator = ProjectionOperator(basis, rotation_grid(stage.n_rotations))
        batches = minibatches(
            settings.batching, len(patches), settings.batch_fraction, settings.seed
        )
        if state.minibatches:
            batches.restore(state.minibatches)
        while state.iteration < stage.n_iterations and not _stalled(state, settings):
            started = time.perf_counter()
            fresh = expectation(
                patches[batches.choose(state.generator)],
                operator.project(state.volume_coefficients),
                state.shift_prior,
                state.noise_variance,
                threads=settings.threads,
                on_progress=lambda share: on_progress("expectation", share),
            )
            q = expected_log_likelihood(
                operator,
                state.volume_coefficients,
                state.shift_prior,
                state.noise_variance,
                fresh,
            )
            # An empty patch tells nothing of rotations: all are as likely as before.
            uninformed = fresh.empty_mass / stage.n_rotations
            state.rotation_mass = state.rotation_mass + fresh.rotation_mass - uninformed
            change = _maximize(operator, state, batches.combine(fresh), stage, settings)
            state.minibatches = batches.state()
            state.iteration += 1
            row = Iteration(
                run="",
                stage=number,
                n_stages=len(settings.schedule),
                ell_max=stage.ell_max,
                iteration=state.iteration,
                n_iterations=stage.n_iterations,
                total_done=0,
                total=0,
                log_likelihood_per_patch=fresh.log_likelihood / fresh.n_patches,
                q_per_patch=q / fresh.n_patches,
                noise_variance=state.noise_variance,
                empty_fraction=fresh.empty_mass / fresh.n_patches,
                volume_change=change,
                seconds=time.perf_counter() - started,
            )
            state.history.append(row)
            yield row


def _maximize(
    operator: ProjectionOperator,
    state: RunState,
    statistics: Statistics,
    stage: Stage,
    settings: Settings,
) -> float:
    """M-step; returns the relative change of the volume's coefficients."""
    before = state.volume_coefficients
    maximum = solve(*normal_equations(operator, statistics))
    state.volume_coefficients = before + stage.step * (maximum - before)
    state.shift_prior = shift_prior_table(statistics)
    state.noise_variance = settings.noise_variance or noise_variance(
        operator, maximum, statistics
    )
    norm = np.linalg.norm(state.volume_coefficients)
    return float(np.linalg.norm(state.volume_coefficients - before) / norm)


def _stalled(state: RunState, settings: Settings) -> bool:
    """Whether Q gained no more than epsilon in the stage's last iteration."""
    if settings.stopping is None or state.iteration < 2:
        return False
    before, last = state.history[-2:]
    return last.q_per_patch - before.q_per_patch <= settings.stopping


def _march(state: RunState, size: int, last: Stage, following: Stage) -> None:
    """Begin the next stage with the volume of the last one."""
    basis = VolumeBasis(size, last.ell_max)
    state.volume_coefficients = basis.lift(state.volume_coefficients, following.ell_max)
    state.rotation_mass = np.zeros(following.n_rotations)
    state.stage, state.iteration, state.minibatches = state.stage + 1, 0, {}
