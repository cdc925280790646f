"""Single instructions that Numba has no name for, each with a twin in `simulated`.

Those on memory take a one-dimensional array of numbers of 4 bytes that begins at a multiple of 16 bytes, and a place
that is a multiple of 4. Two float16 numbers are a pair, which an int32 number holds: the first in the lower half.
Instructions: NVIDIA, "Parallel Thread Execution ISA", sections 9.7.3 (rsqrt), 9.7.9 (ld, st, cvt, cp.async), 9.7.13
(red) and 9.7.14 (ldmatrix, mma).
"""

import functools
from typing import Any

from llvmlite import ir
from numba import types
from numba.cuda.extending import intrinsic

_FLOAT, _INT32, _INT64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_HALF = ir.HalfType()
_FOUR_FLOATS, _FOUR_HALVES = ir.VectorType(_FLOAT, 4), ir.VectorType(_HALF, 4)
_BYTES = 16
_SHARED = 3  # the address space of a block's shared memory


@intrinsic  # type: ignore[untyped-decorator]
def load4(typing_context: Any, array: Any, i: Any) -> Any:
    """Read ``array[i : i + 4]`` with one instruction."""
    signature = types.UniTuple(types.float32, 4)(array, i)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = builder.load(_vector_at(context, builder, signature, arguments))
        vector.align = _BYTES
        lanes = [builder.extract_element(vector, ir.Constant(_INT32, lane)) for lane in range(4)]
        return context.make_tuple(builder, signature.return_type, lanes)

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def load4_shared(typing_context: Any, array: Any, i: Any) -> Any:
    """Read ``array[i : i + 4]``, in global memory, as other threads have left it: past the multiprocessor's own cache.

    An ordinary read may find numbers in that cache that other multiprocessors have changed long before.
    """
    signature = types.UniTuple(types.float32, 4)(array, i)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.ptrtoint(_place_of(context, builder, signature, arguments), _INT64)
        kind = ir.FunctionType(ir.LiteralStructType([_FLOAT] * 4), [_INT64])
        text = _reading("$4", "ld.relaxed.gpu.global.v4.f32 {$0, $1, $2, $3}, [place];")
        loaded = builder.call(ir.InlineAsm(kind, text, "=f,=f,=f,=f,l,~{memory}", side_effect=True), [place])
        return context.make_tuple(builder, signature.return_type, _four(builder, loaded))

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def store4(typing_context: Any, array: Any, i: Any, values: Any) -> Any:
    """Write ``array[i : i + 4]`` with one instruction."""
    signature = types.void(array, i, types.UniTuple(types.float32, 4))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.Constant(_FOUR_FLOATS, ir.Undefined)
        for lane, value in enumerate(_four(builder, arguments[2])):
            vector = builder.insert_element(vector, value, ir.Constant(_INT32, lane))
        builder.store(vector, _vector_at(context, builder, signature, arguments)).align = _BYTES
        return context.get_dummy_value()

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def add4(typing_context: Any, array: Any, i: Any, values: Any) -> Any:
    """Add to ``array[i : i + 4]``, in global memory, with one atomic instruction: sm_90 and later."""
    signature = types.void(array, i, types.UniTuple(types.float32, 4))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _add(context, builder, signature, arguments, "red.global.add.v4.f32 [place], {$1, $2, $3, $4};")
        return context.get_dummy_value()

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def add4_one_by_one(typing_context: Any, array: Any, i: Any, values: Any) -> Any:
    """Add to ``array[i : i + 4]``, in global memory, with four atomic instructions: devices before sm_90."""
    signature = types.void(array, i, types.UniTuple(types.float32, 4))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        texts = [f"red.global.add.f32 [place + {4 * lane}], ${lane + 1};" for lane in range(4)]
        _add(context, builder, signature, arguments, " ".join(texts))
        return context.get_dummy_value()

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def reciprocal_root(typing_context: Any, x: Any) -> Any:
    """Return 1/√x for x of at least 2⁻¹²⁶, with a relative error of at most 2⁻²²·⁹."""
    signature = types.float32(types.float32)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_FLOAT, [_FLOAT])
        return builder.call(ir.InlineAsm(kind, "rsqrt.approx.ftz.f32 $0, $1;", "=f,f"), arguments)

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def pair_of_halves(typing_context: Any, first: Any, second: Any) -> Any:
    """Return two float32 numbers as a pair of float16 numbers, rounded to the nearest: sm_80 and later."""
    signature = types.int32(types.float32, types.float32)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_INT32, [_FLOAT, _FLOAT])
        return builder.call(ir.InlineAsm(kind, "cvt.rn.f16x2.f32 $0, $2, $1;", "=r,f,f"), arguments)

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def copy4(typing_context: Any, shared: Any, i: Any, array: Any, j: Any) -> Any:
    """Begin to copy ``array[j : j + 4]``, in global memory, to ``shared[i : i + 4]``: sm_80 and later.

    The thread has its copies after `await_copies`, others of the block have them after a barrier besides.
    """
    signature = types.void(shared, i, array, j)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to = _shared_place_of(context, builder, signature.args[0], arguments[:2])
        start = context.make_array(signature.args[2])(context, builder, arguments[2]).data
        place = builder.ptrtoint(builder.gep(start, [arguments[3]]), _INT64)
        kind = ir.FunctionType(ir.VoidType(), [_INT32, _INT64])
        text = "{ .reg .u64 place; cvta.to.global.u64 place, $1; cp.async.cg.shared.global [$0], [place], 16; }"
        builder.call(ir.InlineAsm(kind, text, "r,l,~{memory}", side_effect=True), [to, place])
        return context.get_dummy_value()

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def await_copies(typing_context: Any) -> Any:
    """Wait for all that the thread has begun to copy."""
    signature = types.void()

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(ir.InlineAsm(kind, "cp.async.wait_all;", "~{memory}", side_effect=True), [])
        return context.get_dummy_value()

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def load_matrices(typing_context: Any, shared: Any, i: Any) -> Any:
    """Read four matrices of 8 × 8 float16 numbers from shared memory, as pairs; a whole warp does it together.

    Lane ``8m + r`` says where row ``r`` of matrix ``m`` begins, as ``i``; lane ``4r + c`` gets pair ``c`` of row ``r``
    of each.
    """
    signature = types.UniTuple(types.int32, 4)(shared, i)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _shared_place_of(context, builder, signature.args[0], arguments)
        text = "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {$0, $1, $2, $3}, [$4];"
        kind = ir.FunctionType(ir.LiteralStructType([_INT32] * 4), [_INT32])
        code = ir.InlineAsm(kind, text, "=r,=r,=r,=r,r,~{memory}", side_effect=True)
        pairs = builder.call(code, [place], attrs=("convergent",))
        return context.make_tuple(builder, signature.return_type, _four(builder, pairs))

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def multiply_halves(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a part of AB + C, for A of 16 × 16 and B of 16 × 8 float16 numbers; a whole warp does it together.

    It is sm_80 and later. Lane ``4r + t`` has of A the pairs at (r, 2t), (r + 8, 2t), (r, 2t + 8) and (r + 8, 2t + 8),
    along rows; of B those at (2t, r) and (2t + 8, r), along columns; and of the sums, which are float32, those at
    (r, 2t), (r, 2t + 1), (r + 8, 2t) and (r + 8, 2t + 1).
    """
    halves, sums = types.UniTuple(types.int32, 4), types.UniTuple(types.float32, 4)
    signature = sums(halves, types.UniTuple(types.int32, 2), sums)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = [builder.extract_value(arguments[0], i) for i in range(4)]
        values += [builder.extract_value(arguments[1], i) for i in range(2)]
        values += [builder.extract_value(arguments[2], i) for i in range(4)]
        text = (
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
            "{$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};"
        )
        kind = ir.FunctionType(ir.LiteralStructType([_FLOAT] * 4), [*[_INT32] * 6, *[_FLOAT] * 4])
        code = ir.InlineAsm(kind, text, "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f")
        parts = builder.call(code, values, attrs=("convergent",))
        return context.make_tuple(builder, signature.return_type, _four(builder, parts))

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def load4_halves(typing_context: Any, array: Any, i: Any) -> Any:
    """Read ``array[i : i + 4]`` of float16 numbers, in global memory, with one instruction, as float32."""
    signature = types.UniTuple(types.float32, 4)(array, i)
    return signature, functools.partial(_load_halves, "ld.global.v2.b32")


@intrinsic  # type: ignore[untyped-decorator]
def load4_shared_halves(typing_context: Any, array: Any, i: Any) -> Any:
    """Read like `load4_halves`, but as other threads have left it; see `load4_shared`."""
    signature = types.UniTuple(types.float32, 4)(array, i)
    return signature, functools.partial(_load_halves, "ld.relaxed.gpu.global.v2.b32")


@intrinsic  # type: ignore[untyped-decorator]
def store4_halves(typing_context: Any, array: Any, i: Any, values: Any) -> Any:
    """Write float32 numbers to ``array[i : i + 4]`` of float16 with one instruction, rounded."""
    signature = types.void(array, i, types.UniTuple(types.float32, 4))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place_of(context, builder, signature, arguments)
        halves = _four_halves(builder, arguments[2])
        builder.store(halves, builder.bitcast(place, _FOUR_HALVES.as_pointer())).align = _BYTES // 2
        return context.get_dummy_value()

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def add4_halves(typing_context: Any, array: Any, i: Any, values: Any) -> Any:
    """Add to ``array[i : i + 4]`` of float16, in global memory, with one atomic instruction: sm_90 and later."""
    signature = types.void(array, i, types.UniTuple(types.float32, 4))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _add_halves(context, builder, signature, arguments, "red.global.add.noftz.v2.f16x2 [place], {$1, $2};")
        return context.get_dummy_value()

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def add4_halves_by_two(typing_context: Any, array: Any, i: Any, values: Any) -> Any:
    """Add to ``array[i : i + 4]`` of float16, in global memory, two at a time: devices before sm_90."""
    signature = types.void(array, i, types.UniTuple(types.float32, 4))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        text = "red.global.add.noftz.f16x2 [place], $1; red.global.add.noftz.f16x2 [place + 4], $2;"
        _add_halves(context, builder, signature, arguments, text)
        return context.get_dummy_value()

    return signature, generate


def _load_halves(instruction: str, context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    place = builder.ptrtoint(_place_of(context, builder, signature, arguments), _INT64)
    # The compiler takes a load of four halves apart into two.
    kind = ir.FunctionType(ir.LiteralStructType([_INT32, _INT32]), [_INT64])
    text = _reading("$2", instruction + " {$0, $1}, [place];")
    loaded = builder.call(ir.InlineAsm(kind, text, "=r,=r,l,~{memory}", side_effect=True), [place])
    words = ir.Constant(ir.VectorType(_INT32, 2), ir.Undefined)
    for lane in range(2):
        words = builder.insert_element(words, builder.extract_value(loaded, lane), ir.Constant(_INT32, lane))
    vector = builder.bitcast(words, _FOUR_HALVES)
    halves = [builder.extract_element(vector, ir.Constant(_INT32, lane)) for lane in range(4)]
    return context.make_tuple(builder, signature.return_type, [builder.fpext(half, _FLOAT) for half in halves])


def _reading(address: str, instruction: str) -> str:
    """Return assembler code that reads from a generic address, which it calls ``place``."""
    return f"{{ .reg .u64 place; cvta.to.global.u64 place, {address}; {instruction} }}"


def _add_halves(context: Any, builder: Any, signature: Any, arguments: Any, instructions: str) -> None:
    place = builder.ptrtoint(_place_of(context, builder, signature, arguments), _INT64)
    pairs = builder.bitcast(_four_halves(builder, arguments[2]), ir.VectorType(_INT32, 2))
    two = [builder.extract_element(pairs, ir.Constant(_INT32, lane)) for lane in range(2)]
    kind = ir.FunctionType(ir.VoidType(), [_INT64, _INT32, _INT32])
    text = "{ .reg .u64 place; cvta.to.global.u64 place, $0; " + instructions + " }"
    builder.call(ir.InlineAsm(kind, text, "l,r,r,~{memory}", side_effect=True), [place, *two])


def _four_halves(builder: Any, values: Any) -> Any:
    halves = ir.Constant(_FOUR_HALVES, ir.Undefined)
    for lane, value in enumerate(_four(builder, values)):
        halves = builder.insert_element(halves, builder.fptrunc(value, _HALF), ir.Constant(_INT32, lane))
    return halves


def _add(context: Any, builder: Any, signature: Any, arguments: Any, instructions: str) -> None:
    place = builder.ptrtoint(_place_of(context, builder, signature, arguments), _INT64)
    kind = ir.FunctionType(ir.VoidType(), [_INT64, *[_FLOAT] * 4])
    text = "{ .reg .u64 place; cvta.to.global.u64 place, $0; " + instructions + " }"
    code = ir.InlineAsm(kind, text, "l,f,f,f,f,~{memory}", side_effect=True)
    builder.call(code, [place, *_four(builder, arguments[2])])


def _four(builder: Any, values: Any) -> list[Any]:
    return [builder.extract_value(values, lane) for lane in range(4)]


def _place_of(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.gep(array.data, [arguments[1]])


def _vector_at(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return builder.bitcast(_place_of(context, builder, signature, arguments), _FOUR_FLOATS.as_pointer())


def _shared_place_of(context: Any, builder: Any, kind: Any, arguments: Any) -> Any:
    """Return where ``array[i]`` is in shared memory: 32 bits."""
    array = context.make_array(kind)(context, builder, arguments[0])
    place = builder.gep(array.data, [arguments[1]])
    return builder.ptrtoint(builder.addrspacecast(place, ir.PointerType(place.type.pointee, _SHARED)), _INT32)
