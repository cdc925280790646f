"""What holds for any data: ids, splits, files and recommendations."""

import contextlib
import string
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastmf
from fastmf import Interactions, split
from fastmf.errors import DataError
from fastmf.reading import ids

quick = settings(deadline=None, derandomize=True, max_examples=25)

int64s = st.integers(-(2**63), 2**63 - 1)
near_integers = st.integers(-20, 20)  # a narrow range is encoded by a table, a wide one is not
texts = st.text(max_size=8)  # any code points but surrogates, the empty string too
id_lists = st.one_of(*(st.lists(kind, min_size=1, max_size=80) for kind in (int64s, near_integers, texts)))


@quick
@given(values=id_lists)
def test_encoding_and_looking_up_are_each_others_inverse(values: list[Any]) -> None:
    kind = pa.string() if isinstance(values[0], str) else pa.int64()

    indices, vocabulary = ids.encode(pa.chunked_array([pa.array(values, kind)]), "id")

    assert vocabulary.take(pa.array(indices)).to_pylist() == values
    assert vocabulary.to_pylist() == sorted(set(values))
    assert ids.look_up(vocabulary, values, "id").tolist() == indices.tolist()
    assert ids.look_up(vocabulary, vocabulary, "id").tolist() == list(range(len(vocabulary)))


@quick
@given(values=id_lists, data=st.data())
def test_what_is_not_in_the_vocabulary_is_unknown(values: list[Any], data: st.DataObject) -> None:
    kind, others = (pa.string(), texts) if isinstance(values[0], str) else (pa.int64(), near_integers)
    _, vocabulary = ids.encode(pa.chunked_array([pa.array(values, kind)]), "id")

    asked = data.draw(st.lists(others, max_size=100))

    expected = [sorted(set(values)).index(one) if one in values else -1 for one in asked]
    assert ids.look_up(vocabulary, asked, "id").tolist() == expected


@st.composite
def interactions(draw: st.DrawFn) -> Interactions:
    """Distinct pairs in any order, with any float32 rating and any time."""
    kind = draw(st.sampled_from([st.integers(0, 12), st.text(string.ascii_lowercase, max_size=2)]))
    pairs = draw(st.lists(st.tuples(kind, st.integers(-(2**40), 2**40) | st.integers(0, 9)), min_size=2, unique=True))
    ratings = st.floats(width=32, allow_nan=False, allow_infinity=False)
    n = len(pairs)
    users, items = zip(*pairs, strict=True)
    return Interactions.from_arrays(
        users,
        items,
        draw(st.lists(ratings, min_size=n, max_size=n)),
        draw(st.lists(int64s, min_size=n, max_size=n)),
    )


def rows(ratings: Interactions) -> list[tuple[Any, ...]]:
    """List the rows; ratings by their bits, which tell -0 from 0."""
    table = ratings.to_arrow()
    columns = [table[name].to_pylist() for name in ("user_id", "item_id", "timestamp")]
    return list(zip(*columns, ratings.ratings.view(np.int32).tolist(), strict=True))


@quick
@given(ratings=interactions(), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 9), data=st.data())
def test_splits_part_the_ratings_and_lose_none(
    ratings: Interactions, fraction: float, seed: int, data: st.DataObject
) -> None:
    n_folds = data.draw(st.integers(2, ratings.n_ratings))
    assert ratings.timestamps is not None
    at = int(data.draw(st.sampled_from(ratings.timestamps.tolist())))
    folds = split.k_fold(ratings, n_folds, seed)
    splits = [split.random(ratings, fraction, seed), *folds]
    for one_part_may_be_empty in (
        lambda: split.per_user(ratings, fraction, seed),
        lambda: split.leave_last_out(ratings, n=1 + seed),
        lambda: split.temporal(ratings, fraction),
        lambda: split.temporal(ratings, at=at),
    ):
        with contextlib.suppress(DataError):
            splits.append(one_part_may_be_empty())

    for train, test in splits:
        assert train.n_ratings > 0
        assert test.n_ratings > 0
        assert Counter(rows(train)) + Counter(rows(test)) == Counter(rows(ratings))
        assert train.user_ids is test.user_ids is ratings.user_ids
        assert train.item_ids is test.item_ids is ratings.item_ids
    assert sum((Counter(rows(test)) for _, test in folds), Counter()) == Counter(rows(ratings))


