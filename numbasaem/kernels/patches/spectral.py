"""Correlation and adjoint through Fourier transforms: O(L**2 log L) a rotation.

The transforms are straight-line vector code, `lanes` patches side by side. Two
rotations are the real and the imaginary part of one complex image, so that all
transforms are complex. Their side n is so long that nothing wraps round onto a pixel
that is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..llvm import Vectors, Weights, index, repeat, vector_intrinsic
from ..transforms import (
    ZERO,
    Arithmetic,
    Image,
    inverse_transform,
    row_length,
    transform,
)

if TYPE_CHECKING:
    from llvmlite import ir
    from numpy.typing import NDArray

_SIDES = (
    *(9, 10, 12, 15, 16, 18, 20, 24, 30, 32, 36, 40, 48, 60, 64, 72, 80, 96),
    *(100, 108, 128, 144, 160, 180, 192, 216, 256),
)
"""Sides whose transforms cost less than those of any longer side: measured up to 96,
beyond it by the number of instructions."""
LARGEST = (_SIDES[-1] + 1) // 2
"""Largest L that the transforms are long enough for."""
_FASTER_FROM = {16: 12, 8: 12, 4: 12}
"""Smallest L for which transforms take less time than sums over pixels, by lanes.

Measured at 16 lanes on a busy machine, one thread and 64 rotations, sums over pixels
first: 5.6 against 7.9 ms at L = 9, 11.2 against 11.1 at L = 11.
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


def transform_side(size: int) -> int:
    """Side n of the transforms for patches of side L: at least 2L-1.

    Parameters
    ----------
    size : int
        L, side of a patch; at most `LARGEST`.

    Returns
    -------
    int
        n.
    """
    return next(n for n in _SIDES if n >= 2 * size - 1)


def scratch_length(size: int, lanes: int) -> int:
    """float32 elements of scratch space that the operations need."""
    side = transform_side(size)
    return side * row_length(side) * 2 * lanes


