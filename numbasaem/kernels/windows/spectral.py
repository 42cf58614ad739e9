"""The operations of `numbasaem.kernels.windows.direct` through Fourier transforms.

The work for a window and rotation is O(log n), whatever L is. The rotations of a
panel's two registers are the real and the imaginary part of one complex image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..llvm import Vectors, index, repeat, vector_intrinsic
from ..transforms import (
    ZERO,
    Arithmetic,
    Image,
    inverse_transform,
    row_length,
    transform,
)
from .direct import Evidence, Shares

if TYPE_CHECKING:
    from llvmlite import ir
    from numpy.typing import NDArray

LARGEST = 64
"""Largest L that the transforms are long enough for."""
_SIDES = ((16, 64), (LARGEST, 96))
"""Largest L, and the side of the transforms that then take the least time a window."""
_FASTER_FROM = {16: 11, 8: 12, 4: 12}
"""Smallest L for which transforms take less time than sums over pixels, by lanes.

Measured at 16 lanes on a busy machine, one thread and 64 rotations, sums over pixels
first: 18.6 against 22.2 ms at L = 9, 23.7 against 21.9 at L = 11.
Not measured at 8 and 4 lanes.
"""


def faster_from(lanes: int) -> int:
    """Smallest L for which transforms take less time than sums over pixels.

    Parameters
    ----------
    lanes : int
        float32 lanes of a register.

    Returns
    -------
    int
        L; without vectors, more than `LARGEST`.
    """
    return _FASTER_FROM.get(lanes, LARGEST + 1)


def tile_pixels(size: int) -> int:
    """Side n of a tile in pixels, and of the transforms.

    Parameters
    ----------
    size : int
        L, side of a window; at most `LARGEST`.

    Returns
    -------
    int
        n; a tile holds n - L + 1 windows a side.
    """
    return next(side for largest, side in _SIDES if size <= largest)


def scratch_length(size: int, lanes: int) -> int:
    """float32 elements of scratch space that the operations need."""
    side = tile_pixels(size)
    return side * row_length(side) * 2 * lanes


def template_spectra(panels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Spectra of templates, as the operations read them.

    Parameters
    ----------
    panels : float32, shape (n_panels, L, L, 2, lanes)
        Projections in the units of the log-weights.

    Returns
    -------
    float32, shape (n_panels, n, n, 2, lanes)
        Column by column, the transforms of the mirrored templates of the first
        register plus i times those of the second; the real, then the imaginary part.
    """
    n_panels, size, _, _, lanes = panels.shape
    side = tile_pixels(size)
    spectra = np.empty((n_panels, side, side, 2, lanes), np.float32)
    mirrored = -np.arange(size) % side
    for panel, out in zip(panels, spectra, strict=True):
        moved = np.zeros((side, side, lanes), np.complex64)
        moved[np.ix_(mirrored, mirrored)] = panel[:, :, 0] + 1j * panel[:, :, 1]
        transformed = np.fft.fft2(moved, axes=(0, 1)).swapaxes(0, 1)
        out[:, :, 0], out[:, :, 1] = transformed.real, transformed.imag
    return spectra


