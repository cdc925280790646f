"""Recall of several groups of items from one table of scores."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from fastmf import Interactions
from fastmf.answering.rows import take_rows
from fastmf.measuring.bootstrap import interval, totals_of_samples
from fastmf.measuring.user_values import UserValues
from fastmf_bench.cold_sets import FEW, Parts
from fastmf_kernels._types import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array
from fastmf_kernels.topk.arrays import Rows

K = 20
LEVEL = 0.95
_USERS_AT_ONCE = 512

Scores = Callable[[Int32Array], Float32Array]
"""Returns the scores of all items for some users, shape (n_users, n_items)."""


class Question(NamedTuple):
    """Which items are to be found, among which.

    Attributes
    ----------
    relevant : Rows
        The test items of each user.
    candidates : bool array, shape (n_items,)
    """

    relevant: Rows
    candidates: BoolArray


class Threshold(NamedTuple):
    """What decides, for each user, whether an item is among his best 20 candidates.

    Attributes
    ----------
    scores : float32 array, shape (n_users,)
        The 20th highest.
    n_above : int64 array, shape (n_users,)
        How many candidates have a higher one.
    n_equal : int64 array, shape (n_users,)
        How many have the same.
    """

    scores: Float32Array
    n_above: Int64Array
    n_equal: Int64Array


class Estimate(NamedTuple):
    """A metric with the ends of its interval of 95 %."""

    value: float
    low: float
    high: float


def questions_of(parts: Parts) -> dict[str, Question]:
    """Return what is asked of every method.

    ======================  ==================================================  ===========================
    name                    test ratings                                        candidates
    ======================  ==================================================  ===========================
    cold                    of items without training ratings                   items without any
    cold of all             the same                                            all items
    few                     of items with 1 to 4 training ratings               items with training ratings
    few of few              the same                                            items with 1 to 4
    rest                    of items with 5 or more                             items with training ratings
    few of all, rest of     as few and rest                                     all items
    all
    all                     all                                                 all items
    ======================  ==================================================  ===========================

    What a user has in the training part is never a candidate.
    """
    counts = parts.n_train
    every, known = np.ones(len(counts), bool), counts > 0
    n_of_warm = counts[parts.warm.items]
    cold = _rows(parts.cold)
    few, rest = (_rows(parts.warm.take(np.flatnonzero(mask))) for mask in (n_of_warm < FEW, n_of_warm >= FEW))
    return {
        "cold": Question(cold, parts.is_cold),
        "cold of all": Question(cold, every),
        "few": Question(few, known),
        "few of few": Question(few, known & (counts < FEW)),
        "rest": Question(rest, known),
        "few of all": Question(few, every),
        "rest of all": Question(rest, every),
        "all": Question(_together(parts), every),
    }


def recalls(scores: Scores, seen: Interactions, questions: Mapping[str, Question]) -> dict[str, UserValues]:
    """Return the Recall@20 of each user, for each question: the share of his relevant items among the best 20.

    Items with equal scores count with the probability that they are among the best 20 in a random order.

    Parameters
    ----------
    scores : callable
    seen : Interactions
        What users have already.
    questions : mapping of str to Question

    Returns
    -------
    dict of str to UserValues
        A value is undefined for a user without relevant items.
    """
    excluded = _rows(seen)
    counts = {name: np.diff(question.relevant.indptr) for name, question in questions.items()}
    hits = {name: np.zeros(seen.n_users) for name in questions}
    asked = np.flatnonzero(np.any(list(counts.values()), axis=0)).astype(np.int32)
    for start in range(0, len(asked), _USERS_AT_ONCE):
        users = asked[start : start + _USERS_AT_ONCE]
        table = np.array(scores(users), np.float32)
        table[_pairs(take_rows(excluded, users))] = -np.inf
        thresholds: dict[bytes, Threshold] = {}
        for name, question in questions.items():
            key = question.candidates.tobytes()
            if key not in thresholds:
                thresholds[key] = _threshold(table[:, question.candidates])
            hits[name][users] = _hits(table, take_rows(question.relevant, users), thresholds[key])
    return {
        name: UserValues.of(np.divide(hits[name], n, out=np.full(len(n), np.nan), where=n > 0))
        for name, n in counts.items()
    }


def estimates(values: Mapping[str, UserValues], seed: int) -> dict[str, Estimate]:
    """Return the mean of each metric over users, with its interval by the bootstrap over users."""
    found = {}
    for name, of_users in values.items():
        defined = of_users.take(of_users.is_defined)
        if not len(defined.sums):
            continue
        low, high = interval(totals_of_samples([defined], seed)[:, 0], LEVEL, len(defined.sums))
        found[name] = Estimate(defined.total, _or_value(low, defined.total), _or_value(high, defined.total))
    return found


def difference(first: UserValues, second: UserValues, seed: int) -> Estimate | None:
    """Return one metric less another of the same users, with its interval by the paired bootstrap.

    None where nobody has a value.
    """
    users = first.is_defined
    if not users.any():
        return None
    pair = [first.take(users), second.take(users)]
    drawn = totals_of_samples(pair, seed) @ [1.0, -1.0]
    value = pair[0].total - pair[1].total
    low, high = interval(drawn, LEVEL, len(pair[0].sums))
    return Estimate(value, _or_value(low, value), _or_value(high, value))


def _or_value(end: float | None, value: float) -> float:
    return value if end is None else end


def _threshold(table: Float32Array) -> Threshold:
    """Find the 20th highest score of each row; with fewer columns, the lowest."""
    place = max(0, table.shape[1] - K)
    scores = np.partition(table, place, axis=1)[:, place]
    columns = scores[:, np.newaxis]
    return Threshold(scores, (table > columns).sum(axis=1), (table == columns).sum(axis=1))


def _hits(table: Float32Array, relevant: Rows, threshold: Threshold) -> Float64Array:
    """Count the relevant items of each user among his best 20."""
    users, items = _pairs(relevant)
    scores, at = table[users, items], threshold.scores[users]
    share = np.minimum(1, (K - threshold.n_above) / np.maximum(threshold.n_equal, 1))[users]
    shown = np.where(scores > at, 1.0, np.where((scores == at) & np.isfinite(scores), share, 0.0))
    counted: Float64Array = np.bincount(users, shown, minlength=len(table)).astype(np.float64)
    return counted


def _pairs(rows: Rows) -> tuple[Int64Array, Int32Array]:
    """Return the row and the column of each entry."""
    return np.repeat(np.arange(len(rows.indptr) - 1), np.diff(rows.indptr)), rows.indices


def _rows(ratings: Interactions) -> Rows:
    rows = ratings.by_user
    return Rows(rows.indptr, rows.indices)


def _together(parts: Parts) -> Rows:
    """Return all test items of each user."""
    users = np.concatenate([parts.cold.users, parts.warm.users])
    items = np.concatenate([parts.cold.items, parts.warm.items])
    order = np.lexsort((items, users))
    counts = np.bincount(users, minlength=parts.train.n_users)
    return Rows(np.append(0, np.cumsum(counts)).astype(np.int64), items[order].astype(np.int32))
