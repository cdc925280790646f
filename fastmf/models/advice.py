"""Warnings that teach: what is odd in the data or in a fit, and what to do about it.

They are few and certain rather than many: nothing is said of small data, and a threshold is where a model has failed,
not where it could be better.
"""

import itertools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

import numpy as np

from fastmf.answering.fitted import Fitted
from fastmf.answering.rows import count_contained
from fastmf.errors import QualityWarning, named
from fastmf.measuring.beside_baseline import baseline_metrics, verdict
from fastmf.measuring.metrics import METRICS
from fastmf.models.feedback import feedback_of
from fastmf.models.training import Record, best_record, kept_record
from fastmf.reading.ids import look_up
from fastmf.reading.interactions import Interactions
from fastmf_kernels._notes import level_of_user
from fastmf_kernels._types import Float32Array
from fastmf_kernels.topk.arrays import Rows

# Nothing is said of fewer ratings than these.
_FEWEST_RATINGS = 1000
# On fewer validation ratings than these, chance decides which of two models is better.
_FEWEST_TO_COMPARE = 100
# So large a share of the validation ratings may be among the training ratings.
_MOST_SHARED = 0.05
# Scores below this are all about 0, on data whose scores are about 1.
_NO_SCORE = 1e-4
# So large a share of the ratings may have come since the last fit. On MovieLens-1M by time, errors were then 0.1 %
# above those of a fit to all ratings; with half of the ratings 0.5 %.
_MOST_SINCE_FIT = 0.3
# A metric still improves if each of so many last epochs has made it better, and all together by such a share of it, and
# if their gains, continued for as many epochs again, come to as much. Rankings go up and down by more than errors.
_LAST_EPOCHS, _GAIN_OF_ERROR, _GAIN_OF_RANKING = 3, 0.01, 0.03
# A metric was clearly better before if the last epoch is worse than the best one by such a share of the
# largest value of all epochs.
_LOSS_OF_ERROR, _LOSS_OF_RANKING = 0.01, 0.1
# And if the loss is so many times the largest gain of one epoch: what goes up and down may go up again.
_LOSS_TO_GAIN = 2

_is_silent: ContextVar[bool] = ContextVar("_is_silent", default=False)


class Advised(Protocol):
    """What advice needs to know of a model."""

    n_factors: int
    n_epochs: int

    @property
    def backend(self) -> str:
        """Which kernels run."""

    @property
    def n_threads(self) -> int | None:
        """Number of threads; None: all cores."""

    @property
    def is_implicit(self) -> bool:
        """Whether ratings say only what was chosen."""

    @property
    def validation_metrics(self) -> tuple[str, ...]:
        """Metrics of the validation set; the first one selects the best epoch."""

    @property
    def fitted(self) -> Fitted:
        """The result of the fit."""

    @property
    def history(self) -> list[Record]:
        """A record for each epoch."""

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose factors were kept; None: the last."""


@contextmanager
def silent() -> Iterator[None]:
    """Give no advice on the fits of this thread until the block ends: they are trials, or repeat a fit."""
    token = _is_silent.set(True)
    try:
        yield
    finally:
        _is_silent.reset(token)


def advise_on_data(model: Advised, ratings: Interactions, validation: Interactions | None) -> None:
    """Warn of ratings that do not suit the model, before it is fitted.

    Parameters
    ----------
    model : Advised
        Not fitted.
    ratings : Interactions
        Ratings to train on.
    validation : Interactions or None
        Ratings to validate on.
    """
    if _is_silent.get() or ratings.n_ratings < _FEWEST_RATINGS:
        return
    for message in (_on_kind(model, ratings), _on_factors(model, ratings), _on_validation(ratings, validation)):
        if message:
            _warn(message)


def _on_kind(model: Advised, ratings: Interactions) -> str:
    """Say that a model of ratings is given events."""
    if model.is_implicit or not (kind := feedback_of(ratings)).is_implicit:
        return ""
    return (
        f"{kind.reason}: they look like events, and {type(model).__name__} learns to predict ratings. To learn what "
        "users choose, use ImplicitALS or BPR"
    )


def _on_factors(model: Advised, ratings: Interactions) -> str:
    """Say that somebody has set more factors than there are items or users; the default is nobody's mistake."""
    n_rows, row = min((ratings.n_items, "item"), (ratings.n_users, "user"))
    if model.n_factors <= n_rows or model.n_factors == type(model).n_factors:
        return ""
    rows = f"is 1 {row}" if n_rows == 1 else f"are {n_rows} {row}s"
    return (
        f"{named('n_factors')} is {model.n_factors}, and there {rows}: so many find nothing to tell apart. Lower it, "
        f"for example to {max(n_rows // 4, 1)}"
    )