def _emit_tile_spectrum(builder, size, lanes, pointers):  # type: ignore[no-untyped-def]
    """Transform of a tile over n**2, column by column; one lane."""
    pixels, spectrum, scratch = pointers
    side = tile_pixels(size)
    v, row = Vectors(builder, lanes), row_length(side)
    do = Arithmetic(v)
    image, spectra = Image(v, scratch, row), Image(v, spectrum, side)

    def one_row(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        source = builder.gep(pixels, [builder.mul(i, index(side * lanes))])
        line = image.line(i, row)
        x = [(v.load(source, j * lanes), None) for j in range(side)]
        for j, value in enumerate(transform(do, x)):
            image.store(value, line, j)
        return []

    def one_column(j: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        line, out = image.line(j, 1), spectra.line(j, side)
        x = [image.load(line, i * row) for i in range(side)]
        for i, value in enumerate(transform(do, x)):
            spectra.store(do.scaled_sum([(value, 1 / side**2)]), out, i)
        return []

    repeat(builder, index(side), [], one_row)
    repeat(builder, index(side), [], one_column)


def _each_window(builder, size, lanes, spectrum, template, bias, scratch, use):  # type: ignore[no-untyped-def]
    """Emit `use(exponents, window)` for every window of the tile."""
    side = tile_pixels(size)
    n_windows = side - size + 1
    v, row = Vectors(builder, lanes), row_length(side)
    do = Arithmetic(v)
    image, templates = Image(v, scratch, row), Image(v, template, side)

    def one_column(j: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        tile_column = builder.gep(spectrum, [builder.mul(j, index(2 * side))])
        template_column, line = templates.line(j, side), image.line(j, 1)
        products = []
        for i in range(side):
            value = (
                v.broadcast(tile_column, 2 * i),
                v.broadcast(tile_column, 2 * i + 1),
            )
            products.append(do.product(value, templates.load(template_column, i)))
        inside = inverse_transform(do, products)[:n_windows]
        for i, value in enumerate(inside):
            image.store(value, line, i * row)
        return []

    def one_row(y: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        line = image.line(y, row)
        products = inverse_transform(do, [image.load(line, j) for j in range(side)])
        for x, value in enumerate(products[:n_windows]):
            image.store(value, line, x)
        first = builder.mul(y, index(n_windows))

        def one_window(x: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            place = builder.gep(line, [builder.mul(x, index(2 * lanes))])
            exponents = [
                builder.fadd(v.load(place, r * lanes), v.load(bias, r * lanes))
                for r in range(2)
            ]
            use(exponents, builder.add(first, x))
            return []

        repeat(builder, index(n_windows), [], one_window)
        return []

    repeat(builder, index(side), [], one_column)
    repeat(builder, index(n_windows), [], one_row)


def _emit_add_evidence(builder, size, lanes, pointers):  # type: ignore[no-untyped-def]
    """Sums over the rotations of a panel; what `direct.add_evidence` computes."""
    spectrum, template, bias, level, total, scratch = pointers
    evidence = Evidence(Vectors(builder, lanes), level, total)
    _each_window(builder, size, lanes, spectrum, template, bias, scratch, evidence.add)


def _emit_weigh_windows(builder, size, lanes, pointers):  # type: ignore[no-untyped-def]
    """Weights of a panel's rotations; what `direct.weigh_windows` computes."""
    spectrum, template, bias, log2_sum, weight, mass, scratch = pointers
    shares = Shares(Vectors(builder, lanes), log2_sum, weight, mass)
    _each_window(builder, size, lanes, spectrum, template, bias, scratch, shares.store)


def _emit_add_windows(builder, size, lanes, pointers):  # type: ignore[no-untyped-def]
    """Sum of weighted windows; what `direct.add_windows` computes."""
    spectrum, weight, sums, scratch = pointers
    side = tile_pixels(size)
    n_windows = side - size + 1
    v, row = Vectors(builder, lanes), row_length(side)
    do, outside = Arithmetic(v), [ZERO] * (side - n_windows)
    image, weights = Image(v, scratch, row), Image(v, weight, n_windows)
    images = Image(v, sums, size)

    def one_row_of_windows(y: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        source, line = weights.line(y, n_windows), image.line(y, row)
        x = [weights.load(source, x) for x in range(n_windows)]
        for j, value in enumerate(transform(do, x + outside)):
            image.store(value, line, j)
        return []

    def one_column(j: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        tile_column = builder.gep(spectrum, [builder.mul(j, index(2 * side))])
        line = image.line(j, 1)
        x = [image.load(line, y * row) for y in range(n_windows)]
        products = []
        for i, value in enumerate(transform(do, x + outside)):
            re = v.broadcast(tile_column, 2 * i)
            im = v.broadcast(tile_column, 2 * i + 1)
            products.append(do.product((re, builder.fneg(im)), value))
        # forward again: the sum for pixel (i, j) stands at (-i, -j) of the inverse
        for i, value in enumerate(transform(do, products)[:size]):
            image.store(value, line, i * row)
        return []

    def one_row_of_pixels(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        line, target = image.line(i, row), images.line(i, size)
        values = transform(do, [image.load(line, j) for j in range(side)])
        for j, value in enumerate(values[:size]):
            images.store(do.add(images.load(target, j), value), target, j)
        return []

    repeat(builder, index(n_windows), [], one_row_of_windows)
    repeat(builder, index(side), [], one_column)
    repeat(builder, index(size), [], one_row_of_pixels)


tile_spectrum = vector_intrinsic(_emit_tile_spectrum, n_arrays=3)
add_evidence = vector_intrinsic(_emit_add_evidence, n_arrays=6)
weigh_windows = vector_intrinsic(_emit_weigh_windows, n_arrays=7)
add_windows = vector_intrinsic(_emit_add_windows, n_arrays=4)
