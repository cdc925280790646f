"""Sets of items with a name, such as "in stock": kept as ids, and brought to the items of a model."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from fastmf.answering.asked import read_once
from fastmf.answering.fitted import Fitted
from fastmf.common.arrays import as_plain_array
from fastmf.errors import ParameterError, named
from fastmf.reading import ids
from fastmf_kernels._types import BoolArray, Int32Array

NEGATION = "not "
"""What stands before the name of a filter whose items are to be left out."""

# Names of filters, each with whether its items are kept or left out.
Combination = frozenset[tuple[str, bool]]
NO_FILTER: Combination = frozenset()


def require_name(name: object) -> str:
    """Return the name of a new filter.

    Raises
    ------
    ParameterError
        If it is not a string, is empty, or starts with "not ".
    """
    if not isinstance(name, str) or not name or name.startswith(NEGATION):
        raise ParameterError(
            f"the name of a filter is {name!r}; expected text that does not start with {NEGATION!r}, by which requests "
            "leave the items of a filter out"
        )
    return name


def ids_of(name: str, items: Any, fitted: Fitted) -> pa.ChunkedArray:
    """Return the ids of a filter's items.

    Parameters
    ----------
    name : str
        For errors.
    items : bool array, shape (n_items,), or collection of ids
        A mask is in the order of the model's item ids. Ids that the model does not know are kept: a later model may.
    fitted : Fitted

    Raises
    ------
    ParameterError
        If a mask is of another length; if ``items`` is no collection.
    DataError
        If ids are of another type than those of the model.
    """
    if isinstance(items, (str, bytes, Mapping)) or not isinstance(items, Iterable):
        raise ParameterError(
            f"filter {name!r} is {items!r}; expected a boolean mask of the model's items, or a list of item ids"
        )
    items = read_once(items)
    mask = _as_mask(items)
    if mask is None:
        given = ids.to_arrow(list(items) if isinstance(items, (set, frozenset)) else items, f"filter {name!r}")
        ids.look_up(fitted.item_ids, given, f"filter {name!r}")
        return given
    if mask.shape != (fitted.n_items,):
        raise ParameterError(
            f"filter {name!r} is a mask of shape {mask.shape}; expected ({fitted.n_items},): True or False for each "
            "item of the model, in the order of its item_ids"
        )
    return pa.chunked_array([fitted.item_ids.take(pa.array(np.flatnonzero(mask)))])


def _as_mask(items: Any) -> BoolArray | None:
    """Return a mask as an array; None for anything but a mask."""
    if isinstance(items, (pa.Array, pa.ChunkedArray)):
        if not pa.types.is_boolean(items.type):
            return None
        if items.null_count:
            raise ParameterError(f"a mask has {items.null_count} nulls; expected True or False for each item")
        return np.asarray(items)
    if isinstance(items, (list, tuple)):
        return np.array(items) if items and all(isinstance(item, (bool, np.bool_)) for item in items) else None
    if hasattr(items, "dtype"):
        array = as_plain_array(items, "a filter")
        return array if array.dtype == np.bool_ else None
    return None


def resolve(name: str, item_ids: pa.ChunkedArray, fitted: Fitted) -> Int32Array:
    """Return the items of a filter that a model knows: their indices, ascending.

    Raises
    ------
    DataError
        If ids are of another type than those of the model.
    """
    found = ids.look_up(fitted.item_ids, item_ids, f"filter {name!r}")
    return np.unique(found[found >= 0])


def combination(asked: Any, known: Mapping[str, Any]) -> Combination:
    """Read the filters of a request.

    Parameters
    ----------
    asked : str or iterable of str
        Names; "not in stock" leaves the items of "in stock" out.
    known : mapping
        Its keys are the names that there are.

    Raises
    ------
    ParameterError
        If a name is unknown.
    """
    if isinstance(asked, tuple) and not asked:
        return NO_FILTER
    if isinstance(asked, str):
        asked = (asked,)
    if isinstance(asked, (bytes, Mapping)) or not isinstance(asked, Iterable):
        raise ParameterError(f"{named('filters')} is {asked!r}; expected names of filters, such as ['in stock']")
    return frozenset(_parse(name, known) for name in asked)


def _parse(asked: object, known: Mapping[str, Any]) -> tuple[str, bool]:
    name = asked.removeprefix(NEGATION) if isinstance(asked, str) else None
    if name is None or name not in known:
        there_are = ", ".join(map(repr, known)) if known else "none: see Recommender.set_filter"
        raise ParameterError(f"{named('filters')} has {asked!r}; expected names of filters; there are {there_are}")
    return name, name == asked


def keep(wanted: Combination, items_of: Mapping[str, Int32Array], pool: Int32Array | None, n_items: int) -> Int32Array:
    """Return the items of a pool (None: all of them) that pass each of several filters, ascending."""
    kept = np.ones(n_items, np.bool_) if pool is None else _mask(pool, n_items)
    for name, is_wanted in wanted:
        kept &= _mask(items_of[name], n_items) == is_wanted
    return np.flatnonzero(kept).astype(np.int32)


def _mask(items: Int32Array, n_items: int) -> BoolArray:
    mask = np.zeros(n_items, np.bool_)
    mask[items] = True
    return mask
