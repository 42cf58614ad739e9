"""Templates of a particle: its projections, and where and in what noise they lie."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numbasaem.errors import expected
from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.micrographs.preparation import preparation_of
from numbasaem.observations.hypotheses import Hypotheses
from numbasaem.observations.models import observation_model
from numbasaem.observations.patch_expectation import expectation
from numbasaem.observations.shift_prior import uniform_shift_prior, visible_shifts
from numbasaem.observations.window_positions import (
    LIKELY,
    Positions,
    peaks,
    position_posterior,
)
from numbasaem.projection.operator import ProjectionOperator
from numbasaem.projection.view_projections import ViewProjections
from numbasaem.reconstruction.checkpoint import load_checkpoint
from numbasaem.reconstruction.current_stage import basis_of, grid_of
from numbasaem.reconstruction.maximization import shift_prior_table
from numbasaem.reconstruction.view_prior import rotation_prior
from numbasaem.settings import Settings
from numbasaem.volume.basis import VolumeBasis

from .algorithm import likeliest_rotations, suppress_neighbours

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from numbasaem.micrographs.optics_groups import PointSpread


_ELL_MAX = 10
"""Degree to which a map is expanded."""
_N_ROTATIONS_OF_FIT = 552
"""Number of rotations in which a map is projected for the fit to patches."""
N_ROTATIONS = 2000
"""Number of rotations in which a map is sought.

