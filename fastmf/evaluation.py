"""How good a model is on ratings it has not seen."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmf import ids, metrics
from fastmf.errors import DataError, ParameterError
from fastmf.interactions import Interactions, as_interactions
from fastmf.models.base import FactorModel
from fastmf.parameters import require_integer
from fastmf.rows import take_rows
from fastmf.scoring import Scorer
from fastmf_kernels._types import Float64Array, Int32Array
from fastmf_kernels.topk.arrays import Rows

if TYPE_CHECKING:
    from fastmf.models.fitted import Fitted

RATING_METRICS = ("rmse", "mae")
METRICS = (*RATING_METRICS, *metrics.RANKING_METRICS, "coverage", "auc")
DEFAULT_METRICS = METRICS[:-1]
_BATCH = 8192
_AUC_BATCH = 256


def evaluate(
    model: FactorModel,
    test: Any,
    *,
    exclude: str | Interactions | None = "seen",
    k: int | Sequence[int] = 10,
    metrics: Sequence[str] | None = None,
    min_relevant_rating: float | None = None,
) -> dict[str, float]:
    """Measure a fitted model on test ratings.

    Parameters
    ----------
    model : FactorModel
        Fitted.
    test : Interactions or SciPy sparse matrix
        Matched to the model by outside ids.
    exclude : "seen", Interactions or None
        Items that are not ranked for a user: those of the training ratings, of these pairs, or none.
    k : int or sequence of int
        Cut-offs of the ranking metrics.
    metrics : sequence of str, optional
        Some of ``rmse, mae, precision, recall, hit_rate, ndcg, map, mrr, coverage, auc``; all but auc if None. For an
        implicit model, ``rmse`` and ``mae`` measure against the preference 1 that it predicts for an observed pair.
    min_relevant_rating : float, optional
        Test items count as relevant from this rating on; all of them if None.

    Returns
    -------
    dict
        ``rmse``, ``mae``, ``auc`` as named; ranking metrics with their cut-off, as ``ndcg@10``: means over the users
        known to the model that have a relevant item. ``n_users`` tells how many these are, ``n_ratings`` how many
        ratings were predicted, ``n_unknown`` how many of them had a user or an item that the model does not know (they
        count in ``rmse`` and ``mae``; an unknown item can only be missed; an unknown user is not ranked). ``auc`` is
        that of known items, over the users for whom it is defined.

    Raises
    ------
    ParameterError
        If a metric is unknown, or k is larger than the catalogue.
    DataError
        If there is nothing to measure.

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.testing.low_rank(n_users=50, n_items=20, density=0.5, seed=0)
    >>> train, test = fastmf.split.random(ratings, test_fraction=0.2)
    >>> figures = fastmf.evaluate(fastmf.ALS(n_factors=4).fit(train), test, k=5, metrics=["rmse", "ndcg"])
    >>> sorted(figures)
    ['n_ratings', 'n_unknown', 'n_users', 'ndcg@5', 'rmse']
    """
    wanted = _checked_metrics(metrics)
    ranks = any(name not in RATING_METRICS for name in wanted)
    cut_offs = _checked_cut_offs(k, len(model.item_ids)) if ranks else ()
    held_out = as_interactions(test, "test")
    if held_out.n_ratings == 0:
        raise DataError("the test part has no ratings; expected at least one")
    users = ids.look_up(model.user_ids, held_out.user_ids, "user_ids")[held_out.users]
    items = ids.look_up(model.item_ids, held_out.item_ids, "item_ids")[held_out.items]
    figures: dict[str, float] = {}
    if any(name in RATING_METRICS for name in wanted):
        figures |= _rating_figures(model, users, items, held_out, wanted)
    if ranks:
        relevant = np.ones(len(users), np.bool_)
        if min_relevant_rating is not None:
            relevant = held_out.ratings >= min_relevant_rating
        # An unknown item is relevant and never found: each gets an index of its own beyond the catalogue.
        all_items = np.where(items < 0, len(model.item_ids) + held_out.items, items)
        figures |= _Ranking(model, users[relevant], all_items[relevant], exclude).figures(wanted, cut_offs)
    figures["n_ratings"] = held_out.n_ratings
    figures["n_unknown"] = int(np.count_nonzero((users < 0) | (items < 0)))
    return figures


def _checked_metrics(names: Sequence[str] | None) -> tuple[str, ...]:
    if names is None:
        return DEFAULT_METRICS
    listed = (names,) if isinstance(names, str) else tuple(names)
    unknown = [name for name in listed if name not in METRICS]
    if unknown or not listed:
        raise ParameterError(f"metrics are {list(listed)!r}; expected some of {', '.join(METRICS)}")
    return listed


def _checked_cut_offs(k: int | Sequence[int], n_items: int) -> tuple[int, ...]:
    cut_offs = tuple(k) if isinstance(k, Sequence) else (k,)
    for cut_off in cut_offs:
        require_integer("k", cut_off, minimum=1)
        if cut_off > n_items:
            raise ParameterError(f"k is {cut_off}, but the catalogue has {n_items} items; expected at most as many")
    return cut_offs


def _rating_figures(
    model: FactorModel, users: Int32Array, items: Int32Array, test: Interactions, wanted: Sequence[str]
) -> dict[str, float]:
    predictions = model.predict_indices(users, items)
    target = np.ones(len(users), np.float32) if model.is_implicit else test.ratings
    return {name: getattr(metrics, name)(target, predictions) for name in RATING_METRICS if name in wanted}


class _Ranking:
    """The relevant items of the users to be ranked."""

    def __init__(
        self, model: FactorModel, users: Int32Array, items: Int32Array, exclude: str | Interactions | None
    ) -> None:
        self._fitted: Fitted = model.fitted
        self._scorer = Scorer(self._fitted, model.backend, model.n_threads)
        self._barred = self._scorer.exclusion(exclude)
        known = users >= 0
        if not known.any():
            raise DataError("no user of the test part with a relevant item is known to the model: nothing to rank")
        order = np.lexsort((items[known], users[known]))
        users, items = users[known][order], items[known][order]
        self._users, counts = np.unique(users, return_counts=True)
        self._relevant = Rows(np.concatenate([[0], np.cumsum(counts)]), items)

    def figures(self, wanted: Sequence[str], cut_offs: Sequence[int]) -> dict[str, float]:
        figures: dict[str, float] = {}
        if any(name not in (*RATING_METRICS, "auc") for name in wanted):
            recommended = self._recommended(max(cut_offs))
            for k in cut_offs:
                at_k = metrics.ranking_metrics(recommended, self._relevant, k)
                at_k["coverage"] = metrics.coverage(recommended[:, :k], self._fitted.n_items)
                figures |= {f"{name}@{k}": value for name, value in at_k.items() if name in wanted}
        if "auc" in wanted:
            figures["auc"] = self._mean_auc()
        figures["n_users"] = len(self._users)
        return figures

    def _recommended(self, k: int) -> Int32Array:
        parts = []
        for start in range(0, len(self._users), _BATCH):
            users = self._users[start : start + _BATCH]
            parts.append(self._scorer.top_items(users, k, take_rows(self._barred, users)))
        return np.concatenate(parts)

    def _mean_auc(self) -> float:
        values: list[float] = []
        for start in range(0, len(self._users), _AUC_BATCH):
            positions = np.arange(start, min(start + _AUC_BATCH, len(self._users)), dtype=np.int32)
            scores = self._scorer.scores(self._users[positions])
            barred = take_rows(self._barred, self._users[positions])
            relevant = take_rows(self._relevant, positions)
            values += [_auc_of_row(scores[r], _row(relevant, r), _row(barred, r)) for r in range(len(positions))]
        defined = [value for value in values if not math.isnan(value)]
        return float(np.mean(defined)) if defined else math.nan


def _row(rows: Rows, r: int) -> Int32Array:
    return rows.indices[rows.indptr[r] : rows.indptr[r + 1]]


def _auc_of_row(scores: Float64Array, relevant: Int32Array, barred: Int32Array) -> float:
    is_relevant = np.zeros(len(scores), np.bool_)
    is_relevant[relevant[relevant < len(scores)]] = True
    scores[barred] = -np.inf
    return metrics.auc(scores, is_relevant)
