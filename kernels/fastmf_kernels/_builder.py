"""Explicit vector code: instructions on sixteen float32 numbers, and how kernels get them in place of a function.

LLVM splits a vector of 16 into the registers of the processor (one with AVX-512, two with AVX2, four with NEON).
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir  # noqa: TID251
from numba import types  # noqa: TID251
from numba.core import cgutils  # noqa: TID251
from numba.core.registry import cpu_target  # noqa: TID251
from numba.extending import intrinsic, models, register_model  # noqa: TID251

WIDTH = 16

_FLOAT, _DOUBLE, _INT32, _INT64 = ir.FloatType(), ir.DoubleType(), ir.IntType(32), ir.IntType(64)
_BYTES = ir.VectorType(ir.IntType(8), 4 * WIDTH)
_VECTOR = ir.VectorType(_FLOAT, WIDTH)
ZERO = ir.Constant(_VECTOR, [0.0] * WIDTH)
_TRUTHS = ir.VectorType(ir.IntType(1), WIDTH)


class Builder:
    """One method for each instruction; arguments and results are values of LLVM."""

    def __init__(self, context: Any, builder: ir.IRBuilder) -> None:
        self._context, self.ir = context, builder

    @property
    def has_32_registers_of_16(self) -> bool:
        """Whether a block of 16 × 16 sums fits the registers."""
        return _has(self._context, "avx512f")

    def number(self, value: float) -> ir.Value:
        """Return a constant."""
        return ir.Constant(_FLOAT, value)

    def index(self, value: int) -> ir.Value:
        """Return a constant for `at`, `loop` and `multiply`."""
        return ir.Constant(_INT64, value)

    def at(self, pointer: ir.Value, offset: ir.Value | int) -> ir.Value:
        """Move a pointer by a number of elements."""
        return self.ir.gep(pointer, [self.index(offset) if isinstance(offset, int) else offset])

    def load(self, pointer: ir.Value) -> ir.Value:
        """Load 16 numbers."""
        return self._vector(pointer, _VECTOR, 4)

    def store(self, vector: ir.Value, pointer: ir.Value) -> None:
        """Store a vector of numbers of 32 bits."""
        self.ir.store(vector, self.ir.bitcast(pointer, vector.type.as_pointer())).align = 4

    def store_where(self, vector: ir.Value, truths: ir.Value, pointer: ir.Value) -> None:
        """Store the numbers whose truth value is true, one after the other; memory of 16 numbers may be overwritten."""
        if not self.has_32_registers_of_16:
            place = self.index(0)
            for lane in range(WIDTH):
                self.ir.store(self.element(vector, lane), self.at(pointer, place))
                place = self.ir.add(place, self.ir.zext(self.element(truths, lane), _INT64))
            return
        of_three = ir.FunctionType(vector.type, [vector.type, vector.type, truths.type])
        name = f"llvm.x86.avx512.mask.compress.v16{'f32' if vector.type == _VECTOR else 'i32'}"
        function = cgutils.get_or_insert_function(self.ir.module, of_three, name)
        self.store(self.ir.call(function, [vector, ir.Constant(vector.type, None), truths]), pointer)

    def everywhere(self, scalar: ir.Value) -> ir.Value:
        """Broadcast one number to 16."""
        return self.all(scalar, WIDTH)

    def select(self, a: ir.Value, b: ir.Value, positions: Sequence[int]) -> ir.Value:
        """Take the numbers at ``positions`` from a (0 to 15) and b (16 to 31)."""
        return self.ir.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INT32, WIDTH), list(positions)))

    def element(self, vector: ir.Value, position: int) -> ir.Value:
        """Extract a number of a vector."""
        return self.ir.extract_element(vector, ir.Constant(_INT32, position))

    def with_element(self, vector: ir.Value, scalar: ir.Value, position: int) -> ir.Value:
        """Replace a number of a vector."""
        return self.ir.insert_element(vector, scalar, ir.Constant(_INT32, position))

    def together(self, scalars: Sequence[ir.Value]) -> ir.Value:
        """Make a tuple of numbers, for a function to return."""
        return self._context.make_tuple(self.ir, types.UniTuple(types.float32, len(scalars)), scalars)

    def prefetch(self, pointer: ir.Value) -> None:
        """Prefetch the cache line of an address."""
        of_address = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), _INT32, _INT32, _INT32])
        function = cgutils.get_or_insert_function(self.ir.module, of_address, "llvm.prefetch.p0")
        read, near, data = (ir.Constant(_INT32, value) for value in (0, 2, 1))
        self.ir.call(function, [self.ir.bitcast(pointer, ir.IntType(8).as_pointer()), read, near, data])

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """Return a·b + c, in one instruction where there is one."""
        of_three = ir.FunctionType(a.type, [a.type] * 3)
        count, kind = (f"v{a.type.count}", a.type.element) if isinstance(a.type, ir.VectorType) else ("", a.type)
        name = f"llvm.fmuladd.{count}{'f32' if kind == _FLOAT else 'f64'}"
        return self.ir.call(cgutils.get_or_insert_function(self.ir.module, of_three, name), [a, b, c])

    def all(self, scalar: ir.Value, count: int) -> ir.Value:
        """Broadcast one number to a vector of ``count``."""
        undefined = ir.Constant(ir.VectorType(scalar.type, count), ir.Undefined)
        first = self.with_element(undefined, scalar, 0)
        return self.ir.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_INT32, count), [0] * count))

    def floats(self, pointer: ir.Value, count: int, position: int) -> ir.Value:
        """Load a vector of float32 numbers, the one at ``position`` of those that start at a pointer."""
        return self._vector(self.at(pointer, position * count), ir.VectorType(_FLOAT, count), 4)

    def integers(self, pointer: ir.Value, count: int) -> ir.Value:
        """Load a vector of int32 numbers."""
        return self._vector(pointer, ir.VectorType(_INT32, count), 4)

    def words(self, pointer: ir.Value, count: int) -> ir.Value:
        """Load a vector of int64 numbers."""
        return self._vector(pointer, ir.VectorType(_INT64, count), 8)

    def load_bytes(self, pointer: ir.Value) -> ir.Value:
        """Load 64 bytes."""
        return self._vector(pointer, _BYTES, 1)

    def _vector(self, pointer: ir.Value, kind: ir.Type, align: int) -> ir.Value:
        vector = self.ir.load(self.ir.bitcast(pointer, kind.as_pointer()))
        vector.align = align
        return vector

    def no_integers(self) -> ir.Value:
        """Return 16 zeros."""
        return ir.Constant(ir.VectorType(_INT32, WIDTH), [0] * WIDTH)

    def add_byte_products(self, totals: ir.Value, unsigned: ir.Value, signed: ir.Value) -> ir.Value:
        """Add to each of 16 int32 numbers the four products of its four bytes (AVX-512 VNNI)."""
        kind, signed = totals.type, self.ir.bitcast(signed, _BYTES)
        if not _has(self._context, "avx512vnni"):
            wide = ir.VectorType(_INT32, 4 * WIDTH)
            products = self.ir.mul(self.ir.zext(unsigned, wide), self.ir.sext(signed, wide))
            for part in range(4):
                of_part = ir.Constant(kind, [4 * lane + part for lane in range(WIDTH)])
                totals = self.ir.add(totals, self.ir.shuffle_vector(products, products, of_part))
            return totals
        of_three = ir.FunctionType(kind, [kind, _BYTES, _BYTES])
        function = cgutils.get_or_insert_function(self.ir.module, of_three, "llvm.x86.avx512.vpdpbusd.512")
        return self.ir.call(function, [totals, unsigned, signed])

    def to_integers(self, numbers: ir.Value, largest: float) -> ir.Value:
        """Round toward 0 and clip to ± largest; NaN becomes -largest."""
        count = numbers.type.count
        low, high = (self.all(self.number(sign * largest), count) for sign in (-1, 1))
        numbers = self.ir.select(self.ir.fcmp_ordered(">", numbers, low), numbers, low)
        numbers = self.ir.select(self.ir.fcmp_ordered("<", numbers, high), numbers, high)
        return self.ir.fptosi(numbers, ir.VectorType(_INT32, count))

    def not_below(self, numbers: ir.Value, bounds: ir.Value) -> ir.Value:
        """Compare: true where a number is not below its bound, or one of them is NaN."""
        return self.ir.fcmp_unordered(">=", numbers, bounds)

    def bits(self, low: ir.Value, high: ir.Value) -> ir.Value:
        """Pack two times 16 truth values into 32 bits."""
        low, high = (
            self.ir.zext(self.ir.bitcast(half, ir.IntType(WIDTH)), ir.IntType(2 * WIDTH)) for half in (low, high)
        )
        return self.ir.or_(low, self.ir.shl(high, ir.Constant(high.type, WIDTH)))

    def truths(self, bits: ir.Value) -> list[ir.Value]:
        """Unpack 32 bits into two times 16 truth values."""
        halves = [bits, self.ir.lshr(bits, ir.Constant(bits.type, WIDTH))]
        return [self.ir.bitcast(self.ir.trunc(half, ir.IntType(WIDTH)), _TRUTHS) for half in halves]

    def any(self, truths: ir.Value) -> ir.Value:
        """Whether any of 16 truth values is true."""
        bits = self.ir.bitcast(truths, ir.IntType(WIDTH))
        return self.ir.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    def only_if(self, condition: ir.Value, body: Callable[[], None]) -> None:
        """Emit ``body`` under a condition that is expected to be false."""
        with self.ir.if_then(condition, likely=False):
            body()

    def in_turn(self, first: int) -> ir.Value:
        """Return the 16 int32 numbers from ``first`` on."""
        return ir.Constant(ir.VectorType(_INT32, WIDTH), list(range(first, first + WIDTH)))

    def magnitude(self, numbers: ir.Value) -> ir.Value:
        """Return the absolute value of float32 numbers: of a vector, or of one."""
        is_vector = isinstance(numbers.type, ir.VectorType)
        name = f"llvm.fabs.{f'v{numbers.type.count}' if is_vector else ''}f32"
        of_one = ir.FunctionType(numbers.type, [numbers.type])
        return self.ir.call(cgutils.get_or_insert_function(self.ir.module, of_one, name), [numbers])

    def narrow(self, number: ir.Value) -> ir.Value:
        """Turn an int64 number into int32."""
        return self.ir.trunc(number, _INT32)

    def as_bits(self, truths: ir.Value) -> ir.Value:
        """Pack truth values into an integer, a bit each."""
        return self.ir.bitcast(truths, ir.IntType(truths.type.count))

    def how_many(self, truths: ir.Value) -> ir.Value:
        """Count the truth values that are true."""
        return self.ir.zext(self.ir.ctpop(self.as_bits(truths)), _INT64)

    def lowest(self, bits: ir.Value) -> ir.Value:
        """Return the position of the lowest bit that is set."""
        return self.ir.zext(self.ir.cttz(bits, ir.Constant(ir.IntType(1), 1)), _INT64)

    def without_lowest(self, bits: ir.Value) -> ir.Value:
        """Clear the lowest bit that is set."""
        return self.ir.and_(bits, self.ir.sub(bits, ir.Constant(bits.type, 1)))

    def doubles(self, numbers: ir.Value) -> ir.Value:
        """Turn float32 numbers into float64, a vector of them or one."""
        kind = numbers.type
        return self.ir.fpext(
            numbers, ir.VectorType(_DOUBLE, kind.count) if isinstance(kind, ir.VectorType) else _DOUBLE
        )

    def square_root(self, scalar: ir.Value) -> ir.Value:
        """Return √ of one number."""
        of_one = ir.FunctionType(_FLOAT, [_FLOAT])
        return self.ir.call(cgutils.get_or_insert_function(self.ir.module, of_one, "llvm.sqrt.f32"), [scalar])

    def at_least(self, scalar: ir.Value, bound: float) -> ir.Value:
        """Return the number or the bound, whichever is larger."""
        return self.ir.select(self.ir.fcmp_ordered("<", scalar, self.number(bound)), self.number(bound), scalar)

    def at_most(self, scalar: ir.Value, bound: float) -> ir.Value:
        """Return the number or the bound, whichever is smaller."""
        return self.ir.select(self.ir.fcmp_ordered(">", scalar, self.number(bound)), self.number(bound), scalar)

    def nearest(self, scalar: ir.Value) -> ir.Value:
        """Round to a whole number."""
        of_one = ir.FunctionType(_FLOAT, [_FLOAT])
        return self.ir.call(cgutils.get_or_insert_function(self.ir.module, of_one, "llvm.nearbyint.f32"), [scalar])

    def power_of_two(self, exponent: ir.Value) -> ir.Value:
        """Return 2ⁿ of a whole number n from -126 to 127, by writing n into the exponent of a float32."""
        biased = self.ir.add(self.ir.fptosi(exponent, _INT32), ir.Constant(_INT32, 127))
        return self.ir.bitcast(self.ir.shl(biased, ir.Constant(_INT32, 23)), _FLOAT)

    def inverse_roots(self, scalars: Sequence[ir.Value]) -> list[ir.Value]:
        """Return 1/√ of up to four numbers, with one square root and one division for all."""
        inverse = self.inverses(self.roots(self.four(scalars)))
        return [self.element(inverse, position) for position in range(len(scalars))]

    def four(self, scalars: Sequence[ir.Value]) -> ir.Value:
        """Make a vector of up to four numbers, filled up with 1."""
        vector = ir.Constant(ir.VectorType(_FLOAT, 4), [1.0] * 4)
        for position, scalar in enumerate(scalars):
            vector = self.with_element(vector, scalar, position)
        return vector

    def roots(self, four: ir.Value) -> ir.Value:
        """Return √ of four numbers."""
        function = ir.FunctionType(four.type, [four.type])
        root = cgutils.get_or_insert_function(self.ir.module, function, "llvm.sqrt.v4f32")
        return self.ir.call(root, [four])

    def inverses(self, four: ir.Value) -> ir.Value:
        """Return 1/x of four numbers x."""
        return self.ir.fdiv(ir.Constant(four.type, [1.0] * 4), four)

    def sum(self, vector: ir.Value) -> ir.Value:
        """Return the sum of 16 numbers."""
        return self.fold(vector, self.ir.fadd)

    def fold(self, vector: ir.Value, combine: Callable[[ir.Value, ir.Value], ir.Value]) -> ir.Value:
        """Reduce 16 numbers to one: combine the two halves, then the halves of the result, and so on."""
        width = WIDTH
        while width > 1:
            undefined = ir.Constant(ir.VectorType(vector.type.element, width), ir.Undefined)
            width //= 2
            halves = (
                self.ir.shuffle_vector(vector, undefined, ir.Constant(ir.VectorType(_INT32, width), list(places)))
                for places in (range(width), range(width, 2 * width))
            )
            vector = combine(*halves)
        return self.element(vector, 0)

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


def type_of(function: Any) -> Any:
    """Return the type that Numba gives to a function of `compiled_as` where a kernel calls it."""
    typing = cpu_target.typing_context
    typing.refresh()
    return typing.resolve_value_type(function)


def processor() -> str:
    """Name what machine code is made for here: the system, the processor, and its features."""
    return " ".join(cpu_target.target_context.codegen().magic_tuple())


def has_byte_products() -> bool:
    """Whether four products of bytes and their sum are one instruction here (AVX-512 VNNI)."""
    return _has(cpu_target.target_context, "avx512vnni")


def _has(context: Any, feature: str) -> bool:
    return f"+{feature}" in context.codegen().magic_tuple()[2].split(",")


class RegisterRow(types.Type):  # type: ignore[misc]
    """Numba's type of a row of 16·n numbers that a kernel keeps in registers."""

    def __init__(self, n_panels: int) -> None:
        self.n_panels = n_panels
        super().__init__(name=f"RegisterRow({n_panels})")


