"""More ratings for a model of alternating least squares: the rows that they change are solved anew, and no others."""

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fastmf.answering.fitted import Fitted
from fastmf.answering.rows import take_ratings
from fastmf.answering.side_features import SideFeatures
from fastmf.backend import Kernels
from fastmf.errors import DataError
from fastmf.measuring.baseline import ITEM_BASELINE, USER_BASELINE
from fastmf.models.folding import features_of
from fastmf.models.growth import Grown, grow
from fastmf.models.least_squares import LeastSquares
from fastmf.models.prior_means import with_described
from fastmf.models.training import Record
from fastmf.reading.features import Features
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import Float32Array, Float64Array, Int32Array, Int64Array
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
        The model, with rows of 0 for new users and items, or those that their features give, and the new ratings.
    users, items : int32 arrays
        The rows that have a new rating, ascending.
    of_users, of_items : CSR
        All ratings of these rows.
    features : dict of str to Features
        What came with the new ratings, by side.
    """

    grown: Grown
    users: Int32Array
    items: Int32Array
    of_users: CSR
    of_items: CSR
    features: Mapping[str, Features]


def join(
    known: Fitted, ratings: Interactions, features: Mapping[str, Features], kernels: Kernels, n_threads: int | None
) -> Joined:
    """Bring a fitted model and more ratings together; a new rating takes the place of one of the same pair.

    Parameters
    ----------
    known : Fitted
    ratings : Interactions
    features : dict of str to Features
        What is known of users and items beside their ratings, by side.
    kernels : Kernels
    n_threads : int, optional

    Raises
    ------
    DataError
        If the model has no training ratings: it was saved without them, or comes from another library. If ids are of
        another type.
    ParameterError
        If there are features of a side that the model has none of.
    """
    if known.values is None and known.counts.are_known:
        raise DataError(
            "the model was saved without its training ratings, which its rows are solved from; call fit with all "
            "ratings"
        )
    grown = grow(known, with_described(ratings, features), 0.0, 0, n_threads)
    start, more = grown.start, grown.more
    described = _described(known, start, features)
    grown = grown._replace(start=start.with_features(described))
    by_user = CSR(*start.seen, np.asarray(start.values))
    users, items = (np.unique(rows).astype(np.int32) for rows in (more.users, more.items))
    numbers = np.full(more.n_items, -1, np.int32)
    numbers[items] = np.arange(len(items), dtype=np.int32)
    chosen = np.flatnonzero(numbers[by_user.indices] >= 0)
    row_of = np.repeat(np.arange(more.n_users, dtype=np.int32), np.diff(by_user.indptr))
    columns, values = numbers[by_user.indices[chosen]], np.ascontiguousarray(by_user.values[chosen])
    of_items = kernels.coo_to_csr(columns, row_of[chosen], values, len(items), n_threads)
    return Joined(grown, users, items, take_ratings(by_user, users), of_items, features)


def _described(known: Fitted, now: Fitted, given: Mapping[str, Features]) -> dict[str, SideFeatures]:
    """Return the features of the users and items of ``now``: those that are given, or those that a model knows."""
    sides = {}
    for side in {**known.features, **given}:
        row_ids = now.user_ids if side == "user" else now.item_ids
        features = features_of(known, row_ids, side, given.get(side), f"{side}_features")
        if features is not None:
            sides[side] = features
    return sides


def begin_at_means(joined: Joined, equations: LeastSquares) -> None:
    """Set the rows of users and items with a first rating to what their features say, in place."""
    start = joined.grown.start
    for side, old in (("user", joined.grown.old_users), ("item", joined.grown.old_items)):
        _fill(start, side, old, equations)


def _fill(fitted: Fitted, side: str, others: Int32Array | Int64Array, equations: LeastSquares) -> None:
    """Set the described rows of a side, but for some, to what their features say, in place."""
    features = fitted.features.get(side)
    if features is not None:
        is_meant = features.are_described
        is_meant[others] = False
        equations.set_to_means(fitted.factors, side, features, np.flatnonzero(is_meant))


def refit_rows(joined: Joined, equations: LeastSquares, kernels: Kernels, n_threads: int | None) -> None:
    """Solve the rows that have new ratings, in place: users once, then items and users in turn. Other rows stay."""
    factors = joined.grown.start.factors
    sides = {
        "user": (factors.user_factors, factors.user_biases, joined.users, equations.observed(joined.of_users)),
        "item": (factors.item_factors, factors.item_biases, joined.items, equations.observed(joined.of_items)),
    }
    for side in ("user", *("item", "user") * _ROUNDS):
        vectors, biases, places, rows = sides[side]
        fixed = equations.against(factors, side, kernels, n_threads)
        # A copy: a GPU keeps offsets from one half sweep to the next, and these change in place between two.
        fixed = fixed._replace(offsets=fixed.offsets.copy())
        features = joined.grown.start.features.get(side)
        prior = None if features is None else features.prior(features.take(places).rows)
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


def updated(joined: Joined, known: Fitted, n_more: int, equations: LeastSquares) -> Fitted:
    """Return the state of a model whose rows were refitted.

    Users and items without any rating have the rows that their features give, or rows of 0.

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
    fitted = dataclasses.replace(
        fitted,
        factors=Factors(
            whole.spread(p, "user"),
            whole.spread(q, "item"),
            whole.spread(user_biases, "user"),
            whole.spread(item_biases, "item"),
            mean,
        ),
        state={name: whole.spread(array, "item") for name, array in state.items()},
        user_ids=whole.user_ids,
        item_ids=whole.item_ids,
        seen=whole.spread_rows(start.seen),
        data=data | {"n_users": len(whole.user_ids), "n_items": len(whole.item_ids)},
        features={},
    )
    fitted = fitted.with_features(_described(known, fitted, joined.features))
    for side, rows in (("user", whole.users), ("item", whole.items)):
        _fill(fitted, side, rows, equations)
    return fitted


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
