"""Ids that callers ask for, in whatever holds them."""

from collections.abc import Iterator
from typing import Any

import numpy as np

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
    """Return the values of an iterator as a list, so that they can be read again; anything else as it is."""
    return list(values) if isinstance(values, Iterator) else values
