"""What models of implicit feedback choose from the data."""

import math
from typing import Any

import numpy as np
import pytest

import fastmf
from fastmf import BPR, SGD, ImplicitALS, Interactions, testing
from fastmf_kernels._types import Float64Array


def made_counts(scale: float = 1.0) -> Interactions:
    """Counts of 60 users and 40 items, some popular, with a dislike, a stored zero, and ids without ratings."""
    rng = np.random.default_rng(3)
    users, items = np.nonzero(rng.random((60, 40)) < np.linspace(0.02, 0.4, 40))
    counts = rng.integers(1, 9, len(users)).astype(np.float64)
    counts[0], counts[1] = 0, -2
    return testing.from_indices(users, items, counts * scale, 62, 41)


def by_hand(model: ImplicitALS, ratings: Interactions) -> dict[str, float]:
    """Evaluate the formulas in the docstring of `ImplicitALS`, cell by cell."""
    r = np.zeros((ratings.n_users, ratings.n_items))
    r[ratings.users, ratings.items] = ratings.ratings
    r = r[(r != 0).any(axis=1)][:, (r != 0).any(axis=0)]
    observed = r != 0
    n_users, n_items = r.shape
    alpha = 1.0 if model.weighting == "hu" and model.alpha is None else model.alpha
    total = float((observed if alpha is None else alpha * abs(r)).sum())
    a0 = 8 * total / (n_users * n_items) if model.unobserved_weight == "auto" else float(model.unobserved_weight)
    scales = [
        np.ones(len(counts)) if model.weighting == "hu" else (counts + a0 * others) ** model.regularization_exponent
        for counts, others in ((observed.sum(axis=1), n_items), (observed.sum(axis=0), n_users))
    ]
    c = 0.3 * (math.sqrt(n_users / observed.sum()) + math.sqrt(n_items / observed.sum()))
    return {"regularization": c * total / math.sqrt(scales[0].sum() * scales[1].sum()), "unobserved_weight": a0}


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"alpha": 0.3},
        {"regularization_exponent": 0.5},
        {"regularization_exponent": 0.0, "alpha": 2.0},
        {"unobserved_weight": 0.7},
        {"unobserved_weight": 0.0},
        {"regularization": 0.02},
        {"weighting": "hu", "unobserved_weight": 1.0},
        {"weighting": "hu", "unobserved_weight": 1.0, "alpha": 3.0},
    ],
    ids=str,
)
def test_implicit_als_chooses_what_its_docstring_says(parameters: dict[str, Any]) -> None:
    model, ratings = ImplicitALS(n_factors=2, n_epochs=1, **parameters), made_counts()

    expected = {name: value for name, value in by_hand(model, ratings).items() if name not in parameters}

    assert model.choose_parameters(ratings) == pytest.approx(expected, rel=1e-12)
    assert model.fit(ratings).chosen == pytest.approx(expected, rel=1e-12)


def test_the_weight_of_cells_that_are_not_observed_is_1_with_hu() -> None:
    model = ImplicitALS(n_factors=2, n_epochs=1, weighting="hu").fit(made_counts())

    assert model.chosen["unobserved_weight"] == 1


def test_numbers_that_are_given_are_not_replaced() -> None:
    model = ImplicitALS(n_factors=2, n_epochs=1, regularization=0.02, unobserved_weight=0.5).fit(made_counts())

    assert model.chosen == {}
    assert model.choose_parameters(made_counts()) == {}


def test_a_model_of_what_was_chosen_is_the_same() -> None:
    ratings = made_counts()
    model = ImplicitALS(n_factors=3, n_epochs=3).fit(ratings)

    again = ImplicitALS(n_factors=3, n_epochs=3, **model.chosen).fit(ratings)

    np.testing.assert_array_equal(again.item_factors, model.item_factors)
    assert model.get_params()["regularization"] == "auto"


def scores(model: ImplicitALS) -> Float64Array:
    return np.asarray(model.user_factors.astype(np.float64) @ model.item_factors.astype(np.float64).T)


def test_the_unit_of_counts_does_not_matter_where_all_rows_pay_alike() -> None:
    model, scaled = (
        ImplicitALS(n_factors=4, n_epochs=5, alpha=0.5, regularization_exponent=0.0).fit(made_counts(scale))
        for scale in (1, 1024)
    )

    np.testing.assert_allclose(scores(scaled), scores(model), rtol=1e-4, atol=1e-6)


