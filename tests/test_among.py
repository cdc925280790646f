"""Rankings of candidates only, as in evaluations with sampled items."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

import fastmf
from fastmf import Interactions, metrics
from fastmf.errors import DataError, ParameterError
from fastmf.models import FactorModel
from fastmf_bench.suites.quality import leave_one_out

ALL = tuple(metrics.METRICS)
N_USERS, N_ITEMS = 40, 30


def data() -> tuple[Interactions, Interactions]:
    return fastmf.split.random(fastmf.testing.power_law(N_USERS, N_ITEMS, 500, n_factors=3), 0.3, seed=0)


def candidates(n_candidates: int = 8, seed: int = 0) -> dict[int, list[int]]:
    rng = np.random.default_rng(seed)
    return {user: rng.permutation(N_ITEMS)[:n_candidates].tolist() for user in range(N_USERS)}


def pairs_of(rows: dict[int, list[int]]) -> tuple[list[int], list[int]]:
    return [user for user, items in rows.items() for _ in items], [item for items in rows.values() for item in items]


@pytest.fixture(scope="module", params=["ALS", "ImplicitALS", "BPR"])
def model(request: pytest.FixtureRequest) -> FactorModel:
    return getattr(fastmf, request.param)(n_factors=4, n_epochs=4).fit(data()[0])


@pytest.fixture(scope="module")
def als() -> FactorModel:
    return fastmf.ALS(n_factors=4, n_epochs=4).fit(data()[0])


def all_but(rows: dict[int, list[int]], test: Interactions) -> Interactions:
    """Return the pairs that are neither candidates nor in the test part."""
    kept = np.zeros((N_USERS, N_ITEMS), bool)
    kept[pairs_of(rows)] = True
    kept[test.users, test.items] = True
    return Interactions.from_arrays(*np.nonzero(~kept))


@pytest.mark.parametrize("cold", ["skip", "popular", "include"])
def test_to_rank_among_some_is_to_leave_out_all_others(model: FactorModel, cold: str) -> None:
    test, among = data()[1], candidates()

    results = fastmf.evaluate(model, test, among=among, k=(1, 4, 20), metrics=ALL, cold=cold)

    assert results.pop("n_unknown_candidates") == 0
    assert results == fastmf.evaluate(model, test, exclude=all_but(among, test), k=(1, 4, 20), metrics=ALL, cold=cold)
    assert results["ndcg@4"] != fastmf.evaluate(model, test, k=4, exclude=None, metrics=["ndcg"])["ndcg@4"]


FORMS: dict[str, Callable[[list[int], list[int]], Any]] = {
    "Interactions": lambda users, items: Interactions.from_arrays(users, items),
    "dict": lambda users, items: {
        user: iter([i for u, i in zip(users, items, strict=True) if u == user]) for user in users
    },
    "dict of arrays": lambda users, items: {user: np.array(items)[np.array(users) == user] for user in users},
    "Arrow": lambda users, items: pa.table({"item_id": items, "user_id": users}),
    "dataset": lambda users, items: ds.dataset(pa.table({"user_id": users, "item_id": items, "rank": users})),
    "each twice": lambda users, items: pa.table({"user_id": users * 2, "item_id": items * 2}),
    "with relevant ones": lambda users, items: pa.table(
        {
            "user_id": np.append(users, data()[1].users).astype(int),
            "item_id": np.append(items, data()[1].items).astype(int),
        }
    ),
    "with unknown ones": lambda users, items: pa.table({"user_id": [*users, 3, 99], "item_id": [*items, 99, 3]}),
}


@pytest.mark.parametrize("form", FORMS)
def test_candidates_come_in_many_forms(form: str, als: FactorModel) -> None:
    users, items = pairs_of(candidates())
    expected = fastmf.evaluate(als, data()[1], among=candidates(), k=4)

    found = fastmf.evaluate(als, data()[1], among=FORMS[form](users, items), k=4)

    assert found == expected | {"n_unknown_candidates": int(form == "with unknown ones")}


def one_item_a_user(ratings: Interactions) -> tuple[Interactions, Interactions]:
    """Leave out one item of each user."""
    last = np.zeros(len(ratings), bool)
    last[np.unique(ratings.users, return_index=True)[1]] = True
    return ratings.take(~last), ratings.take(last)


def test_one_relevant_item_among_sampled_ones_is_what_published_evaluations_measure(model: FactorModel) -> None:
    train, test = one_item_a_user(data()[0])
    model = type(model)(n_factors=4, n_epochs=4).fit(train)
    rng = np.random.default_rng(1)
    # Some are drawn twice, are in training, or are the test item itself.
    users, items = np.repeat(test.users, 12), rng.integers(N_ITEMS, size=12 * len(test))
    sampled = pa.table({"user_id": users, "item_id": items})

    for k in (1, 5):
        results = fastmf.evaluate(model, test, among=sampled, k=k, metrics=["hit_rate", "ndcg"])

        published = leave_one_out(model.predict, (test.users, test.items), (users, items), k)
        assert (results[f"hit_rate@{k}"], results[f"ndcg@{k}"]) == pytest.approx(published, rel=1e-6)


def test_candidates_are_ranked_as_given_also_those_in_training(als: FactorModel) -> None:
    train, test = data()
    seen = {user: train.items[train.users == user].tolist() for user in range(N_USERS)}

    results = fastmf.evaluate(als, test, among=seen, k=3, metrics=["ndcg", "auc"])

    assert results == fastmf.evaluate(als, test, among=seen, exclude=None, k=3, metrics=["ndcg", "auc"])
    assert 0 < results["auc"] < 1


def test_pairs_are_left_out_of_the_candidates(als: FactorModel) -> None:
    train, test = data()
    among = candidates(12)

    results = fastmf.evaluate(als, test, among=among, exclude=train, k=3, metrics=ALL)

    kept = {user: sorted({*items} - {*train.items[train.users == user].tolist()}) for user, items in among.items()}
    assert results == fastmf.evaluate(als, test, among=kept, k=3, metrics=ALL)
    missed = test.take(np.arange(20))
    assert fastmf.evaluate(als, missed, among=among, exclude=missed, k=9, metrics=["recall"])["recall@9"] == 0


def test_a_user_with_a_few_candidates_has_a_short_list(als: FactorModel) -> None:
    test = Interactions.from_arrays([4, 6], [1, 2])

    results = fastmf.evaluate(als, test, among={4: [5], 6: [7, 8]}, k=10, metrics=["precision", "recall", "coverage"])

    assert results["recall@10"] == 1
    assert results["precision@10"] == 0.1
    assert results["coverage@10"] == len({1, 5, 2, 7, 8}) / N_ITEMS


def test_equal_scores_among_candidates_are_in_random_order() -> None:
    model = fastmf.ImplicitALS(n_factors=2, n_epochs=1).fit(data()[0])
    model.item_factors[:] = 1
    test = Interactions.from_arrays([1, 2], [0, 5])

    results = fastmf.evaluate(
        model, test, among={1: [1, 2, 3, 4], 2: [1, 5]}, k=1, metrics=["hit_rate", "auc", "mean_percentile_rank"]
    )

    assert results["hit_rate@1"] == pytest.approx((1 / 5 + 1 / 2) / 2)
    assert results["auc"] == results["mean_percentile_rank"] == 0.5


def test_batches_do_not_show(als: FactorModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"among": candidates(), "k": 4, "metrics": ALL}
    whole = fastmf.evaluate(als, data()[1], **asked)

    monkeypatch.setattr("fastmf.measuring.rankings._BATCH", 7)
    monkeypatch.setattr("fastmf.measuring.rankings._LISTED", 30)

    assert fastmf.evaluate(als, data()[1], **asked) == pytest.approx(whole)


def test_cold_users_have_candidates_too(als: FactorModel) -> None:
    train, _ = data()
    given = Interactions.from_arrays([500, 500, 2], [3, 4, 5])
    among = {500: list(range(10)), 2: [6, 7]}

    skipped = fastmf.evaluate(als, given, among=among, k=2, metrics=["recall"])
    popular = fastmf.evaluate(als, given, among=among, k=2, metrics=["recall"], cold="popular", per_user=True)

    assert (skipped["n_users"], skipped["n_cold_users"]) == (1, 1)
    counts = np.bincount(train.items, minlength=N_ITEMS)[:10]
    assert popular["user_id"].to_pylist() == [2, 500]
    best = np.sort(counts)[::-1][:2]
    expected = sum(int(counts[item] in best) for item in (3, 4)) / 2
    assert popular["recall@2"].to_pylist()[1] == pytest.approx(expected)


def test_cold_candidates_are_ranked_only_where_cold_items_are() -> None:
    train, _ = data()
    warm = train.take(train.items != 7)
    model = fastmf.ALS(n_factors=4, n_epochs=3).fit(warm)
    model.item_factors[7] = 100 * model.user_factors[3]
    model.item_biases[8] = -1000
    test = Interactions.from_arrays([3], [2])

    found = {
        cold: fastmf.evaluate(model, test, among={3: [7, 8]}, k=2, metrics=["mrr"], cold=cold)
        for cold in ("skip", "include")
    }

    assert {cold: results["mrr@2"] for cold, results in found.items()} == {"skip": 1, "include": 0.5}
    assert {cold: results["n_unknown_candidates"] for cold, results in found.items()} == {"skip": 1, "include": 0}


def test_candidates_of_another_id_space_are_refused(als: FactorModel) -> None:
    test = Interactions.from_arrays([3, 3, 4], [1, 2, 3])

    for among in ({3: [900, 901], 4: [902]}, {3: [900, 1, 2], 4: [902]}):
        with pytest.raises(
            DataError, match=r"among has no candidate that the model knows, beside .* \([32] candidates"
        ):
            fastmf.evaluate(als, test, among=among, k=1, metrics=["hit_rate"])
    assert fastmf.evaluate(als, test, among={3: [900, 5], 4: [902]}, k=1, metrics=["auc"])["n_unknown_candidates"] == 2


def test_users_without_candidates_are_refused(als: FactorModel) -> None:
    test = data()[1]
    some = {user: items for user, items in candidates().items() if user >= 5}
    n_missing = len(set(test.users[test.users < 5].tolist()))

    with pytest.raises(
        DataError, match=rf"among has no candidates for {n_missing} users of the test part: 0, 1, 2, \.\.\."
    ):
        fastmf.evaluate(als, test, among=some, metrics=["ndcg"])
    assert fastmf.evaluate(als, test.take(test.users >= 5), among=some, k=3, metrics=["ndcg"])["ndcg@3"] > 0


@pytest.mark.parametrize(
    ("among", "error", "message"),
    [
        (
            [1, 2],
            ParameterError,
            "among is of type list; expected Interactions, a table with the columns user_id and item_id",
        ),
        ("seen", ParameterError, "among is of type str; expected Interactions"),
        ({1: "abc"}, ParameterError, "among[1] is 'abc'; expected a list of item ids"),
        ({1: 5}, ParameterError, "among[1] is 5; expected a list of item ids"),
        ({}, DataError, "among has no candidates; expected item ids for each user"),
        ({1: []}, DataError, "among has no candidates; expected item ids for each user"),
        ({"ann": [1]}, DataError, "among has user ids of type string, and the model has those of type int64"),
        ({1: ["x"]}, DataError, "among has item ids of type string, and the model has those of type int64"),
        (
            {None: [1]},
            DataError,
            "among, its keys as 'users' and their lists as 'items': column 'users' has 1 null value",
        ),
        (pa.table({"user_id": [None], "item_id": [1]}), DataError, "among: column 'user_id'"),
        (pa.table({"user": [1], "item_id": [1]}), DataError, "no column 'user_id'; the columns are 'user', 'item_id'"),
    ],
)
def test_what_are_no_candidates_is_refused(among: Any, error: type[Exception], message: str, als: FactorModel) -> None:
    with pytest.raises(error) as raised:
        fastmf.evaluate(als, data()[1], among=among)

    assert message in str(raised.value)
