"""Items of equal scores: metrics are the mean over all orders of them, by brute force over permutations."""

import itertools
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastmf
from fastmf import Interactions, metrics
from fastmf.answering.fitted import Fitted
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.topk.arrays import Rows

NAMES = metrics.RANKING_METRICS


class Given(NamedTuple):
    """A model whose users score items as a table says."""

    backend: str
    n_threads: int | None
    fitted: Fitted
    is_implicit: bool


def scoring(table: Any, seen: Any = None, backend: str = "cpu") -> Given:
    """Make a model of a table of scores, a row a user; ``seen`` tells which items are training ratings."""
    scores = np.asarray(table, np.float32)
    n_users, n_items = scores.shape
    is_seen = np.zeros((n_users, n_items), bool) if seen is None else np.asarray(seen, bool)
    factors = Factors(
        np.eye(n_users, dtype=np.float32),
        np.ascontiguousarray(scores.T),
        np.zeros(n_users, np.float32),
        np.zeros(n_items, np.float32),
        np.float32(0),
    )
    indptr = np.append(0, np.cumsum(is_seen.sum(axis=1))).astype(np.int64)
    ids = pa.array(np.arange(n_users)), pa.array(np.arange(n_items))
    link = Link(np.float32(0), np.float32(0))
    return Given(
        backend, None, Fitted(factors, link, *ids, Rows(indptr, np.nonzero(is_seen)[1].astype(np.int32)), {}), True
    )


def orders(scores: list[float]) -> Any:
    """Return all orders of the items that agree with the scores, one a row."""
    groups = [
        [item for item in range(len(scores)) if scores[item] == score] for score in sorted(set(scores), reverse=True)
    ]
    parts = itertools.product(*(itertools.permutations(group) for group in groups))
    return np.array([sum(each, ()) for each in parts])


