"""Trainings that are killed at random moments, and go on: they end with the bits of one that nobody has killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastmf
import fastmf_kernels

CASES = (
    *("SGD", "SGD, patience", "SVDpp", "BPR", "ALS", "ALS, patience", "ImplicitALS", "Bias", "Popularity"),
)  # of checkpoint_kills.py
WORKER = Path(__file__).with_name("checkpoint_kills.py")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the worker forks, and kills as Unix does")


def kill_often(folder: Path, seed: int, n_kills: int, *cases: str) -> dict[str, dict[str, int]]:
    packages = [Path(package.__file__).parents[1] for package in (fastmf, fastmf_kernels)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, packages)), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(WORKER), str(folder), str(seed), str(n_kills), *cases]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, int]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_killed_a_few_times(tmp_path: Path) -> None:
    found = kill_often(tmp_path, 0, 4, "SGD, patience", "ALS", "Bias")

    assert found.keys() == {"SGD, patience", "ALS", "Bias"}
    for counts in found.values():
        assert counts["killed"] == 4
        assert counts["ended"] >= 1
        assert counts["different"] == 0


@pytest.mark.stress
@pytest.mark.parametrize("case", CASES)
def test_killed_at_30_random_moments(case: str, tmp_path: Path) -> None:
    counts = kill_often(tmp_path, 1, 30, case)[case]

    assert counts["killed"] == 30
    assert counts["ended"] >= 1
    assert counts["different"] == 0
