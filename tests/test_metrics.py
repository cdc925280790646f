"""Each metric against its definition, spelled out as a loop, and against values worked out by hand."""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmf import metrics
from fastmf.errors import ParameterError

Lists = Sequence[Sequence[int]]


def precision(recommended: Sequence[int], relevant: set[int], k: int) -> float:
    return sum(item in relevant for item in recommended[:k]) / k


def recall(recommended: Sequence[int], relevant: set[int], k: int) -> float:
    return sum(item in relevant for item in recommended[:k]) / len(relevant)


def hit_rate(recommended: Sequence[int], relevant: set[int], k: int) -> float:
    return float(any(item in relevant for item in recommended[:k]))


def ndcg(recommended: Sequence[int], relevant: set[int], k: int) -> float:
    gained = sum(1 / math.log2(place + 1) for place in range(1, k + 1) if recommended[place - 1] in relevant)
    return gained / sum(1 / math.log2(place + 1) for place in range(1, min(k, len(relevant)) + 1))


def average_precision(recommended: Sequence[int], relevant: set[int], k: int) -> float:
    hits = [place for place in range(1, k + 1) if recommended[place - 1] in relevant]
    return sum(precision(recommended, relevant, place) for place in hits) / min(k, len(relevant))


def reciprocal_rank(recommended: Sequence[int], relevant: set[int], k: int) -> float:
    return next((1 / place for place in range(1, k + 1) if recommended[place - 1] in relevant), 0)


TWINS: dict[str, tuple[Callable[..., float], Callable[..., float]]] = {
    "precision": (metrics.precision_at_k, precision),
    "recall": (metrics.recall_at_k, recall),
    "hit_rate": (metrics.hit_rate_at_k, hit_rate),
    "ndcg": (metrics.ndcg_at_k, ndcg),
    "map": (metrics.map_at_k, average_precision),
    "mrr": (metrics.mrr_at_k, reciprocal_rank),
}


def random_lists(seed: int) -> tuple[np.ndarray, Lists]:
    """Recommendations of 40 users that end in -1 here and there, and relevant items; one user has none of these."""
    rng = np.random.default_rng(seed)
    recommended = np.array([rng.permutation(30)[:12] for _ in range(40)])
    for row in recommended[::3]:
        row[rng.integers(0, 12) :] = -1
    relevant = [rng.permutation(40)[: rng.integers(1, 20)].tolist() for _ in range(40)]
    relevant[5] = []
    return recommended, relevant


@pytest.mark.parametrize("k", [1, 3, 12])
@pytest.mark.parametrize("name", TWINS)
def test_ranking_metrics_are_the_mean_of_their_twins(name: str, k: int) -> None:
    metric, twin = TWINS[name]
    recommended, relevant = random_lists(seed=k)

    values = [twin(row.tolist(), set(wanted), k) for row, wanted in zip(recommended, relevant, strict=True) if wanted]

    assert 0 < np.mean(values) < 1
    assert metric(recommended, relevant, k) == pytest.approx(np.mean(values), rel=1e-12)
    assert metrics.ranking_metrics(recommended, relevant, k)[name] == metric(recommended, relevant, k)


