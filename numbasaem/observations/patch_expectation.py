"""The E-step of the patch model: posterior of shifts and rotations, summed up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.errors import NumericalError, expected
from numbasaem.geometry.grids import disc
from numbasaem.kernels.layout import DISC, HIDDEN, SPECTRAL, SQUARE
from numbasaem.kernels.llvm import LANES
from numbasaem.kernels.patches import spectral
from numbasaem.kernels.patches import statistics as kernels
from numbasaem.kernels.patches.energies import visible_energies
from numbasaem.threads import running_threads

from .exact_sums import PartialSums
from .exponents import refuse_large_exponents, strongest_patch
from .image_statistics import ImageStatistics
from .input_checks import (
    checked_images,
    checked_noise_variance,
    checked_probabilities,
    checked_rotation_prior,
)
from .patch_blocks import BlockSums, batch_layout, is_spectral
from .patch_cutting import check_patches

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from .exact_sums import BatchLayout

_NOTHING = np.empty((0, 0), np.float32)


def expectation(
    patches: ArrayLike,
    images: ArrayLike,
    shift_prior: ArrayLike,
    noise_variance: float,
    rotation_prior: ArrayLike | None = None,
    threads: int | None = None,
    lost_mass: float = 0.0,
    on_progress: Callable[[float], None] | None = None,
) -> ImageStatistics:
    """Posterior (23) of every patch over shifts and rotations, summed up.

    Parameters
    ----------
    patches : array, shape (n_patches, L, L)
        Patches of a micrograph. Anything but contiguous float32 is converted, once.
    images : array, shape (n_rotations, L, L)
        Projections of the volume, one per rotation.
    shift_prior : array, shape (2L, 2L)
        rho of equation (17). Shifts of prior zero get posterior zero.
    noise_variance : float
        sigma**2 of the micrograph's pixels.
    rotation_prior : array, shape (n_rotations,), optional
        Probability of each rotation; uniform if left out.
    threads : int, optional
        Threads to run on; all that Numba may use if left out.
    lost_mass : float
        Share of a patch's posterior that may be left out of `visible_weight` and
        `weighted_patch` to save work; 0, the default, is exact.
    on_progress : callable, optional
        Called with the share of the patches that is done, every second or so.

    Returns
    -------
    ImageStatistics
        Sums over the patches, the same bits for any number of threads.

    Raises
    ------
    InputError
        If sizes disagree, a value is not finite, the variance is not positive, a
        prior is negative or does not sum to 1, `threads` is out of range,
        `lost_mass` is not in [0, 1), or log-weights are too large for float32.
    NumericalError
        If a sum overflows.

    Notes
    -----
    Equations (23)-(24), and the sums over patches in (30), (34) and (37).

    Examples
    --------
    >>> from numbasaem import VolumeBasis, rotation_grid
    >>> images = VolumeBasis(5, 2).project(np.ones(9), rotation_grid(8))
    >>> stats = expectation(images, images, np.full((10, 10), 0.01), 0.1)
    >>> stats.n_patches, round(float(stats.rotation_mass.sum()), 3)
    (8, 8.0)
    """
    hypotheses = images, shift_prior, noise_variance, rotation_prior
    e_step = PatchExpectation(patches, *hypotheses)
    if not 0 <= lost_mass < 1:
        raise expected("lost_mass", "a share in [0, 1)", lost_mass)
    return e_step.solve(threads, lost_mass, _NOTHING, on_progress)


def partial_sums(
    layout: BatchLayout,
    patches: ArrayLike,
    images: ArrayLike,
    shift_prior: ArrayLike,
    noise_variance: float,
    rotation_prior: ArrayLike | None = None,
    threads: int | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> PartialSums:
    """What :func:`expectation` sums up, over a part of a batch.

    Parameters
    ----------
    layout : BatchLayout
        The whole batch.
    patches : array, shape (n, L, L)
        Patches of whole blocks.
    images, shift_prior, noise_variance, rotation_prior, threads, on_progress
        As in :func:`expectation`.

    Returns
    -------
    PartialSums
        To be added to those of the other parts.

    Raises
    ------
    InputError
        As :func:`expectation`.
    """
    e_step = PatchExpectation(
        patches, images, shift_prior, noise_variance, rotation_prior
    )
    return e_step.sums(layout, threads, 0.0, _NOTHING, on_progress)


def statistics_of_sums(
    layout: BatchLayout,
    sums: PartialSums,
    images: ArrayLike,
    shift_prior: ArrayLike,
    noise_variance: float,
    rotation_prior: ArrayLike | None = None,
) -> ImageStatistics:
    """Statistics of a batch from the sums over all of its blocks.

    Parameters
    ----------
    layout : BatchLayout
        The batch.
    sums : PartialSums
        Over all of its blocks.
    images, shift_prior, noise_variance, rotation_prior
        As the sums were made with.

    Returns
    -------
    ImageStatistics
        The same bits as in one piece.
    """
    size = np.shape(images)[1]
    nothing = np.empty((0, size, size), np.float32)
    e_step = PatchExpectation(
        nothing, images, shift_prior, noise_variance, rotation_prior
    )
    return e_step.statistics(layout, sums)


def shift_posterior(
    patches: ArrayLike,
    images: ArrayLike,
    shift_prior: ArrayLike,
    noise_variance: float,
    rotation_prior: ArrayLike | None = None,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Posterior of each patch's shift, summed over rotations.

    Parameters
    ----------
    patches, images, shift_prior, noise_variance, rotation_prior, threads
        As in :func:`expectation`.

    Returns
    -------
    float32, shape (n_patches, 2L, 2L)
        Sums to 1 over each patch; the mass of the empty state is spread over the
        empty shifts as their prior is.

    Raises
    ------
    InputError
        As :func:`expectation`.

    Notes
    -----
    The second line of Algorithm 2.
    """
    e_step = PatchExpectation(
        patches, images, shift_prior, noise_variance, rotation_prior
    )
    n_states = (2 * e_step.size - 1) ** 2 + 1
    packed = np.empty((len(e_step.patches), n_states), np.float32)
    e_step.solve(threads, 1.0, packed)
    return e_step.shift_table(packed[:, :-1], packed[:, -1]).astype(np.float32)


