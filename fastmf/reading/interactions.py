"""`Interactions`: ratings as (user, item, rating) triples with dense indices, and the outside id of each index."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastmf.common.parameters import require_choice
from fastmf.errors import DataError, ParameterError
from fastmf.reading import ids
from fastmf.reading.parquet import PathLike, open_dataset, read_column, require_column, with_columns, write_table
from fastmf_kernels._types import Float32Array, Int32Array, Int64Array
from fastmf_kernels.layout.arrays import CSR

if TYPE_CHECKING:
    import scipy.sparse

DUPLICATES = ("error", "first", "last", "mean", "sum")


@dataclass(frozen=True, eq=False)
class Interactions:
    """Ratings (or counts, or clicks) as parallel arrays. Pairs that are not listed are unknown, not 0.

    Build one with `read_parquet`, `Interactions.from_arrays`, `Interactions.from_arrow` or `Interactions.from_scipy`.

    Attributes
    ----------
    users, items : int32 arrays, shape (n_ratings,)
        Dense indices.
    ratings : float32 array, shape (n_ratings,)
        Finite; 1 where the source has no ratings.
    timestamps : int64 array, shape (n_ratings,), or None
    user_ids, item_ids : Arrow arrays, int64 or string
        The outside id of each index, ascending. Both parts of a split keep all ids, so an index may have no rating.

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.Interactions.from_arrays(["ann", "bob", "ann"], [7, 7, 9], [5.0, 3.0, 4.0])
    >>> ratings.n_users, ratings.n_items, ratings.n_ratings
    (2, 2, 3)
    """

    users: Int32Array
    items: Int32Array
    ratings: Float32Array
    timestamps: Int64Array | None
    user_ids: pa.Array
    item_ids: pa.Array

    @property
    def n_users(self) -> int:
        """Number of users in the id space."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Number of items in the id space."""
        return len(self.item_ids)

    @property
    def n_ratings(self) -> int:
        """Number of observed (user, item) pairs."""
        return len(self.ratings)

    def __len__(self) -> int:
        return self.n_ratings

    def __repr__(self) -> str:
        return f"Interactions(n_users={self.n_users}, n_items={self.n_items}, n_ratings={self.n_ratings})"

    @functools.cached_property
    def by_user(self) -> CSR:
        """The ratings as CSR with one row for each user, items ascending: ``(indptr, indices, values)``."""
        return self._by_user(None)

    @functools.cached_property
    def by_item(self) -> CSR:
        """The ratings as CSR with one row for each item, users ascending: ``(indptr, indices, values)``."""
        return self._by_item(None)

    def lay_out(self, n_threads: int | None, both: bool = False) -> None:
        """Compute `by_user`, and `by_item` if ``both`` is true, on ``n_threads`` threads, unless they exist already."""
        if "by_user" not in self.__dict__:
            self.__dict__["by_user"] = self._by_user(n_threads)
        if both and "by_item" not in self.__dict__:
            self.__dict__["by_item"] = self._by_item(n_threads)

    def _by_user(self, n_threads: int | None) -> CSR:
        from fastmf_kernels.layout import cpu as layout

        by_item = layout.coo_to_csr(self.items, self.users, self.ratings, self.n_items, n_threads)
        return layout.transpose(by_item, self.n_users, n_threads)

    def _by_item(self, n_threads: int | None) -> CSR:
        from fastmf_kernels.layout import cpu as layout

        return layout.transpose(self.by_user, self.n_items, n_threads)

    def take(self, positions: Int64Array) -> "Interactions":
        """Return the ratings at some positions, in the same id space.

        Parameters
        ----------
        positions : int array, shape (n,), or bool array, shape (n_ratings,)
        """
        timestamps = None if self.timestamps is None else self.timestamps[positions]
        return Interactions(
            self.users[positions],
            self.items[positions],
            self.ratings[positions],
            timestamps,
            self.user_ids,
            self.item_ids,
        )

    @classmethod
    def from_arrays(
        cls, users: Any, items: Any, ratings: Any = None, timestamps: Any = None, *, duplicates: str = "error"
    ) -> "Interactions":
        """Build from parallel arrays of outside ids.

        Parameters
        ----------
        users, items : array-like of int or str, shape (n,)
        ratings : array-like of float, shape (n,), optional
            All 1 if not given.
        timestamps : array-like of int, shape (n,), optional
        duplicates : {"error", "first", "last", "mean", "sum"}
            What to do with a (user, item) pair that occurs more than once.

        Returns
        -------
        Interactions

        Raises
        ------
        DataError
            If lengths differ, an id or rating is null, a rating is not finite, or a pair occurs twice.

        Examples
        --------
        >>> import fastmf
        >>> fastmf.Interactions.from_arrays([1, 2], ["a", "b"])
        Interactions(n_users=2, n_items=2, n_ratings=2)
        """
        given = {"users": users, "items": items, "ratings": ratings, "timestamps": timestamps}
        arrays = {name: ids.to_arrow(values, name) for name, values in given.items() if values is not None}
        lengths = {name: len(values) for name, values in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"the arrays differ in length: {lengths}; expected one value each for every rating")
        return _build(arrays.get, _Names("users", "items", "ratings", "timestamps"), duplicates, source="the arrays")

    @classmethod
    def from_arrow(
        cls,
        table: Any,
        user: str = "user_id",
        item: str = "item_id",
        rating: str | None = "rating",
        timestamp: str | None = None,
        *,
        duplicates: str = "error",
    ) -> "Interactions":
        """Build from an Arrow table, or from anything that exports one (pandas, polars, duckdb).

        Parameters
        ----------
        table : pyarrow.Table or object with ``__arrow_c_stream__``
        user, item : str
            Names of the id columns.
        rating, timestamp : str or None
            Names of the other columns; None if there is none.
        duplicates : {"error", "first", "last", "mean", "sum"}

        Returns
        -------
        Interactions

        Raises
        ------
        DataError
            As `read_parquet`.
        """
        if not isinstance(table, pa.Table):
            if not hasattr(table, "__arrow_c_stream__"):
                raise DataError(
                    f"got a {type(table).__name__}; expected an Arrow table or an object with __arrow_c_stream__ "
                    "(pandas, polars and duckdb have it); for plain arrays use Interactions.from_arrays"
                )
            table = pa.table(table)
        names = _Names(user, item, rating, timestamp)
        for name in names.given():
            require_column(table.schema, name)
        return _build(lambda name: name and table.column(name), names, duplicates, source="the table")

    @classmethod
    def from_scipy(cls, matrix: Any) -> "Interactions":
        """Build from a users × items sparse matrix; ids are the row and column numbers.

        Parameters
        ----------
        matrix : SciPy sparse array or matrix, shape (n_users, n_items)
            Entries that are stored are observed, also those equal to 0. A duplicate entry is an error.

        Returns
        -------
        Interactions
        """
        coo = matrix.tocoo()
        users, items = coo.row.astype(np.int32), coo.col.astype(np.int32)
        data = coo.data.astype(np.float32) if coo.data.dtype == np.bool_ else coo.data
        ratings = _finite_ratings(pa.chunked_array([pa.array(data)]), "data")
        row_ids, column_ids = (pa.array(np.arange(n, dtype=np.int64)) for n in matrix.shape)
        return _without_duplicates(Interactions(users, items, ratings, None, row_ids, column_ids), "error")

    def to_scipy(self) -> "scipy.sparse.csr_array":
        """Return a users × items SciPy CSR array of the ratings, shape (n_users, n_items)."""
        import scipy.sparse

        indptr, indices, values = self.by_user
        return scipy.sparse.csr_array((values, indices, indptr), shape=(self.n_users, self.n_items))

    def to_arrow(self) -> pa.Table:
        """Return a table of outside ids: ``user_id, item_id, rating`` and, where known, ``timestamp``."""
        columns = {
            "user_id": self.user_ids.take(pa.array(self.users)),
            "item_id": self.item_ids.take(pa.array(self.items)),
            "rating": pa.array(self.ratings),
        }
        if self.timestamps is not None:
            columns["timestamp"] = pa.array(self.timestamps)
        return pa.table(columns)

    def to_parquet(self, path: PathLike, *, overwrite: bool = False) -> None:
        """Write the table of `to_arrow` to a Parquet file, whole or not at all.

        Raises
        ------
        OutputExistsError
            If ``path`` exists and ``overwrite`` is false.
        """
        write_table(self.to_arrow(), path, overwrite)