@register_model(RegisterRow)
class _RegisterRowModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, held: RegisterRow) -> None:
        super().__init__(manager, held, ir.ArrayType(_VECTOR, held.n_panels))


Emit = Callable[..., Any]
Eight = tuple[np.float32, np.float32, np.float32, np.float32, np.float32, np.float32, np.float32, np.float32]
_NUMBERS = {
    None: types.void,
    bool: types.boolean,
    np.int64: types.int64,
    np.float32: types.float32,
    np.float64: types.float64,
    tuple[np.float32, np.float32]: types.UniTuple(types.float32, 2),
    Eight: types.UniTuple(types.float32, 8),
}


def compiled_as(emit: Emit) -> Callable[[Callable[..., Any]], Any]:
    """Replace a function, inside kernels, by what ``emit(builder, *arguments)`` emits.

    Its array arguments arrive as pointers to their first element, rows held in registers as lists of vectors, a
    count (`fastmf_kernels.linalg.rows.count`) as a number known now, other arguments as they are. A function that emits
    a value returns what its annotation says; one that is annotated to return an array returns a row held in registers,
    as long as the row or the count that it was given.
    """

    def decorate(plain: Callable[..., Any]) -> Any:
        returned = plain.__annotations__["return"]

        def of_types(_: Any, *given: Any) -> Any:
            kept = types.Array | types.Float | RegisterRow
            arguments = [kind if isinstance(kind, kept) else types.int64 for kind in given]
            result = _NUMBERS[returned] if returned in _NUMBERS else _row_as_long_as(arguments)

            def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[ir.Value]) -> ir.Value:
                pairs = zip(signature.args, values, strict=True)
                emitted = emit(Builder(context, builder), *(_lowered(context, builder, *pair) for pair in pairs))
                if isinstance(result, RegisterRow):
                    return _packed(builder, emitted)
                return context.get_dummy_value() if emitted is None else emitted

            return result(*arguments), generate

        of_types.__name__ = plain.__name__
        parameters = [inspect.Parameter("typing_context", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        parameters += inspect.signature(plain).parameters.values()
        of_types.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return intrinsic(of_types)

    return decorate


def _counted(kind: Any) -> int | None:
    """Return the count that an array stands for whose elements have a field ``count`` of so many numbers."""
    if isinstance(kind, types.Array) and isinstance(kind.dtype, types.Record):
        return int(kind.dtype.typeof("count").shape[0])
    return None


def _row_as_long_as(arguments: Sequence[Any]) -> RegisterRow:
    held = (kind if isinstance(kind, RegisterRow) else _counted(kind) for kind in arguments)
    first = next(kind for kind in held if kind is not None)
    return first if isinstance(first, RegisterRow) else RegisterRow(first)


def _lowered(context: Any, builder: ir.IRBuilder, kind: Any, value: ir.Value) -> Any:
    if _counted(kind) is not None:
        return _counted(kind)
    if isinstance(kind, types.Array):
        return context.make_array(kind)(context, builder, value).data
    if isinstance(kind, RegisterRow):
        return [builder.extract_value(value, panel) for panel in range(kind.n_panels)]
    return value


def _packed(builder: ir.IRBuilder, vectors: Sequence[ir.Value]) -> ir.Value:
    packed = ir.Constant(ir.ArrayType(_VECTOR, len(vectors)), ir.Undefined)
    for panel, vector in enumerate(vectors):
        packed = builder.insert_value(packed, vector, panel)
    return packed
