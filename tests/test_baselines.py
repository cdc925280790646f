"""Models without factors, and what models of factors are compared with."""

import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fastmf
from fastmf import ALS, SGD, Bias, ImplicitALS, Interactions, Popularity, SVDpp, testing
from fastmf.errors import DataError, NotFittedError, ParameterError
from fastmf.measuring.baseline import baseline_of
from fastmf.models import FactorModel, Model
from fastmf.models.bias_terms import BiasSweeps, bias_terms

FloatArray = npt.NDArray[np.float64]


def planted(
    n_users: int = 400, n_items: int = 300, density: float = 0.1, deviations: tuple[float, float, float] = (0.5, 0.7, 1)
) -> Interactions:
    """Ratings of biases and noise of known standard deviations: of users, of items, of the noise."""
    rng = np.random.default_rng(1)
    users, items = np.nonzero(rng.random((n_users, n_items)) < density)
    of_users, of_items, noise = deviations
    b_u, b_i = rng.normal(0, of_users, n_users), rng.normal(0, of_items, n_items)
    ratings = 3 + b_u[users] + b_i[items] + rng.normal(0, noise, len(users))
    return testing.from_indices(users, items, ratings, n_users, n_items)


def solved(ratings: Interactions, of_users: float, of_items: float) -> tuple[FloatArray, FloatArray]:
    """Return the biases that minimise the formula in the docstring of `Bias`, from its normal equations."""
    n, (n_users, n_items) = ratings.n_ratings, (ratings.n_users, ratings.n_items)
    design = np.zeros((n, n_users + n_items))
    design[np.arange(n), ratings.users] = design[np.arange(n), n_users + ratings.items] = 1
    penalty = np.diag(np.repeat([of_users, of_items], [n_users, n_items]))
    residuals = ratings.ratings - ratings.ratings.mean(dtype=np.float64)
    both = np.linalg.solve(design.T @ design + penalty, design.T @ residuals)
    return both[:n_users], both[n_users:]