def read_parquet(
    path: PathLike | Sequence[PathLike],
    user: str = "user_id",
    item: str = "item_id",
    rating: str | None = "rating",
    timestamp: str | None = None,
    *,
    duplicates: str = "error",
) -> Interactions:
    """Read ratings from Parquet.

    Only the named columns are read, one at a time.

    Parameters
    ----------
    path : path-like or sequence of path-like
        A file, a directory, a glob pattern, a URI, or several of them.
    user, item : str
        Names of the id columns: integers or strings.
    rating : str or None
        Name of the rating column; None if there is none: every rating is 1.
    timestamp : str or None
        Name of the time column: integers, or an Arrow time type, which keeps its own unit.
    duplicates : {"error", "first", "last", "mean", "sum"}
        What to do with a (user, item) pair that occurs more than once.

    Returns
    -------
    Interactions

    Raises
    ------
    DataError
        If a file is missing, unreadable or empty; a column is missing or of the wrong type; a value is null; a rating
        is not finite; a pair occurs twice and ``duplicates`` is "error".

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.read_parquet("ratings/", timestamp="timestamp")  # doctest: +SKIP
    """
    names = _Names(user, item, rating, timestamp)
    dataset = with_columns(open_dataset(path), names.given())
    return _build(lambda name: read_column(dataset, name) if name else None, names, duplicates, source=str(path))


