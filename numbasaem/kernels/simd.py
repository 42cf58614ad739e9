"""Vector code that the compiler does not find by itself, written in LLVM's own terms.

`lanes` patches travel side by side, one in each lane of a SIMD register, so every
operation of the E-step is the same arithmetic on `lanes` patches at once and no lane
ever waits for another. Each intrinsic takes flat float32 arrays and the offsets, in
elements, at which its operands start. `side` and `lanes` are tuples of L and `lanes`
zeros: a tuple's length is part of its type, so the loops over pixels are unrolled for
the size at hand and sums stay in registers. (A literal integer would do the same, but
costs Numba 6 ms of dispatch at every call.)

What each one computes is said, and computed once more in plain Numba, by its namesake
in `numbasaem.kernels.portable`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from itertools import pairwise

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .portable import LOG2_FLUSH

_F32 = ir.FloatType()
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)

# Chebyshev fit of 2**f on [-1/2, 1/2]; relative error 1.0e-7.
_EXP2 = (1.00000008, 0.69314719, 0.24022107, 0.05550357, 0.00967603, 0.00133909)
_ROUND = 12582912.0
"""1.5 * 2**23: adding it leaves the nearest integer in the low bits of a float."""


def _host_features() -> frozenset[str]:
    """Processor features the compiled code may use, after Numba's own restriction."""
    named = os.environ.get("NUMBA_CPU_FEATURES")
    if named is None:
        if os.environ.get("NUMBA_CPU_NAME") == "generic":
            return frozenset()
        named = binding.get_host_cpu_features().flatten()
    return frozenset(f[1:] for f in named.split(",") if f.startswith("+"))


def vector_width() -> int:
    """float32 lanes of a register: 16 AVX-512, 8 AVX2, 4 NEON or SSE, 1 without."""
    if os.environ.get("NUMBASAEM_SIMD") == "0":
        return 1
    features = _host_features()
    if "avx512f" in features:
        return 16
    if "avx2" in features and "fma" in features:
        return 8
    if {"neon", "sse2"} & features:
        return 4
    return 1


LANES = vector_width()
_REGISTERS = 32 if LANES == 16 or "neon" in _host_features() else 16
ROTATIONS_AT_ONCE = 2
"""Rotations that one pass over a patch row serves, to load each pixel half as often."""
_SHIFTS_AT_ONCE = 6 if _REGISTERS == 16 else 11
_PIXELS_AT_ONCE = 11 if _REGISTERS == 16 else 22


