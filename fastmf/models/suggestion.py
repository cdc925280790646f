"""The model to begin with, by the kind of data."""

from typing import Any

from fastmf.models.als import ALS
from fastmf.models.base import Model
from fastmf.models.feedback import feedback_of
from fastmf.models.implicit_als import ImplicitALS
from fastmf.models.training import as_training_part

MODEL_OF_RATINGS: type[Model] = ALS
MODEL_OF_EVENTS: type[Model] = ImplicitALS


def suggest_model(ratings: Any) -> Model:
    """Return the model to begin with: one that predicts ratings, or one that learns what is chosen.

    Events are ratings that are all the same, counts, amounts with a heavy tail such as plays or hours, and ratings on
    a scale to 5 or 10 of which none is low; all else are ratings. `fastmf train --model auto` takes this model.

    Parameters
    ----------
    ratings : Interactions, table or SciPy sparse matrix
        As for `fit`.

    Returns
    -------
    Model
        Not fitted, with its defaults: `ImplicitALS` for events, `ALS` for ratings.

    Raises
    ------
    DataError
        If there are no ratings.

    Examples
    --------
    >>> import fastmf
    >>> clicks = fastmf.Interactions.from_arrays([1, 1, 2], ["a", "b", "a"])
    >>> type(fastmf.suggest_model(clicks)).__name__
    'ImplicitALS'
    """
    is_implicit = feedback_of(as_training_part(ratings)).is_implicit
    return MODEL_OF_EVENTS() if is_implicit else MODEL_OF_RATINGS()
