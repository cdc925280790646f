"""The loops of `fastmf_kernels.topk.cpu.tiles` as explicit vector code; see `fastmf_kernels.linalg.panels_simd`."""

import math
from collections.abc import Callable, Sequence

from llvmlite import ir  # noqa: TID251

from fastmf_kernels._builder import WIDTH, ZERO, Builder

# As in `tiles`, which cannot be imported here: it is what imports this.
_ROWS, _N_COUNTS, _LIMIT = 8, 4, 1
_LARGEST = 2.0**30


def screen_floats(
    b: Builder,
    queries: ir.Value,
    i: ir.Value,
    items: ir.Value,
    j: ir.Value,
    n_factors: ir.Value,
    limits: ir.Value,
    k: ir.Value,
    norm: ir.Value,
    scores: ir.Value,
    margins: ir.Value,
    passed: ir.Value,
) -> ir.Value:
    """Emit `tiles.screen_floats`: all 8 × 32 scores in registers, or with fewer of them 4 × 16 at a time."""
    queries, items, limits = b.at(queries, i), b.at(items, j), b.at(limits, k)
    bounds = b.floats(limits, _ROWS, 0)
    slack = b.ir.fmul(b.floats(limits, _ROWS, 1), b.all(norm, _ROWS))
    bounds = b.ir.fsub(bounds, slack)
    height, width = (_ROWS, 2) if b.has_32_registers_of_16 else (4, 1)
    masks: list[list[ir.Value]] = [[] for _ in range(_ROWS)]
    found: list[tuple[ir.Value, int, int]] = []
    for column in range(0, 2, width):
        for top in range(0, _ROWS, height):

            def body(f: ir.Value, sums: list[ir.Value], top: int = top, column: int = column) -> list[ir.Value]:
                of_items = b.at(items, b.ir.mul(f, b.index(2 * WIDTH)))
                of_queries = b.at(b.at(queries, b.ir.mul(f, b.index(_ROWS))), top)
                vectors = [b.load(b.at(of_items, (column + c) * WIDTH)) for c in range(width)]
                weights = [b.everywhere(b.ir.load(b.at(of_queries, r))) for r in range(height)]
                pairs = [(weight, vector) for weight in weights for vector in vectors]
                return [b.multiply_add(*pair, total) for pair, total in zip(pairs, sums, strict=True)]

            sums = b.loop(n_factors, [ZERO] * (height * width), body)
            for r in range(height):
                bound = b.everywhere(b.element(bounds, top + r))
                totals = sums[r * width : (r + 1) * width]
                masks[top + r] += [b.not_below(total, bound) for total in totals]
                found += [(total, top + r, column + c) for c, total in enumerate(totals)]

    def store_scores() -> None:
        b.store(b.ir.fadd(slack, slack), margins)
        for total, r, column in found:
            low = b.ir.fsub(total, b.all(b.element(slack, r), WIDTH))
            b.store(low, b.at(scores, (2 * r + column) * WIDTH))

    return _report(b, masks, passed, store_scores)


