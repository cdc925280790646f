"""The CUDA kernels held against their references without a GPU: in Numba's simulator, in processes of its own.

The simulator runs kernels as Python, and has to be chosen before Numba is loaded. What takes it longest is left to
machines with a GPU, where all of `tests/cuda/parity` runs.
"""

import re

import pytest

from tests.cuda.conftest import Parity, Runs

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: CUDA kernels are not simulated")

PARITIES = [
    Parity("test_als", "not 70-hu-64 and not 128-rendle and not 200-explicit"),
    Parity("test_als_tables", "not subspace and not no_table and not home"),
    Parity("test_topk", ""),
    Parity("test_topk_halves", ""),
    Parity("test_sgd", ""),
    Parity("test_predict", ""),
    Parity("test_bench", ""),
]


@pytest.mark.slow
@pytest.mark.parametrize("parity", PARITIES, ids=lambda parity: parity.name)
def test_parity(parity: Parity, parity_runs: Runs) -> None:
    returned, said = parity_runs[parity].result()

    assert returned == 0, said
    assert re.search(r"[1-9]\d* passed", said)
    assert "skipped" not in said
