"""What a model is compared with: biases of users and items, or popularity, from what its fit has kept."""

from typing import NamedTuple

import numpy as np

from fastmf.answering.fitted import Fitted
from fastmf.measuring.setting import Measurable
from fastmf_kernels.predict.arrays import Factors, make_link

USER_BASELINE, ITEM_BASELINE = "user_baseline", "item_baseline"
"""Names in `Fitted.state` of what a model is compared with.

A model of ratings keeps biases, an implicit model how many ratings above 0 each item has, as the baseline of items.
"""


class FittedBaseline(NamedTuple):
    """A baseline that answers like a model, for `fastmf.evaluate`."""

    backend: str
    n_threads: int | None
    fitted: Fitted
    is_implicit: bool


def name_of_baseline(is_implicit: bool) -> str:
    """Return what the baseline of a model is called in words."""
    return "popularity" if is_implicit else "bias-only"


def baseline_of(model: Measurable) -> FittedBaseline | None:
    """Return the baseline of a fitted model, fitted to the same ratings.

    Returns
    -------
    FittedBaseline or None
        None if the model is itself a baseline, was saved by a version that kept nothing for it, or predicts ratings
        and has gone on with more of them after its fit.
    """
    fitted = model.fitted
    factors = fitted.factors
    if not factors.user_factors.shape[1] or ITEM_BASELINE not in fitted.state:
        return None
    if model.is_implicit:
        n_users = max(1, int(np.count_nonzero(fitted.counts.is_rated_user)))
        user_biases, mean = np.zeros_like(factors.user_biases), 0.0
        item_biases = (fitted.state[ITEM_BASELINE].astype(np.float64) / n_users).astype(np.float32)
    else:
        if USER_BASELINE not in fitted.state or fitted.data.get("mean") is None:
            return None
        user_biases, item_biases = fitted.state[USER_BASELINE], fitted.state[ITEM_BASELINE]
        mean = float(fitted.data["mean"])
    terms = Factors(
        np.zeros((len(user_biases), 0), np.float32),
        np.zeros((len(item_biases), 0), np.float32),
        user_biases,
        item_biases,
        np.float32(mean),
    )
    of_biases = Fitted(
        terms, make_link(None), fitted.user_ids, fitted.item_ids, fitted.seen, fitted.data, counts=fitted.counts
    )
    return FittedBaseline(model.backend, model.n_threads, of_biases, model.is_implicit)
