"""Predictions against the reference, and the reference against a few numbers worked out by hand."""

import numpy as np
import pytest

from fastmf.backend import Kernels
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict import cpu
from fastmf_kernels.predict.arrays import Factors, make_link

LINKS = {"identity": None, "sigmoid": (1.0, 5.0)}
THREADS = (1, 2, None)


def make_factors(n_users: int, n_items: int, n_factors: int, seed: int = 0) -> Factors:
    rng = np.random.default_rng(seed)
    return Factors(
        rng.standard_normal((n_users, n_factors), np.float32),
        rng.standard_normal((n_items, n_factors), np.float32),
        rng.standard_normal(n_users, np.float32),
        rng.standard_normal(n_items, np.float32),
        np.float32(0.7),
    )


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("n_factors", [1, 3, 8, 17, 64, 128])
def test_predict_pairs(n_factors: int, link: str, kernels: Kernels, reference: Kernels) -> None:
    factors, rng = make_factors(40, 30, n_factors), np.random.default_rng(1)
    users, items = (rng.integers(-1, n, 500).astype(np.int32) for n in (40, 30))  # -1: an unknown one
    pair = (users, items, factors, make_link(LINKS[link]))
    predictions = kernels.predict_pairs(*pair, None)
    assert predictions.dtype == np.float32
    # Sums of n_factors products of about 1: the bound is a few units of float32 in the largest of them.
    np.testing.assert_allclose(predictions, reference.predict_pairs(*pair, None), rtol=0, atol=2e-6 * n_factors**0.5)


@pytest.mark.parametrize(
    ("user", "item", "expected"),
    [(0, 0, 0.5 + 0.25 - 0.125 + 11), (-1, 0, 0.5 - 0.125), (0, -1, 0.5 + 0.25), (-1, -1, 0.5)],
)
def test_known_terms_only(user: int, item: int, expected: float, kernels: Kernels, reference: Kernels) -> None:
    factors = Factors(
        np.array([[1, 2]], np.float32),
        np.array([[3, 4]], np.float32),
        np.array([0.25], np.float32),
        np.array([-0.125], np.float32),
        np.float32(0.5),
    )
    pair = np.array([user], np.int32), np.array([item], np.int32), factors
    for variant in (kernels, reference):
        assert variant.predict_pairs(*pair, make_link(None), None).tolist() == [expected]
        with_link = variant.predict_pairs(*pair, make_link((2.0, 4.0)), None)
        np.testing.assert_allclose(with_link, [2 + 2 / (1 + np.exp(-expected))], rtol=1e-6)


@pytest.mark.parametrize("score", [-200.0, 200.0])
def test_link_saturates_at_its_ends(score: float, kernels: Kernels, reference: Kernels) -> None:
    factors = make_factors(1, 1, 2)._replace(global_mean=np.float32(score))
    pair = np.zeros(1, np.int32), np.zeros(1, np.int32), factors, make_link((1.0, 5.0))
    for variant in (kernels, reference):
        assert variant.predict_pairs(*pair, None).tolist() == [5.0 if score > 0 else 1.0]


def test_no_pairs(kernels: Kernels) -> None:
    nobody = np.zeros(0, np.int32)
    assert kernels.predict_pairs(nobody, nobody, make_factors(3, 3, 4), make_link(None), None).shape == (0,)


def test_nan_factors_show(kernels: Kernels) -> None:
    factors = make_factors(2, 2, 5)
    factors.user_factors[1, 3] = np.nan
    pair = np.array([0, 1], np.int32), np.array([0, 0], np.int32), factors, make_link((1.0, 5.0))
    assert np.isnan(kernels.predict_pairs(*pair, None)).tolist() == [False, True]


@pytest.mark.parametrize("n_threads", THREADS)
def test_same_bits_for_any_threads(n_threads: int | None, kernels: Kernels) -> None:
    rng = np.random.default_rng(2)
    users, items = (rng.integers(0, n, 1001).astype(np.int32) for n in (40, 30))
    pair = (users, items, make_factors(40, 30, 17), make_link((1.0, 5.0)))
    np.testing.assert_array_equal(kernels.predict_pairs(*pair, n_threads), kernels.predict_pairs(*pair, 1))


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("link", LINKS)
def test_squared_error(
    link: str, chunk: int, kernels: Kernels, reference: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "_CHUNK", chunk)
    rng = np.random.default_rng(2)
    counts = np.append(rng.integers(0, 9, 38), [0, 20])
    indices = rng.integers(0, 30, counts.sum()).astype(np.int32)
    rows = CSR(np.append(0, np.cumsum(counts)), indices, rng.random(len(indices), np.float32))
    found, expected = (
        variant.squared_error(rows, make_factors(40, 30, 8), make_link(LINKS[link]), None)
        for variant in (kernels, reference)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_squared_error_by_hand(kernels: Kernels, reference: Kernels) -> None:
    ones, zeros = np.ones((2, 1), np.float32), np.zeros(2, np.float32)
    rows = CSR(np.array([0, 2, 2]), np.array([0, 1], np.int32), np.array([1, 4], np.float32))
    for variant in (kernels, reference):
        factors = Factors(ones, ones, zeros, zeros, np.float32(1))
        assert variant.squared_error(rows, factors, make_link(None), None) == 1 + 4
        nothing = CSR(np.zeros(3, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
        assert variant.squared_error(nothing, factors, make_link(None), None) == 0
