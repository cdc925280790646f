"""Lists in a new order, against a slow twin that knows one user at a time, and what must hold for any settings."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastmf
from fastmf.answering import reranking, scoring
from fastmf.answering.answers import Recommendations
from fastmf.errors import DataError, NotFittedError, OutputExistsError, ParameterError
from fastmf.keeping import recommendations as kept
from fastmf.models import FactorModel

N_USERS, N_ITEMS = 40, 60
Settings = dict[str, object]
SETTINGS: dict[str, Settings] = {
    "nothing": {},
    "diversify": {"diversify": 0.4},
    "similarity alone": {"diversify": 1},
    "explore": {"explore": 0.5, "few_ratings": 7, "seed": 3},
    "both": {"diversify": 0.2, "explore": 0.3, "few_ratings": 8},
}
each = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


@pytest.fixture(scope="module")
def model() -> FactorModel:
    return fastmf.ImplicitALS(n_factors=6, n_epochs=3).fit(fastmf.testing.power_law(N_USERS, N_ITEMS, 500, n_factors=3))


@pytest.fixture(scope="module")
def longer(model: FactorModel) -> Recommendations:
    return model.recommend(k=30)


def twin(longer: Recommendations, row: int, k: int, model: FactorModel, diversify: float) -> list[int]:
    """Choose k items of one list by the formula of maximal marginal relevance."""
    scores = {int(i): float(s) for i, s in zip(longer.items[row], longer.scores[row], strict=True) if i >= 0}
    low, high = min(scores.values()), max(scores.values())
    relevance = {i: (s - low) / (high - low) for i, s in scores.items()}
    q = model.item_factors.astype(np.float64)
    chosen: list[int] = []
    while len(chosen) < min(k, len(scores)):

        def value(i: int) -> float:
            cosines = [q[i] @ q[j] / np.linalg.norm(q[i]) / np.linalg.norm(q[j]) for j in chosen]
            return (1 - diversify) * relevance[i] - diversify * max(cosines, default=0.0)

        chosen.append(max((i for i in scores if i not in chosen), key=value))
    return chosen


@pytest.mark.parametrize("diversify", [0.1, 0.4, 0.9])
def test_it_is_maximal_marginal_relevance(model: FactorModel, longer: Recommendations, diversify: float) -> None:
    found = fastmf.rerank(longer, 8, model=model, diversify=diversify)
    assert [row.tolist() for row in found.items] == [
        twin(longer, row, 8, model, diversify) for row in range(len(longer.items))
    ]
    assert (found.items != longer.items[:, :8]).any(axis=1).mean() > 0.2  # it does change lists


def test_without_settings_the_list_stays(model: FactorModel, longer: Recommendations) -> None:
    found, short = fastmf.rerank(longer, 7), model.recommend(k=7)
    assert np.array_equal(found.items, short.items)
    assert np.array_equal(found.scores, short.scores)
    assert found.to_arrow().equals(short.to_arrow())


@each
def test_items_are_candidates_with_their_scores(
    model: FactorModel, longer: Recommendations, settings: Settings
) -> None:
    found = fastmf.rerank(longer, 12, model=model, **settings)
    assert found.items.shape == (N_USERS, 12)
    assert found.items.dtype == np.int32
    assert found.scores.dtype == np.float32
    for row in range(N_USERS):
        score_of = dict(zip(longer.items[row].tolist(), longer.scores[row].tolist(), strict=True))
        items = found.items[row].tolist()
        assert len(set(items)) == 12
        assert [score_of[item] for item in items] == found.scores[row].tolist()


@each
def test_the_model_recommends_and_streams_the_same(
    model: FactorModel, longer: Recommendations, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fastmf.rerank(longer, 5, model=model, **settings)
    given = fastmf.Reranking(n_candidates=30, **settings)
    assert model.recommend(k=5, rerank=given).to_arrow().equals(expected.to_arrow())

    monkeypatch.setattr(scoring, "_BATCH", 7)
    monkeypatch.setattr(kept, "_BATCHES_A_PART", 2)
    monkeypatch.setattr(reranking, "_USERS_AT_ONCE", 3)
    n_rows = model.recommend_to_parquet(tmp_path / "recs.parquet", 5, rerank=given)
    assert n_rows == N_USERS * 5
    assert pq.read_table(tmp_path / "recs.parquet").equals(expected.to_arrow())


@each
def test_nothing_depends_on_threads_or_on_other_users(
    model: FactorModel, longer: Recommendations, settings: Settings
) -> None:
    many = dataclasses.replace(
        longer,
        users=np.tile(longer.users, 3),
        user_ids=pa.concat_arrays([longer.user_ids] * 3),
        items=np.tile(longer.items, (3, 1)),
        scores=np.tile(longer.scores, (3, 1)),
    )
    found = [
        fastmf.rerank(many, 6, model=model.set_params(n_threads=n_threads), **settings).items for n_threads in (1, 2)
    ]
    model.set_params(n_threads=None)
    assert np.array_equal(*found)
    assert np.array_equal(found[0][:N_USERS], found[0][N_USERS : 2 * N_USERS])
    asked = longer.user_ids.take([11, 4])
    some = model.recommend(asked, 6, rerank=fastmf.Reranking(n_candidates=30, **settings))
    assert np.array_equal(some.items, found[0][[11, 4]])


def test_backends_agree(model: FactorModel, longer: Recommendations) -> None:
    settings: Settings = {"diversify": 0.3, "explore": 0.3}
    found = [
        fastmf.rerank(longer, 6, model=model.set_params(backend=backend), **settings).items
        for backend in ("cpu", "reference")
    ]
    model.set_params(backend="cpu")
    assert np.array_equal(*found)


def test_lists_that_are_short_or_empty(model: FactorModel) -> None:
    ids = model.user_ids.to_pylist()
    allow = {ids[0]: model.item_ids[:9].to_pylist(), ids[1]: model.item_ids[:1].to_pylist()}
    longer = model.recommend(ids[:3], 20, exclude=None, allow=allow)
    assert (longer.items >= 0).sum(axis=1).tolist() == [9, 1, 0]
    found = fastmf.rerank(longer, 12, model=model, diversify=0.5, explore=0.5)
    assert (found.items >= 0).sum(axis=1).tolist() == [9, 1, 0]
    assert sorted(found.items[0, :9].tolist()) == sorted(longer.items[0, :9].tolist())
    assert np.all(found.scores[found.items < 0] == -np.inf)
    assert len(found.to_arrow()) == 10


def test_filters_hold(model: FactorModel) -> None:
    denied = model.item_ids[:20]
    found = model.recommend(k=6, deny=denied, rerank=fastmf.Reranking(diversify=0.5, n_candidates=25))
    assert not np.isin(found.items, np.arange(20)).any()
    indptr, indices = model.fitted.seen
    for user, row in zip(found.users, found.items, strict=True):
        assert not np.isin(row, indices[indptr[user] : indptr[user + 1]]).any()


def test_equal_scores_and_factors_of_0(model: FactorModel, longer: Recommendations) -> None:
    same = dataclasses.replace(longer, scores=np.full_like(longer.scores, 2.5))
    assert np.array_equal(fastmf.rerank(same, 9).items, longer.items[:, :9])
    nothing = fastmf.ALS(n_factors=3, n_epochs=1, biases=False, regularization=1e30).fit(
        fastmf.testing.power_law(30, 30, 200, n_factors=3)
    )
    found = nothing.recommend(k=5, rerank=fastmf.Reranking(diversify=0.5, n_candidates=20))
    assert np.isfinite(found.scores).all()


@given(
    st.floats(0, 1),
    st.lists(st.floats(-(2.0**120), 2.0**120, width=32, allow_subnormal=False), min_size=1, max_size=12),
    st.integers(1, 12),
)
def test_any_scores_give_distinct_candidates(diversify: float, scores: list[float], k: int) -> None:
    model = small()
    descending = np.sort(np.array([scores], np.float32))[:, ::-1]
    n = descending.shape[1]
    lists = Recommendations(
        np.zeros(1, np.int32), pa.array([7]), np.arange(n, dtype=np.int32)[None], descending, model.item_ids
    )
    if k > n:
        with pytest.raises(ParameterError, match=f"k is {k}, but the lists have {n} items"):
            fastmf.rerank(lists, k, model=model, diversify=diversify)
        return
    found = fastmf.rerank(lists, k, model=model, diversify=diversify)
    assert len(set(found.items[0].tolist())) == k
    assert found.items[0, 0] == 0
    assert np.array_equal(found.scores[0], descending[0, found.items[0]])


_small: list[FactorModel] = []


def small() -> FactorModel:
    if not _small:
        _small.append(fastmf.ALS(n_factors=3, n_epochs=2).fit(fastmf.testing.power_law(20, 15, 150, n_factors=2)))
    return _small[0]


# Exploration


def test_as_many_places_are_explored_as_was_asked_for(model: FactorModel) -> None:
    n_users, share, counts = 4000, 0.2, model.fitted.counts.of_items
    few = int(np.sort(counts)[20])
    is_new = counts < few
    order = np.argsort(is_new, kind="stable").astype(np.int32)  # new items stand behind all others
    lists = Recommendations(
        np.full(n_users, -1, np.int32),
        pa.array(np.arange(n_users)),
        np.tile(order, (n_users, 1)),
        np.tile(-np.arange(N_ITEMS, dtype=np.float32), (n_users, 1)),
        model.item_ids,
    )

    found = fastmf.rerank(lists, 10, model=model, explore=share, few_ratings=few).items

    assert 10 <= is_new.sum() <= 20
    np.testing.assert_allclose(is_new[found].mean(axis=0), share, atol=5 * np.sqrt(0.16 / n_users))  # at each place
    drawn = np.bincount(found.ravel(), minlength=N_ITEMS)[is_new]
    assert drawn.min() > 0.8 * drawn.mean()  # each new item has the same chance
    for row in found[:100]:  # the others are the first of the list, in its order
        kept_places = row[~is_new[row]]
        assert kept_places.tolist() == order[: len(kept_places)].tolist()


def test_draws_depend_on_the_seed_and_the_user(model: FactorModel, longer: Recommendations) -> None:
    settings: Settings = {"model": model, "explore": 0.5, "few_ratings": 8}
    first, same, other = (fastmf.rerank(longer, 10, seed=seed, **settings).items for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert (first != other).any(axis=1).mean() > 0.5
    moved = dataclasses.replace(longer, user_ids=pa.array(np.arange(N_USERS) + 1000))
    assert (fastmf.rerank(moved, 10, seed=1, **settings).items != first).any(axis=1).mean() > 0.5
    named = dataclasses.replace(longer, user_ids=pa.array([f"user {n}" for n in range(N_USERS)]))
    by_name = fastmf.rerank(named, 10, seed=1, **settings).items
    assert np.array_equal(by_name, fastmf.rerank(named, 10, seed=1, **settings).items)
    assert (by_name != first).any(axis=1).mean() > 0.5


def test_every_place_is_explored_by_1(model: FactorModel, longer: Recommendations) -> None:
    is_new = model.fitted.counts.of_items < 4
    found = fastmf.rerank(longer, 10, model=model, explore=1, few_ratings=4)
    for row in range(N_USERS):
        n_new = min(10, int(is_new[longer.items[row]].sum()))
        assert is_new[found.items[row, :n_new]].all()
        assert not is_new[found.items[row, n_new:]].any()
    assert 0 < is_new[found.items].mean() < 1


# What is refused


def test_resuming_refuses_the_parts_of_other_settings(
    model: FactorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_BATCH", 10)
    monkeypatch.setattr(kept, "_BATCHES_A_PART", 1)
    scorer = model._scorer()

    def fingerprint(**settings: object) -> str:
        rerank = fastmf.Reranking(n_candidates=20, **settings) if settings.pop("is_given", True) else None
        return scorer.recommend_in_batches(None, 5, exclude="seen", rerank=rerank).fingerprint()

    others: list[Settings] = [{}, {"diversify": 0.3}, {"diversify": 0.4}, {"explore": 0.1}, {"explore": 0.1, "seed": 1}]
    found = [fingerprint(**settings) for settings in [*others, {"is_given": False}]]
    assert len(set(found)) == len(found)
    assert found == [fingerprint(**settings) for settings in [*others, {"is_given": False}]]
    at_4 = scorer.recommend_in_batches(None, 4, exclude="seen", rerank=fastmf.Reranking(n_candidates=20))
    assert at_4.fingerprint() not in found


def test_an_output_is_not_replaced(model: FactorModel, tmp_path: Path) -> None:
    path = tmp_path / "recs.parquet"
    model.recommend_to_parquet(path, 5)
    with pytest.raises(OutputExistsError):
        model.recommend_to_parquet(path, 5, rerank=fastmf.Reranking(diversify=0.1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"diversify": 1.5}, "diversify is 1.5; expected a number from 0 to 1"),
        ({"diversify": -0.1}, "diversify is -0.1; expected a finite number of at least 0"),
        ({"diversify": float("nan")}, "diversify is nan; expected a finite number"),
        ({"diversify": True}, "diversify is True; expected a finite number"),
        ({"explore": 2}, "explore is 2; expected a number from 0 to 1"),
        ({"explore": "a"}, "explore is 'a'; expected a finite number"),
        ({"n_candidates": 0}, "n_candidates is 0; expected an integer of at least 1"),
        ({"few_ratings": 0}, "few_ratings is 0; expected an integer of at least 1"),
        ({"seed": -1}, "seed is -1; expected an integer of at least 0"),
    ],
)
def test_settings_out_of_range(settings: Settings, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        fastmf.Reranking(**settings)  # type: ignore[arg-type]


def test_what_the_model_lacks(model: FactorModel, longer: Recommendations) -> None:
    for settings, message in (
        ({"diversify": 0.1}, "diversify compares items by their factors; expected the model that"),
        ({"explore": 0.1}, "explore is for items with few training ratings; expected the model that"),
        ({"model": small(), "diversify": 0.1}, "model has other items \\(15\\) than the recommendations \\(60\\)"),
        ({"model": 7}, "model is a int; expected a model that is fitted"),
    ):
        with pytest.raises(ParameterError, match=message):
            fastmf.rerank(longer, 5, **settings)
    with pytest.raises(NotFittedError):
        fastmf.rerank(longer, 5, model=fastmf.ALS())
    popular = fastmf.Popularity().fit(fastmf.testing.power_law(20, 15, 150, n_factors=2))
    with pytest.raises(ParameterError, match="this model has none"):
        popular.recommend(k=3, rerank=fastmf.Reranking(diversify=0.1))
    assert popular.recommend(k=3, rerank=fastmf.Reranking(explore=0.5)).items.shape == (20, 3)


def test_wrong_calls(model: FactorModel, longer: Recommendations) -> None:
    with pytest.raises(ParameterError, match="k is 31, but the lists have 30 items; expected at most as many"):
        fastmf.rerank(longer, 31)
    with pytest.raises(ParameterError, match="k is 0"):
        fastmf.rerank(longer, 0)
    with pytest.raises(ParameterError, match="recommendations is a Table; expected Recommendations"):
        fastmf.rerank(longer.to_arrow(), 3)
    with pytest.raises(ParameterError, match="n_candidates is 4, but k is 5; expected at least as many candidates"):
        model.recommend(k=5, rerank=fastmf.Reranking(n_candidates=4))
    with pytest.raises(ParameterError, match="rerank is a dict; expected fastmf"):
        model.recommend(k=5, rerank={"diversify": 0.3})  # type: ignore[arg-type]
    scores = np.where(longer.scores == longer.scores[3, 3], np.float32(np.nan), longer.scores)
    with pytest.raises(DataError, match="1 scores of recommended items are not finite"):
        fastmf.rerank(dataclasses.replace(longer, scores=scores), 3)
    with pytest.raises(ParameterError, match=r"recommendations\.items run from .* to 60; expected rows from 0 to 59"):
        fastmf.rerank(dataclasses.replace(longer, items=np.where(longer.items == 1, 60, longer.items)), 3)


def test_a_whole_catalogue_may_be_fewer_than_the_candidates(model: FactorModel) -> None:
    few, many = (
        model.recommend(k=5, rerank=fastmf.Reranking(n_candidates=n_candidates, diversify=0.2)).items
        for n_candidates in (N_ITEMS, 10_000)
    )
    assert np.array_equal(few, many)


def test_newcomers_get_lists_in_the_new_order(model: FactorModel) -> None:
    newcomer = fastmf.Interactions.from_arrays([10**9] * 3, model.item_ids[:3])
    longer = model.recommend_for(newcomer, 30)
    expected = fastmf.rerank(longer, 5, model=model, diversify=0.4)
    found = model.recommend_for(newcomer, 5, rerank=fastmf.Reranking(diversify=0.4, n_candidates=30))
    assert np.array_equal(found.items, expected.items)
    assert not np.array_equal(found.items, longer.items[:, :5])
