"""Algorithm 1 on one set of patches."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from numbasaem.errors import NumericalError, warn
from numbasaem.projection.operator import ProjectionOperator
from numbasaem.random_streams import Stream, random_stream
from numbasaem.volume.basis import VolumeBasis
from numbasaem.volume.rotations import rotation_grid, view_kernel
from numbasaem.volume.symmetry import invariant_volumes

from .checkpoint import Iteration, RunState
from .maximization import (
    expected_log_likelihood,
    n_unseen_coefficients,
    noise_variance,
    normal_equations,
    restricted_equations,
    shift_prior_table,
    solve,
    uniform_shift_prior,
)
from .minibatches import minibatches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from numbasaem.aliases import OnProgress
    from numbasaem.observations.patch_expectation import Statistics
    from numbasaem.observations.protocol import Observations
    from numbasaem.settings import Settings, Stage


_FIRST_EMPTY_PROBABILITY = 0.5
_HELD_ITERATIONS = 5
"""Of the window model's first stage, in which the first empty probability holds, and of
each stage before view directions are learned: a poor volume has none to tell."""
_SMALLEST_SHARE = 1e-6
"""What float32 sums cannot tell from nothing."""
_PACE = 0.5
"""Logarithm by which a step grows when it goes where the one before went."""
_SHORTEST_STEP = 0.3
_LONGEST_STEP = {"patch": 8.0, "window": 1.8}
"""Whole particles leave less in doubt, so that long steps overshoot: of up to 8, from
the truth at SNR 0.5, ten took the correlation from 0.999 to 0.923, those of 1 to 0.984.
"""
_BEYOND_CHANCE = 10.0
"""Standard deviations of the mean log-likelihood of a minibatch of noise."""


def random_start(
    data: Observations, settings: Settings, run: int, start: int
) -> RunState:
    """First state of a run: independent Gaussian voxels.

    Parameters
    ----------
    data : Observations
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
    variance = settings.noise_variance or data.variance
    generator = random_stream(settings.seed, Stream.START, run, start)
    basis = VolumeBasis(size, first.ell_max)
    volume = basis.expand(generator.standard_normal((size, size, size)))
    symmetric = invariant_volumes(basis, settings.symmetry)
    volume = symmetric @ (symmetric.T @ volume)
    images = projections_as_seen(basis, first.n_rotations, data).project(volume)
    return RunState(
        volume_coefficients=volume * np.sqrt(variance / np.mean(images**2)),
        shift_prior=uniform_shift_prior(size, _FIRST_EMPTY_PROBABILITY),
        noise_variance=variance,
        rotation_mass=np.zeros(first.n_rotations),
        view_weights=_all_views(first.n_rotations),
        generator=random_stream(settings.seed, Stream.MINIBATCHES, run),
        stage=0,
        iteration=0,
        step=1.0,
        em_step=np.zeros(basis.n_coefficients),
        minibatches={},
        history=[],
    )


