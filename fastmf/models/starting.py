"""Warm start: a fit that begins at what an earlier fit has learned, matched by outside ids."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastmf.answering.fitted import Fitted
from fastmf.errors import ParameterError, named
from fastmf.measuring.baseline import ITEM_BASELINE, USER_BASELINE
from fastmf.models.training import Trainer
from fastmf.reading import ids
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import Int64Array

if TYPE_CHECKING:
    from fastmf.models.base import Model


class Known(NamedTuple):
    """The users (or items) that have ratings both in a fit and in the one that it begins at.

    Attributes
    ----------
    here, there : int64 arrays, shape (n_known,)
        Their rows in the one and in the other.
    """

    here: Int64Array
    there: Int64Array


def as_start(model: "Model", start: Any) -> Fitted | None:
    """Return what a fit begins at; None if there is nothing.

    Raises
    ------
    ParameterError
        If ``start`` is of another class than the model, has another number of factors, or was trained with another
        value of a parameter that the meaning of the factors depends on.
    NotFittedError
        If it is not fitted.
    """
    if start is None:
        return None
    given, expected = type(start).__name__, type(model).__name__
    if type(start) is not type(model):
        raise ParameterError(f"{named('start')} is of class {given}; expected a fitted model of class {expected}")
    fitted: Fitted = start.fitted
    n_factors, n_before = getattr(model, "n_factors", 0), fitted.factors.user_factors.shape[1]
    if n_factors != n_before:
        raise ParameterError(
            f"{named('n_factors')} is {n_factors} and {named('start')} has {n_before} factors; expected as many: set "
            f"{named('n_factors')} to {n_before}, or leave {named('start')} out"
        )
    for name, value in model.fixed_params().items():
        before = fitted.trained_with.get(name, value)
        if value != before:
            raise ParameterError(
                f"{named(name)} is {value!r} and {named('start')} was trained with {before!r}; expected the same: its "
                f"factors mean something else. Set {named(name)} back, or leave {named('start')} out"
            )
    return fitted


def begin(trainer: Trainer, ratings: Interactions, start: Fitted, nonnegative: bool = False) -> None:
    """Let a trainer of ratings begin at what ``start`` has learned of its users and items.

    Those that ``start`` has no ratings of begin as in any fit, and so does the baseline.

    Raises
    ------
    DataError
        If ids are integers on one side and strings on the other.
    """
    users, items = known_users(ratings, start), known_items(ratings, start)
    ours, theirs = trainer.factors, start.factors
    pairs = [
        (users, ours.user_factors, theirs.user_factors),
        (items, ours.item_factors, theirs.item_factors),
        (users, ours.user_biases, theirs.user_biases),
        (items, ours.item_biases, theirs.item_biases),
    ]
    for name in (trainer.state.keys() & start.state.keys()) - {USER_BASELINE, ITEM_BASELINE}:
        pairs.append((users if name.startswith("user_") else items, trainer.state[name], start.state[name]))
    for known, here, there in pairs:
        here[known.here] = there[known.there]
    if nonnegative:
        np.maximum(ours.user_factors, 0, out=ours.user_factors)
        np.maximum(ours.item_factors, 0, out=ours.item_factors)
    trainer.from_host()


def known_users(ratings: Interactions, start: Fitted) -> Known:
    """Return the users who have ratings in both."""
    places = ids.look_up(start.user_ids, ratings.user_ids, "user_ids")
    is_known = (np.diff(ratings.by_user.indptr) > 0) & (places >= 0)
    is_known[is_known] &= start.counts.is_rated_user[places[is_known]]
    return _known(is_known, places)


def known_items(ratings: Interactions, start: Fitted) -> Known:
    """Return the items that have ratings in both."""
    places = ids.look_up(start.item_ids, ratings.item_ids, "item_ids")
    is_known = (np.bincount(ratings.by_user.indices, minlength=ratings.n_items) > 0) & (places >= 0)
    is_known[is_known] &= start.counts.of_items[places[is_known]] > 0
    return _known(is_known, places)


def _known(is_known: Any, places: Any) -> Known:
    here = np.flatnonzero(is_known)
    return Known(here, places[here].astype(np.int64))
