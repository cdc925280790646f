"""What the tests of serving share: fresh interpreters, and models of one catalogue."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fastmf
import fastmf_kernels
from fastmf.models import FactorModel

LAYERS = ("omp", "tbb", "workqueue")
N_USERS, N_ITEMS = 60, 900


@pytest.fixture(scope="session")
def ratings() -> fastmf.Interactions:
    """Ratings in which the first users and items have none, and user 5 has rated a lot."""
    made = fastmf.testing.low_rank(n_users=N_USERS, n_items=N_ITEMS, density=0.08, seed=3)
    kept = (made.users >= 3) & (made.items >= 4)
    return fastmf.testing.from_indices(made.users[kept], made.items[kept], made.ratings[kept], N_USERS, N_ITEMS)


@pytest.fixture(scope="session")
def model(ratings: fastmf.Interactions) -> FactorModel:
    return fastmf.ALS(n_factors=6, n_epochs=2, n_threads=1).fit(ratings)


@pytest.fixture(scope="session")
def other_model(ratings: fastmf.Interactions) -> FactorModel:
    return fastmf.ImplicitALS(n_factors=5, n_epochs=2, n_threads=1).fit(ratings)


@pytest.fixture
def start_python() -> Callable[..., "subprocess.Popen[str]"]:
    """Start a script in a new interpreter: for what is settled once in a process, such as the thread pool."""

    def start(script: str, *args: str, **environment: str) -> "subprocess.Popen[str]":
        packages = [str(Path(package.__file__).parents[1]) for package in (fastmf, fastmf_kernels)]
        return subprocess.Popen(
            [sys.executable, "-c", script, *args],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(packages), "NUMBA_NUM_THREADS": "2", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def run_python(start_python: Callable[..., "subprocess.Popen[str]"]) -> Callable[..., str]:
    """Run a script in a new interpreter, insist that it succeeds, and return what it printed."""

    def run(script: str, *args: str, **environment: str) -> str:
        process = start_python(script, *args, **environment)
        try:
            output, errors = process.communicate(timeout=300)
        finally:
            process.kill()
        assert process.returncode == 0, errors
        return output

    return run
