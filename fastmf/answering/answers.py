"""Recommendations and neighbours with their outside ids, as arrays and as tables."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from fastmf.reading.parquet import PathLike, write_table
from fastmf_kernels._types import BoolArray, Float32Array, Int32Array
from fastmf_kernels.topk.arrays import Scan, TopK

_NO_WORK = Scan(0, 0, 0)
# So many items of the first user are in a representation.
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Recommendations:
    """The best items of some users, best first.

    Attributes
    ----------
    users : int32 array, shape (n,)
        Indices of the users: their rows in the model's user factors; -1 for users that the model does not know.
    user_ids : Arrow array, length n
        The outside ids of those users.
    items : int32 array, shape (n, k)
        Positions in ``item_ids``; -1 where a user has fewer than k candidates.
    scores : float32 array, shape (n, k)
        Predictions of the model; the share of the users who rated an item where popular items fill in for a user
        without training ratings. -inf where ``items`` is -1.
    item_ids : Arrow array
        The outside ids of the catalogue.
    scan : Scan
        Work of the search: tiles of users and items that were screened or skipped, pairs that were scored.
    n_cold_users : int
        How many of these users have no training rating. Unless ``cold`` says otherwise they get no items.
    by_popularity : bool array, shape (n,), or None
        Which users got popular items, because the model knows nothing about them; None if that was not recorded.
    unknown_items : Arrow array or None
        Of people who bring their ratings, the outside ids of the rated items that the model does not know, ascending;
        None where nobody brings any.
    n_unknown_ratings : int
        How many of the ratings they bring are of those items.
    """

    users: Int32Array
    user_ids: pa.Array
    items: Int32Array
    scores: Float32Array
    item_ids: pa.Array
    scan: Scan = _NO_WORK
    n_cold_users: int = 0
    by_popularity: BoolArray | None = None
    unknown_items: pa.Array | None = None
    n_unknown_ratings: int = 0

    def __repr__(self) -> str:
        """Return the numbers of users and of items for each, and the first items of the first user."""
        return _in_short(self, len(self.users), ("user", "users"), self.user_ids, self.items, self.item_ids)

    def to_arrow(self) -> pa.Table:
        """Return the long form: ``user_id, rank, item_id, score``, one row a recommendation, rank from 1."""
        return _long_form(self.user_ids, self.items, self.scores, self.item_ids, ("user_id", "item_id"))

    def to_parquet(self, path: PathLike, *, overwrite: bool = False) -> None:
        """Write the table of `to_arrow` to a Parquet file, whole or not at all.

        Raises
        ------
        OutputExistsError
            If ``path`` exists and ``overwrite`` is false.
        """
        write_table(self.to_arrow(), path, overwrite)


@dataclass(frozen=True, eq=False)
class UsersForItems:
    """The best users of some items, best first.

    Attributes
    ----------
    items : int32 array, shape (n,)
        Indices of the items: their rows in the model's item factors.
    item_ids : Arrow array, length n
        The outside ids of those items.
    users : int32 array, shape (n, k)
        Positions in ``user_ids``; -1 where an item has fewer than k candidates.
    scores : float32 array, shape (n, k)
        Predictions of the model; -inf where ``users`` is -1.
    user_ids : Arrow array
        The outside ids of all users.
    n_cold_items : int
        How many of these items have neither a training rating nor features.
    """

    items: Int32Array
    item_ids: pa.Array
    users: Int32Array
    scores: Float32Array
    user_ids: pa.Array
    n_cold_items: int = 0

    def __repr__(self) -> str:
        """Return the numbers of items and of users for each, and the first users of the first item."""
        return _in_short(self, len(self.items), ("item", "items"), self.item_ids, self.users, self.user_ids)

    def to_arrow(self) -> pa.Table:
        """Return the long form: ``item_id, rank, user_id, score``, one row a user of an item, rank from 1."""
        return _long_form(self.item_ids, self.users, self.scores, self.user_ids, ("item_id", "user_id"))

    def to_parquet(self, path: PathLike, *, overwrite: bool = False) -> None:
        """Write the table of `to_arrow` to a Parquet file, whole or not at all.

        Raises
        ------
        OutputExistsError
            If ``path`` exists and ``overwrite`` is false.
        """
        write_table(self.to_arrow(), path, overwrite)


@dataclass(frozen=True, eq=False)
class Similar:
    """The nearest neighbours of some items (or users), nearest first.

    Attributes
    ----------
    ids : Arrow array, length n
        The items (or users) that were asked for; of vectors, their numbers from 0.
    neighbours : int32 array, shape (n, k)
        Positions in ``all_ids``; -1 where there are fewer than k.
    scores : float32 array, shape (n, k)
        The cosine of the angle between the factors, their dot product, or the distance between them, which grows.
        Where ``neighbours`` is -1, they are -inf, and distances are inf.
    all_ids : Arrow array
        The outside ids of all items (or users).
    kind : str
        "item" or "user".
    n_cold : int
        How many of ``ids`` have no training rating, and thus no neighbours.
    measure : {"cosine", "dot", "euclidean"}
        What ``scores`` are.
    by_vector : bool
        Whether vectors were asked for, and not ids.
    """

    ids: pa.Array
    neighbours: Int32Array
    scores: Float32Array
    all_ids: pa.Array
    kind: str
    n_cold: int = 0
    measure: str = "cosine"
    by_vector: bool = False

    def __repr__(self) -> str:
        """Return the numbers of items (or users) and of neighbours for each, and the first neighbours of the first."""
        words = ("vector", "vectors") if self.by_vector else (self.kind, f"{self.kind}s")
        return _in_short(self, len(self.ids), words, self.ids, self.neighbours, self.all_ids)

    def to_arrow(self) -> pa.Table:
        """Return the long form: ``item_id, rank, similar_item_id, score`` (or ``user_id, ...``, or ``vector, ...``)."""
        names = ("vector" if self.by_vector else f"{self.kind}_id", f"similar_{self.kind}_id")
        return _long_form(self.ids, self.neighbours, self.scores, self.all_ids, names)


@dataclass(frozen=True)
class Batches:
    """Recommendations for ``n_users`` users, computed batch by batch as they are asked for.

    ``fingerprint()`` is the same for two requests only if their answers are. ``n_cold_users`` of the users have no
    training rating.
    """

    n_users: int
    batch_size: int
    compute: Callable[[int], Recommendations]
    fingerprint: Callable[[], str]
    n_cold_users: int = 0

    @property
    def n_batches(self) -> int:
        """How many batches there are, numbered from 0."""
        return -(-self.n_users // self.batch_size)

    def size(self, number: int) -> int:
        """Return the number of users of a batch."""
        return min(self.batch_size, self.n_users - number * self.batch_size)


def empty_top(n_rows: int, k: int) -> TopK:
    """Return answers in which no query has found anything."""
    return TopK(np.full((n_rows, k), -np.inf, np.float32), np.full((n_rows, k), -1, np.int32))


def add_scans(scans: Iterable[Scan]) -> Scan:
    """Return the work of several searches together."""
    return Scan(*(sum(counts) for counts in zip(_NO_WORK, *scans, strict=True)))


def _in_short(
    answers: object, n_rows: int, words: tuple[str, str], row_ids: pa.Array, indices: Int32Array, all_ids: pa.Array
) -> str:
    beginning = f"{type(answers).__name__}({n_rows:,} {words[n_rows != 1]}, k={indices.shape[1]}"
    if n_rows == 0:
        return f"{beginning})"
    found = indices[0][indices[0] >= 0]
    shown = ", ".join(repr(all_ids[int(place)].as_py()) for place in found[:_SHOWN])
    more = ", ..." if len(found) > _SHOWN else ""
    return f"{beginning}; {row_ids[0].as_py()!r}: {f'{shown}{more}' or 'nothing'})"


def _long_form(
    row_ids: pa.Array, indices: Int32Array, scores: Float32Array, all_ids: pa.Array, names: tuple[str, str]
) -> pa.Table:
    found = indices >= 0
    row, column = np.nonzero(found)
    return pa.table(
        {
            names[0]: row_ids.take(pa.array(row)),
            "rank": pa.array((column + 1).astype(np.int32)),
            names[1]: all_ids.take(pa.array(indices[found])),
            "score": pa.array(scores[found]),
        }
    )
