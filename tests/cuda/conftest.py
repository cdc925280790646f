"""Starts what `test_parity` asks for before the first test of all, so that it is at work meanwhile."""

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest


class Parity(NamedTuple):
    """A file of parity tests, and which of them are run (pytest's ``-k``)."""

    name: str
    chosen: str


# With what the tests beside it leave: those of many threads wait for all of theirs.
_POLITELY = ["nice", "-n", "19"] if shutil.which("nice") else []
Runs = dict[Parity, "Future[tuple[int, str]]"]


class _Background:
    """Processes that run files of tests beside this one, as many at a time as leave it a processor."""

    def __init__(self, parities: list[Parity]) -> None:
        self._pool = ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1))
        self._processes: list[subprocess.Popen[str]] = []
        self.runs: Runs = {parity: self._pool.submit(self._run, parity) for parity in parities}

    def _run(self, parity: Parity) -> tuple[int, str]:
        environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
        path, options = Path(__file__).parent / "parity" / f"{parity.name}.py", ["-q", "-p", "no:cacheprovider"]
        command = [*_POLITELY, sys.executable, "-m", "pytest", *options, str(path), "-k", parity.chosen]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            self._processes.append(process)
            said, _ = process.communicate()
        return process.returncode, said

    def end(self) -> None:
        """Leave no process behind."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()
        self._pool.shutdown()


_BACKGROUND = pytest.StashKey[_Background]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the processes that somebody is going to ask for."""
    asked = [item for item in session.items if item.path.stem == "test_parity" and isinstance(item, pytest.Function)]
    if asked and not session.config.option.collectonly:
        parities = [item.callspec.params["parity"] for item in asked if hasattr(item, "callspec")]
        session.config.stash[_BACKGROUND] = _Background(parities)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End those that are still at work."""
    background = config.stash.get(_BACKGROUND, None)
    if background is not None:
        background.end()


@pytest.fixture(autouse=True)
def no_garbage_collection() -> Iterator[None]:
    """Compiling takes a fifth longer with it."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def parity_runs(request: pytest.FixtureRequest) -> Runs:
    """What the processes return and print."""
    return request.config.stash[_BACKGROUND].runs
