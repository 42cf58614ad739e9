"""Vector operations on all windows of a tile, rotations side by side.

A tile is a square of `TILE` x `TILE` windows; a panel is `2 * lanes` rotations, in the
lanes of two registers. A pixel is spread over all lanes when it is needed, so that no
window is ever copied. Each intrinsic takes flat arrays and offsets as those in
`numbasaem.kernels.patches.direct` do.

The namesake of each in `numbasaem.kernels.windows.portable` says what it computes, and
computes the same in plain Numba.
"""

from __future__ import annotations

from llvmlite import ir

from ..layout import HEADROOM, TILE, half_widths_of_disc
from ..llvm import (
    REGISTERS,
    Vectors,
    choose,
    index,
    parts,
    repeat,
    vector_intrinsic,
)

_WINDOWS_AT_ONCE = 6 if REGISTERS == 16 else 12
_PIXELS_AT_ONCE = 6 if REGISTERS == 16 else 12


class Evidence:
    """Adds 2**exponent to the sums of each window, whatever the exponents' range.

    Each lane has its own sum and the integer exponent, its level, that the sum refers
    to; the level moves up where a term exceeds it by more than the headroom.
    """

    def __init__(self, v: Vectors, level: ir.Value, total: ir.Value) -> None:
        self.v, self.level, self.total = v, level, total

    def add(self, exponents: list[ir.Value], window: ir.Value) -> None:
        """Add the terms of both registers of a panel to those of a window."""
        v, builder = self.v, self.v.builder
        offset = builder.mul(window, index(v.lanes))
        level, total = v.load(self.level, offset), v.load(self.total, offset)
        highest = v.larger(*exponents)
        limit = builder.fadd(level, v.constant(HEADROOM))
        before = builder.block
        above = v.any_greater(highest, limit)
        raising = builder.append_basic_block("raise")
        raised = builder.append_basic_block("raised")
        builder.cbranch(above, raising, raised)
        builder.position_at_end(raising)
        higher = v.larger(level, v.nearest_integer(highest))
        scaled = v.scaled_down(total, builder.fsub(level, higher))
        v.store(higher, self.level, offset)
        builder.branch(raised)
        builder.position_at_end(raised)
        joined = []
        for kept, changed in ((level, higher), (total, scaled)):
            joined.append(builder.phi(v.type))
            joined[-1].add_incoming(kept, before)
            joined[-1].add_incoming(changed, raising)
        level, total = joined
        for exponent in exponents:
            term = v.exp2(builder.fsub(exponent, level))
            total = builder.fadd(total, term)
        v.store(total, self.total, offset)


class Shares:
    """Turns exponents into weights, and adds up those of all windows."""

    def __init__(
        self, v: Vectors, log2_sum: ir.Value, weight: ir.Value, mass: ir.Value
    ) -> None:
        self.v = v
        self.log2_sum, self.weight, self.mass = log2_sum, weight, mass

    def store(self, exponents: list[ir.Value], window: ir.Value) -> None:
        """Write the weights of both registers of a panel in a window."""
        v, builder = self.v, self.v.builder
        offset = builder.mul(window, index(2 * v.lanes))
        target = builder.gep(self.weight, [offset])
        log2_sum = v.broadcast(self.log2_sum, window)
        for r, exponent in enumerate(exponents):
            value = v.exp2(builder.fsub(exponent, log2_sum))
            v.store(value, target, r * v.lanes)
            mass = builder.fadd(v.load(self.mass, r * v.lanes), value)
            v.store(mass, self.mass, r * v.lanes)


