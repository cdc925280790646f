"""Ids that callers ask for, in whatever holds them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from fastmf.answering.fitted import Fitted
from fastmf.reading import ids


def count_cold_users(fitted: Fitted, users: Any = None) -> int:
    """Return how many of some users, given by their ids, have no training rating; of all users if None.

    Raises
    ------
    UnknownIdError
        If a user id is unknown.
    """
    if users is None:
        return int(np.count_nonzero(fitted.counts.is_cold_user))
    indices = ids.require_known(fitted.user_ids, read_once(users), "users")
    return int(np.count_nonzero(fitted.counts.are_cold(indices)))


def read_once(values: Any) -> Any:
    """Return the values of an iterator as a list, and those of categories without categories; others as they are."""
    if isinstance(values, Iterator):
        return list(values)
    if not isinstance(values, (pa.Array, pa.ChunkedArray)):
        try:
            values = pa.chunked_array(values) if hasattr(values, "__arrow_c_stream__") else values
        except (pa.ArrowException, TypeError, ValueError):
            return values  # `ids` says what is wrong with them
    is_arrow = isinstance(values, (pa.Array, pa.ChunkedArray))
    return _without_categories(values) if is_arrow and pa.types.is_dictionary(values.type) else values


def _without_categories(column: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type.value_type
    if pa.types.is_string_view(kind):  # which Arrow cannot take from
        kind = pa.large_string()
    chunks = [column] if isinstance(column, pa.Array) else column.chunks
    return pa.chunked_array([chunk.dictionary.cast(kind).take(chunk.indices) for chunk in chunks], kind)
