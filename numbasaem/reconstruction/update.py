"""The M-step on the state of a run: its length, and what keeps the numbers sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from numbasaem.errors import NumericalError, warn
from numbasaem.observations.exponents import least_noise_variance
from numbasaem.observations.models import observation_model
from numbasaem.observations.shift_prior import uniform_shift_prior, visible_shifts
from numbasaem.volume.basis import VolumeBasis
from numbasaem.volume.centring import centred

from .current_stage import basis_of
from .maximization import noise_variance, shift_prior_table
from .normal_equations import NormalEquations, normal_equations
from .starts import FIRST_EMPTY_PROBABILITY
from .view_prior import learned_view_weights
from .volume_prior import (
    half_volumes,
    shells_of_frequency,
    tau_precision,
    wide_precision,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numbasaem.geometry.view_grid import ViewGrid
    from numbasaem.observations.statistics import Statistics
    from numbasaem.projection.operator import ProjectionOperator
    from numbasaem.projection.view_projections import ViewProjections
    from numbasaem.settings import Settings

    from .state import RunState

_BLIND_ITERATIONS = 5
"""Number of first iterations of a stage in which view directions are not learned: the
volume is too poor to tell them."""
_SMALLEST_SHARE = 1e-6
"""Smallest share that float32 sums can tell from zero."""
_PACE = 0.5
"""Logarithm of the factor by which the pace grows if EM goes as the volume moves."""
_SLOWEST = 0.3
_LONGEST_OF_VIEWS = 8.0
"""Longest step, in units of EM's, of the weights of views."""
_BRIGHTEST = 10.0
"""Power of the projections of half volumes over that of the pixels, if not stated."""
_BEYOND_CHANCE = 10.0
"""Number of standard deviations that a mean log-likelihood does not fall by chance."""


class Update(NamedTuple):
    """Change of the volume in an iteration.

    Attributes
    ----------
    change : float
        Relative change of the volume's coefficients.
    n_unconstrained : int
        Number of dimensions of the volume that no patch of the iteration constrains.
    """

    change: float
    n_unconstrained: int


def maximize(
    operator: ProjectionOperator | ViewProjections,
    symmetric: NDArray[np.float64],
    state: RunState,
    views: ViewGrid,
    statistics: Statistics,
    step: float | None,
    settings: Settings,
    halves: tuple[Statistics, Statistics] | None = None,
) -> Update:
    """M-step: new volume, shift prior, view weights and noise variance.

    Parameters
    ----------
    operator : ProjectionOperator or ViewProjections
        Projections in the rotations that the statistics refer to.
    symmetric : float64, shape (M, n)
        Volumes whose combinations have the symmetry of the run.
    state : RunState
        In/out: state of the run.
    views : ViewGrid
        Those rotations.
    statistics : Statistics
        Statistics of the patches.
    step : float or None
        Length of the volume's step, 1 for EM; None adapts its pace.
    settings : Settings
        Settings of the reconstruction.
    halves : tuple of two Statistics, optional
        Statistics of two halves of the patches, for a prior that goes by them.

    Returns
    -------
    Update
        Change of the volume.

    Raises
    ------
    NumericalError
        If the numbers overflow; the state is not to be used then.

    Warns
    -----
    RunWarning
        If the statistics hold no particle or say nothing of some part of the volume, if
        the shift prior collapsed, or if the noise is lost in rounding.
    """
    before = state.volume_coefficients
    if statistics.pixels_in_view < _SMALLEST_SHARE:
        warn("no particle in the patches of an iteration; the volume stays as it was")
        state.em_step = np.zeros_like(before)
        return Update(0.0, symmetric.shape[1])
    model = observation_model(settings.model)
    equations = normal_equations(operator, statistics)
    precision = _prior_precision(
        operator, symmetric, state, statistics, halves, equations.trace, settings
    )
    if precision is not None:
        equations = equations.with_precision(precision)
    of_symmetric = equations.restricted(symmetric)
    n_unconstrained = of_symmetric.n_unconstrained()
    if n_unconstrained > 0:
        warn(
            f"nothing seen of {n_unconstrained} of {symmetric.shape[1]} dimensions of "
            "the volume; there it stays near zero. More rotations or patches, or a "
            "lower degree, would help"
        )
    weights = of_symmetric.solve()
    norm = float(np.linalg.norm(weights))
    if not np.isfinite(norm):
        raise NumericalError("M-step", "a finite volume", f"one of norm {norm:g}")
    maximum = symmetric @ weights
    em_step = maximum - before
    move = em_step if step is None else step * em_step
    if step is None:
        step = _adapted_pace(state, em_step, equations, model.fastest)
        move = min(step, 1.0) * em_step + max(0.0, 1 - 1 / step) * state.last_move
    state.em_step, state.last_move, state.step = em_step, move, step
    state.volume_coefficients = before + move
    if model.keeps_centre:
        _bring_to_centre(basis_of(state, settings), state)
    if state.stage > 0 or state.iteration >= model.held_iterations:
        state.shift_prior = _mix_in_uniform(shift_prior_table(statistics))
    if settings.views == "learned" and state.iteration >= _BLIND_ITERATIONS:
        state.view_weights = learned_view_weights(
            state, views, statistics, min(step, _LONGEST_OF_VIEWS), settings
        )
    state.noise_variance = settings.noise_variance or _floor_noise_variance(
        noise_variance(operator, maximum, statistics), state.noise_variance, statistics
    )
    change = _relative_change(before, state.volume_coefficients)
    return Update(change, n_unconstrained)