def test_the_unit_of_counts_hardly_matters_where_rows_pay_for_their_data() -> None:
    model, scaled = (ImplicitALS(n_factors=4, n_epochs=5, alpha=0.5).fit(made_counts(scale)) for scale in (1, 1024))

    assert np.corrcoef(scores(scaled).ravel(), scores(model).ravel())[0, 1] > 0.99


def test_twice_the_same_users_hardly_change_what_is_learned_of_them() -> None:
    ratings = made_counts()
    users = np.concatenate([ratings.users, ratings.users + ratings.n_users])
    doubled = testing.from_indices(
        users, np.tile(ratings.items, 2), np.tile(ratings.ratings, 2), 2 * ratings.n_users, ratings.n_items
    )
    one, two = (ImplicitALS(n_factors=4, n_epochs=10).fit(each) for each in (ratings, doubled))

    assert two.chosen["unobserved_weight"] == pytest.approx(one.chosen["unobserved_weight"])
    assert np.corrcoef(scores(two)[: ratings.n_users].ravel(), scores(one).ravel())[0, 1] > 0.98


@pytest.mark.parametrize(
    "shape",
    [(1, 1), (1, 5), (5, 1), (6, 4)],
    ids=["one rating", "one user", "one item", "all cells"],
)
@pytest.mark.parametrize("weighting", ["rendle", "hu"])
def test_the_smallest_data_and_data_without_gaps_give_a_model(shape: tuple[int, int], weighting: str) -> None:
    users, items = (indices.ravel() for indices in np.indices(shape))
    ratings = testing.from_indices(users, items, np.ones(len(users)), *shape)

    model = ImplicitALS(n_factors=2, n_epochs=20, weighting=weighting).fit(ratings)

    assert all(value > 0 for value in model.chosen.values())
    assert abs(scores(model)).max() > 1e-3


def test_more_cells_than_an_integer_of_32_bits_can_count() -> None:
    n = 100_000
    ratings = testing.from_indices(np.arange(n), np.arange(n), np.ones(n), n, n)

    chosen = ImplicitALS().choose_parameters(ratings)

    assert chosen["unobserved_weight"] == pytest.approx(8 / n)
    assert chosen["regularization"] == pytest.approx(0.6 / 9)


@pytest.mark.parametrize(("backend", "n_threads"), [("cpu", 1), ("cpu", 2), ("reference", 1)])
def test_factors_that_have_collapsed_are_0(backend: str, n_threads: int) -> None:
    settings: dict[str, Any] = {"regularization": 10.0, "unobserved_weight": 0.1}

    model = ImplicitALS(n_factors=3, n_epochs=30, **settings, backend=backend, n_threads=n_threads).fit(made_counts())

    assert not model.user_factors.any()
    assert not model.item_factors.any()
    assert model.history[-1]["objective"] == np.count_nonzero(made_counts().ratings > 0)


def test_factors_that_begin_tiny_are_not_taken_for_collapsed() -> None:
    usual, tiny = (
        ImplicitALS(n_factors=2, n_epochs=40, init_scale=scale).fit(testing.checkerboard(20).ratings)
        for scale in (0.1, 1e-12)
    )

    assert tiny.history[-1]["objective"] == pytest.approx(usual.history[-1]["objective"], rel=1e-3)


@pytest.mark.parametrize(("kind", "parameters"), [(BPR, {}), (SGD, {"loss": "logistic"})], ids=["BPR", "logistic"])
def test_models_of_drawn_items_choose_their_strength(kind: type[BPR | SGD], parameters: dict[str, Any]) -> None:
    ratings = made_counts()
    model = kind(n_factors=3, n_epochs=2, **parameters).fit(ratings)

    assert model.chosen["regularization"] == 0.01
    assert model.chosen.keys() <= {"regularization", "learning_rate"}
    given = kind(n_factors=3, n_epochs=2, regularization=0.01, **parameters).fit(ratings)
    np.testing.assert_array_equal(given.item_factors, model.item_factors)


def test_default_models_rank_better_than_popularity() -> None:
    board = testing.checkerboard(20)
    held_out = Interactions.from_arrays(board.ratings.user_ids, board.ratings.item_ids.take(board.held_out))

    recall = {
        kind.__name__: fastmf.evaluate(kind(n_factors=4).fit(board.ratings), held_out, k=1, metrics=["recall"])
        for kind in (ImplicitALS, BPR)
    }

    # Within his half of the items a user misses one: popularity finds it in half of the cases at best.
    assert all(values["recall@1"] > 0.5 for values in recall.values()), recall
