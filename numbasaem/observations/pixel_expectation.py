"""The E-step of the window model: whole particles at every position of a micrograph."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from numbasaem.errors import NumericalError, expected
from numbasaem.geometry.grids import disc
from numbasaem.kernels.layout import DISC, HIDDEN, SPECTRAL, SQUARE
from numbasaem.kernels.llvm import LANES
from numbasaem.kernels.windows import spectral
from numbasaem.kernels.windows import statistics as windows
from numbasaem.kernels.windows.neighbourhoods import neighbourhood_sums
from numbasaem.threads import running_threads

from .exponents import refuse_large_exponents, strongest_window
from .input_checks import (
    checked_images,
    checked_noise_variance,
    checked_rotation_prior,
)
from .shift_prior import uniform_shift_prior
from .statistics import Statistics
from .window_tiles import Regions, checked_micrograph, is_spectral

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_ENOUGH_BLOCKS, _LONGEST_BLOCK = 64, 16
"""Blocks to share among threads; tiles of the longest, about a second's work."""


def pixel_expectation(
    micrograph: ArrayLike,
    images: ArrayLike,
    noise_variance: float,
    empty_prior: float,
    rotation_prior: ArrayLike | None = None,
    threads: int | None = None,
    mask: ArrayLike | None = None,
) -> tuple[Statistics, NDArray[np.float32]]:
    """Posterior of a particle at every position of a micrograph, summed up.

    Parameters
    ----------
    micrograph : array, shape (rows, columns)
        Pixels; anything but contiguous float32 is converted, once.
    images : array, shape (n_rotations, L, L)
        Projections of the volume, one per rotation.
    noise_variance : float
        sigma**2 of the micrograph's pixels.
    empty_prior : float
        rho_0 in (0, 1): probability that no particle stands in a neighbourhood,
        which is 2L-1 positions wide and high.
    rotation_prior : array, shape (n_rotations,), optional
        Probability of each rotation; uniform if left out.
    threads : int, optional
        Threads to run on; all that Numba may use if left out.
    mask : bool array, shape (rows, columns), optional
        False where a pixel is not to be used; no window that holds one counts.

    Returns
    -------
    Statistics
        Sums over all whole windows, the same bits for any number of threads, in the
        terms of the patches, so that the M-step is the same: `visible_weight` is
        m_k = sum_r w(r, k) at every pixel, `weighted_patch` is b_k = sum_r w(r, k) W_r.
        A window counts as 1 / L**2 patch and stands for its central pixel: those
        pixels are `patch_energy`. `shift_mass` holds the mean posterior of an empty
        neighbourhood, 1 - sum_{r' in N(r), k} w(r', k) where that is positive, and
        spreads the rest evenly over the positions; `rotation_mass` divides the rest as
        m_k. `log_likelihood` is the composite
        objective below.
    float32, shape (rows - L + 1, columns - L + 1)
        sum_k w(r, k), the posterior of a particle whose window begins at pixel r: its
        centre is L // 2 further down and to the right.

    Raises
    ------
    InputError
        If sizes disagree, a value is not finite, the variance is not positive, a
        prior is no probability, `threads` is out of range, no window is whole, or
        log-weights are too large for float32.
    NumericalError
        If a sum overflows.

    Notes
    -----
    With W_r the window of L x L pixels at r, P_k the projection in rotation k, pi_k
    its prior, and N(r) the (2L-1)**2 positions whose windows overlap that at r:

        a(r, k) = (2 <W_r, P_k> - ||P_k||**2) / (2 sigma**2)
        S(r)    = sum_k pi_k exp a(r, k)
        D(r)    = rho_0 + rho_1 sum_{r' in N(r)} S(r'),   rho_0 + (2L-1)**2 rho_1 = 1
        w(r, k) = rho_1 pi_k exp a(r, k) / D(r)

    D(r) is the likelihood ratio of "one particle in N(r), or none" to noise, so that
    w is the posterior given that particles outside N(r) have no bearing on those
    inside. It is exact where all positions overlap, on a micrograph of up to 2L-1
    pixels, and where particles stand out. It neglects that under the separation (5)
    particles less than 2L-1 apart exclude each other even where their windows do not
    overlap, so that it counts weak candidates too often: against all configurations on
    12 x 12 pixels (L = 3, K = 2) the total weight was 45 % high at SNR 0.2, where the
    data tell next to nothing, and 4 % at SNR 6. Under (5) no N(r) holds two particles;
    under closer spacing one may, of which the weaker gets too little.

    The composite objective takes each neighbourhood's mixture as if they were
    independent, to the power 1 / (2L-1)**2, since a particle stands in that many:

        sum_r [ log D(r) / (2L-1)**2 - W_r(centre)**2 / (2 sigma**2)
                - log(2 pi sigma**2) / 2 ].

    Its own EM weighs a particle by the mean of 1 / D over N(r) instead of 1 / D(r), and
    so never falls. The iteration of w is close to it, but has no such bound: the
    objective per patch rose at every step from a random volume at SNR 2, yet fell by up
    to 0.005 between passes that began at the truth at SNR 0.5. The composite's own
    update of rho_0, the mean of rho_0 / D, takes the rims of particles outside N(r) for
    particles inside and comes out too low, 0.16 in place of 0.38; hence that by w.

    Examples
    --------
    >>> pixels = np.random.default_rng(0).standard_normal((24, 20))
    >>> stats, positions = pixel_expectation(pixels, np.ones((1, 5, 5)), 1.0, 0.5)
    >>> positions.shape, stats.n_patches * 25
    ((20, 16), 320.0)
    >>> bool(np.allclose(positions.sum(), stats.visible_weight[0, 0, 0]))
    True
    """
    e_step = PixelExpectation(images, noise_variance, empty_prior, rotation_prior)
    pixels, whole = checked_micrograph(micrograph, mask, e_step.size)
    regions = Regions(pixels[None], whole[None], whole[None])
    statistics, positions = e_step.statistics(regions, threads)
    return statistics, positions[0]


