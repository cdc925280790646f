"""Who is ranked, and of which items."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastmf.answering.fitted import Fitted
from fastmf.answering.rows import rows_of_pairs, take_rows
from fastmf.errors import DataError, named
from fastmf.measuring.matching import Candidates, Excluded, MatchedPairs
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import BoolArray, Int32Array
from fastmf_kernels.topk.arrays import Pairs, Rows, no_rows

Align = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
# With so large a share of users to be ranked, all are: rows that follow one another need no copy.
_SHARE_THAT_RANKS_ALL = 0.9
# So many ids are shown in a message.
_SHOWN = 3


class Ranked(NamedTuple):
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
    align : callable
        Puts values of the test ratings into the order of ``relevant``.
    among : Rows or None
        The only items to rank, for each of ``users``, the relevant ones included; None for all.
    """

    users: Int32Array
    exclude: Rows
    exclude_rows: Int32Array
    relevant: Pairs
    n_cold: int
    align: Align
    among: Rows | None = None

    def take(self, rows: Int32Array) -> "Batch":
        """Return what is asked of some rows."""
        among = None if self.among is None else take_rows(self.among, rows)
        return Batch(rows, self.users[rows], take_rows(self.exclude, self.exclude_rows[rows]), among)

    def batches(self, n_rows: int) -> Iterator["Batch"]:
        """Yield all rows, so many at a time."""
        for start in range(0, len(self.users), n_rows):
            yield self.take(np.arange(start, min(start + n_rows, len(self.users)), dtype=np.int32))


class Batch(NamedTuple):
    """Some rows of users to rank; see `Ranked`. ``exclude`` and ``among`` have a row for each of ``users``."""

    rows: Int32Array
    users: Int32Array
    exclude: Rows
    among: Rows | None


def rows_to_rank(
    pairs: MatchedPairs, is_relevant: BoolArray | None, fitted: Fitted, excluded: Excluded, cold: str
) -> Ranked:
    """Choose the users with relevant items, or all users of the model if over 90 % of them have some."""
    pairs = pairs.taking(is_relevant)
    by_model = pairs.users >= 0
    all_by_model = bool(by_model.all())
    users, items = (pairs.users, pairs.items) if all_by_model else (pairs.users[by_model], pairs.items[by_model])
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
    by_popularity = cold == "popular" and n_cold > 0

    def align(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        values = values if is_relevant is None else values[is_relevant]
        if all_by_model:
            return values
        return np.concatenate([values[by_model], values[~by_model]]) if by_popularity else values[by_model]

    if not by_popularity:
        return Ranked(rows, excluded.rows, rows, relevant, n_cold, align)
    relevant = Pairs(
        np.concatenate([relevant.queries, (len(rows) + row_of_pair).astype(np.int32)]),
        np.concatenate([relevant.items, pairs.items[~by_model]]),
    )
    of_cold = no_rows(n_cold) if excluded.cold_rows is None else take_rows(excluded.cold_rows, cold_users)
    return Ranked(
        np.append(rows, np.full(n_cold, -1, np.int32)),
        _stacked(excluded.rows, of_cold),
        np.append(rows, np.arange(fitted.n_users, fitted.n_users + n_cold, dtype=np.int32)),
        relevant,
        n_cold,
        align,
    )


def _stacked(a: Rows, b: Rows) -> Rows:
    return Rows(np.append(a.indptr, a.indptr[-1] + b.indptr[1:]), np.append(a.indices, b.indices))


def ranked_among(ranked: Ranked, candidates: Candidates, test: Interactions, n_items: int) -> Ranked:
    """Rank candidates only, and the relevant items, of ``n_items`` of the model.

    Raises
    ------
    DataError
        If a user who is to be ranked has no candidate, or no user has one that is known and not relevant: the relevant
        items would have no rival.
    """
    rows, items = ranked.relevant
    n_known = len(np.unique(rows[items >= 0].astype(np.int64) * n_items + items[items >= 0]))
    row_of_user = np.full(test.n_users + 1, -1, np.int64)  # -1 stands for the last place
    row_of_user[ranked.align(test.users)] = rows
    row_of_candidate = row_of_user[candidates.test_users]
    has_candidates = np.bincount(row_of_candidate[row_of_candidate >= 0], minlength=len(ranked.users)) > 0
    _require_candidates(np.flatnonzero((row_of_user >= 0) & ~has_candidates[row_of_user]), test)
    rows, items = np.concatenate([rows, row_of_candidate]), np.concatenate([items, candidates.items])
    known = (rows >= 0) & (items >= 0)
    among = rows_of_pairs(rows[known], items[known], len(ranked.users), n_items)
    if len(among.indices) == n_known:
        raise DataError(
            f"{named('among')} has no candidate that the model knows, beside the relevant items: these would have no "
            f"rival ({candidates.n_unknown:,} candidates are unknown, or cold and not ranked); expected candidates "
            "with the item ids of the training ratings"
        )
    return ranked._replace(among=among)


def _require_candidates(users: npt.NDArray[np.int64], test: Interactions) -> None:
    if not len(users):
        return
    shown = ", ".join(repr(test.user_ids[int(user)].as_py()) for user in users[:_SHOWN])
    raise DataError(
        f"{named('among')} has no candidates for {len(users)} users of the test part: {shown}"
        f"{', ...' if len(users) > _SHOWN else ''}; expected some for each: add them, or leave these users out of the "
        "test part"
    )
