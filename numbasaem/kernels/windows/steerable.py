"""Whole particles at all in-plane angles of a view, from steerable features.

A block is `BLOCK` windows, whose features lie one feature after the other, window by
window: windows travel in the lanes of registers, and what belongs to a view is spread
over all lanes as it is needed. Views come in opposite pairs, which share the products
of features and coefficients, and angles in fours, psi, -psi, pi - psi and pi + psi,
which share the sums over orders: cosines and sines, even and odd orders apart, with
other signs.

What each operation computes is said by its namesake in `tests/reference.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..layout import HEADROOM
from ..llvm import REGISTERS, Vectors, index, repeat

BLOCK = 64
"""Windows of a block, a multiple of the lanes of any register."""
GROUP = 6 if REGISTERS == 32 else 2
"""Images whose products with a block are taken together."""


def counts_in_types(counts: Sequence[int]) -> tuple[float, ...]:
    """Tuple whose type tells the radial vectors of each order.

    Parameters
    ----------
    counts : sequence of int
        Radial vectors of each order; they do not grow.

    Returns
    -------
    tuple of int and float
        From the highest order down, 0.0 for each vector more than the order above has,
        then 0. Loops that run in parallel take no tuple of tuples, and no long one.
    """
    code: list[float] = []
    above = 0
    for count in reversed(counts):
        code += [0.0] * (count - above) + [0]
        above = count
    return tuple(code)


def _counts_of(code):  # type: ignore[no-untyped-def]
    """Radial vectors of each order; inverse of :func:`counts_in_types`."""
    counts, count = [], 0
    for element in code:
        if isinstance(element, types.Float):
            count += 1
        else:
            counts.append(count)
    return counts[::-1]


def _pointers(context, builder, kind, packed):  # type: ignore[no-untyped-def]
    """Pointers to what a tuple of arrays and offsets names."""
    values, pointers = cgutils.unpack_tuple(builder, packed), []
    for i in range(0, len(values), 2):
        array = context.make_array(kind[i])(context, builder, values[i])
        pointers.append(builder.gep(array.data, [values[i + 1]]))
    return pointers


def _steered(emit):  # type: ignore[no-untyped-def]
    """Wrap `emit(builder, counts, lanes, pointers, n_quarter)` for use in a kernel.

    The kernel passes for each order as many zeros as it has radial vectors, `lanes`, a
    tuple with an array and an offset for each operand, and the angles of a quarter.
    """

    def typed(typing_context, counts, lanes, operands, n_quarter):  # type: ignore[no-untyped-def]
        signature = types.void(counts, lanes, operands, n_quarter)

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            pointers = _pointers(context, builder, signature.args[2], arguments[2])
            emit(builder, _counts_of(counts), lanes.count, pointers, arguments[3])
            return context.get_dummy_value()

        return signature, generate

    typed.__name__ = emit.__name__.removeprefix("_emit_")
    typed.__doc__ = emit.__doc__
    return intrinsic(typed)


def _products(v, counts, features, pair):  # type: ignore[no-untyped-def]
    """Emit re_N and im_N of both views of a pair, for the windows of a register."""
    n_half, start = sum(counts), 0
    first, second = [], []
    for order, count in enumerate(counts):
        pc = qs = ps = qc = v.constant(0.0)
        for n in range(start, start + count):
            c, p = v.load(features, n * BLOCK), v.broadcast(pair, n)
            pc = v.multiply_add(p, c, pc)
            if order > 0:
                s, q = (
                    v.load(features, (n_half + n) * BLOCK),
                    v.broadcast(pair, n_half + n),
                )
                qs, ps = v.multiply_add(q, s, qs), v.multiply_add(p, s, ps)
                qc = v.multiply_add(q, c, qc)
        start += count
        add, subtract = v.builder.fadd, v.builder.fsub
        first.append((add(pc, qs), subtract(ps, qc)) if order > 0 else (pc, None))
        second.append((subtract(pc, qs), add(ps, qc)) if order > 0 else (pc, None))
    return first, second


def _exponents(v, views, waves, biases, level):  # type: ignore[no-untyped-def]
    """Emit the exponents of both views at the four angles of a psi, less a level.

    Each wave is loaded once for both views; `biases` are a pointer for each.
    """
    n_orders, n_views = len(views[0]), len(views)
    sums: dict[tuple[int, str, int], ir.Value] = {}
    for order in range(n_orders):
        for kind, offset in (("c", order), ("s", n_orders + order)):
            if kind == "s" and order == 0:
                continue
            wave = v.broadcast(waves, offset)
            for number, view in enumerate(views):
                part, key = view[order]["cs".index(kind)], (number, kind, order % 2)
                sums[key] = (
                    v.multiply_add(part, wave, sums[key])
                    if key in sums
                    else v.builder.fmul(part, wave)
                )
    zero, add, subtract = v.constant(0.0), v.builder.fadd, v.builder.fsub
    exponents = []
    for number in range(n_views):
        even, odd, even_sine, odd_sine = (
            sums.get((number, kind, parity), zero) for kind in "cs" for parity in (0, 1)
        )
        even = subtract(even, level)
        near, far = add(even, odd), subtract(even, odd)
        up, down = add(odd_sine, even_sine), subtract(odd_sine, even_sine)
        totals = [add(near, up), subtract(near, up)]
        totals += [add(far, down), subtract(far, down)]
        exponents.append(
            [
                add(total, v.broadcast(biases[number], four))
                for four, total in enumerate(totals)
            ]
        )
    return exponents


def _places(builder, psi, n_quarter, waves, biases, n_orders):  # type: ignore[no-untyped-def]
    """Emit where the waves of a psi lie, and the numbers of both views' angles."""
    wave = builder.gep(waves, [builder.mul(psi, index(2 * n_orders))])
    rows = [builder.add(builder.mul(n_quarter, index(view)), psi) for view in (0, 1)]
    numbers = [builder.mul(row, index(4)) for row in rows]
    return wave, [builder.gep(biases, [number]) for number in numbers], numbers


