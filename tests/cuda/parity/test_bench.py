"""The contestants of ``fastmf bench --device cuda`` that are fastmf itself, on problems of a few rows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastmf.backend import Kernels
from fastmf_bench.suites import cuda_tasks
from fastmf_kernels.topk import cuda
from tests.cuda.parity.test_topk import SMALL, use


@pytest.fixture
def pace() -> Callable[..., bool]:
    """Two laps."""
    laps = iter([True, True, False])
    return lambda lap=None: next(laps)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    shape = {"n_users": 9, "n_items": 7, "n_ratings": 40}
    cuda_tasks.make(lambda lap=None: False, shape, str(tmp_path), 0)
    return str(tmp_path)


def test_sgd(pace: Callable[..., bool], folder: str, kernels: Kernels) -> None:
    figures = cuda_tasks.sgd(pace, folder, n_factors=8, backend="cuda", n_threads=1)

    assert np.isfinite(figures["train rmse, last epoch"])
    assert "kernels" in figures


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_als(solver: str, pace: Callable[..., bool], folder: str, kernels: Kernels) -> None:
    laps = iter([True, True, False])
    figures, on_cpu = (
        cuda_tasks.als(each, folder, n_factors=8, solver=solver, backend=backend, n_threads=1)
        for each, backend in ((pace, "cuda"), (lambda lap=None: next(laps), "cpu"))
    )

    np.testing.assert_allclose(figures["objective"], on_cpu["objective"], rtol=1e-3)


def test_top_k(pace: Callable[..., bool], kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, SMALL)
    monkeypatch.setattr(cuda, "HALVES", cuda.HALVES)
    figures = cuda_tasks.top_k(pace, n_queries=10, n_items=33, n_factors=8, k=5, pruning=True, halves=False)

    assert figures["agreement"] == 1
