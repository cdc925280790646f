"""The examples as people start them: processes of their own, called over loopback."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fastmf
import fastmf_kernels

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SECONDS = 60.0


class Running:
    """A process that was started, and what it has printed."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def line(self) -> str:
        """Return the next line of standard output; the process has a minute for it."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], SECONDS)
        assert ready, "the process says nothing"
        text = self.process.stdout.readline()
        if not text:
            raise AssertionError(self.process.communicate(timeout=SECONDS)[1])
        return text

    def end(self) -> int:
        """Ask the process to end, and return its status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)


def until(holds: Callable[[], bool]) -> None:
    """Ask again and again, until a minute is over."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not happen within a minute"
        select.select([], [], [], 0.01)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start Python with arguments in the test's directory."""
    started: list[subprocess.Popen[str]] = []
    packages = [Path(package.__file__).parents[1] for package in (fastmf, fastmf_kernels)]
    paths = {"PYTHONPATH": os.pathsep.join(map(str, packages)), "PYTHONUNBUFFERED": "1"}

    def start_python(*words: object, **environment: str) -> Running:
        process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            cwd=tmp_path,
            env={**os.environ, **paths, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a master's children end with it
        )
        started.append(process)
        return Running(process)

    yield start_python
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="session")
def clicks() -> fastmf.Interactions:
    return fastmf.testing.film_club(n_users=60, n_items=30, mean_ratings=12)


@pytest.fixture
def model(tmp_path: Path, clicks: fastmf.Interactions) -> Any:
    """A model, which is at ``model`` in the test's directory, too."""
    fitted = fastmf.ImplicitALS(n_factors=4, n_epochs=2, n_threads=1).fit(clicks)
    fitted.save(tmp_path / "model")
    return fastmf.load(tmp_path / "model")


@pytest.fixture
def other_model(clicks: fastmf.Interactions) -> Any:
    """A model that answers otherwise."""
    return fastmf.ImplicitALS(n_factors=2, n_epochs=1, seed=5, n_threads=1).fit(clicks)
