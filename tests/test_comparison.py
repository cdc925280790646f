"""`fastmf.compare`: two models on the same users, and whether their difference could be chance."""

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastmf
from fastmf import Interactions, metrics
from fastmf.errors import DataError, ParameterError, QualityWarning
from fastmf.measuring.bootstrap import N_RESAMPLES
from fastmf.measuring.randomisation import N_EXCHANGES, p_value
from fastmf.measuring.user_values import UserValues
from fastmf.models import FactorModel

OF_USERS = tuple(name for name, metric in metrics.METRICS.items() if metric.has_users)
N_USERS, N_ITEMS = 60, 40


def data() -> tuple[Interactions, Interactions]:
    return fastmf.split.random(fastmf.testing.low_rank(N_USERS, N_ITEMS, density=0.4, seed=3), 0.3, seed=0)


@pytest.fixture(scope="module")
def good() -> FactorModel:
    return fastmf.ALS(n_factors=4, n_epochs=8).fit(data()[0])


@pytest.fixture(scope="module")
def bad() -> FactorModel:
    return fastmf.ALS(n_factors=1, n_epochs=1, seed=1).fit(data()[0])


@pytest.fixture(scope="module")
def implicit() -> FactorModel:
    return fastmf.ImplicitALS(n_factors=4, n_epochs=4).fit(data()[0])


def test_each_side_is_what_evaluate_measures(good: FactorModel, bad: FactorModel) -> None:
    test = data()[1]

    found = fastmf.compare(bad, good, test, k=(1, 5), metrics=OF_USERS)

    a, b = (fastmf.evaluate(model, test, k=(1, 5), metrics=OF_USERS) for model in (bad, good))
    assert list(found) == [name for name in a if not name.startswith("n_")]
    for name, each in found.items():
        if each.n_users:
            assert (each.a, each.b) == pytest.approx((a[name], b[name]), rel=1e-12), name
            assert each.difference == pytest.approx(b[name] - a[name])
            assert each.n_won + each.n_tied + each.n_lost == each.n_users
        else:
            assert a[name] is b[name] is each.difference is each.p_value is None


def test_a_better_model_wins(good: FactorModel, bad: FactorModel) -> None:
    found = fastmf.compare(bad, good, data()[1], k=5, metrics=["rmse", "fcp"])

    assert found["rmse"].low < found["rmse"].difference < found["rmse"].high < 0
    assert found["fcp"].high > found["fcp"].difference > found["fcp"].low > 0
    for each in found.values():
        assert each.p_value == pytest.approx(1 / (N_EXCHANGES + 1))
        assert each.n_won > each.n_lost


def test_the_other_way_round_signs_change(good: FactorModel, bad: FactorModel) -> None:
    there = fastmf.compare(bad, good, data()[1], metrics=OF_USERS)
    back = fastmf.compare(good, bad, data()[1], metrics=OF_USERS)

    for name, each in there.items():
        other = back[name]
        assert (other.a, other.b, other.p_value) == (each.b, each.a, each.p_value)
        assert (other.n_won, other.n_tied, other.n_lost) == (each.n_lost, each.n_tied, each.n_won)
        assert other.low == pytest.approx(-each.high)
        assert other.difference == -each.difference


def test_a_model_is_as_good_as_itself(good: FactorModel) -> None:
    for each in fastmf.compare(good, good, data()[1]).values():
        assert (each.difference, each.low, each.high, each.p_value) == (0, 0, 0, 1)
        assert each.n_tied == each.n_users


@pytest.mark.parametrize("name", ["rmse", "fcp", "mrr"])
def test_intervals_are_those_of_paired_samples(name: str, good: FactorModel, bad: FactorModel) -> None:
    test, key = data()[1], "mrr@10" if name == "mrr" else name
    half = fastmf.ALS(n_factors=3, n_epochs=8, seed=4).fit(data()[0])
    tables = [fastmf.evaluate(model, test, metrics=[name], per_user=True) for model in (half, good)]
    weights = {"rmse": "n_ratings", "fcp": "n_pairs", "mrr": None}[name]
    is_defined = tables[0][key].is_valid()
    columns = [table.filter(is_defined)[key].to_numpy() for table in tables]
    weight = np.ones(len(columns[0])) if weights is None else tables[0].filter(is_defined)[weights].to_numpy()
    generator, differences = np.random.default_rng(5), []
    for _ in range(N_RESAMPLES):
        drawn = generator.integers(len(weight), size=len(weight))
        power = 2 if name == "rmse" else 1
        a, b = (np.average(each[drawn] ** power, weights=weight[drawn]) ** (1 / power) for each in columns)
        differences.append(b - a)

    found = fastmf.compare(half, good, test, metrics=[name], ci=0.9, seed=5)[key]

    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(differences, [0.05, 0.95])), rel=1e-9)


