"""How good picks are: the measures of section IV-B, and recall and precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree

from numbasaem.errors import expected
from numbasaem.observations.patch_positions import is_empty

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray


class Match(NamedTuple):
    """Shares of particles found and of picks that are right; nan of none."""

    recall: float
    precision: float


def true_patch_shifts(
    centres: ArrayLike, shape: Sequence[int], size: int
) -> NDArray[np.intp]:
    """Shift that generated each patch of a micrograph whose particles are known.

    Parameters
    ----------
    centres : array, shape (n_particles, 2)
        (y, x) of the particles in pixels, rounded to whole ones.
    shape : (int, int)
        Rows and columns of the micrograph.
    size : int
        L, pixels.

    Returns
    -------
    int, shape (n_patches, 2)
        (s_y, s_x) in the order of :func:`patch_origins`, of the particle of which
        the patch shows most pixels; (L, L) where it shows none.
    """
    places = np.asarray(centres, dtype=np.float64).reshape(-1, 2)
    corner = np.rint(places).astype(np.intp) - size // 2
    n_rows, n_columns = (n // size for n in shape)
    # a box lies on at most two patches in each axis
    neighbours = np.array([(0, 0), (0, 1), (1, 0), (1, 1)])
    patch = (corner // size + neighbours[:, np.newaxis]).reshape(-1, 2)
    displacement = np.tile(corner, (4, 1)) - patch * size
    exists = ((patch >= 0) & (patch < (n_rows, n_columns))).all(axis=1)
    exists &= (np.abs(displacement) < size).all(axis=1)
    patch, displacement = patch[exists], displacement[exists]
    visible = (size - np.abs(displacement)).prod(axis=1)
    number = patch @ (n_columns, 1)
    most_first = np.argsort(-visible, kind="stable")
    numbers, first = np.unique(number[most_first], return_index=True)
    shifts = np.full((n_rows * n_columns, 2), size, dtype=np.intp)
    shifts[numbers] = -displacement[most_first[first]] % (2 * size)
    return shifts


def empty_patch_f1(true_empty: ArrayLike, found_empty: ArrayLike) -> float:
    """F1 score of telling empty patches, which count as positive.

    Parameters
    ----------
    true_empty, found_empty : array of bool, shape (n_patches,)
        Whether each patch is empty, and whether it was found to be.

    Returns
    -------
    float
        Between 0 and 1; nan if no patch is empty and none was found to be.

    Raises
    ------
    InputError
        If the two differ in shape.

    Notes
    -----
    Equation (39), with precision = TP / (TP + FP) and sensitivity = TP / (TP + FN).
    """
    true, found = np.asarray(true_empty, bool), np.asarray(found_empty, bool)
    _check_same_shape("found_empty", true, found)
    positives = np.count_nonzero(true) + np.count_nonzero(found)
    if positives == 0:
        return float("nan")
    # 2 TP / (2 TP + FP + FN): the harmonic mean, without its two divisions by zero
    return 2 * np.count_nonzero(true & found) / positives


def share_found_within_one_pixel(
    true_shifts: ArrayLike, found_shifts: ArrayLike, size: int
) -> float:
    """Share of well-filled patches whose shift is right to one pixel in each axis.

    Parameters
    ----------
    true_shifts, found_shifts : array, shape (n_patches, 2)
        (s_y, s_x), each in 0..2L-1.
    size : int
        L, pixels.

    Returns
    -------
    float
        Between 0 and 1; nan if no patch is well filled.

    Raises
    ------
    InputError
        If the two differ in shape.

    Notes
    -----
    Section IV-B: the patches counted have both coordinates of the true shift below
    L / 2 or both above 3L / 2, as printed; a box displaced up and right, or down and
    left, is left out. Shifts 0 and 2L - 1 are one pixel apart, and a patch found
    empty is a miss.
    """
    true, found = np.asarray(true_shifts), np.asarray(found_shifts)
    _check_same_shape("found_shifts", true, found)
    counted = (true < size / 2).all(axis=-1) | (true > 3 * size / 2).all(axis=-1)
    if not counted.any():
        return float("nan")
    error = (found - true + size) % (2 * size) - size
    right = (np.abs(error) <= 1).all(axis=-1) & ~is_empty(found, size)
    return float(right[counted].mean())


def match_picks(found: ArrayLike, true: ArrayLike, tolerance_px: float) -> Match:
    """Recall and precision of picks, each matched with at most one particle.

    Parameters
    ----------
    found, true : array, shape (n, 2)
        Centres (y, x), pixels.
    tolerance_px : float
        Largest Euclidean distance of a match, pixels.

    Returns
    -------
    Match
        From as many matches as can be made.
    """
    picks, particles = (
        np.asarray(centres, dtype=np.float64).reshape(-1, 2)
        for centres in (found, true)
    )
    n_matches = _n_matches(picks, particles, tolerance_px)
    return _match(n_matches, len(picks), len(particles))


def match_by_micrograph(
    picks: Mapping[str, NDArray[np.float64]],
    particles: Mapping[str, NDArray[np.float64]],
    tolerance_px: float,
) -> Match:
    """Recall and precision of the picks of several micrographs.

    Parameters
    ----------
    picks, particles : mapping of str to float64 arrays, shape (n, 2)
        Centres (y, x) by the micrograph's name, pixels.
    tolerance_px : float
        Largest Euclidean distance of a match, pixels.

    Returns
    -------
    Match
        Over all micrographs of either.
    """
    nothing = np.empty((0, 2))
    n_picks = sum(len(centres) for centres in picks.values())
    n_particles = sum(len(centres) for centres in particles.values())
    n_matches = sum(
        _n_matches(centres, particles.get(name, nothing), tolerance_px)
        for name, centres in picks.items()
    )
    return _match(n_matches, n_picks, n_particles)


def _check_same_shape(
    name: str, true: NDArray[np.generic], found: NDArray[np.generic]
) -> None:
    if true.shape != found.shape:
        raise expected(name, f"shape {true.shape}", f"shape {found.shape}")


def _n_matches(
    picks: NDArray[np.float64], particles: NDArray[np.float64], tolerance_px: float
) -> int:
    """Largest number of pairs of a pick and a particle, each in one pair at most."""
    near = cKDTree(picks).sparse_distance_matrix(
        cKDTree(particles), tolerance_px, output_type="ndarray"
    )
    if len(near) == 0:
        return 0
    pairs = csr_array(
        (np.ones(len(near)), (near["i"], near["j"])),
        shape=(len(picks), len(particles)),
    )
    return int((maximum_bipartite_matching(pairs) >= 0).sum())


def _match(n_matches: int, n_picks: int, n_particles: int) -> Match:
    return Match(
        recall=n_matches / n_particles if n_particles else float("nan"),
        precision=n_matches / n_picks if n_picks else float("nan"),
    )
