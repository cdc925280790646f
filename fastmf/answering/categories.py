"""Categories of items, of which a list may have only so many."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from fastmf.answering.rows import renumber_columns
from fastmf.common.parameters import require_integer
from fastmf.errors import DataError, ParameterError, named
from fastmf.reading.features import Features, as_features
from fastmf.reading.tables import all_columns, as_table, is_table
from fastmf_kernels._types import Int32Array
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.rerank.arrays import Caps
from fastmf_kernels.topk.arrays import Rows

# So many names of columns are shown in a message.
_SHOWN = 8
_ID = "item_id"


def require_limits(at_most: Any) -> dict[str, int]:
    """Return a limit for each column.

    Raises
    ------
    ParameterError
        If it is no dict of names and integers of at least 1.
    """
    if not isinstance(at_most, Mapping) or not all(isinstance(column, str) for column in at_most):
        raise ParameterError(
            f'{named("at_most")} is {at_most!r}; expected columns with their limits, such as {{"genre": 3}}'
        )
    for column, limit in at_most.items():
        require_integer(f"at_most[{column!r}]", limit, minimum=1)
    return {column: int(limit) for column, limit in at_most.items()}


def features_with_categories(item_features: Any, columns: list[str], others: bool) -> Features:
    """Return features of items, in which some columns are categories.

    Parameters
    ----------
    item_features : Features or table
        A table has a row for each item, in the column ``item_id``.
    columns : list of str
        Columns of a table, or single categories of them, that are categories also if they are integers.
    others : bool
        Whether the other columns of a table are features, too.

    Raises
    ------
    ParameterError, DataError
        If it is something else; if the table cannot be used as it is.
    """
    if isinstance(item_features, Features) or not is_table(item_features):
        return as_features(item_features, "item_features", _ID)
    try:
        limited = [column.partition("=")[0] for column in columns]
        table = all_columns(item_features)[1] if others else as_table(item_features, [_ID, *limited])
        codes = [
            name
            for name in dict.fromkeys(limited)
            if name in table.column_names and pa.types.is_integer(table[name].type)
        ]
        return Features.from_arrow(table, _ID, categories=codes)
    except DataError as error:
        raise DataError(f"{named('item_features')}: {error}") from error


def caps_of(features: Features, at_most: Mapping[str, int], item_ids: pa.Array) -> Caps:
    """Return the categories that have a limit, for each item of a catalogue; items without features have none.

    Raises
    ------
    ParameterError
        If a column is not there, or numeric.
    """
    limits = np.full(features.n_features, np.iinfo(np.int32).max, np.int32)
    for column, limit in at_most.items():
        places = _columns_of(features, column)
        limits[places] = np.minimum(limits[places], min(limit, np.iinfo(np.int32).max))
    is_limited = limits < np.iinfo(np.int32).max
    numbers = np.where(is_limited, np.cumsum(is_limited) - 1, -1).astype(np.int32)
    return Caps(renumber_columns(_nonzero(rows_of(features, item_ids)), numbers), limits[is_limited])


def rows_of(features: Features, item_ids: pa.Array) -> CSR:
    """Return the features of each item of a catalogue.

    Raises
    ------
    DataError
        If not one of the items has features, or ids differ in type.
    """
    rows = features.rows_for(item_ids)
    if len(item_ids) and not len(rows.indices):
        raise DataError(
            f"{named('item_features')} have none of the {len(item_ids):,} items, for example {item_ids[0].as_py()!r}; "
            "expected features of the same ids"
        )
    return rows


def _columns_of(features: Features, column: str) -> Int32Array:
    """Return the places of the categories of a column, ``COLUMN=CATEGORY``, or of one that has that very name."""
    is_one = "=" in column and column in features.names  # the category "War" alone, and not "War=Cold" with it
    places = [
        at for at, name in enumerate(features.names) if name == column or (name.startswith(f"{column}=") and not is_one)
    ]
    if not places:
        there = list(dict.fromkeys(name.partition("=")[0] for name in features.names))
        shown = ", ".join(map(repr, there[:_SHOWN])) + (f" and {len(there) - _SHOWN} more" * (len(there) > _SHOWN))
        raise ParameterError(
            f"{named('at_most')} names the column {column!r}, which is not in {named('item_features')}; expected one "
            f"of {shown}"
        )
    if features.is_numeric[places].any():
        raise ParameterError(
            f"{named('at_most')} names the column {column!r}, which is numeric in {named('item_features')}; expected "
            "categories: read it with Features.from_arrow(table, categories=[...]), or turn it into text"
        )
    return np.array(places, np.int32)


def _nonzero(rows: CSR) -> Rows:
    n_kept = np.concatenate([[0], np.cumsum(rows.values != 0)])
    return Rows(n_kept[rows.indptr].astype(np.int64), rows.indices[rows.values != 0])
