"""Ids of two sources in one vocabulary."""

import dataclasses
from typing import NamedTuple

import pyarrow as pa

from fastmf.errors import DataError
from fastmf.reading import ids
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import Int32Array


class Merged(NamedTuple):
    """Two vocabularies merged.

    Attributes
    ----------
    ids : Arrow array
        The ids of either, ascending.
    of_first, of_second : int32 arrays
        The position of each id of the one and of the other among them.
    """

    ids: pa.Array
    of_first: Int32Array
    of_second: Int32Array


def merge(first: pa.Array, second: pa.Array, names: tuple[str, str], column: str) -> Merged:
    """Merge two vocabularies.

    Parameters
    ----------
    first, second : Arrow arrays
    names : (str, str)
        What messages call the two.
    column : str
        What messages call the ids.

    Raises
    ------
    DataError
        If ids are integers in one and strings in the other.
    """
    if pa.types.is_int64(first.type) != pa.types.is_int64(second.type):
        raise DataError(f"{column} of {names[1]} are {second.type}, those of {names[0]} {first.type}; cast them first")
    kind = pa.int64() if pa.types.is_int64(first.type) else pa.large_string()
    places, vocabulary = ids.encode(pa.chunked_array([first.cast(kind), second.cast(kind)]), column)
    return Merged(vocabulary, places[: len(first)], places[len(first) :])


def widened(ratings: Interactions, side: str, more: pa.Array, name: str) -> Interactions:
    """Return ratings whose users (or items) are joined by others, which have no rating.

    Parameters
    ----------
    ratings : Interactions
    side : {"user", "item"}
    more : Arrow array
        Ids of the others, and possibly of some of the same.
    name : str
        What messages call the source of the others.

    Raises
    ------
    DataError
        If ids are integers on one side and strings on the other.
    """
    known = ratings.user_ids if side == "user" else ratings.item_ids
    merged = merge(known, more, ("the ratings", name), f"{side}_ids")
    if len(merged.ids) == len(known):
        return ratings
    if side == "user":
        return dataclasses.replace(ratings, users=merged.of_first[ratings.users], user_ids=merged.ids)
    return dataclasses.replace(ratings, items=merged.of_first[ratings.items], item_ids=merged.ids)
