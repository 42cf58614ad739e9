"""Algorithm 2: the most probable shift in each patch, and the particles it means.

Also the measures of section IV-B by which such picks are judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree

from numbasaem.errors import expected
from numbasaem.observations.patch_cutting import cut_patches, patch_origins
from numbasaem.observations.patch_expectation import shift_posterior

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

_EMPTY_ABOVE = 0.5
_PATCHES_AT_ONCE = 8192
"""Bounds the memory that posteriors of shifts take."""


@dataclass(frozen=True)
class Picks:
    """Particles found in a micrograph.

    Attributes
    ----------
    centres : float64, shape (n_particles, 2)
        (y, x) in pixels of the pixel at index L // 2 of each particle's box, best
        first.
    probability : float64, shape (n_particles,)
        Figure of merit: posterior probability that the particle's centre lies within
        one pixel, in each axis, of the one given; that of the surest of the patches
        that show the particle. Low where patches show but slivers of it.
    patch_shifts : int, shape (n_patches, 2)
        Most probable shift (s_y, s_x) of each patch, (L, L) if it is empty.
    empty_probability : float64, shape (n_patches,)
        Posterior probability that a patch is empty.
    """

    centres: NDArray[np.float64]
    probability: NDArray[np.float64]
    patch_shifts: NDArray[np.intp]
    empty_probability: NDArray[np.float64]


class Match(NamedTuple):
    """Shares of particles found and of picks that are right; nan of none."""

    recall: float
    precision: float


def pick(
    micrograph: ArrayLike,
    images: ArrayLike,
    shift_prior: ArrayLike,
    noise_variance: float,
    rotation_prior: ArrayLike | None = None,
    min_distance: float | None = None,
    threads: int | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Picks:
    """Find the particles of a micrograph: Algorithm 2.

    Parameters
    ----------
    micrograph : array, shape (rows, columns)
        Pixels.
    images : array, shape (n_rotations, L, L)
        Projections of the particle, one per rotation.
    shift_prior : array, shape (2L, 2L)
        rho of equation (17).
    noise_variance : float
        sigma**2 of the micrograph's pixels.
    rotation_prior : array, shape (n_rotations,), optional
        Probability of each rotation; uniform if left out.
    min_distance : float, optional
        Detections closer than this, in pixels, are of one particle; L / 2 if left
        out, half of what boxes that do not overlap leave between centres.
    threads : int, optional
        Threads to run on; all that Numba may use if left out.
    on_progress : callable, optional
        Called with the share of the patches that is done.

    Returns
    -------
    Picks
        Particles whose centre lies on the micrograph, and what each patch shows.

    Raises
    ------
    InputError
        If the micrograph cannot be cut, or as :func:`shift_posterior`.

    Notes
    -----
    THIS IS ALGORITHM 2 OF THE PAPER, shift by shift, and then two steps it leaves
    out. Shifts become places in the micrograph; and since patch borders cut a particle
    into up to four detections, the most probable of those closer than `min_distance`
    stands for all.
    """
    pixels = np.asarray(micrograph)
    size = np.shape(images)[-1] if np.ndim(images) else 0
    if np.ndim(images) != 3 or size == 0:
        raise expected("images", "shape (K, L, L)", f"shape {np.shape(images)}")
    patches = cut_patches(pixels, size)
    shifts = np.empty((len(patches), 2), np.intp)
    empty_probability, merit = np.empty((2, len(patches)))
    for start in range(0, len(patches), _PATCHES_AT_ONCE):
        part = slice(start, start + _PATCHES_AT_ONCE)
        posterior = shift_posterior(
            patches[part], images, shift_prior, noise_variance, rotation_prior, threads
        )
        shifts[part], empty_probability[part] = most_probable_shifts(posterior)
        merit[part] = _probability_within_one_pixel(posterior, shifts[part])
        if on_progress is not None:
            on_progress(min(part.stop / len(patches), 1.0))
    centres = particle_centres(patch_origins(pixels.shape, size), shifts, size)
    inside = ((centres >= 0) & (centres < pixels.shape)).all(axis=1)
    seen = np.flatnonzero(inside & ~is_empty(shifts, size))
    distance = size / 2 if min_distance is None else min_distance
    kept = seen[surest_apart(centres[seen], merit[seen], distance)]
    return Picks(
        centres=centres[kept].astype(np.float64),
        probability=merit[kept],
        patch_shifts=shifts,
        empty_probability=empty_probability,
    )


def likeliest_rotations(
    micrograph: ArrayLike, centres: ArrayLike, images: ArrayLike
) -> NDArray[np.intp]:
    """Which projection is likeliest at each place of a micrograph.

    Parameters
    ----------
    micrograph : array, shape (rows, columns)
        Pixels.
    centres : array, shape (n_particles, 2)
        (y, x) in pixels of the pixel at index L // 2 of each particle's box, rounded to
        whole ones.
    images : array, shape (n_rotations, L, L)
        Projections of the particle, one per rotation, all as probable.

    Returns
    -------
    int, shape (n_particles,)
        Number of the projection of highest likelihood given all pixels of the box that
        the micrograph has.
    """
    projections = np.asarray(images, dtype=np.float64)
    size = projections.shape[-1]
    pixels = np.pad(np.asarray(micrograph, dtype=np.float64), size)
    held = np.pad(np.ones(np.shape(micrograph)), size)
    at = np.rint(np.asarray(centres, dtype=np.float64).reshape(-1, 2)).astype(np.intp)
    corners = at - size // 2 + size
    templates = projections.reshape(len(projections), -1).T
    found = np.empty(len(corners), np.intp)
    for start in range(0, len(corners), _PATCHES_AT_ONCE):
        rows, columns = corners[start : start + _PATCHES_AT_ONCE].T
        boxes = [
            sliding_window_view(plane, (size, size))[rows, columns].reshape(-1, size**2)
            for plane in (pixels, held)
        ]
        # - || box - projection ||^2 over the pixels held, but for the box's own energy
        likeness = 2 * boxes[0] @ templates - boxes[1] @ templates**2
        found[start : start + _PATCHES_AT_ONCE] = likeness.argmax(axis=1)
    return found


def most_probable_shifts(
    posterior: NDArray[np.floating],
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Most probable shift of each patch, and the probability that it is empty.

    The 4L - 1 shifts with a coordinate equal to L are one state, an empty patch. A
    patch is empty if that is more probable than not; else its shift is the most
    probable of those that show something.

    Parameters
    ----------
    posterior : array, shape (n_patches, 2L, 2L)
        Posterior of each shift.

    Returns
    -------
    shifts : int, shape (n_patches, 2)
        (s_y, s_x); (L, L) where the patch is empty.
    empty_probability : float64, shape (n_patches,)
        Posterior probability of the empty state.

    Notes
    -----
    Third line of Algorithm 2, decided in two steps. The argmax over single shifts
    would call a patch empty whose particle is certain but its place is not: the
    probability of a particle is then spread over several shifts, that of empty is not.
    """
    n_patches, period = posterior.shape[:2]
    size = period // 2
    visible = np.array(posterior, dtype=np.float64)
    visible[:, size, :] = 0
    visible[:, :, size] = 0
    empty_rows = posterior[:, size, :].sum(axis=1, dtype=np.float64)
    empty_columns = posterior[:, :, size].sum(axis=1, dtype=np.float64)
    empty = empty_rows + empty_columns - posterior[:, size, size]
    flat = visible.reshape(n_patches, -1)
    shifts = np.stack(np.divmod(flat.argmax(axis=1), period), axis=1)
    shifts[empty > _EMPTY_ABOVE] = size
    return shifts, empty


