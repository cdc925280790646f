"""Users and items that are folded into a fitted model: their rows are the solution with the other side fixed."""

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastmf
from fastmf import ALS, Bias, ImplicitALS, Interactions, Popularity, testing
from fastmf.errors import DataError, NotFittedError, ParameterError

SETTINGS: list[Any] = [
    pytest.param(ALS(), id="ALS auto"),
    pytest.param(ALS(regularization=0.05), id="ALS count"),
    pytest.param(ALS(regularization=0.3, regularization_scaling="root", biases=False), id="ALS root, no biases"),
    pytest.param(
        ALS(regularization=0.2, bias_regularization=0.1, item_bias_regularization=0.7, regularization_scaling="none"),
        id="ALS, biases apart",
    ),
    pytest.param(ALS(nonnegative=True, regularization=0.02), id="ALS nonnegative"),
    pytest.param(ImplicitALS(), id="ImplicitALS auto"),
    pytest.param(ImplicitALS(alpha=0.7, regularization_exponent=0.5, regularization=0.05), id="rendle alpha"),
    pytest.param(ImplicitALS(weighting="hu", alpha=2.0, regularization=0.3), id="hu"),
    pytest.param(ImplicitALS(nonnegative=True), id="ImplicitALS nonnegative"),
]
every_setting = pytest.mark.parametrize("model", SETTINGS)


def counts_with_cold_ids(seed: int = 0) -> Interactions:
    """Ratings with 0 and dislikes among them; the last two users and the last item have none."""
    rng = np.random.default_rng(seed)
    users, items = np.nonzero(rng.random((60, 40)) < np.linspace(0.05, 0.6, 40))
    return testing.from_indices(users, items, rng.integers(-1, 6, len(users)), 62, 41)


def fresh(model: Any, **params: Any) -> Any:
    return type(model)(**{**model.get_params(), "n_factors": 5, "n_epochs": 4, **params})


def newcomers(ratings: Interactions, seed: int = 1) -> Interactions:
    """Ratings of people who are not in ``ratings``, on some of its items."""
    rng = np.random.default_rng(seed)
    users, items = np.nonzero(rng.random((9, ratings.n_items)) < 0.3)
    ids = [f"new-{user}" for user in users]
    return Interactions.from_arrays(ids, ratings.item_ids.take(pa.array(items)), rng.integers(1, 6, len(users)))


def strengths_of(model: ALS, fitted: Any) -> tuple[float, float, float]:
    """λ_p·σ, λ_bu and the deviation, by the formulas of the class docstring."""
    found = {**model.get_params(), **model.chosen}
    of_users = found["regularization"] if found["bias_regularization"] is None else found["bias_regularization"]
    of_items = of_users if found["item_bias_regularization"] is None else found["item_bias_regularization"]
    tilt = math.sqrt(of_users / of_items) if model.biases else 1.0
    return found["regularization"] * tilt * fitted.data["deviation"], of_users, of_items


def explicit_row(model: ALS, columns: Any, values: Any) -> tuple[Any, float]:
    """Minimise the sum in the docstring of `ALS` over (p, b) by NumPy, in float64."""
    factors = model.fitted.factors
    q = factors.item_factors[columns].astype(np.float64)
    of_factors, of_bias, _ = strengths_of(model, model.fitted)
    scaling = {**model.get_params(), **model.chosen}["regularization_scaling"] or "count"
    often = {"count": len(columns), "root": math.sqrt(len(columns)), "none": 1.0}[scaling]
    penalties = np.full(q.shape[1], often * of_factors)
    if model.biases:
        q, penalties = np.column_stack([q, np.ones(len(q))]), np.append(penalties, often * of_bias)
    target = values - np.float64(factors.global_mean) - factors.item_biases[columns]
    x = np.linalg.solve(q.T @ q + np.diag(penalties), q.T @ target)
    return (x[:-1], float(x[-1])) if model.biases else (x, 0.0)