def _each_register(builder, lanes, body):  # type: ignore[no-untyped-def]
    """Emit `body(offset)` for the registers of a block."""

    def one(i, carried):  # type: ignore[no-untyped-def]
        body(builder.mul(i, index(lanes)))
        return carried

    repeat(builder, index(BLOCK // lanes), [], one)


def _emit_add_steered_evidence(builder, counts, lanes, pointers, n_quarter):  # type: ignore[no-untyped-def]
    """Add the evidence of a pair of views at all angles to that of a block.

    Operands: features, coefficients of the pair, waves, biases of the pair, level and
    total of the block. The level of a window is the exponent that its total refers to;
    it moves up where a term exceeds it by more than the headroom.
    """
    features, pair, waves, biases, levels, totals = pointers
    v, n_orders = Vectors(builder, lanes), len(counts)

    def of_register(offset):  # type: ignore[no-untyped-def]
        level_at = builder.gep(levels, [offset])
        total_at = builder.gep(totals, [offset])
        views = _products(v, counts, builder.gep(features, [offset]), pair)

        def at_psi(psi, carried):  # type: ignore[no-untyped-def]
            level, total = carried
            places = _places(builder, psi, n_quarter, waves, biases, n_orders)
            wave, bias, _ = places
            both = _exponents(v, views, wave, bias, level)
            above = [exponent for view in both for exponent in view]
            highest = above[0]
            for exponent in above[1:]:
                highest = v.larger(highest, exponent)
            before = builder.block
            raising = builder.append_basic_block("raise")
            raised = builder.append_basic_block("raised")
            too_high = v.any_greater(highest, v.constant(HEADROOM))
            builder.cbranch(too_high, raising, raised)
            builder.position_at_end(raising)
            step = v.larger(v.constant(0.0), v.nearest_integer(highest))
            raised_values = [
                builder.fadd(level, step),
                v.scaled_down(total, builder.fsub(v.constant(0.0), step)),
                *(builder.fsub(exponent, step) for exponent in above),
            ]
            builder.branch(raised)
            builder.position_at_end(raised)
            joined = []
            for kept, changed in zip(
                [level, total, *above], raised_values, strict=True
            ):
                joined.append(builder.phi(v.type))
                joined[-1].add_incoming(kept, before)
                joined[-1].add_incoming(changed, raising)
            level, total, *above = joined
            for exponent in above:
                total = builder.fadd(total, v.exp2(exponent))
            return [level, total]

        carried = [v.load(level_at, 0), v.load(total_at, 0)]
        level, total = repeat(builder, n_quarter, carried, at_psi)
        v.store(level, level_at, 0)
        v.store(total, total_at, 0)

    _each_register(builder, lanes, of_register)


def _emit_weigh_steered(builder, counts, lanes, pointers, n_quarter):  # type: ignore[no-untyped-def]
    """Weigh a pair of views at all angles in a block, and add up what they bring back.

    Operands: features, coefficients of the pair, waves, biases of the pair, log2 of
    what each window is divided by, weight of each angle of both views and the pair's
    sums of features, both lane by lane, and room for 4 values of each order and window.
    """
    features, pair, waves, biases, divisors, masses, sums, room = pointers
    v, n_orders, n_half = Vectors(builder, lanes), len(counts), sum(counts)
    add, subtract = builder.fadd, builder.fsub

    def of_register(offset):  # type: ignore[no-untyped-def]
        views = _products(v, counts, builder.gep(features, [offset]), pair)
        divisor = v.load(builder.gep(divisors, [offset]), 0)

        def at_psi(psi, carried):  # type: ignore[no-untyped-def]
            places = _places(builder, psi, n_quarter, waves, biases, n_orders)
            wave, bias, numbers = places
            both = _exponents(v, views, wave, bias, divisor)
            turned = []
            for exponents, number in zip(both, numbers, strict=True):
                mass = builder.gep(masses, [builder.mul(number, index(lanes))])
                weights = []
                for four, exponent in enumerate(exponents):
                    weights.append(v.exp2(exponent))
                    grown = add(v.load(mass, four * lanes), weights[-1])
                    v.store(grown, mass, four * lanes)
                near, far = add(weights[0], weights[1]), add(weights[2], weights[3])
                up = subtract(weights[0], weights[1])
                down = subtract(weights[2], weights[3])
                turned.append(
                    {
                        ("c", 0): add(near, far),
                        ("c", 1): subtract(near, far),
                        ("s", 0): subtract(up, down),
                        ("s", 1): add(up, down),
                    }
                )
            # The mirrored view shares what the pair brings back to p and to q.
            shared = {
                "a": {
                    parity: add(*(t["c", parity] for t in turned)) for parity in (0, 1)
                },
                "b": {
                    parity: add(*(t["s", parity] for t in turned)) for parity in (0, 1)
                },
                "d": {
                    parity: subtract(*(t["c", parity] for t in turned))
                    for parity in (0, 1)
                },
                "e": {
                    parity: subtract(*(t["s", parity] for t in turned[::-1]))
                    for parity in (0, 1)
                },
            }
            leaving = []
            for number, value in enumerate(carried):
                order, kind = divmod(number, 4)
                name = "abde"[kind]
                at = order + (n_orders if name in "be" else 0)
                leaving.append(
                    v.multiply_add(
                        shared[name][order % 2], v.broadcast(wave, at), value
                    )
                )
            return leaving

        carried = [v.constant(0.0)] * (4 * n_orders)
        brought = repeat(builder, n_quarter, carried, at_psi)
        for number, value in enumerate(brought):
            v.store(value, builder.gep(room, [offset]), number * BLOCK)

    _each_register(builder, lanes, of_register)
    start = 0
    for order, count in enumerate(counts):
        for n in range(start, start + count):
            to_p, to_q = v.constant(0.0), v.constant(0.0)
            for first in range(0, BLOCK, lanes):
                a, b, d, e = (
                    v.load(room, (4 * order + kind) * BLOCK + first)
                    for kind in range(4)
                )
                c = v.load(features, n * BLOCK + first)
                to_p = v.multiply_add(a, c, to_p)
                if order > 0:
                    s = v.load(features, (n_half + n) * BLOCK + first)
                    to_p = v.multiply_add(b, s, to_p)
                    to_q = v.multiply_add(e, c, v.multiply_add(d, s, to_q))
            v.store(add(v.load(sums, n * lanes), to_p), sums, n * lanes)
            if order > 0:
                at = (n_half + n) * lanes
                v.store(add(v.load(sums, at), to_q), sums, at)
        start += count


add_steered_evidence = _steered(_emit_add_steered_evidence)
weigh_steered = _steered(_emit_weigh_steered)


def _emit_add_window_products(builder, lanes, pointers, n_pixels):  # type: ignore[no-untyped-def]
    """Inner products of a block with a group of images.

    Operands: pixels of the first window, offsets of the pixels of an image, the group's
    images pixel by pixel, and the features, image by image.
    """
    pixels, offsets, images, features = pointers
    v = Vectors(builder, lanes)
    registers = min(BLOCK // lanes, 4)

    def some(part, carried):  # type: ignore[no-untyped-def]
        first = builder.mul(part, index(registers * lanes))
        corner, target = (builder.gep(base, [first]) for base in (pixels, features))

        def at_pixel(i, sums):  # type: ignore[no-untyped-def]
            offset = builder.load(builder.gep(offsets, [i]))
            line = builder.gep(corner, [offset])
            group = builder.gep(images, [builder.mul(i, index(GROUP))])
            values = [v.load(line, r * lanes) for r in range(registers)]
            return [
                v.multiply_add(
                    v.broadcast(group, k), values[r], sums[k * registers + r]
                )
                for k in range(GROUP)
                for r in range(registers)
            ]

        sums = [v.constant(0.0)] * (GROUP * registers)
        sums = repeat(builder, n_pixels, sums, at_pixel)
        for number, value in enumerate(sums):
            k, r = divmod(number, registers)
            v.store(value, target, k * BLOCK + r * lanes)
        return carried

    repeat(builder, index(BLOCK // lanes // registers), [], some)


@intrinsic
def add_window_products(typing_context, lanes, operands, n_pixels):  # type: ignore[no-untyped-def]
    """See :func:`_emit_add_window_products`."""
    signature = types.void(lanes, operands, n_pixels)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointers = _pointers(context, builder, signature.args[1], arguments[1])
        count = builder.sext(arguments[2], ir.IntType(64))
        _emit_add_window_products(builder, signature.args[0].count, pointers, count)
        return context.get_dummy_value()

    return signature, generate
