"""CUDA kernels compiled to the machine code of an H100, without a GPU: nothing spilled, no float64, wide loads."""

from typing import Any

import pytest

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: CUDA kernels are not compiled")
machine_code = pytest.importorskip("tests.cuda.machine_code", reason="the CUDA toolkit's linker is not installed")

from numba.core import types  # noqa: E402

from fastmf_kernels.predict.arrays import Link  # noqa: E402
from fastmf_kernels.sgd.arrays import Step  # noqa: E402

WIDTHS = (32, 64, 128, 256)
HALVES, FLOAT, FLOATS, INT32S, INT64S = (
    types.float16[::1],
    types.float32,
    types.float32[::1],
    types.int32[::1],
    types.int64[::1],
)


def of(kind: type, *members: Any) -> Any:
    """The type of a named tuple."""
    return types.NamedTuple(members, kind)


@pytest.mark.parametrize(("width", "vector_atomics"), [*((width, True) for width in WIDTHS), (64, False)])
@pytest.mark.parametrize("in_halves", [False, True])
def test_sgd(width: int, vector_atomics: bool, in_halves: bool) -> None:
    from fastmf_kernels.sgd.cuda.walk import Runs, Tables, make_steps

    code = machine_code.compile_kernel(
        make_steps(width, in_halves, vector_atomics),
        of(Runs, INT32S, INT64S, INT64S, INT64S, INT32S, FLOATS),
        INT32S,
        of(Tables, *[HALVES if in_halves else FLOATS] * 2, FLOATS, FLOATS, FLOAT, FLOAT),
        of(Link, FLOAT, FLOAT),
        of(Step, *[FLOAT] * 7),
        FLOATS,
    )
    assert (code.stack, code.spills, code.in_float64) == (0, 0, {})
    assert code.registers <= (64 if width <= 128 else 80)
    # The state of a user and that of an item, and their rows.
    assert code.count("LDG.E.128") >= (2 if in_halves else 4)
    # Beside four whole numbers of 64 bits.
    assert code.count("LDG.E.64") >= 4 + (2 if in_halves else 0)
    assert bool(code.count("REDG.E.ADD.F32x4")) == vector_atomics
    assert bool(code.count("REDG.E.ADD.F16")) == in_halves


@pytest.mark.parametrize("in_halves", [False, True])
def test_norms_of_items(in_halves: bool) -> None:
    from fastmf_kernels.sgd.cuda.walk import make_begin

    code = machine_code.compile_kernel(make_begin(128, in_halves), HALVES if in_halves else FLOATS, FLOATS)
    assert (code.stack, code.spills, code.in_float64) == (0, 0, {})
    assert code.registers <= 40
    assert code.count("LDG.E.64" if in_halves else "LDG.E.128") >= 1


@pytest.mark.parametrize("width", [*WIDTHS, 96])
def test_squared_errors(width: int) -> None:
    from fastmf_kernels.layout.arrays import CSR
    from fastmf_kernels.predict.arrays import Factors
    from fastmf_kernels.predict.cuda.measure import make_measure

    factors = of(Factors, *[FLOATS] * 4, FLOAT)
    link = of(Link, FLOAT, FLOAT)
    code = machine_code.compile_kernel(
        make_measure(width), of(CSR, INT64S, INT32S, FLOATS), INT32S, factors, link, FLOATS
    )
    assert (code.stack, code.spills, code.in_float64) == (0, 0, {})
    assert code.registers <= 64
    assert code.count("LDG.E.128") >= 2


@pytest.mark.parametrize("width", [64, 128])
def test_ceilings(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured as a ceiling reads and adds as wide as it can."""
    from fastmf_bench.suites import cuda_kernels

    monkeypatch.setattr(cuda_kernels, "vector_atomics", lambda: True)
    gather = machine_code.compile_kernel(cuda_kernels.make_gather(width), FLOATS, INT32S, FLOATS)
    add = machine_code.compile_kernel(cuda_kernels.make_add(width), FLOATS, INT32S)
    for code in (gather, add):
        assert (code.stack, code.spills, code.in_float64) == (0, 0, {})
    assert gather.count("LDG.E.128") >= 1
    assert add.count("REDG.E.ADD.F32x4") >= 1