def implicit_row(model: ImplicitALS, ratings: Interactions, columns: Any, values: Any) -> Any:
    """Minimise the sum in the docstring of `ImplicitALS` over p by NumPy, over every cell."""
    found, q = {**model.get_params(), **model.chosen}, model.item_factors.astype(np.float64)
    r = np.zeros(len(q))
    r[columns] = values
    alpha, is_hu = found["alpha"], model.weighting == "hu"
    weight = np.abs(r) * (alpha or 1.0) if alpha is not None or is_hu else (r != 0).astype(np.float64)
    n_items = len(np.unique(ratings.items[ratings.ratings != 0]))
    everywhere = 1.0 if is_hu else found["unobserved_weight"]
    amount = 1.0 if is_hu else (np.count_nonzero(r) + everywhere * n_items) ** found["regularization_exponent"]
    # "hu" weighs p of observed cells by all of c, "rendle" by w: all cells have the target 0 there.
    pull = (weight + 1.0) if is_hu else weight
    matrix = (q.T * (weight + everywhere)) @ q + found["regularization"] * amount * np.eye(q.shape[1])
    return np.linalg.solve(matrix, q.T @ (pull * (r > 0)))


@pytest.mark.parametrize("model", [p for p in SETTINGS if "nonnegative" not in p.id and p.id != "hu"])
def test_rows_are_the_minimum_of_the_docstrings_formula(model: Any) -> None:
    ratings = counts_with_cold_ids()
    fitted = fresh(model).fit(ratings)
    others = newcomers(ratings)

    found = fitted.fold_in(others)

    known = {id_: place for place, id_ in enumerate(fitted.item_ids.to_pylist())}
    is_warm = np.bincount(ratings.items, minlength=ratings.n_items) > 0
    for user, id_ in enumerate(found.ids.to_pylist()):
        mine = others.users == user
        columns = np.array([known[item] for item in others.item_ids.take(pa.array(others.items[mine])).to_pylist()])
        values = others.ratings[mine][is_warm[columns]].astype(np.float64)
        columns = columns[is_warm[columns]]
        if isinstance(model, ALS):
            factors, bias = explicit_row(fitted, columns, values)
        else:
            factors, bias = implicit_row(fitted, ratings, columns, values), 0.0
        assert id_ == f"new-{user}"
        np.testing.assert_allclose(found.factors[user], factors, rtol=2e-4, atol=2e-5)
        assert found.biases[user] == pytest.approx(bias, rel=2e-4, abs=2e-5)


def test_hu_weighs_observed_cells_by_the_whole_confidence() -> None:
    ratings = counts_with_cold_ids()
    fitted = fresh(ImplicitALS(weighting="hu", alpha=2.0, regularization=0.3)).fit(ratings)
    others = Interactions.from_arrays(["a"] * 3, ratings.item_ids.take(pa.array([30, 35, 38])), [1, 4, -2])

    q = fitted.item_factors.astype(np.float64)
    extra = np.zeros(len(q))
    extra[[30, 35, 38]] = [2.0, 8.0, 4.0]
    preference = np.isin(np.arange(len(q)), [30, 35])
    want = np.linalg.solve((q.T * (1 + extra)) @ q + 0.3 * np.eye(5), q.T @ ((1 + extra) * preference))
    np.testing.assert_allclose(fitted.fold_in(others).factors[0], want, rtol=2e-4, atol=2e-5)


@every_setting
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_training_users_get_the_factors_of_the_fit(model: Any, backend: str) -> None:
    ratings = counts_with_cold_ids()
    fitted = fresh(model, backend=backend).fit(ratings)

    found = fitted.fold_in(ratings)

    assert found.ids.equals(ratings.user_ids)
    size = np.abs(fitted.user_factors).max()
    tolerance = 0 if backend == "cpu" else 1e-6 * size
    np.testing.assert_allclose(found.factors, fitted.user_factors, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.biases, fitted.user_biases, rtol=0, atol=tolerance)
    assert not found.factors[60:].any()


@every_setting
def test_items_are_solved_against_the_users_of_the_model(model: Any) -> None:
    """The same model with sides exchanged: items folded in are users folded in there."""
    ratings = counts_with_cold_ids()
    fitted = fresh(model).fit(ratings)
    found = fitted.fold_in(ratings, side="item")

    old, factors = fitted.fitted, fitted.fitted.factors
    turned_seen = Interactions(ratings.items, ratings.users, ratings.ratings, None, ratings.item_ids, ratings.user_ids)
    kept = dict(old.trained_with["objective"])
    if isinstance(model, ALS) and model.biases:
        of_users, of_items = strengths_of(fitted, old)[1:]
        kept |= {"bias_regularization": of_items, "item_bias_regularization": of_users}
    exchanged = fresh(model)
    exchanged.restore(
        dataclasses.replace(
            old,
            factors=factors._replace(
                user_factors=factors.item_factors,
                item_factors=factors.user_factors,
                user_biases=factors.item_biases,
                item_biases=factors.user_biases,
            ),
            user_ids=ratings.item_ids,
            item_ids=ratings.user_ids,
            seen=type(old.seen)(*turned_seen.by_user[:2]),
            values=turned_seen.by_user.values,
            trained_with={**old.trained_with, "objective": kept},
        ),
        fitted.history,
    )
    other_way = exchanged.fold_in(turned_seen)

    np.testing.assert_allclose(found.factors, other_way.factors, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.biases, other_way.biases, rtol=1e-5, atol=1e-6)
    assert found.factors[:40].any(axis=1).mean() > 0.9


