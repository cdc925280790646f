"""The interpreter of PTX itself: what instructions do, and that it sees what a kernel must not do."""

from typing import Any

import numpy as np
import pytest

from tests.cuda.ptx.instructions import make_step
from tests.cuda.ptx.machine import Machine
from tests.cuda.ptx.memory import GlobalMemory, KernelError
from tests.cuda.ptx.operations import MIXED, PURE, multiply_matrices
from tests.cuda.ptx.program import parse

# Shared memory of 64 words; and of each thread, in %r1 its number, in %r2 its word there, in %rd1 that in an array.
HEAD = """
.visible .shared .align 16 .b8 words[256];
.visible .entry kernel(.param .u64 kernel_param_0)
{
    .reg .pred %p<9>; .reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .f32 %f<9>;
    ld.param.u64 %rd2, [kernel_param_0];
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd3, %r1, 4;
    add.s64 %rd1, %rd2, %rd3;
    shl.b32 %r2, %r1, 2;
"""
PUT = "st.shared.u32 [%r2], %r1;"
TAKE_NEXT = "xor.b32 %r3, %r2, 4; ld.shared.u32 %r4, [%r3];"
TAKE_FAR = "xor.b32 %r3, %r2, 128; ld.shared.u32 %r4, [%r3];"
ANSWER = "st.global.u32 [%rd1], %r4; ret; }"


def run(body: str, n_threads: int = 64, array: Any = None, grid: tuple[int, int, int] = (1, 1, 1)) -> Any:
    memory = GlobalMemory()
    held = memory.hold(np.zeros(n_threads, np.uint32) if array is None else array)
    machine = Machine(parse(HEAD + body), n_threads, {"kernel_param_0": held.address}, memory, make_step)
    machine.run(grid)
    return held.copy_to_host()


@pytest.mark.parametrize(
    ("body", "distance"),
    [
        (PUT + "bar.sync 0;" + TAKE_FAR, 32),
        (PUT + "bar.warp.sync -1;" + TAKE_NEXT, 1),
        (PUT + "bar.sync 0;" + TAKE_NEXT + "bar.warp.sync -1;" + PUT, 1),
    ],
)
def test_threads_that_meet_see_what_others_wrote(body: str, distance: int) -> None:
    np.testing.assert_array_equal(run(body + ANSWER), np.arange(64) ^ distance)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (PUT + TAKE_NEXT, "just written: ld.shared"),
        (PUT + "bar.warp.sync -1;" + TAKE_FAR, "just written: ld.shared"),
        (PUT + "bar.sync 0;" + TAKE_NEXT + PUT, "just read, or added to: st.shared"),
        ("st.shared.u32 [words], %r1;", "write the same number at once"),
        ("atom.shared.add.u32 %r4, [words], 1; ld.shared.u32 %r4, [words];", "just read, or added to: ld.shared"),
        ("atom.shared.add.u32 %r4, [words], 1; st.shared.u32 [%r2], %r1;", "just read, or added to: st.shared"),
        ("ld.shared.u32 %r4, [%r2+4];", "shared memory is outside"),
        ("ld.shared.u32 %r4, [%r2+-4];", "shared memory is outside"),
        ("ld.global.u32 %r4, [%rd1+4];", "global memory is outside"),
        ("st.global.u32 [%rd1+-4], %r1;", "global memory is outside"),
        ("ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1];", "not aligned to its 16 bytes"),
        ("setp.eq.s32 %p1, %r1, 3; @%p1 bra $end; bar.warp.sync -1; $end: bar.sync 0;", "never meet"),
        ("setp.lt.s32 %p1, %r1, 32; @%p1 bra $end; bar.sync 0; $end: bar.sync 0;", "never meet"),
        ("bar.warp.sync 1;", "not among those"),
        ("shfl.sync.bfly.b32 %r4|%p1, %r1, 16, 31, 65535;", "not among those"),
        ("cp.async.cg.shared.global [%r2], [%rd2], 16;", "before what it copies had come"),
    ],
)
def test_faults(body: str, fault: str) -> None:
    with pytest.raises(KernelError, match=fault):
        run(body + ANSWER)


def test_shared_memory_is_no_number_at_first() -> None:
    assert np.isnan(run("ld.shared.f32 %f1, [%r2]; st.global.f32 [%rd1], %f1; ret; }").view(np.float32)).all()


def test_an_unknown_instruction_is_named() -> None:
    with pytest.raises(NotImplementedError, match=r"does not know the instruction tanh\.approx\.f32 %f1, %f2"):
        run("tanh.approx.f32 %f1, %f2; ret; }")