def is_empty(shifts: ArrayLike, size: int) -> NDArray[np.bool_]:
    """Whether shifts leave a patch empty: equation (17), a coordinate equal to L.

    Parameters
    ----------
    shifts : array, shape (n, 2)
        (s_y, s_x), each in 0..2L-1.
    size : int
        L, pixels.

    Returns
    -------
    bool, shape (n,)
        True where empty.
    """
    empty: NDArray[np.bool_] = (np.asarray(shifts) == size).any(axis=-1)
    return empty


def particle_centres(
    origins: NDArray[np.intp], shifts: NDArray[np.intp], size: int
) -> NDArray[np.intp]:
    """Where in the micrograph the particles lie that patches show.

    Parameters
    ----------
    origins : int, shape (n_patches, 2)
        Top-left corners (y, x) of the patches.
    shifts : int, shape (n_patches, 2)
        (s_y, s_x) of each patch; what an empty one gives has no meaning.
    size : int
        L, pixels.

    Returns
    -------
    int, shape (n_patches, 2)
        (y, x) of the pixel at index L // 2 of the particle's box.

    Notes
    -----
    Equation (19): a box whose corner lies at d from the patch's has
    s = -d mod 2L.
    """
    corner = np.where(shifts < size, -shifts, 2 * size - shifts)
    centres: NDArray[np.intp] = origins + corner + size // 2
    return centres


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
    at = np.rint(np.asarray(centres, dtype=np.float64).reshape(-1, 2)).astype(np.intp)
    corner = at - size // 2
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
    near = cKDTree(picks).sparse_distance_matrix(
        cKDTree(particles), tolerance_px, output_type="ndarray"
    )
    pairs = csr_array(
        (np.ones(len(near)), (near["i"], near["j"])),
        shape=(len(picks), len(particles)),
    )
    matches = 0
    if len(near):
        matches = int((maximum_bipartite_matching(pairs) >= 0).sum())
    return Match(
        recall=matches / len(particles) if len(particles) else float("nan"),
        precision=matches / len(picks) if len(picks) else float("nan"),
    )


