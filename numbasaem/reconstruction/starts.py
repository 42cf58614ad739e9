"""First states of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numbasaem.autocorrelation.fit import fit_autocorrelations
from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.observations.shift_prior import uniform_shift_prior
from numbasaem.random_streams import Stream, random_stream
from numbasaem.volume.basis import VolumeBasis
from numbasaem.volume.symmetry import invariant_volumes

from .state import RunState
from .view_prior import uniform_view_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numbasaem.observations.protocol import Observations
    from numbasaem.settings import Settings

FIRST_EMPTY_PROBABILITY = 0.5
"""Probability that a patch is empty before any data are seen."""
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
        State in which the projections of the volume have as much power as the pixels;
        the noise variance, unless it is known, is that of the pixels.
    """
    size, first = settings.size, settings.schedule[0]
    variance = settings.noise_variance or data.variance
    generator = random_stream(settings.seed, Stream.START, run, start)
    basis = VolumeBasis(size, first.ell_max)
    volume = basis.expand(generator.standard_normal((size, size, size)))
    symmetric = invariant_volumes(basis, settings.symmetry)
    volume = symmetric @ (symmetric.T @ volume)
    views = ViewGrid(first.n_rotations)
    power = data.projections(basis, views).mean_power(volume)
    volume *= np.sqrt(variance / power)
    return _first_state(volume, FIRST_EMPTY_PROBABILITY, variance, settings, run)


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
        4 at most.

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
        data.autocorrelations(), basis, n_starts=settings.starts, seed=settings.seed
    )
    occupied = np.clip(fit.density * (2 * size - 1) ** 2, *_OCCUPIED)
    return _first_state(
        basis.lift(fit.volume_coefficients, first.ell_max),
        1 - float(occupied),
        settings.noise_variance or fit.noise_variance,
        settings,
        run,
    )


def _first_state(
    volume: NDArray[np.float64],
    empty_probability: float,
    noise_variance: float,
    settings: Settings,
    run: int,
) -> RunState:
    """State before the first iteration, with a volume of the first stage's degree."""
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
