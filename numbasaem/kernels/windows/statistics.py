"""The E-step of the window model, tile by tile, in two passes over the rotations.

The first pass adds up the evidence of each window. Sums over neighbourhoods follow. The
second pass computes the products of windows and templates again, and weighs the windows
with them: that costs less than to keep a margin of windows around each tile. Nothing of
size windows x rotations x pixels ever exists.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from numba.extending import overload

from .._jit import STRICT, kernel, parallel_kernel
from ..layout import DISC, SPECTRAL, SQUARE, TILE
from ..llvm import LANES
from . import direct, portable, spectral

_operations = direct if LANES > 1 else portable
_add_evidence_square = _operations.add_evidence
_add_evidence_disc = direct.add_evidence_disc if LANES > 1 else portable.add_evidence
_weigh_square = _operations.weigh_windows
_weigh_disc = direct.weigh_windows_disc if LANES > 1 else portable.weigh_windows
_add_windows_directly = _operations.add_windows
_tile_spectrum = spectral.tile_spectrum
_add_evidence_spectra = spectral.add_evidence
_weigh_spectra = spectral.weigh_windows
_add_windows_spectra = spectral.add_windows

NOWHERE = 1e30
"""Base-2 logarithm of what the weights of a window that is not to count are divided by:
finite, so that it never makes a NaN."""


def tile_windows(route: int, size: int) -> int:
    """Windows along a side of a tile.

    Parameters
    ----------
    route : int
        `SQUARE`, `DISC` or `SPECTRAL`.
    size : int
        L, side of a window.

    Returns
    -------
    int
        T; the tile is T + L - 1 pixels wide.
    """
    if route == SPECTRAL:
        return spectral.tile_pixels(size) - size + 1
    return TILE


def _tile_view(route, side, pixels, spectrum, scratch):  # type: ignore[no-untyped-def]
    """Form of a tile that a route's operations read."""


def _add_evidence(route, side, lanes, operands):  # type: ignore[no-untyped-def]
    """Evidence of a panel in each window; see `portable.add_evidence`."""


def _weigh_windows(route, side, lanes, operands):  # type: ignore[no-untyped-def]
    """Weights of a panel in each window; see `portable.weigh_windows`."""


def _add_windows(route, side, lanes, operands):  # type: ignore[no-untyped-def]
    """Weighted sums of all windows; see `portable.add_windows`."""


@overload(_tile_view)
def _tile_view_by_route(route, side, pixels, spectrum, scratch):  # type: ignore[no-untyped-def]
    def directly(route, side, pixels, spectrum, scratch):  # type: ignore[no-untyped-def]
        return pixels

    def through_spectra(route, side, pixels, spectrum, scratch):  # type: ignore[no-untyped-def]
        _tile_spectrum(side, (0,), (pixels, 0, spectrum, 0, scratch, 0))
        return spectrum

    return through_spectra if route.count == SPECTRAL else directly


@overload(_add_evidence)
def _add_evidence_by_route(route, side, lanes, operands):  # type: ignore[no-untyped-def]
    def square(route, side, lanes, operands):  # type: ignore[no-untyped-def]
        _add_evidence_square(side, lanes, operands[:10])

    def disc(route, side, lanes, operands):  # type: ignore[no-untyped-def]
        _add_evidence_disc(side, lanes, operands[:10])

    def through_spectra(route, side, lanes, operands):  # type: ignore[no-untyped-def]
        _add_evidence_spectra(side, lanes, operands)

    return {SQUARE: square, DISC: disc, SPECTRAL: through_spectra}[route.count]


@overload(_weigh_windows)
def _weigh_windows_by_route(route, side, lanes, operands):  # type: ignore[no-untyped-def]
    def square(route, side, lanes, operands):  # type: ignore[no-untyped-def]
        _weigh_square(side, lanes, operands[:12])

    def disc(route, side, lanes, operands):  # type: ignore[no-untyped-def]
        _weigh_disc(side, lanes, operands[:12])

    def through_spectra(route, side, lanes, operands):  # type: ignore[no-untyped-def]
        _weigh_spectra(side, lanes, operands)

    return {SQUARE: square, DISC: disc, SPECTRAL: through_spectra}[route.count]