def _on_validation(ratings: Interactions, validation: Interactions | None) -> str:
    """Say that pairs are in the training set and in the validation set."""
    n_shared = 0 if validation is None else _n_shared(ratings, validation)
    if validation is None or n_shared <= _MOST_SHARED * validation.n_ratings:
        return ""
    return (
        f"{n_shared:,} of {validation.n_ratings:,} validation ratings are training ratings, too: errors on them look "
        "too small, and rankings cannot find them. Take them out of the training ratings"
    )


def advise_on_fit(model: Advised, validation: Interactions | None) -> None:
    """Warn of a fit that has failed, ended too early or too late, or is no better than its baseline.

    Parameters
    ----------
    model : Advised
        Fitted.
    validation : Interactions or None
        What it was validated on.
    """
    fitted, history = model.fitted, model.history
    if _is_silent.get() or fitted.data["n_ratings"] < _FEWEST_RATINGS:
        return
    # The error of scores that are all 0 is the size of the ratings.
    scale = 1.0 if model.is_implicit else history[-1].get("train_rmse", 1.0)
    if collapsed(fitted, scale):
        _warn(
            f"all scores of this {type(model).__name__} are about 0: its factors have collapsed. Lower "
            f"{named('regularization')}"
        )
        return
    if len(history) == model.n_epochs and (gains := _last_gains(history, model.validation_metrics[0])):
        _warn(
            f"{gains} in epoch {len(history)}, the last one: it was still improving. Raise {named('n_epochs')}, and "
            f"set {named('patience')} to stop at the best epoch"
        )
    if validation is None:
        return
    if losses := _on_overfitting(model, validation):
        _warn(losses)
    if worse := _on_baseline(model, validation):
        _warn(worse)


def advise_on_share(fitted: Fitted, share: float) -> None:
    """Warn that so large a share of the ratings has come since the last fit of all rows that a new one is due."""
    if _is_silent.get() or fitted.data["n_ratings"] < _FEWEST_RATINGS or share <= _MOST_SINCE_FIT:
        return
    _warn(
        f"{share:.0%} of the ratings have come since the last fit, and only rows with new ratings were solved again: "
        "call fit with all ratings"
    )


def _on_baseline(model: Advised, validation: Interactions) -> str:
    """Say that the model is below its baseline by the metric that selects epochs."""
    metric = model.validation_metrics[0]
    record = kept_record(model.history, model.best_epoch)
    name = next(name for name in record if name.partition("@")[0] == f"validation_{metric}")
    if validation.n_ratings < _FEWEST_TO_COMPARE or record[name] is None:
        return ""
    k = int(name.partition("@")[2] or 1)
    results = {name.removeprefix("validation_"): record[name]}
    results |= baseline_metrics(model, validation, k=k, metrics=[metric])
    found = verdict(results, model.is_implicit)
    return "" if found is None else f"in validation, {found}. Try other hyper-parameters: fastmf.tune finds some"


