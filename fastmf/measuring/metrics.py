"""Every metric that `fastmf.evaluate` knows: what it is computed from, and what is to be known of it.

Their functions on plain arrays are in `of_ratings`, `of_rankings` and `of_lists`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fastmf.measuring.concordance import count_concordant
from fastmf.measuring.of_ratings import mae, rmse
from fastmf.measuring.user_values import UserValues
from fastmf_kernels._types import Float64Array
from fastmf_kernels.topk import figures

# What evaluation can prepare for a metric; where there is a k, users are those who are ranked.
Input = Literal[
    "ratings",  # float array, shape (n_ratings,); for an implicit model the preferences, 0 or 1
    "predictions",  # float array, shape (n_ratings,)
    "raw_ratings",  # float array, shape (n_ratings,), as they are in the test part
    "owners",  # `Owners` of the ratings
    "hits",  # `Hits` among the first k items
    # Two float64 arrays, shape (n_users,): the discounted gain of the first k items, and that of the best possible list
    "gained",
    "recommended",  # int32 array, shape (n_users, k), best item first, -1 for "none"
    "n_items",  # int, the size of the catalogue
    "known_share",  # float64 array, shape (n_items,): the share of users who have a training rating of an item
    "item_factors",  # float32 array, shape (n_items, n_factors)
    # Float64 arrays, shape (n_users,), NaN where undefined: the mean over the user's relevant items of the share of
    # irrelevant items, or of all other candidates, that score above; ties count half.
    "irrelevant_above",
    "candidates_above",
]
Inputs = Mapping[Input, Callable[[], Any]]


class Owners(NamedTuple):
    """Whose ratings they are: a user from 0 to ``n_users`` - 1 for each rating."""

    users: npt.NDArray[np.integer[Any]]
    n_users: int


class Metric(NamedTuple):
    """What there is to know of a metric.

    Attributes
    ----------
    name : str
    function : callable
        Takes the inputs in their order. Returns the metric, a float64 array with its value for each user, or
        `UserValues`. A value that is undefined is NaN.
    inputs : tuple of str
        What evaluation prepares for it; see `Input`.
    higher_is_better : bool
    is_default : bool
        Whether it is measured if no metrics are named.
    has_users : bool
        Whether it has a value for each user.
    by_user : callable, optional
        Takes `Owners` before the inputs, and returns `UserValues`, where ``function`` returns the metric alone.
    """

    name: str
    function: Callable[..., Any]
    inputs: tuple[Input, ...]
    higher_is_better: bool = True
    is_default: bool = True
    has_users: bool = True
    by_user: Callable[..., UserValues] | None = None

    @property
    def has_cut_off(self) -> bool:
        """Whether the metric looks at the first k items only."""
        return any(name in self.inputs for name in ("hits", "gained", "recommended"))

    def measure(self, inputs: Inputs) -> float | None:
        """Call those of ``inputs`` that are needed; return the metric, or its mean over users; None if undefined."""
        return _total(self._compute(inputs))

    def measure_users(self, inputs: Inputs) -> tuple[float | None, UserValues | None]:
        """Return what `measure` does, and the values of users, None if the metric has none."""
        value = self._compute(inputs)
        if self.by_user is not None:
            return _total(value), self.by_user(inputs["owners"](), *self._take(inputs))
        of_users = UserValues.of(value) if isinstance(value, np.ndarray) else value
        return _total(value), of_users if isinstance(of_users, UserValues) else None

    def _compute(self, inputs: Inputs) -> Any:
        return self.function(*self._take(inputs))

    def _take(self, inputs: Inputs) -> list[Any]:
        return [inputs[name]() for name in self.inputs]


def mean_of_defined(values: Any) -> float:
    """Return the mean of numbers, those that are NaN left out; NaN if there are none."""
    mean = float(np.mean(values)) if np.size(values) else float("nan")
    if np.isnan(mean) and not np.isnan(values).all():
        return float(np.mean(values[~np.isnan(values)]))
    return mean


def _total(value: Any) -> float | None:
    total = value.total if isinstance(value, UserValues) else mean_of_defined(value)
    return None if np.isnan(total) else total


def _squared_errors(owners: Owners, ratings: Float64Array, predictions: Float64Array) -> UserValues:
    errors = _errors(ratings, predictions)
    return _by_owner(owners, errors**2)._replace(is_root=True)


def _absolute_errors(owners: Owners, ratings: Float64Array, predictions: Float64Array) -> UserValues:
    return _by_owner(owners, np.abs(_errors(ratings, predictions)))


def _errors(ratings: npt.NDArray[Any], predictions: npt.NDArray[Any]) -> Float64Array:
    return ratings.astype(np.float64) - predictions.astype(np.float64)


def _by_owner(owners: Owners, values: Float64Array) -> UserValues:
    counts = np.bincount(owners.users, minlength=owners.n_users)
    sums = np.bincount(owners.users, values, minlength=owners.n_users).astype(np.float64, copy=False)
    return UserValues(sums, counts.astype(np.float64))


def _concordance(owners: Owners, ratings: npt.NDArray[Any], predictions: npt.NDArray[Any]) -> UserValues:
    pairs = count_concordant(owners.users, ratings, predictions, owners.n_users)
    return UserValues(pairs.n_concordant.astype(np.float64), pairs.n_pairs.astype(np.float64))


def _information(recommended: npt.NDArray[Any], known_share: Float64Array) -> UserValues:
    information = figures.self_information(recommended, known_share)
    is_filled = ~np.isnan(information)
    return UserValues(np.where(is_filled, information, 0).sum(axis=1), is_filled.sum(axis=1).astype(np.float64))


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("rmse", rmse, ("ratings", "predictions"), higher_is_better=False, by_user=_squared_errors),
        Metric("mae", mae, ("ratings", "predictions"), higher_is_better=False, by_user=_absolute_errors),
        Metric("precision", figures.precision, ("hits",)),
        Metric("recall", figures.recall, ("hits",)),
        Metric("hit_rate", figures.hit_rate, ("hits",)),
        Metric("ndcg", figures.ndcg, ("hits",)),
        Metric("map", figures.average_precision, ("hits",)),
        Metric("mrr", figures.reciprocal_rank, ("hits",)),
        Metric("graded_ndcg", figures.graded_ndcg, ("gained",), is_default=False),
        Metric("coverage", figures.coverage, ("recommended", "n_items"), has_users=False),
        Metric(
            "gini",
            figures.gini,
            ("recommended", "n_items"),
            higher_is_better=False,
            is_default=False,
            has_users=False,
        ),
        Metric("novelty", _information, ("recommended", "known_share"), is_default=False),
        Metric("diversity", figures.dissimilarity, ("recommended", "item_factors"), is_default=False),
        Metric("auc", figures.share_below, ("irrelevant_above",), is_default=False),
        Metric(
            "mean_percentile_rank", figures.share_above, ("candidates_above",), higher_is_better=False, is_default=False
        ),
        Metric("fcp", _concordance, ("owners", "raw_ratings", "predictions"), is_default=False),
    )
}
# Those that depend on the hits among the first k items, and on nothing else.
RANKING_METRICS = tuple(name for name, metric in METRICS.items() if metric.inputs == ("hits",))