def test_branches_and_warps() -> None:
    body = """
    and.b32 %r3, %r1, 1; setp.eq.u32 %p1, %r3, 0; mov.u32 %r4, 7;
    @!%p1 bra $odd; shfl.sync.bfly.b32 %r4|%p2, %r1, 2, 31, 1431655765; $odd:
    vote.sync.ballot.b32 %r5, %p1, -1; popc.b32 %r5, %r5; add.s32 %r4, %r4, %r5;
    """
    even = np.arange(64) % 2 == 0
    np.testing.assert_array_equal(run(body + ANSWER), np.where(even, np.arange(64) ^ 2, 7) + 16)


def test_atomic_additions_and_blocks() -> None:
    body = "red.global.add.f32 [%rd2], 0f3F800000; atom.shared.add.u32 %r4, [words], 1; ret; }"
    assert run(body, 32, np.zeros(32, np.float32), (2, 3, 1))[0] == 32 * 6


def test_copies_come_when_they_are_awaited() -> None:
    body = "shl.b32 %r5, %r1, 4; cvt.u64.u32 %rd5, %r5; add.s64 %rd6, %rd2, %rd5;"
    body += "cp.async.cg.shared.global [%r5], [%rd6], 16; cp.async.wait_all; bar.sync 0; ld.shared.u32 %r4, [%r2];"
    np.testing.assert_array_equal(run(body + ANSWER, 16, np.arange(64, dtype=np.uint32))[:16], np.arange(16))


@pytest.mark.parametrize(
    ("name", "operands", "expected"),
    [
        ("shl", ("b32", 1, 33), 0),
        ("shr", ("s32", -8, 70), -1),
        ("shr", ("u64", 1 << 63, 63), 1),
        ("bfi", ("b64", 0b111, 0, 5, 2), 0b1100000),
        ("bfi", ("b64", 5, 1, 0, 64), 5),
        ("popc", ("b64", -1), 64),
    ],
)
def test_bits(name: str, operands: tuple[Any, ...], expected: int) -> None:
    kind, *numbers = operands
    function, kinds = MIXED[f"{name}.{kind}"]
    dtypes = [{"b": "u", "u": "u", "s": "i"}[k[0]] + str(int(k[1:]) // 8) for k in kinds[1:]]
    arrays = [np.array([n % 2**64]).astype(np.uint64).astype(t) for n, t in zip(numbers, dtypes, strict=True)]
    assert function(*arrays).tolist() == [expected]


def test_rounding() -> None:
    one, tiny = np.ones(1, np.float32), np.full(1, 2.0**-30, np.float32)
    assert PURE["fma.rm"](one, one, -tiny)[0] == np.nextafter(np.float32(1), np.float32(0))
    assert PURE["fma.rn"](one, one, -tiny)[0] == 1
    assert PURE["mul.hi"](np.array([1 << 62], np.int64), np.array([-8], np.int64)).tolist() == [-2]
    roots = PURE["rsqrt.approx.ftz"](np.arange(1, 999, dtype=np.float32))
    np.testing.assert_allclose(roots, np.arange(1, 999) ** -0.5, rtol=2**-22.5)


def test_products_of_matrices() -> None:
    """Small whole numbers are multiplied exactly; what is far smaller than another term is cut off."""
    rng, lanes = np.random.default_rng(0), np.arange(32)
    a, b, c = (rng.integers(-4, 5, shape).astype(np.float64) for shape in ((16, 16), (16, 8), (16, 8)))
    group, member = lanes // 4, lanes % 4

    def pairs(first: Any, second: Any) -> Any:
        return np.stack([first, second], axis=-1).astype(np.float16).view(np.uint32)[..., 0]

    rows, columns = [group, group + 8, group, group + 8], [2 * member, 2 * member, 2 * member + 8, 2 * member + 8]
    of_a = np.stack([pairs(a[r, k], a[r, k + 1]) for r, k in zip(rows, columns, strict=True)], axis=-1)
    of_b = np.stack([pairs(b[k, group], b[k + 1, group]) for k in (2 * member, 2 * member + 8)], axis=-1)
    places = [(group + 8 * (i // 2), 2 * member + i % 2) for i in range(4)]
    of_c = np.stack([c[place] for place in places], axis=-1).astype(np.float32)
    result = multiply_matrices(of_a[None], of_b[None], of_c[None])[0]
    np.testing.assert_array_equal(result, np.stack([(a @ b + c)[place] for place in places], axis=-1))
    cut = multiply_matrices(of_a[None], of_b[None], np.full((1, 32, 4), 2.0**30, np.float32))[0]
    np.testing.assert_array_equal(cut, 2.0**30)
