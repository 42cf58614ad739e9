"""The M-step on the state of a run: its length, and what keeps the numbers sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from numbasaem.errors import NumericalError, warn
from numbasaem.observations.exponents import least_noise_variance
from numbasaem.observations.models import observation_model
from numbasaem.observations.shift_prior import uniform_shift_prior, visible_shifts

from .maximization import noise_variance, shift_prior_table
from .normal_equations import NormalEquations, normal_equations
from .starts import FIRST_EMPTY_PROBABILITY
from .view_prior import learned_view_weights

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
"""Logarithm of the factor by which a step grows if it goes as the one before it."""
_SHORTEST_STEP = 0.3
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
        Length of the volume's step, 1 for EM; None adapts it.
    settings : Settings
        Settings of the reconstruction.

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
    if model.brightest is not None:
        trace, brightest = equations.trace, model.brightest
        precision = _prior_precision(trace, statistics, brightest, state)
        equations = equations.with_precision(np.full(before.size, precision))
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
    if step is None:
        step = _adapted_step(state, em_step, equations, model.longest_step)
    state.em_step, state.step = em_step, step
    state.volume_coefficients = before + step * em_step
    if state.stage > 0 or state.iteration >= model.held_iterations:
        state.shift_prior = _mix_in_uniform(shift_prior_table(statistics))
    if settings.views == "learned" and state.iteration >= _BLIND_ITERATIONS:
        state.view_weights = learned_view_weights(
            state, views, statistics, step, settings
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
    state.volume_coefficients = before - (state.step - 1) * state.em_step
    state.step = 1.0
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
    trace: float,
    statistics: Statistics,
    brightest: float,
    state: RunState,
) -> float:
    """Noise variance over the prior variance of each coefficient of the volume.

    Independent coefficients of that variance have projections of `brightest` times the
    power of the pixels, since the diagonal of A, which the trace sums up, is the energy
    of each, summed up over the particles.
    """
    energy = brightest * statistics.patch_energy / statistics.n_patches
    of_particles = max(statistics.particle_mass * energy, np.finfo(float).tiny)
    return float(state.noise_variance * trace / of_particles)


def _relative_change(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    norm = float(np.linalg.norm(after))
    return float(np.linalg.norm(after - before)) / norm if norm > 0 else 1.0


def _adapted_step(
    state: RunState,
    em_step: NDArray[np.float64],
    equations: NormalEquations,
    longest: float,
) -> float:
    """Lengthen the step if EM goes on in its direction, shorten it if EM turns round.

    Where much of the information is missing, the steps of EM are short and all in one
    direction; near the maximum those of minibatches overshoot and turn round. Measured
    is the cosine of the angle between this step of EM and the one before, in the metric
    of the matrix A.
    """
    steps = np.stack([state.em_step, em_step])
    with threadpool_limits(1):
        (last, between), (_, now) = equations.products(steps) @ steps.T
    if last * now <= 0:
        return state.step
    agreement = between / np.sqrt(last * now)
    step = state.step * np.exp(_PACE * agreement)
    return float(np.clip(step, _SHORTEST_STEP, longest))


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
