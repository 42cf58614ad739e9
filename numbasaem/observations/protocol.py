"""What a run of the EM algorithm asks of the data, wherever they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .patch_expectation import Statistics, batch_of, partial_sums, total

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numbasaem.micrographs.optics_groups import OpticsGroups


class Observations(Protocol):
    """An observation model with its data: patches, or whatever else is summed over.

    Attributes
    ----------
    variance : float
        Of all pixels of all runs: the noise variance that a run starts from.
    patches_each : float
        How many patches one is worth, on average.
    optics : OpticsGroups or None
        Groups of observations that see the volume alike, if not all do; images and
        statistics are those of the groups one after the other.
    """

    variance: float
    patches_each: float
    optics: OpticsGroups | None

    def __len__(self) -> int:
        """How many there are to choose from."""

    def expectation(
        self,
        chosen: NDArray[np.intp],
        images: NDArray[np.float64],
        shift_prior: NDArray[np.float64],
        noise_variance: float,
        rotation_prior: NDArray[np.float64] | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> Statistics:
        """Statistics of those chosen, whose numbers ascend; the E-step."""


@dataclass(frozen=True)
class PixelSums:
    """Sums over the pixels of a micrograph's patches.

    Attributes
    ----------
    n_patches, n_pixels : int
        How many there are.
    total, energy : float
        Sum of the pixels and of their squares.
    brightest : float
        No pixel is further from zero.
    """

    n_patches: int
    n_pixels: int
    total: float
    energy: float
    brightest: float


def pixel_sums(patches: NDArray[np.float32]) -> PixelSums:
    """Sum up the pixels of a micrograph's patches.

    Parameters
    ----------
    patches : float32, shape (n_patches, L, L)
        Patches.

    Returns
    -------
    PixelSums
        The sums, without a copy of the patches.
    """
    return PixelSums(
        n_patches=len(patches),
        n_pixels=patches.size,
        total=float(np.sum(patches, dtype=np.float64)),
        energy=float(np.einsum("pij,pij->", patches, patches, dtype=np.float64)),
        brightest=float(max(patches.max(initial=0), -patches.min(initial=0))),
    )


def variance_and_brightest(sums: Sequence[PixelSums]) -> tuple[float, float]:
    """Variance of all pixels, and the largest distance from zero.

    Parameters
    ----------
    sums : sequence of PixelSums
        Of each micrograph.

    Returns
    -------
    variance, brightest : float
        The same bits in any order of the micrographs.
    """
    n_pixels = sum(one.n_pixels for one in sums)
    mean = math.fsum(one.total for one in sums) / n_pixels
    square = math.fsum(one.energy for one in sums) / n_pixels
    return square - mean**2, max(one.brightest for one in sums)


def by_optics_group(
    optics: OpticsGroups | None,
    chosen: NDArray[np.intp],
    images: NDArray[np.float64],
    statistics: Callable[[NDArray[np.intp], NDArray[np.float64]], Statistics],
) -> Statistics:
    """Statistics of observations, each under the images of its optics group.

    Parameters
    ----------
    optics : OpticsGroups or None
        Groups of all observations; None if there are none.
    chosen : intp, shape (n,)
        Numbers of the observations.
    images : float64, shape (n_groups * n_rotations, L, L)
        Projections as each group sees them.
    statistics : callable
        Statistics of some observations, at least one, under some images.

    Returns
    -------
    Statistics
        Of all.
    """
    if optics is None:
        return statistics(chosen, images)
    groups = np.split(images, len(optics.point_spreads))
    group = optics.group[chosen]
    found = []
    for number, seen in enumerate(groups):
        mine = chosen[group == number]
        found.append(statistics(mine, seen) if len(mine) else nothing_seen(seen))
    return Statistics.of_groups(found)


def nothing_seen(images: NDArray[np.float64]) -> Statistics:
    """Statistics of no observation.

    Parameters
    ----------
    images : float64, shape (n_rotations, L, L)
        Projections.

    Returns
    -------
    Statistics
        Zeros.
    """
    n_rotations, size, _ = images.shape
    return Statistics(
        visible_weight=np.zeros_like(images),
        weighted_patch=np.zeros_like(images),
        shift_mass=np.zeros((2 * size, 2 * size)),
        rotation_mass=np.zeros(n_rotations),
        log_likelihood=0.0,
        patch_energy=0.0,
        n_patches=0,
    )


class Patches:
    """Patches in the memory of this process.

    Parameters
    ----------
    patches : float32, shape (n_patches, L, L)
        Patches of the run.
    sums : sequence of PixelSums, optional
        Of all micrographs, where the run sees a part of them.
    threads : int, optional
        Threads to run on; all that Numba may use if left out.
    optics : OpticsGroups, optional
        Groups of the patches.
    """

    patches_each = 1.0

    def __init__(
        self,
        patches: NDArray[np.float32],
        sums: Sequence[PixelSums] | None = None,
        threads: int | None = None,
        optics: OpticsGroups | None = None,
    ) -> None:
        self._patches = patches
        self._threads = threads
        self.optics = optics
        self.variance, self._brightest = variance_and_brightest(
            sums or [pixel_sums(patches)]
        )

    def __len__(self) -> int:
        """How many patches there are."""
        return len(self._patches)

    def expectation(
        self,
        chosen: NDArray[np.intp],
        images: NDArray[np.float64],
        shift_prior: NDArray[np.float64],
        noise_variance: float,
        rotation_prior: NDArray[np.float64] | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> Statistics:
        """Statistics of the chosen patches; see :class:`Observations`."""

        def of_group(mine: NDArray[np.intp], images: NDArray[np.float64]) -> Statistics:
            hypotheses = images, shift_prior, noise_variance, rotation_prior
            batch = batch_of(len(mine), images, self._brightest)
            patches = self._patches[mine]
            sums = partial_sums(batch, patches, *hypotheses, self._threads, on_progress)
            return total(batch, sums, *hypotheses)

        return by_optics_group(self.optics, chosen, images, of_group)
