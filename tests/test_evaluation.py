"""`fastmf.evaluate` against a twin that predicts every pair, sorts, and counts."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastmf
from fastmf import Interactions, metrics
from fastmf.errors import DataError, ParameterError, UnknownIdError
from fastmf.models import FactorModel

Triples = list[tuple[int, int, float]]
N_USERS, N_ITEMS = 30, 25

MAKERS: dict[str, Callable[[], FactorModel]] = {
    "SGD": lambda: fastmf.SGD(n_factors=4, n_epochs=20, rating_range=(0.5, 5)),
    "BPR": lambda: fastmf.BPR(n_factors=4, n_epochs=5),
    "SVDpp": lambda: fastmf.SVDpp(n_factors=4, n_epochs=20),
    "ALS": lambda: fastmf.ALS(n_factors=4, n_epochs=5),
    "ImplicitALS": lambda: fastmf.ImplicitALS(n_factors=4, n_epochs=5),
}


def data() -> tuple[Interactions, Interactions]:
    return fastmf.split.random(fastmf.testing.power_law(N_USERS, N_ITEMS, 350, n_factors=3), 0.3, seed=0)


@pytest.fixture(scope="module", params=MAKERS)
def model(request: pytest.FixtureRequest) -> FactorModel:
    return MAKERS[request.param]().fit(data()[0])


@pytest.fixture(scope="module")
def als() -> FactorModel:
    return MAKERS["ALS"]().fit(data()[0])


def triples(ratings: Interactions) -> Triples:
    table = ratings.to_arrow()
    return list(zip(*(table[name].to_pylist() for name in ("user_id", "item_id", "rating")), strict=True))


def twin(
    model: FactorModel, test: Triples, excluded: Triples, k: int, relevant_from: float = -math.inf
) -> dict[str, float]:
    """Measure one user after the other; all users and items below `N_USERS` and `N_ITEMS` have training ratings."""
    target = [1.0 if model.is_implicit else rating for _, _, rating in test]
    users, items, _ = zip(*test, strict=True)
    errors = target - model.predict(users, items).astype(np.float64)
    figures = {
        "rmse": math.sqrt(np.mean(errors**2)),
        "mae": float(np.mean(np.abs(errors))),
        "n_ratings": len(test),
        "n_unknown": sum(user >= N_USERS or item >= N_ITEMS for user, item, _ in test),
        "n_cold_users": len({user for user, _, rating in test if user >= N_USERS and rating >= relevant_from}),
        "n_excluded": len({pair[:2] for pair in test} & {pair[:2] for pair in excluded}),
    }
    table = model.predict(np.repeat(range(N_USERS), N_ITEMS), np.tile(range(N_ITEMS), N_USERS)).reshape(N_USERS, -1)
    values: dict[str, list[float]] = {name: [] for name in (*FULL_RANK, "diversity", "graded_ndcg")}
    top_items, relevant_items = [], []
    popularity = np.bincount(model.fitted.seen.indices, minlength=N_ITEMS)
    lowest, information = popularity[popularity > 0].min(), []
    directions = model.item_factors / np.linalg.norm(model.item_factors, axis=1, keepdims=True)
    offered: set[int] = set()
    ranked_users = sorted({user for user, _, rating in test if user < N_USERS and rating >= relevant_from})
    for user in ranked_users:
        relevant = {item for other, item, rating in test if other == user and rating >= relevant_from}
        left_out = {item for other, item, _ in excluded if other == user}
        scores = table[user].astype(np.float64)
        scores[[item for item in left_out if item < N_ITEMS]] = -np.inf
        ranked = [int(item) for item in np.argsort(-scores) if scores[item] > -np.inf]
        offered |= set(ranked[:k])
        gains = {item: max(rating, 0) for other, item, rating in test if other == user and rating >= relevant_from}
        values["graded_ndcg"].append(graded_ndcg(ranked, gains, k))
        top_items.append(ranked[:k] + [-1] * (k - len(ranked[:k])))
        relevant_items.append(list(relevant))
        found = [scores[item] for item in relevant if item < N_ITEMS and item not in left_out]
        others = [scores[item] for item in ranked if item not in relevant]
        if found and others:
            values["auc"].append(np.mean([(a > b) + (a == b) / 2 for a in found for b in others]))
        if found and len(ranked) > 1:
            above = [(scores[b] > a) + (scores[b] == a) / 2 for a in found for b in ranked]
            values["mean_percentile_rank"].append((np.sum(above) / len(found) - 0.5) / (len(ranked) - 1))
        information += [-math.log2(max(popularity[item], lowest) / N_USERS) for item in ranked[:k]]
        if len(ranked[:k]) > 1:
            cosines = [directions[a] @ directions[b] for a, b in itertools.combinations(ranked[:k], 2)]
            values["diversity"].append(1 - np.mean(cosines))
    values["novelty"] = information
    figures |= {name if name in FULL_RANK else f"{name}@{k}": np.mean(each) for name, each in values.items() if each}
    figures["fcp"] = share_of_concordant_pairs(test, model.predict(users, items))
    shown = np.sort([sum(item in row for row in top_items) for item in range(N_ITEMS)])
    figures[f"gini@{k}"] = np.abs(np.subtract.outer(shown, shown)).sum() / (2 * (N_ITEMS - 1) * shown.sum())
    of_lists = metrics.ranking_metrics(top_items, relevant_items, k)
    figures |= {f"{name}@{k}": value for name, value in of_lists.items()}
    return figures | {f"coverage@{k}": len(offered) / N_ITEMS, "n_users": len(ranked_users)}


def share_of_concordant_pairs(test: Triples, predictions: Any) -> float:
    scored = [(*triple, prediction) for triple, prediction in zip(test, predictions, strict=True)]
    pairs = [(a, b) for a in scored for b in scored if a[0] == b[0] and a[2] > b[2]]
    return sum(bool(a[3] > b[3]) for a, b in pairs) / len(pairs)


def graded_ndcg(ranked: list[int], gains: dict[int, float], k: int) -> float:
    best = sorted(gains.values(), reverse=True)[:k]
    gained, ideal = (
        [gain / math.log2(place + 2) for place, gain in enumerate(row)]
        for row in ([gains.get(item, 0) for item in ranked[:k]], best)
    )
    return sum(gained) / sum(ideal)


FULL_RANK = ("auc", "mean_percentile_rank")
OF_RANKINGS = ("n_users", "n_cold_users", "n_excluded")
ALL = tuple(metrics.METRICS)


@pytest.mark.parametrize("k", [1, 7, N_ITEMS])
def test_every_figure_is_that_of_the_twin(k: int, model: FactorModel) -> None:
    train, test = data()

    figures = fastmf.evaluate(model, test, k=k, metrics=ALL)

    if k == 1:  # one item has nothing to be unlike
        assert figures.pop("diversity@1") is None
    assert figures == pytest.approx(twin(model, triples(test), triples(train), k), rel=1e-5)
    assert figures.keys() >= {"rmse", "mae", *FULL_RANK, "n_users", "n_ratings", "n_unknown"}


def test_by_default_there_is_what_is_usual_at_10(als: FactorModel) -> None:
    train, test = data()
    expected = twin(als, triples(test), triples(train), 10)
    for name, metric in metrics.METRICS.items():
        if not metric.is_default:
            del expected[f"{name}@10" if metric.has_cut_off else name]

    assert {"rmse", "ndcg@10", "coverage@10"} <= expected.keys()
    assert "auc" not in expected
    assert fastmf.evaluate(als, test) == pytest.approx(expected, rel=1e-5)


def test_an_implicit_model_is_measured_against_the_preference_1() -> None:
    train, test = data()
    model = MAKERS["ImplicitALS"]().fit(train)

    predictions = model.predict(test.users, test.items)

    figures = fastmf.evaluate(model, test, metrics=["rmse", "mae"])
    assert figures["rmse"] == pytest.approx(np.sqrt(np.mean((1 - predictions) ** 2)), rel=1e-5)
    assert figures["mae"] == pytest.approx(np.mean(np.abs(1 - predictions)), rel=1e-5)


@pytest.mark.parametrize("exclude", ["none", "pairs", "train"])
def test_what_is_excluded_is_not_ranked(exclude: str, als: FactorModel) -> None:
    train, test = data()
    pairs = Interactions.from_arrays([0, 0, 3, 99], [1, 2, 24, 5])
    given, excluded = {"none": (None, []), "pairs": (pairs, triples(pairs)), "train": (train, triples(train))}[exclude]

    figures = fastmf.evaluate(als, test, exclude=given, k=5, metrics=ALL)

    assert figures == pytest.approx(twin(als, triples(test), excluded, 5), rel=1e-5)


def test_several_cut_offs_at_once_are_the_same_as_one_by_one(als: FactorModel) -> None:
    _, test = data()

    together = fastmf.evaluate(als, test, k=(3, 10, 5))

    for k in (3, 5, 10):
        alone = fastmf.evaluate(als, test, k=k)
        assert {name: together[name] for name in alone} == pytest.approx(alone)
    assert len([name for name in together if name.startswith("ndcg@")]) == 3


def test_only_ratings_from_a_threshold_on_are_relevant(model: FactorModel) -> None:
    train, test = data()
    ratings = sorted(rating for _, _, rating in triples(test))
    threshold = ratings[len(ratings) * 2 // 3]

    figures = fastmf.evaluate(model, test, k=5, metrics=ALL, min_relevant_rating=threshold)

    assert figures == pytest.approx(twin(model, triples(test), triples(train), 5, threshold), rel=1e-5)
    assert figures["n_users"] < fastmf.evaluate(model, test, k=5)["n_users"]


def test_a_test_part_from_another_id_space_is_matched_by_ids(model: FactorModel) -> None:
    train, test = data()
    # Only some users and items occur, so that the same ids have other indices than in the model.
    some = [triple for triple in triples(test) if triple[0] % 3 == 1 and triple[1] % 2 == 1]
    other_space = Interactions.from_arrays(*zip(*some, strict=True))
    assert other_space.items.max() < max(item for _, item, _ in some)

    figures = fastmf.evaluate(model, other_space, k=5, metrics=ALL)

    assert figures == pytest.approx(twin(model, some, triples(train), 5), rel=1e-5)


def test_unknown_users_are_not_ranked_and_unknown_items_are_missed(model: FactorModel) -> None:
    train, test = data()
    unknown = [(2, 100, 4.0), (2, 101, 4.0), (2, 102, 4.0), (7, 100, 1.0), (500, 3, 4.0), (500, 100, 4.0)]
    given = triples(test) + unknown

    figures = fastmf.evaluate(model, Interactions.from_arrays(*zip(*given, strict=True)), k=5, metrics=ALL)

    assert figures == pytest.approx(twin(model, given, triples(train), 5), rel=1e-5)
    assert figures["n_unknown"] == 6


def test_each_unknown_item_is_one_that_is_missed(als: FactorModel) -> None:
    test = Interactions.from_arrays([2, 2, 2, 2], [100, 5, 101, 102])

    figures = fastmf.evaluate(als, test, k=N_ITEMS, exclude=None, metrics=["recall"])

    assert figures["recall@25"] == 1 / 4  # all items are ranked, so that the one that is known is found


def test_users_whose_only_items_are_unknown_score_0(als: FactorModel) -> None:
    figures = fastmf.evaluate(als, Interactions.from_arrays([1, 2], [100, 200]), k=5, metrics=ALL)

    assert figures["ndcg@5"] == figures["recall@5"] == 0
    assert figures["n_users"] == 2
    assert figures["auc"] is None


def test_a_sparse_matrix_is_a_test_part(als: FactorModel) -> None:
    _, test = data()

    assert fastmf.evaluate(als, test.to_scipy(), k=5) == pytest.approx(fastmf.evaluate(als, test, k=5))


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        ("rmse", {"rmse", "n_ratings", "n_unknown"}),
        (["mae"], {"mae", "n_ratings", "n_unknown"}),
        (("ndcg", "rmse"), {"ndcg@4", "rmse", "n_ratings", "n_unknown", *OF_RANKINGS}),
        (["coverage"], {"coverage@4", "n_ratings", "n_unknown", *OF_RANKINGS}),
        (["auc"], {"auc", "n_ratings", "n_unknown", *OF_RANKINGS}),
    ],
)
def test_only_what_is_asked_for_is_measured(names: Any, keys: set[str], als: FactorModel) -> None:
    assert fastmf.evaluate(als, data()[1], k=4, metrics=names).keys() == keys


@pytest.mark.parametrize(
    ("name", "unneeded"),
    [
        ("rmse", "fastmf.answering.scoring.Scorer.__init__"),
        ("auc", "fastmf.answering.scoring.Scorer.top"),
        ("coverage", "fastmf_kernels.topk.cpu.mark_hits"),
        ("ndcg", "fastmf_kernels.predict.cpu.predict_pairs"),
        ("ndcg", "fastmf.answering.scoring.Scorer.count_better"),
    ],
)
def test_what_no_metric_needs_is_not_computed(
    name: str, unneeded: str, als: FactorModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fastmf.evaluate(als, data()[1], metrics=[name])

    def refuse(*_: Any) -> None:
        raise AssertionError(unneeded)

    monkeypatch.setattr(unneeded, refuse)

    assert fastmf.evaluate(als, data()[1], metrics=[name]) == expected


def test_errors_of_ratings_need_no_cut_off() -> None:
    # Two items are fewer than the default k, which is of no concern to a question about ratings.
    ratings = Interactions.from_arrays([1, 1, 2], [1, 2, 1], [3, 4, 5])
    model = fastmf.ALS(n_factors=2, n_epochs=1).fit(ratings)

    assert fastmf.evaluate(model, ratings, metrics=["rmse"])["n_ratings"] == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("term", ["user_factors", "item_factors", "user_biases", "item_biases"])
def test_factors_that_are_not_finite_are_refused(term: str, bad: float) -> None:
    model = MAKERS["ALS"]().fit(data()[0])
    getattr(model, term)[3] = bad
    for names in (["rmse"], ["ndcg"], ["auc"]):
        with pytest.raises(DataError, match="factors of the model are infinite or NaN; expected finite ones"):
            fastmf.evaluate(model, data()[1], metrics=names)


@pytest.mark.parametrize("model", [None, "model", fastmf.ALS, 5])
def test_what_is_no_model_is_refused(model: Any) -> None:
    with pytest.raises(ParameterError, match=r"model is of type .*; expected a model of fastmf"):
        fastmf.evaluate(model, data()[1])


def test_batches_of_users_do_not_show(als: FactorModel, monkeypatch: pytest.MonkeyPatch) -> None:
    _, test = data()
    whole = fastmf.evaluate(als, test, k=5, metrics=ALL)

    monkeypatch.setattr("fastmf.measuring.rankings._BATCH", 4)

    assert fastmf.evaluate(als, test, k=5, metrics=ALL) == pytest.approx(whole)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"exclude": Interactions.from_arrays(["a"], [1])}, DataError, "exclude has user ids of type string, and"),
        ({"per_user": "yes"}, ParameterError, "per_user is 'yes'; expected True or False"),
        ({"baseline": "popularity"}, ParameterError, "baseline is 'popularity'; expected True or False"),
        ({"k": 26}, ParameterError, "k is 26, but the catalogue has 25 items; expected at most as many"),
        ({"k": (5, 0)}, ParameterError, "k is 0; expected an integer of at least 1"),
        (
            {"metrics": ["ndgc", "rmse"]},
            ParameterError,
            "metrics are ['ndgc', 'rmse']; expected some of rmse, mae, pre",
        ),
        ({"metrics": []}, ParameterError, "metrics are []; expected some of rmse, mae, precision"),
        ({"exclude": "all"}, ParameterError, "exclude is 'all'; expected \"seen\", Interactions, or None"),
        ({"test": [[1, 2]]}, ParameterError, "test is a list; expected Interactions"),
        ({"test": data()[1].take(np.empty(0, np.int64))}, DataError, "the test part has no ratings; expected at least"),
        ({"test": Interactions.from_arrays([99], [1])}, DataError, "no user of the test part with a relevant item is"),
        ({"min_relevant_rating": "4"}, ParameterError, "min_relevant_rating is '4'; expected a finite number"),
        ({"min_relevant_rating": math.nan}, ParameterError, "min_relevant_rating is nan; expected a finite number"),
        ({"k": True}, ParameterError, "k is True; expected an integer of at least 1"),
        ({"k": "5"}, ParameterError, "k is '5'; expected an integer of at least 1"),
        ({"metrics": 5}, ParameterError, "metrics are [5]; expected some of rmse"),
        ({"min_relevant_rating": 99}, DataError, "no user of the test part with a relevant item is known"),
        (
            {"test": Interactions.from_arrays(["a"], [1])},
            DataError,
            "test has user ids of type string, and the model has",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(
    arguments: dict[str, Any], error: type[Exception], message: str, als: FactorModel
) -> None:
    with pytest.raises(error) as raised:
        fastmf.evaluate(als, **{"test": data()[1], **arguments})

    assert message in str(raised.value)
    assert not isinstance(raised.value, UnknownIdError)
