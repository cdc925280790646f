"""Growing a fitted model: rows for the users and items of more ratings that it does not know yet."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from fastmf.answering.fitted import Fitted
from fastmf.answering.rows import rows_of_pairs, union
from fastmf.errors import DataError
from fastmf.models.training import describe, first_factors
from fastmf.models.units import trained_deviation
from fastmf.reading import ids
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import Float32Array, Int32Array
from fastmf_kernels.predict.arrays import Factors
from fastmf_kernels.topk.arrays import Rows


class _Space(NamedTuple):
    """The ids of a model and of more ratings merged, and the positions of either among them."""

    ids: pa.Array
    of_model: Int32Array
    of_ratings: Int32Array


def grow(
    fitted: Fitted, ratings: Interactions, init_scale: float, seed: int, n_threads: int | None
) -> tuple[Fitted, Interactions]:
    """Bring a fitted model and more ratings to one id space.

    Parameters
    ----------
    fitted : Fitted
    ratings : Interactions
    init_scale : float
        Size of the first factors of new users and items; their first biases are 0.
    seed : int
    n_threads : int, optional
        Number of threads that lay the ratings out; None: all cores.

    Returns
    -------
    fitted : Fitted
        A copy with a row for every user and item of either.
    ratings : Interactions

    Raises
    ------
    DataError
        If ids are integers on one side and strings on the other.
    """
    users = _merged(fitted.user_ids, ratings.user_ids, "user_ids")
    items = _merged(fitted.item_ids, ratings.item_ids, "item_ids")
    more = Interactions(
        users.of_ratings[ratings.users],
        items.of_ratings[ratings.items],
        ratings.ratings,
        ratings.timestamps,
        users.ids,
        items.ids,
        timestamp_type=ratings.timestamp_type,
    )
    more.lay_out(n_threads)
    rng, n_factors = np.random.default_rng([seed, len(users.ids), len(items.ids)]), fitted.factors.user_factors.shape[1]
    old = fitted.factors
    factors = Factors(
        _spread(old.user_factors, users, first_factors((len(users.ids), n_factors), init_scale, rng)),
        _spread(old.item_factors, items, first_factors((len(items.ids), n_factors), init_scale, rng)),
        _spread(old.user_biases, users, np.zeros(len(users.ids), np.float32)),
        _spread(old.item_biases, items, np.zeros(len(items.ids), np.float32)),
        old.global_mean,
    )
    state = {}
    for name, array in fitted.state.items():
        space = users if name.startswith("user_") else items
        # Accumulators of rows start at 1, as in `fastmf_kernels.sgd.arrays.RowSteps`; further factors start at 0.
        first = np.ones(len(space.ids), np.float32) if array.ndim == 1 else _zeros(len(space.ids), array.shape[1])
        state[name] = _spread(array, space, first)
    seen = _seen(fitted.seen, users, items, more)
    return Fitted(
        factors, fitted.link, users.ids, items.ids, seen, _figures(fitted, more), state, fitted.trained_with
    ), more


def _merged(known: pa.Array, given: pa.Array, column: str) -> _Space:
    if pa.types.is_int64(known.type) != pa.types.is_int64(given.type):
        raise DataError(f"{column} of the new ratings are {given.type}, the model's are {known.type}; cast them first")
    kind = pa.int64() if pa.types.is_int64(known.type) else pa.large_string()
    both = pa.chunked_array([known.cast(kind), given.cast(kind)])
    places, vocabulary = ids.encode(both, column)
    return _Space(vocabulary, places[: len(known)], places[len(known) :])


def _zeros(n_rows: int, n_columns: int) -> Float32Array:
    return np.zeros((n_rows, n_columns), np.float32)


def _spread(array: Float32Array, space: _Space, target: Float32Array) -> Float32Array:
    target[space.of_model] = array
    return target


def _seen(seen: Rows, users: _Space, items: _Space, more: Interactions) -> Rows:
    rows = users.of_model[np.repeat(np.arange(len(users.of_model)), np.diff(seen.indptr))]
    order = np.argsort(rows, kind="stable")
    before = rows_of_pairs(rows[order], items.of_model[seen.indices][order], more.n_users, more.n_items)
    return union(before, Rows(more.by_user.indptr, more.by_user.indices), more.n_items)


def _figures(fitted: Fitted, more: Interactions) -> dict[str, object]:
    before, added = fitted.data, describe(more)
    n_ratings = before["n_ratings"] + added["n_ratings"]
    total = before["mean"] * before["n_ratings"] + added["mean"] * added["n_ratings"]
    fingerprint = f"{before['fingerprint']}, {added['fingerprint']}"
    joint = {"n_ratings": n_ratings, "mean": total / n_ratings, "fingerprint": fingerprint}
    return {**added, **joint, "deviation": trained_deviation(before)}