At SNR 3.5, of picks of 0.9 and more, 0.97 were right with 552, as their probabilities
have it (0.999) with 2000.
"""
_MOST_PATCHES = 4096
"""Largest number of patches that contrast, prior and noise are fitted to."""
_N_ITERATIONS = 10
"""Number of iterations of that fit."""
_LEAST_CONTRAST = 1e-3
"""Smallest factor on the contrast in an iteration, so that its sign holds."""
_FAR_LIKELIER = 10.0
"""Difference of log-likelihoods that chance does not make."""


@dataclass(frozen=True)
class ParticleTemplate:
    """A particle and where, and in what noise, it is expected.

    Attributes
    ----------
    basis : VolumeBasis
        Basis of the volume, side L.
    volume_coefficients : float64, shape (M,)
        The particle, in the units of the micrographs.
    views : ViewGrid
        Rotations in which it is sought, K of them.
    shift_prior : float64, shape (2L, 2L)
        rho of equation (17); its probability of empty is that of a neighbourhood.
    noise_variance : float
        sigma**2 of the micrographs' pixels.
    rotation_prior : float64, shape (K,), or None
        Probability of each rotation; None is the uniform prior.
    least_distance : float or None
        Smallest distance of particles' centres along the axis where it is larger,
        prepared pixels; None is L / 2. With L, particles that touch are lost: of such
        ones, simulated at SNR 0.5, 0.37 were found in place of 0.79; of separated
        ones as many.
    point_spread : float64, shape (2L - 1, 2L - 1), or None
        What the micrograph shows of a point; None is a point.
    prior_reach : int or None
        Distance to which the neighbourhoods of `shift_prior` reach; None is L, to which
        those of patches do.
    """

    basis: VolumeBasis
    volume_coefficients: NDArray[np.float64]
    views: ViewGrid
    shift_prior: NDArray[np.float64]
    noise_variance: float
    rotation_prior: NDArray[np.float64] | None = None
    least_distance: float | None = None
    point_spread: NDArray[np.float64] | None = None
    prior_reach: int | None = None

    @property
    def _distance(self) -> float:
        return self.least_distance or self.basis.size / 2

    @cached_property
    def images(self) -> NDArray[np.float64]:
        """Projections as the micrograph shows them, float64 of shape (K, L, L)."""
        operator = ProjectionOperator(self.basis, self.views.rotations, self._spreads)
        return operator.project(self.volume_coefficients)

    @cached_property
    def _projections(self) -> ViewProjections:
        return ViewProjections(self.basis, self.views, self._spreads)

    @property
    def _spreads(self) -> NDArray[np.float64] | None:
        return None if self.point_spread is None else self.point_spread[np.newaxis]

    def probability_map(
        self,
        pixels: NDArray[np.float32],
        excluded: NDArray[np.bool_] | None = None,
        threads: int | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> NDArray[np.float32]:
        """Probability that a particle's centre is at each pixel of a micrograph.

        Parameters
        ----------
        pixels : float32, shape (rows, columns)
            Prepared micrograph.
        excluded : bool, shape (rows, columns), optional
            Pixels that no particle's box may hold.
        threads : int, optional
            Threads to run on; all that Numba may use if left out.
        on_progress : callable, optional
            Called with the share that is done.

        Returns
        -------
        float32, shape (rows, columns)
            Posterior of the window model; too high a one for particles that the edge
            cuts, see :func:`position_posterior`.

        Raises
        ------
        InputError
            If the micrograph is too small.
        """
        reach = max(1, ceil(self._distance))
        hypotheses = Hypotheses(
            self._projections,
            self.volume_coefficients,
            _prior_of(reach, self.shift_prior, self.prior_reach or self.basis.size),
            self.noise_variance,
            self.rotation_prior,
        )
        return position_posterior(
            pixels, hypotheses, reach, excluded, threads, on_progress
        )

    def positions(
        self, probability_map: NDArray[np.float32], least: float = LIKELY
    ) -> Positions:
        """Particles that a map of probabilities shows.

        Parameters
        ----------
        probability_map : float32, shape (rows, columns)
            Of :meth:`probability_map`.
        least : float
            Probability that a particle must exceed.

        Returns
        -------
        Positions
            One for each particle, the surest first; of those closer than
            `least_distance`, or half a box, the surest stands for all.
        """
        candidates = peaks(probability_map, least)
        centres, probability = candidates.centres, candidates.probability
        kept = suppress_neighbours(centres, probability, self._distance)
        return Positions(centres[kept], probability[kept])

    def likeliest_rotations(
        self, pixels: NDArray[np.float32], centres: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Rotation in which the particle most probably is at each place.

        Parameters
        ----------
        pixels : float32, shape (rows, columns)
            Prepared micrograph.
        centres : float64, shape (n_particles, 2)
            (y, x) in pixels of the pixel at index L // 2 of each particle's box.

        Returns
        -------
        float64, shape (n_particles, 3, 3)
            Rotation matrices.
        """
        numbers = likeliest_rotations(
            pixels, centres, self.images, self.noise_variance, self.rotation_prior
        )
        return self.views.rotations[numbers]

    def seen_through(self, spread: PointSpread | None) -> ParticleTemplate:
        """Template of the particle as a micrograph shows it.

        Parameters
        ----------
        spread : PointSpread or None
            Of the prepared micrograph; None changes nothing.

        Returns
        -------
        ParticleTemplate
            With other projections.
        """
        if spread is None:
            return self
        return replace(self, point_spread=spread.values)


def template_of_run(folder: Path) -> tuple[ParticleTemplate, Settings]:
    """Make a template from a reconstruction.

    Parameters
    ----------
    folder : Path
        Output folder of the reconstruction.

    Returns
    -------
    template : ParticleTemplate
        Projections of the map in its last state, and what else the run found.
    settings : Settings
        What the reconstruction was made with.

    Raises
    ------
    InputError
        If the folder holds no readable run that has begun.
    """
    description, runs = load_checkpoint(folder / "run.h5")
    settings = Settings(**description["settings"])
    if "full" not in runs:
        raise expected(folder, "a run past the search among starts", "none yet")
    state = runs["full"]
    views = grid_of(state, settings)
    least_distance = _least_distance(settings, description["sources"][0])
    keeps_distance = observation_model(settings.model).keeps_distance
    template = ParticleTemplate(
        basis=basis_of(state, settings),
        volume_coefficients=state.volume_coefficients,
        views=views,
        shift_prior=state.shift_prior,
        noise_variance=state.noise_variance,
        rotation_prior=rotation_prior(state, views, settings),
        least_distance=least_distance,
        prior_reach=ceil(least_distance) if keeps_distance and least_distance else None,
    )
    return template, settings


