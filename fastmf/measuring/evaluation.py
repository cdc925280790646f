"""How good a model is on ratings it has not seen."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastmf.answering.asked import read_once
from fastmf.answering.fitted import Fitted
from fastmf.answering.rows import count_contained, difference, keep_columns, rows_of_pairs, take_rows, union
from fastmf.answering.scoring import COLD, Scorer
from fastmf.backend import get_backend
from fastmf.common.parameters import require_choice, require_integer, require_number
from fastmf.errors import DataError, ParameterError, named
from fastmf.measuring.metrics import METRICS, Input, Metric
from fastmf.measuring.ties import find_groups, has_ties, hits_of
from fastmf.reading import ids
from fastmf.reading.interactions import Interactions, as_interactions
from fastmf_kernels._types import BoolArray, Float64Array, Int32Array
from fastmf_kernels.topk.arrays import Pairs, Rows, TopK, no_rows
from fastmf_kernels.topk.hits import Hits

Evaluation = dict[str, Any]
"""Metrics and counts by name; None is a metric that is undefined."""
# Makes an input of metrics when it is called.
_Makers = dict[Input, Callable[[], Any]]
# Users that are ranked together.
_BATCH = 8192
# With so large a share of users to be ranked, all are: rows that follow one another need no copy.
_SHARE_THAT_RANKS_ALL = 0.9


class Measurable(Protocol):
    """What `evaluate` asks of a model."""

    backend: str
    n_threads: int | None

    @property
    def fitted(self) -> Fitted:
        """The result of a fit."""

    @property
    def is_implicit(self) -> bool:
        """Whether ratings say only what was chosen."""


def evaluate(
    model: Measurable,
    test: Any,
    *,
    exclude: str | Interactions | None = "seen",
    k: int | Sequence[int] = 10,
    metrics: Iterable[str] | None = None,
    min_relevant_rating: float | None = None,
    cold: str = "skip",
) -> Evaluation:
    """Measure a fitted model on test ratings.

    A user or item without a training rating is cold: nothing is known of it, whether or not the model has its id. The
    metrics are thus the same for a split in memory, which keeps all ids, and for the same two parts read from files.

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
        ``mae`` measure against the preference that it predicts: 1 for a rating above 0, and 0 for others. Only what the
        named metrics need is computed.
    min_relevant_rating : float, optional
        Test items count as relevant from this rating on. None: all of them, or for an implicit model those with a
        rating above 0.
    cold : {"skip", "popular", "include"}
        Cold users are not ranked, or are ranked by the number of training ratings of items. Neither ranks cold items:
        they can only be missed. "include" ranks cold users and items of the model by their factors, as any others.

    Returns
    -------
    dict
        ``rmse``, ``mae``, ``auc``, ``mean_percentile_rank`` as named; the others with their cut-off, as ``ndcg@10``:
        means over the ranked users with a relevant item. A metric that is undefined is None. Where items of a user
        have the same score, metrics of relevance are expected values over the random order of these items;
        ``coverage``, ``novelty`` and ``diversity`` are those of the items that would be recommended.

        ``n_ratings`` counts the predicted ratings, and ``n_unknown`` those of them whose user or item is cold (they
        count in ``rmse`` and ``mae``, without the factors of what is cold). With rankings there are ``n_users``, which
        counts the ranked users; ``n_cold_users``, the cold users with a relevant item; and ``n_excluded``, the test
        ratings that are among the excluded pairs, which can only be missed. ``auc`` and ``mean_percentile_rank`` leave
        out missed items that are not ranked, and are means over the users for whom they are defined.

    Raises
    ------
    ParameterError
        If a metric is unknown, or k is larger than the catalogue.
    DataError
        If there is nothing to measure, or a factor is not finite.

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.testing.low_rank(n_users=50, n_items=20, density=0.5, seed=0)
    >>> train, test = fastmf.split.random(ratings, test_fraction=0.2)
    >>> results = fastmf.evaluate(fastmf.ALS(n_factors=4).fit(train), test, k=5, metrics=["rmse", "ndcg"])
    >>> sorted(results)
    ['n_cold_users', 'n_excluded', 'n_ratings', 'n_unknown', 'n_users', 'ndcg@5', 'rmse']
    """
    chosen = _checked_metrics(metrics)
    require_choice("cold", cold, COLD)
    if min_relevant_rating is not None:
        require_number("min_relevant_rating", min_relevant_rating, minimum=-math.inf)
    of_ratings = [metric for metric in chosen if "predictions" in metric.inputs]
    of_rankings = [metric for metric in chosen if "predictions" not in metric.inputs]
    # Taken once: another thread may fit the model again meanwhile.
    fitted = getattr(model, "fitted", None)
    if not isinstance(fitted, Fitted):
        raise ParameterError(f"model is a {type(model).__name__}; expected a model of fastmf")
    cut_offs = _checked_cut_offs(k, fitted.n_items) if of_rankings else ()
    held_out = as_interactions(test, "test")
    if held_out.n_ratings == 0:
        raise DataError("the test part has no ratings; expected at least one")
    if not fitted.is_finite():
        raise DataError("factors of the model are infinite or NaN; expected finite ones: fit it again")
    pairs = _Pairs.of(held_out, fitted, cold)
    results: Evaluation = dict(_rating_metrics(model, fitted, pairs, held_out, of_ratings))
    if of_rankings:
        is_relevant = None if min_relevant_rating is None else held_out.ratings >= min_relevant_rating
        if model.is_implicit and is_relevant is None and not (held_out.ratings > 0).all():
            is_relevant = held_out.ratings > 0
        scorer = Scorer(fitted, model.backend, model.n_threads)
        excluded = _Excluded.of(exclude, scorer, held_out, pairs, cold)
        ranked = _rows_to_rank(pairs.taking(is_relevant), fitted, excluded, cold)
        results |= _Ranking(model, fitted, scorer, ranked, cold).measure(of_rankings, cut_offs)
        results["n_excluded"] = excluded.n_test_pairs
    results["n_ratings"] = held_out.n_ratings
    results["n_unknown"] = int(np.count_nonzero((pairs.users < 0) | (pairs.items < 0)))
    return results


class _Pairs(NamedTuple):
    """The test pairs.

    Attributes
    ----------
    users, items : int32 arrays, shape (n_ratings,)
        By the model's indices; -1 for those that are unknown or cold.
    test_users : int32 array
        By the indices of the test part.
    """

    users: Int32Array
    items: Int32Array
    test_users: Int32Array

    @classmethod
    def of(cls, test: Interactions, fitted: Fitted, cold: str) -> "_Pairs":
        users, items = test.users, test.items
        if not (test.user_ids.equals(fitted.user_ids) and test.item_ids.equals(fitted.item_ids)):
            users = ids.look_up(fitted.user_ids, test.user_ids, "user_ids")[users]
            items = ids.look_up(fitted.item_ids, test.item_ids, "item_ids")[items]
        if cold != "include":
            users, items = _without(users, fitted.counts.is_cold_user), _without(items, fitted.counts.of_items == 0)
        return cls(users, items, test.users)

    def taking(self, chosen: BoolArray | None) -> "_Pairs":
        """Return some of the pairs; all if None."""
        return self if chosen is None else _Pairs(*(each[chosen] for each in self))


def _without(indices: Int32Array, is_cold: BoolArray) -> Int32Array:
    """Replace the indices of what is cold by -1."""
    if not is_cold.any():
        return indices
    # -1 stands for the last place, which is added.
    return np.append(np.where(is_cold, -1, np.arange(len(is_cold))), -1).astype(np.int32)[indices]


def _checked_metrics(names: Iterable[str] | None) -> list[Metric]:
    """Return the metrics of these names, or the default ones, in the order of `METRICS`."""
    if names is None:
        return [metric for metric in METRICS.values() if metric.is_default]
    listed = (names,) if isinstance(names, str) or not isinstance(names, Iterable) else tuple(names)
    if not listed or any(name not in tuple(METRICS) for name in listed):
        raise ParameterError(f"{named('metrics')} are {list(listed)!r}; expected some of {', '.join(METRICS)}")
    return [metric for metric in METRICS.values() if metric.name in listed]


def _checked_cut_offs(k: Any, n_items: int) -> tuple[int, ...]:
    cut_offs = tuple(read_once(k)) if isinstance(k, Iterable) and not isinstance(k, (str, bytes)) else (k,)
    if not cut_offs:
        raise ParameterError(f"{named('k')} is empty; expected an integer of at least 1, or several")
    for cut_off in cut_offs:
        require_integer("k", cut_off, minimum=1)
        if cut_off > n_items:
            raise ParameterError(
                f"{named('k')} is {cut_off}, but the catalogue has {n_items} items; expected at most as many"
            )
    return tuple(int(cut_off) for cut_off in cut_offs)


def _rating_metrics(
    model: Measurable, fitted: Fitted, pairs: _Pairs, test: Interactions, chosen: Sequence[Metric]
) -> Evaluation:
    def predictions() -> Any:
        kernels = get_backend(model.backend)
        return kernels.predict_pairs(pairs.users, pairs.items, fitted.factors, fitted.link, model.n_threads)

    inputs: _Makers = {
        "ratings": cache(lambda: (test.ratings > 0).astype(np.float32) if model.is_implicit else test.ratings),
        "predictions": cache(predictions),
    }
    return {metric.name: metric.measure(inputs) for metric in chosen}


class _Excluded(NamedTuple):
    """Items that are not ranked.

    Attributes
    ----------
    rows : Rows
        For each user of the model; without cold items where these are not ranked.
    cold_rows : Rows or None
        For each user of the test part, known to the model or not; None if nothing is excluded for cold users.
    n_test_pairs : int
        Test pairs among the excluded ones.
    """

    rows: Rows
    cold_rows: Rows | None
    n_test_pairs: int

    @classmethod
    def of(
        cls, exclude: str | Interactions | None, scorer: Scorer, test: Interactions, pairs: _Pairs, cold: str
    ) -> "_Excluded":
        rows, fitted = scorer.exclusion(exclude), scorer.fitted
        if not isinstance(exclude, Interactions):
            return cls(rows, None, count_contained(rows, pairs.users, pairs.items, fitted.n_items))
        in_test = _as_rows_of(exclude, test)
        n_test_pairs = count_contained(in_test, test.users, test.items, test.n_items)
        warm = None if cold == "include" else fitted.counts.warm_items
        if warm is not None:
            rows = keep_columns(rows, warm, fitted.n_items)
        if cold != "popular":
            return cls(rows, None, n_test_pairs)
        users = ids.look_up(test.user_ids, exclude.user_ids, "user_ids")[exclude.users]
        items = ids.look_up(fitted.item_ids, exclude.item_ids, "item_ids")[exclude.items]
        known = (users >= 0) & (items >= 0)
        cold_rows = rows_of_pairs(users[known], items[known], test.n_users, fitted.n_items)
        return cls(rows, cold_rows if warm is None else keep_columns(cold_rows, warm, fitted.n_items), n_test_pairs)


def _as_rows_of(pairs: Interactions, test: Interactions) -> Rows:
    """Return pairs as rows by the indices of the test part."""
    if pairs.user_ids.equals(test.user_ids) and pairs.item_ids.equals(test.item_ids):
        return Rows(pairs.by_user.indptr, pairs.by_user.indices)
    users = ids.look_up(test.user_ids, pairs.user_ids, "user_ids")[pairs.users]
    items = ids.look_up(test.item_ids, pairs.item_ids, "item_ids")[pairs.items]
    known = (users >= 0) & (items >= 0)
    return rows_of_pairs(users[known], items[known], test.n_users, test.n_items)


class _Ranked(NamedTuple):
    """Users to rank, in rows.

    Attributes
    ----------
    users : int32 array, shape (n_rows,)
        By the model's indices; -1 for those who are ranked by the popularity of items.
    exclude : Rows
    exclude_rows : int32 array, shape (n_rows,)
        The row of ``exclude`` for each of ``users``.
    relevant : Pairs
        Rows and the items that are relevant to them; an unknown or cold item is relevant and never found.
    n_cold : int
        Cold users with a relevant item.
    """

    users: Int32Array
    exclude: Rows
    exclude_rows: Int32Array
    relevant: Pairs
    n_cold: int


def _rows_to_rank(pairs: _Pairs, fitted: Fitted, excluded: _Excluded, cold: str) -> _Ranked:
    """Choose the users with relevant items, or all users of the model if over 90 % of them have some."""
    by_model = pairs.users >= 0
    users, items = (pairs.users, pairs.items) if by_model.all() else (pairs.users[by_model], pairs.items[by_model])
    is_ranked = np.bincount(users, minlength=fitted.n_users) > 0
    relevant, rows = Pairs(users, items), np.arange(fitted.n_users, dtype=np.int32)
    if np.count_nonzero(is_ranked) < _SHARE_THAT_RANKS_ALL * fitted.n_users:
        rows = np.flatnonzero(is_ranked).astype(np.int32)
        row_of_user = np.cumsum(is_ranked, dtype=np.int32) - np.int32(1)
        relevant = Pairs(row_of_user[users], items)
    cold_users, row_of_pair = np.unique(pairs.test_users[~by_model], return_inverse=True)
    n_cold = len(cold_users)
    if cold == "include":
        n_cold += int(np.count_nonzero(is_ranked & fitted.counts.is_cold_user))
    if cold != "popular" or not n_cold:
        return _Ranked(rows, excluded.rows, rows, relevant, n_cold)
    relevant = Pairs(
        np.concatenate([relevant.queries, (len(rows) + row_of_pair).astype(np.int32)]),
        np.concatenate([relevant.items, pairs.items[~by_model]]),
    )
    of_cold = no_rows(n_cold) if excluded.cold_rows is None else take_rows(excluded.cold_rows, cold_users)
    return _Ranked(
        np.append(rows, np.full(n_cold, -1, np.int32)),
        _stacked(excluded.rows, of_cold),
        np.append(rows, np.arange(fitted.n_users, fitted.n_users + n_cold, dtype=np.int32)),
        relevant,
        n_cold,
    )


def _stacked(a: Rows, b: Rows) -> Rows:
    return Rows(np.append(a.indptr, a.indptr[-1] + b.indptr[1:]), np.append(a.indices, b.indices))


class _Ranking:
    """Metrics of rankings of users; rows without relevant items do not count."""

    def __init__(self, model: Measurable, fitted: Fitted, scorer: Scorer, ranked: _Ranked, cold: str) -> None:
        self._fitted, self._scorer, self._ranked, self._cold = fitted, scorer, ranked, cold
        self._kernels = get_backend(model.backend)
        self._n_relevant = np.bincount(ranked.relevant.queries, minlength=len(ranked.users))
        self._n_users = int(np.count_nonzero(self._n_relevant))
        if self._n_users == 0:
            known = "is known to the model" + ("" if cold == "include" else " and has training ratings")
            raise DataError(
                f"no user of the test part with a relevant item {known}: nothing to rank; test on users of the "
                "training ratings"
            )
        warm = None if cold == "include" else fitted.counts.warm_items
        self._n_candidates = fitted.n_items if warm is None else len(warm)

    def measure(self, chosen: Sequence[Metric], cut_offs: Sequence[int]) -> Evaluation:
        results: Evaluation = {}
        if any(metric.has_cut_off for metric in chosen):
            lists = _Lists(self._scorer, self._ranked, max(cut_offs), self._cold)
            hits_at = cache(lambda: self._hits_at(lists))
            for k in cut_offs:
                inputs = self._inputs_at(k, lists, hits_at)
                results |= {f"{metric.name}@{k}": metric.measure(inputs) for metric in chosen if metric.has_cut_off}
        inputs = self._inputs_of_full_rankings()
        results |= {metric.name: metric.measure(inputs) for metric in chosen if not metric.has_cut_off}
        return results | {
            "n_users": self._n_users,
            "n_cold_users": self._ranked.n_cold,
        }

    def _hits_at(self, lists: "_Lists") -> Callable[[int], Hits]:
        """Return what finds the hits among the first k items, ties in random order."""
        relevant = self._ranked.relevant
        is_hit = self._kernels.mark_hits(lists.items, lists.k, relevant, None)
        groups = find_groups(lists.rows_with_ties, lists.top, relevant, self._fitted.n_items, lists.k)
        return lambda k: hits_of(is_hit, groups, k, self._n_relevant)

    def _inputs_at(self, k: int, lists: "_Lists", hits_at: Callable[[], Callable[[int], Hits]]) -> _Makers:
        fitted, is_ranked = self._fitted, self._n_relevant > 0

        def recommended() -> Int32Array:
            return lists.items[:, :k] if is_ranked.all() else lists.items[is_ranked, :k]

        return {
            "hits": cache(lambda: hits_at()(k)),
            "recommended": cache(recommended),
            "n_items": lambda: self._n_candidates,
            "known_share": lambda: fitted.counts.share_of_users,
            "item_factors": lambda: fitted.factors.item_factors,
        }

    def _inputs_of_full_rankings(self) -> _Makers:
        return {
            "irrelevant_above": lambda: self._means_of_users(self._irrelevant_above),
            "candidates_above": lambda: self._means_of_users(self._candidates_above),
        }

    def _means_of_users(self, values_of: Callable[[Int32Array, Rows, Rows], Float64Array]) -> Float64Array:
        """Average a value of ranked relevant items over each user's items, where it is defined."""
        n_items, values, (rows, items) = self._fitted.n_items, [], self._ranked.relevant
        known = items >= 0
        all_relevant = rows_of_pairs(rows[known], items[known], len(self._ranked.users), n_items)
        for start, users, excluded in _batches(self._ranked):
            relevant = take_rows(all_relevant, np.arange(start, start + len(users), dtype=np.int32))
            relevant = difference(relevant, excluded, n_items)
            of_items, n_relevant = values_of(users, relevant, excluded), np.diff(relevant.indptr)
            totals = np.bincount(np.repeat(np.arange(len(users)), n_relevant), of_items, minlength=len(users))
            values.append(totals[n_relevant > 0] / n_relevant[n_relevant > 0])
        means = np.concatenate(values)
        return means[np.isfinite(means)]

    def _irrelevant_above(self, users: Int32Array, relevant: Rows, excluded: Rows) -> Float64Array:
        """Return, for each relevant item, the share of irrelevant ones that score above it; ties count half."""
        others = union(relevant, excluded, self._fitted.n_items)
        counts = self._scorer.count_better(users, relevant, others, self._cold)
        n_irrelevant = np.repeat(self._n_candidates - np.diff(others.indptr), np.diff(relevant.indptr))
        with np.errstate(invalid="ignore"):  # no irrelevant item: undefined
            return np.asarray((counts.higher + counts.equal / 2) / n_irrelevant)

    def _candidates_above(self, users: Int32Array, relevant: Rows, excluded: Rows) -> Float64Array:
        """Return, for each relevant item, the share of the other candidates that score above it; ties count half."""
        counts = self._scorer.count_better(users, relevant, excluded, self._cold)
        n_others = np.repeat(self._n_candidates - np.diff(excluded.indptr) - 1, np.diff(relevant.indptr))
        with np.errstate(invalid="ignore"):
            return np.asarray((counts.higher + (counts.equal - 1) / 2) / n_others)


