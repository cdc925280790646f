"""Model directories from strangers: whatever their bytes are, `load` and what follows answer rightly or refuse.

Worker processes change one thing of a small model at a time (`tests/model_mutants.py`) and use the result; their memory
is limited. There are 2,000 mutants, and 6,000 others in the stress test, or as many as FASTMF_FUZZ_MUTANTS says.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import fastmf
import fastmf_kernels

N_MUTANTS = 2000
N_STRESS_MUTANTS = int(os.environ.get("FASTMF_FUZZ_MUTANTS", "6000"))
N_WORKERS = 2


def start(folder: Path, first: int, last: int) -> "subprocess.Popen[str]":
    packages = [Path(package.__file__).parents[1] for package in (fastmf, fastmf_kernels)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, packages)), "NUMBA_NUM_THREADS": "1"}
    script = Path(__file__).parent / "model_mutants.py"
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), str(first), str(last)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("first", "n_mutants"),
    [
        pytest.param(0, N_MUTANTS, marks=pytest.mark.slow, id="some"),
        pytest.param(N_MUTANTS, N_STRESS_MUTANTS, marks=pytest.mark.stress, id="many"),
    ],
)
def test_no_model_directory_crashes_or_answers_wrongly(first: int, n_mutants: int, tmp_path: Path) -> None:
    bounds = [first + n_mutants * worker // N_WORKERS for worker in range(N_WORKERS + 1)]
    workers = []
    for worker in range(N_WORKERS):
        folder = tmp_path / str(worker)
        folder.mkdir()
        workers.append(start(folder, bounds[worker], bounds[worker + 1]))

    outcomes: Counter[str] = Counter()
    for process in workers:
        output, errors = process.communicate(timeout=60 + n_mutants)
        lines = output.splitlines()
        assert process.returncode == 0, (lines[-1:], errors[-2000:])  # the last line names the mutant
        outcomes.update(json.loads(lines[-1]))

    print(dict(sorted(outcomes.items())))
    assert sum(outcomes.values()) == n_mutants
    assert {name for name in outcomes if name.startswith("wrong")} == set(), outcomes
    # The changes are of a kind that matters: most are refused, and some of them only for what the files contain.
    assert outcomes["refused at load"] > n_mutants // 4
    assert outcomes["refused at the first use"] > n_mutants // 50
    assert outcomes["another model, answered as the reference does"] > n_mutants // 50
