"""Growing a fitted model: rows for the users and items of more ratings that it does not know yet.

Those without any rating, old or new, take no part, as in `fastmf.models.warm`. One that the model knew without a rating
is new with the first.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from fastmf.answering.fitted import Fitted
from fastmf.answering.rows import merged_ratings, union
from fastmf.errors import DataError
from fastmf.models.training import describe, first_factors, first_state
from fastmf.models.units import trained_deviation
from fastmf.models.warm import warm_part
from fastmf.reading.id_spaces import Merged, merge
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import Float32Array, Int32Array, Int64Array
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Factors
from fastmf_kernels.topk.arrays import Rows


class Grown(NamedTuple):
    """A fitted model and more ratings in one id space: that of the users and items that have a rating in either.

    Attributes
    ----------
    start : Fitted
        A copy of the model with a row for each of these users and items.
    more : Interactions
    whole : Whole or None
        The ids that neither has a rating of are among these; None if there are none.
    old_users, old_items : int32 arrays
        Those that had a rating in the model, ascending.
    """

    start: Fitted
    more: Interactions
    whole: "Whole | None"
    old_users: Int32Array
    old_items: Int32Array


class Whole(NamedTuple):
    """All users and items, and which of them have ratings.

    Attributes
    ----------
    user_ids, item_ids : Arrow arrays
    users, items : int64 arrays
        Indices of those that have ratings, ascending.
    """

    user_ids: pa.Array
    item_ids: pa.Array
    users: Int64Array
    items: Int64Array

    def spread_rows(self, rows: Rows) -> Rows:
        """Give rows of users and items that have ratings the numbers that these have among all."""
        counts = np.zeros(len(self.user_ids) + 1, np.int64)
        counts[self.users + 1] = np.diff(rows.indptr)
        return Rows(np.cumsum(counts), self.items[rows.indices].astype(np.int32))

    def spread(self, array: Float32Array, side: str) -> Float32Array:
        """Return an array of users or of items that have ratings with a row for each of all, 0 for the others."""
        rows, ids = (self.users, self.user_ids) if side == "user" else (self.items, self.item_ids)
        whole = np.zeros((len(ids), *array.shape[1:]), np.float32)
        whole[rows] = array
        return whole


def grow(fitted: Fitted, ratings: Interactions, init_scale: float, seed: int, n_threads: int | None) -> Grown:
    """Bring a fitted model and more ratings to one id space.

    Parameters
    ----------
    fitted : Fitted
    ratings : Interactions
    init_scale : float
        Size of the first factors of new users and items, 0 for none; their first biases are 0.
    seed : int
    n_threads : int, optional
        Number of threads that lay the ratings out; None: all cores.

    Returns
    -------
    Grown

    Raises
    ------
    DataError
        If ids are integers on one side and strings on the other, or the model does not know its training ratings.
    """
    if not fitted.counts.are_known:
        raise DataError(
            "the model does not know what it was trained on, as it comes from another library, and cannot be trained "
            "further; train a new one on all ratings with fit(...)"
        )
    whole = _whole(fitted, ratings)
    if whole is not None:
        part = warm_part(ratings)
        fitted, ratings = _without_cold(fitted), ratings if part is None else part.ratings
    users = _merged(fitted.user_ids, ratings.user_ids, "user_ids")
    items = _merged(fitted.item_ids, ratings.item_ids, "item_ids")
    more = Interactions(
        users.of_second[ratings.users],
        items.of_second[ratings.items],
        ratings.ratings,
        ratings.timestamps,
        users.ids,
        items.ids,
        timestamp_type=ratings.timestamp_type,
    )
    more.lay_out(n_threads)
    rng, n_factors = np.random.default_rng([seed, len(users.ids), len(items.ids)]), fitted.factors.user_factors.shape[1]
    old, draw = fitted.factors, first_factors if init_scale else _no_factors
    factors = Factors(
        _spread(old.user_factors, users, draw((len(users.ids), n_factors), init_scale, rng)),
        _spread(old.item_factors, items, draw((len(items.ids), n_factors), init_scale, rng)),
        _spread(old.user_biases, users, np.zeros(len(users.ids), np.float32)),
        _spread(old.item_biases, items, np.zeros(len(items.ids), np.float32)),
        old.global_mean,
    )
    state = {}
    for name, array in fitted.state.items():
        space = users if name.startswith("user_") else items
        state[name] = _spread(array, space, first_state(name, (len(space.ids), *array.shape[1:])))
    seen, values = _seen(fitted, users, items, more)
    figures, trained_with = _figures(fitted, more), fitted.trained_with
    start = Fitted(factors, fitted.link, users.ids, items.ids, seen, figures, state, trained_with, values=values)
    return Grown(start, more, whole, users.of_first, items.of_first)


def _no_factors(shape: tuple[int, int], *_: object) -> Float32Array:
    return np.zeros(shape, np.float32)


def _whole(fitted: Fitted, ratings: Interactions) -> Whole | None:
    """Return all ids of either, and which of them have ratings; None if neither has ids without ratings."""
    counts = fitted.counts
    is_warm_user, is_warm_item = counts.is_rated_user, counts.of_items > 0
    rated_users, rated_items = np.unique(ratings.users), np.unique(ratings.items)
    all_are_warm = is_warm_user.all() and is_warm_item.all()
    if all_are_warm and len(rated_users) == ratings.n_users and len(rated_items) == ratings.n_items:
        return None
    users = _merged(fitted.user_ids, ratings.user_ids, "user_ids")
    items = _merged(fitted.item_ids, ratings.item_ids, "item_ids")
    return Whole(
        users.ids,
        items.ids,
        np.union1d(users.of_first[is_warm_user], users.of_second[rated_users]).astype(np.int64),
        np.union1d(items.of_first[is_warm_item], items.of_second[rated_items]).astype(np.int64),
    )


def _without_cold(fitted: Fitted) -> Fitted:
    """Return a fitted model without the users and items that have no ratings."""
    counts, factors, seen = fitted.counts, fitted.factors, fitted.seen
    users, items = np.flatnonzero(counts.is_rated_user), np.flatnonzero(counts.of_items)
    return Fitted(
        Factors(
            factors.user_factors[users],
            factors.item_factors[items],
            factors.user_biases[users],
            factors.item_biases[items],
            factors.global_mean,
        ),
        fitted.link,
        fitted.user_ids.take(pa.array(users)),
        fitted.item_ids.take(pa.array(items)),
        Rows(np.append(seen.indptr[users], seen.indptr[-1]), _numbers(items, fitted.n_items)[seen.indices]),
        fitted.data,
        {name: array[users if name.startswith("user_") else items] for name, array in fitted.state.items()},
        fitted.trained_with,
        values=fitted.values,  # users without ratings have none
    )


def _numbers(rows: Int64Array, n_rows: int) -> Int32Array:
    """Return the number of each row among the chosen ones, -1 for the others."""
    numbers = np.full(n_rows, -1, np.int32)
    numbers[rows] = np.arange(len(rows), dtype=np.int32)
    return numbers


def _merged(known: pa.Array, given: pa.Array, column: str) -> Merged:
    return merge(known, given, ("the model", "the new ratings"), column)


def _spread(array: Float32Array, space: Merged, target: Float32Array) -> Float32Array:
    target[space.of_first] = array
    return target


def _seen(fitted: Fitted, users: Merged, items: Merged, more: Interactions) -> tuple[Rows, Float32Array | None]:
    """Return the ratings of both, of which a new one replaces an old one; no values if the model has kept none."""
    # Merging keeps ids in their order, so rows and columns of the model stay in theirs.
    counts = np.zeros(more.n_users + 1, np.int64)
    counts[users.of_first + 1] = np.diff(fitted.seen.indptr)
    before = Rows(np.cumsum(counts), items.of_first[fitted.seen.indices])
    if fitted.values is None:
        return union(before, Rows(more.by_user.indptr, more.by_user.indices), more.n_items), None
    indptr, indices, values = merged_ratings(CSR(*before, fitted.values), more.by_user, more.n_items)
    return Rows(indptr, indices), values


def _figures(fitted: Fitted, more: Interactions) -> dict[str, object]:
    before, added = fitted.data, describe(more)
    n_ratings = before["n_ratings"] + added["n_ratings"]
    fingerprint = f"{before.get('fingerprint')}, {added['fingerprint']}"
    joint: dict[str, object] = {"n_ratings": n_ratings, "mean": None, "fingerprint": fingerprint}
    if before.get("mean") is not None:
        total = before["mean"] * before["n_ratings"] + added["mean"] * added["n_ratings"]
        joint["mean"] = total / n_ratings
    if times := sorted([*before.get("times", ()), *added.get("times", ())]):
        joint["times"] = [times[0], times[-1]]
    return {**added, **joint, "deviation": trained_deviation(before)}
