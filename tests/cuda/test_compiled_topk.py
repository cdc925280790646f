"""The kernels of top-k compiled for an H100, without a GPU: nothing spilled, and no float64 on the screen."""

from typing import Any

import pytest

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: CUDA kernels are not compiled")
machine_code = pytest.importorskip("tests.cuda.machine_code", reason="the CUDA toolkit's linker is not installed")

from numba.core import types  # noqa: E402

from fastmf_kernels.topk.cuda.arrays import Best, Buffers, Catalogue, Queries  # noqa: E402

WIDTHS = (8, 32, 64, 128, 256)
SHARED = 48 * 1024
FLOATS, INT32S, INT64S, WHOLE = types.float32[::1], types.int32[::1], types.int64[::1], types.int64
CATALOGUE = types.NamedTuple([FLOATS, FLOATS, INT32S], Catalogue)
QUESTIONS = types.NamedTuple([FLOATS, FLOATS, INT64S, INT32S], Queries)
PAIRS_OF_ITEMS = types.NamedTuple([INT32S, FLOATS, INT32S], Catalogue)
PAIRS_OF_QUERIES = types.NamedTuple([INT32S, FLOATS, INT64S, INT32S], Queries)
BUFFERS = types.NamedTuple([FLOATS, INT32S, INT32S, FLOATS], Buffers)
BEST = types.NamedTuple([FLOATS, INT32S, INT32S], Best)


def compiled(kernel: Any, *arguments: Any) -> Any:
    code = machine_code.compile_kernel(kernel, *arguments)
    assert (code.stack, code.spills) == (0, 0)
    assert code.shared <= SHARED
    # What other threads have written is read, which the cache for constants would not know of.
    assert not any("CONSTANT" in name for name in code.instructions)
    return code


@pytest.mark.parametrize("width", WIDTHS)
def test_screen(width: int) -> None:
    from fastmf_kernels.topk.cuda import SHAPE
    from fastmf_kernels.topk.cuda.screen import make_screen

    code = compiled(make_screen(width, SHAPE), CATALOGUE, QUESTIONS, BUFFERS, WHOLE, WHOLE, INT32S)
    assert code.in_float64 == {}
    assert code.registers <= 128  # two blocks of 256 threads on a multiprocessor
    assert code.count("LDG.E.128") >= 2
    assert code.count("LDS.128") >= 4
    assert code.count("FFMA") >= SHAPE.rows * SHAPE.columns


@pytest.mark.parametrize("width", [64, 128, 256])
def test_screen_by_halves(width: int) -> None:
    from fastmf_kernels.topk.cuda import SHAPE_OF_HALVES as SHAPE
    from fastmf_kernels.topk.cuda.halves import make_screen

    code = compiled(make_screen(width, SHAPE), PAIRS_OF_ITEMS, PAIRS_OF_QUERIES, BUFFERS, WHOLE, WHOLE, INT32S)
    assert code.in_float64 == {}
    assert code.registers <= 128  # two blocks of 256 threads on a multiprocessor
    assert code.count("HMMA.16816.F32") >= SHAPE.depth // 16 * (SHAPE.rows // 16) * (SHAPE.columns // 8)
    assert code.count("LDSM.16.M88.4") >= SHAPE.depth // 16 * (SHAPE.rows // 16 + SHAPE.columns // 16)
    assert code.count("LDGSTS.E.BYPASS.128") >= 4


def test_what_goes_with_halves() -> None:
    from fastmf_kernels.topk.cuda import THREADS
    from fastmf_kernels.topk.cuda.halves import make_halve, make_scale, make_widen

    halve = compiled(make_halve(128, THREADS), FLOATS, FLOATS, INT32S)
    scale = compiled(make_scale(THREADS), FLOATS, types.float32, FLOATS)
    widen = compiled(make_widen(128, THREADS), BUFFERS, FLOATS, WHOLE, types.float32)
    assert (halve.in_float64, scale.in_float64) == ({}, {})
    assert max(code.registers for code in (halve, scale, widen)) <= 64
    assert halve.count("LDG.E.128") >= 1
    assert halve.count("F2FP.F16.F32.PACK_AB") >= 2


def test_merge() -> None:
    from fastmf_kernels.topk.cuda import THREADS
    from fastmf_kernels.topk.cuda.compact import make_merge

    code = compiled(make_merge(THREADS), BUFFERS, *[WHOLE] * 4)
    assert code.in_float64 == {}
    assert code.registers <= 64


@pytest.mark.parametrize("width", WIDTHS)
def test_rescore(width: int) -> None:
    from fastmf_kernels.topk.cuda import THREADS
    from fastmf_kernels.topk.cuda.rescore import make_rescore

    arguments = CATALOGUE, QUESTIONS, BUFFERS, WHOLE, WHOLE, WHOLE, types.float64, BEST
    code = compiled(make_rescore(width, 2048, THREADS), *arguments)
    assert code.registers <= 128
    assert code.count("LDG.E.128") >= 2
    assert code.count("DFMA") >= 4  # the one place where float64 is meant


@pytest.mark.parametrize("width", WIDTHS)
def test_measure(width: int) -> None:
    from fastmf_kernels.topk.cuda import THREADS
    from fastmf_kernels.topk.cuda.rescore import make_measure

    code = compiled(make_measure(width, THREADS), FLOATS, FLOATS)
    assert code.registers <= 64
    assert code.count("LDG.E.128") >= 1