def test_biases_are_shrunk_mean_residuals() -> None:
    ratings = testing.power_law(60, 40, 700, n_factors=3, seed=0)
    fitted = Bias(regularization=2.0, item_regularization=5.0).fit(ratings)
    rated = ratings.item_ids.take(pa.array([3, 7, 8]))
    found = fitted.fold_in(Interactions.from_arrays(["a"] * 3, rated, [5, 1, 4]))

    residuals = np.array([5, 1, 4]) - fitted.global_mean - fitted.item_biases[[3, 7, 8]]
    assert found.factors.shape == (1, 0)
    assert found.biases[0] == pytest.approx(residuals.sum() / (3 + 2.0), rel=1e-5)
    of_item = fitted.fold_in(
        Interactions.from_arrays(ratings.user_ids.take(pa.array([1, 2])), ["new", "new"], [5, 2]), side="item"
    )
    residuals = np.array([5, 2]) - fitted.global_mean - fitted.user_biases[[1, 2]]
    assert of_item.biases[0] == pytest.approx(residuals.sum() / (2 + 5.0), rel=1e-5)


def test_popularity_has_nothing_of_users_and_the_share_of_an_item() -> None:
    clicks = Interactions.from_arrays(["ann", "ann", "bob", "eve", "eve"], ["x", "y", "x", "z", "x"], [1, 1, 1, 1, 0])
    fitted = Popularity().fit(clicks)

    assert fitted.fold_in(clicks).biases.tolist() == [0, 0, 0]
    found = fitted.fold_in(clicks, side="item")
    np.testing.assert_array_equal(found.biases, fitted.item_biases)
    assert found.factors.shape == (3, 0)


@every_setting
def test_parameters_that_are_set_later_change_nothing(model: Any, tmp_path: Path) -> None:
    ratings = counts_with_cold_ids()
    fitted = fresh(model).fit(ratings)
    others = newcomers(ratings)
    before = fitted.fold_in(others)

    fitted.save(tmp_path / "model")
    loaded = fastmf.load(tmp_path / "model")
    changes = {"regularization": 9.0, "n_factors": 9, "nonnegative": False, "solver": "cg", "init_scale": 3.0}
    if isinstance(model, ALS):
        changes |= {"biases": not model.biases, "regularization_scaling": "root", "bias_regularization": 4.0}
    else:
        changes |= {"alpha": 5.0, "unobserved_weight": 0.9, "regularization_exponent": 0.2, "weighting": "rendle"}
    for changed in (fitted.set_params(**changes), loaded, loaded.set_params(**changes)):
        after = changed.fold_in(others)
        np.testing.assert_array_equal(after.factors, before.factors)
        np.testing.assert_array_equal(after.biases, before.biases)
    assert before.factors.any()


@every_setting
def test_a_model_that_kept_no_objective_takes_its_parameters_and_choices(model: Any) -> None:
    ratings = counts_with_cold_ids()
    fitted = fresh(model).fit(ratings)
    before = fitted.fold_in(ratings)
    old = {name: value for name, value in fitted.fitted.trained_with.items() if name != "objective"}
    fitted.restore(dataclasses.replace(fitted.fitted, trained_with=old), fitted.history)

    np.testing.assert_array_equal(fitted.fold_in(ratings).factors, before.factors)


@pytest.mark.parametrize("kind", [ALS, ImplicitALS])
def test_one_by_one_on_any_number_of_threads_is_the_same(kind: Any) -> None:
    ratings = testing.power_law(300, 400, 6000, n_factors=3, seed=0)
    fitted = kind(n_factors=20, n_epochs=2).fit(ratings)
    together = fitted.fold_in(ratings)

    for n_threads in (1, 2, 3):
        again = fitted.set_params(n_threads=n_threads).fold_in(ratings)
        np.testing.assert_array_equal(again.factors, together.factors)
    for user in (0, 17, 299):
        alone = fitted.fold_in(Interactions.from_arrow(ratings.take(ratings.users == user).to_arrow()))
        np.testing.assert_array_equal(alone.factors[0], together.factors[user])
        np.testing.assert_array_equal(alone.biases[0], together.biases[user])


