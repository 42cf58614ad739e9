"""Places of the particles that the patches of a micrograph show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.errors import expected

from .patch_cutting import cut_patches, patch_origins
from .patch_expectation import shift_posterior

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

_EMPTY_ABOVE = 0.5
"""Probability of the empty state above which a patch counts as empty."""
_PATCHES_AT_ONCE = 8192
"""Number of patches whose posteriors of shifts are in memory together."""


@dataclass(frozen=True)
class PatchPositions:
    """Place of the particle that each patch of a micrograph shows.

    Attributes
    ----------
    shifts : intp, shape (n_patches, 2)
        Most probable shift (s_y, s_x) of each patch, (L, L) if it is empty.
    centres : intp, shape (n_patches, 2)
        Place (y, x) in the micrograph of index L // 2 of the particle's box; without
        meaning for an empty patch.
    probability : float64, shape (n_patches,)
        Posterior probability that the particle's centre lies within one pixel of this
        place in each axis.
    empty_probability : float64, shape (n_patches,)
        Posterior probability that a patch is empty.
    """

    shifts: NDArray[np.intp]
    centres: NDArray[np.intp]
    probability: NDArray[np.float64]
    empty_probability: NDArray[np.float64]

    def detected(self, shape: ArrayLike) -> NDArray[np.intp]:
        """Patches that show a particle whose centre lies on the micrograph.

        Parameters
        ----------
        shape : (int, int)
            Rows and columns of the micrograph.

        Returns
        -------
        intp, shape (n,)
            Numbers of these patches.
        """
        inside = ((self.centres >= 0) & (self.centres < np.asarray(shape))).all(axis=1)
        empty = self.empty_probability > _EMPTY_ABOVE
        return np.flatnonzero(inside & ~empty)


def patch_positions(
    micrograph: ArrayLike,
    images: ArrayLike,
    shift_prior: ArrayLike,
    noise_variance: float,
    rotation_prior: ArrayLike | None = None,
    threads: int | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> PatchPositions:
    """Find the most probable place of a particle in each patch of a micrograph.

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
    threads : int, optional
        Threads to run on; all that Numba may use if left out.
    on_progress : callable, optional
        Called with the share of the patches that is done.

    Returns
    -------
    PatchPositions
        Positions of the patches in the order of :func:`patch_origins`.

    Raises
    ------
    InputError
        If the micrograph cannot be cut, or :func:`shift_posterior` raises it.

    Notes
    -----
    The first three lines of Algorithm 2.
    """
    pixels = np.asarray(micrograph)
    size = np.shape(images)[-1] if np.ndim(images) else 0
    if np.ndim(images) != 3 or size == 0:
        raise expected("images", "shape (K, L, L)", f"shape {np.shape(images)}")
    patches = cut_patches(pixels, size)
    shifts = np.empty((len(patches), 2), np.intp)
    empty_probability, probability = np.empty((2, len(patches)))
    for start in range(0, len(patches), _PATCHES_AT_ONCE):
        part = slice(start, start + _PATCHES_AT_ONCE)
        posterior = shift_posterior(
            patches[part], images, shift_prior, noise_variance, rotation_prior, threads
        )
        shifts[part], empty_probability[part] = most_probable_shifts(posterior)
        probability[part] = _probability_within_one_pixel(posterior, shifts[part])
        if on_progress is not None:
            on_progress(min(part.stop / len(patches), 1.0))
    centres = particle_centres(patch_origins(pixels.shape, size), shifts, size)
    return PatchPositions(shifts, centres, probability, empty_probability)


def most_probable_shifts(
    posterior: NDArray[np.floating],
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Most probable shift of each patch, and the probability that it is empty.

    The 4L - 1 shifts with a coordinate equal to L are one state, an empty patch. A
    patch is empty if this state is more probable than not; else its shift is the most
    probable one that shows a particle.

    Parameters
    ----------
    posterior : array, shape (n_patches, 2L, 2L)
        Posterior of each shift.

    Returns
    -------
    shifts : intp, shape (n_patches, 2)
        (s_y, s_x); (L, L) where the patch is empty.
    empty_probability : float64, shape (n_patches,)
        Posterior probability of the empty state.

    Notes
    -----
    Third line of Algorithm 2, decided in two steps. Where a particle is certain but its
    place is not, its probability is spread over several shifts, while that of an empty
    patch is not: the largest over single shifts would call such a patch empty.
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
        Whether the patch is empty.
    """
    empty: NDArray[np.bool_] = (np.asarray(shifts) == size).any(axis=-1)
    return empty


def particle_centres(
    origins: NDArray[np.intp], shifts: NDArray[np.intp], size: int
) -> NDArray[np.intp]:
    """Places in the micrograph of the particles that patches show.

    Parameters
    ----------
    origins : intp, shape (n_patches, 2)
        Top-left corners (y, x) of the patches.
    shifts : intp, shape (n_patches, 2)
        (s_y, s_x) of each patch; the result for an empty one has no meaning.
    size : int
        L, pixels.

    Returns
    -------
    intp, shape (n_patches, 2)
        Place (y, x) of index L // 2 of the particle's box.

    Notes
    -----
    Equation (19): if the corner of a box lies d pixels behind that of the patch,
    s = -d mod 2L.
    """
    corner = np.where(shifts < size, -shifts, 2 * size - shifts)
    centres: NDArray[np.intp] = origins + corner + size // 2
    return centres


def _probability_within_one_pixel(
    posterior: NDArray[np.floating], shifts: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Mass of those of the 3 x 3 shifts about each shift that show a particle."""
    period = posterior.shape[1]
    steps = np.arange(-1, 2)
    rows = (shifts[:, 0, np.newaxis] + steps) % period
    columns = (shifts[:, 1, np.newaxis] + steps) % period
    patches = np.arange(len(posterior))[:, np.newaxis, np.newaxis]
    near = posterior[patches, rows[:, :, np.newaxis], columns[:, np.newaxis, :]]
    shown = (rows != period // 2)[:, :, np.newaxis]
    shown = shown & (columns != period // 2)[:, np.newaxis, :]
    mass: NDArray[np.float64] = np.where(shown, near, 0.0).sum(axis=(1, 2)).clip(0, 1)
    return mass