class _Lists:
    """The first k items of each row, and which rows have items of equal scores among the first k + 1."""

    def __init__(self, scorer: Scorer, ranked: _Ranked, k: int, cold: str) -> None:
        self._scorer, self._ranked, self._cold, self.k = scorer, ranked, cold, k
        items, with_ties = [], []
        for start, users, excluded in _batches(ranked):
            found = scorer.top(users, k + 1, excluded, cold)
            items.append(found.indices[:, :k])
            with_ties.append(start + np.flatnonzero(has_ties(found)))
        self.items = np.concatenate(items)
        self.rows_with_ties = np.concatenate(with_ties).astype(np.int32)

    def top(self, rows: Int32Array, k: int) -> TopK:
        """Return the first k items of some rows, with scores."""
        excluded = take_rows(self._ranked.exclude, self._ranked.exclude_rows[rows])
        return self._scorer.top(self._ranked.users[rows], k, excluded, self._cold)


def _batches(ranked: _Ranked) -> Iterator[tuple[int, Int32Array, Rows]]:
    """Yield the first row of each batch, its users, and what is excluded for them."""
    for start in range(0, len(ranked.users), _BATCH):
        batch = slice(start, start + _BATCH)
        yield start, ranked.users[batch], take_rows(ranked.exclude, ranked.exclude_rows[batch])
