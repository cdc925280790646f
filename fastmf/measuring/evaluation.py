"""How good a model is on ratings it has not seen."""

import copy
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from fastmf.answering.fitted import Fitted
from fastmf.answering.rows import difference, rows_of_pairs, take_rows, union
from fastmf.answering.scoring import Scorer
from fastmf.backend import get_backend
from fastmf.common.parameters import require_integer
from fastmf.errors import DataError, ParameterError
from fastmf.measuring.metrics import METRICS, Input, Metric
from fastmf.reading import ids
from fastmf.reading.interactions import Interactions, as_interactions
from fastmf_kernels._types import BoolArray, Float32Array, Float64Array, Int32Array
from fastmf_kernels.topk.arrays import Pairs, Rows
from fastmf_kernels.topk.hits import Hits

# Makes an input of metrics when it is called.
_Makers = dict[Input, Callable[[], Any]]
_BATCH = 8192
# With so large a share of users to be ranked, all are: rows that follow one another need no copy.
_MOST = 0.9


class Measurable(Protocol):
    """What `evaluate` asks of a model."""

    backend: str
    n_threads: int | None

    @property
    def fitted(self) -> Fitted:
        """What `fit` left behind."""

    @property
    def user_ids(self) -> pa.Array:
        """Outside id of each user."""

    @property
    def item_ids(self) -> pa.Array:
        """Outside id of each item."""

    @property
    def is_implicit(self) -> bool:
        """Whether ratings say only what was chosen."""

    def predict_indices(self, users: Int32Array, items: Int32Array) -> Float32Array:
        """Predict ratings of users and items given as rows of the factors; -1 stands for an unknown one."""


