"""The CUDA kernels held against their references without a GPU, in two ways, each in processes of its own.

Numba's simulator runs them as Python; it has to be chosen before Numba is loaded. The interpreter (`tests.cuda.ptx`)
runs what they are compiled to, with checks of memory and of races.
"""

import re
from pathlib import Path

import pytest

from tests.cuda.conftest import Parity, Runs

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: CUDA kernels are neither simulated nor compiled")

_FOLDER = Path(__file__).parent / "parity"
# The longest first: they are run one after the other.
_PATHS = sorted(_FOLDER.glob("test_*.py"), key=lambda path: -path.stat().st_size)
PARITIES = [
    Parity(way, path)
    for path in _PATHS
    for way in ("interpreter", "simulator")
    # The benchmark asks for clocks, which are not interpreted.
    if (way, path.stem) != ("interpreter", "test_bench")
]


@pytest.mark.slow
@pytest.mark.parametrize("parity", PARITIES, ids=lambda parity: f"{parity.path.stem}-{parity.way}")
def test_parity(parity: Parity, parity_runs: Runs) -> None:
    returned, said = parity_runs[parity].result()

    assert returned == 0, said
    assert re.search(r"[1-9]\d* passed", said)
    assert "skipped" not in said
