"""How good picks are: the measures of section IV-B, recall, precision, calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree

from numbasaem.errors import expected
from numbasaem.observations.patch_positions import is_empty

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray


class Match(NamedTuple):
    """Shares of particles found and of picks that are right; nan of none."""

    recall: float
    precision: float


class CalibrationBin(NamedTuple):
    """Picks of about the same probability, and how many of them are right.

    Attributes
    ----------
    lowest, highest : float
        Bounds of their probabilities.
    n_picks : int
        How many there are.
    mean_probability : float
        Share of them that should be right.
    share_right : float
        Share of them that is.
    deviation : float
        Standard deviation of that share by chance, were each pick right with its own
        probability.
    """

    lowest: float
    highest: float
    n_picks: int
    mean_probability: float
    share_right: float
    deviation: float


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
    right = right_picks(found, true, tolerance_px)
    return match_of(right, len(np.reshape(true, (-1, 2))))


def right_picks(
    found: ArrayLike, true: ArrayLike, tolerance_px: float
) -> NDArray[np.bool_]:
    """Which picks are right, each matched with a particle of its own.

    Parameters
    ----------
    found, true, tolerance_px
        As in :func:`match_picks`.

    Returns
    -------
    bool, shape (n_picks,)
        As many as can be right at once.
    """
    picks, particles = (
        np.asarray(centres, dtype=np.float64).reshape(-1, 2)
        for centres in (found, true)
    )
    near = cKDTree(picks).sparse_distance_matrix(
        cKDTree(particles), tolerance_px, output_type="ndarray"
    )
    if len(near) == 0:
        return np.zeros(len(picks), bool)
    pairs = csr_array(
        (np.ones(len(near)), (near["i"], near["j"])),
        shape=(len(picks), len(particles)),
    )
    return np.asarray(maximum_bipartite_matching(pairs, perm_type="column") >= 0)


def match_of(right: NDArray[np.bool_], n_particles: int) -> Match:
    """Recall and precision of judged picks.

    Parameters
    ----------
    right : bool, shape (n_picks,)
        Whether each is right.
    n_particles : int
        Number of particles that there are.

    Returns
    -------
    Match
        The two shares.
    """
    n_right = int(right.sum())
    return Match(
        recall=n_right / n_particles if n_particles else float("nan"),
        precision=n_right / len(right) if len(right) else float("nan"),
    )


def calibration(
    probability: ArrayLike, right: ArrayLike, n_bins: int = 10
) -> list[CalibrationBin]:
    """Compare the probabilities of picks with how many of them are right.

    Parameters
    ----------
    probability : array, shape (n_picks,)
        Stated probability that each is right.
    right : array of bool, shape (n_picks,)
        Whether it is.
    n_bins : int
        Number of bins, of equal width, that 0 to 1 is divided into.

    Returns
    -------
    list of CalibrationBin
        Bins that hold picks, from low to high; none if a probability is unknown or
        outside 0 to 1.
    """
    stated = np.asarray(probability, dtype=np.float64)
    is_right = np.asarray(right, dtype=bool)
    if not ((stated >= 0) & (stated <= 1)).all():
        return []
    numbers = np.minimum((stated * n_bins).astype(np.intp), n_bins - 1)
    bins = []
    for number in np.unique(numbers):
        inside = numbers == number
        chances = stated[inside]
        bins.append(
            CalibrationBin(
                lowest=float(number / n_bins),
                highest=float((number + 1) / n_bins),
                n_picks=len(chances),
                mean_probability=float(chances.mean()),
                share_right=float(is_right[inside].mean()),
                deviation=float(np.sqrt((chances * (1 - chances)).sum()))
                / len(chances),
            )
        )
    return bins


def _check_same_shape(
    name: str, true: NDArray[np.generic], found: NDArray[np.generic]
) -> None:
    if true.shape != found.shape:
        raise expected(name, f"shape {true.shape}", f"shape {found.shape}")
