"""Quality of predictions and of rankings, on plain arrays.

`METRICS` declares every metric that `fastmf.evaluate` and the command ``fastmf evaluate`` know, by name:

>>> from fastmf import metrics
>>> print(*metrics.METRICS)
rmse mae precision recall hit_rate ndcg map mrr coverage novelty diversity auc mean_percentile_rank

Ranking metrics take ``recommended``, an int array of shape (n_users, at least k) with the best item first and -1 for
"none", and ``relevant``, the items that count as hits for each user: ``(indptr, indices)`` as in a CSR matrix, or a
sequence of sequences. Each returns the mean over the users that have at least one relevant item. Their time grows with
the number of recommended items plus that of relevant ones. An item that is recommended twice to a user, a number that
is not whole, and what is no number are refused with a `ParameterError`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fastmf.common.parameters import require_integer
from fastmf.errors import ParameterError
from fastmf.measuring.checks import as_lists, as_numbers, as_rows, as_truths
from fastmf_kernels._types import Float64Array
from fastmf_kernels.topk import figures
from fastmf_kernels.topk.hits import Hits, find_hits

Relevant = tuple[npt.ArrayLike, npt.ArrayLike] | Sequence[Sequence[int]]
# What evaluation can prepare for a metric; where there is a k, users are those who are ranked.
Input = Literal[
    "ratings",  # float array, shape (n_ratings,)
    "predictions",  # float array, shape (n_ratings,)
    "hits",  # `Hits` among the first k items
    "recommended",  # int32 array, shape (n_users, k), best item first, -1 for "none"
    "n_items",  # int, the size of the catalogue
    "known_share",  # float64 array, shape (n_items,): the share of users who have a training rating of an item
    "item_factors",  # float32 array, shape (n_items, n_factors)
    # Float64 arrays, a number for each user for whom it is defined: the mean over the user's relevant items of the
    # share of irrelevant items, or of all other candidates, that score above; ties count half.
    "irrelevant_above",
    "candidates_above",
]


class Metric(NamedTuple):
    """What there is to know of a metric.

    Attributes
    ----------
    name : str
    function : callable
        Takes the inputs in their order. Returns the metric, or a float64 array with its value for each user.
    inputs : tuple of str
        What evaluation prepares for it; see `Input`.
    higher_is_better : bool
    is_default : bool
        Whether it is measured if no metrics are named.
    """

    name: str
    function: Callable[..., Any]
    inputs: tuple[Input, ...]
    higher_is_better: bool = True
    is_default: bool = True

    @property
    def has_cut_off(self) -> bool:
        """Whether the metric looks at the first k items only."""
        return "hits" in self.inputs or "recommended" in self.inputs

    def measure(self, inputs: Mapping[Input, Callable[[], Any]]) -> float | None:
        """Call those of ``inputs`` that are needed; return the metric, or its mean over users; None if undefined."""
        value = _mean(self.function(*(inputs[name]() for name in self.inputs)))
        return None if np.isnan(value) else value


def rmse(ratings: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Return the root mean squared error.

    Examples
    --------
    >>> from fastmf import metrics
    >>> metrics.rmse([4, 2], [3, 3])
    1.0

    Raises
    ------
    ParameterError
        If the shapes differ, there is nothing in them, or a number is not finite.
    """
    return float(np.sqrt(np.mean(_errors(ratings, predictions) ** 2)))


