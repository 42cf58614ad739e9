"""The E-step of a block of patches: posterior (23), never stored, and its sums.

One pass over the rotations: the weights of a rotation are normalized against the
largest log-weight met so far, its two images are kept per patch, and the true
normalization is applied once all rotations are known. Nothing of size
patches x rotations x shifts ever exists.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from . import portable, simd
from ._jit import STRICT, kernel, parallel_kernel

_operations = simd if simd.LANES > 1 else portable
_correlate = _operations.correlate
_exponentiate = _operations.exponentiate
_box_sums = _operations.box_sums
_adjoint = _operations.adjoint
_add_lanes = _operations.add_lanes

_LOG2_FLUSH = portable.LOG2_FLUSH
HIDDEN = -1e30
"""Base-2 log-weight of a shift of zero prior: finite, so that it never makes a NaN."""


_LN_2 = math.log(2.0)


@kernel(STRICT)
def _power_of_two(exponent):  # type: ignore[no-untyped-def]
    """2**exponent in float64; `exp` is a third of the cost of `pow`."""
    return math.exp(_LN_2 * exponent)


@kernel(STRICT)
def visible_energies(images, energies):  # type: ignore[no-untyped-def]
    """Energy of the part of each projection that a shifted patch sees.

    Parameters
    ----------
    images : float64, shape (n_rotations, L, L)
        Projections.
    energies : float64, shape (n_rotations, 2L-1, 2L-1)
        Output: for displacement (u - (L-1), v - (L-1)), the sum of squares over the
        projection pixels that lie inside the patch.

    Returns
    -------
    None
        Writes `energies`.

    Notes
    -----
    ||C T_l Z P R f||**2 of equation (24) from a summed-area table, O(L**2) for all
    shifts of a rotation.
    """
    n_rotations, size, _ = images.shape
    table = np.zeros((size + 1, size + 1))
    for k in range(n_rotations):
        for i in range(size):
            for j in range(size):
                table[i + 1, j + 1] = (
                    table[i, j + 1]
                    + table[i + 1, j]
                    - table[i, j]
                    + images[k, i, j] ** 2
                )
        for u in range(2 * size - 1):
            top, bottom = max(0, u - size + 1), min(size, u + 1)
            for v in range(2 * size - 1):
                left, right = max(0, v - size + 1), min(size, v + 1)
                inside = (
                    table[bottom, right]
                    - table[top, right]
                    - table[bottom, left]
                    + table[top, left]
                )
                energies[k, u, v] = max(inside, 0.0)


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
def _raise_reference(n_lanes, peak, reference, mass, shift_mass):  # type: ignore[no-untyped-def]
    """Move the common exponent up to the largest log-weight met so far."""
    moved = False
    for lane in range(n_lanes):
        moved = moved or peak[lane] > reference[lane]
    if not moved:
        return
    factor = np.empty(n_lanes, np.float32)
    for lane in range(n_lanes):
        higher = max(peak[lane], reference[lane])
        step = reference[lane] - higher
        factor[lane] = _power_of_two(step) if step > _LOG2_FLUSH else 0.0
        reference[lane] = higher
        mass[lane] *= factor[lane]
    for at in range(shift_mass.size // n_lanes):
        for lane in range(n_lanes):
            shift_mass[at * n_lanes + lane] *= factor[lane]


@kernel(STRICT)
def _worth_keeping(n_lanes, total, mass, lost_mass):  # type: ignore[no-untyped-def]
    """Whether a rotation holds more of some patch's posterior than may be lost.

    `mass` is a lower bound of the patch's whole mass, so skipping every rotation
    below `lost_mass` of it (a share per rotation) loses at most that share in all.
    """
    for lane in range(n_lanes):
        if total[lane] > lost_mass * mass[lane]:
            return True
    return False


@kernel(STRICT)
def _group_statistics(  # type: ignore[no-untyped-def]
    side, lanes, packed, templates, bias, log2_empty, lost_mass, work
):
    """Weights of one group of `lanes` patches under every rotation.

    Leaves in `work` the two images of every rotation, its mass and the exponent they
    refer to, the mass of every shift, and the group's total mass.
    """
    (images, kept, weight, along_rows, shift_mass, peak, level, total, mass, ks) = work
    reference_at, mass_at = ks
    size, n_lanes = len(side), len(lanes)
    n_rotations = templates.size // (size * size)
    n_shifts = 2 * size - 1
    n_pixels = size * size
    n_padded = images.size // (n_rotations * n_lanes)
    shift_mass[:] = 0
    for lane in range(n_lanes):
        level[lane] = log2_empty
        mass[lane] = 1.0
    for k in range(0, n_rotations, 2):
        template, shifts = k * n_pixels, k * n_shifts * n_shifts
        _correlate(
            side,
            lanes,
            (packed, 0, templates, template, bias, shifts, weight, 0, peak, 0),
        )
        _raise_reference(n_lanes, peak, level, mass, shift_mass)
        for r in range(2):
            w = r * n_shifts * n_shifts * n_lanes
            _exponentiate(side, lanes, (weight, w, level, 0, shift_mass, 0, total, 0))
            for lane in range(n_lanes):
                reference_at[k + r, lane] = level[lane]
                mass_at[k + r, lane] = total[lane]
                mass[lane] += total[lane]
            kept[k + r] = _worth_keeping(n_lanes, total, mass, lost_mass)
            if kept[k + r]:
                at = (k + r) * n_padded * n_lanes
                _box_sums(side, lanes, (weight, w, along_rows, 0, images, at))
                at += n_pixels * n_lanes
                _adjoint(side, lanes, (packed, 0, weight, w, images, at))


@kernel(STRICT)
def _merge_group(  # type: ignore[no-untyped-def]
    side, lanes, n_inside, log2_empty, work, sums, rotation, shift, tallies
):
    """Normalize a group's statistics and add them to the block's.

    Returns the base-2 logarithm of each patch's total mass in `work`'s `total`.
    """
    (images, kept, _, _, shift_mass, scale, level, total, mass, ks) = work
    reference_at, mass_at = ks
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
            step = reference_at[k, lane] - total[lane]
            inside = lane < n_inside and step > _LOG2_FLUSH
            scale[lane] = _power_of_two(step) if inside else 0.0
            rotation[k] += scale[lane] * mass_at[k, lane]
        if kept[k]:
            at = k * n_padded
            _add_lanes(side, lanes, (images, at * n_lanes, scale, 0, sums, at))
    for lane in range(n_lanes):
        step = level[lane] - total[lane]
        inside = lane < n_inside and step > _LOG2_FLUSH
        scale[lane] = _power_of_two(step) if inside else 0.0
    for u in range(shift.size):
        value = 0.0
        for lane in range(n_lanes):
            value += scale[lane] * shift_mass[u * n_lanes + lane]
        shift[u] += value


@parallel_kernel(STRICT)
def accumulate_statistics(  # type: ignore[no-untyped-def]
    side,
    lanes,
    patches,
    block_length,
    first_block,
    templates,
    bias,
    log2_empty,
    lost_mass,
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
    side, lanes : tuple of int
        As many zeros as L, and as patches side by side in a vector.
    patches : float32, shape (n_patches, L, L)
        All patches.
    block_length, first_block : int
        Patches of a block (a multiple of `lanes`); number of the first block done.
    templates : float32, shape (n_rotations * L * L,)
        Projections times log2(e) / sigma**2; n_rotations even.
    bias : float32, shape (n_rotations * (2L-1)**2,)
        log2 of shift and rotation prior, minus visible energy log2(e) / (2 sigma**2);
        `HIDDEN` where the prior is zero.
    log2_empty : float
        log2 of the probability that a patch is empty (`HIDDEN` if it is zero).
    lost_mass : float
        Share of a patch's posterior that a rotation may hold and still be left out of
        the images; 0 is exact.
    block_images : float64, shape (n_blocks, n_rotations, 2, L, L)
        Output: visible weight m_k and weighted patch b_k of each block.
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
    and rotation: L**4 multiply-adds for all correlations, as many for the adjoint.
    Images are summed over a block in float32, over blocks in float64. No fast-math:
    log-sum-exp.
    """
    size, n_lanes = len(side), len(lanes)
    n_pixels = size * size
    n_shifts = 2 * size - 1
    n_rotations = templates.size // n_pixels
    n_padded = -(-2 * n_pixels // n_lanes) * n_lanes
    for block in prange(block_tallies.shape[0]):
        work = (
            np.zeros(n_rotations * n_padded * n_lanes, np.float32),
            np.empty(n_rotations, np.bool_),
            np.empty(2 * n_shifts * n_shifts * n_lanes, np.float32),
            np.empty(n_shifts * size * n_lanes, np.float32),
            np.empty(n_shifts * n_shifts * n_lanes, np.float32),
            np.empty(n_lanes, np.float32),
            np.empty(n_lanes, np.float32),
            np.empty(n_lanes, np.float32),
            np.empty(n_lanes, np.float64),
            (
                np.empty((n_rotations, n_lanes), np.float32),
                np.empty((n_rotations, n_lanes), np.float32),
            ),
        )
        packed = np.empty(n_pixels * n_lanes, np.float32)
        sums = np.zeros(n_rotations * n_padded, np.float32)
        rotation, shift = block_rotation_mass[block], block_shift_mass[block]
        rotation[:] = 0
        shift[:] = 0
        block_tallies[block] = 0
        start = (first_block + block) * block_length
        stop = min(start + block_length, patches.shape[0])
        for first in range(start, stop, n_lanes):
            _pack(size, n_lanes, patches, first, packed)
            _group_statistics(
                side, lanes, packed, templates, bias, log2_empty, lost_mass, work
            )
            n_inside = min(n_lanes, stop - first)
            _merge_group(
                side,
                lanes,
                n_inside,
                log2_empty,
                work,
                sums,
                rotation,
                shift,
                block_tallies[block],
            )
            if posterior.shape[0] > 0:
                shift_mass, scale, total = work[4], work[5], work[7]
                for lane in range(n_inside):
                    for u in range(n_shifts * n_shifts):
                        posterior[first + lane, u] = (
                            scale[lane] * shift_mass[u * n_lanes + lane]
                        )
                    step = log2_empty - total[lane]
                    posterior[first + lane, n_shifts * n_shifts] = (
                        _power_of_two(step) if step > _LOG2_FLUSH else 0.0
                    )
        flat = block_images[block].reshape(n_rotations, 2 * n_pixels)
        for k in range(n_rotations):
            flat[k] = sums[k * n_padded : k * n_padded + 2 * n_pixels]