def compile_kernels(size: int, whole_square: bool = False) -> None:
    """Compile what :func:`expectation` runs for patches of a size.

    It takes some ten seconds the first time, a fraction of one once the compiled code
    is in Numba's cache, and happens by itself at the first call otherwise.

    Parameters
    ----------
    size : int
        L, side of a patch, pixels.
    whole_square : bool
        Whether images reach beyond the disc, as those behind a lens do.
    """
    images = np.zeros((1, size, size))
    images[0, 0, 0] = whole_square
    prior = np.zeros((2 * size, 2 * size))
    prior[0, 0] = 1
    expectation(np.zeros((1, size, size)), images, prior, 1.0)


class PatchExpectation:
    """The E-step on checked input, in the form the kernels take."""

    def __init__(
        self,
        patches: ArrayLike,
        images: ArrayLike,
        shift_prior: ArrayLike,
        noise_variance: float,
        rotation_prior: ArrayLike | None,
    ) -> None:
        self.images = checked_images(images)
        self.size = self.images.shape[1]
        if self.size > spectral.LARGEST:
            largest = f"at most {spectral.LARGEST} x {spectral.LARGEST} pixels"
            raise expected("images", largest, f"shape {self.images.shape}")
        self.patches = check_patches(patches, self.size)
        self.noise_variance = checked_noise_variance(noise_variance)
        shape = (2 * self.size, 2 * self.size)
        self.shift_prior = checked_probabilities("shift_prior", shift_prior, shape)
        self.rotation_prior = checked_rotation_prior(rotation_prior, len(self.images))
        displacements = [d % (2 * self.size) for d in range(1 - self.size, self.size)]
        self._visible = np.ix_(displacements, displacements)
        self._empty = self.shift_prior.copy()
        self._empty[self._visible] = 0
        refuse_large_exponents(
            "patches and images",
            strongest_patch(self.patches),
            math.sqrt(np.einsum("kij,kij->k", self.images, self.images).max()),
            self.noise_variance,
            empty_possible=bool(self._empty.any()),
        )

    def solve(
        self,
        threads: int | None,
        lost_mass: float,
        posterior: NDArray[np.float32],
        on_progress: Callable[[float], None] | None = None,
    ) -> ImageStatistics:
        """Statistics of the patches as a batch of their own."""
        brightest = float(np.abs(self.patches).max(initial=0.0))
        layout = batch_layout(len(self.patches), self.images, brightest)
        sums = self.sums(layout, threads, lost_mass, posterior, on_progress)
        return self.statistics(layout, sums)

    def sums(
        self,
        layout: BatchLayout,
        threads: int | None,
        lost_mass: float,
        posterior: NDArray[np.float32],
        on_progress: Callable[[float], None] | None,
    ) -> PartialSums:
        """Run the kernels block by block and add up what they find."""
        n_rotations, size = len(self.images), self.size
        route = self._route()
        templates, bias = self._templates_and_bias()
        scratch_length = (2 * size - 1) * size * LANES
        if route == SPECTRAL:
            templates = spectral.template_spectra(templates)
            scratch_length = max(scratch_length, spectral.scratch_length(size, LANES))
        empty_prior = float(self._empty.sum())
        log2_empty = math.log2(empty_prior) if empty_prior > 0 else HIDDEN
        length = layout.block_length
        n_blocks = -(-len(self.patches) // length)
        of_blocks = np.empty((n_blocks, 3))
        weights, pixels = layout.units
        counts = [
            (
                np.zeros((n_rotations, 2 * size**2)),
                np.repeat([weights, pixels], size**2),
            ),
            (np.zeros(n_rotations), weights),
            (np.zeros((2 * size - 1) ** 2), weights),
        ]
        with running_threads(threads) as n_threads:
            slabs = BlockSums(min(n_threads, n_blocks), len(bias), size)
            for first in range(0, n_blocks, n_threads):
                n_now = min(n_threads, n_blocks - first)
                kernels.accumulate_statistics(
                    (0,) * route,
                    (0,) * size,
                    (0,) * LANES,
                    self.patches,
                    length,
                    first,
                    templates.ravel(),
                    bias.ravel(),
                    log2_empty,
                    lost_mass / n_rotations,
                    scratch_length,
                    slabs.images[:n_now],
                    slabs.rotation_mass[:n_now],
                    slabs.shift_mass[:n_now],
                    slabs.tallies[:n_now],
                    posterior,
                )
                for block in range(n_now):
                    sums_of_block = (
                        slabs.images[block, :n_rotations],
                        slabs.rotation_mass[block, :n_rotations],
                        slabs.shift_mass[block],
                    )
                    for (count, unit), slab in zip(counts, sums_of_block, strict=True):
                        count += np.rint(slab * unit)
                    start = (first + block) * length
                    patches = self.patches[start : start + length]
                    energy = np.square(patches, dtype=np.float64).sum()
                    of_blocks[first + block] = *slabs.tallies[block], energy
                if on_progress is not None:
                    on_progress((first + n_now) / n_blocks)
        flat = np.concatenate([count.ravel() for count, _ in counts])
        if not (np.isfinite(flat).all() and np.isfinite(of_blocks).all()):
            where = "patches and images"
            raise NumericalError(where, "sums within float32", "overflow")
        return PartialSums(flat, of_blocks)

    def statistics(self, layout: BatchLayout, sums: PartialSums) -> ImageStatistics:
        """Turn the sums over all blocks of a batch into its statistics."""
        n_rotations, size = len(self.images), self.size
        ends = np.cumsum([n_rotations * 2 * size**2, n_rotations])
        counts, rotation_mass, displacement_mass = np.split(sums.counts, ends)
        weights, pixels = layout.units
        images = counts.reshape(n_rotations, 2, size, size)
        log2_mass, empty, energy = (math.fsum(column) for column in sums.of_blocks.T)
        return ImageStatistics(
            visible_weight=images[:, 0] / weights,
            weighted_patch=images[:, 1] / pixels,
            shift_mass=self.shift_table(displacement_mass / weights, empty),
            rotation_mass=rotation_mass / weights + empty * self.rotation_prior,
            log_likelihood=self._log_likelihood(layout.n_patches, log2_mass, energy),
            patch_energy=energy,
            n_patches=layout.n_patches,
        )

    def _route(self) -> int:
        """Fastest way to the correlations of these projections."""
        if is_spectral(self.size):
            return SPECTRAL
        outside = ~disc(self.size)
        return SQUARE if self.images[:, outside].any() else DISC

    def _templates_and_bias(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Projections and log-priors in base 2, for an even number of rotations."""
        n_rotations, size = len(self.images), self.size
        n_even = n_rotations + n_rotations % 2
        log2_e_per_variance = math.log2(math.e) / self.noise_variance
        templates = np.zeros((n_even, size, size), np.float32)
        with np.errstate(over="ignore"):  # Told by the sums.
            templates[:n_rotations] = self.images * log2_e_per_variance
        energies = np.empty((n_rotations, 2 * size - 1, 2 * size - 1))
        visible_energies(self.images, energies)
        with np.errstate(divide="ignore"):
            log2_prior = np.log2(self.shift_prior[self._visible])
            log2_rotation = np.log2(self.rotation_prior)[:, None, None]
        exponent = log2_prior + log2_rotation - energies * log2_e_per_variance / 2
        bias = np.full((n_even, *energies.shape[1:]), HIDDEN, np.float32)
        bias[:n_rotations] = np.maximum(exponent, HIDDEN)
        return templates, bias

    def shift_table(
        self, displacement_mass: NDArray[np.floating], empty_mass: ArrayLike
    ) -> NDArray[np.float64]:
        """Masses of displacements and of empty as a (..., 2L, 2L) table of shifts."""
        n_shifts, leading = 2 * self.size - 1, displacement_mass.shape[:-1]
        empty_share = self._empty / max(self._empty.sum(), np.finfo(float).tiny)
        spread = np.asarray(empty_mass, np.float64)[..., None, None] * empty_share
        table: NDArray[np.float64] = spread
        rows, columns = self._visible
        table[..., rows, columns] = displacement_mass.reshape(
            *leading, n_shifts, n_shifts
        )
        return table

    def _log_likelihood(self, n_patches: int, log2_mass: float, energy: float) -> float:
        n_pixels = n_patches * self.size**2
        constant: float = n_pixels * math.log(2 * math.pi * self.noise_variance)
        distance = energy / self.noise_variance
        return math.log(2) * log2_mass - (distance + constant) / 2
