"""What a model is compared with: biases of users and items, or popularity, from what its fit has kept."""

from typing import NamedTuple

import numpy as np

from fastmf.answering.fitted import Fitted
from fastmf.measuring.setting import Measurable
from fastmf_kernels.predict.arrays import Factors, make_link

USER_BASELINE, ITEM_BASELINE = "user_baseline", "item_baseline"
"""Names in `Fitted.state` of the biases that a model of ratings is compared with."""
BASELINE_MEAN = "baseline_mean"
"""Name in `Fitted.data` of the mean that belongs to them, where it is no longer ``mean``."""


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
        None if the model is itself a baseline, or was saved by a version that kept nothing for it.
    """
    fitted = model.fitted
    factors = fitted.factors
    if not factors.user_factors.shape[1]:
        return None
    mean = 0.0
    if model.is_implicit:
        user_biases, item_biases = np.zeros_like(factors.user_biases), fitted.counts.share_of_users.astype(np.float32)
    elif USER_BASELINE in fitted.state:
        user_biases, item_biases = fitted.state[USER_BASELINE], fitted.state[ITEM_BASELINE]
        mean = float(fitted.data.get(BASELINE_MEAN, fitted.data["mean"]))
    else:
        return None
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