def _check_same_shape(
    name: str, true: NDArray[np.generic], found: NDArray[np.generic]
) -> None:
    if true.shape != found.shape:
        raise expected(name, f"shape {true.shape}", f"shape {found.shape}")


def _probability_within_one_pixel(
    posterior: NDArray[np.floating], shifts: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Mass of the 3 x 3 shifts around the one given that show a particle."""
    period = posterior.shape[1]
    steps = np.arange(-1, 2)
    rows = (shifts[:, 0, np.newaxis] + steps) % period
    columns = (shifts[:, 1, np.newaxis] + steps) % period
    patches = np.arange(len(posterior))[:, np.newaxis, np.newaxis]
    near = posterior[patches, rows[:, :, np.newaxis], columns[:, np.newaxis, :]]
    seen = (rows != period // 2)[:, :, np.newaxis]
    seen = seen & (columns != period // 2)[:, np.newaxis, :]
    mass: NDArray[np.float64] = np.where(seen, near, 0.0).sum(axis=(1, 2)).clip(0, 1)
    return mass


def surest_apart(
    centres: NDArray[np.floating] | NDArray[np.intp],
    merit: NDArray[np.float64],
    min_distance: float,
) -> NDArray[np.intp]:
    """Choose, best first, the detections that have no better one near by.

    Parameters
    ----------
    centres : array, shape (n, 2)
        (y, x) in pixels.
    merit : float64, shape (n,)
        How sure each is.
    min_distance : float
        Detections closer than this are of one particle.

    Returns
    -------
    intp, shape (n_particles,)
        Numbers of those that are kept.
    """
    order = np.argsort(-merit, kind="stable")
    if len(order) == 0:
        return order
    tree = cKDTree(centres)
    merged = np.zeros(len(order), dtype=bool)
    kept = []
    for number in order:
        if merged[number]:
            continue
        kept.append(number)
        near = np.asarray(tree.query_ball_point(centres[number], min_distance))
        apart = np.linalg.norm(centres[near] - centres[number], axis=1)
        merged[near[apart < min_distance]] = True
    return np.array(kept)
