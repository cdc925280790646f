"""Metrics of rankings and of scores, on plain arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastmf.common.parameters import require_integer
from fastmf.errors import ParameterError
from fastmf.measuring.checks import as_gains, as_lists, as_numbers, as_rows, as_truths
from fastmf.measuring.gains import Gains, discounts, ideal_gains
from fastmf.measuring.metrics import METRICS, RANKING_METRICS, mean_of_defined
from fastmf_kernels._types import Int64Array
from fastmf_kernels.topk import figures
from fastmf_kernels.topk.hits import Hits, find_hits

__all__ = [
    "auc",
    "graded_ndcg_at_k",
    "hit_rate_at_k",
    "map_at_k",
    "mrr_at_k",
    "ndcg_at_k",
    "precision_at_k",
    "ranking_metrics",
    "recall_at_k",
]

Relevant = tuple[npt.ArrayLike, npt.ArrayLike] | Sequence[Sequence[int]]


def precision_at_k(recommended: npt.ArrayLike, relevant: Relevant, k: int) -> float:
    """Return the share of the k places that hold a relevant item; an empty place is a miss.

    Shapes, dtypes and errors are those of `ranking_metrics`.

    Examples
    --------
    >>> from fastmf import metrics
    >>> metrics.precision_at_k([[3, 5]], [[5]], k=2)
    0.5
    """
    return mean_of_defined(figures.precision(_hits(recommended, relevant, k)))


def recall_at_k(recommended: npt.ArrayLike, relevant: Relevant, k: int) -> float:
    """Return the share of the relevant items that are among the first k.

    Shapes, dtypes and errors are those of `ranking_metrics`.

    Examples
    --------
    >>> from fastmf import metrics
    >>> metrics.recall_at_k([[3, 5]], [[5, 6, 7, 8]], k=2)
    0.25
    """
    return mean_of_defined(figures.recall(_hits(recommended, relevant, k)))


def hit_rate_at_k(recommended: npt.ArrayLike, relevant: Relevant, k: int) -> float:
    """Return the share of users with a relevant item among the first k.

    Shapes, dtypes and errors are those of `ranking_metrics`.

    Examples
    --------
    >>> from fastmf import metrics
    >>> metrics.hit_rate_at_k([[3, 5], [3, 5]], [[5], [6]], k=2)
    0.5
    """
    return mean_of_defined(figures.hit_rate(_hits(recommended, relevant, k)))


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
    return mean_of_defined(figures.ndcg(_hits(recommended, relevant, k)))


def map_at_k(recommended: npt.ArrayLike, relevant: Relevant, k: int) -> float:
    """Return the mean average precision: Σ_i hit_i·precision@i / min(k, relevant items) over places i = 1..k.

    Shapes, dtypes and errors are those of `ranking_metrics`.

    Examples
    --------
    >>> from fastmf import metrics
    >>> metrics.map_at_k([[3, 5]], [[5]], k=2)
    0.5
    """
    return mean_of_defined(figures.average_precision(_hits(recommended, relevant, k)))


def mrr_at_k(recommended: npt.ArrayLike, relevant: Relevant, k: int) -> float:
    """Return the mean of 1/place of the first relevant item, 0 where none is among the first k.

    Shapes, dtypes and errors are those of `ranking_metrics`.

    Examples
    --------
    >>> from fastmf import metrics
    >>> metrics.mrr_at_k([[3, 5], [3, 5]], [[3], [5]], k=2)
    0.75
    """
    return mean_of_defined(figures.reciprocal_rank(_hits(recommended, relevant, k)))


def graded_ndcg_at_k(recommended: npt.ArrayLike, relevant: Relevant, gains: Any, k: int) -> float:
    """Return the normalised discounted cumulative gain with a gain for each relevant item.

    DCG = Σ_i gain_i / log₂(i + 1) over places i = 1..k, divided by that of the best possible list (Järvelin,
    Kekäläinen, "Cumulated Gain-Based Evaluation of IR Techniques", ACM TOIS 20(4), 2002). With gains of 1 it is
    `ndcg_at_k`; gains of 2^rating - 1 are those of Burges et al., "Learning to Rank using Gradient Descent", ICML 2005.

    Shapes, dtypes and errors of the lists are those of `ranking_metrics`.

    Parameters
    ----------
    recommended : int array, shape (n_users, at least k)
    relevant : (indptr, indices) or sequence of sequences of int
        An item that is named twice has the first of its gains.
    gains : float array, shape (n_pairs,), or sequence of sequences of float
        The gain of each relevant item, at least 0.
    k : int

    Returns
    -------
    float
        The mean over the users with a gain above 0; NaN if there are none.

    Examples
    --------
    >>> from fastmf import metrics
    >>> metrics.graded_ndcg_at_k([[3, 4, 5]], [[5, 3]], [[3, 1]], k=1)
    0.3333333333333333
    """
    items, indptr, indices = _checked_lists(recommended, relevant, k)
    values = as_gains(gains, len(indices))
    rows = np.repeat(np.arange(len(items)), np.diff(indptr))
    known, numbers = np.unique(indices, return_inverse=True)
    table = Gains.of(rows, numbers, values, len(known))
    places = np.minimum(np.searchsorted(known, items), len(known) - 1)
    found = np.where((known[places] == items) & (items >= 0), places, -1)
    gained = table.look_up(np.arange(len(items))[:, np.newaxis], found) @ discounts(k)
    ideal = ideal_gains(table.keys // len(known), table.values, len(items), k)
    return mean_of_defined(figures.graded_ndcg((gained, ideal)))


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
    return {name: mean_of_defined(METRICS[name].function(hits)) for name in RANKING_METRICS}


def _hits(recommended: npt.ArrayLike, relevant: Relevant, k: int) -> Hits:
    return find_hits(*_checked_lists(recommended, relevant, k))


def _checked_lists(
    recommended: npt.ArrayLike, relevant: Relevant, k: int
) -> tuple[npt.NDArray[Any], Int64Array, Int64Array]:
    """Return the first k items of each user, and the relevant ones as offsets and indices."""
    require_integer("k", k, minimum=1)
    items = as_lists(recommended)
    if items.shape[1] < k:
        raise ParameterError(f"recommended has shape {items.shape}; expected (n_users, at least k = {k})")
    indptr, indices = as_rows(relevant)
    if len(indptr) != len(items) + 1:
        raise ParameterError(f"relevant has {len(indptr) - 1} rows for {len(items)} users; expected one each")
    if not len(indices):
        raise ParameterError("no user has a relevant item; expected at least one")
    return items[:, :k], indptr, indices
