"""Fourier transforms in straight-line vector code.

`lanes` images are transformed side by side. A vector holds the real or the imaginary
part of the same pixel of all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from llvmlite import ir

from .llvm import Vectors, index

_RADICES = (4, 2, 3, 5)

Complex = tuple[ir.Value | None, ir.Value | None]
"""Real and imaginary part; None stands for zeros, for which nothing is emitted."""
ZERO: Complex = (None, None)


def row_length(side: int) -> int:
    """Row length of the scratch image: odd, so that a column meets all cache sets."""
    return side | 1


class Arithmetic:
    """Complex arithmetic on vectors, emitting nothing for known zeros."""

    def __init__(self, v: Vectors) -> None:
        self.v = v
        self.builder = v.builder

    def _sum(self, a: ir.Value | None, b: ir.Value | None) -> ir.Value | None:
        if a is None or b is None:
            return b if a is None else a
        return self.builder.fadd(a, b)

    def _negative(self, a: ir.Value | None) -> ir.Value | None:
        return None if a is None else self.builder.fneg(a)

    def _difference(self, a: ir.Value | None, b: ir.Value | None) -> ir.Value | None:
        if a is None or b is None:
            return self._negative(b) if a is None else a
        return self.builder.fsub(a, b)

    def _scaled_sum(
        self, terms: Iterable[tuple[ir.Value | None, float]], start: ir.Value | None
    ) -> ir.Value | None:
        """Start + sum of value * factor."""
        for value, factor in terms:
            if value is None:
                continue
            constant = self.v.constant(factor)
            if start is None:
                start = self.builder.fmul(value, constant)
            else:
                start = self.v.multiply_add(value, constant, start)
        return start

    def add(self, a: Complex, b: Complex) -> Complex:
        """Emit a + b."""
        return self._sum(a[0], b[0]), self._sum(a[1], b[1])

    def subtract(self, a: Complex, b: Complex) -> Complex:
        """Emit a - b."""
        return self._difference(a[0], b[0]), self._difference(a[1], b[1])

    def subtract_i_times(self, a: Complex, b: Complex) -> Complex:
        """A - i*b."""
        return self._sum(a[0], b[1]), self._difference(a[1], b[0])

    def add_i_times(self, a: Complex, b: Complex) -> Complex:
        """A + i*b."""
        return self._difference(a[0], b[1]), self._sum(a[1], b[0])

    def scaled_sum(
        self, terms: list[tuple[Complex, float]], start: Complex = ZERO
    ) -> Complex:
        """Start + sum of value * real factor."""
        real, imaginary = (
            self._scaled_sum(((z[part], f) for z, f in terms), start[part])
            for part in (0, 1)
        )
        return real, imaginary

    def product(self, a: Complex, b: Complex) -> Complex:
        """A * b, neither of them a known zero in any part."""
        multiply, v = self.builder.fmul, self.v
        (a_re, a_im), (b_re, b_im) = a, b
        real = v.multiply_add(a_re, b_re, self.builder.fneg(multiply(a_im, b_im)))
        return real, v.multiply_add(a_re, b_im, multiply(a_im, b_re))

    def turned(self, a: Complex, turns: int, n: int) -> Complex:
        """A * exp(-2 pi i turns / n)."""
        turns %= n
        quarters, rest = divmod(4 * turns, n)
        if rest == 0:
            return (
                a,
                (a[1], self._negative(a[0])),
                (self._negative(a[0]), self._negative(a[1])),
                (self._negative(a[1]), a[0]),
            )[quarters]
        angle = 2 * math.pi * turns / n
        cosine, sine = math.cos(angle), math.sin(angle)
        return (
            self._scaled_sum([(a[1], sine), (a[0], cosine)], None),
            self._scaled_sum([(a[0], -sine), (a[1], cosine)], None),
        )


def _short_transform(do: Arithmetic, x: list[Complex]) -> list[Complex]:
    """Discrete Fourier transform of 2, 3, 4 or 5 values."""
    n = len(x)
    if n == 2:
        return [do.add(*x), do.subtract(*x)]
    if n == 4:
        a, b = do.add(x[0], x[2]), do.subtract(x[0], x[2])
        c, d = do.add(x[1], x[3]), do.subtract(x[1], x[3])
        return [
            do.add(a, c),
            do.subtract_i_times(b, d),
            do.subtract(a, c),
            do.add_i_times(b, d),
        ]
    # values opposite each other share their cosines, and their sines but for the sign
    half = range(1, n // 2 + 1)
    sums = {q: do.add(x[q], x[n - q]) for q in half}
    differences = {q: do.subtract(x[q], x[n - q]) for q in half}
    out = [do.scaled_sum([(s, 1.0) for s in sums.values()], x[0])] + [ZERO] * (n - 1)
    for m in half:
        angles = {q: 2 * math.pi * ((m * q) % n) / n for q in half}
        even = do.scaled_sum([(sums[q], math.cos(angles[q])) for q in half], x[0])
        odd = do.scaled_sum([(differences[q], math.sin(angles[q])) for q in half])
        out[m] = do.subtract_i_times(even, odd)
        out[n - m] = do.add_i_times(even, odd)
    return out


def transform(do: Arithmetic, x: list[Complex]) -> list[Complex]:
    """Discrete Fourier transform, sum_j x[j] exp(-2 pi i j k / n), by Cooley-Tukey."""
    n = len(x)
    radix = next(r for r in _RADICES if n % r == 0)
    length = n // radix
    if length == 1:
        return _short_transform(do, x)
    strands = [transform(do, x[q::radix]) for q in range(radix)]
    out = [ZERO] * n
    for k in range(length):
        turned = [do.turned(strands[q][k], q * k, n) for q in range(radix)]
        out[k::length] = _short_transform(do, turned)
    return out


def inverse_transform(do: Arithmetic, x: list[Complex]) -> list[Complex]:
    """Inverse transform, times n: forward with real and imaginary part swapped."""
    swapped = transform(do, [(im, re) for re, im in x])
    return [(re, im) for im, re in swapped]


class Image:
    """Complex image of side n in memory, `lanes` patches to a pixel."""

    def __init__(self, v: Vectors, base: ir.Value, row: int) -> None:
        self.v = v
        self.base = base
        self.row = row

    def line(self, number: ir.Value, stride: int) -> ir.Value:
        """Pointer to line `number`, lines being `stride` pixels apart."""
        offset = self.v.builder.mul(number, index(stride * 2 * self.v.lanes))
        return self.v.builder.gep(self.base, [offset])

    def load(self, line: ir.Value, pixel: int) -> Complex:
        """Read a pixel of a line."""
        start = 2 * pixel * self.v.lanes
        return self.v.load(line, start), self.v.load(line, start + self.v.lanes)

    def store(self, value: Complex, line: ir.Value, pixel: int) -> None:
        """Write a pixel of a line."""
        start = 2 * pixel * self.v.lanes
        for part, offset in zip(value, (0, self.v.lanes), strict=True):
            zero = self.v.constant(0.0)
            self.v.store(zero if part is None else part, line, start + offset)
