"""The shares of columns in a row that is folded in: they add up to what the reference of folding in returns."""

import numpy as np
import pytest

from fastmf.backend import get_backend
from fastmf_kernels.fold_in.arrays import Descent, Draws, Fixed, make_weights
from fastmf_kernels.fold_in.shares import (
    Drawing,
    Row,
    Shares,
    shares_of_choices,
    shares_of_ratings,
    shares_of_user_pairs,
)
from fastmf_kernels.layout.arrays import CSR
from tests.kernels.made import LINKS, make_factors

REFERENCE = get_backend("reference")
DESCENTS = (
    Descent(5, 0.05, 0.03, 0.9, 1.0, 0.02, 0.04, np.uint64(2**64 - 3)),
    Descent(1, 0.3, 0.1, 1.0, 0.0, 0.5, 0.0, np.uint64(7)),
    Descent(4, 0.1, 0.1, 1.0, 1.0, 1e30, 0.0, np.uint64(0)),
)
each_descent = pytest.mark.parametrize("descent", DESCENTS)
each_size = pytest.mark.parametrize("n", [1, 2, 17, 39])
SCALE = np.float32(0.3)


def make_row(n: int) -> tuple[CSR, Fixed]:
    rng, factors = np.random.default_rng(n), make_factors(3, 40, 8)
    columns = np.sort(rng.choice(40, n, replace=False)).astype(np.int32)
    values = rng.integers(1, 6, n).astype(np.float32)
    return CSR(np.array([0, n]), columns, values), REFERENCE.fix(factors.item_factors, factors.item_biases)


def total(shares: Shares, rows: CSR, fixed: Fixed) -> np.ndarray:
    y = fixed.factors.astype(np.float64)
    return shares.own @ y[rows.indices] + shares.drawn_weights @ y[shares.drawn]


@each_descent
@each_size
@pytest.mark.parametrize("link", ["identity", "sigmoid"])
def test_shares_of_ratings_add_up(descent: Descent, n: int, link: str) -> None:
    rows, fixed = make_row(n)
    base = np.linspace(-0.3, 0.3, 8, dtype=np.float32)

    row = Row(rows.indices, fixed, descent, float(SCALE))
    shares = shares_of_ratings(row, rows.values, base.astype(np.float64), 0.4, LINKS[link])

    scales = np.array([SCALE])
    folded = REFERENCE.fold_in_ratings(rows, fixed, base[None], 0.4, LINKS[link], descent, scales, None)
    np.testing.assert_allclose(base + total(shares, rows, fixed), folded.factors[0], rtol=1e-6, atol=1e-7)
    assert not len(shares.drawn)
    assert descent.regularization > 1 or np.all(shares.own != 0)


@each_descent
@each_size
@pytest.mark.parametrize("loss", ["choices", "pairs"])
def test_shares_of_what_is_chosen_and_drawn_add_up(descent: Descent, n: int, loss: str) -> None:
    rows, fixed = make_row(n)
    weights, scales = make_weights(np.arange(41)), np.array([SCALE])

    row, drawing = Row(rows.indices, fixed, descent, float(SCALE)), Drawing(weights, 3 * n + 1)
    draws = Draws(weights, np.array([3 * n + 1]))
    if loss == "choices":
        shares = shares_of_choices(row, -0.7, drawing)
        folded = REFERENCE.fold_in_choices(rows, fixed, -0.7, descent, scales, draws, None)
    else:
        shares = shares_of_user_pairs(row, drawing)
        folded = REFERENCE.fold_in_user_pairs(rows, fixed, descent, scales, draws, None)

    np.testing.assert_allclose(total(shares, rows, fixed), folded.factors[0], rtol=1e-6, atol=1e-7)
    assert np.all(shares.own >= 0)
    assert np.all(shares.drawn_weights <= 0)
    assert not set(shares.drawn.tolist()) & set(rows.indices.tolist())


def test_a_row_without_columns_has_no_shares() -> None:
    fixed = make_row(1)[1]

    row = Row(np.empty(0, np.int32), fixed, DESCENTS[0], 1.0)
    shares = shares_of_user_pairs(row, Drawing(make_weights(np.arange(41)), 0))

    assert [len(part) for part in shares] == [0, 0, 0]