class PixelExpectation:
    """The E-step on checked input, in the form the kernels take.

    Parameters
    ----------
    images, noise_variance, empty_prior, rotation_prior
        As in :func:`pixel_expectation`.
    """

    def __init__(
        self,
        images: ArrayLike,
        noise_variance: float,
        empty_prior: float,
        rotation_prior: ArrayLike | None = None,
    ) -> None:
        self.images = checked_images(images)
        self.noise_variance = checked_noise_variance(noise_variance)
        if not 0 < empty_prior < 1:
            raise expected("empty_prior", "a probability in (0, 1)", empty_prior)
        self.empty_prior = empty_prior
        self.size = self.images.shape[1]
        self.rotation_prior = checked_rotation_prior(rotation_prior, len(self.images))

    @property
    def route(self) -> int:
        """Fastest way to the products with these projections."""
        if is_spectral(self.size):
            return SPECTRAL
        outside = ~disc(self.size)
        return SQUARE if self.images[:, outside].any() else DISC

    def statistics(
        self, regions: Regions, threads: int | None = None
    ) -> tuple[Statistics, NDArray[np.float32]]:
        """Statistics of the windows of some regions, and their posterior.

        Parameters
        ----------
        regions : Regions
            Where to look.
        threads : int, optional
            Threads to run on; all that Numba may use if left out.

        Returns
        -------
        Statistics
            Sums over the windows that count.
        float32, shape (n_regions, rows - L + 1, columns - L + 1)
            sum_k w(r, k), zero for windows that do not count.

        Raises
        ------
        InputError
            As :func:`pixel_expectation`.
        """
        self._check_pixels(regions.pixels)
        size = self.size
        kernels = _Kernels(self, threads)
        log2_sum, posterior = kernels.neighbourhoods(regions)
        counting = regions.counting
        images, mass = kernels.weighted(regions, log2_sum)
        if not (np.isfinite(images).all() and np.isfinite(mass).all()):
            where = "micrograph and images"
            raise NumericalError(where, "sums within float32", "overflow")
        n_windows = int(counting.sum())
        n_patches = n_windows / size**2
        logarithms = log2_sum[counting].astype(np.float64)
        occupied_mass = kernels.box_sums(posterior)[counting]
        empty = float(np.maximum(1 - occupied_mass, 0).mean()) if n_windows else 1.0
        occupied = (1 - empty) * mass / max(mass.sum(), np.finfo(float).tiny)
        rows, columns = (np.arange(n) + size // 2 for n in counting.shape[1:])
        centres = regions.pixels[:, rows][:, :, columns][counting].astype(np.float64)
        energy = float(np.square(centres).sum())
        evidence = math.log(2) * logarithms.sum() + n_windows * math.log(
            self.empty_prior
        )
        gaussian = energy / self.noise_variance + n_windows * math.log(
            2 * math.pi * self.noise_variance
        )
        posterior[~counting] = 0
        statistics = Statistics(
            visible_weight=np.broadcast_to(mass[:, None, None], images.shape).copy(),
            weighted_patch=images,
            shift_mass=n_patches * uniform_shift_prior(size, empty),
            rotation_mass=n_patches * (occupied + empty * self.rotation_prior),
            log_likelihood=float(evidence / (2 * size - 1) ** 2 - gaussian / 2),
            patch_energy=energy,
            n_patches=n_patches,
        )
        return statistics, posterior

    def _check_pixels(self, pixels: NDArray[np.float32]) -> None:
        """Refuse pixels that are not finite or too bright for float32 log-weights."""
        if not np.isfinite(pixels).all():
            raise expected("micrograph", "finite pixels", "NaN or infinity")
        refuse_large_exponents(
            "micrograph and images",
            strongest_window(pixels, self.size),
            self.images,
            self.noise_variance,
        )

    def panels(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Templates in panels of rotations, and base-2 logarithms of their priors."""
        n_rotations, size = len(self.images), self.size
        n_padded = -(-n_rotations // (2 * LANES)) * 2 * LANES
        log2_e_per_variance = math.log2(math.e) / self.noise_variance
        templates = np.zeros((n_padded, size, size), np.float32)
        templates[:n_rotations] = self.images * log2_e_per_variance
        odds = (1 - self.empty_prior) / (2 * size - 1) ** 2 / self.empty_prior
        energies = np.einsum("kij,kij->k", self.images, self.images)
        with np.errstate(divide="ignore"):
            exponent = np.log2(odds * self.rotation_prior)
        exponent -= energies * log2_e_per_variance / 2
        bias = np.full(n_padded, HIDDEN, np.float32)
        bias[:n_rotations] = np.maximum(exponent, HIDDEN)
        split = templates.reshape(-1, 2, LANES, size, size)
        return np.ascontiguousarray(split.transpose(0, 3, 4, 1, 2)), bias


def compile_window_kernels(size: int, whole_square: bool = False) -> None:
    """Compile what :func:`pixel_expectation` runs for windows of a size.

    Parameters
    ----------
    size : int
        L, side of a window, pixels.
    whole_square : bool
        Whether images reach beyond the disc, as those behind a lens do.
    """
    images = np.zeros((1, size, size))
    images[0, 0, 0] = whole_square
    pixel_expectation(np.zeros((size, size)), images, 1.0, 0.5)


class _Kernels:
    """The two passes over the windows, with what both of them are given."""

    def __init__(self, e_step: PixelExpectation, threads: int | None) -> None:
        route, self.size = e_step.route, e_step.size
        self.n_rotations = len(e_step.images)
        panels, self.bias = e_step.panels()
        self.scratch_length = 0
        if route == SPECTRAL:
            panels = spectral.template_spectra(panels)
            self.scratch_length = spectral.scratch_length(self.size, LANES)
        self.templates = panels.ravel()
        self.literals = (0,) * route, (0,) * self.size, (0,) * LANES
        self.side = windows.tile_windows(route, self.size)
        self.threads = threads

    def neighbourhoods(
        self, regions: Regions
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """log2 of D / rho_0 for each window, and the posterior of a particle there."""
        significand = np.empty(regions.whole.shape)
        exponent = np.empty(regions.whole.shape, np.int32)
        tiles = regions.tiles(self.side, regions.whole)
        with running_threads(self.threads):
            windows.window_evidence(
                *self.literals,
                regions.pixels,
                tiles,
                self.side,
                self.templates,
                self.bias,
                self.scratch_length,
                significand,
                exponent,
            )
        significand[~regions.whole] = 0
        exponent[~regions.whole] = 0
        log2_sum = self._log2_sums(significand, exponent)
        posterior = significand * np.exp2(exponent - log2_sum.astype(np.float64))
        return log2_sum, posterior.astype(np.float32)

    def box_sums(self, posterior: NDArray[np.float32]) -> NDArray[np.float64]:
        """Sum of the posteriors in each window's neighbourhood."""
        significand = posterior.astype(np.float64)
        logarithms = self._log2_sums(significand, np.zeros(posterior.shape, np.int32))
        return np.exp2(logarithms.astype(np.float64)) - 1

    def _log2_sums(
        self, significand: NDArray[np.float64], exponent: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        log2_sum = np.empty(significand.shape, np.float32)
        sums, exponents = np.empty_like(significand), np.empty(exponent.shape, np.int64)
        with running_threads(self.threads):
            neighbourhood_sums(
                self.size, significand, exponent, sums, exponents, log2_sum
            )
        return log2_sum

    def weighted(
        self, regions: Regions, log2_sum: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """b_k and sum_r w(r, k), over the windows that count."""
        divisor = np.where(regions.counting, log2_sum, np.float32(windows.NOWHERE))
        tiles = regions.tiles(self.side, regions.counting)
        length = max(1, min(len(tiles) // _ENOUGH_BLOCKS, _LONGEST_BLOCK))
        n_blocks = -(-len(tiles) // length)
        sums = np.zeros(self.bias.size * self.size**2)
        mass = np.zeros(self.bias.size)
        with running_threads(self.threads) as n_threads:
            block_sums = np.empty((min(n_threads, n_blocks), sums.size))
            block_mass = np.empty((min(n_threads, n_blocks), mass.size))
            for first in range(0, n_blocks, n_threads):
                n_now = min(n_threads, n_blocks - first)
                windows.accumulate_windows(
                    *self.literals,
                    regions.pixels,
                    divisor,
                    tiles,
                    length,
                    first,
                    self.side,
                    self.templates,
                    self.bias,
                    self.scratch_length,
                    block_sums[:n_now],
                    block_mass[:n_now],
                )
                for block in range(n_now):  # in order: the same bits always
                    sums += block_sums[block]
                    mass += block_mass[block]
        split = sums.reshape(-1, self.size, self.size, 2, LANES)
        images = split.transpose(0, 3, 4, 1, 2).reshape(-1, self.size, self.size)
        return images[: self.n_rotations], mass[: self.n_rotations]