def test_unknown_items_are_left_out_and_a_user_of_these_alone_is_0() -> None:
    ratings = testing.power_law(60, 40, 700, n_factors=3, seed=0)
    some = ratings.item_ids.take(pa.array([1, 5])).to_pylist()
    known = Interactions.from_arrays(["a", "a", "b"], [*some, some[0]], [5, 2, 3])
    more = Interactions.from_arrays(["a", "a", "a", "b", "c"], [*some, 10**6, some[0], 10**6], [5, 2, 1, 3, 4])
    for kind in (ALS, ImplicitALS, Bias, Popularity):
        fitted = kind().fit(ratings)
        few, all_of_them = fitted.fold_in(known), fitted.fold_in(more)
        assert all_of_them.ids.to_pylist() == ["a", "b", "c"]
        np.testing.assert_array_equal(all_of_them.factors[:2], few.factors)
        assert not all_of_them.factors[2].any()
        assert all_of_them.biases[2] == 0


def test_zeros_are_no_observations_and_dislikes_are_for_implicit_als() -> None:
    ratings = counts_with_cold_ids()
    fitted = fresh(ImplicitALS()).fit(ratings)
    items = ratings.item_ids.take(pa.array([20, 25, 30])).to_pylist()

    def folded(values: list[float], n: int = 3) -> Any:
        return fitted.fold_in(Interactions.from_arrays(["a"] * n, items[:n], values)).factors[0]

    np.testing.assert_array_equal(folded([1, 1, 0]), folded([1, 1], n=2))
    assert np.abs(folded([1, 1, -1]) - folded([1, 1, 0])).max() > 1e-3
    assert not folded([0, 0, 0]).any()
    assert not folded([-1, -1], n=2).any()


def test_what_cannot_be_folded_in_is_refused() -> None:
    ratings = testing.power_law(60, 40, 700, n_factors=3, seed=0)
    one = Interactions.from_arrays(["a"], ["x"], [1])
    with pytest.raises(NotFittedError, match="this ALS is not fitted"):
        ALS().fold_in(one)
    fitted = ALS(n_epochs=1).fit(ratings)
    with pytest.raises(ParameterError, match="side is 'row'; expected one of 'user', 'item'"):
        fitted.fold_in(ratings, side="row")
    with pytest.raises(DataError, match="item_ids"):
        fitted.fold_in(one)


@pytest.mark.parametrize("size", [3e38, -3e38])
@pytest.mark.parametrize(
    "model", [ALS(regularization=1e-3), ImplicitALS(alpha=5.0, nonnegative=True)], ids=["ALS", "ImplicitALS"]
)
def test_ratings_whose_factors_are_no_numbers_are_refused(model: Any, size: float) -> None:
    ratings = testing.low_rank(n_users=50, n_items=20, density=0.5, seed=0)
    model.set_params(n_factors=4).fit(ratings)
    newcomer = Interactions.from_arrays([1000, 1000], ratings.item_ids[:2], [size, 1])
    for answer in (model.fold_in, model.recommend_for):
        with pytest.raises(DataError, match=r"ratings.*3e\+38"):
            answer(newcomer)


def test_ratings_of_nobody_give_no_rows() -> None:
    ratings = testing.power_law(60, 40, 700, n_factors=3, seed=0)
    nobody = ratings.take(np.zeros(0, np.int64))
    for kind in (ALS, ImplicitALS, Bias, Popularity):
        found = kind().fit(ratings).fold_in(nobody)
        assert len(found.ids) == len(found.factors) == len(found.biases) == 60
        assert not found.factors.any()
        assert not found.biases.any()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ALS, ImplicitALS])
def test_threads_fold_in_while_the_model_is_fitted_again(kind: Any) -> None:
    """Every answer belongs to one of the two fits."""
    data = [testing.power_law(60, 40, 700, n_factors=3, seed=seed) for seed in (0, 1)]
    others = newcomers(data[0])
    expected = [kind(n_factors=4, n_epochs=1).fit(one).fold_in(others).factors.tobytes() for one in data]
    assert expected[0] != expected[1]
    model = kind(n_factors=4, n_epochs=1).fit(data[0])

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(lambda: model.fold_in(others).factors.tobytes()) for _ in range(200)]
        for number in range(20):
            model.fit(data[(number + 1) % 2])
        found = {future.result() for future in asked}

    assert found <= set(expected)
