"""The E-step of a block of patches: posterior (23), never stored, and its sums.

There is one pass over the rotations. The weights of a rotation refer to the largest
log-weight met so far; its two images are kept for each patch; they are normalized once
all rotations are done. Nothing of size patches x rotations x shifts ever exists.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from numba.extending import overload

from .._jit import STRICT, kernel, parallel_kernel
from ..layout import DISC, LOG2_FLUSH, SPECTRAL, SQUARE
from ..llvm import LANES
from . import direct, portable, spectral

_operations = direct if LANES > 1 else portable
_weigh_square = _operations.weigh
_weigh_disc = direct.weigh_disc if LANES > 1 else portable.weigh
_add_weights = _operations.add_weights
_box_sums = _operations.box_sums
_adjoint = _operations.adjoint
_add_lanes = _operations.add_lanes
_patch_spectrum = spectral.patch_spectrum
_weigh_spectra = spectral.weigh
_adjoint_spectra = spectral.adjoint

_HEADROOM = 20.0
"""Powers of two by which a log-weight may exceed the level that it refers to."""
_LOG2_FORGET = LOG2_FLUSH - _HEADROOM
"""Base-2 logarithm, relative to the level, below which a sum is taken for zero: its
products would come close to the denormal numbers."""
_LEAST_MASS = 1e-30
"""Least sum that is not taken for zero when the level moves: nothing gets denormal."""


_LN_2 = math.log(2.0)


def _view(route, side, lanes, packed, spectrum, scratch):  # type: ignore[no-untyped-def]
    """Form of a group of patches that a route's operations read."""


def _weigh(route, side, lanes, operands):  # type: ignore[no-untyped-def]
    """Weights of all shifts, two rotations; see `portable.weigh`."""


def _show(route, side, lanes, operands):  # type: ignore[no-untyped-def]
    """Images of two rotations: visible weights and weighted patches."""


@overload(_view)
def _view_by_route(route, side, lanes, packed, spectrum, scratch):  # type: ignore[no-untyped-def]
    def directly(route, side, lanes, packed, spectrum, scratch):  # type: ignore[no-untyped-def]
        return packed

    def through_spectra(route, side, lanes, packed, spectrum, scratch):  # type: ignore[no-untyped-def]
        _patch_spectrum(side, lanes, (packed, 0, spectrum, 0, scratch, 0))
        return spectrum

    return through_spectra if route.count == SPECTRAL else directly


@overload(_weigh)
def _weigh_by_route(route, side, lanes, operands):  # type: ignore[no-untyped-def]
    def square(route, side, lanes, operands):  # type: ignore[no-untyped-def]
        _weigh_square(side, lanes, operands[:14])

    def disc(route, side, lanes, operands):  # type: ignore[no-untyped-def]
        _weigh_disc(side, lanes, operands[:14])

    def through_spectra(route, side, lanes, operands):  # type: ignore[no-untyped-def]
        _weigh_spectra(side, lanes, operands)

    return {SQUARE: square, DISC: disc, SPECTRAL: through_spectra}[route.count]


@overload(_show)
def _show_by_route(route, side, lanes, operands):  # type: ignore[no-untyped-def]
    def directly(route, side, lanes, operands):  # type: ignore[no-untyped-def]
        # one rotation after the other: its weights stay in the nearest cache
        patch, weight, images, first, second, scratch = operands
        n_pixels, w = len(side) ** 2 * len(lanes), 0
        for image in (first, second):
            _box_sums(side, lanes, (weight, w, scratch, 0, images, image))
            _adjoint(side, lanes, (patch, 0, weight, w, images, image + n_pixels))
            w += (2 * len(side) - 1) ** 2 * len(lanes)

    def through_spectra(route, side, lanes, operands):  # type: ignore[no-untyped-def]
        patch, weight, images, first, second, scratch = operands
        n_pixels = len(side) ** 2 * len(lanes)
        w = 0
        for image in (first, second):
            _box_sums(side, lanes, (weight, w, scratch, 0, images, image))
            w += (2 * len(side) - 1) ** 2 * len(lanes)
        weighted = (images, first + n_pixels, images, second + n_pixels)
        _adjoint_spectra(side, lanes, (patch, 0, weight, 0, *weighted, scratch, 0))

    return through_spectra if route.count == SPECTRAL else directly


