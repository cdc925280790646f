"""The ratings on which trials are compared."""

from typing import Any, NamedTuple

import pyarrow as pa

from fastmf.common.parameters import require_choice
from fastmf.errors import DataError, ParameterError, named
from fastmf.models.training import as_training_part
from fastmf.models.warm import warm_part
from fastmf.reading import split
from fastmf.reading.interactions import Interactions, as_interactions


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


def hold_out(ratings: Any, validation: Any, by: str, seed: int) -> Parts:
    """Divide ratings into a part to train on and one to compare trials on, or take the latter as it is given.

    Parameters
    ----------
    ratings : Interactions, table or SciPy sparse matrix
    validation : float, Interactions, table or SciPy sparse matrix
        A share of the ratings to hold out, or other ratings.
    by : {"random", "user", "time", "last"}
        How they are held out.
    seed : int

    Raises
    ------
    ParameterError, DataError
    """
    known = as_training_part(ratings)
    if isinstance(validation, (int, float)):
        require_choice("validation_by", by, split.HELD_OUT_BY)
        train, held_out = split.hold_out(known, by, None if by == "last" else validation, seed)
        return Parts(_without_cold_ones(train), held_out, known)
    if validation is None:
        raise ParameterError(f"{named('validation')} is None; expected a share of the ratings, or other ratings")
    held_out = as_interactions(validation, "validation")
    if held_out.n_ratings == 0:
        raise DataError("the validation part has no ratings; expected at least one")
    return Parts(_without_cold_ones(known), held_out, _joined(known, held_out))


def _without_cold_ones(train: Interactions) -> Interactions:
    """Leave out users and items without ratings once: every fit would do so by itself."""
    part = warm_part(train)
    return train if part is None else part.ratings


def _joined(ratings: Interactions, more: Interactions) -> Interactions:
    """Return the ratings of both; where they share a pair, the second one's."""
    tables = [part.to_arrow().select(["user_id", "item_id", "rating"]) for part in (ratings, more)]
    return Interactions.from_arrow(pa.concat_tables(tables), duplicates="last")