class _Vectors:
    """LLVM building blocks on vectors of `lanes` float32, for one builder."""

    def __init__(self, builder: ir.IRBuilder, lanes: int) -> None:
        self.builder = builder
        self.lanes = lanes
        self.type = ir.VectorType(_F32, lanes)

    def constant(self, value: float) -> ir.Constant:
        return ir.Constant(self.type, [value] * self.lanes)

    def integers(self, value: int) -> ir.Constant:
        return ir.Constant(ir.VectorType(_I32, self.lanes), [value] * self.lanes)

    def _pointer(self, base: ir.Value, at: ir.Value | int) -> ir.Value:
        offset = index(at) if isinstance(at, int) else at
        element = self.builder.gep(base, [offset])
        return self.builder.bitcast(element, self.type.as_pointer())

    def load(self, base: ir.Value, at: ir.Value | int) -> ir.Value:
        value = self.builder.load(self._pointer(base, at))
        value.align = 4
        return value

    def store(self, value: ir.Value, base: ir.Value, at: ir.Value | int) -> None:
        self.builder.store(value, self._pointer(base, at)).align = 4

    def broadcast(self, base: ir.Value, at: ir.Value | int) -> ir.Value:
        offset = index(at) if isinstance(at, int) else at
        scalar = self.builder.load(self.builder.gep(base, [offset]))
        undefined = ir.Constant(self.type, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
        return self.builder.shuffle_vector(first, undefined, self.integers(0))

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """A*b + c, fused where the processor can."""
        function = cgutils.get_or_insert_function(
            self.builder.module,
            ir.FunctionType(self.type, [self.type] * 3),
            f"llvm.fmuladd.v{self.lanes}f32",
        )
        return self.builder.call(function, [a, b, c])

    def larger(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def add_neighbours(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """[a0+a1, a2+a3, ..., b0+b1, b2+b3, ...]."""
        chosen = ir.VectorType(_I32, self.lanes)
        even, odd = (
            self.builder.shuffle_vector(
                a, b, ir.Constant(chosen, list(range(first, 2 * self.lanes, 2)))
            )
            for first in (0, 1)
        )
        return self.builder.fadd(even, odd)

    def exp2(self, x: ir.Value) -> ir.Value:
        """2**x for x <= 0, exactly zero below `LOG2_FLUSH`; no table, no branch."""
        builder, bits = self.builder, ir.VectorType(_I32, self.lanes)
        shifted = builder.fadd(x, self.constant(_ROUND))
        fraction = builder.fsub(x, builder.fsub(shifted, self.constant(_ROUND)))
        value = self.constant(_EXP2[-1])
        for coefficient in _EXP2[-2::-1]:
            value = self.multiply_add(value, fraction, self.constant(coefficient))
        exponent = builder.shl(builder.bitcast(shifted, bits), self.integers(23))
        scaled = builder.add(builder.bitcast(value, bits), exponent)
        kept = builder.fcmp_ordered(">", x, self.constant(LOG2_FLUSH))
        return builder.select(
            kept, builder.bitcast(scaled, self.type), self.constant(0.0)
        )

    def fence(self) -> None:
        """Keep loads on their side of this point; emits no instruction.

        Without it LLVM loads each pixel once for all shifts, runs out of registers
        and spills: the correlations take half as long again.
        """
        signature = ir.FunctionType(ir.VoidType(), [])
        self.builder.asm(signature, "", "~{memory}", [], True)


def index(value: int) -> ir.Constant:
    """Element offset as an LLVM constant."""
    return ir.Constant(_I64, value)


def _parts(total: int, at_most: int) -> list[tuple[int, int]]:
    """Split range(total) into even (start, length) parts of at most that length."""
    n_parts = -(-total // at_most)
    bounds = [total * i // n_parts for i in range(n_parts + 1)]
    return [(a, b - a) for a, b in pairwise(bounds)]


def _repeat(
    builder: ir.IRBuilder,
    count: ir.Value,
    carried: Sequence[ir.Value],
    body: Callable[[ir.Value, list[ir.Value]], list[ir.Value]],
) -> list[ir.Value]:
    """Emit `for i in range(count)`, count >= 1, with values carried in registers."""
    before = builder.block
    inside = builder.append_basic_block("repeat")
    after = builder.append_basic_block("repeated")
    builder.branch(inside)
    builder.position_at_end(inside)
    i = builder.phi(_I64)
    i.add_incoming(index(0), before)
    entering = [builder.phi(value.type) for value in carried]
    for phi, value in zip(entering, carried, strict=True):
        phi.add_incoming(value, before)
    leaving = body(i, entering)
    following = builder.add(i, index(1))
    i.add_incoming(following, builder.block)
    for phi, value in zip(entering, leaving, strict=True):
        phi.add_incoming(value, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, count), inside, after)
    builder.position_at_end(after)
    return leaving


def _operand(context, builder, array_type, array, at):  # type: ignore[no-untyped-def]
    """Pointer to element `at` of a flat array."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [at])


def _vector_intrinsic(emit, n_arrays):  # type: ignore[no-untyped-def]
    """Wrap `emit(builder, size, lanes, pointers)` for use in a kernel.

    The kernel passes `side`, `lanes`, and a tuple with an array and an offset for each
    operand.
    """

    def typed(typing_context, side, lanes, operands):  # type: ignore[no-untyped-def]
        signature = types.void(side, lanes, operands)

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            packed_type = signature.args[2]
            values = cgutils.unpack_tuple(builder, arguments[2])
            pointers = [
                _operand(
                    context,
                    builder,
                    packed_type[2 * i],
                    values[2 * i],
                    values[2 * i + 1],
                )
                for i in range(n_arrays)
            ]
            emit(builder, side.count, lanes.count, pointers)
            return context.get_dummy_value()

        return signature, generate

    typed.__name__ = emit.__name__.removeprefix("_emit_")
    typed.__doc__ = emit.__doc__
    return intrinsic(typed)


def _emit_correlate(builder, size, lanes, pointers):  # type: ignore[no-untyped-def]
    """Log-weights of all shifts, two rotations; see the portable namesake."""
    patch, template, bias, out, peak = pointers
    v = _Vectors(builder, lanes)
    n_shifts = 2 * size - 1
    rotations = range(ROTATIONS_AT_ONCE)

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
        out_row = builder.gep(out, [builder.mul(u, index(n_shifts * lanes))])
        for first, width in _parts(n_shifts, _SHIFTS_AT_ONCE):
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
                sums = list(sums)
                pixels = builder.gep(pixels_0, [builder.mul(i, index(size * lanes))])
                row = builder.gep(row_0, [builder.mul(i, index(size))])
                for column in range(size):
                    # patch column of each shift that meets this template column
                    meets = [(s, column - first - s + size - 1) for s in range(width)]
                    meets = [(s, j) for s, j in meets if 0 <= j < size]
                    if not meets:
                        continue
                    heights = [
                        v.broadcast(row, r * size**2 + column) for r in rotations
                    ]
                    for s, j in meets:
                        v.fence()
                        pixel = v.load(pixels, j * lanes)
                        for r in rotations:
                            at = r * width + s
                            sums[at] = v.multiply_add(pixel, heights[r], sums[at])
                return sums

            sums = _repeat(builder, n_rows, start, add_row)
            highest = v.load(peak, 0)  # not kept in a register: the sums need them all
            for at, value in enumerate(sums):
                r, s = divmod(at, width)
                v.store(value, out_row, (r * n_shifts**2 + first + s) * lanes)
                highest = v.larger(value, highest)
            v.store(highest, peak, 0)
        return []

    v.store(v.constant(-math.inf), peak, 0)
    _repeat(builder, index(n_shifts), [], one_row_of_shifts)


def _emit_exponentiate(builder, size, lanes, pointers):  # type: ignore[no-untyped-def]
    """Weights from log-weights, their sums; see the portable namesake."""
    weight, reference, shift_mass, total = pointers
    v = _Vectors(builder, lanes)
    level = v.load(reference, 0)

    def one_shift(i: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        at = builder.mul(i, index(lanes))
        value = v.exp2(builder.fsub(v.load(weight, at), level))
        v.store(value, weight, at)
        v.store(builder.fadd(v.load(shift_mass, at), value), shift_mass, at)
        return [builder.fadd(sums[0], value)]

    n_shifts = index((2 * size - 1) ** 2)
    (mass,) = _repeat(builder, n_shifts, [v.constant(0.0)], one_shift)
    v.store(mass, total, 0)


def _emit_box_sums(builder, size, lanes, pointers):  # type: ignore[no-untyped-def]
    """Weight under which each projection pixel is visible; see the namesake."""
    weight, along_rows, visible = pointers
    v = _Vectors(builder, lanes)
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

    _repeat(builder, index(2 * size - 1), [], one_row)
    _repeat(builder, index(size), [], one_column)


def _emit_adjoint(builder, size, lanes, pointers):  # type: ignore[no-untyped-def]
    """Weighted patch seen from the projection; see the portable namesake."""
    patch, weight, weighted = pointers
    v = _Vectors(builder, lanes)
    n_shifts = 2 * size - 1

    def one_row(y: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        shifts = builder.gep(
            weight,
            [builder.mul(builder.add(y, index(size - 1)), index(n_shifts * lanes))],
        )
        target = builder.gep(weighted, [builder.mul(y, index(size * lanes))])
        for first, width in _parts(size, _PIXELS_AT_ONCE):

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
            sums = _repeat(builder, index(size), zeros, add_row)
            for x, value in enumerate(sums):
                v.store(value, target, (first + x) * lanes)
        return []

    _repeat(builder, index(size), [], one_row)


def _emit_add_lanes(builder, size, lanes, pointers):  # type: ignore[no-untyped-def]
    """Sum of lanes, each times its factor, pixel by pixel; see the namesake."""
    images, scale, total = pointers
    v = _Vectors(builder, lanes)
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
        at = builder.mul(i, index(lanes))
        v.store(builder.fadd(v.load(total, at), rows[0]), total, at)
        return []

    _repeat(builder, index(-(-2 * size * size // lanes)), [], pixels_of_one_vector)


correlate = _vector_intrinsic(_emit_correlate, n_arrays=5)
exponentiate = _vector_intrinsic(_emit_exponentiate, n_arrays=4)
box_sums = _vector_intrinsic(_emit_box_sums, n_arrays=3)
adjoint = _vector_intrinsic(_emit_adjoint, n_arrays=3)
add_lanes = _vector_intrinsic(_emit_add_lanes, n_arrays=3)
