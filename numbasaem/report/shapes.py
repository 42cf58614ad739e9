"""Surfaces, tables and curves that both the page and the printed figures draw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage
from scipy.interpolate import CubicSpline
from skimage.measure import marching_cubes

from numbasaem.geometry.grids import distances
from numbasaem.volume.threshold import otsu_threshold

from .style import RUN_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from numbasaem.reconstruction.state import RunState

_FINE_VOXELS = 40
"""Number of voxels a side from which a surface looks smooth."""
_VIEW_WIDTH = np.radians(15.0)
"""Angle within which views are drawn as one: rotations are about as far apart."""


class Mesh(NamedTuple):
    """A surface of triangles.

    Attributes
    ----------
    corners : float32, shape (n_corners, 3)
        Places (x, y, z) from the centre of the map, angstrom.
    normals : float32, shape (n_corners, 3)
        Unit vectors that point out of the density.
    triangles : int32, shape (n_triangles, 3)
        Numbers of the corners.
    """

    corners: NDArray[np.float32]
    normals: NDArray[np.float32]
    triangles: NDArray[np.int32]


@dataclass(frozen=True)
class FineMap:
    """A map interpolated between its voxels by splines, to be looked at.

    Attributes
    ----------
    values : float64, shape (n, n, n)
        Samples, indexed [z, y, x]; the first and last are those of the map.
    axis : float64, shape (n,)
        Place of the samples along each axis from the map's centre, angstrom.
    radius : float
        Radius of the ball that holds the particle, angstrom; beyond it nothing is
        known.
    """

    values: NDArray[np.float64]
    axis: NDArray[np.float64]
    radius: float

    @classmethod
    def of(cls, volume: NDArray[np.float64], pixel_size: float) -> FineMap:
        """Interpolate a map.

        Parameters
        ----------
        volume : float64, shape (L, L, L)
            The map.
        pixel_size : float
            Angstrom per voxel.

        Returns
        -------
        FineMap
            Map of about forty samples a side, or more.
        """
        size = len(volume)
        steps = -(-_FINE_VOXELS // (size - 1))
        n = (size - 1) * steps + 1
        values = ndimage.zoom(volume, n / size, order=5, mode="nearest")
        axis = (np.arange(n) / steps - size // 2) * pixel_size
        return cls(values, axis, size // 2 * pixel_size)

    @property
    def distance(self) -> NDArray[np.float64]:
        """Distance of the samples from the centre, angstrom."""
        return distances(self.axis)

    @property
    def in_ball(self) -> NDArray[np.bool_]:
        """Whether each sample lies within the ball."""
        return self.distance <= self.radius

    @property
    def contour(self) -> float:
        """Level that best tells the molecule from what surrounds it: Otsu's."""
        return otsu_threshold(self.values[self.in_ball])

    def surface(self, level: float) -> Mesh:
        """Surface of a level within the ball.

        Parameters
        ----------
        level : float
            Density.

        Returns
        -------
        Mesh
            Surface, without triangles if the level is not reached.
        """
        step = self.axis[1] - self.axis[0]
        lowest = self.values[self.in_ball].min()
        faded = self._faded(self.values, self.distance)
        faded = np.pad(faded, 1, constant_values=min(level, lowest) - 1.0)
        if not faded.min() < level < faded.max():
            nothing = np.empty((0, 3), np.float32)
            return Mesh(nothing, nothing, np.empty((0, 3), np.int32))
        corners, triangles, normals, _ = marching_cubes(faded, level)
        place = (corners - 1) * step + self.axis[0]
        return Mesh(
            place[:, ::-1].astype(np.float32),
            normals[:, ::-1].astype(np.float32),
            triangles.astype(np.int32),
        )

    def resampled(
        self, x: NDArray[np.float64], y: NDArray[np.float64], z: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Interpolate the map on another grid, on which it fades outside the ball.

        Parameters
        ----------
        x, y, z : float64, shapes (n_x,), (n_y,) and (n_z,)
            Places from the map's centre, angstrom.

        Returns
        -------
        float64, shape (n_z, n_y, n_x)
            Samples.
        """
        interpolant = CubicSpline(self.axis, np.eye(len(self.axis)))
        of_z, of_y, of_x = (
            interpolant(places.clip(self.axis[0], self.axis[-1]))
            for places in (z, y, x)
        )
        values = np.einsum(
            "zk,yj,xi,kji->zyx", of_z, of_y, of_x, self.values, optimize=True
        )
        z2, y2, x2 = np.ix_(z**2, y**2, x**2)
        distance = np.sqrt(z2 + y2 + x2)
        return self._faded(values, distance)

    def _faded(
        self, values: NDArray[np.float64], distance: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Let densities fade outside the ball: surfaces close without a cut face."""
        beyond = np.maximum(distance - self.radius, 0.0)
        scale = self.radius / (len(self.axis) / 8)
        lowest = self.values[self.in_ball].min()
        faded: NDArray[np.float64] = lowest + (values - lowest) * np.exp(
            -beyond / scale
        )
        return faded

    def slices(self) -> dict[str, NDArray[np.float64]]:
        """Planes through the centre, by the axes that run right and up."""
        centre = int(np.argmin(np.abs(self.axis)))
        return {
            "xy": self.values[centre],
            "xz": self.values[:, centre],
            "yz": self.values[:, :, centre],
        }


def frame(meshes: Iterable[Mesh]) -> tuple[NDArray[np.float64], float]:
    """Find the cube that surfaces fill.

    Parameters
    ----------
    meshes : iterable of Mesh
        Surfaces to be seen together.

    Returns
    -------
    middle : float64, shape (3,)
        Centre of the cube, (x, y, z), angstrom.
    reach : float
        Distance from the centre to the faces, angstrom.
    """
    corners = np.concatenate([np.zeros((0, 3)), *(mesh.corners for mesh in meshes)])
    if len(corners) == 0:
        return np.zeros(3), 1.0
    low, high = corners.min(axis=0), corners.max(axis=0)
    return (low + high) / 2, float((high - low).max()) * 0.55


def view_density(
    directions: NDArray[np.float64],
    mass: NDArray[np.float64],
    towards: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Frequency of views, relative to the mean over all directions.

    Parameters
    ----------
    directions : float64, shape (K, 3)
        View directions, unit vectors.
    mass : float64, shape (K,)
        Number of particles seen from each.
    towards : float64, shape (..., 3)
        Directions to compute the density for, unit vectors.

    Returns
    -------
    float64, shape (...)
        Density: 1 everywhere if all directions are equally frequent, 0 if no particle
        is seen.
    """
    kernel = np.exp((towards @ directions.T - 1) / _VIEW_WIDTH**2)
    mean = mass.mean() or 1.0
    density: NDArray[np.float64] = (kernel @ mass) / (kernel.sum(axis=-1) * mean)
    return density


def sphere(
    longitude: NDArray[np.float64], latitude: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Unit vectors (x, y, z) on a grid of latitudes and longitudes, radians.

    Parameters
    ----------
    longitude, latitude : float64, shapes (m,) and (n,)
        Angles.

    Returns
    -------
    float64, shape (n, m, 3)
        Directions.
    """
    ring, height = np.cos(latitude)[:, np.newaxis], np.sin(latitude)[:, np.newaxis]
    parts = (ring * np.cos(longitude), ring * np.sin(longitude))
    return np.stack([*parts, np.broadcast_to(height, parts[0].shape)], axis=-1)


def displacement_table(shift_prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of each place of a particle's box relative to a patch.

    Parameters
    ----------
    shift_prior : float64, shape (2L, 2L)
        rho of equation (17).

    Returns
    -------
    float64, shape (2L - 1, 2L - 1)
        Probability of displacements -(L - 1)..L - 1 down and right, given that there is
        a particle.
    """
    size = len(shift_prior) // 2
    shift = -np.arange(1 - size, size) % (2 * size)
    table = shift_prior[np.ix_(shift, shift)]
    return table / (table.sum() or 1.0)


class Track(NamedTuple):
    """Iterations of one run along the march.

    Attributes
    ----------
    name : str
        Name of the run, for a legend.
    kind : str
        "full", "half1" or "half2".
    is_start : bool
        Whether it is one of the random starts tried first.
    iterations : list of int
        Numbers of the iterations, counted from the first of the search.
    """

    name: str
    kind: str
    is_start: bool
    iterations: list[int]


def tracks(runs: dict[str, RunState]) -> dict[str, Track]:
    """Place the iterations of all runs on one axis.

    Parameters
    ----------
    runs : dict of str to RunState
        All runs, random starts included.

    Returns
    -------
    dict of str to Track
        Tracks by the names of runs; each begins where its search among starts ended.
    """
    searched = max(
        (len(state.history) for name, state in runs.items() if "-" in name), default=0
    )
    track_of_run = {}
    for name, state in runs.items():
        kind, _, start = name.partition("-")
        first = 1 if start else searched + 1
        track_of_run[name] = Track(
            RUN_NAMES[kind] + (", starts" if start else ""),
            kind,
            bool(start),
            list(range(first, first + len(state.history))),
        )
    return track_of_run


def held_out_evidence(state: RunState) -> list[float]:
    """Evidence per patch of the data that no step of a run saw.

    Parameters
    ----------
    state : RunState
        A run.

    Returns
    -------
    list of float
        One for each iteration; NaN where none were held out.
    """
    values = (row.held_out_evidence_per_patch for row in state.history)
    return [math.nan if value is None else value for value in values]


def ends_of_stages(state: RunState) -> list[tuple[str, str]]:
    """How each stage of a run went, and why it ended.

    Parameters
    ----------
    state : RunState
        A run that is done.

    Returns
    -------
    list of (str, str)
        The stage and what is to be said of it.
    """
    last_rows = {row.stage: row for row in state.history}
    told = []
    for row in last_rows.values():
        held_out = row.held_out_evidence_per_patch
        done = row.iteration == row.n_iterations
        why = "all its iterations" if done else "no more gain"
        evidence = f"evidence per patch {row.evidence_per_patch:.4f}"
        if held_out is not None:
            evidence += f", held out {held_out:.4f}"
        told.append(
            (f"ℓ ≤ {row.ell_max}", f"{row.iteration} iterations, {why}: {evidence}")
        )
    return told


def degree_changes(state: RunState, track: Track) -> list[tuple[float, int]]:
    """Places on the axis of iterations at which the march reaches a higher degree.

    Parameters
    ----------
    state : RunState
        A run.
    track : Track
        Its place on the axis of iterations.

    Returns
    -------
    list of (float, int)
        Place before the first iteration of a degree, and the degree.
    """
    changes: dict[int, float] = {}
    for iteration, row in zip(track.iterations, state.history, strict=True):
        changes.setdefault(row.ell_max, iteration - 0.5)
    return [(place, ell_max) for ell_max, place in changes.items()]
