"""Starts the simulator's processes early, so that they are at work while kernels are compiled."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

Runs = dict[Path, "subprocess.Popen[str]"]


@pytest.fixture(scope="session", autouse=True)
def simulations(request: pytest.FixtureRequest) -> Iterator[Runs]:
    """Run each file of parity tests in a process of its own, if anybody is going to ask."""
    asked = [item for item in request.session.items if item.path.stem == "test_simulator"]
    wanted = [item.callspec.params["path"] for item in asked if isinstance(item, pytest.Function)]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    started = {
        path: subprocess.Popen(
            [*command, str(path)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for path in wanted
    }
    yield started
    for run in started.values():
        run.kill()
        run.wait()
        if run.stdout is not None:
            run.stdout.close()
