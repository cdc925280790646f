"""`Interactions`: ratings as (user, item, rating) triples with dense indices, and the outside id of each index."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from fastmf.common.lazy import compute_once, state_without_locks
from fastmf.common.memory import needing
from fastmf.common.parameters import require_choice
from fastmf.common.work_log import logged
from fastmf.errors import DataError, ParameterError, named
from fastmf.reading import checks, ids
from fastmf.reading.columns import IDS, RATINGS, TIMES, Column, Kind, Names, Place
from fastmf.reading.duplicates import DUPLICATES, without_duplicates
from fastmf.reading.parquet import ParquetFiles, PathLike, write_table
from fastmf.reading.tables import as_table, is_table
from fastmf.reading.values import to_arrow_times, to_ratings, to_timestamps
from fastmf_kernels._types import Float32Array, Int32Array, Int64Array
from fastmf_kernels.layout.arrays import CSR

if TYPE_CHECKING:
    import scipy.sparse

_BYTES_PER_RATING = 56  # while reading: a raw column, the arrays of `Interactions`, and two layouts as sparse rows


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
    timestamp_type : pyarrow.DataType or None
        Type of the column of times that ``timestamps`` was read from, with its unit; None for integers.

    Raises
    ------
    ParameterError
        If arrays differ in length, hold indices without an id, or ids do not ascend.

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
    timestamp_type: Any = None

    def __post_init__(self) -> None:
        timestamps = self.timestamps
        checked = {
            "user_ids": checks.require_vocabulary("user_ids", self.user_ids),
            "item_ids": checks.require_vocabulary("item_ids", self.item_ids),
            "users": checks.require_indices("users", self.users, len(self.user_ids)),
            "items": checks.require_indices("items", self.items, len(self.item_ids)),
            "ratings": checks.require_ratings("ratings", self.ratings),
            "timestamps": None if timestamps is None else checks.require_timestamps("timestamps", timestamps),
            "timestamp_type": checks.require_time_type("timestamp_type", self.timestamp_type),
        }
        checks.require_same_length(**{name: checked[name] for name in ("users", "items", "ratings", "timestamps")})
        self.__dict__.update(checked)

    def __getstate__(self) -> dict[str, Any]:
        return state_without_locks(self)

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

    @property
    def by_user(self) -> CSR:
        """The ratings as CSR with one row for each user, items ascending: ``(indptr, indices, values)``."""
        return self._lay_out_users(None)

    @property
    def by_item(self) -> CSR:
        """The ratings as CSR with one row for each item, users ascending: ``(indptr, indices, values)``."""
        return self._lay_out_items(None)

    def lay_out(self, n_threads: int | None, both: bool = False) -> None:
        """Compute `by_user`, and `by_item` if ``both`` is true, on ``n_threads`` threads, unless they exist already."""
        self._lay_out_users(n_threads)
        if both:
            self._lay_out_items(n_threads)

    def _lay_out_users(self, n_threads: int | None) -> CSR:
        from fastmf_kernels.layout import cpu as layout

        def compute() -> CSR:
            by_item = layout.coo_to_csr(self.items, self.users, self.ratings, self.n_items, n_threads)
            return layout.transpose(by_item, self.n_users, n_threads)

        return compute_once(self, "by_user", compute)

    def _lay_out_items(self, n_threads: int | None) -> CSR:
        from fastmf_kernels.layout import cpu as layout

        by_user = self._lay_out_users(n_threads)
        return compute_once(self, "by_item", lambda: layout.transpose(by_user, self.n_items, n_threads))

    def take(self, positions: Int64Array) -> "Interactions":
        """Return the ratings at some positions, in the same id space.

        Parameters
        ----------
        positions : int array, shape (n,), or bool array, shape (n_ratings,)

        Raises
        ------
        ParameterError
            If there is no rating at a position.
        """
        try:
            users = self.users[positions]
        except (IndexError, TypeError, ValueError) as error:
            raise ParameterError(f"positions do not fit {self.n_ratings} ratings: {error}") from error
        if users.ndim != 1:
            raise ParameterError(
                f"positions do not fit {self.n_ratings} ratings: they have {users.ndim} dimensions; expected 1"
            )
        timestamps = None if self.timestamps is None else self.timestamps[positions]
        return self.with_rows(users, self.items[positions], self.ratings[positions], timestamps)

    def with_rows(
        self, users: Int32Array, items: Int32Array, ratings: Float32Array, timestamps: Int64Array | None
    ) -> "Interactions":
        """Return other ratings in the same id space, without checking indices and ids again."""
        other = object.__new__(Interactions)
        names = {"user_ids": self.user_ids, "item_ids": self.item_ids, "timestamp_type": self.timestamp_type}
        other.__dict__.update(users=users, items=items, ratings=ratings, timestamps=timestamps, **names)
        return other

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
        timestamps : array-like of int, date or datetime, shape (n,), optional
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
        arrays = {name: Column(ids.to_arrow(values, name)) for name, values in given.items() if values is not None}
        lengths = {name: len(column.values) for name, column in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"the arrays differ in length: {lengths}; expected one value each for every rating")
        names = Names("users", "items", "ratings", "timestamps")
        source = _Source("the arrays", lengths["users"], lambda name, _: arrays.get(name))
        return _build(source, names, duplicates)

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
        """Build from an Arrow table or dataset, or from a table of another library (pandas, polars, duckdb).

        Parameters
        ----------
        table : pyarrow.Table, pyarrow.dataset.Dataset, pandas or polars table, or object with ``__arrow_c_stream__``
            A lazy table of polars is computed. Only the named columns are used.
        user, item : str
            Names of the id columns.
        rating, timestamp : str or None
            Names of the other columns; None if there is none.
        duplicates : {"error", "first", "last", "mean", "sum"}
            What to do with a (user, item) pair that occurs more than once, as in `read_parquet`.

        Returns
        -------
        Interactions

        Raises
        ------
        DataError
            As `read_parquet`.
        """
        names = Names(user, item, rating, timestamp)
        arrow = as_table(table, names.given())
        places = {
            name: place for place, name in enumerate(dict.fromkeys(names.given()))
        }  # pandas has names of any type
        source = _Source(
            "the table", len(arrow), lambda name, _: None if name is None else Column(arrow.column(places[name]))
        )
        return _build(source, names, duplicates)

    @classmethod
    def from_scipy(cls, matrix: Any, *, duplicates: str = "error") -> "Interactions":
        """Build from a SciPy sparse matrix of users × items. Stored entries are ratings, also those that are 0.

        Parameters
        ----------
        matrix : scipy.sparse array or matrix, shape (n_users, n_items)
            Of any format. Ids are the indices of its rows and columns.
        duplicates : {"error", "first", "last", "mean", "sum"}
            What to do with a cell that is stored more than once.

        Returns
        -------
        Interactions

        Raises
        ------
        ParameterError
            If its indices and offsets do not go together, or it is not a sparse matrix.
        DataError
            If an entry is not finite, or a cell is stored twice.
        """
        require_choice("duplicates", duplicates, DUPLICATES)
        users, items, data = checks.entries_of(matrix)
        with needing(_BYTES_PER_RATING * len(users), f"reading {len(users):,} ratings from the sparse matrix"):
            data = data.astype(np.float32) if data.dtype == np.bool_ else data
            ratings = to_ratings(
                Column(ids.to_arrow(data, "data"), lambda row: Place(f"cell ({users[row]}, {items[row]})")), "data"
            )
            row_ids, column_ids = (pa.array(np.arange(n, dtype=np.int64)) for n in matrix.shape)
            return without_duplicates(Interactions(users, items, ratings, None, row_ids, column_ids), duplicates)

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
            columns["timestamp"] = to_arrow_times(self.timestamps, self.timestamp_type)
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
    path: Any,
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
    path : path-like, binary file object, or iterable of these
        A file, a directory, a glob pattern, a URI, a file object, or several of them. Of a directory, all Parquet files
        below it are read, but for names that begin with a dot or an underscore. A folder ``NAME=VALUE`` below it gives
        its files a column NAME, unless they have one; ids from folders are strings unless all are canonical integers.
    user, item : str
        Names of the id columns: integers or strings.
    rating : str or None
        Name of the rating column; None if there is none: every rating is 1.
    timestamp : str or None
        Name of the time column: integers, or an Arrow time type, which keeps its own unit.
    duplicates : {"error", "first", "last", "mean", "sum"}
        What to do with a (user, item) pair that occurs more than once. "first" and "last" go by time if there is a time
        column, and by row among equal times; "mean" and "sum" keep the last timestamp.

    Returns
    -------
    Interactions

    Raises
    ------
    DataError
        If a file is missing, unreadable, damaged or empty; a column is missing or of the wrong type; a value is null; a
        rating is not finite; a pair occurs twice and ``duplicates`` is "error". The message names the file.
    OutOfMemoryError
        If the ratings do not fit into memory.

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.read_parquet("ratings/", timestamp="timestamp")  # doctest: +SKIP
    """
    names = Names(user, item, rating, timestamp)
    files = ParquetFiles(path)
    for parameter, name, kind in names.kinds():
        files.type_of(name, kind, f"; set {named(parameter)} to another")
    label = files.files[0] if len(files.files) == 1 else f"{len(files.files)} files, the first {files.files[0]}"
    source = _Source(label, files.count_rows(), lambda name, kind: None if name is None else files.read(name, kind))
    with logged(f"reading {source.n_rows:,} ratings from {label}"):
        return _build(source, names, duplicates)


