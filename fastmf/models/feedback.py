"""What kind of data ratings are: ratings that say how much was liked, or events that only say what was chosen."""

from typing import NamedTuple

import numpy as np

from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import Float32Array, Int64Array

# So many ratings are looked at, evenly spaced.
_SAMPLE = 1 << 16
# Of amounts the largest is more than so many times the median of those above 0, and one in a hundred more than so many.
_LARGEST_OVER_MEDIAN, _FAR_OVER_MEDIAN = 20, 5
# Of counts so many of the smallest are each rarer than the one before.
_FIRST_COUNTS = 5
# Scales of ratings that are in wide use end here; ratings that are all above this share of it are the good ones alone.
_ENDS_OF_SCALES, _GOOD_SHARE = (5.0, 10.0), 0.7
# More values than these are not counted in words.
_SHOWN = 100


class Feedback(NamedTuple):
    """What kind of data ratings are.

    Attributes
    ----------
    is_implicit : bool
        Whether they are events: clicks, purchases, counts, or good ratings alone.
    reason : str
        What in the data says so, as part of a sentence.
    """

    is_implicit: bool
    reason: str


def feedback_of(ratings: Interactions) -> Feedback:
    """Tell ratings from events by their values.

    Events are: ratings that are all the same; counts, which are mostly 1 and ever rarer above it; amounts whose largest
    are far above the median, such as plays or hours; and ratings on a scale to 5 or 10 of which none is low. All else
    are ratings.

    Parameters
    ----------
    ratings : Interactions
        At least one rating.

    Returns
    -------
    Feedback

    Examples
    --------
    >>> import fastmf
    >>> feedback_of(fastmf.Interactions.from_arrays([1, 2], ["a", "b"]))
    Feedback(is_implicit=True, reason='all 2 ratings are 1')
    >>> feedback_of(fastmf.Interactions.from_arrays([1, 2, 3], ["a", "b", "a"], [5, 1, 3]))
    Feedback(is_implicit=False, reason='the ratings have 3 values from 1 to 5')
    """
    values = ratings.ratings
    low, high = float(values.min()), float(values.max())
    if high <= 0:
        return Feedback(False, "no rating is above 0")
    if low == high:
        return Feedback(True, f"all {len(values):,} ratings are {low:g}")
    sample = values[:: -(-len(values) // _SAMPLE)]
    distinct, counts = np.unique(sample, return_counts=True)
    if low >= 0 and (reason := _of_amounts(sample, high) or _of_counts(distinct, counts, low)):
        return Feedback(True, reason)
    if high in _ENDS_OF_SCALES and low >= _GOOD_SHARE * high and (distinct % 0.5 == 0).all():
        return Feedback(True, f"no rating is below {low:g} of {high:g}")
    if len(distinct) <= _SHOWN:
        return Feedback(False, f"the ratings have {len(distinct)} values from {low:g} to {high:g}")
    return Feedback(False, f"the ratings lie between {low:g} and {high:g}")


def _of_amounts(sample: Float32Array, high: float) -> str:
    """Say why the values are amounts with a heavy tail; nothing if they are not."""
    median, far = np.quantile(sample[sample > 0], (0.5, 0.99)) if (sample > 0).any() else (1.0, 0.0)
    if high <= _LARGEST_OVER_MEDIAN * median or far <= _FAR_OVER_MEDIAN * median:
        return ""
    return f"the median of the ratings is {median:.4g} and the largest {high:,.10g}, as of counts or amounts"


def _of_counts(distinct: Float32Array, counts: Int64Array, low: float) -> str:
    """Say why the values are counts: whole numbers from 1 on, mostly 1 and then ever rarer; nothing if they are not."""
    first = counts[:_FIRST_COUNTS]
    if low != 1 or len(distinct) < 3 or (distinct % 1 != 0).any() or (np.diff(first) >= 0).any():
        return ""
    share = counts[0] / counts.sum()
    return f"the ratings are whole numbers, {share:.0%} of them 1 and larger ones ever rarer" if share > 0.5 else ""