def iterations(
    state: RunState,
    data: Observations,
    settings: Settings,
    n_stages: int,
    on_progress: OnProgress,
) -> Iterator[Iteration]:
    """Go on from a state, to the end of the first `n_stages` stages.

    Parameters
    ----------
    state : RunState
        In/out: current state; it has taken in each iteration that is yielded.
    data : Observations
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
            _march(state, settings.size, settings.schedule[state.stage], stage)
        basis = VolumeBasis(settings.size, stage.ell_max)
        operator = projections_as_seen(basis, stage.n_rotations, data)
        symmetric = invariant_volumes(basis, settings.symmetry)
        batches = minibatches(
            settings.batching,
            len(data),
            settings.batch_fraction,
            settings.seed,
            data.patches_each,
        )
        if state.minibatches:
            batches.restore(state.minibatches)
        while state.iteration < stage.n_iterations and not _stalled(state, settings):
            started = time.perf_counter()
            views = rotation_prior(state, settings)
            chosen = batches.choose(state.generator)
            fresh = data.expectation(
                chosen,
                operator.project(state.volume_coefficients),
                state.shift_prior,
                state.noise_variance,
                views,
                lambda share: on_progress("expectation", share),
            )
            q = expected_log_likelihood(
                operator,
                state.volume_coefficients,
                state.shift_prior,
                state.noise_variance,
                fresh,
                views,
            )
            # An empty patch tells nothing of rotations: all are as likely as before.
            uninformed = fresh.empty_mass * (
                1 / stage.n_rotations if views is None else views
            )
            state.rotation_mass = state.rotation_mass + fresh.rotation_mass - uninformed
            statistics = batches.combine(fresh)
            comparable = stage.step is None and len(chosen) == len(data)
            if comparable and _overshot(state, fresh):
                change, n_unseen = _step_back(state), 0
            else:
                # No iteration follows that could find out that it went too far.
                last = comparable and state.iteration + 1 == stage.n_iterations
                step = 1.0 if last or _fell(state, fresh) else stage.step
                change, n_unseen = _maximize(
                    operator, symmetric, state, statistics, step, settings
                )
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
                n_unseen=n_unseen,
            )
            state.history.append(row)
            yield row


def projections_as_seen(
    basis: VolumeBasis, n_rotations: int, data: Observations
) -> ProjectionOperator:
    """Projections in the rotations of the grid, as the data see them.

    Parameters
    ----------
    basis : VolumeBasis
        Basis of the volume.
    n_rotations : int
        K.
    data : Observations
        Data of a run.

    Returns
    -------
    ProjectionOperator
        Of each optics group of the data.
    """
    spreads = None if data.optics is None else data.optics.point_spreads
    return ProjectionOperator(basis, rotation_grid(n_rotations), spreads)


def _maximize(
    operator: ProjectionOperator,
    symmetric: NDArray[np.float64],
    state: RunState,
    statistics: Statistics,
    step: float | None,
    settings: Settings,
) -> tuple[float, int]:
    """M-step; the relative change of the volume, and what of it nothing was seen of."""
    before = state.volume_coefficients
    if _pixels_in_view(statistics) < _SMALLEST_SHARE:
        warn("no particle in the patches of an iteration; the volume stays as it was")
        state.em_step = np.zeros_like(before)
        return 0.0, symmetric.shape[1]
    equations = normal_equations(operator, statistics)
    matrix, right_side = restricted_equations(symmetric, *equations)
    n_unseen = n_unseen_coefficients(matrix)
    if n_unseen > 0:
        warn(
            f"nothing seen of {n_unseen} of {len(matrix)} dimensions of the volume; "
            "there it stays near zero. More rotations or patches, or a lower degree, "
            "would help"
        )
    weights = solve(matrix, right_side)
    norm = float(np.linalg.norm(weights))
    if not np.isfinite(norm):
        raise NumericalError("M-step", "a finite volume", f"one of norm {norm:g}")
    maximum = symmetric @ weights
    em_step = maximum - before
    if step is None:
        longest = _LONGEST_STEP[settings.model]
        step = _adapted_step(state, em_step, equations[0], longest)
    state.em_step, state.step = em_step, step
    state.volume_coefficients = before + step * em_step
    if not _prior_held(state, settings):
        state.shift_prior = _revived(shift_prior_table(statistics))
    if settings.views == "learned" and state.iteration >= _HELD_ITERATIONS:
        _learn_views(state, statistics, step)
    state.noise_variance = settings.noise_variance or _above_rounding(
        noise_variance(operator, maximum, statistics), state.noise_variance, statistics
    )
    return _relative_change(before, state.volume_coefficients), n_unseen


def _relative_change(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    norm = float(np.linalg.norm(after))
    return float(np.linalg.norm(after - before)) / norm if norm > 0 else 1.0


def _overshot(state: RunState, fresh: Statistics) -> bool:
    """Whether a step longer than EM's lowered the likelihood of the same patches."""
    if state.iteration == 0 or state.step <= 1:
        return False
    before = state.history[-1].log_likelihood_per_patch
    return fresh.log_likelihood / fresh.n_patches < before


def _step_back(state: RunState) -> float:
    """Go back to where the last step of EM itself ends; the volume's relative change.

    There the likelihood is at least what it was before that step, since the shift prior
    and the noise variance are those of EM whatever the length of the step.
    """
    before = state.volume_coefficients
    state.volume_coefficients = before - (state.step - 1) * state.em_step
    state.step = 1.0
    return _relative_change(before, state.volume_coefficients)


def _adapted_step(
    state: RunState,
    em_step: NDArray[np.float64],
    matrix: NDArray[np.float64],
    longest: float,
) -> float:
    """Longer if this step of EM agrees with the one before, shorter if it opposes it.

    Where much of the information is missing, steps of EM are short and follow each
    other; near the maximum those of minibatches overshoot and turn round. Agreement is
    the cosine of the angle between them in the metric of the matrix A.
    """
    steps = np.stack([state.em_step, em_step])
    with threadpool_limits(1):
        (last, between), (_, now) = steps @ matrix @ steps.T
    if last * now <= 0:
        return state.step
    agreement = between / np.sqrt(last * now)
    step = state.step * np.exp(_PACE * agreement)
    return float(np.clip(step, _SHORTEST_STEP, longest))


