"""Algorithm 2: the particles that the most probable shift of each patch means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.spatial import cKDTree

from numbasaem.observations.patch_positions import patch_positions

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

_BOXES_AT_ONCE = 2048
"""Number of particles whose boxes are in memory together."""


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
    positions = patch_positions(
        micrograph,
        images,
        shift_prior,
        noise_variance,
        rotation_prior,
        threads,
        on_progress,
    )
    size, centres = np.shape(images)[-1], positions.centres
    detections = positions.detected(np.shape(micrograph))
    kept = detections[
        suppress_neighbours(
            centres[detections],
            positions.probability[detections],
            size / 2 if min_distance is None else min_distance,
        )
    ]
    return Picks(
        centres=centres[kept].astype(np.float64),
        probability=positions.probability[kept],
        patch_shifts=positions.shifts,
        empty_probability=positions.empty_probability,
    )


def likeliest_rotations(
    micrograph: ArrayLike,
    centres: ArrayLike,
    images: ArrayLike,
    noise_variance: float,
    rotation_prior: ArrayLike | None = None,
) -> NDArray[np.intp]:
    """Which projection is the most probable at each place of a micrograph.

    Parameters
    ----------
    micrograph : array, shape (rows, columns)
        Pixels.
    centres : array, shape (n_particles, 2)
        (y, x) in pixels of the pixel at index L // 2 of each particle's box, rounded to
        whole ones.
    images : array, shape (n_rotations, L, L)
        Projections of the particle, one per rotation.
    noise_variance : float
        sigma**2 of the micrograph's pixels.
    rotation_prior : array, shape (n_rotations,), optional
        Probability of each rotation; uniform if left out.

    Returns
    -------
    int, shape (n_particles,)
        Number of the projection of highest posterior given all pixels of the box that
        the micrograph has.
    """
    projections = np.asarray(images, dtype=np.float64)
    size = projections.shape[-1]
    pixels = np.pad(np.asarray(micrograph, dtype=np.float64), size)
    covered = np.pad(np.ones(np.shape(micrograph)), size)
    places = np.asarray(centres, dtype=np.float64).reshape(-1, 2)
    corners = np.rint(places).astype(np.intp) - size // 2 + size
    templates = projections.reshape(len(projections), -1).T
    log_prior = np.zeros(len(projections))
    if rotation_prior is not None:
        with np.errstate(divide="ignore"):
            log_prior = np.log(np.asarray(rotation_prior, dtype=np.float64))
    likeliest = np.empty(len(corners), np.intp)
    for start in range(0, len(corners), _BOXES_AT_ONCE):
        part = slice(start, start + _BOXES_AT_ONCE)
        rows, columns = corners[part].T
        box, box_covered = (
            sliding_window_view(plane, (size, size))[rows, columns].reshape(-1, size**2)
            for plane in (pixels, covered)
        )
        # - || box - projection ||^2 over the pixels there are, but for the box's energy
        likeness = 2 * box @ templates - box_covered @ templates**2
        posterior = likeness + 2 * noise_variance * log_prior
        likeliest[part] = posterior.argmax(axis=1)
    return likeliest


def suppress_neighbours(
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
