"""Kernels held against their reference on a GPU, or without one: see `tests/cuda/test_parity.py`."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from fastmf.backend import Kernels, get_backend
from fastmf_kernels._cuda import notes, probe

NO_GPU = "no GPU for CUDA kernels"


@pytest.fixture(scope="session", autouse=True)
def one_processor() -> Iterator[None]:
    """Stay on one: threads that take turns were measured ten times slower in the simulator where they could move."""
    if not (probe.is_simulated() and hasattr(os, "sched_setaffinity")):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(before)[os.getpid() % len(before)]})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(autouse=True)
def nothing_said() -> None:
    """What is said once is said in each test anew."""
    notes.forget()


@pytest.fixture
def kernels() -> Kernels:
    if probe.obstacle() is not None:
        pytest.skip(NO_GPU)
    return get_backend("cuda")


@pytest.fixture
def reference() -> Kernels:
    return get_backend("reference")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say once how many tests were skipped for want of a GPU, and why there is none."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if NO_GPU in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(
            f"{len(skipped)} tests of CUDA kernels were skipped for want of a GPU: {probe.obstacle()}"
        )