@pytest.mark.parametrize("k", [1, 3, 12])
def test_chunks_of_users_and_a_full_table_do_not_show(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    recommended, relevant = random_lists(seed=k)
    whole = metrics.ranking_metrics(recommended, relevant, k)

    monkeypatch.setattr("fastmf_kernels.topk.hits._CHUNK", 16)
    monkeypatch.setattr("fastmf_kernels.topk.hits._MOST_IN_TABLE", 4)

    assert metrics.ranking_metrics(recommended, relevant, k) == whole


def by_formulas(recommended: np.ndarray, relevant: Lists, k: int) -> dict[str, float]:
    """Compute all figures from a table of hits that is filled user by user."""
    rows = [np.unique(row) for row in relevant]
    pairs = zip(recommended[:, :k], rows, strict=True)
    hits = np.array([np.isin(found, row) & (found >= 0) for found, row in pairs], float)
    n_relevant, places = np.array([len(row) for row in rows]), np.arange(1, k + 1)
    hits, n_relevant = hits[n_relevant > 0], n_relevant[n_relevant > 0]
    discounts = 1 / np.log2(places + 1)
    figures = {
        "precision": hits.mean(axis=1),
        "recall": hits.sum(axis=1) / n_relevant,
        "hit_rate": hits.max(axis=1),
        "ndcg": hits @ discounts / np.cumsum(discounts)[np.minimum(n_relevant, k) - 1],
        "map": (hits * np.cumsum(hits, axis=1) / places).sum(axis=1) / np.minimum(n_relevant, k),
        "mrr": (hits / places).max(axis=1),
    }
    return {name: float(values.mean()) for name, values in figures.items()}


@st.composite
def questions(draw: st.DrawFn) -> tuple[np.ndarray, Lists, int]:
    """Items with large or negative numbers, relevant ones that occur twice, and users without relevant items."""
    step, dtype = draw(st.sampled_from([(1, "i1"), (1, "u8"), (1, "f8"), (1000, "i4"), (2**40 + 1, "i8")]))
    items = st.integers(0 if dtype == "u8" else -2, 12).map(lambda item: item * step)
    n_users, width = draw(st.integers(1, 8)), draw(st.integers(1, 6))
    lists = st.lists(items, min_size=width, max_size=width, unique=True)
    recommended = draw(st.lists(lists, min_size=n_users, max_size=n_users))
    rows = st.lists(st.lists(items, max_size=9), min_size=n_users, max_size=n_users)
    return np.array(recommended, dtype), draw(rows.filter(any)), draw(st.integers(1, width))


@given(questions(), st.booleans())
def test_ranking_metrics_are_those_of_the_formulas(question: tuple[np.ndarray, Lists, int], as_pair: bool) -> None:
    recommended, relevant, k = question
    expected = by_formulas(recommended, relevant, k)
    rows: Any = relevant
    if as_pair:
        rows = np.cumsum([0, *map(len, relevant)]), np.array([item for row in relevant for item in row])

    assert metrics.ranking_metrics(recommended, rows, k) == pytest.approx(expected, rel=1e-13, abs=0)
    for name, (metric, _) in TWINS.items():
        assert metric(recommended, rows, k) == metrics.ranking_metrics(recommended, rows, k)[name]


def test_every_ranking_metric_has_a_twin() -> None:
    assert tuple(TWINS) == metrics.RANKING_METRICS


def test_names_of_metrics_are_those_they_are_declared_with() -> None:
    assert all(name == metric.name for name, metric in metrics.METRICS.items())


# One user sees 7, 3, 9, 1; 3, 1 and 8 would have been right: hits at places 2 and 4.
BY_HAND: dict[str, list[float]] = {  # at k = 1, 2, 4
    "precision": [0, 1 / 2, 2 / 4],
    "recall": [0, 1 / 3, 2 / 3],
    "hit_rate": [0, 1, 1],
    "ndcg": [
        0,
        (1 / math.log2(3)) / (1 + 1 / math.log2(3)),
        (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3) + 1 / 2),
    ],
    "map": [0, (1 / 2) / 2, (1 / 2 + 2 / 4) / 3],
    "mrr": [0, 1 / 2, 1 / 2],
}


@pytest.mark.parametrize(("place", "k"), [(0, 1), (1, 2), (2, 4)])
@pytest.mark.parametrize("name", TWINS)
def test_ranking_metrics_by_hand(name: str, place: int, k: int) -> None:
    metric, _ = TWINS[name]

    assert metric([[7, 3, 9, 1]], [[3, 1, 8]], k) == pytest.approx(BY_HAND[name][place])