class _Source(NamedTuple):
    """Where columns come from: what to call it, its number of rows, and how to read a column."""

    label: str
    n_rows: int
    read: Callable[[Any, Kind], Column | None]

    def column(self, name: str, kind: Kind) -> Column:
        column = self.read(name, kind)
        if column is None:
            raise DataError(f"no column {name!r} in {self.label}; expected ids")
        if len(column.values) != self.n_rows:
            raise DataError(f"column {name!r} has {len(column.values)} values for {self.n_rows} rows of {self.label}")
        return column


def _build(source: _Source, names: Names, duplicates: str) -> Interactions:
    """Encode one column after the other, so that at most one raw column is in memory."""
    require_choice("duplicates", duplicates, DUPLICATES)
    if source.n_rows == 0:
        raise DataError(f"there are no rows in {source.label}; expected at least one rating")
    with needing(_BYTES_PER_RATING * source.n_rows, f"reading {source.n_rows:,} ratings from {source.label}"):
        users, user_ids = _encoded(source, names.user)
        items, item_ids = _encoded(source, names.item)
        raw_ratings = source.read(names.rating, RATINGS)
        ratings = np.ones(len(users), np.float32)
        if raw_ratings is not None:
            ratings = to_ratings(raw_ratings, str(names.rating))
        del raw_ratings
        raw_times = source.read(names.timestamp, TIMES)
        timestamps, kind = (None, None) if raw_times is None else to_timestamps(raw_times, str(names.timestamp))
        checks.require_same_length(users=users, items=items, ratings=ratings, timestamps=timestamps)
        built = Interactions(users, items, ratings, timestamps, user_ids, item_ids, kind)
        return without_duplicates(built, duplicates)


