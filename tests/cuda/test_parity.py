"""The CUDA kernels held against their references without a GPU, in two ways, each in processes of its own.

Numba's simulator runs them as Python; it has to be chosen before Numba is loaded. The interpreter (`tests.cuda.ptx`)
runs what they are compiled to, with checks of memory and of races. It spends most of its time on compiling, and the
simulator on blocks of many threads: each leaves some of that to the other one.
"""

import re
from pathlib import Path

import pytest

from tests.cuda.conftest import Parity, Runs

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: CUDA kernels are neither simulated nor compiled")

KERNELS = Path(__file__).parents[2] / "kernels"
PARITIES = [
    Parity(
        "interpreter", "test_als", "gram and 40 or sweep and 20-hu or long_rows or 65 or tiles_of_eight or 40-rendle"
    ),
    Parity("interpreter", "test_als_tables", ""),
    Parity("interpreter", "test_topk", ""),
    Parity("interpreter", "test_topk_halves", "matrices or multiply or sums or all_scores or parts or bound"),
    Parity("interpreter", "test_sgd", "8-identity or 130-sigmoid or halves or one_row"),
    Parity("interpreter", "test_predict", ""),
    Parity("simulator", "test_als", "not 70-hu-64 and not 128-rendle and not 200-explicit"),
    Parity("simulator", "test_als_tables", "not subspace and not no_table and not home"),
    Parity("simulator", "test_topk", "two_warps or parts or settled or zeros or sizes"),
    Parity("simulator", "test_topk_halves", "parts or widths or matrices or multiply or bound or all_scores"),
    Parity("simulator", "test_sgd", ""),
    Parity("simulator", "test_predict", ""),
    Parity("simulator", "test_bench", ""),
]


@pytest.mark.slow
@pytest.mark.parametrize("parity", PARITIES, ids=lambda parity: f"{parity.name}-{parity.way}")
def test_parity(parity: Parity, parity_runs: Runs) -> None:
    returned, said = parity_runs[parity].result()

    assert returned == 0, said
    assert re.search(r"[1-9]\d* passed", said)
    assert "skipped" not in said


@pytest.mark.slow
def test_every_kernel_is_interpreted(parity_runs: Runs) -> None:
    said = " ".join(run.result()[1] for parity, run in parity_runs.items() if parity.way == "interpreter")

    for path in KERNELS.rglob("cuda*.py"):
        module = ".".join(path.relative_to(KERNELS).with_suffix("").parts)
        for name in re.findall(r"@kernel\s+def (\w+)", path.read_text()):
            assert re.search(rf"interpreted: [^\n]*\b{module}\.{name}\b", said), f"{module}.{name}"