@overload(_add_windows)
def _add_windows_by_route(route, side, lanes, operands):  # type: ignore[no-untyped-def]
    def directly(route, side, lanes, operands):  # type: ignore[no-untyped-def]
        _add_windows_directly(side, lanes, operands[:6])

    def through_spectra(route, side, lanes, operands):  # type: ignore[no-untyped-def]
        _add_windows_spectra(side, lanes, operands)

    return through_spectra if route.count == SPECTRAL else directly


@kernel(STRICT)
def _cut(pixels, top, left, n_pixels, tile):  # type: ignore[no-untyped-def]
    """Copy a square that may reach beyond the image, zeros there."""
    for i in range(n_pixels):
        for j in range(n_pixels):
            value = np.float32(0.0)
            if top + i < pixels.shape[0] and left + j < pixels.shape[1]:
                value = pixels[top + i, left + j]
            tile[i * n_pixels + j] = value


@kernel(STRICT)
def _tile_evidence(  # type: ignore[no-untyped-def]
    route,
    side,
    lanes,
    pixels,
    top,
    left,
    n_windows,
    templates,
    bias,
    scratch_length,
    significand,
    exponent,
):
    """First pass over one tile of one region."""
    n_lanes, n_pixels = len(lanes), n_windows + len(side) - 1
    n_panels = bias.size // (2 * n_lanes)
    template_length = templates.size // n_panels
    tile = np.empty(n_pixels * n_pixels, np.float32)
    spectrum = np.empty(2 * n_pixels * n_pixels, np.float32)
    scratch = np.empty(scratch_length, np.float32)
    level = np.zeros(n_windows * n_windows * n_lanes, np.float32)
    total = np.zeros(n_windows * n_windows * n_lanes, np.float32)
    _cut(pixels, top, left, n_pixels, tile)
    view = _tile_view(route, side, tile, spectrum, scratch)
    for panel in range(n_panels):
        template, first = panel * template_length, panel * 2 * n_lanes
        inputs = (view, 0, templates, template, bias, first)
        _add_evidence(route, side, lanes, (*inputs, level, 0, total, 0, scratch, 0))
    for y in range(min(n_windows, significand.shape[0] - top)):
        for x in range(min(n_windows, significand.shape[1] - left)):
            start = (y * n_windows + x) * n_lanes
            highest = level[start]
            for lane in range(n_lanes):
                highest = max(highest, level[start + lane])
            value = 0.0
            for lane in range(n_lanes):
                lower = int(level[start + lane] - highest)
                value += math.ldexp(total[start + lane], lower)
            significand[top + y, left + x] = value
            exponent[top + y, left + x] = int(highest)


@parallel_kernel(STRICT)
def window_evidence(  # type: ignore[no-untyped-def]
    route,
    side,
    lanes,
    pixels,
    tiles,
    n_windows,
    templates,
    bias,
    scratch_length,
    significand,
    exponent,
):
    """Evidence for a particle in every window of some tiles.

    Parameters
    ----------
    route : tuple
        As many zeros as the number of the route, `SQUARE`, `DISC` or `SPECTRAL`.
    side, lanes : tuple of int
        As many zeros as L, and as rotations side by side in a register.
    pixels : float32, shape (n_regions, rows, columns)
        Regions of micrographs.
    tiles : int64, shape (n_tiles, 3)
        Region, and first row and column, of each tile to do.
    n_windows : int
        T, windows along a side of a tile.
    templates : float32, shape (n_panels * L * L * 2 * lanes,) or spectra of them
        Projections times log2(e) / sigma**2, `2 * lanes` rotations to a panel. On the
        Fourier route what `spectral.template_spectra` makes of them.
    bias : float32, shape (n_panels * 2 * lanes,)
        log2 of the factor of the evidence of each rotation.
    scratch_length : int
        float32 elements that the operations of the route need to work in.
    significand : float32, shape (n_regions, rows - L + 1, columns - L + 1)
        Output, at the tiles' windows.
    exponent : int32, shape of `significand`
        Output: the evidence is significand * 2**exponent.

    Returns
    -------
    None
        Writes the outputs.

    Notes
    -----
    S(r) = sum_k pi_k exp a(r, k), times the ratio of the priors.
    """
    for t in prange(len(tiles)):
        region = tiles[t, 0]
        _tile_evidence(
            route,
            side,
            lanes,
            pixels[region],
            tiles[t, 1],
            tiles[t, 2],
            n_windows,
            templates,
            bias,
            scratch_length,
            significand[region],
            exponent[region],
        )


