"""Ratings and timestamps of a column as NumPy arrays."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastmf.errors import DataError
from fastmf.reading.columns import NUMBERS, RATINGS, TIMES, Column, decode, require_kind
from fastmf.reading.ids import require_no_nulls
from fastmf_kernels._types import Float32Array, Int64Array


def to_ratings(column: Column, name: str) -> Float32Array:
    """Return the ratings of a column.

    Returns
    -------
    float32 array, shape (n,)

    Raises
    ------
    DataError
        If they are no numbers, null, or not finite in float32.
    """
    return to_finite_numbers(column, name, "ratings")


def to_finite_numbers(column: Column, name: str, what: str) -> Float32Array:
    """Return the numbers of a column, like `to_ratings`; ``what`` they are called in errors.

    Returns
    -------
    float32 array, shape (n,)

    Raises
    ------
    DataError
        If they are no numbers, null, or not finite in float32.
    """
    values = _decoded(column, name)
    require_no_nulls(values, name, column.where)
    require_kind(values.type, name, RATINGS if what == "ratings" else NUMBERS)
    try:
        numbers = np.array(values.cast(pa.float32(), safe=False).to_numpy())
    except pa.ArrowException as error:
        raise DataError(f"column {name!r} of type {values.type} cannot be cast to float32: {error}") from error
    finite = np.isfinite(numbers)
    if not finite.all():
        first = int(np.argmin(finite))
        place = column.where(first)
        file = f" ({place.file})" if place.file else ""
        raise DataError(
            f"column {name!r} has {np.count_nonzero(~finite)} {what} that are not finite in float32, the first in "
            f"{place.row}: {values[first].as_py()}; drop or repair those rows first{file}"
        )
    return numbers


def _decoded(column: Column, name: str) -> pa.ChunkedArray:
    try:
        column.values.validate()
        return decode(column.values)
    except pa.ArrowException as error:
        raise DataError(f"column {name!r} is damaged: {error}; make it again") from error


def to_timestamps(column: Column, name: str) -> tuple[Int64Array, Any]:
    """Return the timestamps of a column in its own unit, and its Arrow type, which is None for integers.

    Returns
    -------
    timestamps : int64 array, shape (n,)
    kind : pyarrow.DataType or None

    Raises
    ------
    DataError
        If they are neither integers nor times, null, or do not fit into int64.
    """
    values = _decoded(column, name)
    kind = values.type
    require_no_nulls(values, name, column.where)
    require_kind(kind, name, TIMES)
    try:
        if pa.types.is_date32(kind) or pa.types.is_time32(kind):
            values = pc.cast(values, pa.int32())
        timestamps = np.array(pc.cast(values, pa.int64()).to_numpy())
    except pa.ArrowException as error:
        raise DataError(f"column {name!r} of type {kind} does not fit into int64: {error}; cast it first") from error
    return timestamps, kind if pa.types.is_temporal(kind) else None


def to_arrow_times(timestamps: Int64Array, kind: Any) -> pa.Array:
    """Return timestamps as an Arrow array of their own type; the inverse of `to_timestamps`."""
    integers = pa.array(timestamps)
    if kind is None:
        return integers
    return integers.cast(pa.int32()).view(kind) if kind.bit_width == 32 else integers.view(kind)
