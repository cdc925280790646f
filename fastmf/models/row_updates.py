"""More ratings for a model of alternating least squares: the rows that they change are solved anew, and no others."""

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from fastmf.answering.fitted import Fitted
from fastmf.answering.rows import take_ratings
from fastmf.answering.side_features import SideFeatures
from fastmf.backend import Kernels
from fastmf.errors import DataError
from fastmf.measuring.baseline import ITEM_BASELINE, USER_BASELINE
from fastmf.models.growth import Grown, Whole, grow
from fastmf.models.least_squares import LeastSquares
from fastmf.models.training import Record
from fastmf.reading import ids
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import Float32Array, Float64Array, Int32Array
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Factors

SINCE_FIT = "n_ratings_since_fit"
"""Name in `Fitted.data` of the number of ratings that have come since the last fit of all rows."""
# How often items and then users are solved. On MovieLens-1M by time, two and four rounds were no better than one.
_ROUNDS = 1
# So many ratings at most are compared with predictions before and after.
_COMPARED = 1 << 17


class Joined(NamedTuple):
    """A fitted model and more ratings, in one id space: that of the users and items that have a rating in either.

    Attributes
    ----------
    grown : Grown
        The model, with rows of 0 for new users and items, and the new ratings.
    users, items : int32 arrays
        The rows that have a new rating, ascending.
    of_users, of_items : CSR
        All ratings of these rows.
    """

    grown: Grown
    users: Int32Array
    items: Int32Array
    of_users: CSR
    of_items: CSR


def join(known: Fitted, ratings: Interactions, kernels: Kernels, n_threads: int | None) -> Joined:
    """Bring a fitted model and more ratings together; a new rating takes the place of one of the same pair.

    Raises
    ------
    DataError
        If the model has no training ratings: it was saved without them, or comes from another library. If ids are of
        another type.
    """
    if known.values is None and known.counts.are_known:
        raise DataError(
            "the model was saved without its training ratings, which its rows are solved from; call fit with all "
            "ratings"
        )
    grown = grow(known, ratings, 0.0, 0, n_threads)
    start, more = grown.start, grown.more
    features = _features_of(known, {"user": start.user_ids, "item": start.item_ids})
    start = dataclasses.replace(start, features=features)
    grown = grown._replace(start=start)
    by_user = CSR(*start.seen, np.asarray(start.values))
    users, items = (np.unique(rows).astype(np.int32) for rows in (more.users, more.items))
    numbers = np.full(more.n_items, -1, np.int32)
    numbers[items] = np.arange(len(items), dtype=np.int32)
    chosen = np.flatnonzero(numbers[by_user.indices] >= 0)
    row_of = np.repeat(np.arange(more.n_users, dtype=np.int32), np.diff(by_user.indptr))
    columns, values = numbers[by_user.indices[chosen]], np.ascontiguousarray(by_user.values[chosen])
    of_items = kernels.coo_to_csr(columns, row_of[chosen], values, len(items), n_threads)
    return Joined(grown, users, items, take_ratings(by_user, users), of_items)


def refit_rows(joined: Joined, equations: LeastSquares, kernels: Kernels, n_threads: int | None) -> None:
    """Solve the rows that have new ratings, in place: users once, then items and users in turn. Other rows stay.

    Rows with features are pulled to the means of before; the maps of features stay.
    """
    factors, features = joined.grown.start.factors, joined.grown.start.features
    sides = {
        "user": (factors.user_factors, factors.user_biases, joined.users, equations.observed(joined.of_users)),
        "item": (factors.item_factors, factors.item_biases, joined.items, equations.observed(joined.of_items)),
    }
    for side in ("user", *("item", "user") * _ROUNDS):
        vectors, biases, places, rows = sides[side]
        fixed = equations.against(factors, side, kernels, n_threads)
        # A copy: a GPU keeps offsets from one half sweep to the next, and these change in place between two.
        fixed = fixed._replace(offsets=fixed.offsets.copy())
        known = features.get(side)
        prior = None if known is None else known.prior(known.take(places).rows)
        vectors[places], biases[places] = equations.solve(rows, fixed, side, kernels, n_threads, prior)


class Drift:
    """How far rows and predictions move while rows are refitted.

    Parameters
    ----------
    joined : Joined
        Before its rows are refitted.
    is_implicit : bool
        Whether what is predicted is 1 for a rating above 0, and 0 for others.
    kernels : Kernels
    n_threads : int, optional
    """

    def __init__(self, joined: Joined, is_implicit: bool, kernels: Kernels, n_threads: int | None) -> None:
        self._joined, self._kernels, self._n_threads = joined, kernels, n_threads
        start, grown = joined.grown.start, joined.grown
        self._known_users = np.intersect1d(joined.users, grown.old_users)
        self._known_items = np.intersect1d(joined.items, grown.old_items)
        self._user_factors = start.factors.user_factors[self._known_users]
        self._item_factors = start.factors.item_factors[self._known_items]
        self._users, self._items, values = _some_ratings(joined)
        self._targets = (values > 0).astype(np.float64) if is_implicit else values.astype(np.float64)
        self._before = self._predictions()

    def record(self) -> Record:
        """Return what has moved since, as the record of a partial fit has it."""
        factors, after = self._joined.grown.start.factors, self._predictions()
        return {
            "n_users_refitted": len(self._joined.users),
            "n_items_refitted": len(self._joined.items),
            "n_new_users": len(self._joined.users) - len(self._known_users),
            "n_new_items": len(self._joined.items) - len(self._known_items),
            "user_drift": _relative_change(self._user_factors, factors.user_factors[self._known_users]),
            "item_drift": _relative_change(self._item_factors, factors.item_factors[self._known_items]),
            "prediction_drift": _root_mean_square(after - self._before),
            "rmse_before": _root_mean_square(self._before - self._targets),
            "rmse_after": _root_mean_square(after - self._targets),
        }

    def _predictions(self) -> Float64Array:
        start = self._joined.grown.start
        found = self._kernels.predict_pairs(self._users, self._items, start.factors, start.link, self._n_threads)
        return found.astype(np.float64)


