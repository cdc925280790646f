"""Checks and the first mean of models that can keep predictions in a range of ratings."""

import math

import numpy as np

from fastmf.common.parameters import require_number
from fastmf.errors import DataError, ParameterError, named
from fastmf.models.units import deviation_of
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import Float32Array

# A mean at the very end of the rating range has no logit; it is moved inwards by this share of the range, or by this
# share of the ratings' deviation, whichever is less.
_MEAN_MARGIN, _DEVIATION_MARGIN = 1e-3, 1e-2


def require_range(rating_range: object) -> None:
    """Check the parameter ``rating_range``."""
    if rating_range is None:
        return
    if isinstance(rating_range, (tuple, list)) and len(rating_range) == 2:
        for end in rating_range:
            require_number("each end of rating_range", end, minimum=-math.inf)
    if not (isinstance(rating_range, (tuple, list)) and len(rating_range) == 2 and rating_range[0] < rating_range[1]):
        raise ParameterError(
            f"{named('rating_range')} is {rating_range!r}; expected None or (low, high) with low < high"
        )


def require_within(ratings: Float32Array, rating_range: tuple[float, float] | None) -> None:
    """Check that no rating leaves the range.

    Raises
    ------
    DataError
        If one does.
    """
    if rating_range is None:
        return
    low, high = rating_range
    outside = np.flatnonzero((ratings < low) | (ratings > high))
    if len(outside):
        raise DataError(
            f"{len(outside)} ratings lie outside {named('rating_range')} ({low:g}, {high:g}), for example "
            f"{ratings[outside[0]]:g}; widen the range or repair the ratings"
        )


def mean_score(ratings: Interactions, rating_range: tuple[float, float] | None) -> float:
    """Return the score whose prediction is the mean rating: the mean, or its logit within the range."""
    mean = float(ratings.ratings.mean(dtype=np.float64))
    if rating_range is None:
        return mean
    low, high = rating_range
    margin = min(_MEAN_MARGIN, _DEVIATION_MARGIN * deviation_of(ratings) / (high - low))
    share = min(max((mean - low) / (high - low), margin), 1 - margin)
    return math.log(share / (1 - share))


def slope_of(ratings: Interactions, rating_range: tuple[float, float] | None) -> float:
    """Return by how many σ a prediction near the mean moves when the score moves by its unit: 1 without a range."""
    if rating_range is None:
        return 1.0
    share = 1 / (1 + math.exp(-mean_score(ratings, rating_range)))
    return (rating_range[1] - rating_range[0]) * share * (1 - share) / deviation_of(ratings)