def _least_distance(settings: Settings, source: Mapping[str, Any]) -> float | None:
    """Smallest distance of a run's particles, prepared pixels; None if not told."""
    of_source = source.get("pixel_size") or settings.pixel_size
    pixel_size = preparation_of(settings).pixel_size or of_source
    if settings.least_distance is None or pixel_size is None:
        return None
    return settings.least_distance / pixel_size


def _prior_of(
    reach: int, shift_prior: NDArray[np.float64], prior_reach: int
) -> NDArray[np.float64]:
    """Prior of neighbourhoods of another reach that particles fill as densely."""
    wider = ((2 * reach - 1) / (2 * prior_reach - 1)) ** 2
    occupied = min(1.0, wider * float(visible_shifts(shift_prior).sum()))
    return uniform_shift_prior(len(shift_prior) // 2, 1 - occupied)


def template_of_map(
    where: object, volume: ArrayLike, patches: NDArray[np.float32], seed: int = 0
) -> ParticleTemplate:
    """Make a template from a map, and fit the rest to patches of micrographs.

    Parameters
    ----------
    where : path-like
        The map, as errors name it.
    volume : array, shape (L, L, L)
        Map, in any units.
    patches : float32, shape (n_patches, L, L)
        Patches of the micrographs.
    seed : int
        Chooses the patches that are used, if there are many.

    Returns
    -------
    ParticleTemplate
        Contrast, shift prior and noise variance are those of highest likelihood,
        after a few iterations of EM over these alone.

    Raises
    ------
    InputError
        If the map is not a finite cube or has no signal, or its negative is far
        likelier.
    """
    cube = np.asarray(volume, dtype=np.float64)
    basis = VolumeBasis(len(cube), _ELL_MAX)
    volume_coefficients = basis.expand(cube)
    if not volume_coefficients.any():
        raise expected(where, "a map with signal", "zeros")
    rotations = ViewGrid(_N_ROTATIONS_OF_FIT).rotations
    images = ProjectionOperator(basis, rotations).project(volume_coefficients)
    chosen = np.random.default_rng(seed).permutation(len(patches))[:_MOST_PATCHES]
    fit, fit_of_negative = (_fitted(sign * images, patches[chosen]) for sign in (1, -1))
    if fit_of_negative.log_likelihood > fit.log_likelihood + _FAR_LIKELIER:
        wanted = "a map as bright or dark as the particles; try the other `invert`"
        raise expected(where, wanted, "that its negative fits better")
    return ParticleTemplate(
        basis=basis,
        volume_coefficients=fit.contrast * volume_coefficients,
        views=ViewGrid(N_ROTATIONS),
        shift_prior=fit.shift_prior,
        noise_variance=fit.noise_variance,
    )


class _Fit(NamedTuple):
    """Contrast, prior and noise of highest likelihood."""

    contrast: float
    shift_prior: NDArray[np.float64]
    noise_variance: float
    log_likelihood: float


def _fitted(images: NDArray[np.float64], patches: NDArray[np.float32]) -> _Fit:
    """Fit contrast, shift prior and noise to patches."""
    size = patches.shape[1]
    variance = float(np.var(patches, dtype=np.float64))
    contrast = float(np.sqrt(variance / np.mean(images**2)))
    prior = uniform_shift_prior(size, 0.5)
    for _ in range(_N_ITERATIONS):
        seen = contrast * images
        statistics = expectation(patches, seen, prior, variance)
        along = float(np.vdot(seen, statistics.weighted_patch))
        energy = float(np.vdot(seen**2, statistics.visible_weight))
        # Contrast does not change its sign on the way: the other one has its own fit.
        factor = max(along / energy, _LEAST_CONTRAST) if energy > 0 else 1.0
        prior = shift_prior_table(statistics)
        residual = statistics.patch_energy - 2 * factor * along + factor**2 * energy
        variance = residual / (statistics.n_patches * size**2)
        contrast *= factor
    return _Fit(contrast, prior, variance, statistics.log_likelihood)
