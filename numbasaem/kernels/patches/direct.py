"""Vector code that the compiler does not find by itself, written in LLVM's own terms.

`lanes` patches stand side by side, one in each lane of a SIMD register: every operation
of the E-step is the same arithmetic on all of them. Each intrinsic takes flat float32
arrays and the offsets, in elements, at which its operands start. `side` and `lanes` are
tuples of L and `lanes` zeros: a tuple's length is part of its type, so the loops over
pixels are unrolled for the size at hand and sums stay in registers. (A literal integer
would do the same, but costs Numba 6 ms of dispatch at every call.)

The namesake of each in `numbasaem.kernels.patches.portable` says what it computes, and
computes the same in plain Numba.
"""

from __future__ import annotations

from llvmlite import ir

from ..layout import half_widths_of_disc
from ..llvm import (
    REGISTERS,
    Vectors,
    Weights,
    choose,
    index,
    parts,
    repeat,
    vector_intrinsic,
)

ROTATIONS_AT_ONCE = 2
"""Rotations in one pass over a patch row, so that pixels are loaded half as often."""
_SHIFTS_AT_ONCE = 6 if REGISTERS == 16 else 11
_PIXELS_AT_ONCE = 11 if REGISTERS == 16 else 22


def _emit_weigh(builder, size, lanes, pointers, half_widths):  # type: ignore[no-untyped-def]
    """Weights of all shifts, two rotations; see the portable namesake.

    Templates are taken to be zero farther from the central column than `half_widths`
    says for each row.
    """
    patch, template, bias, level, weight, total, peak = pointers
    v = Vectors(builder, lanes)
    n_shifts = 2 * size - 1
    rotations = range(ROTATIONS_AT_ONCE)
    weights = Weights(v, level, total, peak)

    def one_row_of_shifts(u: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        down = builder.sub(u, index(size - 1))  # template row minus patch row
        up = builder.sub(index(size - 1), u)
        is_down = builder.icmp_signed(">", down, index(0))
        patch_row = builder.select(is_down, index(0), up)
        template_row = builder.select(is_down, down, index(0))
        n_rows = builder.sub(index(size), builder.add(patch_row, template_row))
        pixels_0 = builder.gep(patch, [builder.mul(patch_row, index(size * lanes))])
        row_0 = builder.gep(template, [builder.mul(template_row, index(size))])
        bias_row = builder.gep(bias, [builder.mul(u, index(n_shifts))])
        weight_row = builder.gep(weight, [builder.mul(u, index(n_shifts * lanes))])
        for first, width in parts(n_shifts, _SHIFTS_AT_ONCE):
            start = [
                v.broadcast(bias_row, r * n_shifts**2 + first + s)
                for r in rotations
                for s in range(width)
            ]

            def add_row(
                i: ir.Value,
                sums: list[ir.Value],
                first: int = first,
                width: int = width,
            ) -> list[ir.Value]:
                pixels = builder.gep(pixels_0, [builder.mul(i, index(size * lanes))])
                row = builder.gep(row_0, [builder.mul(i, index(size))])

                def add_columns(
                    half_width: int, sums: list[ir.Value]
                ) -> list[ir.Value]:
                    for column in range(size):
                        # patch column of each shift that meets this template column
                        meets = [
                            (s, column - first - s + size - 1) for s in range(width)
                        ]
                        meets = [(s, j) for s, j in meets if 0 <= j < size]
                        if not meets or abs(column - size // 2) > half_width:
                            continue
                        heights = [
                            v.broadcast(row, r * size**2 + column) for r in rotations
                        ]
                        for s, j in meets:
                            v.fence()
                            pixel = v.load(pixels, j * lanes)
                            for r in rotations:
                                number = r * width + s
                                sums[number] = v.multiply_add(
                                    pixel, heights[r], sums[number]
                                )
                    return sums

                template_y = builder.add(template_row, i)
                return choose(builder, template_y, half_widths, sums, add_columns)

            sums = repeat(builder, n_rows, start, add_row)
            for number, exponent in enumerate(sums):
                r, s = divmod(number, width)
                start = (r * n_shifts**2 + first + s) * lanes
                v.store(weights.of(exponent, r), weight_row, start)
            weights.record()
        return []

    weights.begin()
    repeat(builder, index(n_shifts), [], one_row_of_shifts)


def _emit_add_weights(builder, size, lanes, pointers):  # type: ignore[no-untyped-def]
    """Weights of two rotations added to the shifts' mass; see the namesake."""
    weight, shift_mass = pointers
    v, n_shifts = Vectors(builder, lanes), (2 * size - 1) ** 2

    def one_shift(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        offset = builder.mul(i, index(lanes))
        source = builder.gep(weight, [offset])
        both = builder.fadd(v.load(source, 0), v.load(source, n_shifts * lanes))
        v.store(builder.fadd(v.load(shift_mass, offset), both), shift_mass, offset)
        return []

    repeat(builder, index(n_shifts), [], one_shift)


def _emit_box_sums(builder, size, lanes, pointers):  # type: ignore[no-untyped-def]
    """Weight under which each projection pixel is visible; see the namesake."""
    weight, along_rows, visible = pointers
    v = Vectors(builder, lanes)
    centre = size - 1

    def windows(base: ir.Value, stride: int, out: ir.Value, out_stride: int) -> None:
        # every window of `size` entries holds the central one: add what lies left
        # of it to what lies right of it, so that no sum is a difference
        left = [v.load(base, centre * stride)]
        for j in range(centre - 1, -1, -1):
            left.append(builder.fadd(left[-1], v.load(base, j * stride)))
        right = None
        for j in range(size):
            if j > 0:
                term = v.load(base, (centre + j) * stride)
                right = term if right is None else builder.fadd(right, term)
            value = left[centre - j]
            if right is not None:
                value = builder.fadd(value, right)
            v.store(value, out, j * out_stride)

    def one_row(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        source = builder.gep(weight, [builder.mul(i, index((2 * size - 1) * lanes))])
        target = builder.gep(along_rows, [builder.mul(i, index(size * lanes))])
        windows(source, lanes, target, lanes)
        return []

    def one_column(j: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        offset = builder.mul(j, index(lanes))
        source = builder.gep(along_rows, [offset])
        windows(source, size * lanes, builder.gep(visible, [offset]), size * lanes)
        return []

    repeat(builder, index(2 * size - 1), [], one_row)
    repeat(builder, index(size), [], one_column)


def _emit_adjoint(builder, size, lanes, pointers):  # type: ignore[no-untyped-def]
    """Weighted patch seen from the projection; see the portable namesake."""
    patch, weight, weighted = pointers
    v = Vectors(builder, lanes)
    n_shifts = 2 * size - 1

    def one_row(y: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        shifts = builder.gep(
            weight,
            [builder.mul(builder.add(y, index(size - 1)), index(n_shifts * lanes))],
        )
        target = builder.gep(weighted, [builder.mul(y, index(size * lanes))])
        for first, width in parts(size, _PIXELS_AT_ONCE):

            def add_row(
                i: ir.Value,
                sums: list[ir.Value],
                first: int = first,
                width: int = width,
            ) -> list[ir.Value]:
                sums = list(sums)
                pixels = builder.gep(patch, [builder.mul(i, index(size * lanes))])
                row = builder.gep(shifts, [builder.mul(i, index(-n_shifts * lanes))])
                for j in range(size):
                    pixel = v.load(pixels, j * lanes)
                    for x in range(width):
                        near = v.load(row, (first + x - j + size - 1) * lanes)
                        sums[x] = v.multiply_add(pixel, near, sums[x])
                return sums

            zeros = [v.constant(0.0)] * width
            sums = repeat(builder, index(size), zeros, add_row)
            for x, value in enumerate(sums):
                v.store(value, target, (first + x) * lanes)
        return []

    repeat(builder, index(size), [], one_row)


def _emit_add_lanes(builder, size, lanes, pointers):  # type: ignore[no-untyped-def]
    """Sum of lanes, each times its factor, pixel by pixel; see the namesake."""
    images, scale, total = pointers
    v = Vectors(builder, lanes)
    factor = v.load(scale, 0)

    def pixels_of_one_vector(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        start = builder.mul(i, index(lanes * lanes))
        source = builder.gep(images, [start])
        rows = [
            builder.fmul(v.load(source, pixel * lanes), factor)
            for pixel in range(lanes)
        ]
        while len(rows) > 1:  # each pass adds neighbours and halves the vectors
            rows = [
                v.add_neighbours(a, b)
                for a, b in zip(rows[::2], rows[1::2], strict=True)
            ]
        offset = builder.mul(i, index(lanes))
        v.store(builder.fadd(v.load(total, offset), rows[0]), total, offset)
        return []

    repeat(builder, index(-(-2 * size * size // lanes)), [], pixels_of_one_vector)


def _emit_weigh_disc(builder, size, lanes, pointers):  # type: ignore[no-untyped-def]
    """Weights under templates that are zero outside of the disc."""
    _emit_weigh(builder, size, lanes, pointers, half_widths_of_disc(size))


def _emit_weigh_square(builder, size, lanes, pointers):  # type: ignore[no-untyped-def]
    """Weights under any templates."""
    _emit_weigh(builder, size, lanes, pointers, [size] * size)


weigh = vector_intrinsic(_emit_weigh_square, n_arrays=7)
weigh_disc = vector_intrinsic(_emit_weigh_disc, n_arrays=7)
add_weights = vector_intrinsic(_emit_add_weights, n_arrays=2)
box_sums = vector_intrinsic(_emit_box_sums, n_arrays=3)
adjoint = vector_intrinsic(_emit_adjoint, n_arrays=3)
add_lanes = vector_intrinsic(_emit_add_lanes, n_arrays=3)
