"""What must be settled before any test imports NumPy or Numba; garbage collection; Hypothesis without a clock."""

import gc
import os

import pytest
from hypothesis import settings

# Threads that wait for work sleep. By default they spin, which takes seconds from whatever else runs on the machine:
# other tests, and the processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# References multiply small matrices: threads of BLAS cost more than they save.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# The first example compiles, and the machine may be busy: how long an example takes says nothing.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _nothing_is_said_of_compiling() -> None:
    """Let the command's output be the same whether or not kernels are in the cache."""
    from fastmf_kernels import _notes

    _notes.never_tell_of_compiling()


def pytest_collection_finish() -> None:
    """Collect garbage seldom: compiling a kernel makes so many objects that walking all of them took half the time."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
