"""Checks of what `fastmf.metrics` is given."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastmf.common.arrays import as_plain_array
from fastmf.errors import ParameterError
from fastmf_kernels._types import BoolArray, Float64Array, Int64Array


def as_lists(recommended: npt.ArrayLike, n_items: int | None = None) -> npt.NDArray[Any]:
    """Return recommended items as a table of whole numbers, below ``n_items`` if that is given, each once in a row."""
    items = _as_items(recommended, "recommended")
    if items.ndim != 2:
        raise ParameterError(f"recommended has shape {items.shape}; expected (n_users, at least k)")
    in_order = np.sort(items, axis=1)
    repeated = (in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0)
    if repeated.any():
        user, place = np.argwhere(repeated)[0]
        raise ParameterError(
            f"recommended has item {in_order[user, place]} twice in row {user} (from 0); expected each item once in a "
            "row: drop repetitions first"
        )
    if n_items is not None and items.size and items.max() >= n_items:
        raise ParameterError(f"recommended has item {items.max()}; expected at most {n_items - 1}: there are {n_items}")
    return items


def _as_items(values: Any, name: str) -> npt.NDArray[Any]:
    """Return numbers of items as an integer array; floating-point numbers only if they are whole."""
    array = as_plain_array(values, name)
    if array.size == 0 or array.dtype.kind in "iu":
        return array if array.dtype.kind in "iu" else array.astype(np.int64)
    if array.dtype.kind != "f":
        raise ParameterError(f"{name} has type {array.dtype}; expected numbers of items, which are integers")
    is_whole = np.isfinite(array) & (np.abs(array) < 2.0**63) & (array == np.floor(array))
    if not is_whole.all():
        raise ParameterError(f"{name} has an item {array[~is_whole][0]}; expected numbers of items, which are integers")
    return array.astype(np.int64)


def as_rows(relevant: Any) -> tuple[Int64Array, Int64Array]:
    """Return the relevant items of each user as offsets and indices; user ``u`` owns those from offset u to u + 1."""
    if isinstance(relevant, tuple) and len(relevant) == 2 and isinstance(relevant[0], np.ndarray):
        indptr, indices = (_as_items(part, "relevant") for part in relevant)
        rises_to_the_end = indptr.ndim == 1 and indices.ndim == 1 and len(indptr) > 0 and indptr[0] == 0
        if not rises_to_the_end or indptr[-1] != len(indices) or np.any(indptr[1:] < indptr[:-1]):
            raise ParameterError(
                f"relevant has an indptr of shape {indptr.shape} and indices of shape {indices.shape}; expected "
                f"offsets that rise from 0 to the number of indices, {indices.size}"
            )
    else:
        if isinstance(relevant, (str, bytes)) or not isinstance(relevant, Iterable):
            raise ParameterError(
                f"relevant is {relevant!r}; expected (indptr, indices), or a list of items for each user"
            )
        rows = [_as_row(row) for row in relevant]
        indptr = np.cumsum([0, *map(len, rows)])
        indices = np.concatenate(rows) if rows else np.empty(0, np.int64)
    if indices.dtype == np.uint64 and indices.size and indices.max() > np.iinfo(np.int64).max:
        raise ParameterError(f"relevant has item {indices.max()}; expected numbers of items that fit into int64")
    return indptr.astype(np.int64, copy=False), indices.astype(np.int64, copy=False)


def _as_row(items: Any) -> npt.NDArray[Any]:
    if isinstance(items, (str, bytes)) or not isinstance(items, Iterable):
        raise ParameterError(f"relevant has {items!r} for a user; expected a list of items")
    row = _as_items(items if isinstance(items, (np.ndarray, list, tuple)) else list(items), "relevant")
    if row.ndim != 1:
        raise ParameterError(f"relevant has an array of shape {row.shape} for a user; expected a list of items")
    return row


def as_numbers(values: npt.ArrayLike, name: str) -> Float64Array:
    """Return numbers as float64, NaN and infinite ones included."""
    array = as_plain_array(values, name)
    if array.size and array.dtype.kind not in "biuf":
        raise ParameterError(f"{name} has type {array.dtype}; expected numbers")
    return array.astype(np.float64, copy=False)


def as_truths(relevant: npt.ArrayLike) -> BoolArray:
    """Return truth values, also those that are written as 0 and 1."""
    array = as_plain_array(relevant, "relevant")
    if array.size and not (array.dtype.kind == "b" or (array.dtype.kind in "iuf" and np.isin(array, (0, 1)).all())):
        raise ParameterError(f"relevant has type {array.dtype}; expected True or False for each item")
    return array.astype(np.bool_, copy=False)


def as_gains(gains: Any, n_pairs: int) -> Float64Array:
    """Return the gains of relevant items, in one array, from one array or from a list for each user."""
    if not isinstance(gains, np.ndarray) and isinstance(gains, Iterable):
        rows = [as_numbers(row, "gains") for row in gains]
        gains = np.concatenate([np.atleast_1d(row) for row in rows]) if rows else np.empty(0)
    values = as_numbers(gains, "gains")
    if values.shape != (n_pairs,):
        raise ParameterError(f"gains have shape {values.shape}; expected ({n_pairs},), one for each relevant item")
    if not np.all(np.isfinite(values) & (values >= 0)):
        raise ParameterError("gains have numbers below 0, infinite ones or NaN; expected finite numbers of at least 0")
    return values