def _encoded(source: _Source, name: str) -> tuple[Int32Array, pa.Array]:
    column = source.column(name, IDS)
    return ids.encode(column.values, name, column.where)


def as_interactions(ratings: Any, name: str) -> Interactions:
    """Return ``ratings`` as `Interactions`, also from a SciPy sparse matrix or a table.

    A table has the columns ``user_id``, ``item_id`` and ``rating``.

    Raises
    ------
    ParameterError
        If it is something else.
    DataError
        If it cannot be used as it is; the message says how to build `Interactions` from it with other options.
    """
    if isinstance(ratings, Interactions):
        return ratings
    try:
        if hasattr(ratings, "tocoo") and hasattr(ratings, "shape"):
            advice = "Interactions.from_scipy(matrix, duplicates=...)"
            return Interactions.from_scipy(ratings)
        if is_table(ratings):
            advice = "Interactions.from_arrow(table, user=..., item=..., rating=..., duplicates=...)"
            return Interactions.from_arrow(ratings)
    except DataError as error:
        raise DataError(f"{name}: {error}; options are parameters of {advice}, whose result is taken here") from error
    raise ParameterError(
        f"{name} is a {type(ratings).__name__}; expected Interactions (read_parquet, Interactions.from_arrays), "
        "a table with the columns user_id, item_id and rating, or a SciPy sparse matrix of users × items"
    )
