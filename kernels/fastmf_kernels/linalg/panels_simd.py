"""The loops of `fastmf_kernels.linalg.panels` as explicit vector code.

LLVM does not keep a block of sums in registers over a whole loop by itself; these emitters make it do so. Each emitter
has the parameters of the plain function of the same name.
"""

from collections.abc import Callable

from llvmlite import ir  # noqa: TID251

from fastmf_kernels._builder import WIDTH, ZERO, Builder

# Independent sums in flight: the latency of a multiply-add times the number that can start in a cycle, rounded up.
_SUMS_IN_FLIGHT = 8


def add_product(b: Builder, *arguments: ir.Value) -> None:
    """Emit `panels.add_product`."""
    _emit_product(b, b.ir.fadd, *arguments)


def subtract_product(b: Builder, *arguments: ir.Value) -> None:
    """Emit `panels.subtract_product`."""
    _emit_product(b, b.ir.fsub, *arguments)


def _emit_product(
    b: Builder,
    combine: Callable[..., ir.Value],
    matrix: ir.Value,
    place: ir.Value,
    left: ir.Value,
    i: ir.Value,
    right: ir.Value,
    j: ir.Value,
    n: ir.Value,
) -> None:
    block, left, right = b.at(matrix, place), b.at(left, i), b.at(right, j)
    # A block of 16 × 16 sums, or with fewer registers four blocks of 4 × 16: measured 87 useful Gflop/s against 51 with
    # eight rows a block on 16 registers of AVX2, and the same as 16 rows on 32 of AVX-512 (64 factors, one core).
    height = WIDTH if b.has_32_registers_of_16 else 4
    for top in range(0, WIDTH, height):

        def body(t: ir.Value, sums: list[ir.Value], top: int = top) -> list[ir.Value]:
            offset = b.ir.mul(t, b.index(WIDTH))
            row, column = b.load(b.at(right, offset)), b.at(b.at(left, offset), top)
            return [
                b.multiply_add(b.everywhere(b.ir.load(b.at(column, r))), row, total) for r, total in enumerate(sums)
            ]

        for r, total in enumerate(b.loop(n, [ZERO] * height, body)):
            row_of_block = b.at(block, (top + r) * WIDTH)
            b.store(combine(b.load(row_of_block), total), row_of_block)


def add_combination(
    b: Builder, target: ir.Value, i: ir.Value, weights: ir.Value, j: ir.Value, panel: ir.Value, k: ir.Value, n: ir.Value
) -> None:
    """Emit `panels.add_combination`."""
    _emit_combinations(b, [b.at(target, i)], b.at(weights, j), [b.at(panel, k)], n)