@pytest.mark.parametrize("name", TWINS)
def test_a_perfect_list_scores_1_and_an_empty_one_0(name: str) -> None:
    metric, _ = TWINS[name]

    assert metric([[1, 2, 3], [4, 5, 6]], [[3, 1, 2], [4, 5, 6]], 3) == pytest.approx(1)
    assert metric([[-1, -1, -1]], [[0, 1, 2]], 3) == 0


def test_users_without_relevant_items_do_not_count() -> None:
    assert metrics.recall_at_k([[1], [2], [3]], [[1], [], [4]], 1) == 0.5


def test_relevant_items_may_be_rows_of_a_sparse_matrix() -> None:
    recommended, relevant = random_lists(seed=0)
    indptr = np.cumsum([0, *map(len, relevant)])
    indices = np.concatenate([np.array(row, np.int32) for row in relevant])

    assert metrics.ranking_metrics(recommended, (indptr, indices), 5) == metrics.ranking_metrics(
        recommended, relevant, 5
    )


def test_an_item_named_twice_is_one_relevant_item() -> None:
    assert metrics.recall_at_k([[1, 2]], [[1, 1, 5]], 2) == 0.5


def test_items_beyond_the_recommended_ones_are_missed_and_not_confused_with_those_of_the_next_user() -> None:
    # With rows laid end to end at the width of the recommendations, item 12 of user 0 would be item 2 of user 1.
    assert metrics.hit_rate_at_k([[9], [2]], [[12], [7]], 1) == 0


def test_rmse_and_mae_by_hand() -> None:
    assert metrics.rmse([1, 2, 3], [1, 4, 0]) == pytest.approx(math.sqrt((0 + 4 + 9) / 3))
    assert metrics.mae([1, 2, 3], [1, 4, 0]) == pytest.approx((0 + 2 + 3) / 3)


def test_rmse_and_mae_are_summed_in_float64() -> None:
    # In float32 the square of 0.1 is off in the eighth digit, and the sum of many in an earlier one.
    errors = np.full(100_000, 0.1, np.float32)

    assert metrics.rmse(errors, np.zeros_like(errors)) == pytest.approx(float(np.float32(0.1)), rel=1e-9)
    assert metrics.mae(errors, np.zeros_like(errors)) == pytest.approx(float(np.float32(0.1)), rel=1e-9)


@pytest.mark.parametrize("metric", [metrics.rmse, metrics.mae])
@pytest.mark.parametrize(("ratings", "predictions"), [([], []), ([1, 2], [1]), ([1], [[1]])])
def test_errors_of_arrays_that_do_not_fit_are_refused(
    metric: Callable[..., float], ratings: list[float], predictions: list[Any]
) -> None:
    with pytest.raises(ParameterError, match=r"ratings have shape \(.*\) and predictions \(.*\); expected the same"):
        metric(ratings, predictions)


def auc(scores: Sequence[float], relevant: Sequence[bool]) -> float:
    """Compare every relevant item with every irrelevant one."""
    kept = [(score, wanted) for score, wanted in zip(scores, relevant, strict=True) if score > -math.inf]
    positives, negatives = ([s for s, wanted in kept if wanted == side] for side in (True, False))
    wins = sum((p > n) + (p == n) / 2 for p in positives for n in negatives)
    return wins / (len(positives) * len(negatives))


@pytest.mark.parametrize("seed", range(5))
def test_auc_is_its_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 12, 60).astype(float)  # few values: many ties
    scores[rng.random(60) < 0.2] = -math.inf
    relevant = rng.random(60) < 0.3

    assert metrics.auc(scores, relevant) == pytest.approx(auc(scores.tolist(), relevant.tolist()), rel=1e-12)


@pytest.mark.parametrize(
    ("scores", "relevant", "value"),
    [
        ([3, 2, 1], [True, False, False], 1),
        ([3, 2, 1], [False, False, True], 0),
        ([3, 2, 1], [False, True, False], 0.5),
        ([1, 1], [True, False], 0.5),
        ([2, 1, 1, 0], [False, True, False, True], (1 / 2 + 0) / 4),
        ([-math.inf, 2, 1], [True, True, False], 1),
    ],
)
def test_auc_by_hand(scores: list[float], relevant: list[bool], value: float) -> None:
    assert metrics.auc(scores, relevant) == pytest.approx(value)


