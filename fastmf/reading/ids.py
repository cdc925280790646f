"""Translate outside ids (int64 or strings) to dense indices and back.

A vocabulary is an Arrow array of distinct ids in ascending order; the index of an id is its position. Because it is
sorted, it does not depend on the order of the rows, is searched without a hash table, and can be memory-mapped.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastmf.errors import DataError, UnknownIdError
from fastmf.reading.columns import IDS, Where, decode, require_kind, row_number
from fastmf_kernels._types import Int32Array, Int64Array

_MAX_BINARY_SEARCHES = 64  # strings; more are looked up by one hash join
_MAX_STRING_BYTES = 2**31 - 1  # that 32-bit offsets can address
_MAX_IDS = 2**31 - 1  # that int32 indices can tell apart


def encode(ids: pa.ChunkedArray, column: str, where: Where = row_number) -> tuple[Int32Array, pa.Array]:
    """Give every distinct id a dense index.

    Parameters
    ----------
    ids : Arrow chunked array
        Integers or strings, without nulls.
    column : str
        Name of the column in errors.
    where : function of a row number
        Words the place of a row in errors.

    Returns
    -------
    indices : int32 array, shape (n,)
    vocabulary : Arrow array
        Distinct ids in ascending order, int64 or string.

    Raises
    ------
    DataError
        If an id is null, of a type other than integer or string, or not UTF-8; or if there are too many.
    """
    ids = _normalise(ids, column, where)
    if len(ids) == 0:
        return np.empty(0, np.int32), _compact(ids)
    if pa.types.is_int64(ids.type):
        values = ids.to_numpy()
        low, high = int(values.min()), int(values.max())
        if high - low < 2 * len(values):
            return _encode_range(values, low, high)
    encoded = ids.dictionary_encode()
    if len(encoded.dictionary) > _MAX_IDS:
        raise DataError(f"column {column!r} has {len(encoded.dictionary)} distinct ids; expected at most {_MAX_IDS}")
    order = np.asarray(pc.sort_indices(encoded.dictionary))
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return rank[encoded.indices.to_numpy()], _compact(encoded.dictionary.take(pa.array(order)))


def _encode_range(values: Int64Array, low: int, high: int) -> tuple[Int32Array, pa.Array]:
    """Encode integers from a narrow range with a table that is indexed by ``id - low``: no hashing, no sorting."""
    present = np.zeros(high - low + 1, np.bool_)
    offsets = values - low
    present[offsets] = True
    index = np.cumsum(present, dtype=np.int32)
    index -= 1
    return index[offsets], pa.array(np.flatnonzero(present) + low)


def require_no_nulls(values: pa.ChunkedArray, column: str, where: Where = row_number) -> None:
    """Raise `DataError` if there are nulls; the message gives their count and the row of the first one."""
    if values.null_count:
        first = int(np.argmax(np.asarray(pc.is_null(values))))
        raise DataError(
            f"column {column!r} has {values.null_count} null value{'s' * (values.null_count > 1)}, the first in "
            f"{where(first)}; expected none: drop or fill those rows first"
        )


def _normalise(ids: pa.ChunkedArray, column: str, where: Where = row_number) -> pa.Array:
    """Cast integers of any width to one int64 array, and strings of any layout to one large_string array."""
    try:
        ids.validate()
        ids = decode(ids)
        if pa.types.is_null(ids.type) and len(ids) == 0:
            ids = ids.cast(pa.int64())
        require_no_nulls(ids, column, where)
        require_kind(ids.type, column, IDS)
        if not pa.types.is_integer(ids.type):
            ids = ids.cast(pa.large_string())
            _require_utf8(ids, column, where)
    except pa.ArrowException as error:
        raise DataError(f"column {column!r} is damaged: {error}; make it again") from error
    try:
        return (ids if pa.types.is_large_string(ids.type) else ids.cast(pa.int64())).combine_chunks()
    except pa.ArrowInvalid as error:
        first = int(np.argmax(ids.to_numpy() >= 2**63))
        raise DataError(
            f"column {column!r} holds integers beyond int64, the first in {where(first)}: {ids[first]}; expected int64 "
            "or string ids"
        ) from error


def _require_utf8(ids: pa.ChunkedArray, column: str, where: Where) -> None:
    """Raise `DataError` for the first id that is not UTF-8: Arrow reads such strings, but Python cannot."""
    start = 0
    for chunk in ids.chunks:
        if not _is_utf8(chunk):
            low, high = 0, len(chunk)  # ids before low are UTF-8, one of those before high is not
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if not _is_utf8(chunk[low:middle]) else (middle, high)
            value = chunk[low].cast(pa.large_binary()).as_py()
            raise DataError(
                f"column {column!r} has an id that is not UTF-8, in {where(start + low)}: {value!r}; write the column "
                "again as UTF-8"
            )
        start += len(chunk)


def _is_utf8(chunk: pa.Array) -> bool:
    try:
        chunk.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _compact(vocabulary: pa.Array) -> pa.Array:
    """Store strings with 32-bit offsets if their bytes fit."""
    if pa.types.is_large_string(vocabulary.type) and vocabulary.nbytes < _MAX_STRING_BYTES:
        return vocabulary.cast(pa.string())
    return vocabulary


def to_arrow(values: Any, column: str) -> pa.ChunkedArray:
    """Convert a list, NumPy array, Arrow array or any object that exports one to an Arrow chunked array.

    Arrays on a GPU (``__cuda_array_interface__``, DLPack) are copied to the host.

    Raises
    ------
    DataError
        If the values are of mixed or unsupported types.
    """
    from fastmf_kernels._cuda import exchange

    try:
        if isinstance(values, pa.ChunkedArray):
            return values
        if isinstance(values, pa.Array):
            return pa.chunked_array([values])
        if hasattr(values, "__arrow_c_stream__"):
            return pa.chunked_array(values)
        if exchange.is_on_gpu(values):
            values = exchange.to_host(values)
        if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
            values = [values]
        if isinstance(values, np.ndarray):
            values = _keep_nul(values)
        elif not hasattr(values, "__arrow_c_array__"):
            values = list(values)
        array = pa.array(values)
    except ImportError as error:
        raise DataError(f"column {column!r} is on a GPU, but {error}; install CuPy, or copy it to the host") from error
    except MemoryError:
        raise
    except Exception as error:  # what another library exports raises errors of its own
        raise DataError(
            f"column {column!r} cannot be turned into an Arrow array: {error}; expected values of one type"
        ) from error
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])


def _keep_nul(values: "np.typing.NDArray[Any]") -> Any:
    """Return strings with a NUL inside as a list: Arrow would end them there; StringDType too."""
    if values.dtype.kind == "T":
        return values.tolist()
    if values.dtype.kind != "U" or values.ndim != 1 or values.dtype.itemsize == 0:
        return values
    codes = np.ascontiguousarray(values).view(np.uint32).reshape(len(values), -1)
    has_nul_inside = ((codes[:, :-1] == 0) & (codes[:, 1:] != 0)).any()
    return values.tolist() if has_nul_inside else values


def look_up(vocabulary: pa.Array, ids: Any, column: str) -> Int32Array:
    """Return the index of each id, and -1 for unknown ids.

    Parameters
    ----------
    vocabulary : Arrow array
        Distinct ids in ascending order, as `encode` returns them.
    ids : array-like
        One id or many, of the vocabulary's type.
    column : str
        Name of the column in errors.

    Returns
    -------
    int32 array, shape (n,)

    Raises
    ------
    DataError
        If the ids are of another type than the vocabulary.
    """
    return search(vocabulary, to_arrow(ids, column), column)


def normalise(ids: Any, column: str) -> pa.Array:
    """Return one id or many as an Arrow array of int64 or large strings.

    Raises
    ------
    DataError
        If the ids are null, of mixed types, or neither integers nor strings.
    """
    return _normalise(to_arrow(ids, column), column)


def search(vocabulary: pa.Array, given: pa.Array | pa.ChunkedArray, column: str) -> Int32Array:
    """Return the index of each id, like `look_up`, for ids that are an Arrow array already."""
    if len(given) == 0:
        return np.empty(0, np.int32)
    is_normal = isinstance(given, pa.Array) and (pa.types.is_int64(given.type) or pa.types.is_large_string(given.type))
    wanted = given if is_normal else _normalise(to_arrow(given, column), column)
    if pa.types.is_int64(wanted.type) != pa.types.is_int64(vocabulary.type):
        raise DataError(
            f"column {column!r} has ids of type {given.type}, the model's are {vocabulary.type}; cast them to that type"
        )
    if pa.types.is_int64(wanted.type):
        return _search_integers(vocabulary.to_numpy(), wanted.to_numpy())
    if len(wanted) <= _MAX_BINARY_SEARCHES:
        return np.array([_search_string(vocabulary, value.as_py()) for value in wanted], np.int32)
    found = pc.index_in(wanted, value_set=vocabulary.cast(pa.large_string()))
    return np.asarray(found.fill_null(-1), np.int32)


def _search_integers(vocabulary: Int64Array, wanted: Int64Array) -> Int32Array:
    if len(vocabulary) == 0:
        return np.full(len(wanted), -1, np.int32)
    position = np.minimum(np.searchsorted(vocabulary, wanted), len(vocabulary) - 1)
    return np.where(vocabulary[position] == wanted, position, -1).astype(np.int32)


def _search_string(vocabulary: pa.Array, wanted: str) -> int:
    low, high = 0, len(vocabulary)
    while low < high:
        middle = (low + high) // 2
        if vocabulary[middle].as_py() < wanted:
            low = middle + 1
        else:
            high = middle
    return low if low < len(vocabulary) and vocabulary[low].as_py() == wanted else -1


def require_known(
    vocabulary: pa.Array,
    ids: Any,
    column: str,
    known_to: str = "the model",
    expected: str = "ids that were in the training data",
) -> Int32Array:
    """Return the index of each id, like `look_up`, but refuse unknown ids; the message says to what.

    Raises
    ------
    UnknownIdError
        If an id is unknown; the message gives the count and the first five.
    """
    given = to_arrow(ids, column)
    indices = look_up(vocabulary, given, column)
    unknown = np.flatnonzero(indices < 0)
    if len(unknown):
        named = ", ".join(repr(given[int(i)].as_py()) for i in unknown[:5])
        raise UnknownIdError(
            f"{len(unknown)} of {len(indices)} ids in {column!r} are unknown to {known_to}: {named}"
            f"{', ...' if len(unknown) > 5 else ''}; expected {expected}"
        )
    return indices