def add_combinations(
    b: Builder,
    target: ir.Value,
    weights: ir.Value,
    panels: ir.Value,
    i: ir.Value,
    stride: ir.Value,
    n_panels: ir.Value,
    n: ir.Value,
) -> None:
    """Emit `panels.add_combinations`: four panels at a time, which saves three of four loads of the weights."""
    panels = b.at(panels, i)

    def several(count: int, first: ir.Value) -> None:
        places = [b.ir.add(first, b.index(c)) for c in range(count)]
        targets = [b.at(target, b.ir.mul(place, b.index(WIDTH))) for place in places]
        _emit_combinations(b, targets, weights, [b.at(panels, b.ir.mul(place, stride)) for place in places], n)

    def four(step: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        several(4, b.ir.mul(step, b.index(4)))
        return []

    def one(step: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        several(1, b.ir.add(in_fours, step))
        return []

    fours = b.ir.udiv(n_panels, b.index(4))
    in_fours = b.ir.mul(fours, b.index(4))
    b.loop(fours, [], four)
    b.loop(b.ir.sub(n_panels, in_fours), [], one)


def _emit_combinations(
    b: Builder, targets: list[ir.Value], weights: ir.Value, panels: list[ir.Value], n: ir.Value
) -> None:
    chains = _SUMS_IN_FLIGHT // len(targets)

    def term(t: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
        weight = b.everywhere(b.ir.load(b.at(weights, t)))
        row = b.ir.mul(t, b.index(WIDTH))
        return [
            b.multiply_add(weight, b.load(b.at(panel, row)), total) for panel, total in zip(panels, totals, strict=True)
        ]

    def several(step: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        first = b.ir.mul(step, b.index(chains))
        return [
            total
            for c in range(chains)
            for total in term(b.ir.add(first, b.index(c)), sums[c * len(targets) : (c + 1) * len(targets)])
        ]

    steps = b.ir.udiv(n, b.index(chains))
    zeros = [ZERO] * (len(targets) * (chains - 1))
    sums = b.loop(steps, [b.load(target) for target in targets] + zeros, several)
    while len(sums) > len(targets):
        half = len(sums) // 2
        sums = [b.ir.fadd(x, y) for x, y in zip(sums[:half], sums[half:], strict=True)]
    done = b.ir.mul(steps, b.index(chains))
    totals = b.loop(b.ir.sub(n, done), sums, lambda t, state: term(b.ir.add(done, t), state))
    for total, target in zip(totals, targets, strict=True):
        b.store(total, target)


def multiply_rows(
    b: Builder,
    products: ir.Value,
    i: ir.Value,
    panels: ir.Value,
    j: ir.Value,
    stride: ir.Value,
    n_panels: ir.Value,
    vector: ir.Value,
    k: ir.Value,
) -> None:
    """Emit `panels.multiply_rows`."""
    products, panels, vector = b.at(products, i), b.at(panels, j), b.at(vector, k)

    height = WIDTH if b.has_32_registers_of_16 else 4
    sums = []
    for top in range(0, WIDTH, height):
        panels_from_top = b.at(panels, top * WIDTH)

        def body(p: ir.Value, sums: list[ir.Value], rows: ir.Value = panels_from_top) -> list[ir.Value]:
            part = b.load(b.at(vector, b.ir.mul(p, b.index(WIDTH))))
            rows = b.at(rows, b.ir.mul(p, stride))
            return [b.multiply_add(b.load(b.at(rows, r * WIDTH)), part, total) for r, total in enumerate(sums)]

        sums += b.loop(n_panels, [ZERO] * height, body)
    b.store(_sum_each(b, sums), products)


def _sum_each(b: Builder, vectors: list[ir.Value]) -> ir.Value:
    """Return one vector: number L is the sum of vector L. Halves are folded onto each other, two vectors at a time."""
    half = WIDTH // 2
    while half:
        lower = [lane & ~(2 * half - 1) | lane & (half - 1) for lane in range(WIDTH)]
        from_second = [WIDTH if lane & half else 0 for lane in range(WIDTH)]
        firsts = [base + second for base, second in zip(lower, from_second, strict=True)]
        others = [position + half for position in firsts]
        vectors = [
            b.ir.fadd(b.select(x, y, firsts), b.select(x, y, others))
            for x, y in zip(vectors[:half], vectors[half:], strict=True)
        ]
        half //= 2
    return vectors[0]


def factorise_block(b: Builder, matrix: ir.Value, place: ir.Value, smallest_pivot: ir.Value) -> ir.Value:
    """Emit `panels.factorise_block`."""
    block = b.at(matrix, place)
    rows = [b.load(b.at(block, r * WIDTH)) for r in range(WIDTH)]
    regular = ir.Constant(ir.IntType(1), 1)
    one = b.number(1.0)
    for j in range(WIDTH):
        pivot = b.element(rows[j], j)
        regular = b.ir.and_(regular, b.ir.fcmp_ordered(">", pivot, smallest_pivot))
        reciprocal = b.ir.fdiv(one, b.square_root(pivot))
        row = b.ir.fmul(rows[j], b.everywhere(reciprocal))
        negative = b.ir.fneg(row)
        for i in range(j + 1, WIDTH):
            rows[i] = b.multiply_add(b.select(row, row, [i] * WIDTH), negative, rows[i])
        right_of_diagonal = [lane if lane > j else WIDTH for lane in range(WIDTH)]
        upper = b.select(row, ZERO, right_of_diagonal)
        rows[j] = b.with_element(upper, reciprocal, j)
    for r, row in enumerate(rows):
        b.store(row, b.at(block, r * WIDTH))
    return regular


def solve_block(b: Builder, matrix: ir.Value, factor: ir.Value, place: ir.Value) -> None:
    """Emit `panels.solve_block`."""
    factor, block = b.at(matrix, factor), b.at(matrix, place)
    rows = [b.load(b.at(block, r * WIDTH)) for r in range(WIDTH)]
    for j in range(WIDTH):
        rows[j] = b.ir.fmul(rows[j], b.everywhere(b.ir.load(b.at(factor, j * WIDTH + j))))
        negative = b.ir.fneg(rows[j])
        for i in range(j + 1, WIDTH):
            rows[i] = b.multiply_add(b.everywhere(b.ir.load(b.at(factor, j * WIDTH + i))), negative, rows[i])
        b.store(rows[j], b.at(block, j * WIDTH))


def substitute_block(
    b: Builder, matrix: ir.Value, factor: ir.Value, x: ir.Value, i: ir.Value, negative: ir.Value, j: ir.Value
) -> None:
    """Emit `panels.substitute_block`."""
    block, rest, result = b.at(matrix, factor), b.load(b.at(x, i)), ZERO
    for r in range(WIDTH):
        row = b.load(b.at(block, r * WIDTH))
        z = b.ir.fneg(b.ir.fmul(b.element(rest, r), b.element(row, r)))
        rest = b.multiply_add(b.everywhere(z), row, rest)
        result = b.with_element(result, z, r)
    b.store(result, b.at(negative, j))


def substitute_block_back(
    b: Builder, matrix: ir.Value, factor: ir.Value, x: ir.Value, i: ir.Value, negative: ir.Value, j: ir.Value
) -> None:
    """Emit `panels.substitute_block_back`."""
    block, x = b.at(matrix, factor), b.at(x, i)
    right_side, result = b.ir.fadd(b.load(b.at(negative, j)), b.load(x)), ZERO
    for r in range(WIDTH - 1, -1, -1):
        row = b.load(b.at(block, r * WIDTH))
        total = b.ir.fadd(b.element(right_side, r), b.sum(b.ir.fmul(row, result)))
        result = b.with_element(result, b.ir.fneg(b.ir.fmul(total, b.element(row, r))), r)
    b.store(result, x)


def dot_product(b: Builder, x: ir.Value, i: ir.Value, y: ir.Value, j: ir.Value, n: ir.Value) -> ir.Value:
    """Emit `panels.dot_product`: 32 independent sums, and one for the remainder."""
    x, y = b.at(x, i), b.at(y, j)

    def two_vectors(t: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        first = b.ir.mul(t, b.index(2 * WIDTH))
        second = b.ir.add(first, b.index(WIDTH))
        return [
            b.multiply_add(b.load(b.at(x, place)), b.load(b.at(y, place)), total)
            for place, total in zip((first, second), sums, strict=True)
        ]

    steps = b.ir.udiv(n, b.index(2 * WIDTH))
    done = b.ir.mul(steps, b.index(2 * WIDTH))

    def one_number(t: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        place = b.ir.add(done, t)
        return [b.multiply_add(b.ir.load(b.at(x, place)), b.ir.load(b.at(y, place)), sums[0])]

    total = b.sum(b.ir.fadd(*b.loop(steps, [ZERO, ZERO], two_vectors)))
    return b.loop(b.ir.sub(n, done), [total], one_number)[0]


def copy_row(
    b: Builder,
    panels: ir.Value,
    i: ir.Value,
    stride: ir.Value,
    n_panels: ir.Value,
    row: ir.Value,
    j: ir.Value,
    scale: ir.Value,
) -> None:
    """Emit `panels.copy_row`."""
    panels, row, scale = b.at(panels, i), b.at(row, j), b.everywhere(scale)

    def body(p: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        part = b.load(b.at(row, b.ir.mul(p, b.index(WIDTH))))
        b.store(b.ir.fmul(scale, part), b.at(panels, b.ir.mul(p, stride)))
        return []

    b.loop(n_panels, [], body)


def prefetch(b: Builder, array: ir.Value, i: ir.Value, n: ir.Value) -> None:
    """Emit `panels.prefetch`."""
    start = b.at(array, i)

    def body(line: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        b.prefetch(b.at(start, b.ir.mul(line, b.index(WIDTH))))
        return []

    b.loop(n, [], body)