def overshot(state: RunState, statistics: Statistics) -> bool:
    """Whether the last step, longer than EM's, lowered the likelihood.

    Parameters
    ----------
    state : RunState
        State after the step.
    statistics : Statistics
        Statistics, under that state, of the same patches as in the iteration before.

    Returns
    -------
    bool
        True if the step is to be taken back.
    """
    if state.iteration == 0 or state.step <= 1:
        return False
    before = state.history[-1].log_likelihood_per_patch
    return statistics.log_likelihood / statistics.n_patches < before


def step_back(state: RunState) -> Update:
    """Shorten the last step to that of EM.

    The likelihood is then at least what it was before the step, since the shift prior
    and the noise variance are those of EM whatever the length of the step.

    Parameters
    ----------
    state : RunState
        In/out: state after the longer step.

    Returns
    -------
    Update
        Change of the volume.
    """
    before = state.volume_coefficients
    state.volume_coefficients = before - state.last_move + state.em_step
    state.last_move, state.step = state.em_step, 1.0
    return Update(_relative_change(before, state.volume_coefficients), 0)


def likelihood_fell(state: RunState, statistics: Statistics) -> bool:
    """Whether the likelihood is below that of the run's start, beyond all chance.

    Long steps can do that; a plain step of EM then raises it again.

    Parameters
    ----------
    state : RunState
        State of the run.
    statistics : Statistics
        Statistics of the iteration's patches, under that state.

    Returns
    -------
    bool
        True if a plain step is to follow.

    Warns
    -----
    RunWarning
        If it is.
    """
    if not state.history:
        return False
    begun = state.history[0].log_likelihood_per_patch
    now = statistics.log_likelihood / statistics.n_patches
    spread = np.sqrt(statistics.size**2 / statistics.n_patches)
    if now >= begun - _BEYOND_CHANCE * spread:
        return False
    warn(
        f"log-likelihood per patch fell to {now:.4f}, below {begun:.4f} at the start; "
        "a plain step of EM follows"
    )
    return True


def _prior_precision(
    operator: ProjectionOperator | ViewProjections,
    symmetric: NDArray[np.float64],
    state: RunState,
    statistics: Statistics,
    halves: tuple[Statistics, Statistics] | None,
    trace: float,
    settings: Settings,
) -> NDArray[np.float64] | None:
    """Noise variance over the prior variance of each coefficient of the volume."""
    model, variance = observation_model(settings.model), state.noise_variance
    precision = None
    if model.brightest is not None:
        wide = wide_precision(trace, statistics, model.brightest, variance)
        precision = np.full(len(symmetric), wide)
    if halves is not None:
        brightest = model.brightest or _BRIGHTEST
        volumes = half_volumes(operator, symmetric, halves, brightest, variance)
        shells = shells_of_frequency(basis_of(state, settings))
        if settings.prior_or_default == "wilson":
            shells = np.zeros_like(shells)
        by_shell = tau_precision(*volumes, shells, variance)
        precision = by_shell if precision is None else np.maximum(precision, by_shell)
    return precision


def _relative_change(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    norm = float(np.linalg.norm(after))
    return float(np.linalg.norm(after - before)) / norm if norm > 0 else 1.0


def _bring_to_centre(basis: VolumeBasis, state: RunState) -> None:
    """Bring the volume to the middle of the box, at rest."""
    away = state.volume_coefficients
    state.volume_coefficients = centred(basis, away)
    if state.volume_coefficients is not away:
        state.mean_volume = state.volume_coefficients
        state.em_step = state.last_move = np.zeros_like(away)
        state.step = 1.0


def _adapted_pace(
    state: RunState,
    em_step: NDArray[np.float64],
    equations: NormalEquations,
    fastest: float,
) -> float:
    """Pace of the volume: faster if EM goes on as the volume moves, else slower.

    Where much of the information is missing, the steps of EM are short and all in one
    direction; near the maximum those of minibatches turn round. Measured is the cosine
    of the angle between this step of EM and the last move, in the metric of the matrix
    A. A pace above 1 is momentum: steps that all agree come to that many of EM's, yet a
    direction of which nothing is missing stays stable, as it would not with steps of
    twice the length.
    """
    steps = np.stack([state.last_move, em_step])
    with threadpool_limits(1):
        (last, between), (_, now) = equations.products(steps) @ steps.T
    if last * now <= 0:
        return state.step
    agreement = between / np.sqrt(last * now)
    step = state.step * np.exp(_PACE * agreement)
    return float(np.clip(step, _SLOWEST, fastest))


def _mix_in_uniform(shift_prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keep every shift possible where a single one has taken all probability.

    A probability of zero stays zero in EM, whatever the data say later.
    """
    visible = visible_shifts(shift_prior)
    if max(visible.max(), 1 - visible.sum()) < 1 - _SMALLEST_SHARE:
        return shift_prior
    warn("the shift prior collapsed onto one state; a little of all is mixed in")
    uniform = uniform_shift_prior(len(shift_prior) // 2, FIRST_EMPTY_PROBABILITY)
    mixed: NDArray[np.float64] = 0.99 * shift_prior + 0.01 * uniform
    return mixed


def _floor_noise_variance(
    variance: float, before: float, statistics: Statistics
) -> float:
    """Noise variance, or the least for which float32 log-weights are exact."""
    power = max(statistics.patch_energy / statistics.n_pixels, before)
    least = least_noise_variance(power * statistics.size**2)
    if variance >= least:
        return variance
    warn(f"noise variance {variance:.3g} is lost in rounding; {least:.3g} is used")
    return least
