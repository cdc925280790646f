"""Quality of predictions and of rankings, on plain arrays.

Ranking metrics take ``recommended``, an int array of shape (n_users, at least k) with the best item first and -1 for
"none", and ``relevant``, the items that count as hits for each user: ``(indptr, indices)`` as in a CSR matrix, or a
sequence of sequences. Each returns the mean over the users that have at least one relevant item.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastmf.errors import ParameterError
from fastmf.parameters import require_integer
from fastmf_kernels._types import Float64Array, Int64Array

Relevant = tuple[npt.ArrayLike, npt.ArrayLike] | Sequence[Sequence[int]]


def rmse(ratings: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Return the root mean squared error.

    Examples
    --------
    >>> from fastmf import metrics
    >>> metrics.rmse([4, 2], [3, 3])
    1.0
    """
    return float(np.sqrt(np.mean(_errors(ratings, predictions) ** 2)))


def mae(ratings: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Return the mean absolute error."""
    return float(np.mean(np.abs(_errors(ratings, predictions))))


def precision_at_k(recommended: npt.ArrayLike, relevant: Relevant, k: int) -> float:
    """Return the share of the k places that hold a relevant item; an empty place is a miss.

    Examples
    --------
    >>> from fastmf import metrics
    >>> metrics.precision_at_k([[3, 5]], [[5]], k=2)
    0.5
    """
    return ranking_metrics(recommended, relevant, k)["precision"]


def recall_at_k(recommended: npt.ArrayLike, relevant: Relevant, k: int) -> float:
    """Return the share of the relevant items that are among the first k."""
    return ranking_metrics(recommended, relevant, k)["recall"]


def hit_rate_at_k(recommended: npt.ArrayLike, relevant: Relevant, k: int) -> float:
    """Return the share of users with a relevant item among the first k."""
    return ranking_metrics(recommended, relevant, k)["hit_rate"]


def ndcg_at_k(recommended: npt.ArrayLike, relevant: Relevant, k: int) -> float:
    """Return the normalised discounted cumulative gain with gains 0 and 1.

    DCG = Σ_i hit_i / log₂(i + 1) over places i = 1..k, divided by that of the best possible list (Järvelin,
    Kekäläinen, "Cumulated Gain-Based Evaluation of IR Techniques", ACM TOIS 20(4), 2002).
    """
    return ranking_metrics(recommended, relevant, k)["ndcg"]


def map_at_k(recommended: npt.ArrayLike, relevant: Relevant, k: int) -> float:
    """Return the mean average precision: Σ_i hit_i·precision@i / min(k, relevant items) over places i = 1..k."""
    return ranking_metrics(recommended, relevant, k)["map"]


def mrr_at_k(recommended: npt.ArrayLike, relevant: Relevant, k: int) -> float:
    """Return the mean of 1/place of the first relevant item, 0 where none is among the first k."""
    return ranking_metrics(recommended, relevant, k)["mrr"]


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
    """
    values, is_relevant = np.asarray(scores, np.float64), np.asarray(relevant, np.bool_)
    if values.shape != is_relevant.shape or values.ndim != 1:
        raise ParameterError(f"scores have shape {values.shape} and relevant {is_relevant.shape}; expected (n_items,)")
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
    """Return the share of the catalogue that is recommended to anybody."""
    require_integer("n_items", n_items, minimum=1)
    items = np.asarray(recommended)
    return len(np.unique(items[items >= 0])) / n_items


def ranking_metrics(recommended: npt.ArrayLike, relevant: Relevant, k: int) -> dict[str, float]:
    """Return all ranking metrics at once: ``precision, recall, hit_rate, ndcg, map, mrr``.

    Raises
    ------
    ParameterError
        If the shapes do not fit together, or no user has a relevant item.
    """
    hits, n_relevant = _hits(recommended, relevant, k)
    some = n_relevant > 0
    if not some.any():
        raise ParameterError("no user has a relevant item; expected at least one")
    hits, n_relevant = hits[some], n_relevant[some]
    return {name: float(function(hits, n_relevant).mean()) for name, function in _PER_USER.items()}


def _precision(hits: Float64Array, n_relevant: Int64Array) -> Float64Array:
    return np.asarray(hits.mean(axis=1))


def _recall(hits: Float64Array, n_relevant: Int64Array) -> Float64Array:
    return np.asarray(hits.sum(axis=1) / n_relevant)


def _hit_rate(hits: Float64Array, n_relevant: Int64Array) -> Float64Array:
    return np.asarray(hits.max(axis=1))


def _ndcg(hits: Float64Array, n_relevant: Int64Array) -> Float64Array:
    k = hits.shape[1]
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discounts)[np.minimum(n_relevant, k) - 1]
    return np.asarray(hits @ discounts / ideal)


def _average_precision(hits: Float64Array, n_relevant: Int64Array) -> Float64Array:
    k = hits.shape[1]
    precision_at_place = np.cumsum(hits, axis=1) / np.arange(1, k + 1)
    return np.asarray((hits * precision_at_place).sum(axis=1) / np.minimum(n_relevant, k))


def _reciprocal_rank(hits: Float64Array, n_relevant: Int64Array) -> Float64Array:
    return np.asarray(hits.max(axis=1) / (hits.argmax(axis=1) + 1))


_PER_USER: dict[str, Callable[[Float64Array, Int64Array], Float64Array]] = {
    "precision": _precision,
    "recall": _recall,
    "hit_rate": _hit_rate,
    "ndcg": _ndcg,
    "map": _average_precision,
    "mrr": _reciprocal_rank,
}
RANKING_METRICS = tuple(_PER_USER)


def _hits(recommended: npt.ArrayLike, relevant: Relevant, k: int) -> tuple[Float64Array, Int64Array]:
    """Which of the first k places hold a relevant item, (n_users, k) of 0 and 1, and how many items are relevant."""
    require_integer("k", k, minimum=1)
    items = np.asarray(recommended)
    if items.ndim != 2 or items.shape[1] < k:
        raise ParameterError(f"recommended has shape {items.shape}; expected (n_users, at least k = {k})")
    indptr, indices = _as_rows(relevant)
    if len(indptr) != len(items) + 1:
        raise ParameterError(f"relevant has {len(indptr) - 1} rows for {len(items)} users; expected one each")
    items = items[:, :k].astype(np.int64)
    width = max(int(items.max(initial=0)), int(indices.max(initial=0))) + 1
    wanted = np.unique(np.repeat(np.arange(len(items)), np.diff(indptr)) * width + indices)
    offered = np.arange(len(items))[:, None] * width + items
    n_relevant = np.bincount(wanted // width, minlength=len(items))
    return (np.isin(offered, wanted) & (items >= 0)).astype(np.float64), n_relevant


def _as_rows(relevant: Any) -> tuple[Int64Array, Int64Array]:
    if isinstance(relevant, tuple) and len(relevant) == 2 and isinstance(relevant[0], np.ndarray):
        return np.asarray(relevant[0], np.int64), np.asarray(relevant[1], np.int64)
    indptr = np.cumsum([0, *(len(row) for row in relevant)])
    return indptr, np.array([item for row in relevant for item in row], np.int64)


def _errors(ratings: npt.ArrayLike, predictions: npt.ArrayLike) -> Float64Array:
    a, b = np.asarray(ratings, np.float64), np.asarray(predictions, np.float64)
    if a.shape != b.shape or a.size == 0:
        raise ParameterError(
            f"ratings have shape {a.shape} and predictions {b.shape}; expected the same, and not empty"
        )
    return np.asarray(a - b)
