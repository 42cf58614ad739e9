"""The E-step of the window model in steerable features: whole particles, all angles."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from numbasaem.errors import NumericalError, expected
from numbasaem.geometry.grids import disc
from numbasaem.kernels.windows import steerable
from numbasaem.kernels.windows import steerable_statistics as kernels
from numbasaem.kernels.windows.neighbourhoods import neighbourhood_sums
from numbasaem.projection.view_projections import ViewProjections
from numbasaem.threads import running_threads

from .exponents import refuse_large_exponents, strongest_window
from .feature_statistics import FeatureStatistics
from .input_checks import checked_noise_variance, checked_rotation_prior
from .shift_prior import uniform_shift_prior
from .window_operands import WindowOperands
from .window_tiles import checked_micrograph

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from numbasaem.geometry.view_grid import ViewGrid
    from numbasaem.volume.basis import VolumeBasis

NEGLIGIBLE = 1e-5
"""Share of all weight that may be left out with the windows that hold least of it."""
_FARTHEST = np.float32(1e30)
"""Divisor, base-2 logarithm, of what is not to count."""
_N_CHUNKS = 64
"""Chunks of blocks to share among threads, where there are as many blocks."""
SLAB_BYTES = 32_000_000
"""Bytes of the sums of chunks that are in memory together."""


def window_expectation(
    micrograph: ArrayLike,
    basis: VolumeBasis,
    x: ArrayLike,
    views: ViewGrid,
    noise_variance: float,
    empty_prior: float,
    rotation_prior: ArrayLike | None = None,
    least_distance: float | None = None,
    mask: ArrayLike | None = None,
    threads: int | None = None,
) -> tuple[FeatureStatistics, NDArray[np.float32]]:
    """Posterior of a particle at every position of a micrograph, summed up.

    Parameters
    ----------
    micrograph : array, shape (rows, columns)
        Pixels; anything but contiguous float32 is converted, once.
    basis : VolumeBasis
        Basis of the volume, M coefficients, side L.
    x : array, shape (M,)
        Real volume coefficients.
    views : ViewGrid
        Rotations that the posterior runs over, K of them.
    noise_variance : float
        sigma**2 of the micrograph's pixels.
    empty_prior : float
        rho_0 in (0, 1): probability that no particle stands in a neighbourhood.
    rotation_prior : array, shape (K,), optional
        Probability of each rotation; uniform if left out.
    least_distance : float, optional
        Smallest distance of particles' centres along the axis where it is larger,
        pixels; L if left out. A neighbourhood is 2 least_distance - 1 positions wide
        and high.
    mask : bool array, shape (rows, columns), optional
        False where a pixel is not to be used; no window that holds one counts.
    threads : int, optional
        Threads to run on; all that Numba may use if left out.

    Returns
    -------
    FeatureStatistics
        Sums over all whole windows, the same bits for any number of threads.
    float32, shape (rows - L + 1, columns - L + 1)
        sum_k w(r, k), the posterior of a particle whose window begins at pixel r: its
        centre is L // 2 further down and to the right.

    Raises
    ------
    InputError
        If sizes disagree, a value is not finite, the variance is not positive, a
        prior is no probability, the distance is below one pixel or above the
        micrograph, `threads` is out of range, no window is whole, or log-weights are
        too large for float32.
    NumericalError
        If a sum overflows.

    Notes
    -----
    With W_r the window of L x L pixels at r, P_k the projection in rotation k, pi_k
    its prior, and N(r) the positions closer to r than `least_distance` on both axes:

        a(r, k) = (2 <W_r, P_k> - ||P_k||**2) / (2 sigma**2)
        S(r)    = sum_k pi_k exp a(r, k)
        D(r)    = rho_0 + rho_1 sum_{r' in N(r)} S(r'),   rho_0 + |N| rho_1 = 1
        w(r, k) = rho_1 pi_k exp a(r, k) / D(r)

    D(r) is the likelihood ratio of one particle in N(r), or none, to noise. Particles
    outside N(r) are taken to have no bearing on those inside: against all
    configurations of four particles of 5 x 5 pixels at SNR 0.05 to 6, the total weight
    was 0 to 4 % low for separated ones, up to 8 % (at SNR 0.2) for touching ones. The
    log-likelihood ratio of the micrograph counts each particle where it stands, and
    what is empty everywhere alike:

        sum_r (sum_k w(r, k) + rho_0 / (|N| D(r))) log D(r)

    Examples
    --------
    >>> from numbasaem import ViewGrid, VolumeBasis
    >>> pixels = np.random.default_rng(0).standard_normal((24, 20))
    >>> basis, views, x = VolumeBasis(5, 2), ViewGrid(40), np.ones(9)
    >>> stats, positions = window_expectation(pixels, basis, x, views, 1.0, 0.5)
    >>> positions.shape, stats.n_patches * 25
    ((20, 16), 320.0)
    """
    size = basis.size
    pixels, whole = checked_micrograph(micrograph, mask, size)
    reach = size if least_distance is None else _reach(least_distance, pixels.shape)
    e_step = WindowExpectation(
        ViewProjections(basis, views),
        x,
        noise_variance,
        empty_prior,
        rotation_prior,
        reach,
    )
    return e_step.statistics(pixels, whole, whole, threads)


def _reach(least_distance: float, shape: tuple[int, ...]) -> int:
    """Distance in whole pixels from which two particles may both be."""
    if not 1 <= least_distance <= max(shape):
        wanted = f"1 to {max(shape)} pixels"
        raise expected("least_distance", wanted, least_distance)
    return math.ceil(least_distance)


class WindowExpectation:
    """The E-step on checked input, in the form the kernels take.

    Parameters
    ----------
    operator : ViewProjections
        Projections in the rotations that the posterior runs over.
    x : array, shape (M,)
        Real volume coefficients.
    noise_variance, empty_prior, rotation_prior
        As in :func:`window_expectation`.
    reach : int
        Particles closer than this, in pixels on both axes, exclude each other.
    """

    def __init__(
        self,
        operator: ViewProjections,
        x: ArrayLike,
        noise_variance: float,
        empty_prior: float,
        rotation_prior: ArrayLike | None,
        reach: int,
    ) -> None:
        if not np.isfinite(x).all():
            raise expected("x", "finite coefficients", "NaN or infinity")
        # Threads of BLAS go on waiting busily, beside those of the kernels.
        with threadpool_limits(1):
            coefficients = operator.coefficients(x)
            self._energies = operator.energies(coefficients)
        self.operator, self.size, self.reach = operator, operator.basis.size, reach
        self.noise_variance = checked_noise_variance(noise_variance)
        if not 0 < empty_prior < 1:
            raise expected("empty_prior", "a probability in (0, 1)", empty_prior)
        self.empty_prior = empty_prior
        views = operator.views
        self.rotation_prior = checked_rotation_prior(rotation_prior, len(views))
        log2_e_per_variance = math.log2(math.e) / self.noise_variance
        odds = (1 - empty_prior) / (2 * reach - 1) ** 2 / empty_prior
        with np.errstate(divide="ignore"):
            exponent = np.log2(odds * self.rotation_prior).reshape(self._energies.shape)
        exponent -= self._energies * log2_e_per_variance / 2
        self._operands = WindowOperands(
            operator, coefficients * log2_e_per_variance, exponent
        )

    def statistics(
        self,
        pixels: NDArray[np.float32],
        whole: NDArray[np.bool_],
        counting: NDArray[np.bool_],
        threads: int | None = None,
    ) -> tuple[FeatureStatistics, NDArray[np.float32]]:
        """Statistics of the windows of a region, and their posterior.

        Parameters
        ----------
        pixels : float32, shape (rows, columns)
            Pixels, finite.
        whole : bool, shape (rows - L + 1, columns - L + 1)
            Windows that may hold a particle.
        counting : bool, of the same shape
            Those of them that are summed up; the others are there as neighbours.
        threads : int, optional
            Threads to run on; all that Numba may use if left out.

        Returns
        -------
        FeatureStatistics
            Sums over the windows that count.
        float32, shape (rows - L + 1, columns - L + 1)
            sum_k w(r, k), zero for windows that do not count.

        Raises
        ------
        InputError, NumericalError
            As :func:`window_expectation`.
        """
        pixels = np.ascontiguousarray(pixels)
        self._check_pixels(pixels)
        with running_threads(threads) as n_threads:
            posterior, log2_sum = self._posterior(pixels, whole)
            neighbours = _box_sums(posterior, self.reach)
            evidence = self._log_evidence(posterior, log2_sum, counting)
            posterior[~counting] = 0
            mass, sums, n_weighed = self._weighed(
                pixels, posterior, log2_sum, n_threads
            )
        if not (np.isfinite(sums).all() and np.isfinite(mass).all()):
            where = "micrograph and images"
            raise NumericalError(where, "sums within float32", "overflow")
        n_windows = int(counting.sum())
        n_patches = n_windows / self.size**2
        empty = 1.0
        if n_windows:
            empty = float(np.maximum(1 - neighbours[counting], 0).mean())
        weight = self._operands.by_angle(mass)
        occupied = (1 - empty) * weight / max(weight.sum(), np.finfo(float).tiny)
        rows, columns = (slice(self.size // 2, self.size // 2 + n) for n in whole.shape)
        centres = pixels[rows, columns][counting].astype(np.float64)
        energy = float(np.square(centres).sum())
        variance = self.noise_variance
        gaussian = energy / variance + n_windows * math.log(2 * math.pi * variance)
        statistics = FeatureStatistics(
            view_weight=weight,
            feature_sums=sums,
            shift_mass=n_patches * uniform_shift_prior(self.size, empty),
            rotation_mass=n_patches * (occupied.ravel() + empty * self.rotation_prior),
            log_likelihood=evidence - gaussian / 2,
            patch_energy=energy,
            n_patches=n_patches,
            n_weighed=n_weighed,
        )
        return statistics, posterior.astype(np.float32)

    def posterior(
        self,
        pixels: NDArray[np.float32],
        whole: NDArray[np.bool_],
        threads: int | None = None,
    ) -> NDArray[np.float32]:
        """Posterior of the windows of a region, without their statistics.

        Parameters
        ----------
        pixels, whole, threads
            As in :meth:`statistics`.

        Returns
        -------
        float32, shape (rows - L + 1, columns - L + 1)
            sum_k w(r, k).

        Raises
        ------
        InputError
            As :func:`window_expectation`.
        """
        pixels = np.ascontiguousarray(pixels)
        self._check_pixels(pixels)
        with running_threads(threads):
            return self._posterior(pixels, whole)[0].astype(np.float32)

    def compile(self) -> None:
        """Compile what :meth:`statistics` runs, so that it is not slow at first."""
        size = self.size
        nothing, window = np.zeros((size, size), np.float32), np.ones((1, 1), bool)
        self.statistics(nothing, window, window, 1)

    def _check_pixels(self, pixels: NDArray[np.float32]) -> None:
        """Refuse pixels that are not finite or too bright for float32 log-weights."""
        if not np.isfinite(pixels).all():
            raise expected("micrograph", "finite pixels", "NaN or infinity")
        refuse_large_exponents(
            "micrograph and images",
            strongest_window(pixels[np.newaxis], self.size),
            math.sqrt(self._energies.max()),
            self.noise_variance,
        )

    def _posterior(
        self, pixels: NDArray[np.float32], whole: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Posterior of each window; log2 of one plus its neighbourhood's evidence."""
        significand, exponent = self._evidence(pixels, whole)
        log2_sum = self._log2_sums(significand, exponent)
        weight = significand * np.exp2(exponent - log2_sum.astype(np.float64))
        return weight, log2_sum

    def _log_evidence(
        self,
        posterior: NDArray[np.float64],
        log2_sum: NDArray[np.float32],
        counting: NDArray[np.bool_],
    ) -> float:
        """Sum over windows of the log-likelihood ratio to noise alone.

        The mean of log D(r) over neighbourhoods would not do: of a particle whose place
        is in doubt, some neighbourhoods see a part, and so it counts in more of them.
        Maps two pixels off their centre had 15 % more.
        """
        log2 = log2_sum[counting].astype(np.float64)
        log_mixture = math.log(2) * log2 + math.log(self.empty_prior)
        emptiness = np.exp2(-log2) / (2 * self.reach - 1) ** 2
        return float(((posterior[counting] + emptiness) * log_mixture).sum())

    def _evidence(
        self, pixels: NDArray[np.float32], whole: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Evidence of each window over that of none: significand and exponent."""
        operands, (n_rows, n_columns) = self._operands, whole.shape
        blocks_a_row = -(-n_columns // steerable.BLOCK)
        # The last block of a row reads as far as its last window would.
        n_padded = blocks_a_row * steerable.BLOCK + self.size
        padded = np.zeros((len(pixels) + 1, n_padded), np.float32)
        padded[: len(pixels), : pixels.shape[1]] = pixels
        rows, columns = np.nonzero(disc(self.size))
        level, total = np.empty((2, n_rows, blocks_a_row, steerable.BLOCK), np.float32)
        kernels.steered_evidence(
            operands.counts,
            operands.lanes,
            operands.images,
            rows * n_padded + columns,
            padded,
            operands.coefficients,
            operands.waves,
            operands.bias,
            level,
            total,
        )
        significand, exponent = (
            blocks.reshape(n_rows, -1)[:, :n_columns] for blocks in (total, level)
        )
        return (
            np.where(whole, significand, 0).astype(np.float64),
            np.where(whole, exponent, 0).astype(np.int32),
        )

    def _log2_sums(
        self, significand: NDArray[np.float64], exponent: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        """log2 of one plus the evidence in each window's neighbourhood."""
        log2_sum = np.empty(significand.shape, np.float32)
        sums = np.empty(significand.shape)
        exponents = np.empty(significand.shape, np.int64)
        neighbourhood_sums(self.reach, significand, exponent, sums, exponents, log2_sum)
        return log2_sum

    def _weighed(
        self,
        pixels: NDArray[np.float32],
        posterior: NDArray[np.float64],
        log2_sum: NDArray[np.float32],
        n_threads: int,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        """Weight of each rotation and sums of features, over windows that matter."""
        operands, taken = self._operands, _that_matter(posterior)
        block, n_taken = steerable.BLOCK, len(taken)
        n_blocks = max(1, -(-n_taken // block))
        divisor = np.full((n_blocks, block), _FARTHEST, np.float32)
        divisor.ravel()[:n_taken] = log2_sum.ravel()[taken]
        corners = np.zeros((n_blocks, block), np.intp)
        rows, columns = np.divmod(taken, posterior.shape[1])
        corners.ravel()[:n_taken] = rows * pixels.shape[1] + columns
        rows, columns = np.nonzero(disc(self.size))
        offsets = rows * pixels.shape[1] + columns
        length = -(-n_blocks // _N_CHUNKS)
        n_chunks = -(-n_blocks // length)
        mass = np.zeros(operands.bias.shape)
        sums = np.zeros(operands.coefficients.shape)
        n_at_once = max(n_threads, SLAB_BYTES // (mass.nbytes + sums.nbytes))
        for first in range(0, n_chunks, n_at_once):
            n_now = min(n_at_once, n_chunks - first)
            chunk_mass = np.empty((n_now, *mass.shape))
            chunk_sums = np.empty((n_now, *sums.shape))
            kernels.accumulate_steered(
                operands.counts,
                operands.lanes,
                operands.images,
                offsets,
                pixels.ravel(),
                corners,
                operands.coefficients,
                operands.waves,
                operands.bias,
                divisor,
                length,
                first,
                chunk_mass,
                chunk_sums,
            )
            for chunk in range(n_now):  # in order: the same bits always
                mass += chunk_mass[chunk]
                sums += chunk_sums[chunk]
        return mass, sums, n_taken


def _box_sums(values: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Sum of the values less than `reach` away on both axes; none is far above 1."""
    for axis in (0, 1):
        n = values.shape[axis]
        before = [(0, 0), (0, 0)]
        before[axis] = (1, 0)
        running = np.pad(np.cumsum(values, axis=axis), before)
        places = np.arange(n)
        last, first = np.minimum(places + reach, n), np.maximum(places - reach + 1, 0)
        values = running.take(last, axis=axis) - running.take(first, axis=axis)
    return values


def _that_matter(posterior: NDArray[np.float64]) -> NDArray[np.intp]:
    """Windows that hold all weight but a negligible share, in order."""
    least = NEGLIGIBLE * posterior.sum() / posterior.size
    return np.flatnonzero(posterior > least)