@kernel(STRICT)
def _power_of_two(exponent):  # type: ignore[no-untyped-def]
    """2**exponent in float64; `exp` is a third of the cost of `pow`."""
    return math.exp(_LN_2 * exponent)


@kernel(STRICT)
def _pack(size, n_lanes, patches, first, packed):  # type: ignore[no-untyped-def]
    """Interleave `lanes` patches pixel by pixel; lanes past the last hold zeros."""
    for lane in range(n_lanes):
        inside = first + lane < patches.shape[0]
        for pixel in range(size * size):
            value = np.float32(0.0)
            if inside:
                value = patches[first + lane, pixel // size, pixel % size]
            packed[pixel * n_lanes + lane] = value


@kernel(STRICT)
def _raise_level(n_lanes, peak, headroom, level, mass, shift_mass):  # type: ignore[no-untyped-def]
    """Move the common exponent up to the largest log-weight met so far.

    Only for patches whose largest log-weight is above the level by more than
    `headroom`; returns whether there was any.
    """
    moved = False
    for lane in range(n_lanes):
        moved = moved or peak[lane] > level[lane] + headroom
    if not moved:
        return False
    factor = np.ones(n_lanes, np.float32)
    for lane in range(n_lanes):
        if peak[lane] > level[lane] + headroom:
            step = level[lane] - peak[lane]
            factor[lane] = _power_of_two(step) if step > _LOG2_FORGET else 0.0
            level[lane] = peak[lane]
            mass[lane] *= factor[lane]
    for shift in range(shift_mass.size // n_lanes):
        for lane in range(n_lanes):
            value = shift_mass[shift * n_lanes + lane] * factor[lane]
            shift_mass[shift * n_lanes + lane] = value if value > _LEAST_MASS else 0.0
    return True


@kernel(STRICT)
def _worth_keeping(n_lanes, total, mass, lost_mass):  # type: ignore[no-untyped-def]
    """Whether one of two rotations holds more of some posterior than may be lost.

    `mass` is a lower bound of the patch's whole mass, so skipping every rotation
    below `lost_mass` of it (a share per rotation) loses at most that share in all.
    """
    for r in range(2):
        for lane in range(n_lanes):
            if total[r * n_lanes + lane] > lost_mass * mass[lane]:
                return True
    return False


@kernel(STRICT)
def _group_statistics(  # type: ignore[no-untyped-def]
    route, side, lanes, patch, templates, bias, log2_empty, lost_mass, work
):
    """Weights of one group of `lanes` patches under every rotation.

    Leaves in `work` the two images of every rotation, its mass and the exponent they
    refer to, the mass of every shift, and the group's total mass.
    """
    (images, kept, weight, scratch, shift_mass) = work[:5]
    (peak, level, total, mass, level_at, mass_at) = work[5:]
    size, n_lanes = len(side), len(lanes)
    n_rotations = kept.size
    n_shifts = 2 * size - 1
    template_length = 2 * templates.size // n_rotations
    image_length = images.size // n_rotations
    for entry in range(shift_mass.size):
        shift_mass[entry] = 0
    for lane in range(n_lanes):
        level[lane] = log2_empty
        mass[lane] = 1.0
    for pair in range(n_rotations // 2):
        template, shifts = pair * template_length, 2 * pair * n_shifts * n_shifts
        inputs = (patch, 0, templates, template, bias, shifts, level, 0)
        outputs = (weight, 0, total, 0, peak, 0)
        for _ in range(2):  # again if a log-weight was far above the level
            _weigh(route, side, lanes, (*inputs, *outputs, scratch, 0))
            if not _raise_level(n_lanes, peak, _HEADROOM, level, mass, shift_mass):
                break
        _add_weights(side, lanes, (weight, 0, shift_mass, 0))
        for lane in range(n_lanes):
            for r in range(2):
                entry = (2 * pair + r) * n_lanes + lane
                level_at[entry] = level[lane]
                mass_at[entry] = total[r * n_lanes + lane]
                mass[lane] += total[r * n_lanes + lane]
        keep = _worth_keeping(n_lanes, total, mass, lost_mass)
        _raise_level(n_lanes, peak, 0.0, level, mass, shift_mass)
        kept[2 * pair], kept[2 * pair + 1] = keep, keep
        if keep:
            first = 2 * pair * image_length
            second = first + image_length
            _show(route, side, lanes, (patch, weight, images, first, second, scratch))


@kernel(STRICT)
def _merge_group(  # type: ignore[no-untyped-def]
    side, lanes, n_inside, log2_empty, work, sums, rotation, shift, tallies
):
    """Normalize a group's statistics and add them to the block's.

    Returns the base-2 logarithm of each patch's total mass in `work`'s `total`.
    """
    (images, kept, _, _, shift_mass) = work[:5]
    (scale, level, total, mass, level_at, mass_at) = work[5:]
    n_lanes = len(lanes)
    n_rotations = kept.size
    n_padded = sums.size // n_rotations
    for lane in range(n_lanes):
        total[lane] = level[lane] + math.log2(mass[lane])
        if lane < n_inside:
            tallies[0] += total[lane]
            tallies[1] += _power_of_two(log2_empty - total[lane])
    for k in range(n_rotations):
        for lane in range(n_lanes):
            step = level_at[k * n_lanes + lane] - total[lane]
            inside = lane < n_inside and step > _LOG2_FORGET
            scale[lane] = _power_of_two(step) if inside else 0.0
            rotation[k] += scale[lane] * mass_at[k * n_lanes + lane]
        if kept[k]:
            image = k * n_padded
            _add_lanes(side, lanes, (images, image * n_lanes, scale, 0, sums, image))
    for lane in range(n_lanes):
        step = level[lane] - total[lane]
        inside = lane < n_inside and step > _LOG2_FORGET
        scale[lane] = _power_of_two(step) if inside else 0.0
    for u in range(shift.size):
        value = 0.0
        for lane in range(n_lanes):
            value += scale[lane] * shift_mass[u * n_lanes + lane]
        shift[u] += value


@kernel(STRICT)
def _store_posterior(n_lanes, n_inside, log2_empty, work, posterior, first):  # type: ignore[no-untyped-def]
    """Write a group's posterior of the displacements, and of being empty."""
    (_, _, _, _, shift_mass, scale, _, total, _, _, _) = work
    n_shifts = shift_mass.size // n_lanes
    for lane in range(n_inside):
        for u in range(n_shifts):
            value = scale[lane] * shift_mass[u * n_lanes + lane]
            posterior[first + lane, u] = value
        step = log2_empty - total[lane]
        empty = _power_of_two(step) if step > _LOG2_FORGET else 0.0
        posterior[first + lane, n_shifts] = empty


@kernel(STRICT)
def _block_statistics(  # type: ignore[no-untyped-def]
    route,
    side,
    lanes,
    patches,
    templates,
    bias,
    log2_empty,
    lost_mass,
    scratch_length,
    images,
    rotation_mass,
    shift_mass,
    tallies,
    posterior,
):
    """Statistics of one block of patches, group by group."""
    size, n_lanes = len(side), len(lanes)
    n_pixels, n_shifts = size * size, (2 * size - 1) ** 2
    n_rotations = rotation_mass.size
    n_padded = -(-2 * n_pixels // n_lanes) * n_lanes
    work = (
        np.zeros(n_rotations * n_padded * n_lanes, np.float32),
        np.empty(n_rotations, np.bool_),
        np.empty(2 * n_shifts * n_lanes, np.float32),
        np.empty(scratch_length, np.float32),
        np.empty(n_shifts * n_lanes, np.float32),
        np.empty(n_lanes, np.float32),
        np.empty(n_lanes, np.float32),
        np.empty(2 * n_lanes, np.float32),
        np.empty(n_lanes, np.float64),
        np.empty(n_rotations * n_lanes, np.float32),
        np.empty(n_rotations * n_lanes, np.float32),
    )
    packed = np.empty(n_pixels * n_lanes, np.float32)
    spectrum = np.empty(2 * templates.size // n_rotations * n_lanes, np.float32)
    sums = np.zeros(n_rotations * n_padded, np.float32)
    for k in range(n_rotations):
        rotation_mass[k] = 0
    for u in range(n_shifts):
        shift_mass[u] = 0
    tallies[0], tallies[1] = 0, 0
    for first in range(0, patches.shape[0], n_lanes):
        n_inside = min(n_lanes, patches.shape[0] - first)
        _pack(size, n_lanes, patches, first, packed)
        patch = _view(route, side, lanes, packed, spectrum, work[3])
        _group_statistics(
            route, side, lanes, patch, templates, bias, log2_empty, lost_mass, work
        )
        _merge_group(
            side,
            lanes,
            n_inside,
            log2_empty,
            work,
            sums,
            rotation_mass,
            shift_mass,
            tallies,
        )
        if posterior.shape[0] > 0:
            _store_posterior(n_lanes, n_inside, log2_empty, work, posterior, first)
    for k in range(n_rotations):
        for pixel in range(2 * n_pixels):
            images[k, pixel] = sums[k * n_padded + pixel]


@parallel_kernel(STRICT)
def accumulate_statistics(  # type: ignore[no-untyped-def]
    route,
    side,
    lanes,
    patches,
    block_length,
    first_block,
    templates,
    bias,
    log2_empty,
    lost_mass,
    scratch_length,
    block_images,
    block_rotation_mass,
    block_shift_mass,
    block_tallies,
    posterior,
):
    """Posterior of consecutive blocks of patches, summed into sufficient statistics.

    Each block is the work of one thread and writes its own slab, so that the caller
    can add the slabs in order and get the same bits from any number of threads.

    Parameters
    ----------
    route : tuple
        As many zeros as the number of the route, `SQUARE`, `DISC` or `SPECTRAL`.
    side, lanes : tuple of int
        As many zeros as L, and as patches side by side in a vector.
    patches : float32, shape (n_patches, L, L)
        All patches.
    block_length, first_block : int
        Patches of a block (a multiple of `lanes`); number of the first block done.
    templates : float32, shape (n_rotations * L * L,) or (n_rotations * n * n,)
        Projections times log2(e) / sigma**2; n_rotations even. On the Fourier route
        the spectra of :func:`template_spectra`.
    bias : float32, shape (n_rotations * (2L-1)**2,)
        log2 of shift and rotation prior, minus visible energy log2(e) / (2 sigma**2);
        `HIDDEN` where the prior is zero.
    log2_empty : float
        log2 of the probability that a patch is empty (`HIDDEN` if it is zero).
    lost_mass : float
        Share of a patch's posterior that a rotation may hold and still be left out of
        the images; 0 is exact.
    scratch_length : int
        float32 elements that the operations of the route need to work in.
    block_images : float64, shape (n_blocks, n_rotations, 2 * L * L)
        Output: pixels of the visible weight m_k, then of the weighted patch b_k.
    block_rotation_mass : float64, shape (n_blocks, n_rotations)
        Output: posterior of each rotation, empty patches left out.
    block_shift_mass : float64, shape (n_blocks, (2L-1)**2)
        Output: posterior of each displacement.
    block_tallies : float64, shape (n_blocks, 2)
        Output: sum of the base-2 log of the patches' total mass; mass of empty.
    posterior : float32, shape (n_patches, (2L-1)**2 + 1) or (0, 0)
        Output, if not of length zero: each patch's posterior of the displacements,
        and last of being empty.

    Returns
    -------
    None
        Writes the outputs.

    Notes
    -----
    Equations (23), (24) and the sums over patches in (30), (34), (36). Work per patch
    and rotation: L**4 multiply-adds for all correlations, as many for the adjoint, or
    O(L**2 log L) on the Fourier route.
    Images are summed over a block in float32, over blocks in float64. No fast-math:
    log-sum-exp.
    """
    for block in prange(block_tallies.shape[0]):
        start = (first_block + block) * block_length
        _block_statistics(
            route,
            side,
            lanes,
            patches[start : start + block_length],
            templates,
            bias,
            log2_empty,
            lost_mass,
            scratch_length,
            block_images[block],
            block_rotation_mass[block],
            block_shift_mass[block],
            block_tallies[block],
            posterior[start : start + block_length],
        )
