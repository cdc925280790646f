"""Ids of two sources in one vocabulary."""

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


def widened(ratings: Interactions, user_ids: pa.Array | None, item_ids: pa.Array | None, name: str) -> Interactions:
    """Return ratings whose users and items are joined by others, which have no rating.

    Parameters
    ----------
    ratings : Interactions
    user_ids, item_ids : Arrow array or None
        The others, and possibly some of the same; None for none.
    name : str
        What messages call the source of the others.

    Raises
    ------
    DataError
        If ids are integers on one side and strings on the other.
    """
    users, items, names = ratings.users, ratings.items, ("the ratings", name)
    all_users, all_items = ratings.user_ids, ratings.item_ids
    if user_ids is not None:
        merged = merge(all_users, user_ids, names, "user_ids")
        users, all_users = merged.of_first[users], merged.ids
    if item_ids is not None:
        merged = merge(all_items, item_ids, names, "item_ids")
        items, all_items = merged.of_first[items], merged.ids
    if len(all_users) == ratings.n_users and len(all_items) == ratings.n_items:
        return ratings
    return Interactions(
        users, items, ratings.ratings, ratings.timestamps, all_users, all_items, timestamp_type=ratings.timestamp_type
    )
