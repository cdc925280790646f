"""Ids of users or items in Parquet files."""

import argparse
from typing import Any, NamedTuple

from fastmf.cli.options import note

# So many unknown ids are shown.
_SHOWN = 3


class KnownIds(NamedTuple):
    """The ids of a file, each once, in order of appearance.

    Attributes
    ----------
    ids : Arrow array
        Those that the model knows; all of them where unknown ones are for the library to refuse.
    n_unknown : int
        How many were left out.
    """

    ids: Any
    n_unknown: int


def read_known_ids(
    path: str, column: str, vocabulary: Any, parsed: argparse.Namespace, what: str, strict: bool = False
) -> KnownIds:
    """Read the ids of a column, and say on standard error how many the model does not know.

    Parameters
    ----------
    path : str
    column : str
    vocabulary : Arrow array
        The ids that the model knows.
    parsed : argparse.Namespace
    what : {"users", "items"}
    strict : bool
        Whether unknown ids are returned, too.

    Raises
    ------
    UnknownIdError
        If the model knows none of them, and ``strict`` is false.
    """
    import numpy as np
    import pyarrow as pa

    from fastmf.errors import UnknownIdError
    from fastmf.reading import ids
    from fastmf.reading.columns import IDS
    from fastmf.reading.parquet import open_dataset

    read = open_dataset(path).read(column, IDS)
    indices, distinct = ids.encode(read.values, column, read.where)
    first = np.sort(np.unique(indices, return_index=True)[1])
    found = distinct.take(pa.array(indices[first]))
    is_known = ids.look_up(vocabulary, found, column) >= 0
    n_unknown = int(len(found) - is_known.sum())
    if n_unknown == 0 or strict:
        return KnownIds(found, 0)
    shown = shown_ids(found.filter(pa.array(~is_known)).slice(0, _SHOWN).to_pylist(), n_unknown)
    if n_unknown == len(found):
        raise UnknownIdError(
            f"none of the {n_unknown:,} {what} of {path} is known to the model: {shown}; expected ids that were in the "
            "training data"
        )
    note(f"skipping {n_unknown:,} of {len(found):,} {what} that the model does not know: {shown}", parsed)
    return KnownIds(found.filter(pa.array(is_known)), n_unknown)


def shown_ids(some: list[Any], n_all: int) -> str:
    """List the first of several ids, and say how many more there are."""
    return ", ".join(map(repr, some)) + (f" and {n_all - len(some):,} more" if n_all > len(some) else "")


def typed_id(option: str, text: str, vocabulary: Any) -> int | str:
    """Turn what was typed into an id of the model.

    Raises
    ------
    UnknownIdError
        If the model has none.
    """
    from fastmf.errors import UnknownIdError
    from fastmf.reading import ids

    are_integers = str(vocabulary.type) == "int64"
    try:
        typed = int(text) if are_integers else text
        is_known = ids.look_up(vocabulary, [typed], option)[0] >= 0
    except (ValueError, OverflowError):
        is_known = False
    if not is_known:
        kind = "an integer" if are_integers else "one"
        raise UnknownIdError(f"{option} {text} is unknown to the model; expected {kind} of its training data")
    return typed