def test_biases_minimise_the_formula_of_the_docstring() -> None:
    ratings = testing.power_law(60, 40, 700)

    model, sweeps = Bias(regularization=3.0, item_regularization=0.7).fit(ratings), BiasSweeps(ratings, 3.0, 0.7)
    for _ in range(100):
        sweeps.run()

    b_u, b_i = solved(ratings, 3.0, 0.7)
    np.testing.assert_allclose(sweeps.user_biases, b_u, atol=1e-6)
    np.testing.assert_allclose(sweeps.item_biases, b_i, atol=1e-6)
    np.testing.assert_allclose(model.user_biases, b_u, atol=1e-2)  # it stops where it is good enough
    np.testing.assert_allclose(model.item_biases, b_i, atol=1e-2)
    assert model.global_mean == pytest.approx(ratings.ratings.mean(), rel=1e-6)
    errors = ratings.ratings - model.predict(ratings.users, ratings.items)
    assert model.history[-1]["train_rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-5)


@pytest.mark.parametrize("deviations", [(0.5, 0.7, 1.0), (0.2, 1.0, 0.5), (1.0, 0.3, 1.0)])
def test_the_variances_that_were_planted_are_found(deviations: tuple[float, float, float]) -> None:
    of_users, of_items, noise = deviations

    terms = bias_terms(planted(deviations=deviations))

    assert terms.noise == pytest.approx(noise, rel=0.03)
    assert terms.strengths.user == pytest.approx((noise / of_users) ** 2, rel=0.25)
    assert terms.strengths.item == pytest.approx((noise / of_items) ** 2, rel=0.25)


def test_learned_strengths_predict_as_well_as_the_best() -> None:
    train, test = fastmf.split.random(planted(density=0.02), 0.2, seed=0)

    def rmse(**strengths: Any) -> float:
        return float(fastmf.evaluate(Bias(**strengths).fit(train), test, metrics=["rmse"])["rmse"])

    others = [rmse(regularization=a, item_regularization=b) for a in (0.5, 2, 4, 16) for b in (0.5, 2, 8)]
    assert rmse() < min(others) * 1.005


def test_what_was_learned_is_told_and_kept(tmp_path: Path) -> None:
    ratings = planted()
    model = Bias().fit(ratings)

    assert model.chosen.keys() == {"regularization", "item_regularization"}
    assert model.chosen["regularization"] == pytest.approx(4, rel=0.25)
    assert model.chosen == model.choose_parameters(ratings)
    model.save(tmp_path / "model")
    loaded = fastmf.load(tmp_path / "model")
    assert loaded.chosen == model.chosen
    assert loaded.predict([0], [0]).tolist() == model.predict([0], [0]).tolist()
    assert Bias(regularization=1.0, item_regularization=2.0).fit(ratings).chosen == {}
    assert Bias(regularization=1.0).fit(ratings).chosen.keys() == {"item_regularization"}


ODD: dict[str, tuple[list[int], list[int], list[float]]] = {
    "one rating": ([1], [1], [4]),
    "one user": ([1, 1, 1], [1, 2, 3], [4, 2, 3]),
    "one item": ([1, 2, 3], [1, 1, 1], [4, 2, 3]),
    "all equal": ([1, 1, 2], [1, 2, 2], [3, 3, 3]),
    "all 0": ([1, 1, 2], [1, 2, 2], [0, 0, 0]),
    "no pair shares anything": ([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]),
    "large": ([1, 1, 2, 2], [1, 2, 1, 2], [1e9, -1e9, 5e8, 1e9]),
    "small": ([1, 1, 2, 2], [1, 2, 1, 2], [1e-6, 2e-6, 3e-6, 1e-6]),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("strengths", [{}, {"regularization": 0, "item_regularization": 0}, {"regularization": 1e30}])
def test_odd_ratings_are_fitted_quietly(name: str, strengths: dict[str, float]) -> None:
    users, items, values = ODD[name]
    ratings = Interactions.from_arrays(users, items, values)

    model = Bias(**strengths).fit(ratings)

    predicted = model.predict(users, items)
    assert np.isfinite(predicted).all()
    spread = max(values) - min(values)
    assert np.abs(predicted - np.mean(values)).max() <= spread
    assert model.recommend(k=1, exclude=None).items.shape == (len(set(users)), 1)


def test_additive_ratings_are_reproduced() -> None:
    users, items = np.divmod(np.arange(20 * 15), 15)
    ratings = Interactions.from_arrays(users, items, 3 + 0.1 * users - 0.2 * items)

    predicted = Bias().fit(ratings).predict(users, items)

    np.testing.assert_allclose(predicted, ratings.ratings, atol=2e-2)


def test_users_and_items_without_ratings_have_no_bias_and_change_nothing() -> None:
    ratings = planted(60, 40)
    with_cold = testing.from_indices(ratings.users + 5, ratings.items + 3, ratings.ratings, 80, 50)

    model, expected = Bias().fit(with_cold), Bias().fit(ratings)

    np.testing.assert_allclose(model.user_biases[5:65], expected.user_biases, rtol=1e-6)
    np.testing.assert_allclose(model.item_biases[3:43], expected.item_biases, rtol=1e-6)
    assert not model.user_biases[:5].any()
    assert not model.item_biases[43:].any()
    assert model.chosen == pytest.approx(expected.chosen)


@pytest.mark.parametrize(("a", "b"), [(20, 0), (0.01, 0), (4, -13), (1e6, 0), (1, 500)])
def test_biases_do_not_depend_on_the_scale_of_ratings(a: float, b: float) -> None:
    ratings = planted()
    other = Interactions.from_arrays(ratings.users, ratings.items, np.float64(a) * ratings.ratings + b)

    plain, scaled = Bias().fit(ratings), Bias().fit(other)

    assert scaled.chosen == pytest.approx(plain.chosen, rel=1e-3)
    np.testing.assert_allclose(scaled.user_biases / a, plain.user_biases, atol=2e-3)


def test_chunks_of_rows_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    ratings = testing.from_indices(*np.nonzero(np.eye(9, 7) + np.eye(9, 7, 2)), np.arange(12) % 5, 12, 9)
    whole = Bias().fit(ratings)
    monkeypatch.setattr("fastmf.models.bias_terms._CHUNK", 3)

    parts = Bias().fit(ratings)

    np.testing.assert_allclose(parts.user_biases, whole.user_biases, rtol=1e-6)
    np.testing.assert_allclose(parts.item_biases, whole.item_biases, rtol=1e-6)


def test_sweeps_never_raise_the_penalised_error() -> None:
    ratings = planted(100, 80)
    sweeps, sums = BiasSweeps(ratings, 2.0, 3.0), []
    for _ in range(8):
        sweeps.run()
        penalty = 2.0 * float((sweeps.user_biases**2).sum()) + 3.0 * float((sweeps.item_biases**2).sum())
        sums.append(sweeps.error**2 * ratings.n_ratings + penalty)

    assert (np.diff(sums) <= 1e-9 * sums[0]).all()


def test_popularity_is_the_share_of_users() -> None:
    ratings = Interactions.from_arrays([1, 1, 2, 3, 4], ["x", "y", "x", "x", "z"], [5, 1, 2, 0, -1])

    model = Popularity().fit(ratings)

    assert model.predict([1, 1, 1, 9], ["x", "y", "z", "x"]).tolist() == [0.5, 0.25, 0, 0.5]
    assert model.recommend([2], k=2).to_arrow()["item_id"].to_pylist() == ["y", "z"]


TIMES: list[Any] = [
    pytest.param([0, 86400, 172800], id="integers are seconds"),
    pytest.param([date(2020, 1, 1), date(2020, 1, 2), date(2020, 1, 3)], id="dates"),
    pytest.param([datetime(2020, 1, day) for day in (1, 2, 3)], id="times"),
    pytest.param(np.array(["2020-01-01", "2020-01-02", "2020-01-03"], "datetime64[ms]"), id="milliseconds"),
    pytest.param(np.array(["2020-01-01", "2020-01-02", "2020-01-03"], "datetime64[ns]"), id="nanoseconds"),
]


@pytest.mark.parametrize("times", TIMES)
def test_a_choice_counts_half_after_a_half_life(times: Any) -> None:
    ratings = Interactions.from_arrays([1, 2, 3], ["x", "y", "z"], timestamps=times)

    model = Popularity(half_life=1).fit(ratings)

    np.testing.assert_allclose(model.item_biases, np.array([0.25, 0.5, 1]) / 3, rtol=1e-6)


def test_the_latest_choice_counts_whole_and_what_was_not_chosen_says_nothing() -> None:
    ratings = Interactions.from_arrays([1, 2, 3], ["x", "y", "z"], [1, 1, 0], [0, 86400, 10**9])

    np.testing.assert_allclose(Popularity(half_life=1).fit(ratings).item_biases, np.array([0.5, 1, 0]) / 3)


def test_old_choices_keep_their_order() -> None:
    days = np.array([0, 1, 100, 400, 1, 2, 5000])
    items = ["a", "b", "c", "d", "e", "e", "f"]
    ratings = Interactions.from_arrays(range(7), items, [1, 1, 1, 1, 1, 1, 0], days * 86400)
    model = Popularity(half_life=0.5).fit(ratings)

    assert "".join(model.recommend([3], k=6, exclude=None).to_arrow()["item_id"].to_pylist()) == "dcebaf"
    shares = dict(zip(model.item_ids.to_pylist(), model.item_biases.tolist(), strict=True))
    assert shares["d"] == pytest.approx(1 / 7)
    assert 0 == shares["f"] < shares["a"] < shares["b"] < shares["e"] < shares["c"] < 2**-100
    assert shares["a"] > 2**-101


def test_old_choices_of_the_same_age_are_alike() -> None:
    ratings = Interactions.from_arrays([1, 2, 3], ["x", "y", "z"], timestamps=np.array([0, 0, 10**9]))

    first, second, last = Popularity(half_life=1).fit(ratings).item_biases

    assert 0 < first == second < last


def test_a_half_life_needs_times() -> None:
    with pytest.raises(DataError, match="half_life needs the times of ratings, and these have none; name their column"):
        Popularity(half_life=3).fit(Interactions.from_arrays([1], [1]))
    with pytest.raises(DataError, match="none of 2 ratings is above 0"):
        Popularity().fit(Interactions.from_arrays([1, 2], [1, 2], [0, -1]))
    with pytest.raises(ParameterError, match="half_life is 0; expected a finite number above 0"):
        Popularity(half_life=0)


@pytest.mark.parametrize("model", [Bias(), Popularity()])
def test_what_has_no_factors_has_no_neighbours(model: Model) -> None:
    with pytest.raises(NotFittedError):
        model.similar_items([1])
    model.fit(Interactions.from_arrays([1, 2, 3], [1, 2, 3]))

    for ask in (model.similar_items, model.similar_users):
        with pytest.raises(ParameterError, match=rf"{type(model).__name__} has no factors, by which alone .* compared"):
            ask([1], k=1)


COMPARED: list[Any] = [ALS(), SGD(), SVDpp(), SGD(biases=False), SGD(rating_range=(0.5, 5)), ALS(solver="cg")]


def small(model: FactorModel) -> FactorModel:
    return type(model)(**{**model.get_params(), "n_factors": 4, "n_epochs": 3})


@pytest.mark.parametrize("model", COMPARED)
def test_the_baseline_of_a_model_of_ratings_is_bias(model: FactorModel, tmp_path: Path) -> None:
    train, test = fastmf.split.random(testing.power_law(150, 100, 4000), 0.2, seed=0)
    bias = model.baseline_model()
    assert type(bias) is Bias
    model = small(model).fit(train)

    asked: dict[str, Any] = {"k": 5, "metrics": ["rmse", "mae", "ndcg", "auc", "coverage"]}
    found = fastmf.evaluate(model, test, **asked, baseline=True)

    expected = fastmf.evaluate(bias.fit(train), test, **asked)
    for name in ("rmse", "mae", "ndcg@5", "auc", "coverage@5"):
        assert found[f"baseline_{name}"] == pytest.approx(expected[name], rel=1e-5), name
    plain = fastmf.evaluate(model, test, **asked)
    assert {name: value for name, value in found.items() if not name.startswith("baseline_")} == plain
    model.save(tmp_path / "model")
    assert fastmf.evaluate(fastmf.load(tmp_path / "model"), test, **asked, baseline=True) == found


@pytest.mark.parametrize("model", [ImplicitALS(), fastmf.BPR(), SGD(loss="logistic")])
def test_the_baseline_of_an_implicit_model_is_popularity(model: FactorModel) -> None:
    train, test = fastmf.split.random(testing.power_law(150, 100, 4000), 0.2, seed=0)
    popularity = model.baseline_model()
    assert type(popularity) is Popularity

    found = fastmf.evaluate(small(model).fit(train), test, k=5, baseline=True)

    expected = fastmf.evaluate(popularity.fit(train), test, k=5)
    for name in ("rmse", "ndcg@5", "recall@5"):
        assert found[f"baseline_{name}"] == pytest.approx(expected[name], rel=1e-6), name


@pytest.mark.parametrize("cold", ["skip", "popular", "include"])
def test_a_baseline_is_measured_as_the_model_is(cold: str) -> None:
    train, test = fastmf.split.random(testing.power_law(150, 100, 600, seed=2), 0.6, seed=0)
    asked: dict[str, Any] = {"k": (2, 5), "cold": cold, "min_relevant_rating": 3, "metrics": ["rmse", "recall"]}
    model = small(ALS()).fit(train)

    found = fastmf.evaluate(model, test, baseline=True, **asked)

    expected = fastmf.evaluate(Bias().fit(train), test, **asked)
    for name in ("rmse", "recall@2", "recall@5"):
        assert found[f"baseline_{name}"] == pytest.approx(expected[name], rel=1e-5)


@pytest.mark.parametrize("kind", [SGD, SVDpp])
def test_a_model_of_ratings_that_goes_on_has_no_baseline_of_all_its_ratings(kind: Any, tmp_path: Path) -> None:
    first, second = planted(60, 40), planted(80, 50, density=0.3)
    model = kind(n_factors=3, n_epochs=2).fit(first)
    assert "baseline_rmse" in fastmf.evaluate(model, second, metrics=["rmse"], baseline=True)

    model.partial_fit(second).save(tmp_path / "model")

    for each in (model, fastmf.load(tmp_path / "model"), model.partial_fit(first)):
        assert baseline_of(each) is None
        assert "baseline_rmse" not in fastmf.evaluate(each, second, metrics=["rmse"], baseline=True)


def clicks_and_others() -> Interactions:
    """Ratings of 1, 0 and -1: the more items are liked, the fewer have rated them."""
    rng = np.random.default_rng(0)
    users, items = np.nonzero(rng.random((300, 80)) < np.linspace(0.5, 0.1, 80))
    is_liked = rng.random(len(users)) < (items + 1) / 80
    return Interactions.from_arrays(users, items, np.where(is_liked, 1, -rng.integers(0, 2, len(users))))


@pytest.mark.parametrize("model", [ImplicitALS(), fastmf.BPR(), SGD(loss="logistic")])
def test_what_was_not_chosen_is_not_popular(model: FactorModel, tmp_path: Path) -> None:
    train, test = fastmf.split.random(clicks_and_others(), 0.2, seed=0)
    model = small(model).fit(train)
    model.save(tmp_path / "model")

    expected = fastmf.evaluate(Popularity().fit(train), test)

    for each in (model, fastmf.load(tmp_path / "model")):
        found = fastmf.evaluate(each, test, baseline=True)
        assert {name: found[f"baseline_{name}"] for name in ("rmse", "ndcg@10")} == {
            name: expected[name] for name in ("rmse", "ndcg@10")
        }


@pytest.mark.parametrize("model", [fastmf.BPR(), SGD(loss="logistic")])
def test_choices_of_a_fit_that_goes_on_are_popular_too(model: Any) -> None:
    train, test = fastmf.split.random(clicks_and_others(), 0.2, seed=0)
    first, second = (train.take(part) for part in np.array_split(np.arange(train.n_ratings), 2))

    found = fastmf.evaluate(small(model).fit(first).partial_fit(second), test, baseline=True)

    assert found["baseline_ndcg@10"] == fastmf.evaluate(Popularity().fit(train), test)["ndcg@10"]


@pytest.mark.parametrize("kind", [ALS, ImplicitALS])
def test_a_baseline_and_a_model_of_earlier_versions_have_none(kind: Any, tmp_path: Path) -> None:
    ratings = planted(60, 40)
    asked: dict[str, Any] = {"k": 3, "exclude": None, "metrics": ["rmse", "ndcg"], "baseline": True}
    for model in (Bias().fit(ratings), Popularity().fit(ratings)):
        assert baseline_of(model) is None
        assert not any(name.startswith("baseline_") for name in fastmf.evaluate(model, ratings, **asked))
    small(kind()).fit(ratings).save(tmp_path / "model")
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    for name in {"user_baseline", "item_baseline"} & set(manifest["state"]):
        del manifest["files"][f"{name}.npy"]
        manifest["state"].remove(name)
        (tmp_path / "model" / f"{name}.npy").unlink()
    (tmp_path / "model" / "manifest.json").write_text(json.dumps(manifest))

    assert baseline_of(fastmf.load(tmp_path / "model")) is None