@kernel(STRICT)
def _add_tile(  # type: ignore[no-untyped-def]
    route,
    side,
    lanes,
    pixels,
    log2_sum,
    top,
    left,
    n_windows,
    templates,
    bias,
    scratch_length,
    sums,
    mass,
):
    """Second pass over one tile of one region, added to a block's sums."""
    n_lanes, n_pixels = len(lanes), n_windows + len(side) - 1
    n_panels, image_length = bias.size // (2 * n_lanes), 2 * n_lanes * len(side) ** 2
    template_length = templates.size // n_panels
    denominator = np.full(n_windows * n_windows, NOWHERE, np.float32)
    counting = False
    for y in range(min(n_windows, log2_sum.shape[0] - top)):
        for x in range(min(n_windows, log2_sum.shape[1] - left)):
            value = log2_sum[top + y, left + x]
            denominator[y * n_windows + x] = value
            counting = counting or value < NOWHERE
    if not counting:
        return
    tile = np.empty(n_pixels * n_pixels, np.float32)
    spectrum = np.empty(2 * n_pixels * n_pixels, np.float32)
    scratch = np.empty(scratch_length, np.float32)
    weight = np.empty(n_windows * n_windows * 2 * n_lanes, np.float32)
    image = np.empty(image_length, np.float32)
    panel_mass = np.empty(2 * n_lanes, np.float32)
    _cut(pixels, top, left, n_pixels, tile)
    view = _tile_view(route, side, tile, spectrum, scratch)
    for panel in range(n_panels):
        template, first = panel * template_length, panel * 2 * n_lanes
        image[:], panel_mass[:] = 0, 0
        inputs = (view, 0, templates, template, bias, first, denominator, 0)
        outputs = (weight, 0, panel_mass, 0)
        _weigh_windows(route, side, lanes, (*inputs, *outputs, scratch, 0))
        _add_windows(route, side, lanes, (view, 0, weight, 0, image, 0, scratch, 0))
        for entry in range(image_length):
            sums[panel * image_length + entry] += image[entry]
        for a in range(2 * n_lanes):
            mass[first + a] += panel_mass[a]


@parallel_kernel(STRICT)
def accumulate_windows(  # type: ignore[no-untyped-def]
    route,
    side,
    lanes,
    pixels,
    log2_sum,
    tiles,
    block_length,
    first_block,
    n_windows,
    templates,
    bias,
    scratch_length,
    block_sums,
    block_mass,
):
    """Weigh all windows of consecutive blocks of tiles, and add them up.

    Each block is the work of one thread and writes its own slab, so that the caller
    can add the slabs in order and get the same bits from any number of threads.

    Parameters
    ----------
    route, side, lanes, pixels, n_windows, templates, bias, scratch_length
        As in :func:`window_evidence`.
    log2_sum : float32, shape (n_regions, rows - L + 1, columns - L + 1)
        log2 of what the weights of each window are divided by; `NOWHERE` for windows
        that are not to count.
    tiles : int64, shape (n_tiles, 3)
        Region, and first row and column, of all tiles.
    block_length, first_block : int
        Tiles of a block; number of the first block done.
    block_sums : float64, shape (n_blocks, n_panels * L * L * 2 * lanes)
        Output: b_k, panel by panel and pixel by pixel.
    block_mass : float64, shape (n_blocks, n_panels * 2 * lanes)
        Output: weight of each rotation.

    Returns
    -------
    None
        Writes the outputs.

    Notes
    -----
    b_k = sum_r w(r, k) W_r and m_k = sum_r w(r, k), over a tile in float32, over tiles
    in float64.
    """
    for block in prange(len(block_sums)):
        block_sums[block, :], block_mass[block, :] = 0, 0
        start = (first_block + block) * block_length
        for t in range(start, min(start + block_length, len(tiles))):
            region = tiles[t, 0]
            _add_tile(
                route,
                side,
                lanes,
                pixels[region],
                log2_sum[region],
                tiles[t, 1],
                tiles[t, 2],
                n_windows,
                templates,
                bias,
                scratch_length,
                block_sums[block],
                block_mass[block],
            )
