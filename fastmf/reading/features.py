"""`Features`: what is known of items or users beside their ratings, as named columns of a sparse matrix."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastmf.common.parameters import require_names
from fastmf.common.work_log import logged
from fastmf.errors import DataError, ParameterError, UnknownIdError, named
from fastmf.reading import checks, ids
from fastmf.reading.columns import ANY, IDS, Column, require_column
from fastmf.reading.feature_tables import Form, Table, build
from fastmf.reading.parquet import ParquetFiles
from fastmf.reading.sparse_rows import require_rows, rows_from_entries, take_rows
from fastmf.reading.tables import all_columns, as_table, is_table
from fastmf_kernels._types import Int32Array
from fastmf_kernels.layout.arrays import CSR

if TYPE_CHECKING:
    import scipy.sparse


class Matched(NamedTuple):
    """Features in the columns of another set of names.

    Attributes
    ----------
    rows : CSR
        A row for each id, a column for each of the names.
    n_unknown : int
        Number of entries that were left out, because their feature is none of the names.
    """

    rows: CSR
    n_unknown: int


@dataclass(frozen=True, eq=False)
class Features:
    """What is known of items, or of users: a sparse matrix with a row for each id and a name for each column.

    Build one with `Features.from_parquet` or `Features.from_arrow`. Values are as they were read; a model or
    `fastmf.LinearMap` standardises numeric columns if it needs to.

    Attributes
    ----------
    ids : Arrow array, int64 or string
        The outside id of each row, ascending.
    rows : CSR
        ``(indptr, indices, values)``, features ascending in a row. Values are finite. An entry that is not there is a
        missing value in a numeric column, and 0 in another.
    names : tuple of str, length n_features
        "year", "genre=Drama"; in the long form the features themselves.
    is_numeric : bool array, shape (n_features,)
        Whether a column was read from numbers or times of a table with a row for each id.

    Raises
    ------
    ParameterError
        If the parts do not go together, ids do not ascend, or a name occurs twice.

    Examples
    --------
    >>> import fastmf, pyarrow
    >>> table = pyarrow.table({"item_id": [7, 9], "year": [1994, None], "genres": ["Crime|Drama", "Drama"]})
    >>> films = fastmf.Features.from_arrow(table)
    >>> films
    Features(n_ids=2, n_features=3, n_entries=4)
    >>> films.names
    ('year', 'genres=Crime', 'genres=Drama')
    >>> films.to_scipy().toarray().tolist()
    [[1994.0, 1.0, 1.0], [0.0, 0.0, 1.0]]
    """

    ids: pa.Array
    rows: CSR
    names: tuple[str, ...]
    is_numeric: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        names = require_names("names", self.names)
        is_numeric = np.asarray(self.is_numeric)
        if is_numeric.dtype != np.bool_ or is_numeric.shape != (len(names),):
            raise ParameterError(
                f"is_numeric is {is_numeric.dtype} of shape {is_numeric.shape}; expected bool, one for each of the "
                f"{len(names)} names"
            )
        checked = {
            "ids": checks.require_vocabulary("ids", self.ids),
            "rows": require_rows("rows", self.rows, len(self.ids), len(names)),
            "names": names,
            "is_numeric": is_numeric,
        }
        self.__dict__.update(checked)

    @property
    def n_features(self) -> int:
        """Number of features, which are the columns."""
        return len(self.names)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Features(n_ids={len(self)}, n_features={self.n_features}, n_entries={len(self.rows.values)})"

    @classmethod
    def from_arrow(
        cls,
        table: Any,
        id: str = "item_id",
        feature: str | None = None,
        value: str | None = None,
        columns: Sequence[str] | None = None,
        *,
        categories: Sequence[str] = (),
        separator: str = "|",
        duplicates: str = "error",
    ) -> "Features":
        """Build from an Arrow table or dataset, or from a table of another library (pandas, polars, duckdb).

        Parameters
        ----------
        table : pyarrow.Table, pyarrow.dataset.Dataset, pandas or polars table, or object with ``__arrow_c_stream__``
            A lazy table of polars is computed.
        id, feature, value, columns, categories, separator, duplicates
            As in `from_parquet`.

        Returns
        -------
        Features

        Raises
        ------
        DataError, ParameterError
            As `from_parquet`.

        Examples
        --------
        >>> import fastmf, pyarrow
        >>> tags = pyarrow.table({"item_id": ["a", "a", "b"], "tag": ["dark", "slow", "dark"]})
        >>> fastmf.Features.from_arrow(tags, feature="tag").names
        ('dark', 'slow')
        """
        form = Form(id, feature, value, columns, categories, separator, duplicates)
        if not is_table(table):
            raise DataError(
                f"got a {type(table).__name__}; expected an Arrow table or an object with __arrow_c_stream__ (pandas, "
                "polars, duckdb)"
            )
        if form.named is None:
            there, arrow = all_columns(table)
        else:
            arrow = as_table(table, form.named)
            there = list(arrow.column_names)
        for name in form.named or (id,):
            require_column(there, name)
        source = Table("the table", there, len(arrow), lambda name, _: Column(arrow.column(there.index(name))))
        return cls(*build(source, form))

    @classmethod
    def from_parquet(
        cls,
        path: Any,
        id: str = "item_id",
        feature: str | None = None,
        value: str | None = None,
        columns: Sequence[str] | None = None,
        *,
        categories: Sequence[str] = (),
        separator: str = "|",
        duplicates: str = "error",
    ) -> "Features":
        """Read features from Parquet: a table with a row for each id, or with a row for each (id, feature) pair.

        Without ``feature``, the table has a row for each id, and the type of a column says what it is:

        - Integers, floats and decimals are one numeric feature, NAME. A null is a missing value.
        - Dates and times are one numeric feature, too: the year with its fraction. 1970-01-01 is 1970.
        - Truth values are one feature NAME, which is 1 where they are true; a null counts as false.
        - Texts are categories: a feature ``NAME=TEXT`` for each. If a text of the column has the separator in it, the
          texts are tags instead, split there: a feature ``NAME=TAG`` for each tag.
        - Lists of texts or integers are tags. A tag that a row lists twice counts once.

        Blanks around a text or tag are trimmed; a null or an empty text is no category. All numbers are stored as
        float32.

        With ``feature``, the table has a row for each pair of an id and a feature, with a value or without, and an id
        may be in many rows.

        Parameters
        ----------
        path : path-like, binary file object, or iterable of these
            As in `fastmf.read_parquet`.
        id : str
            Name of the id column: integers or strings.
        feature : str, optional
            Name of the column of features, integers or strings, of a table with a row for each pair.
        value : str, optional
            Name of the column of numbers that belongs to ``feature``; every value is 1 without it.
        columns : sequence of str, optional
            The columns to read of a table with a row for each id. None: all.
        categories : sequence of str
            Columns of integers that are codes, such as an occupation: categories, not numbers.
        separator : str
            Separates tags in texts; with an empty one, no text is split.
        duplicates : {"error", "first", "last", "mean", "sum"}
            What to do with a pair that occurs more than once, if there is ``feature``.

        Returns
        -------
        Features

        Raises
        ------
        DataError
            If a file is missing, unreadable, damaged or empty; a column is missing or of the wrong type; an id is null,
            or in two rows; a number is not finite in float32; a pair occurs twice and ``duplicates`` is "error"; or no
            column has a value.
        ParameterError
            If the parameters do not go together.
        OutOfMemoryError
            If the features do not fit into memory.

        Warns
        -----
        QualityWarning
            If a column has no value, or hardly any two rows of it share a category.

        Examples
        --------
        >>> import fastmf
        >>> films = fastmf.Features.from_parquet("films.parquet", columns=["year", "genres"])  # doctest: +SKIP
        """
        form = Form(id, feature, value, columns, categories, separator, duplicates)
        files = ParquetFiles(path)
        there = files.column_names()
        for name in form.named or (id,):
            files.type_of(name, IDS if name in (id, feature) else ANY)
        label = files.files[0] if len(files.files) == 1 else f"{len(files.files)} files, the first {files.files[0]}"
        source = Table(label, there, files.count_rows(), files.read)
        with logged(f"reading features of {source.n_rows:,} rows from {label}"):
            return cls(*build(source, form))

    def to_scipy(self) -> "scipy.sparse.csr_array":
        """Return a SciPy CSR array of the values, shape (n_ids, n_features)."""
        import scipy.sparse

        indptr, indices, values = self.rows
        return scipy.sparse.csr_array((values, indices, indptr), shape=(len(self), self.n_features))

    def positions(self, of: Any) -> Int32Array:
        """Return the row of each id, and -1 for ids without features.

        Parameters
        ----------
        of : array-like of int or str, shape (n,)

        Raises
        ------
        DataError
            If the ids are of another type than those of the features.
        """
        given = ids.normalise(of, "ids")
        if len(given) and pa.types.is_int64(given.type) != pa.types.is_int64(self.ids.type):
            raise DataError(
                f"the ids are of type {given.type}, those of the features of type {self.ids.type}; cast one of them"
            )
        return ids.search(self.ids, given, "ids")

    def rows_for(self, of: Any) -> CSR:
        """Return the rows of some ids, in their order; the row of an id without features is empty.

        Parameters
        ----------
        of : array-like of int or str, shape (n,)
            For example the ``item_ids`` of `Interactions`.

        Returns
        -------
        CSR with n rows

        Raises
        ------
        DataError
            As `positions`.

        Examples
        --------
        >>> import fastmf, pyarrow
        >>> films = fastmf.Features.from_arrow(pyarrow.table({"item_id": [7, 9], "year": [1994, 2001]}))
        >>> films.rows_for([9, 8, 7])
        CSR(indptr=array([0, 1, 1, 2]), indices=array([0, 0], dtype=int32), values=array([2001., 1994.], dtype=float32))
        """
        return take_rows(self.rows, self.positions(of))

    def take(self, of: Any) -> "Features":
        """Return the features of some ids alone, with all columns.

        Parameters
        ----------
        of : array-like of int or str, shape (n,)
            Distinct, in any order; the result is in ascending order.

        Returns
        -------
        Features

        Raises
        ------
        UnknownIdError
            If an id has no row.
        DataError
            If an id occurs twice, or is of another type.

        Examples
        --------
        >>> import fastmf, pyarrow
        >>> films = fastmf.Features.from_arrow(pyarrow.table({"item_id": [7, 9], "year": [1994, 2001]}))
        >>> films.take([9])
        Features(n_ids=1, n_features=1, n_entries=1)
        """
        positions = np.sort(self.positions(of))
        if len(positions) and positions[0] < 0:
            raise UnknownIdError(
                f"{np.count_nonzero(positions < 0)} of {len(positions)} ids have no features; expected ids that are in "
                "`ids`; `rows_for` takes others, too"
            )
        twice = positions[1:][positions[1:] == positions[:-1]]
        if len(twice):
            raise DataError(
                f"{len(twice)} ids repeat, for example {self.ids[int(twice[0])].as_py()!r}; expected each id once"
            )
        chosen = self.ids.take(pa.array(positions))
        return Features(chosen, take_rows(self.rows, positions), self.names, self.is_numeric)

    def in_columns(self, names: Sequence[str]) -> Matched:
        """Return the rows with the columns of another set of names, such as those that a model was trained with.

        Parameters
        ----------
        names : sequence of str
            Distinct. Columns that these features do not have are empty.

        Returns
        -------
        Matched
            ``(rows, n_unknown)``: entries of features that are none of the names are left out, and counted.

        Raises
        ------
        ParameterError
            If a name occurs twice.
        """
        names = require_names("names", names)
        if names == self.names:
            return Matched(self.rows, 0)
        place = {name: column for column, name in enumerate(names)}
        columns = np.array([place.get(name, -1) for name in self.names], np.int32)[self.rows.indices]
        known = columns >= 0
        rows = self.rows.row_of_each_entry()[known]
        matched = rows_from_entries(rows, columns[known], self.rows.values[known], (len(self), len(names)))
        return Matched(matched, int(len(known) - np.count_nonzero(known)))

    def join(self, other: "Features") -> "Features":
        """Return the columns of both side by side, for the ids of either.

        Parameters
        ----------
        other : Features
            With ids of the same type, and other names.

        Returns
        -------
        Features

        Raises
        ------
        DataError
            If a name is in both, or the ids differ in type.

        Examples
        --------
        >>> import fastmf, pyarrow
        >>> year = fastmf.Features.from_arrow(pyarrow.table({"item_id": [7, 9], "year": [1994, 2001]}))
        >>> tags = fastmf.Features.from_arrow(pyarrow.table({"item_id": [8, 9], "tag": ["a", "b"]}), feature="tag")
        >>> year.join(tags)
        Features(n_ids=3, n_features=3, n_entries=4)
        """
        if not isinstance(other, Features):
            raise ParameterError(f"other is a {type(other).__name__}; expected Features")
        common = sorted(set(self.names) & set(other.names))
        if common:
            raise DataError(
                f"{len(common)} features are in both, for example {common[0]!r}; expected other names: leave columns "
                "out of one of them, or rename them"
            )
        other.positions(self.ids)  # requires ids of the same type
        both = pa.chunked_array([part.cast(_wide_type(part)) for part in (self.ids, other.ids)])
        _, all_ids = ids.encode(both, "ids")
        left, right = self.rows_for(all_ids), other.rows_for(all_ids)
        return Features(
            all_ids,
            rows_from_entries(
                np.concatenate([left.row_of_each_entry(), right.row_of_each_entry()]),
                np.concatenate([left.indices, right.indices + np.int32(self.n_features)]),
                np.concatenate([left.values, right.values]),
                (len(all_ids), self.n_features + other.n_features),
            ),
            self.names + other.names,
            np.concatenate([self.is_numeric, other.is_numeric]),
        )


def _wide_type(values: pa.Array) -> Any:
    return values.type if pa.types.is_int64(values.type) else pa.large_string()


def as_features(features: Any, name: str, id: str) -> Features:
    """Return ``features`` as `Features`, also from a table with a row for each id, in the column ``id``.

    Raises
    ------
    ParameterError
        If it is something else.
    DataError
        If the table cannot be used as it is.
    """
    if isinstance(features, Features):
        return features
    if not is_table(features):
        raise ParameterError(
            f"{named(name)} is a {type(features).__name__}; expected Features (Features.from_parquet, "
            f"Features.from_arrow), or a table with the column {id}"
        )
    try:
        return Features.from_arrow(features, id)
    except DataError as error:
        raise DataError(
            f"{named(name)}: {error}; options are parameters of Features.from_arrow(table, id=..., columns=...), whose "
            "result is taken here"
        ) from error