def updated(joined: Joined, known: Fitted, n_more: int) -> Fitted:
    """Return the state of a model whose rows were refitted.

    Users and items without any rating have rows of 0, or those of before if their features are known.

    The biases that were fitted as the baseline are gone, as they are of the ratings before alone; popularity counts all
    ratings.
    """
    start, whole = joined.grown.start, joined.grown.whole
    since, values = known.data.get(SINCE_FIT, 0), np.asarray(start.values)
    data = {
        **start.data,
        "n_ratings": len(start.seen.indices),
        "mean": float(values.mean(dtype=np.float64)),
        SINCE_FIT: n_more + (since if isinstance(since, int) else 0),
    }
    state = {}
    if ITEM_BASELINE in known.state and USER_BASELINE not in known.state:
        chosen = np.bincount(start.seen.indices, values > 0, start.n_items)
        state[ITEM_BASELINE] = chosen.astype(np.float32)
    fitted = dataclasses.replace(start, data=data, state=state)
    if whole is None:
        return fitted
    p, q, user_biases, item_biases, mean = start.factors
    factors = Factors(
        whole.spread(p, "user"),
        whole.spread(q, "item"),
        whole.spread(user_biases, "user"),
        whole.spread(item_biases, "item"),
        mean,
    )
    features = _features_of(known, {"user": whole.user_ids, "item": whole.item_ids})
    _keep_described(factors, known, whole)
    return dataclasses.replace(
        fitted,
        factors=factors,
        features=features,
        state={name: whole.spread(array, "item") for name, array in state.items()},
        user_ids=whole.user_ids,
        item_ids=whole.item_ids,
        seen=whole.spread_rows(start.seen),
        data=data | {"n_users": len(whole.user_ids), "n_items": len(whole.item_ids)},
    )


def _features_of(known: Fitted, ids_of: Mapping[str, pa.Array]) -> dict[str, SideFeatures]:
    """Return the features of a model for the ids of another; new ids have none."""
    places = {
        "user": ids.look_up(known.user_ids, ids_of["user"], "user_ids"),
        "item": ids.look_up(known.item_ids, ids_of["item"], "item_ids"),
    }
    return {side: features.take(places[side]) for side, features in known.features.items()}


def _keep_described(factors: Factors, known: Fitted, whole: Whole) -> None:
    """Copy the rows of users and items that have features and still no rating."""
    sides = {
        "user": (whole.user_ids, whole.users, known.user_ids, factors.user_factors, factors.user_biases),
        "item": (whole.item_ids, whole.items, known.item_ids, factors.item_factors, factors.item_biases),
    }
    before = {
        "user": (known.factors.user_factors, known.factors.user_biases),
        "item": (known.factors.item_factors, known.factors.item_biases),
    }
    for side in known.features:
        new_ids, rated, old_ids, vectors, biases = sides[side]
        unrated = np.setdiff1d(np.arange(len(new_ids)), rated)
        places = ids.look_up(old_ids, new_ids.take(pa.array(unrated)), f"{side}_ids")
        unrated, places = unrated[places >= 0], places[places >= 0]
        vectors[unrated], biases[unrated] = before[side][0][places], before[side][1][places]


def share_since_fit(fitted: Fitted) -> float:
    """Return how large a share of the ratings has come since the last fit of all rows."""
    return min(1.0, float(fitted.data[SINCE_FIT] / max(1, fitted.data["n_ratings"])))


def _some_ratings(joined: Joined) -> tuple[Int32Array, Int32Array, Float32Array]:
    """Return ratings of the rows that are refitted, evenly spaced where they are many; some of them twice."""
    of_users, of_items = joined.of_users, joined.of_items
    users = np.repeat(joined.users, np.diff(of_users.indptr))
    items = np.repeat(joined.items, np.diff(of_items.indptr))
    step = 1 + (len(users) + len(items)) // _COMPARED
    return (
        np.concatenate([users[::step], of_items.indices[::step]]),
        np.concatenate([of_users.indices[::step], items[::step]]),
        np.concatenate([of_users.values[::step], of_items.values[::step]]),
    )


def _relative_change(before: Float32Array, after: Float32Array) -> float:
    """Return ‖X' - X‖/‖X‖ of rows X; 0 where there are none, or only rows of 0."""
    size, move = (float(np.linalg.norm(rows.astype(np.float64))) for rows in (before, after - before))
    return move / size if size else 0.0


def _root_mean_square(values: Float64Array) -> float:
    return math.sqrt(float(np.mean(np.square(values)))) if len(values) else 0.0
