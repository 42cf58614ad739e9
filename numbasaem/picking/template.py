"""What the posterior needs to know of a particle whose map is at hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.errors import expected
from numbasaem.micrographs.ctf import seen_through
from numbasaem.observations.patch_expectation import expectation
from numbasaem.projection.operator import project
from numbasaem.reconstruction.checkpoint import load_checkpoint
from numbasaem.reconstruction.maximization import shift_prior_table, uniform_shift_prior
from numbasaem.settings import Settings
from numbasaem.volume.basis import VolumeBasis
from numbasaem.volume.rotations import rotation_grid

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from numbasaem.micrographs.ctf import PointSpread

_ELL_MAX = 10
_ROTATIONS = 552
_FITTED_PATCHES = 4096
_FITTING_ITERATIONS = 10
_LEAST_CONTRAST = 1e-3
_FAR_LIKELIER = 10.0
"""Difference of log-likelihoods that chance does not make."""


@dataclass(frozen=True)
class KnownParticle:
    """Projections of a particle and where, and in what noise, they are expected.

    Attributes
    ----------
    images : float64, shape (n_rotations, L, L)
        Projections, in the units of the micrographs.
    rotations : float64, shape (n_rotations, 3, 3)
        Rotation of each.
    shift_prior : float64, shape (2L, 2L)
        rho of equation (17).
    noise_variance : float
        sigma**2 of the micrographs' pixels.
    """

    images: NDArray[np.float64]
    rotations: NDArray[np.float64]
    shift_prior: NDArray[np.float64]
    noise_variance: float

    def seen_through(self, spread: PointSpread | None) -> KnownParticle:
        """Particle as a micrograph shows it.

        Parameters
        ----------
        spread : PointSpread or None
            Of the prepared micrograph; None changes nothing.

        Returns
        -------
        KnownParticle
            With other projections.
        """
        if spread is None:
            return self
        return replace(self, images=seen_through(self.images, spread.values))


def particle_of_run(folder: Path) -> tuple[KnownParticle, Settings]:
    """Take a particle from a reconstruction.

    Parameters
    ----------
    folder : Path
        Output folder of the reconstruction.

    Returns
    -------
    particle : KnownParticle
        Projections of the map in its last state.
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
    stage = settings.schedule[state.stage]
    basis = VolumeBasis(settings.size, stage.ell_max)
    rotations = rotation_grid(stage.n_rotations)
    particle = KnownParticle(
        images=project(basis, state.volume_coefficients, rotations),
        rotations=rotations,
        shift_prior=state.shift_prior,
        noise_variance=state.noise_variance,
    )
    return particle, settings


def particle_of_map(
    where: object, volume: ArrayLike, patches: NDArray[np.float32], seed: int = 0
) -> KnownParticle:
    """Take a particle from a map, and the rest from micrographs.

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
    KnownParticle
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
    rotations = rotation_grid(_ROTATIONS)
    images = project(basis, basis.expand(cube), rotations)
    if not images.any():
        raise expected(where, "a map with signal", "zeros")
    chosen = np.random.default_rng(seed).permutation(len(patches))[:_FITTED_PATCHES]
    (particle, likelihood), (_, of_negative) = (
        _fitted(sign * images, rotations, patches[chosen]) for sign in (1, -1)
    )
    if of_negative > likelihood + _FAR_LIKELIER:
        what = "a map as bright or dark as the particles; try the other `invert`"
        raise expected(where, what, "that its negative fits better")
    return particle


def _fitted(
    images: NDArray[np.float64],
    rotations: NDArray[np.float64],
    patches: NDArray[np.float32],
) -> tuple[KnownParticle, float]:
    """Fit contrast, shift prior and noise; also the log-likelihood they reach."""
    size = patches.shape[1]
    variance = float(np.var(patches, dtype=np.float64))
    images = images * np.sqrt(variance / np.mean(images**2))
    prior = uniform_shift_prior(size, 0.5)
    for _ in range(_FITTING_ITERATIONS):
        seen = expectation(patches, images, prior, variance)
        along = float(np.vdot(images, seen.weighted_patch))
        energy = float(np.vdot(images**2, seen.visible_weight))
        # Contrast does not change its sign on the way: the other one has its own fit.
        contrast = max(along / energy, _LEAST_CONTRAST) if energy > 0 else 1.0
        prior = shift_prior_table(seen)
        residual = seen.patch_energy - 2 * contrast * along + contrast**2 * energy
        variance = residual / (seen.n_patches * size**2)
        images = images * contrast
    return KnownParticle(images, rotations, prior, variance), seen.log_likelihood
