"""Test pairs, excluded pairs and candidates, matched to the ids of a model."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from fastmf.answering.fitted import Fitted
from fastmf.answering.rows import count_contained, keep_columns, rows_of_pairs
from fastmf.answering.scoring import Scorer
from fastmf.errors import DataError, ParameterError, named
from fastmf.reading import ids
from fastmf.reading.interactions import Interactions
from fastmf.reading.tables import is_table
from fastmf_kernels._types import BoolArray, Int32Array
from fastmf_kernels.topk.arrays import Rows


class MatchedPairs(NamedTuple):
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
    def of(cls, test: Interactions, fitted: Fitted, cold: str) -> "MatchedPairs":
        """Look up the ids of the test part in a model."""
        users, items = test.users, test.items
        if not (test.user_ids.equals(fitted.user_ids) and test.item_ids.equals(fitted.item_ids)):
            users = _look_up(fitted.user_ids, test.user_ids, "test", "user")[users]
            items = _look_up(fitted.item_ids, test.item_ids, "test", "item")[items]
        if cold != "include":
            users, items = _without(users, fitted.counts.is_cold_user), _without(items, fitted.counts.is_cold_item)
        return cls(users, items, test.users)

    def taking(self, chosen: BoolArray | None) -> "MatchedPairs":
        """Return some of the pairs; all if None."""
        return self if chosen is None else MatchedPairs(*(each[chosen] for each in self))


def _look_up(known: pa.Array, given: pa.Array, parameter: str, kind: str) -> Int32Array:
    """Return the index of each id of a parameter among the known ones, -1 for others."""
    _require_type(known, given, parameter, kind)
    return ids.look_up(known, given, f"{kind}_ids")


def _require_type(known: pa.Array, given: pa.Array, parameter: str, kind: str) -> None:
    if len(given) and pa.types.is_integer(given.type) != pa.types.is_integer(known.type):
        raise DataError(
            f"{named(parameter)} has {kind} ids of type {given.type}, and the model has those of type {known.type}; "
            "cast them to that type"
        )


def _without(indices: Int32Array, is_cold: BoolArray) -> Int32Array:
    """Replace the indices of what is cold by -1."""
    if not is_cold.any():
        return indices
    # -1 stands for the last place, which is added.
    return np.append(np.where(is_cold, -1, np.arange(len(is_cold))), -1).astype(np.int32)[indices]


class Excluded(NamedTuple):
    """Items that are not ranked.

    Attributes
    ----------
    rows : Rows
        For each user of the model; without cold items where these are not ranked.
    cold_rows : Rows or None
        For each user of the test part, known to the model or not; None if nothing is excluded for cold users.
    n_test_pairs, n_relevant : int
        Test pairs among the excluded ones, and the relevant ones of these.
    """

    rows: Rows
    cold_rows: Rows | None
    n_test_pairs: int
    n_relevant: int

    @classmethod
    def of(
        cls,
        exclude: str | Interactions | None,
        scorer: Scorer,
        test: Interactions,
        pairs: MatchedPairs,
        is_relevant: BoolArray | None,
        cold: str,
    ) -> "Excluded":
        """Resolve an ``exclude`` argument."""
        fitted = scorer.fitted
        if isinstance(exclude, Interactions):
            _require_type(fitted.user_ids, exclude.user_ids, "exclude", "user")
            _require_type(fitted.item_ids, exclude.item_ids, "exclude", "item")
        rows = scorer.exclusion(exclude)
        if not isinstance(exclude, Interactions):
            return cls(rows, None, *_count(rows, pairs.users, pairs.items, fitted.n_items, is_relevant))
        in_test = _as_rows_of(exclude, test)
        counts = _count(in_test, test.users, test.items, test.n_items, is_relevant)
        warm = None if cold == "include" else fitted.counts.warm_items
        if warm is not None:
            rows = keep_columns(rows, warm, fitted.n_items)
        if cold != "popular":
            return cls(rows, None, *counts)
        users = _look_up(test.user_ids, exclude.user_ids, "exclude", "user")[exclude.users]
        items = _look_up(fitted.item_ids, exclude.item_ids, "exclude", "item")[exclude.items]
        known = (users >= 0) & (items >= 0)
        cold_rows = rows_of_pairs(users[known], items[known], test.n_users, fitted.n_items)
        return cls(rows, cold_rows if warm is None else keep_columns(cold_rows, warm, fitted.n_items), *counts)


def _count(
    rows: Rows, users: Int32Array, items: Int32Array, n_items: int, is_relevant: BoolArray | None
) -> tuple[int, int]:
    """Count the pairs that are among rows, and the relevant ones of these."""
    n_pairs = count_contained(rows, users, items, n_items)
    if is_relevant is None or not n_pairs:
        return n_pairs, n_pairs
    return n_pairs, count_contained(rows, users[is_relevant], items[is_relevant], n_items)


def _as_rows_of(pairs: Interactions, test: Interactions) -> Rows:
    """Return pairs as rows by the indices of the test part."""
    if pairs.user_ids.equals(test.user_ids) and pairs.item_ids.equals(test.item_ids):
        return Rows(pairs.by_user.indptr, pairs.by_user.indices)
    users = _look_up(test.user_ids, pairs.user_ids, "exclude", "user")[pairs.users]
    items = _look_up(test.item_ids, pairs.item_ids, "exclude", "item")[pairs.items]
    known = (users >= 0) & (items >= 0)
    return rows_of_pairs(users[known], items[known], test.n_users, test.n_items)


class Candidates(NamedTuple):
    """The pairs that alone are ranked, beside the relevant ones.

    Attributes
    ----------
    test_users : int32 array, shape (n_pairs,)
        By the indices of the test part; -1 for others.
    items : int32 array, shape (n_pairs,)
        By the model's indices; -1 for those that are not ranked.
    """

    test_users: Int32Array
    items: Int32Array

    @classmethod
    def of(cls, among: Interactions, test: Interactions, fitted: Fitted, cold: str) -> "Candidates":
        """Look up candidates in a test part and a model."""
        users = _look_up(test.user_ids, among.user_ids, "among", "user")[among.users]
        items = _look_up(fitted.item_ids, among.item_ids, "among", "item")[among.items]
        return cls(users, items if cold == "include" else _without(items, fitted.counts.is_cold_item))

    @property
    def n_unknown(self) -> int:
        """Count the pairs of users of the test part that are not ranked."""
        return int(np.count_nonzero((self.test_users >= 0) & (self.items < 0)))


def as_candidates(among: Any) -> Interactions:
    """Return an ``among`` argument as pairs; their ratings mean nothing.

    Raises
    ------
    ParameterError
        If it is no table, dict or Interactions.
    DataError
        If it has no candidates, or what it has are no ids.
    """
    if isinstance(among, Interactions):
        return among
    if is_table(among):
        try:
            return Interactions.from_arrow(among, rating=None, duplicates="first")
        except DataError as error:
            raise DataError(f"{named('among')}: {error}") from error
    if not isinstance(among, Mapping):
        raise ParameterError(
            f"{named('among')} is of type {type(among).__name__}; expected Interactions, a table with the columns "
            "user_id and item_id, or a dict of user id to item ids"
        )
    users: list[Any] = []
    items: list[Any] = []
    for user, row in among.items():
        if isinstance(row, (str, bytes)) or not isinstance(row, Iterable):
            raise ParameterError(f"{named('among')}[{user!r}] is {row!r}; expected a list of item ids")
        items.extend(row)
        users.extend([user] * (len(items) - len(users)))
    if not items:
        raise DataError(f"{named('among')} has no candidates; expected item ids for each user")
    try:
        return Interactions.from_arrays(users, items, duplicates="first")
    except DataError as error:
        raise DataError(f"{named('among')}, its keys as 'users' and their lists as 'items': {error}") from error
