"""The E-step in steerable features: from pixels to evidence, from weights to sums.

Loops over blocks of windows that put the operations of `steerable` together.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .._jit import STRICT, kernel, parallel_kernel
from .steerable import (
    BLOCK,
    GROUP,
    add_steered_evidence,
    add_window_products,
    weigh_steered,
)


@kernel(STRICT)
def window_features(lanes, images, pixels, corners, offsets, windows, features):  # type: ignore[no-untyped-def]
    """Features of a block of windows: their inner products with images.

    Parameters
    ----------
    lanes : tuple of int
        As many zeros as windows side by side in a register.
    images : float32, shape (n_groups, n_pixels, GROUP)
        Images at the pixels of the disc, in groups.
    pixels : float32, shape (n,)
        The region, laid flat.
    corners : int64, shape (BLOCK,)
        Where the windows begin.
    offsets : int64, shape (n_pixels,)
        Where the pixels of the disc lie after the first one of a window.
    windows : float32, shape (n_pixels * BLOCK,)
        Work space.
    features : float32, shape (n_groups * GROUP * BLOCK,)
        Output: one feature of all windows after the other.

    Returns
    -------
    None
        Writes `features`.

    Notes
    -----
    c and s of <W_r, u cos N phi> and <W_r, u sin N phi>, in float32.
    """
    for pixel in range(len(offsets)):
        for window in range(BLOCK):
            place = corners[window] + offsets[pixel]
            windows[pixel * BLOCK + window] = pixels[place]
    side_by_side = np.arange(len(offsets)) * BLOCK
    for group in range(len(images)):
        add_window_products(
            lanes,
            (
                windows,
                0,
                side_by_side,
                0,
                images[group].ravel(),
                0,
                features,
                group * GROUP * BLOCK,
            ),
            len(offsets),
        )


@parallel_kernel(STRICT)
def steered_evidence(  # type: ignore[no-untyped-def]
    counts,
    lanes,
    images,
    offsets,
    pixels,
    coefficients,
    waves,
    bias,
    level,
    total,
):
    """Evidence for a particle in every window of a region.

    Parameters
    ----------
    counts : tuple
        Of :func:`counts_in_types`, H radial vectors in all.
    lanes : tuple of int
        As many zeros as windows side by side in a register.
    images : float32, shape (n_groups, n_pixels, GROUP)
        Images of the features at the pixels of the disc, in groups.
    offsets : int64, shape (n_pixels,)
        Where those pixels lie after the first one of a window, in `pixels` laid flat.
    pixels : float32, shape (n_pixel_rows, n_columns)
        The region, with as many more columns as the last block of a row reads.
    coefficients : float32, shape (n_pairs, 2H)
        p and q of the first view of each pair times log2(e) / sigma**2.
    waves : float32, shape (n_angles / 4, 2 n_orders)
        cos N psi and sin N psi of the angles of a quarter.
    bias : float32, shape (n_pairs, 2, n_angles / 4, 4)
        log2 of what the evidence of each rotation is multiplied by, at psi, -psi,
        pi - psi and pi + psi.
    level, total : float32, shape (n_rows, blocks_a_row, BLOCK)
        Output: the evidence is total * 2**level, the level a whole number from 0 up.

    Returns
    -------
    None
        Writes the outputs.

    Notes
    -----
    S(r) = sum_k pi_k exp a(r, k), times the ratio of the priors. Features of a block
    are made, used for all views while they are in the nearest cache, and forgotten.
    """
    n_columns, blocks_a_row = pixels.shape[1], level.shape[1]
    flat_pixels = pixels.ravel()
    for block in prange(level.shape[0] * blocks_a_row):
        y, x = block // blocks_a_row, block % blocks_a_row
        level[y, x, :], total[y, x, :] = 0, 0
        features = np.empty(len(images) * GROUP * BLOCK, np.float32)
        first = y * n_columns + x * BLOCK
        for group in range(len(images)):
            add_window_products(
                lanes,
                (
                    flat_pixels,
                    first,
                    offsets,
                    0,
                    images[group].ravel(),
                    0,
                    features,
                    group * GROUP * BLOCK,
                ),
                len(offsets),
            )
        for pair in range(len(coefficients)):
            add_steered_evidence(
                counts,
                lanes,
                (
                    features,
                    0,
                    coefficients[pair],
                    0,
                    waves.ravel(),
                    0,
                    bias[pair].ravel(),
                    0,
                    level[y, x],
                    0,
                    total[y, x],
                    0,
                ),
                len(waves),
            )


@parallel_kernel(STRICT)
def accumulate_steered(  # type: ignore[no-untyped-def]
    counts,
    lanes,
    images,
    offsets,
    pixels,
    corners,
    coefficients,
    waves,
    bias,
    divisor,
    chunk_length,
    first_chunk,
    mass,
    sums,
):
    """Weigh all windows of consecutive chunks of blocks, and add up their features.

    Each chunk is the work of one thread and writes its own slab, so that the caller can
    add the slabs in order and get the same bits from any number of threads.

    Parameters
    ----------
    counts, lanes, images, offsets, coefficients, waves, bias
        As in :func:`steered_evidence`.
    pixels : float32, shape (n,)
        The region, laid flat.
    corners : int64, shape (n_blocks, BLOCK)
        Where the windows begin.
    divisor : float32, shape (n_blocks, BLOCK)
        log2 of what the weights of each window are divided by.
    chunk_length, first_chunk : int
        Blocks of a chunk; number of the first chunk done.
    mass : float64, shape (n_chunks, n_pairs, 2, n_angles / 4, 4)
        Output: weight of each rotation.
    sums : float64, shape (n_chunks, n_pairs, 2H)
        Output: features turned back onto p and q of each pair, weighted.

    Returns
    -------
    None
        Writes the outputs.

    Notes
    -----
    With wc_N = sum_psi w cos N psi and ws_N = sum_psi w sin N psi, a view gets
    sum_r wc c + ws s for p and sum_r wc s - ws c for q; the mirrored view the same with
    the sign of q turned. Over a block in float32, over blocks in float64.
    """
    n_pairs, n_features = coefficients.shape
    n_lanes, n_masses = len(lanes), bias[0].size
    for chunk in prange(len(mass)):
        lane_mass = np.empty(n_masses * n_lanes, np.float32)
        lane_sums = np.empty(n_features * n_lanes, np.float32)
        room = np.empty(2 * waves.shape[1] * BLOCK, np.float32)
        features = np.empty(len(images) * GROUP * BLOCK, np.float32)
        windows = np.empty(len(offsets) * BLOCK, np.float32)
        flat_mass, flat_sums = mass[chunk].reshape(n_pairs, -1), sums[chunk]
        flat_mass[:], flat_sums[:] = 0, 0
        start = (first_chunk + chunk) * chunk_length
        for block in range(start, min(start + chunk_length, len(corners))):
            window_features(
                lanes, images, pixels, corners[block], offsets, windows, features
            )
            for pair in range(n_pairs):
                lane_mass[:], lane_sums[:] = 0, 0
                weigh_steered(
                    counts,
                    lanes,
                    (
                        features,
                        0,
                        coefficients[pair],
                        0,
                        waves.ravel(),
                        0,
                        bias[pair].ravel(),
                        0,
                        divisor[block],
                        0,
                        lane_mass,
                        0,
                        lane_sums,
                        0,
                        room,
                        0,
                    ),
                    len(waves),
                )
                for k in range(n_masses):
                    value = np.float32(0)
                    for lane in range(n_lanes):
                        value += lane_mass[k * n_lanes + lane]
                    flat_mass[pair, k] += value
                for k in range(n_features):
                    value = np.float32(0)
                    for lane in range(n_lanes):
                        value += lane_sums[k * n_lanes + lane]
                    flat_sums[pair, k] += value
