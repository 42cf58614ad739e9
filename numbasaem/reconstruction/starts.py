"""First states of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numbasaem.autocorrelation.fit import fit_autocorrelations
from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.observations.models import observation_model
from numbasaem.observations.shift_prior import uniform_shift_prior
from numbasaem.random_streams import Stream, random_stream
from numbasaem.volume.basis import VolumeBasis
from numbasaem.volume.symmetry import invariant_volumes

from .state import RunState
from .view_prior import uniform_view_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numbasaem.autocorrelation.fit import AutocorrelationFit
    from numbasaem.observations.protocol import Observations
    from numbasaem.settings import Settings

FIRST_EMPTY_PROBABILITY = 0.5
"""Probability that a patch is empty where the data do not tell at first."""
_FITTED_DEGREE = 4
"""Highest degree that autocorrelations are asked for: seconds, not minutes."""
_OCCUPIED = (0.05, 0.95)
"""Least and most probability, at first, that a particle stands in a neighbourhood."""


def random_start(
    data: Observations, settings: Settings, run: int, start: int
) -> RunState:
    """First state of a run: independent Gaussian voxels.

    Parameters
    ----------
    data : Observations
        Data of the run.
    settings : Settings
        Settings of the reconstruction.
    run, start : int
        Number of the run and of the start. Each start has a volume of its own, but all
        starts of a run see the same minibatches, so that their likelihoods compare.

    Returns
    -------
    RunState
        State with a :func:`random_volume` and the density that explains the first two
        autocorrelations, if there is one. The noise variance, unless it is known, is
        that of the pixels: a random volume explains nothing of them yet.
    """
    volume = random_volume(data, settings, run, start)
    fit = observation_model(settings.model).first_fit(data)
    empty_probability = (
        FIRST_EMPTY_PROBABILITY
        if fit is None
        else _empty_probability(fit, settings.size)
    )
    variance = first_power(data, settings)
    return first_state(volume, empty_probability, variance, settings, run)


def random_volume(
    data: Observations, settings: Settings, run: int, start: int
) -> NDArray[np.float64]:
    """Volume of independent Gaussian voxels.

    Parameters
    ----------
    data, settings, run, start
        As in :func:`random_start`.

    Returns
    -------
    float64, shape (M,)
        Volume coefficients of the first stage, whose projections have as much power as
        the pixels.
    """
    size, first = settings.size, settings.schedule[0]
    generator = random_stream(settings.seed, Stream.START, run, start)
    basis = VolumeBasis(size, first.ell_max)
    volume = basis.expand(generator.standard_normal((size, size, size)))
    symmetric = invariant_volumes(basis, settings.symmetry)
    volume = symmetric @ (symmetric.T @ volume)
    return as_strong_as_pixels(volume, data, settings)


def as_strong_as_pixels(
    volume: NDArray[np.float64], data: Observations, settings: Settings
) -> NDArray[np.float64]:
    """Scale a first volume so that its projections have the power of the pixels.

    Parameters
    ----------
    volume : float64, shape (M,)
        Volume coefficients of the first stage's degree.
    data : Observations
        Data of the run.
    settings : Settings
        Settings of the reconstruction.

    Returns
    -------
    float64, shape (M,)
        The volume, scaled.
    """
    first = settings.schedule[0]
    basis = VolumeBasis(settings.size, first.ell_max)
    power = data.projections(basis, ViewGrid(first.n_rotations)).mean_power(volume)
    return np.asarray(volume * np.sqrt(first_power(data, settings) / power))


def first_power(data: Observations, settings: Settings) -> float:
    """Power of the pixels, which a first volume's projections are given.

    Parameters
    ----------
    data : Observations
        Data of the run.
    settings : Settings
        Settings of the reconstruction.

    Returns
    -------
    float
        Noise variance, if it is known; else the variance of the pixels.
    """
    return settings.noise_variance or data.variance


def moments_start(data: Observations, settings: Settings, run: int) -> RunState:
    """First state of a run: what explains the autocorrelations of its data.

    Parameters
    ----------
    data : Observations
        Data of the run.
    settings : Settings
        Settings of the reconstruction.
    run : int
        Number of the run.

    Returns
    -------
    RunState
        State with the volume, the density and the noise variance of the fit, of degree
        4 at most; particles may touch.

    Raises
    ------
    InputError
        If the data do not tell autocorrelations, or too few.

    Warns
    -----
    RunWarning
        If the fit has stalled.
    """
    size, first = settings.size, settings.schedule[0]
    basis = VolumeBasis(size, min(first.ell_max, _FITTED_DEGREE))
    fit = fit_autocorrelations(
        data.autocorrelations(),
        basis,
        n_starts=settings.starts,
        seed=settings.seed,
        surroundings=None,
    )
    return first_state(
        basis.lift(fit.volume_coefficients, first.ell_max),
        _empty_probability(fit, size),
        settings.noise_variance or fit.noise_variance,
        settings,
        run,
    )


def _empty_probability(fit: AutocorrelationFit, size: int) -> float:
    """Probability that a neighbourhood is empty, from the density of particles."""
    occupied = np.clip(fit.density * (2 * size - 1) ** 2, *_OCCUPIED)
    return 1 - float(occupied)


def first_state(
    volume: NDArray[np.float64],
    empty_probability: float,
    noise_variance: float,
    settings: Settings,
    run: int,
) -> RunState:
    """State before the first iteration.

    Parameters
    ----------
    volume : float64, shape (M,)
        Volume coefficients of the first stage's degree.
    empty_probability : float
        Probability that a neighbourhood is empty.
    noise_variance : float
        Variance of the noise.
    settings : Settings
        Settings of the reconstruction.
    run : int
        Number of the run.

    Returns
    -------
    RunState
        The state.
    """
    views = ViewGrid(settings.schedule[0].n_rotations)
    return RunState(
        volume_coefficients=volume,
        shift_prior=uniform_shift_prior(settings.size, empty_probability),
        noise_variance=noise_variance,
        view_mass=np.zeros(views.n_views),
        view_weights=uniform_view_weights(views),
        generator=random_stream(settings.seed, Stream.MINIBATCHES, run),
        stage=0,
        iteration=0,
        step=1.0,
        em_step=np.zeros_like(volume),
        last_move=np.zeros_like(volume),
        mean_volume=volume,
        best=None,
        minibatches={},
        history=[],
    )