@pytest.mark.parametrize("relevant", [[True, True], [False, False]])
def test_auc_is_undefined_where_all_or_none_are_relevant(relevant: list[bool]) -> None:
    assert math.isnan(metrics.auc([1, 2], relevant))


def test_auc_refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(ParameterError, match=r"scores have shape \(2,\) and relevant \(1,\); expected \(n_items,\)"):
        metrics.auc([1, 2], [True])


def test_coverage_counts_each_item_once_and_no_empty_place() -> None:
    assert metrics.coverage([[1, 2], [2, -1], [-1, -1]], n_items=8) == 2 / 8
    assert metrics.coverage([[-1]], n_items=3) == 0
    assert metrics.coverage([[0, 1, 2]], n_items=3) == 1


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda: metrics.recall_at_k([[1, 2]], [[1]], 3),
            "recommended has shape (1, 2); expected (n_users, at least k",
        ),
        (lambda: metrics.recall_at_k([1, 2], [[1]], 1), "recommended has shape (2,); expected (n_users, at least k"),
        (lambda: metrics.recall_at_k([[1, 2]], [[1]], 0), "k is 0; expected an integer of at least 1"),
        (lambda: metrics.recall_at_k([[1]], [[1], [2]], 1), "relevant has 2 rows for 1 users; expected one each"),
        (lambda: metrics.recall_at_k([[1]], [[]], 1), "no user has a relevant item; expected at least one"),
        (lambda: metrics.coverage([[1]], 0), "n_items is 0; expected an integer of at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(ask: Callable[[], float], message: str) -> None:
    with pytest.raises(ParameterError) as error:
        ask()

    assert message in str(error.value)


EVERY = {**{name: metric for name, (metric, _) in TWINS.items()}, "all": metrics.ranking_metrics}
LISTS: dict[str, Callable[[Any], Any]] = {
    "coverage": lambda recommended: metrics.coverage(recommended, 10),
    "gini": lambda recommended: metrics.gini(recommended, 10),
    "graded_ndcg": lambda recommended: metrics.graded_ndcg_at_k(
        recommended, [[1]] * len(recommended), np.ones(len(recommended)), 2
    ),
    "novelty": lambda recommended: metrics.novelty(recommended, np.full(10, 0.5)),
    "diversity": lambda recommended: metrics.diversity(recommended, np.eye(10)),
    **{
        name: lambda recommended, metric=metric: metric(recommended, [[1]] * len(recommended), 2)
        for name, metric in EVERY.items()
    },
}


@pytest.mark.parametrize("recommended", [[[4, 4]], [[1, 2, 1]], [[1, 2, 3], [3, -1, 3]], np.zeros((2, 3), np.uint8)])
@pytest.mark.parametrize("name", LISTS)
def test_an_item_twice_in_a_list_is_refused(name: str, recommended: Any) -> None:
    with pytest.raises(
        ParameterError, match=r"recommended has item \d twice in row \d \(from 0\); expected each item once"
    ):
        LISTS[name](recommended)


@pytest.mark.parametrize(
    "recommended",
    [
        [[1.5, 2]],
        [[np.nan, 1]],
        [[np.inf, 1]],
        [["1", "2"]],
        [[b"1", b"2"]],
        [[None, 1]],
        [[True, False]],
        [[1j, 2]],
        [[1, 2], [3]],
        np.array([[1, 2]], object),
        np.zeros((1, 2), "M8[s]"),
        np.full((1, 2), 1e300),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", LISTS)
def test_recommended_items_are_whole_numbers(name: str, recommended: Any) -> None:
    with pytest.raises(ParameterError, match=r"^recommended "):
        LISTS[name](recommended)


@pytest.mark.parametrize("name", ["coverage", "novelty", "diversity"])
def test_recommended_items_are_in_the_catalogue(name: str) -> None:
    for recommended in ([[10]], [[2**40]], [[3, 11]]):
        with pytest.raises(ParameterError, match=r"recommended has item \d+; expected at most 9: there are 10"):
            LISTS[name](recommended)
    with pytest.raises(ParameterError, match=r"recommended has shape \(2,\); expected"):
        LISTS[name]([1, 2])


FALSE_ROWS: list[Any] = [
    [[1.5], [2]],
    [["1"], [2]],
    [[None], [2]],
    [[np.nan], [2]],
    [[True], [2]],
    [[[1]], [2]],
    ["ab", [2]],
    [1, 2],
    "ab",
    5,
    None,
    [[2**70], [2]],
    (np.array([0, 1, 3]), np.array([1, 2])),
    (np.array([0, 2, 1]), np.array([1])),
    (np.array([1, 1, 2]), np.array([1, 2])),
    (np.array([-1, 1, 2]), np.array([1, 2])),
    (np.array([0, 1]), np.array([1])),
    (np.array([0.0, 0.5, 2]), np.array([1, 2])),
    (np.array([0, 1, 2]), np.array([1, 2.5])),
    (np.array([0, 1, 2]), np.array(["1", "2"])),
    (np.array([0, 1, 2]), np.array([[1, 2]])),
    (np.array([[0, 1, 2]]), np.array([1, 2])),
    (np.array([0, 2**62, 2]), np.array([1, 2])),
    (np.array([0, 2**64 - 1, 2], np.uint64), np.array([1, 2])),
    (np.array([0, 1, 2]), np.array([1, 2**64 - 1], np.uint64)),
    (np.empty(0, int), np.empty(0, int)),
]


@pytest.mark.parametrize("relevant", FALSE_ROWS, ids=range(len(FALSE_ROWS)))
@pytest.mark.parametrize("name", EVERY)
def test_false_rows_of_relevant_items_are_refused(name: str, relevant: Any) -> None:
    with pytest.raises(ParameterError, match="relevant"):
        EVERY[name]([[1, 2], [3, 4]], relevant, 2)


@pytest.mark.parametrize(
    "relevant",
    [
        iter([[1], [3, 5]]),
        [{1}, {3, 5}],
        [iter([1]), (item for item in (3, 5))],
        [np.array([1.0]), np.array([3, 5], np.int8)],
        ([1], [3, 5]),
        (np.array([0, 1, 3], np.uint8), np.array([1.0, 3, 5])),
        (row for row in ([1], [3, 5])),
    ],
    ids=range(7),
)
def test_rows_of_relevant_items_in_other_forms(relevant: Any) -> None:
    assert metrics.recall_at_k([[1, 2], [3, 4]], relevant, 2) == 0.75


def test_masked_numbers_are_not_measured() -> None:
    masked = np.ma.array([1.0, 2.0], mask=[0, 1])

    for measure in (
        lambda: metrics.rmse(masked, [1, 1]),
        lambda: metrics.mae([1, 1], masked),
        lambda: metrics.auc(masked, [1, 0]),
        lambda: metrics.recall_at_k(np.ma.array([[1, 2]], mask=[[0, 1]]), [[2]], k=2),
        lambda: metrics.recall_at_k([[1, 2]], [masked], k=2),
    ):
        with pytest.raises(ParameterError, match="has 1 masked values"):
            measure()
    assert metrics.rmse(np.ma.array([1.0, 2.0]), [1, 2]) == 0


@pytest.mark.parametrize("scores", [[np.nan, 1, 2], [np.nan] * 3, [1, 2, -np.nan]])
def test_auc_refuses_scores_that_are_nan(scores: list[float]) -> None:
    with pytest.raises(ParameterError, match=r"scores have \d NaN; expected numbers, -inf for none"):
        metrics.auc(scores, [True, False, True])


@pytest.mark.parametrize("relevant", [[0.5, 1, 0], ["a", "b", "c"], [2, 1, 0], [None, True, False], [np.nan, 1, 0]])
def test_auc_refuses_relevance_that_is_neither_true_nor_false(relevant: Any) -> None:
    with pytest.raises(ParameterError, match=r"relevant has type .*; expected True or False for each item"):
        metrics.auc([1, 2, 3], relevant)


def test_auc_takes_0_and_1() -> None:
    assert metrics.auc([1, 2, 3], [0, 0, 1]) == metrics.auc([1, 2, 3], [0.0, 0.0, 1.0]) == 1


@pytest.mark.parametrize("metric", [metrics.rmse, metrics.mae])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_errors_of_what_is_not_finite_are_refused(metric: Callable[..., float], bad: float) -> None:
    with pytest.raises(ParameterError, match="ratings have 1 numbers that are not finite; expected finite numbers"):
        metric([1, bad], [1, 2])
    with pytest.raises(ParameterError, match="predictions have 1 numbers that are not finite"):
        metric([1, 2], [bad, 2])


@pytest.mark.parametrize("bad", [["1", "2"], [None, 1], [[1], [1, 2]], [1j, 2]])
def test_errors_of_what_is_no_number_are_refused(bad: Any) -> None:
    for metric in (metrics.rmse, metrics.mae):
        with pytest.raises(ParameterError, match=r"^ratings "):
            metric(bad, [1, 2])


@pytest.mark.parametrize("shares", [[0.5, 1.5], [-0.1, 0.5], [np.nan, 0.5], [[0.5, 0.5]], ["a", "b"]])
def test_shares_are_from_0_to_1(shares: Any) -> None:
    with pytest.raises(ParameterError, match="known_share has "):
        metrics.novelty([[0, 1]], shares)


@pytest.mark.parametrize("factors", [[0.5, 1.5], [[np.nan, 1], [1, 2]], [[np.inf, 1], [1, 2]], [["a"], ["b"]]])
def test_factors_are_a_finite_table(factors: Any) -> None:
    with pytest.raises(ParameterError, match=r"^item_factors ha"):
        metrics.diversity([[0, 1]], factors)


def test_what_is_undefined_is_none_for_evaluation() -> None:
    makers: dict[str, Any] = {
        "irrelevant_above": lambda: np.empty(0),
        "recommended": lambda: np.array([[-1]]),
        "known_share": lambda: np.array([0.5]),
        "item_factors": lambda: np.ones((1, 1)),
    }
    for name in ("auc", "novelty", "diversity"):
        assert metrics.METRICS[name].measure(makers) is None
    assert json.dumps(metrics.METRICS["auc"].measure(makers)) == "null"


def test_novelty_by_hand() -> None:
    shares = [0.5, 0.25, 0, 1]
    assert metrics.novelty([[0, 1], [3, -1]], shares) == pytest.approx((1 + 2 + 0) / 3)
    assert metrics.novelty([[2]], shares) == 2  # nobody knows it: as if it were the least known
    assert math.isnan(metrics.novelty([[-1]], shares))
    assert math.isnan(metrics.novelty([[0]], [0, 0]))
    assert math.isnan(metrics.novelty([[]], shares))


def test_diversity_by_hand() -> None:
    factors = np.array([[2, 0], [0, 3], [-1, 0], [0, 0]])
    assert metrics.diversity([[0, 1]], factors) == 1
    assert metrics.diversity([[0, 2]], factors) == 2
    assert metrics.diversity([[0, 1], [0, 2], [1, -1]], factors) == 1.5  # a single item has no pair
    assert metrics.diversity([[0, 3, -1]], factors) == 1  # no direction: like nothing
    assert metrics.diversity([[0, 1, 2]], factors) == pytest.approx((1 + 2 + 1) / 3)
    assert math.isnan(metrics.diversity([[0]], factors))
    assert math.isnan(metrics.diversity(np.empty((0, 3), int), factors))


def test_items_may_have_any_numbers() -> None:
    large = 2**40
    figures = metrics.ranking_metrics([[large + 1, 5], [-1, large]], [[5, large + 1], [-1, 2**32 + large]], k=2)
    assert figures["precision"] == 0.5
    assert figures["recall"] == 0.5
    assert figures["mrr"] == 0.5


def graded_ndcg(recommended: Sequence[int], gains: dict[int, float], k: int) -> float:
    gained = sum(gains.get(item, 0) / math.log2(place + 2) for place, item in enumerate(recommended[:k]) if item >= 0)
    best = sorted(gains.values(), reverse=True)[:k]
    return gained / sum(gain / math.log2(place + 2) for place, gain in enumerate(best))


@pytest.mark.parametrize("k", [1, 3, 12])
@pytest.mark.parametrize("as_arrays", [True, False])
def test_graded_ndcg_is_the_mean_of_its_twin(as_arrays: bool, k: int) -> None:
    recommended, relevant = random_lists(seed=k)
    rng = np.random.default_rng(k)
    gains = [rng.integers(0, 6, len(row)).astype(float).tolist() for row in relevant]
    gains[7] = [0.0] * len(relevant[7])  # nothing to be had: left out
    rows = zip(recommended, relevant, gains, strict=True)
    values = [
        graded_ndcg(row.tolist(), dict(zip(items, each, strict=True)), k) for row, items, each in rows if any(each)
    ]

    given: Any = relevant, gains
    if as_arrays:
        indptr = np.cumsum([0, *map(len, relevant)])
        given = (indptr, np.concatenate([np.array(row, int) for row in relevant])), np.concatenate(gains)

    assert 0 < np.mean(values) < 1
    assert metrics.graded_ndcg_at_k(recommended, *given, k) == pytest.approx(np.mean(values), rel=1e-12)


@pytest.mark.parametrize("k", [1, 3, 12])
def test_with_gains_of_1_graded_ndcg_is_ndcg(k: int) -> None:
    recommended, relevant = random_lists(seed=k)
    gains = np.ones(sum(map(len, relevant)))

    graded = metrics.graded_ndcg_at_k(recommended, relevant, gains, k)

    assert graded == pytest.approx(metrics.ndcg_at_k(recommended, relevant, k), rel=1e-12)


def test_graded_ndcg_by_hand() -> None:
    ideal = 4 + 2 / math.log2(3) + 1 / 2
    value = metrics.graded_ndcg_at_k([[7, 3, 9]], [[3, 1, 9]], [[2, 4, 1]], k=3)
    assert value == pytest.approx((2 / math.log2(3) + 1 / 2) / ideal)
    assert metrics.graded_ndcg_at_k([[1, 3, 9]], [[3, 1, 9]], [[2, 4, 1]], k=3) == 1
    assert metrics.graded_ndcg_at_k([[1, 2]], [[1, 1]], [[3, 9]], k=2) == 1  # the first of two gains counts
    assert math.isnan(metrics.graded_ndcg_at_k([[1, 2]], [[1, 2]], [[0, 0]], k=2))
    large = 2**60
    assert metrics.graded_ndcg_at_k([[large, -5]], [[-5, large]], [[0, 1]], k=2) == 1


@pytest.mark.parametrize(
    ("gains", "message"),
    [
        ([1.0], "gains have shape (1,); expected (2,), one for each relevant item"),
        ([[1, 2], [3]], "gains have shape (3,); expected (2,)"),
        ([[1, -1]], "gains have numbers below 0, infinite ones or NaN; expected finite numbers of at least 0"),
        ([[1, np.nan]], "gains have numbers below 0, infinite ones or NaN"),
        ([["a", "b"]], "gains has type <U1; expected numbers"),
        (5, "gains have shape (); expected (2,)"),
    ],
)
def test_gains_that_make_no_sense_are_refused(gains: Any, message: str) -> None:
    with pytest.raises(ParameterError) as raised:
        metrics.graded_ndcg_at_k([[1, 2]], [[1, 2]], gains, 1)

    assert message in str(raised.value)


def test_gini_by_hand() -> None:
    assert metrics.gini([[0, 1, 2], [2, 1, 0]], n_items=3) == 0
    assert metrics.gini([[1], [1], [1]], n_items=5) == 1
    assert metrics.gini([[0, 1], [0, -1], [0, -1]], n_items=2) == pytest.approx((3 - 1) / (3 + 1))
    assert math.isnan(metrics.gini([[-1]], n_items=4))
    assert math.isnan(metrics.gini([[0]], n_items=1))


@given(st.lists(st.integers(-1, 11), min_size=1, max_size=40).filter(lambda items: max(items) >= 0))
def test_gini_is_half_the_mean_difference_of_counts_over_their_mean(items: list[int]) -> None:
    counts = np.array([items.count(item) for item in range(12)])
    differences = np.abs(np.subtract.outer(counts, counts)).sum() / (12 * 11)

    value = metrics.gini([[item] for item in items], n_items=12)

    assert value == pytest.approx(differences / (2 * counts.mean()), abs=1e-12)
    assert 0 <= value <= 1


def test_gini_refuses_what_is_not_in_the_catalogue() -> None:
    with pytest.raises(ParameterError, match="recommended has item 3; expected at most 2: there are 3"):
        metrics.gini([[3]], n_items=3)
    with pytest.raises(ParameterError, match="recommended has item 1 twice in row 0"):
        metrics.gini([[1, 1]], n_items=3)


Rated = list[tuple[int, float, float]]


def fcp(rated: Rated) -> float:
    """Look at every pair of a user."""
    pairs = [(a, b) for a in rated for b in rated if a[0] == b[0] and a[1] > b[1]]
    return sum(a[2] > b[2] for a, b in pairs) / len(pairs) if pairs else math.nan


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_fcp_is_its_twin(rated: Rated) -> None:
    assert metrics.fcp(*zip(*rated, strict=True)) == pytest.approx(fcp(rated), nan_ok=True)


def test_fcp_of_many_ratings_of_a_user_is_its_twin() -> None:
    rng = np.random.default_rng(0)
    users, ratings = rng.integers(0, 3, 500), rng.integers(1, 6, 500)
    predictions = (ratings + rng.normal(0, 2, 500)).round(1)

    expected = fcp(list(zip(users.tolist(), ratings.tolist(), predictions.tolist(), strict=True)))

    assert 0.5 < expected < 0.9
    assert metrics.fcp(users, ratings, predictions) == pytest.approx(expected, rel=1e-12)


def test_fcp_by_hand() -> None:
    assert metrics.fcp([1, 1], [5, 3], [4, 2]) == 1
    assert metrics.fcp([1, 1], [5, 3], [2, 4]) == 0
    assert metrics.fcp([1, 1], [5, 3], [4, 4]) == 0  # not told apart
    assert metrics.fcp(["ann", "ann", "bob", "bob"], [5, 3, 5, 3], [4, 2, 2, 4]) == 0.5
    assert math.isnan(metrics.fcp([1, 2, 3], [5, 3, 1], [1, 2, 3]))  # pairs are those of one user
    assert math.isnan(metrics.fcp([1, 1], [3, 3], [1, 2]))
    # Pairs of all users together, not the mean over users: 3 of 3 of one, 0 of 1 of the other.
    assert metrics.fcp([1, 1, 1, 2, 2], [1, 2, 3, 1, 2], [1, 2, 3, 2, 1]) == 3 / 4


def test_fcp_refuses_what_does_not_fit() -> None:
    with pytest.raises(ParameterError, match=r"users have shape \(1,\) and ratings \(2,\); expected \(n_ratings,\)"):
        metrics.fcp([1], [1, 2], [1, 2])
    with pytest.raises(ParameterError, match="predictions have 1 numbers that are not finite"):
        metrics.fcp([1, 1], [1, 2], [1, np.nan])
    with pytest.raises(ParameterError, match=r"ratings have shape \(0,\)"):
        metrics.fcp([], [], [])