def screen_bytes(
    b: Builder,
    queries: ir.Value,
    i: ir.Value,
    items: ir.Value,
    j: ir.Value,
    n_quads: ir.Value,
    limits: ir.Value,
    k: ir.Value,
    terms: ir.Value,
    t: ir.Value,
    scores: ir.Value,
    margins: ir.Value,
    passed: ir.Value,
) -> ir.Value:
    """Emit `tiles.screen_bytes`: four products and their sum are one instruction (AVX-512 VNNI)."""
    queries, items, limits, terms = b.at(queries, i), b.at(items, j), b.at(limits, k), b.at(terms, t)
    parts = [b.floats(limits, _ROWS, part) for part in range(3)]
    *factors, scale = [b.all(b.ir.load(b.at(terms, part)), _ROWS) for part in range(4)]
    bound, first, second = (b.ir.fmul(x, y) for x, y in zip(parts, factors, strict=True))
    error = b.ir.fadd(first, second)
    offsets = b.integers(b.at(queries, b.ir.mul(n_quads, b.index(_ROWS))), _ROWS)
    least = b.ir.add(b.to_integers(b.ir.fsub(bound, error), _LARGEST), offsets)

    def body(q: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        of_items = b.at(items, b.ir.mul(q, b.index(4 * 2 * WIDTH)))
        of_queries = b.at(queries, b.ir.mul(q, b.index(_ROWS)))
        vectors = [b.load_bytes(b.at(of_items, 4 * column * WIDTH)) for column in range(2)]
        weights = [b.all(b.ir.load(b.at(of_queries, r)), WIDTH) for r in range(_ROWS)]
        pairs = [(vector, weight) for weight in weights for vector in vectors]
        return [b.add_byte_products(total, *pair) for pair, total in zip(pairs, sums, strict=True)]

    sums = b.loop(n_quads, [b.no_integers()] * (2 * _ROWS), body)
    masks = []
    for r in range(_ROWS):
        bound_of_row = b.all(b.element(least, r), WIDTH)
        masks.append([b.ir.icmp_signed(">=", total, bound_of_row) for total in sums[2 * r : 2 * r + 2]])

    def store_scores() -> None:
        b.store(b.ir.fmul(b.ir.fadd(error, error), scale), margins)
        scales = b.all(b.element(scale, 0), WIDTH)
        for r in range(_ROWS):
            offset, error_of_row = (b.all(b.element(of_rows, r), WIDTH) for of_rows in (offsets, error))
            for column, total in enumerate(sums[2 * r : 2 * r + 2]):
                product = b.ir.sitofp(b.ir.sub(total, offset), scales.type)
                low = b.ir.fmul(b.ir.fsub(product, error_of_row), scales)
                b.store(low, b.at(scores, (2 * r + column) * WIDTH))

    return _report(b, masks, passed, store_scores)


def _report(
    b: Builder, masks: Sequence[Sequence[ir.Value]], passed: ir.Value, and_also: Callable[[], None]
) -> ir.Value:
    """If anything has passed, store the rows' masks of 32 bits, and do what is to be done then; return whether."""
    together = [mask for pair in masks for mask in pair]
    while len(together) > 1:
        together = [b.ir.or_(x, y) for x, y in zip(together[::2], together[1::2], strict=True)]
    anything = b.any(together[0])

    def store() -> None:
        for r, (low, high) in enumerate(masks):
            b.ir.store(b.bits(low, high), b.at(passed, r))
        and_also()

    b.only_if(anything, store)
    return anything


def count_from(b: Builder, numbers: ir.Value, i: ir.Value, n: ir.Value, least: ir.Value) -> ir.Value:
    """Emit `tiles.count_from`."""
    numbers = b.at(numbers, i)
    bound = b.all(b.narrow(least), WIDTH)

    def body(t: ir.Value, counts: list[ir.Value]) -> list[ir.Value]:
        vector = b.integers(b.at(numbers, b.ir.mul(t, b.index(WIDTH))), WIDTH)
        return [b.ir.add(counts[0], b.how_many(b.ir.icmp_signed(">=", vector, bound)))]

    return b.loop(n, [b.index(0)], body)[0]


def count_above(b: Builder, numbers: ir.Value, i: ir.Value, n: ir.Value, bound: ir.Value) -> ir.Value:
    """Emit `tiles.count_above`."""
    numbers, bound = b.at(numbers, i), b.all(bound, WIDTH // 2)

    def body(t: ir.Value, counts: list[ir.Value]) -> list[ir.Value]:
        vector = b.words(b.at(numbers, b.ir.mul(t, b.index(WIDTH // 2))), WIDTH // 2)
        return [b.ir.add(counts[0], b.how_many(b.ir.icmp_signed(">", vector, bound)))]

    return b.loop(n, [b.index(0)], body)[0]


def append_passed(
    b: Builder,
    passed: ir.Value,
    scores: ir.Value,
    margins: ir.Value,
    excluded: ir.Value,
    e: ir.Value,
    place: ir.Value,
    lows: ir.Value,
    highs: ir.Value,
    places: ir.Value,
    start: ir.Value,
    capacity: ir.Value,
    counts: ir.Value,
    c: ir.Value,
) -> ir.Value:
    """Emit `tiles.append_passed`: 16 items at a time, those that pass moved together."""
    excluded, counts = b.at(excluded, e), b.at(counts, c)
    first_places = [b.ir.add(b.all(b.narrow(place), WIDTH), b.in_turn(half * WIDTH)) for half in range(2)]

    kept = b.ir.and_(b.integers(passed, _ROWS), b.ir.not_(b.integers(excluded, _ROWS)))
    rows = b.ir.icmp_unsigned("!=", kept, ir.Constant(kept.type, [0] * _ROWS))

    def body(_: ir.Value, state: list[ir.Value]) -> list[ir.Value]:
        rows, full = state
        r = b.lowest(rows)
        of_row, buffer = b.at(counts, b.ir.mul(r, b.index(_N_COUNTS))), b.ir.add(start, b.ir.mul(capacity, r))
        bits = b.ir.and_(b.ir.load(b.at(passed, r)), b.ir.not_(b.ir.load(b.at(excluded, r))))
        margin, count = b.everywhere(b.ir.load(b.at(margins, r))), b.ir.load(of_row)
        for half, truths in enumerate(b.truths(bits)):
            at = b.ir.add(buffer, count)
            low = b.load(b.at(b.at(scores, b.ir.mul(r, b.index(2 * WIDTH))), half * WIDTH))
            b.store_where(low, truths, b.at(lows, at))
            b.store_where(b.ir.fadd(low, margin), truths, b.at(highs, at))
            b.store_where(first_places[half], truths, b.at(places, at))
            count = b.ir.add(count, b.how_many(truths))
        b.ir.store(count, of_row)
        is_full = b.ir.icmp_signed(">", count, b.ir.load(b.at(of_row, _LIMIT)))
        return [b.without_lowest(rows), b.ir.or_(full, is_full)]

    nothing = ir.Constant(ir.IntType(1), 0)
    return b.loop(b.how_many(rows), [b.as_bits(rows), nothing], body)[1]


def extremes(b: Builder, numbers: ir.Value, i: ir.Value, n: ir.Value) -> ir.Value:
    """Emit `tiles.extremes`."""
    numbers = b.at(numbers, i)
    smallest, largest = (b.everywhere(b.number(bound)) for bound in (math.inf, -math.inf))

    def body(t: ir.Value, bounds: list[ir.Value]) -> list[ir.Value]:
        vector = b.load(b.at(numbers, b.ir.mul(t, b.index(WIDTH))))
        counts = b.ir.and_(b.ir.fcmp_ordered("<", vector, bounds[0]), b.ir.fcmp_ordered(">", vector, largest))
        is_larger = b.ir.fcmp_ordered(">", vector, bounds[1])
        return [b.ir.select(counts, vector, bounds[0]), b.ir.select(is_larger, vector, bounds[1])]

    low, high = b.loop(n, [smallest, largest], body)
    return b.together(
        [
            b.fold(low, lambda x, y: b.ir.select(b.ir.fcmp_ordered("<", x, y), x, y)),
            b.fold(high, lambda x, y: b.ir.select(b.ir.fcmp_ordered(">", x, y), x, y)),
        ]
    )


def count_not_below(b: Builder, numbers: ir.Value, i: ir.Value, n: ir.Value, least: ir.Value) -> ir.Value:
    """Emit `tiles.count_not_below`."""
    numbers, bound = b.at(numbers, i), b.everywhere(least)

    def body(t: ir.Value, counts: list[ir.Value]) -> list[ir.Value]:
        vector = b.load(b.at(numbers, b.ir.mul(t, b.index(WIDTH))))
        return [b.ir.add(counts[0], b.how_many(b.ir.fcmp_ordered(">=", vector, bound)))]

    return b.loop(n, [b.index(0)], body)[0]


def keep_not_below(
    b: Builder, lows: ir.Value, highs: ir.Value, places: ir.Value, i: ir.Value, n: ir.Value, least: ir.Value
) -> ir.Value:
    """Emit `tiles.keep_not_below`: what is written never lies beyond what has been read."""
    lows, highs, places, bound = b.at(lows, i), b.at(highs, i), b.at(places, i), b.everywhere(least)

    def body(t: ir.Value, kept: list[ir.Value]) -> list[ir.Value]:
        at = b.ir.mul(t, b.index(WIDTH))
        low, high, place = b.load(b.at(lows, at)), b.load(b.at(highs, at)), b.integers(b.at(places, at), WIDTH)
        truths = b.not_below(high, bound)
        for vector, target in ((low, lows), (high, highs), (place, places)):
            b.store_where(vector, truths, b.at(target, kept[0]))
        return [b.ir.add(kept[0], b.how_many(truths))]

    return b.loop(n, [b.index(0)], body)[0]


def largest_magnitude(b: Builder, numbers: ir.Value, i: ir.Value, n: ir.Value) -> ir.Value:
    """Emit `tiles.largest_magnitude`."""
    numbers = b.at(numbers, i)

    def larger(x: ir.Value, y: ir.Value) -> ir.Value:
        return b.ir.select(b.ir.fcmp_ordered(">", x, y), x, y)

    def vectors(t: ir.Value, most: list[ir.Value]) -> list[ir.Value]:
        return [larger(b.magnitude(b.load(b.at(numbers, b.ir.mul(t, b.index(WIDTH))))), most[0])]

    steps = b.ir.udiv(n, b.index(WIDTH))
    done = b.ir.mul(steps, b.index(WIDTH))

    def one_number(t: ir.Value, most: list[ir.Value]) -> list[ir.Value]:
        return [larger(b.magnitude(b.ir.load(b.at(numbers, b.ir.add(done, t)))), most[0])]

    largest = b.fold(b.loop(steps, [ZERO], vectors)[0], larger)
    return b.loop(b.ir.sub(n, done), [largest], one_number)[0]


def exact_product(b: Builder, x: ir.Value, i: ir.Value, y: ir.Value, j: ir.Value, n: ir.Value) -> ir.Value:
    """Emit `tiles.exact_product`: 16 sums are on their way at a time, and one for what is left over."""
    x, y = b.at(x, i), b.at(y, j)

    def vectors(t: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        place = b.ir.mul(t, b.index(WIDTH))
        return [b.multiply_add(b.doubles(b.load(b.at(x, place))), b.doubles(b.load(b.at(y, place))), sums[0])]

    steps = b.ir.udiv(n, b.index(WIDTH))
    done = b.ir.mul(steps, b.index(WIDTH))

    def one_number(t: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        place = b.ir.add(done, t)
        first, second = (b.doubles(b.ir.load(b.at(array, place))) for array in (x, y))
        return [b.multiply_add(first, second, sums[0])]

    total = b.sum(b.loop(steps, [b.doubles(ZERO)], vectors)[0])
    return b.loop(b.ir.sub(n, done), [total], one_number)[0]


def product_in_order(b: Builder, x: ir.Value, i: ir.Value, y: ir.Value, j: ir.Value, n: ir.Value) -> ir.Value:
    """Emit `tiles.product_in_order`."""
    x, y = b.at(x, i), b.at(y, j)

    def body(f: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        return [b.multiply_add(b.ir.load(b.at(x, f)), b.ir.load(b.at(y, f)), sums[0])]

    return b.loop(n, [b.number(0.0)], body)[0]