def mae(ratings: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Return the mean absolute error; its errors are those of `rmse`."""
    return float(np.mean(np.abs(_errors(ratings, predictions))))


def precision_at_k(recommended: npt.ArrayLike, relevant: Relevant, k: int) -> float:
    """Return the share of the k places that hold a relevant item; an empty place is a miss.

    Shapes, dtypes and errors are those of `ranking_metrics`.

    Examples
    --------
    >>> from fastmf import metrics
    >>> metrics.precision_at_k([[3, 5]], [[5]], k=2)
    0.5
    """
    return _mean(figures.precision(_hits(recommended, relevant, k)))


def recall_at_k(recommended: npt.ArrayLike, relevant: Relevant, k: int) -> float:
    """Return the share of the relevant items that are among the first k.

    Shapes, dtypes and errors are those of `ranking_metrics`.

    Examples
    --------
    >>> from fastmf import metrics
    >>> metrics.recall_at_k([[3, 5]], [[5, 6, 7, 8]], k=2)
    0.25
    """
    return _mean(figures.recall(_hits(recommended, relevant, k)))


def hit_rate_at_k(recommended: npt.ArrayLike, relevant: Relevant, k: int) -> float:
    """Return the share of users with a relevant item among the first k.

    Shapes, dtypes and errors are those of `ranking_metrics`.

    Examples
    --------
    >>> from fastmf import metrics
    >>> metrics.hit_rate_at_k([[3, 5], [3, 5]], [[5], [6]], k=2)
    0.5
    """
    return _mean(figures.hit_rate(_hits(recommended, relevant, k)))


def ndcg_at_k(recommended: npt.ArrayLike, relevant: Relevant, k: int) -> float:
    """Return the normalised discounted cumulative gain with gains 0 and 1.

    DCG = Σ_i hit_i / log₂(i + 1) over places i = 1..k, divided by that of the best possible list (Järvelin,
    Kekäläinen, "Cumulated Gain-Based Evaluation of IR Techniques", ACM TOIS 20(4), 2002).

    Shapes, dtypes and errors are those of `ranking_metrics`.

    Examples
    --------
    >>> from fastmf import metrics
    >>> metrics.ndcg_at_k([[3, 4, 5]], [[5]], k=3)
    0.5
    """
    return _mean(figures.ndcg(_hits(recommended, relevant, k)))


def map_at_k(recommended: npt.ArrayLike, relevant: Relevant, k: int) -> float:
    """Return the mean average precision: Σ_i hit_i·precision@i / min(k, relevant items) over places i = 1..k.

    Shapes, dtypes and errors are those of `ranking_metrics`.

    Examples
    --------
    >>> from fastmf import metrics
    >>> metrics.map_at_k([[3, 5]], [[5]], k=2)
    0.5
    """
    return _mean(figures.average_precision(_hits(recommended, relevant, k)))


def mrr_at_k(recommended: npt.ArrayLike, relevant: Relevant, k: int) -> float:
    """Return the mean of 1/place of the first relevant item, 0 where none is among the first k.

    Shapes, dtypes and errors are those of `ranking_metrics`.

    Examples
    --------
    >>> from fastmf import metrics
    >>> metrics.mrr_at_k([[3, 5], [3, 5]], [[3], [5]], k=2)
    0.75
    """
    return _mean(figures.reciprocal_rank(_hits(recommended, relevant, k)))


def auc(scores: npt.ArrayLike, relevant: npt.ArrayLike) -> float:
    """Return the probability that a relevant item scores above an irrelevant one; ties count half.

    Parameters
    ----------
    scores : float array, shape (n_items,)
        -inf leaves an item out.
    relevant : bool array, shape (n_items,)

    Returns
    -------
    float
        NaN if all items, or none, are relevant.

    Raises
    ------
    ParameterError
        If the shapes differ, or a score is NaN.
    """
    values, is_relevant = as_numbers(scores, "scores"), as_truths(relevant)
    if values.shape != is_relevant.shape or values.ndim != 1:
        raise ParameterError(f"scores have shape {values.shape} and relevant {is_relevant.shape}; expected (n_items,)")
    if np.isnan(values).any():
        raise ParameterError(f"scores have {np.count_nonzero(np.isnan(values))} NaN; expected numbers, -inf for none")
    kept = values > -np.inf
    values, is_relevant = values[kept], is_relevant[kept]
    negatives = np.sort(values[~is_relevant])
    positives = values[is_relevant]
    if not len(negatives) or not len(positives):
        return float("nan")
    below = np.searchsorted(negatives, positives, side="left")
    not_above = np.searchsorted(negatives, positives, side="right")
    return float((below + not_above).mean() / (2 * len(negatives)))


def coverage(recommended: npt.ArrayLike, n_items: int) -> float:
    """Return the share of the catalogue that is recommended to anybody.

    Parameters
    ----------
    recommended : int array, shape (n_users, k)
        -1 for "none".
    n_items : int

    Returns
    -------
    float

    Raises
    ------
    ParameterError
        If an item is not below ``n_items``, or is there twice for a user.
    """
    require_integer("n_items", n_items, minimum=1)
    return figures.coverage(as_lists(recommended, n_items), n_items)


def novelty(recommended: npt.ArrayLike, known_share: npt.ArrayLike) -> float:
    """Return the mean self-information -log₂ p of what is recommended, in bits, p being the share of users who know it.

    Zhou et al., "Solving the apparent diversity-accuracy dilemma of recommender systems", PNAS 107(10), 2010. An item
    that nobody knows counts as known to as few as the least known of the others.

    Parameters
    ----------
    recommended : int array, shape (n_users, k)
        -1 for "none".
    known_share : float array, shape (n_items,)

    Returns
    -------
    float
        The mean over all places that are filled; NaN if none is.

    Examples
    --------
    >>> from fastmf import metrics
    >>> metrics.novelty([[0, 1]], [0.5, 0.125])
    2.0
    """
    shares = as_numbers(known_share, "known_share")
    if shares.ndim != 1 or not np.all((shares >= 0) & (shares <= 1)):
        raise ParameterError(f"known_share has shape {shares.shape}; expected (n_items,), of numbers from 0 to 1")
    return _mean(figures.self_information(as_lists(recommended, len(shares)), shares))


def diversity(recommended: npt.ArrayLike, item_factors: npt.ArrayLike) -> float:
    """Return how unlike each other a user's recommended items are: the mean of 1 - cosine over pairs of them.

    Ziegler, McNee, Konstan, Lausen, "Improving Recommendation Lists Through Topic Diversification", WWW 2005.

    Parameters
    ----------
    recommended : int array, shape (n_users, k)
        -1 for "none".
    item_factors : float array, shape (n_items, n_factors)

    Returns
    -------
    float
        The mean over the users with two items or more; NaN if there are none.

    Examples
    --------
    >>> from fastmf import metrics
    >>> metrics.diversity([[0, 1, 2]], [[1, 0], [0, 1], [1, 0]])
    0.6666666666666667
    """
    factors = as_numbers(item_factors, "item_factors")
    if factors.ndim != 2 or not np.isfinite(factors).all():
        raise ParameterError(f"item_factors have shape {factors.shape}; expected (n_items, n_factors), all finite")
    return _mean(figures.dissimilarity(as_lists(recommended, len(factors)), factors))


def ranking_metrics(recommended: npt.ArrayLike, relevant: Relevant, k: int) -> dict[str, float]:
    """Return all of `RANKING_METRICS` at once, by name: ``precision``, ``recall`` and the others.

    Parameters
    ----------
    recommended : int array, shape (n_users, at least k)
        Best item first, each item once; a negative number stands for "none".
    relevant : (indptr, indices) or sequence of sequences of int
        The relevant items of each user. As a pair, int arrays of shapes (n_users + 1,) and (n_pairs,): user ``u`` owns
        ``indices[indptr[u]:indptr[u + 1]]``. An item that is named twice counts once.
    k : int

    Returns
    -------
    dict
        The mean of each metric over the users with at least one relevant item.

    Raises
    ------
    ParameterError
        If the shapes do not fit together, an item is recommended twice to a user, an item is no whole number, offsets
        do not rise from 0 to the number of indices, or no user has a relevant item.

    Examples
    --------
    >>> from fastmf import metrics
    >>> metrics.ranking_metrics([[3, 5]], [[5]], k=2)["recall"]
    1.0
    """
    hits = _hits(recommended, relevant, k)
    return {name: _mean(METRICS[name].function(hits)) for name in RANKING_METRICS}


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("rmse", rmse, ("ratings", "predictions"), higher_is_better=False),
        Metric("mae", mae, ("ratings", "predictions"), higher_is_better=False),
        Metric("precision", figures.precision, ("hits",)),
        Metric("recall", figures.recall, ("hits",)),
        Metric("hit_rate", figures.hit_rate, ("hits",)),
        Metric("ndcg", figures.ndcg, ("hits",)),
        Metric("map", figures.average_precision, ("hits",)),
        Metric("mrr", figures.reciprocal_rank, ("hits",)),
        Metric("coverage", figures.coverage, ("recommended", "n_items")),
        Metric("novelty", figures.self_information, ("recommended", "known_share"), is_default=False),
        Metric("diversity", figures.dissimilarity, ("recommended", "item_factors"), is_default=False),
        Metric("auc", figures.share_below, ("irrelevant_above",), is_default=False),
        Metric(
            "mean_percentile_rank", figures.share_above, ("candidates_above",), higher_is_better=False, is_default=False
        ),
    )
}
# Those that depend on the hits among the first k items, and on nothing else.
RANKING_METRICS = tuple(name for name, metric in METRICS.items() if metric.inputs == ("hits",))


def _mean(values: Any) -> float:
    return float(np.mean(values)) if np.size(values) else float("nan")


def _hits(recommended: npt.ArrayLike, relevant: Relevant, k: int) -> Hits:
    require_integer("k", k, minimum=1)
    items = as_lists(recommended)
    if items.shape[1] < k:
        raise ParameterError(f"recommended has shape {items.shape}; expected (n_users, at least k = {k})")
    indptr, indices = as_rows(relevant)
    if len(indptr) != len(items) + 1:
        raise ParameterError(f"relevant has {len(indptr) - 1} rows for {len(items)} users; expected one each")
    if not len(indices):
        raise ParameterError("no user has a relevant item; expected at least one")
    return find_hits(items[:, :k], indptr, indices)


def _errors(ratings: npt.ArrayLike, predictions: npt.ArrayLike) -> Float64Array:
    a, b = as_numbers(ratings, "ratings"), as_numbers(predictions, "predictions")
    if a.shape != b.shape or a.size == 0:
        raise ParameterError(
            f"ratings have shape {a.shape} and predictions {b.shape}; expected the same, and not empty"
        )
    for numbers, name in ((a, "ratings"), (b, "predictions")):
        is_finite = np.isfinite(numbers)
        if not is_finite.all():
            raise ParameterError(
                f"{name} have {np.count_nonzero(~is_finite)} numbers that are not finite; expected finite numbers"
            )
    return np.asarray(a - b)
