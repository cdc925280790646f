"""Single instructions that Numba has no name for, each with a twin in `isa_simulated`.

Those on memory take a one-dimensional float32 array that begins at a multiple of 16 bytes, and a place that is a
multiple of 4. Instructions: NVIDIA, "Parallel Thread Execution ISA", sections 9.7.3 (rsqrt), 9.7.9 (ld, st) and 9.7.13
(red).
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.cuda.extending import intrinsic

_FLOAT, _INT32, _INT64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_FOUR_FLOATS = ir.VectorType(_FLOAT, 4)
_BYTES = 16


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
