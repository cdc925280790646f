"""The CUDA kernels in Numba's simulator, which has to be chosen before Numba is loaded: in processes of their own."""

import re
import subprocess
from pathlib import Path

import pytest

PATHS = sorted((Path(__file__).parent / "parity").glob("test_*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_parity_in_the_simulator(path: Path, simulations: dict[Path, "subprocess.Popen[str]"]) -> None:
    said, _ = simulations[path].communicate()

    assert simulations[path].returncode == 0, said
    assert re.search(r"[1-9]\d* passed", said)
    assert "skipped" not in said
