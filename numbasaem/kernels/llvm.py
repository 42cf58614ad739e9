"""SIMD registers in LLVM's own terms: what the vector operations are written with.

The width follows the processor. A vector operation is a Python function that emits
instructions for given sizes; :func:`vector_intrinsic` makes it callable in a kernel.
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

from .layout import LOG2_FLUSH

_F32 = ir.FloatType()
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)

# Chebyshev fit of 2**f on [-1/2, 1/2]; relative error 1.0e-7.
_EXP2 = (1.00000008, 0.69314719, 0.24022107, 0.05550357, 0.00967603, 0.00133909)
_ROUND = 12582912.0
"""Addend, 1.5 * 2**23, that leaves the nearest integer in the low bits of a float."""


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
REGISTERS = 32 if LANES == 16 or "neon" in _host_features() else 16


class Vectors:
    """LLVM building blocks on vectors of `lanes` float32, for one builder."""

    def __init__(self, builder: ir.IRBuilder, lanes: int) -> None:
        self.builder = builder
        self.lanes = lanes
        self.type = ir.VectorType(_F32, lanes)

    def constant(self, value: float) -> ir.Constant:
        """The same number in every lane."""
        return ir.Constant(self.type, [value] * self.lanes)

    def integers(self, value: int) -> ir.Constant:
        """The same integer in every lane."""
        return ir.Constant(ir.VectorType(_I32, self.lanes), [value] * self.lanes)

    def _element(self, base: ir.Value, offset: ir.Value | int) -> ir.Value:
        steps = index(offset) if isinstance(offset, int) else offset
        return self.builder.gep(base, [steps])

    def _pointer(self, base: ir.Value, offset: ir.Value | int) -> ir.Value:
        element = self._element(base, offset)
        return self.builder.bitcast(element, self.type.as_pointer())

    def load(self, base: ir.Value, offset: ir.Value | int) -> ir.Value:
        """Elements of an array from `offset` on, one for each lane."""
        value = self.builder.load(self._pointer(base, offset))
        value.align = 4
        return value

    def store(self, value: ir.Value, base: ir.Value, offset: ir.Value | int) -> None:
        """Write the lanes to the elements of an array from `offset` on."""
        self.builder.store(value, self._pointer(base, offset)).align = 4

    def broadcast(self, base: ir.Value, offset: ir.Value | int) -> ir.Value:
        """Element `offset` of an array, in every lane."""
        scalar = self.builder.load(self._element(base, offset))
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
        """Larger value in each lane."""
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

    def any_greater(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Whether a > b in some lane."""
        builder, bits = self.builder, ir.IntType(self.lanes)
        greater = builder.bitcast(builder.fcmp_ordered(">", a, b), bits)
        return builder.icmp_unsigned("!=", greater, ir.Constant(bits, 0))

    def nearest_integer(self, x: ir.Value) -> ir.Value:
        """Nearest integer, of values well below 2**22."""
        shifted = self.builder.fadd(x, self.constant(_ROUND))
        return self.builder.fsub(shifted, self.constant(_ROUND))

    def exp2(self, x: ir.Value) -> ir.Value:
        """2**x for x < 127, exactly zero below `LOG2_FLUSH`; no table, no branch."""
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

    def scaled_down(self, total: ir.Value, steps: ir.Value) -> ir.Value:
        """Sum times 2**steps for steps <= 0, of a sum that headroom has let grow.

        In two halves: `exp2` is zero below `LOG2_FLUSH`, and a sum of 2**64 times that
        is not.
        """
        half = self.exp2(self.builder.fmul(steps, self.constant(0.5)))
        return self.builder.fmul(self.builder.fmul(total, half), half)

    def fence(self) -> None:
        """Keep loads on their side of this point; emits no instruction.

        Without it LLVM loads each pixel once for all shifts, runs out of registers
        and spills: the correlations take half as long again.
        """
        signature = ir.FunctionType(ir.VoidType(), [])
        self.builder.asm(signature, "", "~{memory}", [], True)


class Weights:
    """Turns exponents into weights; keeps their sums and the largest exponent.

    Between calls of :meth:`record` the sums are in memory: all registers are needed
    where the exponents are computed.
    """

    def __init__(
        self, v: Vectors, level: ir.Value, total: ir.Value, peak: ir.Value
    ) -> None:
        self.v = v
        self.level, self.total, self.peak = level, total, peak
        self._sums: dict[int, ir.Value] = {}
        self._highest: ir.Value | None = None

    def begin(self) -> None:
        """Set the sums to zero."""
        for r in range(2):
            self.v.store(self.v.constant(0.0), self.total, r * self.v.lanes)
        self.v.store(self.v.constant(-math.inf), self.peak, 0)

    def of(self, exponent: ir.Value, r: int) -> ir.Value:
        """2**(exponent - level), added to the sum of rotation `r`."""
        v = self.v
        value = v.exp2(v.builder.fsub(exponent, v.load(self.level, 0)))
        add, highest = v.builder.fadd, self._highest
        self._sums[r] = add(self._sums[r], value) if r in self._sums else value
        self._highest = exponent if highest is None else v.larger(exponent, highest)
        return value

    def record(self) -> None:
        """Add the weights since the last call to the sums in memory."""
        v = self.v
        for r, value in self._sums.items():
            start = r * v.lanes
            total = v.builder.fadd(v.load(self.total, start), value)
            v.store(total, self.total, start)
        v.store(v.larger(self._highest, v.load(self.peak, 0)), self.peak, 0)
        self._sums, self._highest = {}, None


def index(value: int) -> ir.Constant:
    """Element offset as an LLVM constant."""
    return ir.Constant(_I64, value)


def parts(total: int, at_most: int) -> list[tuple[int, int]]:
    """Split range(total) into even (start, length) parts of at most that length."""
    n_parts = -(-total // at_most)
    bounds = [total * i // n_parts for i in range(n_parts + 1)]
    return [(a, b - a) for a, b in pairwise(bounds)]


def repeat(
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


def choose(
    builder: ir.IRBuilder,
    selector: ir.Value,
    cases: Sequence[int],
    carried: Sequence[ir.Value],
    body: Callable[[int, list[ir.Value]], list[ir.Value]],
) -> list[ir.Value]:
    """Emit `body(cases[selector], carried)`, one branch for each distinct case."""
    distinct = sorted(set(cases))
    if len(distinct) == 1:
        return body(distinct[0], list(carried))
    branches = {case: builder.append_basic_block("case") for case in distinct}
    after = builder.append_basic_block("chosen")
    switch = builder.switch(selector, branches[distinct[0]])
    for number, case in enumerate(cases):
        if case != distinct[0]:
            switch.add_case(index(number), branches[case])
    leaving = []
    for case, branch in branches.items():
        builder.position_at_end(branch)
        leaving.append((body(case, list(carried)), builder.block))
        builder.branch(after)
    builder.position_at_end(after)
    chosen = [builder.phi(value.type) for value in carried]
    for values, block in leaving:
        for phi, value in zip(chosen, values, strict=True):
            phi.add_incoming(value, block)
    return chosen


def _operand(context, builder, array_type, array, offset):  # type: ignore[no-untyped-def]
    """Pointer to element `offset` of a flat array."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [offset])


def vector_intrinsic(emit, n_arrays):  # type: ignore[no-untyped-def]
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