@dataclass(frozen=True)
class _Names:
    """Names of the columns; None for a column that does not exist."""

    user: str
    item: str
    rating: str | None
    timestamp: str | None

    def given(self) -> list[str]:
        return [name for name in (self.user, self.item, self.rating, self.timestamp) if name is not None]


def _build(
    column: Callable[[Any], pa.ChunkedArray | None], names: _Names, duplicates: str, source: str
) -> Interactions:
    """Encode one column after the other, so that at most one raw column is in memory."""
    require_choice("duplicates", duplicates, DUPLICATES)
    raw_users = column(names.user)
    if raw_users is None or len(raw_users) == 0:
        raise DataError(f"there are no rows in {source}; expected at least one rating")
    users, user_ids = ids.encode(raw_users, names.user)
    del raw_users
    items, item_ids = ids.encode(column(names.item), names.item)
    raw_ratings, raw_times = column(names.rating), column(names.timestamp)
    ratings = np.ones(len(users), np.float32)
    if raw_ratings is not None:
        ratings = _finite_ratings(raw_ratings, str(names.rating))
    timestamps = None if raw_times is None else _timestamps(raw_times, str(names.timestamp))
    return _without_duplicates(Interactions(users, items, ratings, timestamps, user_ids, item_ids), duplicates)


def _finite_ratings(values: pa.ChunkedArray, column: str) -> Float32Array:
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise DataError(f"column {column!r} has type {kind}; expected numbers as ratings: cast the column first")
    ids.require_no_nulls(values, column)
    ratings = np.array(values.cast(pa.float32(), safe=False).to_numpy())
    finite = np.isfinite(ratings)
    if not finite.all():
        first = int(np.argmin(finite))
        raise DataError(
            f"column {column!r} has {np.count_nonzero(~finite)} ratings that are not finite in float32, the first in "
            f"row {first} (from 0): {values[first].as_py()}; drop or repair those rows first"
        )
    return ratings


def _timestamps(values: pa.ChunkedArray, column: str) -> Int64Array:
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_temporal(kind)):
        raise DataError(f"column {column!r} has type {kind}; expected integers or times: cast the column first")
    ids.require_no_nulls(values, column)
    try:
        if pa.types.is_date32(kind) or pa.types.is_time32(kind):
            values = pc.cast(values, pa.int32())
        return np.array(pc.cast(values, pa.int64()).to_numpy())
    except pa.ArrowException as error:
        raise DataError(f"column {column!r} of type {kind} does not fit into int64: {error}; cast it first") from error


def _without_duplicates(ratings: Interactions, duplicates: str) -> Interactions:
    """Apply the rule for repeated (user, item) pairs; data without repeated pairs is returned unchanged."""
    indptr, indices, _ = ratings.by_user
    same = indices[1:] == indices[:-1]
    starts = indptr[1:-1]
    same[starts[(starts > 0) & (starts < len(indices))] - 1] = False
    n_duplicates = int(np.count_nonzero(same))
    if n_duplicates == 0:
        return ratings
    if duplicates == "error":
        position = int(np.argmax(same))
        user = ratings.user_ids[int(np.searchsorted(indptr, position, side="right")) - 1].as_py()
        item = ratings.item_ids[int(indices[position])].as_py()
        raise DataError(
            f"{n_duplicates} ratings repeat a (user, item) pair, for example ({user!r}, {item!r}); expected each pair "
            'once: choose duplicates="first", "last", "mean" or "sum"'
        )
    return _merge(ratings, duplicates)


def _merge(ratings: Interactions, rule: str) -> Interactions:
    """Merge repeated pairs, in the order of first occurrence; "mean" and "sum" keep the last timestamp."""
    pair = ratings.users.astype(np.int64) * ratings.n_items + ratings.items
    order = np.argsort(pair, kind="stable")
    is_first = np.concatenate([[True], np.diff(pair[order]) != 0])
    starts = np.flatnonzero(is_first)
    sizes = np.diff(np.concatenate([starts, [len(order)]]))
    chosen = order[starts] if rule == "first" else order[starts + sizes - 1]
    values = ratings.ratings[chosen]
    if rule in ("mean", "sum"):
        totals = np.add.reduceat(ratings.ratings[order].astype(np.float64), starts)
        values = (totals / sizes if rule == "mean" else totals).astype(np.float32)
    back = np.argsort(order[starts], kind="stable")
    merged = ratings.take(chosen[back])
    return Interactions(merged.users, merged.items, values[back], merged.timestamps, ratings.user_ids, ratings.item_ids)


def as_interactions(ratings: Any, name: str) -> Interactions:
    """Return ``ratings`` as `Interactions`, also from a SciPy sparse matrix.

    Raises
    ------
    ParameterError
        If it is something else.
    """
    if isinstance(ratings, Interactions):
        return ratings
    if hasattr(ratings, "tocoo") and hasattr(ratings, "shape"):
        return Interactions.from_scipy(ratings)
    raise ParameterError(
        f"{name} is a {type(ratings).__name__}; expected Interactions (read_parquet, Interactions.from_arrays) "
        "or a SciPy sparse matrix of users × items"
    )