def rotation_prior(state: RunState, settings: Settings) -> NDArray[np.float64] | None:
    """Prior of the rotations of a run.

    Parameters
    ----------
    state : RunState
        Current state.
    settings : Settings
        Settings of the reconstruction.

    Returns
    -------
    float64, shape (K,), or None
        None is the uniform prior.
    """
    if settings.views == "uniform":
        return None
    prior = view_kernel(len(state.view_weights)) @ state.view_weights
    return np.asarray(prior / prior.sum())


def _learn_views(state: RunState, statistics: Statistics, step: float) -> None:
    """One step of EM for the weights of view directions: a mixture of known kernels.

    Only what is not empty has a view. A step of more than 1 is taken in the logarithm.
    """
    kernel = view_kernel(len(state.view_weights))
    prior = kernel @ state.view_weights
    odds = np.maximum(statistics.rotation_mass / prior - statistics.empty_mass, 0)
    weights = state.view_weights * (odds @ kernel) ** step
    state.view_weights = weights / weights.sum()


def _all_views(n_rotations: int) -> NDArray[np.float64]:
    """Weights of view directions that are all alike."""
    return np.full(n_rotations, 1 / n_rotations)


def _prior_held(state: RunState, settings: Settings) -> bool:
    """Whether it is too early to learn how often windows are empty.

    Whole particles of a random volume explain nothing, and the prior would soon say
    that there are none.
    """
    first = state.stage == 0 and state.iteration < _HELD_ITERATIONS
    return settings.model == "window" and first


def _pixels_in_view(statistics: Statistics) -> float:
    """Pixels of a particle that a patch shows, on average."""
    size = statistics.visible_weight.shape[1]
    offset = np.arange(size) - size // 2
    disc = np.add.outer(offset**2, offset**2) <= (size // 2) ** 2
    return float(statistics.visible_weight[:, disc].sum()) / statistics.n_patches


def _revived(shift_prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keep every shift possible where a single one has taken all probability.

    A probability of zero stays zero in EM, whatever the data say later.
    """
    size = len(shift_prior) // 2
    seen = np.delete(np.delete(shift_prior, size, 0), size, 1)
    if max(seen.max(), 1 - seen.sum()) < 1 - _SMALLEST_SHARE:
        return shift_prior
    warn("the shift prior collapsed onto one state; a little of all is mixed in")
    uniform = uniform_shift_prior(size, _FIRST_EMPTY_PROBABILITY)
    mixed: NDArray[np.float64] = 0.99 * shift_prior + 0.01 * uniform
    return mixed


def _above_rounding(variance: float, before: float, statistics: Statistics) -> float:
    """Noise variance, or the least that float32 correlations can tell from none."""
    n_pixels = statistics.n_patches * statistics.visible_weight[0].size
    power = max(statistics.patch_energy / n_pixels, before)
    least: float = _SMALLEST_SHARE * power
    if variance >= least:
        return variance
    warn(f"noise variance {variance:.3g} is lost in rounding; {least:.3g} is used")
    return least


def _fell(state: RunState, fresh: Statistics) -> bool:
    """Whether the likelihood is below that of the run's start, beyond all chance.

    Long steps can do that; a plain step of EM cannot but raise it again.
    """
    if not state.history:
        return False
    begun = state.history[0].log_likelihood_per_patch
    now = fresh.log_likelihood / fresh.n_patches
    spread = np.sqrt(fresh.visible_weight[0].size / fresh.n_patches)
    if now >= begun - _BEYOND_CHANCE * spread:
        return False
    warn(
        f"log-likelihood per patch fell to {now:.4f}, below {begun:.4f} at the start; "
        "a plain step of EM follows"
    )
    return True


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
    state.em_step = np.zeros_like(state.volume_coefficients)
    state.rotation_mass = np.zeros(following.n_rotations)
    if following.n_rotations != last.n_rotations:
        weights = view_kernel(following.n_rotations, last.n_rotations)
        state.view_weights = weights @ state.view_weights
    state.stage, state.iteration, state.minibatches = state.stage + 1, 0, {}
