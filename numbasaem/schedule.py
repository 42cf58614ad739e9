"""Stages of frequency marching, and how finely each turns the volume."""

from __future__ import annotations

import math
from dataclasses import dataclass

SEARCH_DEGREES = (2, 4)
"""Degrees at which random starts are tried, and the worse half of them given up."""
SEARCH_ITERATIONS = 10
"""Iterations at each of these degrees."""
MOST_ITERATIONS = 60
"""Most iterations of a stage that ends once held-out data gain no more."""
_FINER = 1.25
"""Least factor between the degrees of stages, beyond steps of 2."""
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
    is_open : bool
        Whether it ends once data that no step sees gain no more, with the volume that
        suited them best.
    """

    ell_max: int
    n_iterations: int
    n_rotations: int
    step: float | None = 1.0
    is_open: bool = False


def degrees_for(size: int) -> tuple[int, ...]:
    """Degrees of a march that is left to the program.

    Parameters
    ----------
    size : int
        L, side of the volume.

    Returns
    -------
    tuple of int
        From 2 to L - 1, each at least 2 and a quarter above the one before.

    Examples
    --------
    >>> [degrees_for(size) for size in (7, 11, 21)]
    [(2, 4, 6), (2, 4, 6, 8, 10), (2, 4, 6, 8, 10, 13, 17, 20)]
    """
    top, degrees = size - 1, [SEARCH_DEGREES[0]]
    while degrees[-1] < top:
        following = max(degrees[-1] + 2, math.ceil(_FINER * degrees[-1]))
        degrees.append(min(following, top))
    return tuple(degrees)


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


def search_stages(model: str, first: Stage) -> tuple[Stage, ...]:
    """Stages in which random starts are tried.

    Parameters
    ----------
    model : str
        Observation model.
    first : Stage
        Stage of the march that follows them.

    Returns
    -------
    tuple of Stage
        Of no higher degree and no more rotations.
    """
    degrees = sorted({min(degree, first.ell_max) for degree in SEARCH_DEGREES})
    stages = []
    for degree in degrees:
        enough = rotations_for(model, degree)
        if model == "patch":
            enough = _PATCH_SEARCH_ROTATIONS
        n_rotations = min(enough, first.n_rotations)
        stages.append(Stage(degree, SEARCH_ITERATIONS, n_rotations, first.step))
    return tuple(stages)


def starts_in_search(starts: int, n_stages: int) -> tuple[int, ...]:
    """Number of starts that each stage of the search tries.

    Parameters
    ----------
    starts : int
        Number of random starts.
    n_stages : int
        Stages of the search.

    Returns
    -------
    tuple of int
        Half of those of the stage before, at least one.

    Examples
    --------
    >>> starts_in_search(5, 2)
    (5, 3)
    """
    return tuple(-(-starts // 2**number) for number in range(n_stages))