def _each_window(builder, size, lanes, pixels, template, bias, half_widths, use):  # type: ignore[no-untyped-def]
    """Emit `use(exponents, window)` for every window of the tile."""
    v, row_length = Vectors(builder, lanes), TILE + size - 1
    n_windows, registers = _WINDOWS_AT_ONCE, range(2)

    def one_group(group: ir.Value, row: ir.Value) -> None:
        first = builder.mul(group, index(n_windows))
        corner = builder.add(builder.mul(row, index(row_length)), first)
        start = [v.load(bias, r * lanes) for _ in range(n_windows) for r in registers]

        def add_row(i: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            offset = builder.add(corner, builder.mul(i, index(row_length)))
            line = builder.gep(pixels, [offset])
            heights = builder.gep(template, [builder.mul(i, index(size * 2 * lanes))])

            def add_columns(half_width: int, sums: list[ir.Value]) -> list[ir.Value]:
                for j in range(size):
                    if abs(j - size // 2) > half_width:
                        continue
                    v.fence()
                    factors = [v.load(heights, (2 * j + r) * lanes) for r in registers]
                    for p in range(n_windows):
                        pixel = v.broadcast(line, p + j)
                        for r in registers:
                            number = 2 * p + r
                            sums[number] = v.multiply_add(
                                pixel, factors[r], sums[number]
                            )
                return sums

            return choose(builder, i, half_widths, sums, add_columns)

        sums = repeat(builder, index(size), start, add_row)
        place = builder.add(builder.mul(row, index(TILE)), first)
        for p in range(n_windows):
            use(sums[2 * p : 2 * p + 2], builder.add(place, index(p)))

    def one_row(row: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        def body(group: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            one_group(group, row)
            return []

        repeat(builder, index(TILE // n_windows), [], body)
        return []

    repeat(builder, index(TILE), [], one_row)


def _emit_add_evidence(builder, size, lanes, pointers, half_widths):  # type: ignore[no-untyped-def]
    """Sums over the rotations of a panel, for each window; see the namesake."""
    pixels, template, bias, level, total = pointers
    evidence = Evidence(Vectors(builder, lanes), level, total)
    _each_window(
        builder, size, lanes, pixels, template, bias, half_widths, evidence.add
    )


def _emit_weigh_windows(builder, size, lanes, pointers, half_widths):  # type: ignore[no-untyped-def]
    """Weights of a panel's rotations in each window; see the namesake."""
    pixels, template, bias, log2_sum, weight, mass = pointers
    shares = Shares(Vectors(builder, lanes), log2_sum, weight, mass)
    _each_window(
        builder, size, lanes, pixels, template, bias, half_widths, shares.store
    )


def _emit_add_windows(builder, size, lanes, pointers):  # type: ignore[no-untyped-def]
    """Sum of all windows times their weights; see the namesake."""
    pixels, weight, sums = pointers
    v, row_length = Vectors(builder, lanes), TILE + size - 1
    registers = range(2)

    def one_pixel_row(row: ir.Value, i: ir.Value) -> None:
        down = builder.add(row, i)
        line = builder.gep(pixels, [builder.mul(down, index(row_length))])
        source = builder.gep(weight, [builder.mul(row, index(TILE * 2 * lanes))])
        target = builder.gep(sums, [builder.mul(i, index(size * 2 * lanes))])
        for first, width in parts(size, _PIXELS_AT_ONCE):
            places = [
                (2 * (first + j) + r) * lanes for j in range(width) for r in registers
            ]
            start = [v.load(target, place) for place in places]

            def add_window(
                x: ir.Value,
                values: list[ir.Value],
                first: int = first,
                width: int = width,
            ) -> list[ir.Value]:
                offset = builder.mul(x, index(2 * lanes))
                shares = builder.gep(source, [offset])
                factors = [v.load(shares, r * lanes) for r in registers]
                window_row = builder.gep(line, [x])
                values = list(values)
                for j in range(width):
                    pixel = v.broadcast(window_row, first + j)
                    for r in registers:
                        values[2 * j + r] = v.multiply_add(
                            pixel, factors[r], values[2 * j + r]
                        )
                return values

            values = repeat(builder, index(TILE), start, add_window)
            for place, value in zip(places, values, strict=True):
                v.store(value, target, place)

    def one_row(row: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        def body(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            one_pixel_row(row, i)
            return []

        repeat(builder, index(size), [], body)
        return []

    repeat(builder, index(TILE), [], one_row)


def _on_disc(emit):  # type: ignore[no-untyped-def]
    """The operation for templates that are zero outside of the disc."""

    def on_disc(builder, size, lanes, pointers):  # type: ignore[no-untyped-def]
        emit(builder, size, lanes, pointers, half_widths_of_disc(size))

    on_disc.__name__, on_disc.__doc__ = emit.__name__ + "_disc", emit.__doc__
    return on_disc


def _on_square(emit):  # type: ignore[no-untyped-def]
    """The operation for any templates."""

    def on_square(builder, size, lanes, pointers):  # type: ignore[no-untyped-def]
        emit(builder, size, lanes, pointers, [size] * size)

    on_square.__name__, on_square.__doc__ = emit.__name__, emit.__doc__
    return on_square


add_evidence = vector_intrinsic(_on_square(_emit_add_evidence), n_arrays=5)
add_evidence_disc = vector_intrinsic(_on_disc(_emit_add_evidence), n_arrays=5)
weigh_windows = vector_intrinsic(_on_square(_emit_weigh_windows), n_arrays=6)
weigh_windows_disc = vector_intrinsic(_on_disc(_emit_weigh_windows), n_arrays=6)
add_windows = vector_intrinsic(_emit_add_windows, n_arrays=3)
