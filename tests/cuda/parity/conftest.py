"""Kernels held against their reference on a GPU, or in the simulator (`tests/cuda/test_simulator.py` starts it)."""

import pytest

from fastmf.backend import Kernels, get_backend
from fastmf_kernels._cuda import probe


@pytest.fixture
def kernels() -> Kernels:
    obstacle = probe.obstacle()
    if obstacle is not None:
        pytest.skip(f"CUDA kernels cannot run here: {obstacle}")
    return get_backend("cuda")


@pytest.fixture
def reference() -> Kernels:
    return get_backend("reference")