def template_spectra(templates: NDArray[np.float32]) -> NDArray[np.float32]:
    """Spectra of pairs of templates, as :data:`weigh` reads them.

    Parameters
    ----------
    templates : float32, shape (n_rotations, L, L)
        Projections in the units of the log-weights; n_rotations even.

    Returns
    -------
    float32, shape (n_rotations / 2, n, n, 2)
        Column by column, the transform of each first template plus i times each
        second, moved by L-1 pixels so that shift (u, v) stands at pixel (u, v); last
        the real and the imaginary part.
    """
    n_rotations, size, _ = templates.shape
    side = transform_side(size)
    moved = np.zeros((n_rotations // 2, side, side), np.complex128)
    inside = slice(size - 1, 2 * size - 1)
    moved[:, inside, inside] = templates[::2] + 1j * templates[1::2]
    spectra = np.fft.fft2(moved).transpose(0, 2, 1).astype(np.complex64)
    return np.ascontiguousarray(spectra).view(np.float32).reshape(*spectra.shape, 2)


def _emit_patch_spectrum(builder, size, lanes, pointers):  # type: ignore[no-untyped-def]
    """Transforms of a group of patches over n**2, column by column."""
    patch, spectrum, scratch = pointers
    v, side = Vectors(builder, lanes), transform_side(size)
    do, row = Arithmetic(v), row_length(transform_side(size))
    image, spectra = Image(v, scratch, row), Image(v, spectrum, side)

    def one_row(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        pixels = builder.gep(patch, [builder.mul(i, index(size * lanes))])
        x = [(v.load(pixels, j * lanes), None) for j in range(size)]
        line = image.line(i, row)
        for j, value in enumerate(transform(do, x + [ZERO] * (side - size))):
            image.store(value, line, j)
        return []

    def one_column(j: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        line, out = image.line(j, 1), spectra.line(j, side)
        x = [image.load(line, i * row) for i in range(size)]
        for i, value in enumerate(transform(do, x + [ZERO] * (side - size))):
            spectra.store(do.scaled_sum([(value, 1 / side**2)]), out, i)
        return []

    repeat(builder, index(size), [], one_row)
    repeat(builder, index(side), [], one_column)


def _emit_weigh(builder, size, lanes, pointers):  # type: ignore[no-untyped-def]
    """Weights of all shifts, two rotations; what `direct.weigh` computes."""
    spectrum, template, bias, level, weight, total, peak, scratch = pointers
    v, side = Vectors(builder, lanes), transform_side(size)
    do, row = Arithmetic(v), row_length(transform_side(size))
    image, spectra = Image(v, scratch, row), Image(v, spectrum, side)
    n_shifts = 2 * size - 1
    weights = Weights(v, level, total, peak)

    def one_column(j: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        patch_column, line = spectra.line(j, side), image.line(j, 1)
        template_column = builder.gep(template, [builder.mul(j, index(2 * side))])
        products = []
        for i in range(side):
            re, im = spectra.load(patch_column, i)
            heights = (
                v.broadcast(template_column, 2 * i),
                v.broadcast(template_column, 2 * i + 1),
            )
            products.append(do.product((re, builder.fneg(im)), heights))
        for i, value in enumerate(inverse_transform(do, products)[:n_shifts]):
            image.store(value, line, i * row)
        return []

    def one_row(u: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        line = image.line(u, row)
        offset = builder.mul(u, index(n_shifts))
        biases = builder.gep(bias, [offset])
        target = builder.gep(weight, [builder.mul(offset, index(lanes))])
        correlations = inverse_transform(do, [image.load(line, j) for j in range(side)])
        for s, value in enumerate(correlations[:n_shifts]):
            for r in range(2):
                shift = r * n_shifts**2 + s
                exponent = builder.fadd(value[r], v.broadcast(biases, shift))
                v.store(exponent, target, shift * lanes)

        def one_shift(s: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            place = builder.gep(target, [builder.mul(s, index(lanes))])
            for r in range(2):
                start = r * n_shifts**2 * lanes
                v.store(weights.of(v.load(place, start), r), place, start)
            weights.record()
            return []

        repeat(builder, index(n_shifts), [], one_shift)
        return []

    repeat(builder, index(side), [], one_column)
    weights.begin()
    repeat(builder, index(n_shifts), [], one_row)


def _emit_adjoint(builder, size, lanes, pointers):  # type: ignore[no-untyped-def]
    """Weighted patches of two rotations; `direct.adjoint` computes them one by one."""
    spectrum, weight, first, second, scratch = pointers
    v, side = Vectors(builder, lanes), transform_side(size)
    do, row = Arithmetic(v), row_length(transform_side(size))
    image, spectra = Image(v, scratch, row), Image(v, spectrum, side)
    n_shifts = 2 * size - 1

    def one_row_of_shifts(u: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        source = builder.gep(weight, [builder.mul(u, index(n_shifts * lanes))])
        x = [
            (v.load(source, s * lanes), v.load(source, (n_shifts**2 + s) * lanes))
            for s in range(n_shifts)
        ]
        line = image.line(u, row)
        for j, value in enumerate(transform(do, x + [ZERO] * (side - n_shifts))):
            image.store(value, line, j)
        return []

    def one_column(j: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        patch_column, line = spectra.line(j, side), image.line(j, 1)
        x = [image.load(line, u * row) for u in range(n_shifts)]
        weights = transform(do, x + [ZERO] * (side - n_shifts))
        products = [
            do.product(value, spectra.load(patch_column, i))
            for i, value in enumerate(weights)
        ]
        inside = inverse_transform(do, products)[size - 1 : 2 * size - 1]
        for y, value in enumerate(inside):
            image.store(value, line, y * row)
        return []

    def one_row_of_pixels(y: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        line = image.line(y, row)
        products = inverse_transform(do, [image.load(line, j) for j in range(side)])
        offset = builder.mul(y, index(size * lanes))
        targets = builder.gep(first, [offset]), builder.gep(second, [offset])
        for x, value in enumerate(products[size - 1 : 2 * size - 1]):
            for part, target in zip(value, targets, strict=True):
                v.store(part, target, x * lanes)
        return []

    repeat(builder, index(n_shifts), [], one_row_of_shifts)
    repeat(builder, index(side), [], one_column)
    repeat(builder, index(size), [], one_row_of_pixels)


patch_spectrum = vector_intrinsic(_emit_patch_spectrum, n_arrays=3)
weigh = vector_intrinsic(_emit_weigh, n_arrays=8)
adjoint = vector_intrinsic(_emit_adjoint, n_arrays=5)
