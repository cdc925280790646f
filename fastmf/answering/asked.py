"""Ids that callers ask for, in whatever holds them."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from fastmf.answering.fitted import Fitted
from fastmf.errors import ParameterError, named
from fastmf.reading import ids
from fastmf_kernels._types import Int32Array


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
    """Return the values of an iterator as a list, so that they can be read again; anything else as it is."""
    return list(values) if isinstance(values, Iterator) else values


def listed(vocabulary: pa.Array, given: Any, name: str, expected: str) -> Int32Array | None:
    """Return the indices of listed ids, ascending, each once; None for None. Unknown ids are left out: none can match.

    Parameters
    ----------
    vocabulary : Arrow array
    given : iterable of ids, or None
    name : str
        Of the parameter, for messages.
    expected : str
        What the parameter takes, for messages.

    Raises
    ------
    ParameterError, DataError
        If ``given`` lists nothing; if its ids are of another type than those of the vocabulary.
    """
    if given is None:
        return None
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise ParameterError(f"{named(name)} is {given!r}; expected {expected}")
    found = ids.look_up(vocabulary, read_once(given), name)
    return np.unique(found[found >= 0])