@pytest.mark.parametrize("is_root", [False, True])
@pytest.mark.parametrize("n_users", [2, 5, 9])
def test_p_of_a_few_users_counts_all_exchanges(n_users: int, is_root: bool) -> None:
    rng = np.random.default_rng(n_users)
    weights = rng.integers(1, 4, size=n_users).astype(float)
    a, b = (UserValues(rng.random(n_users), weights, is_root) for _ in range(2))
    differences = []
    for exchanged in itertools.product([False, True], repeat=n_users):
        x, y = np.where(exchanged, b.sums, a.sums), np.where(exchanged, a.sums, b.sums)
        of_x, of_y = (UserValues(sums, weights, is_root).total for sums in (x, y))
        differences.append(abs(of_y - of_x))

    found = p_value(a, b, seed=0)

    assert found == np.mean(np.array(differences) >= differences[0] - 1e-12)
    assert found >= 2.0 ** (1 - n_users)


@pytest.mark.parametrize("n_users", [5, 20, 50])
def test_p_of_models_that_are_alike_is_rarely_small(n_users: int) -> None:
    rng, n_runs = np.random.default_rng(0), 200
    zeros = UserValues.of(np.zeros(n_users))

    values = [p_value(zeros, UserValues.of(rng.normal(size=n_users)), seed=run) for run in range(n_runs)]

    # 0.05, and twice the standard deviation of a share of so many.
    assert np.mean(np.array(values) < 0.05) < 0.05 + 2 * (0.05 * 0.95 / n_runs) ** 0.5
    assert np.mean(np.array(values) < 0.5) > 0.4


def test_users_for_whom_the_models_are_equal_do_not_change_p() -> None:
    a, b = (np.array(values) for values in ([0.1, 0.2, 0.4], [0.2, 0.1, 0.9]))
    equal = np.full(30, 0.5)

    some = p_value(UserValues.of(a), UserValues.of(b), seed=0)
    more = p_value(UserValues.of(np.append(equal, a)), UserValues.of(np.append(equal, b)), seed=0)

    assert some == more == 0.75


def test_one_user_proves_nothing(good: FactorModel, bad: FactorModel) -> None:
    test = data()[1]
    of_one = test.take(test.users == 3)

    found = fastmf.compare(bad, good, of_one, metrics=["rmse", "ndcg"])
    results = fastmf.evaluate(good, of_one, metrics=["rmse"], ci=0.95)

    for each in found.values():
        assert (each.low, each.high, each.p_value, each.n_users) == (None, None, 1, 1)
    assert found["rmse"].difference != 0
    assert results["rmse"] > 0
    assert results["rmse_low"] is results["rmse_high"] is None


def test_users_whom_one_of_the_models_cannot_rank_are_left_out(good: FactorModel) -> None:
    train, test = data()
    some = fastmf.ALS(n_factors=4, n_epochs=2).fit(train.take(train.users >= 10))

    for cold in ("skip", "popular"):
        found = fastmf.compare(some, good, test, k=3, metrics=["ndcg", "rmse"], cold=cold)

        n_users = len(set(test.users[test.users >= (10 if cold == "skip" else 0)].tolist()))
        assert found["ndcg@3"].n_users == n_users
        assert found["rmse"].n_users == len(set(test.users.tolist()))
    known = test.take(test.users >= 10)
    assert found["rmse"].a == pytest.approx(fastmf.evaluate(some, test, metrics=["rmse"])["rmse"])
    for model, side in ((some, "a"), (good, "b")):
        alone = fastmf.evaluate(model, known, k=3, metrics=["ndcg"], exclude=train)["ndcg@3"]
        both = fastmf.compare(some, good, test, k=3, metrics=["ndcg"])["ndcg@3"]
        assert getattr(both, side) == pytest.approx(alone)


def test_what_either_has_seen_is_excluded_for_both(good: FactorModel) -> None:
    train, test = data()
    half = np.arange(len(train)) % 2 == 0
    odd = fastmf.ALS(n_factors=4, n_epochs=3).fit(train.take(~half))
    even = fastmf.ALS(n_factors=4, n_epochs=3).fit(Interactions.from_arrow(train.take(half).to_arrow()))

    found = fastmf.compare(odd, even, test, metrics=["recall"])

    assert found == fastmf.compare(odd, even, test, metrics=["recall"], exclude=train)
    assert found != fastmf.compare(odd, even, test, metrics=["recall"], exclude=None)


