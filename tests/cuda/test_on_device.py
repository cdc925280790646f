"""Kernels on a GPU at the sizes that they are used with: what the small problems of `parity` do not reach."""

import numpy as np
import pytest

import fastmf
from fastmf.backend import Kernels, get_backend
from fastmf.testing import power_law
from fastmf_kernels._cuda import probe
from fastmf_kernels.als.arrays import HalfSweep, Solver, Weighting
from fastmf_kernels.topk.arrays import Rows, no_rows

pytestmark = pytest.mark.skipif(probe.obstacle() is not None or probe.is_simulated(), reason="no GPU for CUDA kernels")
RENDLE = Weighting(*(np.float32(term) for term in (1, 0, 1, 0)))


@pytest.fixture(scope="module")
def cuda() -> Kernels:
    return get_backend("cuda")


@pytest.fixture(scope="module")
def cpu() -> Kernels:
    return get_backend("cpu")


@pytest.mark.parametrize("halves", [True, False])
@pytest.mark.parametrize("pruning", [True, False])
@pytest.mark.parametrize(("n_factors", "k"), [(64, 10), (128, 100), (33, 1000)])
def test_top_k_is_that_of_the_cpu(
    n_factors: int, k: int, pruning: bool, halves: bool, cuda: Kernels, cpu: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastmf_kernels.topk import cuda as on_gpu

    monkeypatch.setattr(on_gpu, "HALVES", halves)
    rng = np.random.default_rng(k)
    queries, items = (rng.standard_normal((n, n_factors), np.float32) for n in (700, 20_000))
    items *= rng.lognormal(0, 0.5, (len(items), 1)).astype(np.float32)
    excluded = Rows(
        np.arange(701) * 20, np.sort(rng.integers(0, len(items), (700, 20)), axis=1).ravel().astype(np.int32)
    )
    for exclude in (no_rows(700), excluded):
        found, expected = (
            kernels.top_k(queries, kernels.index_items(items, pruning, None), k, exclude, None).top
            for kernels in (cuda, cpu)
        )
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)


@pytest.mark.parametrize("solver", [Solver("cholesky"), Solver("cg", 3), Solver("subspace", 32)])
@pytest.mark.parametrize("n_factors", [64, 65, 128])
def test_half_sweeps_are_those_of_the_cpu(n_factors: int, solver: Solver, cuda: Kernels, cpu: Kernels) -> None:
    """Rows from one entry to several thousand, which are cut."""
    ratings = power_law(20_000, 600, 900_000)
    rng = np.random.default_rng(0)
    fixed = rng.standard_normal((20_000, n_factors), np.float32) / np.float32(n_factors**0.5)
    rows, solved = ratings.by_item, []
    for kernels in (cuda, cpu):
        gram = (0.1 * kernels.gram(fixed, None)).astype(np.float32)
        strength = np.full(len(rows.indptr) - 1, 2, np.float32)
        problem = HalfSweep(rows, fixed, np.zeros(len(fixed), np.float32), gram, strength, RENDLE)
        target = np.random.default_rng(1).standard_normal((len(strength), n_factors), np.float32)
        losses = kernels.run_half_sweep(problem, target, None, solver)
        solved.append((target, losses))
    assert np.diff(rows.indptr).max() > 4096
    for found, expected in zip(*solved, strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("n_users", [5_000, 80_000])
def test_sgd_learns_as_on_the_cpu(n_users: int, storage: str) -> None:
    """With many users and with few, whose ratings are walked in another order; items that many users have rated."""
    ratings = power_law(n_users, 2_000, 1_500_000)
    train, test = fastmf.split.random(ratings, 0.1, 0)
    errors = []
    for settings in ({"backend": "cuda", "storage": storage}, {"backend": "cpu"}):
        model = fastmf.SGD(n_factors=32, n_epochs=8, **settings).fit(train)
        errors.append(
            fastmf.evaluate(model.set_params(backend="cpu", storage="float32"), test, metrics=["rmse"])["rmse"]
        )
    assert errors[0] == pytest.approx(errors[1], abs=0.006)  # two seeds are 0.002 apart
