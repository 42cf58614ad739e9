"""First states of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.observations.shift_prior import uniform_shift_prior
from numbasaem.random_streams import Stream, random_stream
from numbasaem.volume.basis import VolumeBasis
from numbasaem.volume.symmetry import invariant_volumes

from .state import RunState
from .view_prior import uniform_view_weights

if TYPE_CHECKING:
    from numbasaem.observations.protocol import Observations
    from numbasaem.settings import Settings

FIRST_EMPTY_PROBABILITY = 0.5
"""Probability that a patch is empty before any data are seen."""


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
    return RunState(
        volume_coefficients=volume,
        shift_prior=uniform_shift_prior(size, FIRST_EMPTY_PROBABILITY),
        noise_variance=variance,
        view_mass=np.zeros(views.n_views),
        view_weights=uniform_view_weights(views),
        generator=random_stream(settings.seed, Stream.MINIBATCHES, run),
        stage=0,
        iteration=0,
        step=1.0,
        em_step=np.zeros(basis.n_coefficients),
        last_move=np.zeros(basis.n_coefficients),
        mean_volume=volume,
        best=None,
        minibatches={},
        history=[],
    )
