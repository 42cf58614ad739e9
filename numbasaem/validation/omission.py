"""Omit test: density that is taken out of a map has to come back from other data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.geometry.grids import ball, lattice, offsets
from numbasaem.random_streams import Stream, random_stream
from numbasaem.reconstruction.current_stage import basis_of
from numbasaem.reconstruction.iterate import iterations
from numbasaem.reconstruction.result import RUNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from numbasaem.observations.protocol import Observations
    from numbasaem.reconstruction.driver import Callbacks
    from numbasaem.reconstruction.state import RunPlace, RunState
    from numbasaem.settings import Settings

N_BALLS = 6
"""Number of balls that are left out, one at a time."""
ITERATIONS = 15
"""Number of iterations in which what was left out may come back."""
_SHARE = 1 / 12
"""Share of the map's mass in each ball."""
_ROUNDS = 20
"""Number of times that the places of balls are spread anew over the mass."""


@dataclass(frozen=True)
class Omission:
    """A ball that was left out of a map, and what came back.

    Attributes
    ----------
    centre : tuple of float
        Centre (x, y, z) of the ball, voxels from the centre of the map.
    radius : float
        Its radius, voxels.
    returned : float
        Share of the density that came back, by :func:`share_returned`.
    """

    centre: tuple[float, float, float]
    radius: float
    returned: float

    def __str__(self) -> str:
        """Put place and outcome in words."""
        x, y, z = (f"{value:.1f}" for value in self.centre)
        return (
            f"left out within {self.radius:.1f} voxels of ({x}, {y}, {z}): "
            f"{self.returned:.0%} came back"
        )

    def record(self) -> dict[str, object]:
        """Put place and outcome as JSON can hold them."""
        return {
            "centre": list(self.centre),
            "radius": self.radius,
            "returned_percent": 100 * self.returned,
        }


def mean_returned(omissions: Sequence[Omission]) -> float:
    """Mean share that came back.

    Parameters
    ----------
    omissions : sequence of Omission
        One or more.

    Returns
    -------
    float
        Their mean.
    """
    return float(np.mean([omission.returned for omission in omissions]))


def omit_in_turn(
    state: RunState,
    data: Observations,
    settings: Settings,
    callbacks: Callbacks,
    place: RunPlace,
) -> tuple[Omission, ...]:
    """Leave balls out of a map in turn, and go on from there on other data.

    Parameters
    ----------
    state : RunState
        Last state of a run, whose map it is.
    data : Observations
        Data that the run has not seen.
    settings : Settings
        Settings of the run.
    callbacks : Callbacks
        Functions that are told what happens.
    place : RunPlace
        What the names of these runs begin with, and the number of iterations before
        them and in all.

    Returns
    -------
    tuple of Omission
        One for each ball.
    """
    last = settings.schedule[state.stage]
    brief = settings.changed(
        ell_max=(last.ell_max,),
        iterations=(ITERATIONS,),
        rotations=last.n_rotations,
        start="random",
        starts=1,
    )
    basis = basis_of(state, settings)
    volume = basis.evaluate(state.volume_coefficients)
    outcomes = []
    for number, (centre, radius) in enumerate(balls_of_mass(volume)):
        inside = _distances(settings.size, centre) <= radius
        without = basis.expand(np.where(inside, 0.0, volume))
        resumed = replace(
            state,
            volume_coefficients=without,
            em_step=np.zeros_like(without),
            last_move=np.zeros_like(without),
            mean_volume=without,
            best=None,
            stage=0,
            generator=random_stream(
                settings.seed, Stream.MINIBATCHES, len(RUNS) + number
            ),
            iteration=0,
            step=1.0,
            minibatches={},
            history=[],
        )
        own_place = replace(
            place,
            run=f"{place.run}{number + 1}",
            n_before=place.n_before + number * ITERATIONS,
        )
        for row in iterations(
            resumed, data, brief, 1, callbacks.on_progress, own_place
        ):
            if callbacks.on_iteration is not None:
                callbacks.on_iteration(row)
        after = basis.evaluate(resumed.volume_coefficients)
        returned = share_returned(volume, basis.evaluate(without), after, inside)
        z, y, x = (float(value) for value in centre)
        outcomes.append(Omission((x, y, z), radius, returned))
    return tuple(outcomes)


def share_returned(
    whole: NDArray[np.float64],
    without: NDArray[np.float64],
    after: NDArray[np.float64],
    inside: NDArray[np.bool_],
) -> float:
    """Share of the density left out that came back.

    Parameters
    ----------
    whole, without, after : float64, shape (L, L, L)
        The map as it was, what it was continued from, and what became of it.
    inside : bool, shape (L, L, L)
        Voxels of the ball.

    Returns
    -------
    float
        Slope of the regression of `after - without` on `whole - without` through the
        origin, over the ball: 0 if nothing came back, 1 if all did. Density that the
        limited degree left in the ball counts neither way.

    Examples
    --------
    >>> whole, without = np.ones((3, 3, 3)), np.full((3, 3, 3), 0.2)
    >>> round(share_returned(whole, without, 0.9 * whole, whole > 0), 3)
    0.875
    """
    left_out = (whole - without)[inside]
    gained = (after - without)[inside]
    return float(gained @ left_out / (left_out @ left_out))


def balls_of_mass(
    volume: NDArray[np.float64],
) -> list[tuple[NDArray[np.float64], float]]:
    """Balls that hold a twelfth of the mass each, at places spread over it.

    Parameters
    ----------
    volume : float64, shape (L, L, L)
        A map. Its mass is the density above zero, within L // 2.

    Returns
    -------
    list of (float64, shape (3,); float)
        Centre (z, y, x), voxels from the centre of the map, and radius. The centres
        are those of a division of the mass among the nearest, as in k-means.
    """
    size = len(volume)
    within = ball(size, size // 2)
    mass = np.maximum(volume[within], 0.0)
    heavy = mass > 0
    mass, points = mass[heavy], lattice(offsets(size), 3)[:, within][:, heavy].T
    centres = points[[int(np.argmax(mass))]].astype(np.float64)
    while len(centres) < min(N_BALLS, len(points)):
        farthest = np.argmax(_to_each(points, centres).min(axis=1))
        centres = np.vstack([centres, points[farthest]])
    for _ in range(_ROUNDS):
        nearest = _to_each(points, centres).argmin(axis=1)
        for number in np.unique(nearest):
            own = nearest == number
            centres[number] = np.average(points[own], axis=0, weights=mass[own])
    return [(centre, _radius_of_share(points, mass, centre)) for centre in centres]


def _radius_of_share(
    points: NDArray[np.int_], mass: NDArray[np.float64], centre: NDArray[np.float64]
) -> float:
    """Radius of the ball around a centre that holds its share of the mass."""
    distances = _to_each(points, centre[np.newaxis])[:, 0]
    order = np.argsort(distances, kind="stable")
    held = np.cumsum(mass[order])
    last = int(np.searchsorted(held, _SHARE * held[-1]))
    return float(distances[order[last]])


def _to_each(
    points: NDArray[np.int_], centres: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distance of every point, (n, 3), to every centre, (m, 3): shape (n, m)."""
    apart = points[:, np.newaxis] - centres[np.newaxis]
    return np.asarray(np.linalg.norm(apart, axis=-1))


def _distances(size: int, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of every voxel of a cube to a centre."""
    points = lattice(offsets(size), 3).reshape(3, -1).T
    return _to_each(points, centre[np.newaxis]).reshape((size,) * 3)
