"""The loops of `fastmf_kernels.topk.tiles` as explicit vector code; see `fastmf_kernels._vectors`."""

from collections.abc import Callable, Sequence

from llvmlite import ir  # noqa: TID251

from fastmf_kernels._builder import WIDTH, ZERO, Builder

_ROWS = 8
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
    passed: ir.Value,
) -> ir.Value:
    """Emit `tiles.screen_floats`: all 8 × 32 scores in registers, or with fewer of them 4 × 16 at a time."""
    queries, items, limits = b.at(queries, i), b.at(items, j), b.at(limits, k)
    bounds = b.floats(limits, _ROWS, 0)
    slack = b.floats(limits, _ROWS, 1)
    bounds = b.ir.fsub(bounds, b.ir.fmul(slack, b.all(norm, _ROWS)))
    height, width = (_ROWS, 2) if b.has_32_registers_of_16 else (4, 1)
    masks: list[list[ir.Value]] = [[] for _ in range(_ROWS)]
    found: list[tuple[ir.Value, int]] = []
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
                places = [((top + r) * 2 + column + c) * WIDTH for c in range(width)]
                found += zip(totals, places, strict=True)

    def store_scores() -> None:
        for total, place in found:
            b.store(total, b.at(scores, place))

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
    passed: ir.Value,
) -> ir.Value:
    """Emit `tiles.screen_bytes`: four products and their sum are one instruction (AVX-512 VNNI)."""
    queries, items, limits, terms = b.at(queries, i), b.at(items, j), b.at(limits, k), b.at(terms, t)
    *parts, offsets = [b.floats(limits, _ROWS, part) for part in range(4)]
    factors = [b.all(b.ir.load(b.at(terms, part)), _ROWS) for part in range(3)]
    bound, first, second = (b.ir.fmul(x, y) for x, y in zip(parts, factors, strict=True))
    bound = b.ir.fsub(b.ir.fsub(bound, first), second)
    least = b.ir.add(b.to_integers(bound, _LARGEST), b.to_integers(offsets, _LARGEST))

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
    return _report(b, masks, passed, lambda: None)


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


def lowest_bit(b: Builder, bits: ir.Value) -> ir.Value:
    """Emit `tiles.lowest_bit`."""
    return b.trailing_zeros(bits)


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
