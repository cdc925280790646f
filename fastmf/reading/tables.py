"""Tables of other libraries as Arrow tables: only the columns that are asked for."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from fastmf.common.memory import is_out_of_memory
from fastmf.errors import DataError, FastMFError
from fastmf.reading.columns import require_column
from fastmf.reading.sources import first_line


def is_table(value: Any) -> bool:
    """Whether `as_table` takes a value."""
    return (
        isinstance(value, (pa.Table, pa.RecordBatch, ds.Dataset, ds.Scanner))
        or _is_lazy(value)
        or _is_pandas(value)
        or (hasattr(value, "__arrow_c_stream__") and not isinstance(value, pa.ChunkedArray))
    )


def as_table(value: Any, names: Sequence[str]) -> pa.Table:
    """Return columns of a table, in memory.

    Parameters
    ----------
    value : table
        Of pyarrow (also a dataset), pandas or polars (also lazy), or any object with ``__arrow_c_stream__``.
    names : sequence of str
        The columns. Others are not looked at.

    Raises
    ------
    DataError
        If it is no table, lacks a column or has it twice, or a column cannot be turned into an Arrow array.
    """
    if not is_table(value):
        raise DataError(
            f"got a {type(value).__name__}; expected an Arrow table or an object with __arrow_c_stream__ (pandas, "
            "polars, duckdb); for plain arrays use Interactions.from_arrays"
        )
    try:
        table = _columns(value, list(dict.fromkeys(names)))
        table.validate()
    except FastMFError:
        raise
    except Exception as error:  # the library of the table raises errors of its own
        if is_out_of_memory(error):
            raise
        raise DataError(
            f"the columns {', '.join(map(repr, names))} of the {type(value).__name__} cannot be turned into Arrow "
            f"arrays: {_reason(error)}; expected values of one type in each"
        ) from error
    return table


def all_columns(value: Any) -> tuple[list[str], pa.Table]:
    """Return the names of all columns of a table, as texts, and the columns in memory.

    Raises
    ------
    DataError
        As `as_table`.
    """
    if isinstance(value, ds.Scanner):
        value = value.to_table()
    elif is_table(value) and not _knows_its_columns(value):
        try:
            value = pa.table(value)
        except Exception as error:  # the library of the table raises errors of its own
            if is_out_of_memory(error):
                raise
            raise DataError(
                f"the {type(value).__name__} cannot be turned into an Arrow table: {_reason(error)}; expected values "
                "of one type in each column"
            ) from error
    names = _names_of(value) if is_table(value) else []
    return [str(name) for name in names], as_table(value, names)


def _knows_its_columns(value: Any) -> bool:
    return isinstance(value, (pa.Table, ds.Dataset)) or _is_lazy(value) or _is_pandas(value) or _is_polars(value)


def _names_of(value: Any) -> list[Any]:
    if isinstance(value, ds.Dataset):
        return list(value.schema.names)
    if _is_lazy(value):
        return list(value.collect_schema().names())
    return list(value.column_names if isinstance(value, pa.Table) else value.columns)


def _columns(value: Any, names: list[str]) -> pa.Table:
    if isinstance(value, ds.Scanner):
        value = value.to_table()
    if isinstance(value, ds.Dataset):
        _require(value.schema.names, names)
        table = value.to_table(columns=names)
        if len(table) != value.count_rows():
            raise DataError(
                f"the dataset gives {len(table)} rows, its metadata says {value.count_rows()}: it is damaged"
            )
        return table
    if _is_lazy(value):
        _require(value.collect_schema().names(), names)
        value = value.select(names).collect()
    elif _is_pandas(value):
        _require([*value.columns], names)
        return pa.Table.from_pandas(value[names], preserve_index=False)
    elif _is_polars(value):
        _require(value.columns, names)
        value = value.select(names)
    table = value if isinstance(value, pa.Table) else pa.table(value)
    _require(table.column_names, names)
    return table.select(names)


def _require(there: Sequence[str], names: Sequence[str]) -> None:
    for name in names:
        require_column(there, name)


def _is_lazy(value: Any) -> bool:
    return all(hasattr(value, name) for name in ("collect", "collect_schema", "select"))


def _is_polars(value: Any) -> bool:
    return hasattr(value, "select") and hasattr(value, "get_column_index")


def _is_pandas(value: Any) -> bool:
    modules = {kind.__module__.partition(".")[0] for kind in type(value).__mro__}  # also of subclasses
    return "pandas" in modules and hasattr(value, "columns")


def _reason(error: Exception) -> str:
    """Join the parts of an error: Arrow's name the column in the last one."""
    return "; ".join(str(part) for part in error.args) if len(error.args) > 1 else first_line(error)