def collapsed(fitted: Fitted, scale: float = 1.0) -> bool:
    """Tell whether all scores of a fitted model are about 0.

    Parameters
    ----------
    fitted : Fitted
    scale : float
        What scores should be like: 1 for preferences, the size of ratings for a model of ratings.

    Returns
    -------
    bool
        True if max ‖p‖ · max ‖q‖, which bounds |p·q|, is below ``scale`` / 10,000, and there are neither biases nor a
        mean. A model with biases has something to say without factors.

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.testing.low_rank(n_users=50, n_items=20, seed=0)
    >>> collapsed(fastmf.ALS(biases=False, n_epochs=5, regularization=1e6).fit(ratings).fitted)
    True
    """
    p, q, user_biases, item_biases, mean = fitted.factors
    if mean or user_biases.any() or item_biases.any():
        return False
    return _largest_norm(p) * _largest_norm(q) < _NO_SCORE * scale


def _largest_norm(factors: Float32Array) -> float:
    squares = np.einsum("nf,nf->n", factors, factors)
    return float(np.sqrt(squares.max(initial=0)))


def _n_shared(ratings: Interactions, held_out: Interactions) -> int:
    """Count the pairs of a validation set that are in the training set, too."""
    users, items = held_out.users, held_out.items
    if not (held_out.user_ids.equals(ratings.user_ids) and held_out.item_ids.equals(ratings.item_ids)):
        users = look_up(ratings.user_ids, held_out.user_ids, "user_ids")[users]
        items = look_up(ratings.item_ids, held_out.item_ids, "item_ids")[items]
    known = (users >= 0) & (items >= 0)
    return count_contained(Rows(*ratings.by_user[:2]), users[known], items[known], ratings.n_items)


def _last_gains(history: list[Record], metric: str) -> str:
    """Say how a validation metric has changed in the last epoch, if it still improves."""
    last = history[-_LAST_EPOCHS - 1 :]
    name = next((name for name in last[-1] if name.partition("@")[0] == f"validation_{metric}"), None)
    if name is None or len(last) <= _LAST_EPOCHS or any(record[name] is None for record in last):
        return ""
    values = [float(record[name]) for record in last]
    sign, least = (1, _GAIN_OF_RANKING) if METRICS[metric].higher_is_better else (-1, _GAIN_OF_ERROR)
    gains = [sign * (after - before) for before, after in itertools.pairwise(values)]
    if min(gains) <= 0 or best_record(history, metric) is not history[-1]:
        return ""
    # The mean ratio of a gain to the one before.
    ratio = min((gains[-1] / gains[0]) ** (1 / (len(gains) - 1)), 1.0)
    to_come = gains[-1] * sum(ratio**n for n in range(1, len(history) + 1))
    if min(sum(gains), to_come) < least * abs(values[-1]):
        return ""
    return f"{name} went from {values[-2]:.4g} to {values[-1]:.4g}"


def _on_overfitting(model: Advised, validation: Interactions) -> str:
    """Say that the metric that selects epochs was clearly better before the last epoch, whose factors were kept."""
    metric, history = model.validation_metrics[0], model.history
    best, n_epochs = best_record(history, metric), len(history)
    name = next(name for name in best if name.partition("@")[0] == f"validation_{metric}")
    values = [record[name] for record in history[best["epoch"] - 1 :]]
    if model.best_epoch is not None or validation.n_ratings < _FEWEST_TO_COMPARE or None in values:
        return ""
    sign, least = (-1, _LOSS_OF_RANKING) if METRICS[metric].higher_is_better else (1, _LOSS_OF_ERROR)
    losses = [sign * (after - before) for before, after in itertools.pairwise(values)]
    size = max(abs(record[name] or 0.0) for record in history)
    largest_gain = max((-loss for loss in losses), default=0.0)
    if sum(losses) < max(least * size, _LOSS_TO_GAIN * largest_gain, 1e-12):
        return ""
    if 2 * sum(loss > 0 for loss in losses) <= len(losses):
        return ""
    return (
        f"{name} was best after epoch {best['epoch']} of {n_epochs} ({values[0]:.4f}) and is {values[-1]:.4f} after "
        f"the last: it overfits. Set {named('patience')} to keep the best epoch, or lower {named('n_factors')}"
    )


def _warn(message: str) -> None:
    warnings.warn(QualityWarning(message), stacklevel=level_of_user())