def evaluate(
    model: Measurable,
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
        Names out of `fastmf.metrics.METRICS`, such as ``rmse``, ``ndcg`` or ``coverage``; those that are marked as
        default there if None. What they mean is said in `fastmf.metrics`; ``mean_percentile_rank`` is the share of the
        other candidates that score above a relevant item, 0 at best and about 0.5 by chance (Hu, Koren, Volinsky,
        "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008). For an implicit model, ``rmse`` and
        ``mae`` measure against the preference 1 that it predicts for an observed pair. Only what the named metrics
        need is computed.
    min_relevant_rating : float, optional
        Test items count as relevant from this rating on; all of them if None.

    Returns
    -------
    dict
        ``rmse``, ``mae``, ``auc``, ``mean_percentile_rank`` as named; the others with their cut-off, as ``ndcg@10``:
        means over the users known to the model that have a relevant item. ``n_users`` tells how many these are,
        ``n_ratings`` how many ratings were predicted, ``n_unknown`` how many of them had a user or an item that the
        model does not know (they count in ``rmse`` and ``mae``; an unknown item can only be missed; an unknown user is
        not ranked). ``auc`` and ``mean_percentile_rank`` are those of known items, over the users for whom they are
        defined.

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
    model = copy.copy(model)  # which stays as it is when the model is fitted again meanwhile
    wanted = _checked_metrics(metrics)
    of_rankings = [metric for metric in wanted if "predictions" not in metric.inputs]
    cut_offs = _checked_cut_offs(k, len(model.item_ids)) if of_rankings else ()
    held_out = as_interactions(test, "test")
    if held_out.n_ratings == 0:
        raise DataError("the test part has no ratings; expected at least one")
    pairs = _Pairs.of(held_out, model)
    of_ratings = [metric for metric in wanted if "predictions" in metric.inputs]
    figures = _rating_figures(model, pairs, held_out, of_ratings)
    if of_rankings:
        is_relevant = None if min_relevant_rating is None else held_out.ratings >= min_relevant_rating
        figures |= _Ranking(model, pairs.taking(is_relevant), exclude).figures(of_rankings, cut_offs)
    figures["n_ratings"] = held_out.n_ratings
    figures["n_unknown"] = 0 if pairs.same_ids else int(np.count_nonzero((pairs.users < 0) | (pairs.items < 0)))
    return figures


class _Pairs(NamedTuple):
    """The test pairs by the model's indices, -1 for what it does not know."""

    users: Int32Array
    items: Int32Array
    same_ids: bool

    @classmethod
    def of(cls, test: Interactions, model: Measurable) -> "_Pairs":
        if test.user_ids.equals(model.user_ids) and test.item_ids.equals(model.item_ids):
            return cls(test.users, test.items, True)
        users = ids.look_up(model.user_ids, test.user_ids, "user_ids")[test.users]
        return cls(users, ids.look_up(model.item_ids, test.item_ids, "item_ids")[test.items], False)

    def taking(self, chosen: BoolArray | None) -> Pairs:
        """Return those chosen, or all, whose user is known; an unknown item is relevant and never found."""
        if not self.same_ids:
            chosen = self.users >= 0 if chosen is None else chosen & (self.users >= 0)
        return Pairs(self.users, self.items) if chosen is None else Pairs(self.users[chosen], self.items[chosen])


def _checked_metrics(names: Sequence[str] | None) -> list[Metric]:
    """Return the metrics of these names, or the default ones, in the order of `METRICS`."""
    if names is None:
        return [metric for metric in METRICS.values() if metric.is_default]
    listed = (names,) if isinstance(names, str) else tuple(names)
    if not listed or any(name not in tuple(METRICS) for name in listed):
        raise ParameterError(f"metrics are {list(listed)!r}; expected some of {', '.join(METRICS)}")
    return [metric for metric in METRICS.values() if metric.name in listed]


def _checked_cut_offs(k: int | Sequence[int], n_items: int) -> tuple[int, ...]:
    cut_offs = tuple(k) if isinstance(k, Sequence) else (k,)
    for cut_off in cut_offs:
        require_integer("k", cut_off, minimum=1)
        if cut_off > n_items:
            raise ParameterError(f"k is {cut_off}, but the catalogue has {n_items} items; expected at most as many")
    return cut_offs


def _rating_figures(model: Measurable, pairs: _Pairs, test: Interactions, wanted: Sequence[Metric]) -> dict[str, float]:
    inputs: _Makers = {
        "ratings": cache(lambda: np.ones(len(pairs.users), np.float32) if model.is_implicit else test.ratings),
        "predictions": cache(lambda: model.predict_indices(pairs.users, pairs.items)),
    }
    return {metric.name: metric.measure(inputs) for metric in wanted}


class _Ranking:
    """Users with relevant items, and these items; if over 90 % of the users have some, all users."""

    def __init__(self, model: Measurable, relevant: Pairs, exclude: str | Interactions | None) -> None:
        self._fitted: Fitted = model.fitted
        self._kernels = get_backend(model.backend)
        self._scorer = Scorer(self._fitted, model.backend, model.n_threads)
        self._barred = self._scorer.exclusion(exclude)
        self._is_ranked = np.bincount(relevant.queries, minlength=self._fitted.n_users) > 0
        self._n_users = int(np.count_nonzero(self._is_ranked))
        if self._n_users == 0:
            raise DataError("no user of the test part with a relevant item is known to the model: nothing to rank")
        self._users, self._relevant = np.arange(self._fitted.n_users, dtype=np.int32), relevant
        if self._n_users < _MOST * self._fitted.n_users:
            self._users = np.flatnonzero(self._is_ranked).astype(np.int32)
            row_of_user = np.cumsum(self._is_ranked, dtype=np.int32) - np.int32(1)
            self._relevant = Pairs(row_of_user[relevant.queries], relevant.items)
            self._is_ranked = self._is_ranked[self._users]

    def figures(self, wanted: Sequence[Metric], cut_offs: Sequence[int]) -> dict[str, float]:
        top_items = cache(lambda: self._recommended(max(cut_offs)))
        is_hit = cache(lambda: self._kernels.mark_hits(top_items(), max(cut_offs), self._relevant, None))
        figures: dict[str, float] = {}
        for k in cut_offs:
            inputs = self._inputs_at(k, top_items, is_hit)
            figures |= {f"{metric.name}@{k}": metric.measure(inputs) for metric in wanted if metric.has_cut_off}
        inputs = self._inputs_of_full_rankings()
        figures |= {metric.name: metric.measure(inputs) for metric in wanted if not metric.has_cut_off}
        figures["n_users"] = self._n_users
        return figures

    def _inputs_at(self, k: int, top_items: Callable[[], Int32Array], is_hit: Callable[[], BoolArray]) -> _Makers:
        fitted = self._fitted

        def recommended() -> Int32Array:
            return top_items()[:, :k] if self._is_ranked.all() else top_items()[self._is_ranked, :k]

        def hits() -> Hits:
            n_relevant = np.bincount(self._relevant.queries, minlength=len(self._users))
            return Hits.at(np.flatnonzero(is_hit()[:, :k]), k, n_relevant)

        def known_share() -> Float64Array:
            return np.bincount(fitted.seen.indices, minlength=fitted.n_items) / fitted.n_users

        return {
            "hits": cache(hits),
            "recommended": cache(recommended),
            "n_items": lambda: fitted.n_items,
            "known_share": known_share,
            "item_factors": lambda: fitted.factors.item_factors,
        }

    def _inputs_of_full_rankings(self) -> _Makers:
        return {
            "irrelevant_above": lambda: self._means_of_users(self._irrelevant_above),
            "candidates_above": lambda: self._means_of_users(self._candidates_above),
        }

    def _recommended(self, k: int) -> Int32Array:
        parts = []
        for start in range(0, len(self._users), _BATCH):
            users = self._users[start : start + _BATCH]
            parts.append(self._scorer.top_items(users, k, take_rows(self._barred, users)))
        return np.concatenate(parts)

    def _means_of_users(self, figures_of: Callable[[Int32Array, Rows, Rows], Float64Array]) -> Float64Array:
        """Average a figure of known relevant items that are not barred over each user's items, where it is defined."""
        n_items, values, (rows, items) = self._fitted.n_items, [], self._relevant
        known = items >= 0
        all_wanted = rows_of_pairs(rows[known], items[known], len(self._users), n_items)
        for start in range(0, len(self._users), _BATCH):
            users = self._users[start : start + _BATCH]
            barred = take_rows(self._barred, users)
            wanted = take_rows(all_wanted, np.arange(start, start + len(users), dtype=np.int32))
            wanted = difference(wanted, barred, n_items)
            of_items, n_wanted = figures_of(users, wanted, barred), np.diff(wanted.indptr)
            totals = np.bincount(np.repeat(np.arange(len(users)), n_wanted), of_items, minlength=len(users))
            values.append(totals[n_wanted > 0] / n_wanted[n_wanted > 0])
        means = np.concatenate(values)
        return means[np.isfinite(means)]

    def _irrelevant_above(self, users: Int32Array, wanted: Rows, barred: Rows) -> Float64Array:
        """Return, for each wanted item, the share of irrelevant ones that score above it; ties count half."""
        others = union(wanted, barred, self._fitted.n_items)
        counts = self._scorer.count_better(users, wanted, others)
        n_irrelevant = np.repeat(self._fitted.n_items - np.diff(others.indptr), np.diff(wanted.indptr))
        with np.errstate(invalid="ignore"):  # no irrelevant item: undefined
            return np.asarray((counts.higher + counts.equal / 2) / n_irrelevant)

    def _candidates_above(self, users: Int32Array, wanted: Rows, barred: Rows) -> Float64Array:
        """Return, for each wanted item, the share of the other candidates that score above it; ties count half."""
        counts = self._scorer.count_better(users, wanted, barred)
        n_others = np.repeat(self._fitted.n_items - np.diff(barred.indptr) - 1, np.diff(wanted.indptr))
        with np.errstate(invalid="ignore"):
            return np.asarray((counts.higher + (counts.equal - 1) / 2) / n_others)
