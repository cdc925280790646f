"""`fastmf.Recommender` answers as the model itself does, with filters as a loop over all items would apply them."""

import copy
import itertools
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastmf
from fastmf import Interactions, Recommender
from fastmf.errors import DataError, ModelError, NotFittedError, ParameterError
from fastmf.models import FactorModel
from tests.serving.conftest import N_ITEMS, N_USERS

EVEN = np.arange(N_ITEMS) % 2 == 0
FEW = [7, 11, 20, 33, 50, 51, 88]
FILTERS = {"even": EVEN, "few": FEW, "large": list(range(100, 800)), "none": []}
PAIRS = Interactions.from_arrays([5, 5, 9, 1234, 7], [20, 30, 40, 50, 99_999])
LISTS = {None: None, "list": [*range(0, 900, 3), 77_777], "dict": {5: FEW, 9: range(400), 1: [3]}, "pairs": PAIRS}


@pytest.fixture
def recommender(model: FactorModel) -> Recommender:
    return Recommender(model, filters=FILTERS)


def same(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(found.items, expected.items)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert found.user_ids.equals(expected.user_ids)
    assert found.n_cold_users == expected.n_cold_users


@pytest.mark.parametrize("cold", ["popular", "skip", "include"])
@pytest.mark.parametrize("asked", [[5], [9, 0, 5, 5], range(N_USERS)], ids=["one", "few", "all"])
def test_answers_are_those_of_the_model(asked: Any, cold: str, model: FactorModel, recommender: Recommender) -> None:
    for exclude, allow, deny in itertools.product(("seen", None, PAIRS), LISTS, LISTS):
        request = {"exclude": exclude, "allow": LISTS[allow], "deny": LISTS[deny], "cold": cold}
        same(recommender.recommend(asked, 8, **request), model.recommend(asked, 8, **request))


BROUGHT = Interactions.from_arrays(
    [7000, 7000, 7001, 7001, 7002, 17, 17], [20, 31, 40, 99_999, 99_998, 33, 50], [5, 1, 3, 2, 4, 5, 4]
)


@pytest.mark.parametrize("cold", ["popular", "skip"])
def test_answers_to_newcomers_are_those_of_the_model(cold: str, model: FactorModel, recommender: Recommender) -> None:
    """Two newcomers, one of whom nothing is known that the model can use, and a user of the model."""
    for exclude, allow, deny in itertools.product(("seen", None, PAIRS), LISTS, LISTS):
        request = {"exclude": exclude, "allow": LISTS[allow], "deny": LISTS[deny], "cold": cold}
        found, expected = recommender.recommend_for(BROUGHT, 8, **request), model.recommend_for(BROUGHT, 8, **request)
        same(found, expected)
        np.testing.assert_array_equal(found.by_popularity, expected.by_popularity)
        assert found.users.tolist() == expected.users.tolist() == [17, -1, -1, -1]
        assert found.unknown_items.to_pylist() == [99_998, 99_999]
        assert found.n_unknown_ratings == 2


def test_newcomers_choose_among_filtered_items(model: FactorModel, recommender: Recommender) -> None:
    found = recommender.recommend_for(BROUGHT, 5, filters=["large", "not even"], deny=[301])

    allowed = [item for item in range(100, 800) if item % 2 == 1 and item != 301]
    same(found, model.recommend_for(BROUGHT, 5, allow=allowed, cold="popular"))
    with pytest.raises(ParameterError, match="cold is 'include'"):
        recommender.recommend_for(BROUGHT, 5, cold="include")


@pytest.mark.parametrize(
    "make", [fastmf.SGD, fastmf.SVDpp, fastmf.BPR, fastmf.Bias, fastmf.Popularity], ids=lambda make: make.__name__
)
def test_answers_are_those_of_every_class(make: Any, ratings: Interactions) -> None:
    model = make(n_factors=3, n_epochs=1).fit(ratings) if hasattr(make, "n_factors") else make().fit(ratings)

    same(Recommender(model).recommend(range(N_USERS)), model.recommend(cold="popular"))
    assert Recommender(model).predict([5, 7, -1], [9, 9, 9]).tolist() == model.predict([5, 7, -1], [9, 9, 9]).tolist()


def test_reference_kernels_serve_too(model: FactorModel, ratings: Interactions) -> None:
    slow = fastmf.ALS(n_factors=6, n_epochs=2, backend="reference")
    slow.restore(model.fitted, [])

    found = Recommender(slow, filters=FILTERS).recommend(range(N_USERS), 5, filters="large", deny=FEW)
    expected = Recommender(model, filters=FILTERS).recommend(range(N_USERS), 5, filters="large", deny=FEW)
    np.testing.assert_array_equal(found.items, expected.items)


FILTERED = {
    "even": lambda item: item % 2 == 0,
    "few": lambda item: item in FEW,
    "large": lambda item: 100 <= item < 800,
    "none": lambda item: False,
}


@pytest.mark.parametrize("asked", [[5], [5, 0, 77, 9], list(range(N_USERS + 2))], ids=["one", "few", "all"])
@pytest.mark.parametrize(
    "names",
    ["even", "not even", ["even", "large"], ["few", "not even"], ["not few", "not large"], ["none"], ["not none"]],
)
def test_filters_keep_what_passes_each(names: Any, asked: list[int], model: FactorModel) -> None:
    recommender = Recommender(model, filters=FILTERS)
    wanted = [names] if isinstance(names, str) else names
    passing = [
        item
        for item in range(N_ITEMS)
        if all(FILTERED[name.removeprefix("not ")](item) != name.startswith("not ") for name in wanted)
    ]
    for cold, (allow, deny) in itertools.product(
        ("popular", "include"), ((None, None), ([*FEW, 300], None), (None, FEW))
    ):
        among = [item for item in passing if allow is None or item in allow]
        found = recommender.recommend(asked, 6, filters=names, allow=allow, deny=deny, cold=cold)
        known = [user for user in asked if user < N_USERS]
        expected = model.recommend(known, 6, allow=among, deny=deny, cold=cold)
        np.testing.assert_array_equal(found.items[np.array(asked) < N_USERS], expected.items)
        np.testing.assert_array_equal(found.scores[np.array(asked) < N_USERS], expected.scores)


def test_the_order_of_filters_and_a_repetition_do_not_matter(recommender: Recommender) -> None:
    one = recommender.recommend([5], 4, filters=["even", "large"])

    same(recommender.recommend([5], 4, filters=("large", "even", "large")), one)
    same(recommender.recommend([5], 4, filters=iter(["even", "large"])), one)


def test_contrary_filters_leave_nothing(recommender: Recommender) -> None:
    assert recommender.recommend([5, 1000], 4, filters=["even", "not even"]).to_arrow().num_rows == 0


def test_strangers_get_popular_items(model: FactorModel, ratings: Interactions) -> None:
    found = Recommender(model).recommend([5, -7, 0, 12345], 5)

    assert found.users.tolist() == [5, -1, 0, -1]
    assert found.user_ids.to_pylist() == [5, -7, 0, 12345]
    assert found.by_popularity is not None
    assert found.by_popularity.tolist() == [False, True, True, True]
    assert found.n_cold_users == 3
    counts = np.bincount(ratings.items, minlength=N_ITEMS)
    assert found.items[1].tolist() == np.argsort(-counts, kind="stable")[:5].tolist()
    np.testing.assert_allclose(found.scores[3], counts[found.items[3]] / len(np.unique(ratings.users)), rtol=1e-6)
    assert found.to_arrow()["user_id"].to_pylist() == np.repeat([5, -7, 0, 12345], 5).tolist()


def test_lists_for_strangers_are_kept_to(model: FactorModel, ratings: Interactions) -> None:
    recommender = Recommender(model)

    found = recommender.recommend([777], 900, exclude=Interactions.from_arrays([777, 5], [20, 30]), deny={777: [40]})
    assert set(ratings.items.tolist()) - set(found.items[0].tolist()) == {20, 40}
    allowed = recommender.recommend([777, 778], 5, allow={777: FEW})
    assert set(allowed.items[0].tolist()) <= set(FEW)
    assert allowed.items[1].tolist() == [-1] * 5


@pytest.mark.parametrize("cold", ["popular", "skip", "include"])
def test_what_cold_says_about_strangers(cold: str, recommender: Recommender) -> None:
    found = recommender.recommend([555, 0], 3, cold=cold)

    assert found.by_popularity is not None
    assert found.by_popularity.tolist() == [cold != "skip", cold == "popular"]
    assert (found.items[0] >= 0).all() == (cold != "skip")


@pytest.mark.parametrize("as_ids", [str, int])
def test_one_id_stands_for_a_list_of_one(as_ids: Any) -> None:
    ratings = Interactions.from_arrays([as_ids(1), as_ids(2), as_ids(2)], [as_ids(7), as_ids(8), as_ids(7)])
    recommender = Recommender(fastmf.Popularity().fit(ratings), filters={"seven": [as_ids(7)]})

    for stranger, known in ((as_ids(3), as_ids(1)), (as_ids(1000), as_ids(2))):
        same(recommender.recommend(stranger, 1), recommender.recommend([stranger], 1))
        same(recommender.recommend(known, 1), recommender.recommend([known], 1))
    assert recommender.recommend(as_ids(9), 2, filters="not seven").to_arrow()["item_id"].to_pylist() == [as_ids(8)]


@pytest.mark.parametrize("asked", [[], np.array([], np.int64), pa.array([], pa.int64())])
def test_nobody_gets_nothing(asked: Any, recommender: Recommender) -> None:
    found = recommender.recommend(asked, 3)

    assert found.items.shape == (0, 3)
    assert found.to_arrow().num_rows == 0


FORMS = {
    "set": lambda: set(FEW),
    "array": lambda: np.array(FEW),
    "Arrow": lambda: pa.array(FEW),
    "iterator": lambda: iter(FEW),
    "keys": lambda: dict.fromkeys(FEW).keys(),
    "mask": lambda: np.isin(np.arange(N_ITEMS), FEW),
    "list of truths": lambda: np.isin(np.arange(N_ITEMS), FEW).tolist(),
    "Arrow mask": lambda: pa.array(np.isin(np.arange(N_ITEMS), FEW)),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_filters(form: str, model: FactorModel) -> None:
    recommender = Recommender(model, filters={"some": FORMS[form]()})

    same(recommender.recommend([5, 9], 3, filters="some"), model.recommend([5, 9], 3, allow=FEW))


def test_forms_of_users(model: FactorModel) -> None:
    recommender, expected = Recommender(model), model.recommend([5, 9], 3)
    for users in (np.array([5, 9]), pa.array([5, 9]), iter([5, 9]), np.array([5, 9], np.uint64), range(5, 10, 4)):
        same(recommender.recommend(users, 3), expected)


ERRORS = {
    "unknown filter": ({"filters": "in stock"}, "'in stock'; expected names of filters; there are 'even', 'few'"),
    "unknown negation": ({"filters": ["not in stock"]}, "'not in stock'"),
    "no name": ({"filters": [3]}, "has 3"),
    "filters of a wrong kind": ({"filters": 3}, "is 3; expected names of filters"),
    "large k": ({"k": N_ITEMS + 1}, "k is 901, but the catalogue has 900 items"),
    "no k": ({"k": 0}, "k is 0; expected an integer of at least 1"),
    "cold": ({"cold": "warm"}, "cold is 'warm'"),
    "exclude": ({"exclude": [1]}, 'expected "seen", Interactions, or None'),
    "allow": ({"allow": "rum"}, "allow is 'rum'; expected a list of item ids"),
    "allow of a user": ({"allow": {5: "rum"}}, r"allow\[5\] is 'rum'; expected a list"),
    "deny": ({"deny": 3}, "deny is 3"),
    "ids of items": ({"deny": ["rum"]}, "ids of type string"),
    "ids of users": ({"users": ["ann"]}, "ids of type large_string, the model's are int64"),
    "ids of a dict": ({"allow": {"ann": [3]}}, "ids of type string"),
    "null": ({"users": [None]}, "null"),
    "no users": ({"users": None}, "users is None; expected ids: for all users"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_what_is_wrong(case: str, recommender: Recommender) -> None:
    request, message = ERRORS[case]

    with pytest.raises((ParameterError, DataError), match=message):
        recommender.recommend(**{"users": [5], **request})
    assert recommender.stats()["errors"] == 1
    assert recommender.stats()["requests"] == 0


WRONG_FILTERS = {
    "short mask": ({"some": np.ones(3, np.bool_)}, r"mask of shape \(3,\); expected \(900,\)"),
    "name": ({"": FEW}, "the name of a filter is ''"),
    "negation": ({"not some": FEW}, "does not start with 'not '"),
    "number": ({"some": 3}, "filter 'some' is 3; expected a boolean mask"),
    "text": ({"some": "rum"}, "filter 'some' is 'rum'"),
    "type": ({"some": ["rum"]}, "filter 'some'.*ids of type string"),
    "nulls": ({"some": pa.array([True, None])}, "1 nulls"),
    "no dict": ([FEW], "filters are a list; expected a dict"),
}


@pytest.mark.parametrize("case", WRONG_FILTERS)
def test_wrong_filters_are_refused_and_the_old_ones_stay(case: str, model: FactorModel) -> None:
    filters, message = WRONG_FILTERS[case]

    with pytest.raises((ParameterError, DataError), match=message):
        Recommender(model, filters=filters)
    recommender = Recommender(model, filters={"some": FEW})
    if isinstance(filters, dict):
        ((name, items),) = filters.items()
        with pytest.raises((ParameterError, DataError), match=message):
            recommender.set_filter(name, items)
    assert recommender.filters == ["some"]
    assert set(recommender.recommend([5], 3, filters="some").items[0].tolist()) <= set(FEW)


def test_wrong_models_are_refused(model: FactorModel, tmp_path: Path) -> None:
    for given, error, message in (
        (3, ParameterError, "the model is a int; expected a fitted model, or the path"),
        (fastmf.ALS(), NotFittedError, "not fitted"),
        (tmp_path / "nothing", ModelError, "nothing"),
    ):
        with pytest.raises(error, match=message):
            Recommender(given)
        recommender = Recommender(model)
        with pytest.raises(error, match=message):
            recommender.swap(given)
        assert recommender.stats()["failed_swaps"] == 1
        same(recommender.recommend([5], 3), model.recommend([5], 3))
    with pytest.raises(ParameterError, match="n_threads is 0"):
        Recommender(model, n_threads=0)
    with pytest.raises(ParameterError, match="n_combinations is 0"):
        Recommender(model, n_combinations=0)
    with pytest.raises(ParameterError, match="verify is True of a model in memory"):
        Recommender(model).swap(model, verify=True)


def test_filters_are_replaced_and_removed(model: FactorModel) -> None:
    recommender = Recommender(model, filters={"some": FEW, "even": EVEN})
    before = recommender.recommend([5], 3, filters=["some", "even"])

    recommender.set_filter("some", [100, 101, 102])
    after = recommender.recommend([5], 3, filters=["some", "even"])
    assert set(before.items[0].tolist()) <= {20, 50, 88}
    assert set(after.items[0].tolist()) == {-1, 100, 102}
    recommender.remove_filter("some")
    assert recommender.filters == ["even"]
    with pytest.raises(ParameterError, match="there are 'even'"):
        recommender.recommend([5], 3, filters="some")
    with pytest.raises(ParameterError, match="there is no filter 'some'; expected one of those there are: 'even'"):
        recommender.remove_filter("some")


def test_a_swap_keeps_filters_by_their_ids(model: FactorModel, tmp_path: Path) -> None:
    """The new model has other items at the same places: a mask that was kept as one would be wrong."""
    mask = np.isin(np.arange(N_ITEMS), FEW)
    recommender = Recommender(model, filters={"mask": mask, "ids": [*FEW, 5000]})
    recommender.recommend([5], 3, filters="mask")
    fewer = Interactions.from_arrays([1, 1, 2, 2, 3], [11, 50, 88, 5000, 4])
    popular = fastmf.Popularity().fit(fewer)
    popular.save(tmp_path / "model")

    recommender.swap(tmp_path / "model", verify=True)

    assert isinstance(recommender.model, fastmf.Popularity)
    for name, expected in (("mask", {11, 50, 88}), ("ids", {11, 50, 88, 5000}), ("not ids", {4})):
        found = recommender.recommend([999], 5, filters=name).to_arrow()["item_id"].to_pylist()
        assert set(found) == expected
    assert recommender.stats()["swaps"] == 1


def test_a_swap_to_ids_of_another_type_is_refused(model: FactorModel) -> None:
    recommender = Recommender(model, filters={"some": FEW})
    named = fastmf.Popularity().fit(Interactions.from_arrays(["ann"], ["rum"]))

    with pytest.raises(DataError, match="filter 'some'"):
        recommender.swap(named)
    same(recommender.recommend([5], 3), model.recommend([5], 3))
    recommender.remove_filter("some")
    recommender.swap(named)
    assert recommender.recommend("bob", 1).to_arrow()["item_id"].to_pylist() == ["rum"]


def test_the_old_model_answers_after_its_directory_is_gone(model: FactorModel, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    recommender = Recommender(tmp_path / "model")
    for path in (tmp_path / "model").iterdir():
        path.unlink()
    (tmp_path / "model").rmdir()

    with pytest.raises(ModelError):
        recommender.swap(tmp_path / "model")
    same(recommender.recommend(range(N_USERS), 5), model.recommend(k=5, cold="popular"))


def test_later_fits_of_the_model_have_no_effect(ratings: Interactions) -> None:
    model = fastmf.ALS(n_factors=3, n_epochs=1).fit(ratings)
    recommender = Recommender(model)
    before = recommender.recommend([5], 5)

    model.set_params(n_threads=2, seed=9).fit(fastmf.testing.low_rank(n_users=30, n_items=20, seed=1))

    same(recommender.recommend([5], 5), before)
    assert recommender.model.n_threads == 1


def test_combinations_are_kept_up_to_a_number(model: FactorModel) -> None:
    recommender = Recommender(model, filters={str(n): [n, *FEW] for n in range(5)}, n_combinations=2)
    for name in ("0", "1", "0", "2"):
        recommender.recommend([5], 3, filters=name)

    kept = [sorted(key.wanted) for key in recommender._state.catalogues.known() if key.wanted]
    assert kept == [[("0", True)], [("2", True)]]
    same(recommender.recommend([5], 3, filters="1"), model.recommend([5], 3, allow=[1, *FEW]))


def test_a_changed_filter_leaves_others_laid_out(model: FactorModel) -> None:
    recommender = Recommender(model, filters={"large": FILTERS["large"], "some": FEW})
    for names in ("large", "some", ["large", "not some"]):
        recommender.recommend([5], 3, filters=names)
    before = recommender._state.catalogues

    recommender.set_filter("some", FEW[:3])

    after = recommender._state.catalogues
    assert set(after.known()) == set(before.known())
    for key in before.known():
        changed = any(name == "some" for name, _ in key.wanted)
        assert (after.get(key) is before.get(key)) == (not changed)


def test_a_changed_filter_leaves_others_looked_up(model: FactorModel) -> None:
    """Else each change takes as long as all filters together."""
    recommender = Recommender(model, filters={"large": FILTERS["large"], "some": FEW})
    before = recommender._state.filter_items

    recommender.set_filter("some", FEW[:3])

    after = recommender._state.filter_items
    assert after["large"] is before["large"]
    assert after["some"].tolist() == FEW[:3]


def test_a_swap_leaves_the_combinations_that_were_used_last_laid_out(model: FactorModel) -> None:
    recommender = Recommender(model, filters=FILTERS, n_combinations=2)
    recommender.warmup()
    for names in ("even", ["even", "large"], ["large", "not few"]):
        recommender.recommend([5], 3, filters=names)
    before = recommender._state.catalogues.known()

    recommender.swap(model)

    assert recommender._state.catalogues.known() == before


def test_warmup_lays_out_what_requests_need(model: FactorModel, monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = Recommender(model, filters=FILTERS)
    recommender.warmup(k=3)
    assert recommender.stats()["requests"] == 0

    monkeypatch.setattr(recommender._state.catalogues, "_make", None)  # nothing more may be laid out
    recommender.recommend([5, 999], 3)
    for name in FILTERS:
        recommender.recommend([5, 999], 3, filters=name)
    with pytest.raises(ParameterError, match="k is 901"):
        recommender.warmup(k=901)


def test_similar_items_and_predictions_are_those_of_the_model(model: FactorModel) -> None:
    recommender = Recommender(model)

    found, expected = recommender.similar_items([7, 9], 4), model.similar_items([7, 9], 4)
    np.testing.assert_array_equal(found.neighbours, expected.neighbours)
    assert recommender.predict([5, 6], [7, 8]).tolist() == model.predict([5, 6], [7, 8]).tolist()
    assert recommender.stats()["requests"] == 2


def test_requests_are_counted(model: FactorModel) -> None:
    recommender = Recommender(model)
    assert recommender.stats()["latency"] == dict.fromkeys(["p50", "p90", "p99", "max", "mean"])
    recommender.recommend([5, 0, 999, 1000], 3)
    recommender.recommend(7, 3)
    with pytest.raises(ParameterError):
        recommender.recommend(7, 0)
    recommender.swap(model)

    stats = recommender.stats()
    latency = stats.pop("latency")
    assert stats == {
        "requests": 2, "users": 5, "by_popularity": 3, "unknown_users": 2, "errors": 1, "swaps": 1, "failed_swaps": 0
    }  # fmt: skip
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
    assert 0 < latency["mean"] <= latency["max"]
    recommender.reset_stats()
    assert recommender.stats() == Recommender(model).stats()


def test_many_threads_lose_no_count(model: FactorModel) -> None:
    recommender = Recommender(model)
    workers = [
        threading.Thread(target=lambda: [recommender.recommend([5, 999], 1) for _ in range(100)]) for _ in range(8)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    stats = recommender.stats()
    assert (stats["requests"], stats["users"], stats["unknown_users"]) == (800, 1600, 800)


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_recommender_stays_in_its_process(copied: Any, recommender: Recommender) -> None:
    with pytest.raises(TypeError, match="make one in each process, from the path of the model"):
        copied(recommender)
