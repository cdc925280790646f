"""The units of training: ratings in standard deviations, so that parameters mean the same on every scale of ratings.

A model of ratings a·r + b with a > 0 then ranks as that of ratings r does, and its errors are a times as large.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from fastmf.errors import DataError
from fastmf.reading.interactions import Interactions

# float32 numbers hold the fourth power of every deviation in this range.
_LEAST, _LARGEST = 1e-9, 1e9
# Ratings whose deviation is a smaller share of their mean are all the same, but for rounding.
_ROUNDING = 1e-6
_CHUNK = 1 << 20


class Units(NamedTuple):
    """What training measures ratings and scores in.

    Attributes
    ----------
    deviation : float
        σ: the standard deviation of the ratings that the model was first trained on.
    score : float
        Unit of p·q and of biases: σ, or 1 where a sigmoid stands between a score and a rating.
    """

    deviation: float = 1.0
    score: float = 1.0

    @property
    def factors(self) -> float:
        """Unit of p and of q: √σ, or 1."""
        return math.sqrt(self.score)

    @property
    def slope(self) -> float:
        """Factor on the derivative of a squared error by a score, with errors in units of σ and scores in ``score``."""
        return self.score / self.deviation**2


def make_units(deviation: float, has_sigmoid: bool) -> Units:
    """Return the units for ratings of a standard deviation.

    Raises
    ------
    DataError
        If it is too small or too large for float32 numbers.
    """
    if not _LEAST <= deviation <= _LARGEST:
        raise DataError(
            f"the ratings' standard deviation is {deviation:.3g}; expected {_LEAST:g} to {_LARGEST:g}: "
            "multiply or divide the ratings by a constant"
        )
    return Units(deviation, 1.0 if has_sigmoid else deviation)


def deviation_of(ratings: Interactions) -> float:
    """Return the standard deviation of ratings; where all are the same, their size, or 1 where that is 0."""
    values = ratings.ratings
    mean = float(values.mean(dtype=np.float64))
    chunks = (values[start : start + _CHUNK].astype(np.float64) - mean for start in range(0, len(values), _CHUNK))
    # Not chunk @ chunk: the threads of BLAS would keep their cores busy for a while after it, beside the first epochs.
    deviation = math.sqrt(sum(float(np.square(chunk).sum()) for chunk in chunks) / len(values))
    if deviation > _ROUNDING * abs(mean):
        return deviation
    return min(max(abs(mean), _LEAST), _LARGEST) if mean else 1.0


def trained_deviation(data: dict[str, Any]) -> float:
    """Return the σ that a fitted model was trained with, given its `Fitted.data`; 1 in models saved without it."""
    deviation = data.get("deviation")
    return 1.0 if deviation is None else float(deviation)