def test_to_test_on_what_one_model_was_trained_on_is_said(good: FactorModel) -> None:
    test = data()[1]
    leaky = fastmf.ALS(n_factors=4, n_epochs=3).fit(test)
    n_relevant = int(np.sum(test.ratings >= 4))
    asked: dict[str, Any] = {"metrics": ["ndcg"], "min_relevant_rating": 4}

    with pytest.warns(QualityWarning, match=rf"{n_relevant} of {n_relevant} relevant test ratings are among the exclu"):
        found = fastmf.compare(leaky, good, test, **asked)
    some = fastmf.compare(good, good, test, exclude=test.take(np.arange(7)), metrics=["ndcg", "rmse"])
    none = fastmf.compare(good, good, test, metrics=["ndcg"])

    assert found["ndcg@10"].n_excluded == len(test)
    assert some["ndcg@10"].n_excluded == 7
    assert none["ndcg@10"].n_excluded == 0
    fastmf.compare(leaky, good, test, metrics=["rmse"])  # nothing is ranked


def test_ids_of_strings_with_other_training_parts() -> None:
    ratings = fastmf.testing.film_club(n_users=30, n_items=20, mean_ratings=12)
    train, test = fastmf.split.per_user(ratings, 0.3)
    a, b = (fastmf.ALS(n_factors=2, n_epochs=2).fit(train.take(np.arange(len(train)) % 3 != n)) for n in (0, 1))

    assert fastmf.compare(a, b, test, metrics=["ndcg"]) == fastmf.compare(a, b, test, metrics=["ndcg"], exclude=train)


def test_candidates_are_the_same_for_both(good: FactorModel, bad: FactorModel) -> None:
    test = data()[1]
    among = {user: [1, 2, 3, 4] for user in range(N_USERS)}

    found = fastmf.compare(bad, good, test, among=among, k=2, metrics=["hit_rate"])["hit_rate@2"]

    assert found.b == pytest.approx(fastmf.evaluate(good, test, among=among, k=2, metrics=["hit_rate"])["hit_rate@2"])


def test_models_of_ratings_and_of_preferences_are_compared_by_rankings(
    good: FactorModel, implicit: FactorModel
) -> None:
    train, test = data()
    low = Interactions.from_arrays(
        train.user_ids.take(pa.array(test.users)), train.item_ids.take(pa.array(test.items)), test.ratings - 3
    )

    found = fastmf.compare(good, implicit, low)

    assert set(found) == {f"{name}@10" for name in ("precision", "recall", "hit_rate", "ndcg", "map", "mrr")}
    above = low.take(low.ratings > 0)
    assert found["recall@10"].a == pytest.approx(fastmf.evaluate(good, above)["recall@10"])
    assert found["recall@10"].b == pytest.approx(fastmf.evaluate(implicit, low)["recall@10"])
    with pytest.raises(ParameterError, match="metrics include rmse, but one model predicts ratings and the other pref"):
        fastmf.compare(good, implicit, low, metrics=["rmse", "ndcg"])


def test_what_cannot_be_compared_is_refused(good: FactorModel) -> None:
    test = data()[1]
    strings = fastmf.ALS(n_factors=2, n_epochs=1).fit(Interactions.from_arrays(["a", "b"], ["x", "y"], [1, 2]))
    strangers = fastmf.ALS(n_factors=2, n_epochs=1).fit(Interactions.from_arrays([100, 101], [0, 1], [1, 2]))
    cases: list[tuple[tuple[Any, Any], dict[str, Any], type[Exception], str]] = [
        ((good, None), {}, ParameterError, "model_b is of type NoneType; expected a model of fastmf"),
        (("model", good), {}, ParameterError, "model_a is of type str; expected a model of fastmf"),
        ((good, good), {"metrics": ["coverage"]}, ParameterError, "metrics include coverage, without a value for each"),
        ((good, good), {"ci": 2}, ParameterError, "ci is 2; expected a number below 1"),
        ((good, good), {"k": 41}, ParameterError, "k is 41, but the catalogue of model_a has 40 items"),
        ((good, strangers), {}, ParameterError, "k is 10, but the catalogue of model_b has 2 items"),
        ((good, strings), {}, DataError, "ids of one model are integers, and those of the other strings"),
        ((good, strangers), {"k": 1, "metrics": ["ndcg"]}, DataError, "item is known to model_b and has"),
        ((strangers, good), {"k": 1, "metrics": ["ndcg"]}, DataError, "item is known to model_a and has"),
    ]
    for models, asked, error, message in cases:
        with pytest.raises(error) as raised:
            fastmf.compare(*models, test, **asked)
        assert message in str(raised.value)


def test_models_that_know_different_users_have_nobody_in_common() -> None:
    ratings = data()[0]
    some, others = (
        fastmf.ALS(n_factors=2, n_epochs=1).fit(ratings.take(chosen))
        for chosen in (ratings.users < 30, ratings.users >= 30)
    )

    with pytest.raises(DataError, match="no user of the test part can be ranked by both models; expected users whom"):
        fastmf.compare(some, others, data()[1], metrics=["ndcg"])
