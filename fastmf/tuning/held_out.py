"""The ratings on which trials are compared."""

import numbers
import warnings
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from fastmf.common.parameters import require_choice
from fastmf.errors import DataError, ParameterError, QualityWarning, named
from fastmf.models.training import as_training_part
from fastmf.models.warm import warm_part
from fastmf.reading import split
from fastmf.reading.ids import look_up
from fastmf.reading.interactions import Interactions, as_interactions
from fastmf_kernels._notes import level_of_user
from fastmf_kernels._types import BoolArray, Int32Array

# No part is small for a reason other than its rule, among so many ratings.
_FEWEST_RATINGS = 1000
_WHY_NOT = {
    "random": "there is 1 rating",
    "user": f"of no user are there enough ratings for such a share; raise {named('validation')}",
    "time": "all ratings, or all but a few, are of the same time",
    "last": "no user has two ratings",
}


class Parts(NamedTuple):
    """What a search works on.

    Attributes
    ----------
    train, validation : Interactions
        ``train`` has the users and items that have ratings in it, and no others.
    everything : Interactions
        Both together: what the best model is trained on in the end.
    """

    train: Interactions
    validation: Interactions
    everything: Interactions


class Apart(NamedTuple):
    """Validation ratings that are given apart.

    Attributes
    ----------
    validation : Interactions
    everything : Interactions
        The other ratings and these: what the best model is trained on in the end.
    """

    validation: Interactions
    everything: Interactions


def is_share(validation: Any) -> bool:
    """Whether validation ratings are given as a share of the others."""
    return isinstance(validation, numbers.Real)


def hold_out(ratings: Any, validation: Any, by: str, seed: int) -> Parts:
    """Divide ratings into a part to train on and one to compare trials on, or take the latter as it is given.

    Parameters
    ----------
    ratings : Interactions, table or SciPy sparse matrix
    validation : float, Apart, Interactions, table or SciPy sparse matrix
        A share of the ratings to hold out, or other ratings.
    by : {"random", "user", "time", "last"}
        How they are held out.
    seed : int

    Raises
    ------
    ParameterError, DataError
    """
    known = as_training_part(ratings)
    if is_share(validation):
        require_choice("validation_by", by, split.HELD_OUT_BY)
        train, held_out = divide(known, by, None if by == "last" else validation, seed)
        return Parts(_without_cold_ones(train), held_out, known)
    if validation is None:
        raise ParameterError(f"{named('validation')} is None; expected a share of the ratings, or other ratings")
    apart = isinstance(validation, Apart)
    held_out = validation.validation if apart else as_interactions(validation, "validation")
    if held_out.n_ratings == 0:
        raise DataError("the validation part has no ratings; expected at least one")
    if apart:
        return Parts(_without_cold_ones(known), held_out, validation.everything)
    require_same_id_types(known, held_out)
    return Parts(_without_cold_ones(known), held_out, _joined(known, held_out))


def divide(ratings: Interactions, by: str, share: float | None, seed: int) -> split.Split:
    """Hold out ratings for validation as `fastmf.split.hold_out` does.

    Raises
    ------
    ParameterError
        If the share makes no sense.
    DataError
        If there are no timestamps and ``by`` needs them, or a part would be empty.
    """
    if share is not None and (isinstance(share, bool) or not 0 < share < 1):
        raise ParameterError(
            f"{named('validation')} is {share!r}; expected a share of the ratings, between 0 and 1, or other ratings"
        )
    try:
        return split.hold_out(ratings, by, None if share is None else float(share), seed)
    except DataError as error:
        if by in ("time", "last") and ratings.timestamps is None:
            raise
        raise DataError(
            f"of {ratings.n_ratings} ratings, none can be held out for validation and others left "
            f'({named("validation_by")} is "{by}"): {_WHY_NOT[by]}'
        ) from error


def require_same_id_types(
    ratings: Interactions,
    validation: Interactions,
    columns: tuple[str, str] = ("user_id", "item_id"),
    names: tuple[str, str] = ("ratings", "validation"),
) -> None:
    """Check that ids to train on and to validate on can be the same.

    Parameters
    ----------
    ratings, validation : Interactions
    columns : pair of str
        Of the ids of users and of items, for the message.
    names : pair of str
        Of the ratings, for the message.

    Raises
    ------
    DataError
    """
    pairs = (ratings.user_ids.type, validation.user_ids.type), (ratings.item_ids.type, validation.item_ids.type)
    for column, kinds in zip(columns, pairs, strict=True):
        ours, others = ("integers" if pa.types.is_integer(kind) else "text" for kind in kinds)
        if ours != others:
            raise DataError(
                f"the ids in the column {column!r} are {ours} in {names[0]} and {others} in {names[1]}; expected the "
                "same type: convert one of them"
            )


def require_telling(train: Interactions, validation: Interactions) -> None:
    """Check that validation ratings tell how good a model is.

    A `QualityWarning` is given where more than half of them are of users or items that are not in training, or where
    there are more of them than ratings to train on.

    Raises
    ------
    DataError
        If no validation rating is of a user and an item that are in training.
    """
    known = _has_ratings(train.users, train.user_ids, validation.user_ids)[validation.users]
    known &= _has_ratings(train.items, train.item_ids, validation.item_ids)[validation.items]
    n, n_known = validation.n_ratings, int(np.count_nonzero(known))
    if n_known == 0:
        raise DataError(
            f"none of the {n:,} validation ratings is of a user and an item in training, so they do not tell how good "
            "a model is; expected ratings of the same users and items"
        )
    if train.n_ratings + n < _FEWEST_RATINGS:
        return
    if n_known < n / 2:
        _warn(
            f"{n - n_known:,} of {n:,} validation ratings are of users or items that are not in training: they tell "
            "little of how good a model is. Validate on ratings of the same users and items"
        )
    if n > train.n_ratings:
        _warn(
            f"there are {n:,} ratings to validate on, and only {train.n_ratings:,} to train on: what is best for so "
            "few may not be best for all. Validate on fewer"
        )


def _has_ratings(rows: Int32Array, ids: pa.Array, asked: pa.Array) -> BoolArray:
    """Tell of each id that is asked for whether it has ratings."""
    has_ratings = np.append(np.bincount(rows, minlength=len(ids)) > 0, False)
    if asked.equals(ids):
        return has_ratings[:-1]
    return has_ratings[look_up(ids, asked, "ids")]  # the last one for -1: there is no such id


def _warn(message: str) -> None:
    warnings.warn(QualityWarning(message), stacklevel=level_of_user())


def _without_cold_ones(train: Interactions) -> Interactions:
    """Leave out users and items without ratings once: every fit would do so by itself."""
    part = warm_part(train)
    return train if part is None else part.ratings


def _joined(ratings: Interactions, more: Interactions) -> Interactions:
    """Return the ratings of both; where they share a pair, the second one's."""
    tables = [part.to_arrow().select(["user_id", "item_id", "rating"]) for part in (ratings, more)]
    return Interactions.from_arrow(pa.concat_tables(tables), duplicates="last")
