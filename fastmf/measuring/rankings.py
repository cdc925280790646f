"""Rankings of users, and what metrics of rankings are computed from."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from fastmf.answering.rows import difference, rows_of_pairs, take_rows, union
from fastmf.answering.scoring import Scorer
from fastmf.backend import get_backend
from fastmf.measuring.gains import Gains, ideal_gains
from fastmf.measuring.measurement import Measurement
from fastmf.measuring.metrics import Inputs, Metric
from fastmf.measuring.ranked import Batch, Ranked
from fastmf.measuring.ties import Groups, count_in_lists, expected_gains, find_groups, has_ties, hits_of
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import BoolArray, Float64Array, Int32Array
from fastmf_kernels.topk.arrays import Rows, TopK
from fastmf_kernels.topk.hits import Hits

# Users that are ranked together, and the most candidates that are listed for them.
_BATCH, _LISTED = 8192, 1 << 22


class Rankings:
    """Metrics of rankings of users; rows without relevant items do not count.

    Parameters
    ----------
    scorer : Scorer
    backend : str
    ranked : Ranked
    test : Interactions
        Whose pairs ``ranked`` was made of.
    cold : str
    """

    def __init__(self, scorer: Scorer, backend: str, ranked: Ranked, test: Interactions, cold: str) -> None:
        self._scorer, self._ranked, self._test, self._cold = scorer, ranked, test, cold
        self._fitted, self._kernels = scorer.fitted, get_backend(backend)
        self._n_relevant = np.bincount(ranked.relevant.queries, minlength=len(ranked.users))
        self.n_users = int(np.count_nonzero(self._n_relevant))
        warm = None if cold == "include" else self._fitted.counts.warm_items
        self._n_candidates = self._fitted.n_items if warm is None else len(warm)

    def measure(self, chosen: Sequence[Metric], cut_offs: Sequence[int], by_user: bool) -> list[Measurement]:
        """Compute metrics: those of the first k items for each cut-off, and those of whole rankings."""
        found = []
        if any(metric.has_cut_off for metric in chosen):
            lists = _Lists(self._scorer, self._ranked, max(cut_offs), self._cold)
            has_gains = any("gained" in metric.inputs for metric in chosen)
            hits = cache(lambda: self._find_hits(lists, has_gains))
            for k in cut_offs:
                inputs = self._inputs_at(k, lists, hits)
                at_k = (metric for metric in chosen if metric.has_cut_off)
                found += [Measurement.of(metric, f"{metric.name}@{k}", inputs, by_user) for metric in at_k]
        inputs = self._inputs_of_full_rankings()
        found += [Measurement.of(each, each.name, inputs, by_user) for each in chosen if not each.has_cut_off]
        return [each.placed(self._test_users(), self._test.n_users) for each in found] if by_user else found

    def _test_users(self) -> Int32Array:
        """Return the ranked users, by the indices of the test part."""
        user_of_row = np.full(len(self._ranked.users), -1, np.int32)
        user_of_row[self._ranked.relevant.queries] = self._ranked.align(self._test.users)
        return user_of_row[self._n_relevant > 0]

    def _gains(self) -> Float64Array:
        """Return the gain of each relevant pair: its test rating, or 0 for a rating below."""
        return np.maximum(self._ranked.align(self._test.ratings), 0).astype(np.float64)

    def _find_hits(self, lists: "_Lists", has_gains: bool) -> "_Hits":
        relevant, n_items = self._ranked.relevant, self._fitted.n_items
        gains = Gains.of(relevant.queries, relevant.items, self._gains(), n_items) if has_gains else None
        is_hit = self._kernels.mark_hits(lists.items, lists.k, relevant, None)
        return _Hits(is_hit, find_groups(lists.rows_with_ties, lists.top, relevant, n_items, lists.k, gains), gains)

    def _inputs_at(self, k: int, lists: "_Lists", found: Callable[[], "_Hits"]) -> Inputs:
        fitted, is_ranked = self._fitted, self._n_relevant > 0

        def hits() -> Hits:
            return hits_of(found().is_hit, found().groups, k, self._n_relevant)

        def gained() -> tuple[Float64Array, Float64Array]:
            is_hit, groups, gains = found()
            assert gains is not None
            ideal = ideal_gains(self._ranked.relevant.queries, self._gains(), len(is_ranked), k)
            return expected_gains(lists.items, is_hit, groups, gains, k)[is_ranked], ideal[is_ranked]

        def recommended() -> Int32Array:
            return lists.items[:, :k] if is_ranked.all() else lists.items[is_ranked, :k]

        return {
            "hits": cache(hits),
            "gained": gained,
            "recommended": cache(recommended),
            "n_items": lambda: self._n_candidates,
            "known_share": lambda: fitted.counts.share_of_users,
            "item_factors": lambda: fitted.factors.item_factors,
        }

    def _inputs_of_full_rankings(self) -> Inputs:
        return {
            "irrelevant_above": lambda: self._mean_shares_above(only_irrelevant=True),
            "candidates_above": lambda: self._mean_shares_above(only_irrelevant=False),
        }

    def _mean_shares_above(self, only_irrelevant: bool) -> Float64Array:
        """Average the shares of other items that score above a user's relevant items; NaN if none is ranked."""
        n_items, (rows, items), n_rows = self._fitted.n_items, self._ranked.relevant, len(self._ranked.users)
        known, means = items >= 0, np.full(n_rows, np.nan)
        all_relevant = rows_of_pairs(rows[known], items[known], n_rows, n_items)
        for batch in self._ranked.batches(self._rows_listed_at_once()):
            relevant = difference(take_rows(all_relevant, batch.rows), batch.exclude, n_items)
            n_relevant = np.diff(relevant.indptr)
            row_of_item = np.repeat(np.arange(len(batch.rows)), n_relevant)
            shares = self._shares_above(batch, relevant, only_irrelevant)
            totals = np.bincount(row_of_item, shares, minlength=len(batch.rows))
            some = n_relevant > 0
            means[batch.rows[some]] = totals[some] / n_relevant[some]
        return means[self._n_relevant > 0]

    def _rows_listed_at_once(self) -> int:
        among = self._ranked.among
        return _BATCH if among is None else max(1, min(_BATCH, _LISTED // _longest(among)))

    def _shares_above(self, batch: Batch, relevant: Rows, only_irrelevant: bool) -> Float64Array:
        """Return, for each relevant item, the share of irrelevant items, or all others, above it; ties count half."""
        if batch.among is not None:
            top = self._scorer.top(batch.users, _longest(batch.among), batch.exclude, self._cold, batch.among)
            counts, n_counted = count_in_lists(top, relevant, only_irrelevant)
        else:
            left_out = union(relevant, batch.exclude, self._fitted.n_items) if only_irrelevant else batch.exclude
            counts = self._scorer.count_better(batch.users, relevant, left_out, self._cold)
            n_counted = self._n_candidates - np.diff(left_out.indptr)
        itself = 0 if only_irrelevant else 1  # a relevant item is counted as equal to itself
        n_others = np.repeat(n_counted, np.diff(relevant.indptr)) - itself
        with np.errstate(invalid="ignore"):  # no other item: undefined
            return np.asarray((counts.higher + (counts.equal - itself) / 2) / n_others)


class _Hits(NamedTuple):
    """The relevant items among the first k of each row, the groups of tied items, and the gains of relevant items.

    The gains are None if no metric asks for them.
    """

    is_hit: BoolArray
    groups: Groups
    gains: Gains | None


class _Lists:
    """The first k items of each row, and which rows have items of equal scores among the first k + 1."""

    def __init__(self, scorer: Scorer, ranked: Ranked, k: int, cold: str) -> None:
        self._scorer, self._ranked, self._cold, self.k = scorer, ranked, cold, k
        items, with_ties = [], []
        for batch in ranked.batches(_BATCH):
            found = self._top_of(batch, k + 1)
            items.append(found.indices[:, :k])
            with_ties.append(batch.rows[has_ties(found)])
        self.items = np.concatenate(items)
        self.rows_with_ties = np.concatenate(with_ties)

    def top(self, rows: Int32Array, k: int) -> TopK:
        """Return the first k items of some rows, with scores."""
        return self._top_of(self._ranked.take(rows), k)

    def _top_of(self, batch: Batch, k: int) -> TopK:
        return self._scorer.top(batch.users, k, batch.exclude, self._cold, batch.among)


def _longest(rows: Rows) -> int:
    return max(1, int(np.diff(rows.indptr).max(initial=0)))
