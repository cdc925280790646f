"""Read tables of features: with a row for each id, or with a row for each pair of an id and a feature."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastmf.common.memory import needing
from fastmf.common.parameters import require_choice, require_names
from fastmf.errors import DataError, ParameterError, named
from fastmf.reading import ids
from fastmf.reading.columns import ANY, IDS, NUMBERS, Column, Kind, require_column
from fastmf.reading.duplicates import DUPLICATES, without_duplicates
from fastmf.reading.feature_columns import Wording, to_block
from fastmf.reading.interactions import Interactions
from fastmf.reading.sparse_rows import rows_from_entries
from fastmf.reading.values import to_finite_numbers
from fastmf_kernels._types import Int32Array
from fastmf_kernels.layout.arrays import CSR

_BYTES_PER_VALUE = 40  # while reading: a raw column, its entries, and two layouts as sparse rows


class Parts(NamedTuple):
    """What `fastmf.Features` consists of."""

    ids: pa.Array
    rows: CSR
    names: tuple[str, ...]
    is_numeric: npt.NDArray[np.bool_]


class Form:
    """Which columns of a table are read, and how; the parameters are those of `fastmf.Features.from_parquet`.

    Raises
    ------
    ParameterError
        If they do not go together.
    """

    def __init__(
        self,
        id: str,
        feature: str | None,
        value: str | None,
        columns: Sequence[str] | None,
        categories: Sequence[str],
        separator: str,
        duplicates: str,
    ) -> None:
        require_choice("duplicates", duplicates, DUPLICATES)
        if not isinstance(separator, str):
            raise ParameterError(f"{named('separator')} is {separator!r}; expected a text such as '|'")
        for parameter, name in (("id", id), ("feature", feature), ("value", value)):
            if not isinstance(name, str) and (parameter == "id" or name is not None):
                raise ParameterError(f"{named(parameter)} is {name!r}; expected the name of a column")
        if value is not None and feature is None:
            raise ParameterError(f"{named('value')} is {value!r} without {named('feature')}; name both columns")
        picked = None if columns is None else require_names("columns", columns)
        codes = require_names("categories", categories)
        if feature is not None and (picked is not None or codes):
            raise ParameterError(
                f"{named('columns')} and {named('categories')} are for tables with a row for each id; leave them out "
                f"with {named('feature')}"
            )
        for name in codes:
            if picked is not None and name not in picked:
                raise ParameterError(f"{named('categories')} has {name!r}, {named('columns')} does not; add it there")
        if id in (picked or ()) or id in codes:
            raise ParameterError(f"{id!r} is the column of ids; leave it out of {named('columns')}")
        self.id, self.feature, self.value, self.picked, self.duplicates = id, feature, value, picked, duplicates
        self.wording = Wording(separator, codes)

    @property
    def named(self) -> list[str] | None:
        """The columns to read; None if all of them are."""
        if self.feature is not None:
            return [name for name in (self.id, self.feature, self.value) if name is not None]
        return None if self.picked is None else [self.id, *self.picked]


class Table(NamedTuple):
    """Where columns come from: what to call it, its columns, its number of rows, and how to read a column."""

    label: str
    names: list[str]
    n_rows: int
    read: Callable[[str, Kind], Column]

    def encode(self, name: str) -> tuple[Int32Array, pa.Array]:
        """Read a column of ids as dense indices, and the id of each index."""
        column = self.read(name, IDS)
        return ids.encode(column.values, name, column.where)


def build(table: Table, form: Form) -> Parts:
    """Read the features of a table.

    Raises
    ------
    DataError, OutOfMemoryError
        As `fastmf.Features.from_parquet`.
    """
    if table.n_rows == 0:
        raise DataError(f"there are no rows in {table.label}; expected at least one")
    n_columns = 1 if form.feature is not None else len(form.picked or table.names)
    n_bytes = _BYTES_PER_VALUE * table.n_rows * n_columns
    with needing(n_bytes, f"reading features of {table.n_rows:,} rows from {table.label}"):
        return _build_wide(table, form) if form.feature is None else _build_long(table, form, form.feature)


def _build_long(table: Table, form: Form, feature: str) -> Parts:
    rows, row_ids = table.encode(form.id)
    features, vocabulary = table.encode(feature)
    values = np.ones(table.n_rows, np.float32)
    if form.value is not None:
        values = to_finite_numbers(table.read(form.value, NUMBERS), form.value, "values")
    pairs = Interactions(rows, features, values, None, row_ids, vocabulary)
    pairs = without_duplicates(pairs, form.duplicates, f"rows repeat a ({form.id}, {feature}) pair")
    names = tuple(str(name) for name in vocabulary.to_pylist())
    return Parts(row_ids, pairs.by_user, names, np.zeros(len(names), np.bool_))


def _build_wide(table: Table, form: Form) -> Parts:
    """Read one column after the other, so that at most one raw column is in memory."""
    rows, row_ids = table.encode(form.id)
    _require_once(rows, row_ids, form.id)
    wanted = [name for name in table.names if name != form.id] if form.picked is None else form.picked
    for name in form.wording.categories:
        require_column(table.names, name)
    blocks = [to_block(name, table.read(name, ANY), form.wording) for name in wanted]
    names = [name for block in blocks for name in block.names]
    if not names:
        raise DataError(
            f"no column of {table.label} has a value beside the ids in {form.id!r}; expected at least one feature"
        )
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise DataError(f"two columns give a feature {twice!r}; rename one of them")
    starts = np.cumsum([0, *(len(block.names) for block in blocks)]).astype(np.int32)
    matrix = rows_from_entries(
        np.concatenate([rows[block.rows] for block in blocks]),
        np.concatenate([block.features + start for block, start in zip(blocks, starts[:-1], strict=True)]),
        np.concatenate([block.values for block in blocks]),
        (len(row_ids), len(names)),
    )
    is_numeric = np.repeat([block.is_numeric for block in blocks], [len(block.names) for block in blocks])
    return Parts(row_ids, matrix, tuple(names), is_numeric)


def _require_once(rows: Int32Array, row_ids: pa.Array, name: str) -> None:
    if len(row_ids) < len(rows):
        repeated = np.flatnonzero(np.bincount(rows, minlength=len(row_ids)) > 1)
        raise DataError(
            f"column {name!r} has {len(repeated)} ids in more than one row, for example "
            f"{row_ids[int(repeated[0])].as_py()!r}; expected a row for each id: merge its rows, or name the "
            f"columns of a table of pairs by {named('feature')}"
        )
