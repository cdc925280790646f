"""The CUDA kernels of ALS compiled to the machine code of an H100, without a GPU: see `test_compiled`."""

from typing import Any

import pytest

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: CUDA kernels are not compiled")
machine_code = pytest.importorskip("tests.cuda.machine_code", reason="the CUDA toolkit's linker is not installed")

from numba.core import types  # noqa: E402

from fastmf_kernels.als.arrays import Weighting  # noqa: E402
from fastmf_kernels.als.cuda import basis, cg, cholesky, gram_matrix, subspace, tables  # noqa: E402
from fastmf_kernels.als.cuda.equations import RowWorkers  # noqa: E402
from fastmf_kernels.als.cuda.problem import DeviceSweep, Solution  # noqa: E402
from fastmf_kernels.als.cuda.sharing import RowSharing  # noqa: E402

MOST_SHARED = 49152
FLOAT, INT = types.float32, types.int64
FLOATS, INT32S, INT64S = types.float32[::1], types.int32[::1], types.int64[::1]


def of(kind: type, *members: Any) -> Any:
    """The type of a named tuple."""
    return types.NamedTuple(members, kind)


PROBLEM = of(DeviceSweep, INT64S, INT32S, *[FLOATS] * 5, of(Weighting, *[FLOAT] * 5), INT, FLOAT)
SOLUTION = of(Solution, FLOATS, FLOATS, types.boolean[::1])


def compile_lean(kernel: Any, registers: int, *arguments: Any) -> Any:
    """Compile a kernel that spills nothing, has nothing to do with float64, and reads four numbers at once."""
    code = machine_code.compile_kernel(kernel, *arguments)
    assert (code.stack, code.spills, code.in_float64) == (0, 0, {})
    assert code.registers <= registers
    assert code.shared <= MOST_SHARED
    assert code.count("LDG.E.128") >= 1
    assert code.count("LDS.128") >= 2
    return code


# Registers: of blocks of 64, 160, 96 and 160 threads, 14, 5, 5 and 3 find room in a multiprocessor's 65536.
EXACT = [(32, 80), (64, 80), (96, 136), (128, 136)]


@pytest.mark.parametrize(
    ("width", "registers", "dense"), [(*of_width, True) for of_width in EXACT] + [(128, 136, False)]
)
def test_solve(width: int, registers: int, dense: bool) -> None:
    code = compile_lean(cholesky.make_solve(width, dense), registers, PROBLEM, INT32S, SOLUTION)
    assert code.count("FFMA") >= cholesky.tile_size(width) ** 2


@pytest.mark.parametrize(("width", "registers"), EXACT)
def test_part(width: int, registers: int) -> None:
    code = compile_lean(cholesky.make_part(width), registers, PROBLEM, INT64S, INT64S, FLOATS)
    assert code.count("FFMA") >= cholesky.tile_size(width) ** 2


@pytest.mark.parametrize(("width", "registers"), EXACT)
def test_join(width: int, registers: int) -> None:
    compile_lean(cholesky.make_join(width, True), registers, PROBLEM, INT32S, INT64S, FLOATS, SOLUTION)


@pytest.mark.parametrize(
    ("width", "registers", "dense"),
    [
        (8, 96, False),
        (32, 96, True),
        (64, 96, True),
        (64, 96, False),
        (128, 96, True),
        (256, 104, True),
        (512, 184, True),
    ],
)
@pytest.mark.parametrize("team", [cg.ALONE, cg.TOGETHER], ids=["alone", "together"])
def test_improve(width: int, registers: int, dense: bool, team: RowSharing) -> None:
    code = compile_lean(cg.make_improve(width, dense, team), registers, PROBLEM, INT32S, INT, SOLUTION)
    assert bool(code.count("BAR.SYNC")) == (team.together or (dense and width <= 64))


@pytest.mark.parametrize(("width", "registers"), [(32, 64), (64, 64), (96, 128), (128, 128), (256, 128)])
def test_gram(width: int, registers: int) -> None:
    panels = gram_matrix.panels_for(width)
    code = compile_lean(gram_matrix.make_multiply(width, panels, gram_matrix.CHUNK), registers, FLOATS, FLOATS)
    assert code.count("FFMA") >= panels.tile**2


def test_products_are_added_up_in_float64() -> None:
    code = machine_code.compile_kernel(gram_matrix.make_add_up(), FLOATS, types.float64[::1])
    assert (code.stack, code.spills) == (0, 0)
    assert set(code.in_float64) == {"F2F.F64.F32", "DADD"}


@pytest.mark.parametrize("width", [64, 512])
def test_turn(width: int) -> None:
    kernel = basis.make_rotate(width, basis.rows_in_block(width))
    code = compile_lean(kernel, 64, FLOATS, FLOATS, FLOATS)
    assert code.count("FFMA") >= 64


@pytest.mark.parametrize("width", [8, 96, 512])
def test_tables(width: int) -> None:
    """Rows are copied and split four numbers at a time, and measured in float64."""
    copy = machine_code.compile_kernel(tables.make_copy(width), FLOATS, INT32S, FLOATS, INT32S)
    split = machine_code.compile_kernel(tables.make_split(width), FLOATS, INT, FLOAT, FLOATS, FLOATS)
    square = machine_code.compile_kernel(tables.make_square(width), FLOATS, types.float64[::1])
    for code in (copy, split, square):
        assert (code.stack, code.spills) == (0, 0)
        assert code.registers <= 40
        assert code.count("LDG.E.128") >= 1
    for code in (copy, split):
        assert code.in_float64 == {}
        assert code.count("STG.E.128") >= 1
    assert set(square.in_float64) <= {"F2F.F64.F32", "DADD", "DMUL", "DFMA"}


@pytest.mark.parametrize("width", [64, 512])
def test_begin_blocks(width: int) -> None:
    begin = subspace.make_begin(width, True, 64)
    code = machine_code.compile_kernel(begin, PROBLEM, INT32S, INT64S, FLOATS, SOLUTION)
    assert (code.stack, code.spills, code.in_float64) == (0, 0, {})
    assert code.registers <= 64
    assert code.count("LDG.E.128") >= 2


@pytest.mark.parametrize(
    ("width", "block", "team"),
    [
        (64, 16, subspace.for_short_rows(16)),
        (128, 32, subspace.for_long_rows(32)),
        (512, 64, subspace.for_short_rows(64)),
        (256, 64, subspace.for_long_rows(64)),
    ],
)
def test_improve_blocks(width: int, block: int, team: RowWorkers) -> None:
    improve = subspace.make_improve(width, block, True, team)
    code = compile_lean(improve, 80, PROBLEM, INT32S, INT64S, INT, FLOATS, SOLUTION)
    assert code.count("FFMA") >= 128
