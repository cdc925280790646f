"""Sixteen float32 numbers at a time, as explicit vector code: how the loops of `fastmf_kernels.linalg.panels` compile.

LLVM cuts a vector of 16 into what the processor has (one register with AVX-512, two with AVX2, four with NEON). Left to
itself it does not keep a block of sums in registers over a whole loop; these builders spell that out. Each has the
signature of the plain function that it stands for.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir  # noqa: TID251
from numba import types  # noqa: TID251
from numba.core import cgutils  # noqa: TID251
from numba.extending import intrinsic  # noqa: TID251

WIDTH = 16

_FLOAT, _INT32, _INT64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, WIDTH)
_ZERO = ir.Constant(_VECTOR, [0.0] * WIDTH)
_UNDEFINED = ir.Constant(_VECTOR, ir.Undefined)
# Sums that are on their way at a time: the latency of a multiply-add times how many can start at once, rounded up.
_CHAINS = 8


class Builder:
    """The instructions needed here, one method each; values are LLVM's."""

    def __init__(self, context: Any, builder: ir.IRBuilder) -> None:
        self._context, self.ir = context, builder

    @property
    def has_32_registers_of_16(self) -> bool:
        """Whether a block of 16 × 16 sums fits the registers."""
        return "+avx512f" in self._context.codegen().magic_tuple()[2]

    def index(self, value: int) -> ir.Value:
        """Return a constant for `at`, `loop` and `multiply`."""
        return ir.Constant(_INT64, value)

    def at(self, pointer: ir.Value, offset: ir.Value | int) -> ir.Value:
        """Move a pointer by a number of elements."""
        return self.ir.gep(pointer, [self.index(offset) if isinstance(offset, int) else offset])

    def load(self, pointer: ir.Value) -> ir.Value:
        """Load 16 numbers."""
        vector = self.ir.load(self.ir.bitcast(pointer, _VECTOR.as_pointer()))
        vector.align = 4
        return vector

    def store(self, vector: ir.Value, pointer: ir.Value) -> None:
        """Store 16 numbers."""
        self.ir.store(vector, self.ir.bitcast(pointer, _VECTOR.as_pointer())).align = 4

    def everywhere(self, scalar: ir.Value) -> ir.Value:
        """Make 16 numbers of one."""
        first = self.ir.insert_element(_UNDEFINED, scalar, ir.Constant(_INT32, 0))
        return self.select(first, _UNDEFINED, [0] * WIDTH)

    def select(self, a: ir.Value, b: ir.Value, positions: Sequence[int]) -> ir.Value:
        """Take the numbers at ``positions`` from a (0 to 15) and b (16 to 31)."""
        return self.ir.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INT32, WIDTH), list(positions)))

    def element(self, vector: ir.Value, position: int) -> ir.Value:
        """Take one number out."""
        return self.ir.extract_element(vector, ir.Constant(_INT32, position))

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """Return a·b + c, in one instruction where there is one."""
        of_three = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        return self.ir.call(cgutils.get_or_insert_function(self.ir.module, of_three, "llvm.fmuladd.v16f32"), [a, b, c])

    def square_root(self, scalar: ir.Value) -> ir.Value:
        """Return √ of one number."""
        of_one = ir.FunctionType(_FLOAT, [_FLOAT])
        return self.ir.call(cgutils.get_or_insert_function(self.ir.module, of_one, "llvm.sqrt.f32"), [scalar])

    def loop(
        self, n: ir.Value, state: Sequence[ir.Value], body: Callable[[ir.Value, list[ir.Value]], list[ir.Value]]
    ) -> list[ir.Value]:
        """Run ``state = body(t, state)`` for t from 0 to n - 1, the state in registers."""
        entry = self.ir.block
        loop, done = self.ir.append_basic_block("loop"), self.ir.append_basic_block("done")
        self.ir.cbranch(self.ir.icmp_signed(">", n, self.index(0)), loop, done)

        self.ir.position_at_end(loop)
        t = self.ir.phi(_INT64)
        carried = [self.ir.phi(value.type) for value in state]
        after = body(t, carried)
        following = self.ir.add(t, self.index(1))
        end = self.ir.block
        t.add_incoming(self.index(0), entry)
        t.add_incoming(following, end)
        for phi, first, next_ in zip(carried, state, after, strict=True):
            phi.add_incoming(first, entry)
            phi.add_incoming(next_, end)
        self.ir.cbranch(self.ir.icmp_signed("<", following, n), loop, done)

        self.ir.position_at_end(done)
        results = []
        for first, next_ in zip(state, after, strict=True):
            result = self.ir.phi(first.type)
            result.add_incoming(first, entry)
            result.add_incoming(next_, end)
            results.append(result)
        return results


Emit = Callable[..., ir.Value | None]


def compiled_as(emit: Emit) -> Callable[[Callable[..., Any]], Any]:
    """Replace a function, inside kernels, by what ``emit(builder, *arguments)`` emits.

    Its array arguments arrive as pointers to their first element, its other arguments as they are. A function that
    emits a value returns a bool, else nothing.
    """

    def decorate(plain: Callable[..., Any]) -> Any:
        returns_bool = plain.__annotations__["return"] is bool

        def of_types(_: Any, *given: Any) -> Any:
            arguments = [kind if isinstance(kind, types.Array | types.Float) else types.int64 for kind in given]
            signature = (types.boolean if returns_bool else types.void)(*arguments)

            def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[ir.Value]) -> ir.Value:
                lowered = [
                    context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
                    for kind, value in zip(signature.args, values, strict=True)
                ]
                result = emit(Builder(context, builder), *lowered)
                return context.get_dummy_value() if result is None else result

            return signature, generate

        of_types.__name__ = plain.__name__
        parameters = [inspect.Parameter("typing_context", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        parameters += inspect.signature(plain).parameters.values()
        of_types.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return intrinsic(of_types)

    return decorate


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

        for r, total in enumerate(b.loop(n, [_ZERO] * height, body)):
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
    """Emit `panels.add_combinations`: four panels at a time, which spares loading the weights three times of four."""
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
    chains = _CHAINS // len(targets)

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
    zeros = [_ZERO] * (len(targets) * (chains - 1))
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

        sums += b.loop(n_panels, [_ZERO] * height, body)
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
    one = ir.Constant(_FLOAT, 1.0)
    for j in range(WIDTH):
        pivot = b.element(rows[j], j)
        regular = b.ir.and_(regular, b.ir.fcmp_ordered(">", pivot, smallest_pivot))
        reciprocal = b.ir.fdiv(one, b.square_root(pivot))
        row = b.ir.fmul(rows[j], b.everywhere(reciprocal))
        negative = b.ir.fneg(row)
        for i in range(j + 1, WIDTH):
            rows[i] = b.multiply_add(b.select(row, row, [i] * WIDTH), negative, rows[i])
        right_of_diagonal = [lane if lane > j else WIDTH for lane in range(WIDTH)]
        upper = b.select(row, _ZERO, right_of_diagonal)
        rows[j] = b.ir.insert_element(upper, reciprocal, ir.Constant(_INT32, j))
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
    pointer = b.ir.bitcast(b.at(array, i), ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), _INT32, _INT32, _INT32])
    function = cgutils.get_or_insert_function(b.ir.module, kind, "llvm.prefetch.p0")
    read, near, data = (ir.Constant(_INT32, value) for value in (0, 2, 1))

    def body(line: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        b.ir.call(function, [b.ir.gep(pointer, [b.ir.mul(line, b.index(4 * WIDTH))]), read, near, data])
        return []

    b.loop(n, [], body)
