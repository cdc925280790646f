"""Checks of arrays that callers hand over: what kernels trust must hold."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastmf.common.memory import is_out_of_memory
from fastmf.errors import ParameterError
from fastmf_kernels._types import Float32Array, Int32Array, Int64Array

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_ROWS = 2**31 - 1  # that int32 indices can tell apart


def require_indices(name: str, values: Any, n: int) -> Int32Array:
    """Return indices as a contiguous int32 array, shape (n_ratings,).

    Raises
    ------
    ParameterError
        If they are no integers from 0 to ``n`` - 1 in one dimension.
    """
    array = _vector(name, values, "iu", "integers")
    if len(array) and (int(array.min()) < 0 or int(array.max()) >= n):
        outside = (array < 0) | (array >= n)
        first = int(np.argmax(outside))
        raise ParameterError(
            f"{name} has {np.count_nonzero(outside)} indices out of range, the first in row {first} (from 0): "
            f"{array[first]}; expected 0 to {n - 1}"
        )
    return np.ascontiguousarray(array, np.int32)


def require_ratings(name: str, values: Any) -> Float32Array:
    """Return ratings as a contiguous float32 array, shape (n_ratings,).

    Raises
    ------
    ParameterError
        If they are no finite numbers in one dimension.
    """
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(_vector(name, values, "fiu", "numbers"), np.float32)
    if not np.isfinite(array).all():
        raise ParameterError(f"{name} has values that are not finite in float32; drop or repair those rows first")
    return array


def require_timestamps(name: str, values: Any) -> Int64Array:
    """Return timestamps as a contiguous int64 array, shape (n_ratings,).

    Raises
    ------
    ParameterError
        If they are no integers of int64 in one dimension.
    """
    array = _vector(name, values, "iu", "integers")
    if array.dtype == np.uint64 and len(array) and int(array.max()) >= 2**63:
        raise ParameterError(f"{name} has values beyond int64, the largest is {array.max()}; expected int64")
    return np.ascontiguousarray(array, np.int64)


def require_time_type(name: str, kind: Any) -> Any:
    """Return ``kind``, if it is None or an Arrow type whose values are timestamps in int64 or int32.

    Raises
    ------
    ParameterError
    """
    is_time = isinstance(kind, pa.DataType) and pa.types.is_temporal(kind) and not pa.types.is_interval(kind)
    if kind is not None and not is_time:
        raise ParameterError(f"{name} is {kind!r}; expected an Arrow type of times, or None for integers")
    return kind


def require_vocabulary(name: str, values: Any) -> pa.Array:
    """Return ids, if they are int64 or strings that ascend.

    Raises
    ------
    ParameterError
    """
    if not isinstance(values, pa.Array) or not _is_id_type(values.type):
        kind = values.type if isinstance(values, pa.Array) else type(values).__name__
        raise ParameterError(f"{name} is of type {kind}; expected an Arrow array of int64 or string")
    if values.null_count or not pc.all(pc.less(values[:-1], values[1:]), min_count=0).as_py():
        raise ParameterError(f"{name} are not distinct and ascending; build ratings with Interactions.from_arrays")
    try:
        values.validate(full=True)
    except pa.ArrowException as error:
        raise ParameterError(f"{name} are damaged: {error}; make them again, as UTF-8") from error
    return values


def require_same_length(**arrays: Any) -> None:
    """Raise `ParameterError` unless arrays have one length; those that are None do not count."""
    lengths = {name: len(array) for name, array in arrays.items() if array is not None}
    if len(set(lengths.values())) > 1:
        raise ParameterError(f"the arrays differ in length: {lengths}; expected one value each for every rating")


def entries_of(matrix: Any) -> "tuple[Int32Array, Int32Array, NDArray[Any]]":
    """Return rows, columns and values of the stored entries of a SciPy sparse matrix.

    Raises
    ------
    ParameterError
        If it is not a matrix, or its indices and offsets do not go together: SciPy itself does not look at them, and
        reads beyond its arrays.
    """
    shape: tuple[int, ...] = getattr(matrix, "shape", ())
    if not hasattr(matrix, "tocoo") or len(shape) != 2:
        raise ParameterError(
            f"got a {type(matrix).__name__} of shape {shape}; expected a SciPy sparse matrix users × items"
        )
    if max(shape) > _MAX_ROWS:
        raise ParameterError(f"the matrix has shape {shape}; expected at most {_MAX_ROWS} users and items")
    n_used = _require_compressed(matrix) if hasattr(matrix, "indptr") else None
    try:
        coo = matrix.tocoo()
        rows, columns, values = (array[:n_used] for array in (coo.row, coo.col, coo.data))
    except Exception as error:  # also of other libraries than SciPy
        if is_out_of_memory(error):
            raise
        raise ParameterError(f"the sparse matrix is not consistent: {error}; build it again") from error
    require_same_length(row=rows, col=columns, data=values)
    return require_indices("row", rows, shape[0]), require_indices("col", columns, shape[1]), values


def _require_compressed(matrix: Any) -> int | None:
    """Require that ``indptr`` of a CSR, CSC or BSR matrix rises from 0 to at most the number of indices.

    Returns the number of entries in use: what SciPy makes of the others is not initialised. It is None for BSR.
    """
    block = getattr(matrix, "blocksize", (1, 1)) if matrix.format == "bsr" else (1, 1)
    n_rows, n_columns = (size // width for size, width in zip(matrix.shape, block, strict=True))
    if matrix.format == "csc":
        n_rows, n_columns = n_columns, n_rows
    indptr = require_indices("indptr", matrix.indptr, len(matrix.indices) + 1)
    if len(indptr) != n_rows + 1 or indptr[0] != 0 or (np.diff(indptr) < 0).any():
        raise ParameterError(
            f"indptr of the sparse matrix has {len(indptr)} offsets that do not rise from 0; expected {n_rows + 1}, "
            f"rising from 0 to at most {len(matrix.indices)}"
        )
    require_same_length(indices=matrix.indices, data=_array("data", matrix.data))
    require_indices("indices", matrix.indices, n_columns)
    if matrix.format != "bsr":
        return int(indptr[-1])
    if indptr[-1] < len(matrix.indices):
        raise ParameterError(
            f"{len(matrix.indices) - indptr[-1]} blocks of the matrix are not in use; call prune() first"
        )
    return None


def _array(name: str, values: Any) -> "NDArray[Any]":
    if not isinstance(values, np.ndarray):
        raise ParameterError(f"{name} of the sparse matrix is a {type(values).__name__}; expected an array")
    return values


def _is_id_type(kind: Any) -> bool:
    return bool(pa.types.is_int64(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _vector(name: str, values: Any, kinds: str, expected: str) -> "NDArray[Any]":
    if np.ma.is_masked(values):
        n_masked = np.count_nonzero(values.mask)
        raise ParameterError(f"{name} has {n_masked} masked values; expected {expected}, none masked")
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise ParameterError(f"{name} is no array: {error}; expected {expected}") from error
    if array.ndim != 1 or (array.dtype.kind not in kinds and array.size):
        raise ParameterError(
            f"{name} is an array of {array.dtype} with {array.ndim} dimensions; expected {expected} in one dimension"
        )
    return array
