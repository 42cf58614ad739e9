"""What a search with the true map finds in a simulated micrograph."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.io.mrc import read_micrographs, read_volume
from numbasaem.io.relion import COORDINATES, read_particles
from numbasaem.observations.shift_prior import uniform_shift_prior
from numbasaem.picking.scores import Match, match_of, right_picks
from numbasaem.picking.template import N_ROTATIONS, ParticleTemplate
from numbasaem.volume.basis import VolumeBasis

from .files import RECORD

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE = 0.25
"""Largest distance of a right pick from a particle, in boxes."""
_MICROGRAPH = "micrograph_0001.mrc"
"""Name of the micrograph that is searched."""
_CORNER_BOXES = 30
"""Side of the corner that is searched, in boxes: searching it takes a second."""
_FULLEST = 0.9
"""Largest probability of a particle among the places of a box and its neighbours."""


@dataclass(frozen=True)
class TrueMapSearch:
    """Picks in a corner of a micrograph, as many as there are particles.

    Attributes
    ----------
    size : int
        Side of a particle's box, pixels.
    pixels : float32, shape (rows, columns)
        The corner, from the micrograph's first pixel on.
    particles : float64, shape (n_particles, 2)
        Centres (y, x) of the particles, pixels.
    picks : float64, shape (n_picks, 2)
        Centres of the likeliest places, at most as many as there are particles.
    right : bool, shape (n_picks,)
        Whether each is within the tolerance of a particle of its own.
    chance : float
        Share of the corner that lies so near to a particle: the share of picks at
        random places that would be right.
    """

    size: int
    pixels: NDArray[np.float32]
    particles: NDArray[np.float64]
    picks: NDArray[np.float64]
    right: NDArray[np.bool_]
    chance: float

    @property
    def match(self) -> Match:
        """Recall and precision of the picks."""
        return match_of(self.right, len(self.particles))

    @property
    def missed(self) -> NDArray[np.float64]:
        """Centres of particles that no pick is near to, float64 of shape (n, 2)."""
        if len(self.picks) == 0:
            return self.particles
        distance, _ = cKDTree(self.picks).query(self.particles)
        return self.particles[distance > TOLERANCE * self.size]


def search_with_true_map(data: Path) -> TrueMapSearch:
    """Search a corner of a simulation's first micrograph for the true molecule.

    The search is told the map, its contrast, the noise variance and how many particles
    there are.

    Parameters
    ----------
    data : pathlib.Path
        Folder of a simulation of white noise without a lens, as
        :func:`numbasaem.simulation.files.simulate_to_folder` writes it.

    Returns
    -------
    TrueMapSearch
        Picks, and which of them are right.
    """
    micrographs, _ = read_micrographs(data / _MICROGRAPH)
    template = _true_template(data)
    size = template.basis.size
    side = _CORNER_BOXES * size
    # One box more: particles that the corner's edge cuts are seen whole.
    searched = micrographs[0][: side + size, : side + size]
    probability_map = template.probability_map(searched)[:side, :side]
    pixels = searched[:side, :side]
    particles = _particles_within(data, pixels.shape)
    likeliest = template.positions(probability_map, least=0.0)
    picks = likeliest.centres[: len(particles)]
    tolerance = TOLERANCE * size
    return TrueMapSearch(
        size=size,
        pixels=pixels,
        particles=particles,
        picks=picks,
        right=right_picks(picks, particles, tolerance),
        chance=_share_near(particles, pixels.shape, tolerance),
    )


def _true_template(data: Path) -> ParticleTemplate:
    """Template of the true map in the noise and at the density of a simulation."""
    record = json.loads((data / RECORD).read_text("utf-8"))
    settings = record["settings"]
    volume, _ = read_volume(data / "volume_true.mrc")
    size = len(volume)
    basis = VolumeBasis(size, settings["ell_max"])
    per_pixel = record["placed"][0] / settings["pixels"] ** 2
    occupied = min(_FULLEST, per_pixel * (2 * size - 1) ** 2)
    return ParticleTemplate(
        basis=basis,
        volume_coefficients=basis.expand(volume.astype(np.float64)),
        views=ViewGrid(N_ROTATIONS),
        shift_prior=uniform_shift_prior(size, 1 - occupied),
        noise_variance=record["noise_variance"],
        least_distance=size,
    )


def _particles_within(data: Path, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Centres (y, x) of the first micrograph's particles in its first pixels."""
    table = read_particles(data / "truth.star").particles
    here = table[table["rlnMicrographName"] == _MICROGRAPH]
    x, y = (here[column].to_numpy(np.float64) for column in COORDINATES)
    centres = np.stack([y, x], axis=1)
    return centres[(centres < shape).all(axis=1)]


def _share_near(
    particles: NDArray[np.float64], shape: tuple[int, ...], tolerance: float
) -> float:
    """Share of pixels that are within a distance of a particle."""
    if len(particles) == 0:
        return 0.0
    pixels = np.indices(shape).reshape(2, -1).T
    distance, _ = cKDTree(particles).query(pixels)
    return float(np.mean(distance <= tolerance))