def by_brute_force(scores: list[float], relevant: set[int], k: int) -> dict[str, float]:
    """Average the metrics of one user over all orders of the items that agree with the scores."""
    lists = orders(scores)[:, :k]
    return metrics.ranking_metrics(lists, [sorted(relevant)] * len(lists), k)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[float]], list[set[int]], int]:
    """Scores of few values for up to three users and five items, relevant items, and a cut-off."""
    n_users, n_items = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    values = draw(st.sampled_from([[1.0], [0.0, 1.0], [-1.0, 0.0, 2.0], [1.0, 2.0, 3.0, 4.0, 5.0]]))
    rows = st.lists(st.sampled_from(values), min_size=n_items, max_size=n_items)
    relevant = st.sets(st.integers(0, n_items - 1), min_size=1)
    return (
        draw(st.lists(rows, min_size=n_users, max_size=n_users)),
        draw(st.lists(relevant, min_size=n_users, max_size=n_users)),
        draw(st.integers(1, n_items)),
    )


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@settings(deadline=None, derandomize=True, max_examples=15)
@given(problem=tables())
def test_metrics_are_the_mean_over_all_orders(
    backend: str, problem: tuple[list[list[float]], list[set[int]], int]
) -> None:
    table, relevant, k = problem
    pairs = [(user, item) for user, items in enumerate(relevant) for item in items]
    test = Interactions.from_arrays(*zip(*pairs, strict=True))

    figures = fastmf.evaluate(scoring(table, backend=backend), test, k=k, exclude=None, cold="include", metrics=NAMES)

    each = [by_brute_force(scores, items, k) for scores, items in zip(table, relevant, strict=True)]
    for name in NAMES:
        assert figures[f"{name}@{k}"] == pytest.approx(np.mean([values[name] for values in each]), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@settings(deadline=None, derandomize=True, max_examples=15)
@given(problem=tables(), seed=st.integers(0, 9))
def test_graded_ndcg_is_the_mean_over_all_orders(
    backend: str, problem: tuple[list[list[float]], list[set[int]], int], seed: int
) -> None:
    table, relevant, k = problem
    pairs = [(user, item) for user, items in enumerate(relevant) for item in items]
    gains = np.random.default_rng(seed).integers(1, 6, len(pairs)).astype(float)
    test = Interactions.from_arrays(*zip(*pairs, strict=True), gains)

    figures = fastmf.evaluate(
        scoring(table, backend=backend), test, k=k, exclude=None, cold="include", metrics=["graded_ndcg"]
    )

    each = []
    for user, scores in enumerate(table):
        lists, own = orders(scores)[:, :k], [place for place, pair in enumerate(pairs) if pair[0] == user]
        items, values = [pairs[place][1] for place in own], gains[own].tolist()
        each.append(metrics.graded_ndcg_at_k(lists, [items] * len(lists), [values] * len(lists), k))
    assert figures[f"graded_ndcg@{k}"] == pytest.approx(np.mean(each), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("n_items", [5, 40, 300])
def test_a_constant_model_is_as_good_as_chance_whatever_the_numbers_of_items(n_items: int) -> None:
    rng = np.random.default_rng(n_items)
    model = scoring(np.ones((30, n_items)))
    relevant = rng.random((30, n_items)) < 0.2
    relevant[:, 0] = True
    figures = []
    for order in (np.arange(n_items), np.arange(n_items)[::-1], rng.permutation(n_items)):
        users, items = np.nonzero(relevant[:, order])
        test = Interactions.from_arrays(users, items)
        figures.append(fastmf.evaluate(model, test, k=(1, 3, 5), exclude=None, cold="include", metrics=NAMES))

    assert figures[1] == pytest.approx(figures[0], rel=1e-12)
    assert figures[2] == pytest.approx(figures[0], rel=1e-12)
    for k in (1, 3, 5):
        assert figures[0][f"precision@{k}"] == pytest.approx(relevant.mean(), rel=1e-12)
    # The first of R relevant items among n stands at place 1 with probability R / n.
    assert figures[0]["mrr@1"] == pytest.approx((relevant.sum(axis=1) / n_items).mean(), rel=1e-12)


def test_excluded_items_are_in_no_group() -> None:
    table, seen = np.ones((2, 6)), np.zeros((2, 6))
    seen[:, :3] = 1
    model = scoring(table, seen)
    test = Interactions.from_arrays([0, 0, 1], [1, 4, 5])

    figures = fastmf.evaluate(model, test, k=2, cold="include", metrics=["precision", "recall", "hit_rate"])

    # Items 3, 4 and 5 are left: each is among the first two with probability 2/3; item 1 can only be missed.
    assert figures["precision@2"] == pytest.approx((2 / 3) / 2)
    assert figures["recall@2"] == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert figures["hit_rate@2"] == pytest.approx(2 / 3)
    assert figures["n_excluded"] == 1


def test_users_with_and_without_ties_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    table = rng.permuted(np.tile(np.arange(50.0), (20, 1)), axis=1)
    table[::3] = np.floor(table[::3] / 7)
    table[6] = 1
    users, items = np.nonzero(rng.random((20, 50)) < 0.1)
    test = Interactions.from_arrays(users, items)
    asked = {"k": (2, 9), "exclude": None, "cold": "include", "metrics": NAMES}
    together = fastmf.evaluate(scoring(table), test, **asked)

    alone = []
    for user in sorted(set(users.tolist())):
        own = Interactions.from_arrays(users[users == user], items[users == user])
        alone.append(fastmf.evaluate(scoring(table), own, **asked))

    for name, value in together.items():
        if "@" in name:
            assert value == pytest.approx(np.mean([each[name] for each in alone]), rel=1e-12), name
    monkeypatch.setattr("fastmf.measuring.ties._PLACES", 4)
    monkeypatch.setattr("fastmf.measuring.rankings._BATCH", 7)
    assert fastmf.evaluate(scoring(table), test, **asked) == pytest.approx(together, rel=1e-12)


def test_without_ties_lists_say_all() -> None:
    rng = np.random.default_rng(6)
    table = rng.permuted(np.tile(np.arange(20.0), (15, 1)), axis=1)
    users, items = np.nonzero(rng.random((15, 20)) < 0.2)
    some = sorted(set(users.tolist()))

    figures = fastmf.evaluate(
        scoring(table), Interactions.from_arrays(users, items), k=4, exclude=None, cold="include", metrics=NAMES
    )

    lists = np.argsort(-table[some], axis=1)
    expected = metrics.ranking_metrics(lists, [items[users == user].tolist() for user in some], 4)
    assert {name: figures[f"{name}@4"] for name in NAMES} == expected
