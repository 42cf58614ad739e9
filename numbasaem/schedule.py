"""Stages of frequency marching, and how finely each turns the volume."""

from __future__ import annotations

import math
from dataclasses import dataclass

SEARCH_ELL_MAX = 4
"""Degree at which random starts are tried."""
SEARCH_ITERATIONS = 10
"""Iterations of each random start."""
_PATCH_ROTATIONS, _PATCH_SEARCH_ROTATIONS = 552, 216
"""Numbers of rotations of the patch model, in which each costs the same."""
_FEWEST_ROTATIONS, _MOST_ROTATIONS = 8, 16_000
"""Numbers of rotations that are not asked for: at most steps of 10 degrees."""


@dataclass(frozen=True)
class Stage:
    """One stage of frequency marching (section III-D).

    Attributes
    ----------
    ell_max : int
        Highest degree of the volume.
    n_iterations : int
        Most iterations, N_it of Algorithm 1.
    n_rotations : int
        About how many rotations the posterior runs over.
    step : float or None
        The volume moves this many times the step of EM, in (0, 2); 1 is EM itself, None
        adapts it as it goes.
    """

    ell_max: int
    n_iterations: int
    n_rotations: int
    step: float | None = 1.0


def rotations_for(model: str, degree: int) -> int:
    """Number of rotations that a degree takes.

    Parameters
    ----------
    model : str
        Observation model.
    degree : int
        Highest degree of the volume.

    Returns
    -------
    int
        So many that their steps are 180 / (degree + 1) degrees, half of what the
        degree can tell; 552 of patches.

    Examples
    --------
    >>> [rotations_for("window", degree) for degree in (4, 6, 10)]
    [319, 874, 3390]
    """
    if model == "patch":
        return _PATCH_ROTATIONS
    step = math.pi / (degree + 1)
    wanted = math.ceil(8 * math.pi**2 / step**3)
    return min(max(wanted, _FEWEST_ROTATIONS), _MOST_ROTATIONS)


def search_stage(model: str, first: Stage) -> Stage:
    """Stage in which random starts are tried.

    Parameters
    ----------
    model : str
        Observation model.
    first : Stage
        Stage that follows it.

    Returns
    -------
    Stage
        Of no higher degree and no more rotations.
    """
    degree = min(SEARCH_ELL_MAX, first.ell_max)
    enough = rotations_for(model, degree)
    if model == "patch":
        enough = _PATCH_SEARCH_ROTATIONS
    n_rotations = min(enough, first.n_rotations)
    return Stage(degree, SEARCH_ITERATIONS, n_rotations, first.step)
