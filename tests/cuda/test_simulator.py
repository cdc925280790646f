"""The CUDA kernels in Numba's simulator, which has to be chosen before Numba is loaded: in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PARITY = Path(__file__).parent / "parity"


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(PARITY.glob("test_*.py")), ids=lambda path: path.stem)
def test_parity_in_the_simulator(path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"[1-9]\d* passed", done.stdout)
    assert "skipped" not in done.stdout
