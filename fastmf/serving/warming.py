"""What first requests would wait for, done before they come."""

import contextlib
from collections.abc import Iterable

import numpy as np

from fastmf.answering.audience import UsersOfModel
from fastmf.answering.fitted import Fitted
from fastmf.errors import FastMFError
from fastmf.reading.interactions import Interactions
from fastmf.serving.filters import NO_FILTER
from fastmf.serving.requests import Request
from fastmf.serving.searching import Search
from fastmf.serving.state import State
from fastmf_kernels._types import Int32Array


def warm_up(state: State, k: int, filters: Iterable[str] = ()) -> None:
    """Read every page of the model, lay out filters, and ask for a user that the model knows and for one that not.

    Parameters
    ----------
    state : State
    k : int
        At most the size of the catalogue.
    filters : iterable of str
        Names of those to lay out.
    """
    state.touch()
    fitted = state.fitted
    warm = fitted.warm_users()[:1]
    users = np.append(warm, np.int32(-1)).astype(np.int32)
    request = Request(
        UsersOfModel(fitted), users, fitted.user_ids[:0], k, "popular", NO_FILTER, True, None, None, None, None
    )
    for wanted in (NO_FILTER, *(frozenset([(name, True)]) for name in filters)):
        Search(state, request._replace(wanted=wanted)).run()
    Search(state, request._replace(allowed=np.zeros(1, np.int32))).run()
    state.model.predict_indices(warm, np.zeros(len(warm), np.int32))
    if len(warm):
        # A model that cannot fold in says so to those who ask for it.
        with contextlib.suppress(FastMFError, NotImplementedError):
            state.model.fold_in(_first_rating(fitted, warm))


def _first_rating(fitted: Fitted, users: Int32Array) -> Interactions:
    """Return one rating, of an item that a user has rated."""
    item = int(fitted.seen.indices[fitted.seen.indptr[users[0]]]) if fitted.counts.are_known else 0
    value = 1.0 if fitted.values is None else float(fitted.values[fitted.seen.indptr[users[0]]])
    zero = np.zeros(1, np.int32)
    return Interactions(
        zero, zero, np.full(1, value, np.float32), None, fitted.user_ids[:1], fitted.item_ids[item : item + 1]
    )
