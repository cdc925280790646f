"""Starts the simulator's processes before the first test of all, so that they are at work meanwhile."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

Runs = dict[Path, "subprocess.Popen[str]"]
_RUNS = pytest.StashKey[Runs]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Run each file of parity tests in a process of its own, if anybody is going to ask."""
    asked = [item for item in session.items if item.path.stem == "test_simulator" and isinstance(item, pytest.Function)]
    if not asked or session.config.option.collectonly:
        return
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    runs: Runs = {}
    for path in (item.callspec.params["path"] for item in asked):
        runs[path] = subprocess.Popen(
            [*command, str(path)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    session.config.stash[_RUNS] = runs


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave no process behind."""
    for run in config.stash.get(_RUNS, {}).values():
        run.kill()
        run.wait()
        if run.stdout is not None:
            run.stdout.close()


@pytest.fixture
def simulations(request: pytest.FixtureRequest) -> Runs:
    """The processes, by the file that they run."""
    return request.config.stash[_RUNS]