@quick
@given(ratings=interactions())
def test_parquet_keeps_every_bit(ratings: Interactions) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ratings.parquet"
        ratings.to_parquet(path)
        again = fastmf.read_parquet(path, timestamp="timestamp")

    assert rows(again) == rows(ratings)
    assert again.user_ids == ratings.user_ids
    assert again.item_ids == ratings.item_ids
    assert again.users.tolist() == ratings.users.tolist()
    assert again.items.tolist() == ratings.items.tolist()


cells = st.tuples(st.integers(0, 9), st.integers(0, 11))
item_lists = st.lists(st.integers(0, 14), max_size=12)  # some of them unknown
filters = st.one_of(st.none(), item_lists, st.dictionaries(st.integers(0, 11), item_lists, max_size=10))


def lists(filtered: Any, user: int, item: int) -> bool:
    return item in (filtered.get(user, ()) if isinstance(filtered, dict) else filtered)


@quick
@given(
    seen=st.lists(cells, min_size=1, max_size=60, unique=True),
    others=st.lists(cells, min_size=1, max_size=30, unique=True),
    exclude=st.sampled_from(["seen", "others", None]),
    allow=filters,
    deny=filters,
    k=st.integers(1, 12),
    cold=st.sampled_from(["skip", "popular", "include"]),
    kind=st.sampled_from([fastmf.SGD, fastmf.SVDpp, fastmf.BPR, fastmf.ALS, fastmf.ImplicitALS]),
)
def test_recommendations_are_sorted_distinct_allowed_and_as_many_as_there_are(
    seen: list[tuple[int, int]],
    others: list[tuple[int, int]],
    exclude: str | None,
    allow: Any,
    deny: Any,
    k: int,
    cold: str,
    kind: type[fastmf.SGD | fastmf.SVDpp | fastmf.BPR | fastmf.ALS | fastmf.ImplicitALS],
) -> None:
    pairs = np.array(seen)
    train = fastmf.testing.from_indices(pairs[:, 0], pairs[:, 1], np.arange(1.0, len(seen) + 1), 10, 12)
    model = kind(n_factors=2, n_epochs=1, n_threads=1).fit(train)
    excluded = {"seen": set(seen), "others": set(others), None: set()}[exclude]
    given_exclude = Interactions.from_arrays(*zip(*others, strict=True)) if exclude == "others" else exclude
    counts = Counter(item for _, item in seen)
    warm_users = {user for user, _ in seen}

    recommended = model.recommend(k=k, exclude=given_exclude, allow=allow, deny=deny, cold=cold)

    assert recommended.n_cold_users == 10 - len(warm_users)
    for user in range(10):
        candidates = {
            item
            for item in range(12)
            if (cold == "include" or (item in counts and (cold == "popular" or user in warm_users)))
            and (user, item) not in excluded
            and (allow is None or lists(allow, user, item))
            and not (deny is not None and lists(deny, user, item))
        }
        items, scores = recommended.items[user].tolist(), recommended.scores[user].tolist()
        n_found = min(k, len(candidates))
        assert set(items[:n_found]) <= candidates
        assert len(set(items[:n_found])) == n_found
        assert items[n_found:] == [-1] * (k - n_found)
        assert scores == sorted(scores, reverse=True)
        assert np.isfinite(scores[:n_found]).all()
        assert np.isneginf(scores[n_found:]).all()
        if cold == "popular" and user not in warm_users:
            assert items[:n_found] == sorted(candidates, key=lambda item: (-counts[item], item))[:n_found]
            assert scores[:n_found] == pytest.approx([counts[item] / len(warm_users) for item in items[:n_found]])
    assert len(recommended.to_arrow()) == np.count_nonzero(recommended.items >= 0)
