"""The parts of a training run that all models share."""

import math
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fastmf.answering.fitted import Fitted
from fastmf.answering.side_features import SideFeatures
from fastmf.errors import DataError, DivergenceError, ParameterError, named
from fastmf.measuring.baseline import ITEM_BASELINE
from fastmf.measuring.metrics import METRICS
from fastmf.models.hyper_parameters import Chosen
from fastmf.models.units import deviation_of
from fastmf.reading.interactions import Interactions, as_interactions
from fastmf.reading.times import range_in_words
from fastmf_kernels._memory import in_huge_pages
from fastmf_kernels._types import Float32Array
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.topk.arrays import Rows

Record = dict[str, Any]
# Called after every epoch as callback(model, record); training ends when it returns a true value.
Callback = Callable[[Any, Record], object]


class TrainerState(NamedTuple):
    """Everything that the epochs of a trainer change.

    Attributes
    ----------
    arrays : dict of str to float32 or float64 array
        The arrays themselves, as the trainer holds them on the host.
    numbers : dict
        Finite numbers, truth values, None, and dicts of them.
    """

    arrays: dict[str, npt.NDArray[Any]]
    numbers: dict[str, Any]


class Resumable(Protocol):
    """A training that can be interrupted after an epoch, and go on in another process with the same bits."""

    def checkpoint(self) -> TrainerState:
        """Return the state after the last epoch, copied from the device if there is one."""

    def resume(self, numbers: dict[str, Any]) -> None:
        """Go on from a state whose arrays were written to those of `checkpoint`.

        Raises
        ------
        KeyError, TypeError, ValueError
            If the numbers are not those of such a state.
        """


class Trainer(Resumable, Protocol):
    """One run of training, which improves the factors epoch by epoch, in place.

    ``state`` holds what a continued fit needs beside the factors: float32 arrays with a row for each user or item.
    Their names start with ``user_`` or ``item_``.
    """

    factors: Factors
    link: Link
    state: dict[str, Float32Array]

    def run_epoch(self) -> Record:
        """Go over the data once, and return the training metrics of the epoch."""

    def to_host(self) -> None:
        """Copy the factors and the state from the device, where kernels have changed them; a no-op on the CPU."""

    def from_host(self) -> None:
        """Begin at the factors and the state as they are on the host, where somebody has changed them."""


class Prepared(NamedTuple):
    """What a fit begins with.

    Attributes
    ----------
    trainer : Trainer
    chosen : dict
        What was chosen for parameters that were ``"auto"``.
    features : dict of str to SideFeatures
        What is known of all users and items beside their ratings; it shares what the trainer changes.
    """

    trainer: Trainer
    chosen: Chosen
    features: dict[str, SideFeatures]


def as_training_part(ratings: Any, y: object = None) -> Interactions:
    """Return ratings to train on.

    Raises
    ------
    ParameterError
        If ``y`` is given: ratings are not apart from their pairs.
    DataError
        If there are none.
    """
    if y is not None:
        raise ParameterError(
            "got pairs and ratings apart; fastmf.sklearn.RatingRegressor takes them so, or put the ratings into a "
            "column of the table"
        )
    interactions = as_interactions(ratings, "ratings")
    if interactions.n_ratings == 0:
        raise DataError("there are no ratings to train on; expected at least one")
    return interactions


def require_chosen(ratings: Interactions) -> None:
    """Check that some ratings say what was chosen.

    Raises
    ------
    DataError
        If none is above 0.
    """
    if not (ratings.ratings > 0).any():
        raise DataError(
            f"none of {ratings.n_ratings} ratings is above 0, the largest is {ratings.ratings.max():g}; an implicit "
            "model learns from what was chosen: expected some ratings above 0, or a model of ratings (ALS, SGD, SVDpp)"
        )


def popularity_state(ratings: Interactions, before: dict[str, Float32Array] | None = None) -> dict[str, Float32Array]:
    """Return what an implicit model keeps of its baseline: the number of ratings above 0 of each item.

    Parameters
    ----------
    ratings : Interactions
    before : dict of str to array, optional
        The state of a model that goes on with these ratings; if it has kept nothing, nothing is added.

    Returns
    -------
    dict of str to float32 array
        A part of `Trainer.state`.
    """
    counts = np.bincount(ratings.items, ratings.ratings > 0, ratings.n_items)
    if before is None:
        return {ITEM_BASELINE: counts.astype(np.float32)}
    return {name: (before[name] + counts).astype(np.float32) for name in (ITEM_BASELINE,) if name in before}


def as_held_out_part(validation: Any, patience: int | None) -> Interactions | None:
    """Return the validation ratings, or None if there are none.

    Raises
    ------
    ParameterError
        If there are none, and ``patience`` needs some.
    """
    if validation is not None:
        return as_interactions(validation, "validation")
    if patience is not None:
        raise ParameterError(
            f"{named('patience')} is {patience} but there is no validation set; pass {named('validation')}=..."
        )
    return None


def best_record(history: list[Record], metric: str) -> Record:
    """Return the record with the best value of a validation metric; of equal ones the earliest."""
    name = next(name for name in history[0] if name.partition("@")[0] == f"validation_{metric}")
    best = max if METRICS[metric].higher_is_better else min
    defined = [record for record in history if record[name] is not None]
    return best(defined or history[:1], key=lambda record: record[name])


def kept_record(history: list[Record], best_epoch: int | None) -> Record:
    """Return the record of the epoch whose factors a fit has kept: the best one, or the last."""
    return history[-1 if best_epoch is None else best_epoch - 1]


def first_factors(shape: tuple[int, int], scale: float, rng: np.random.Generator) -> Float32Array:
    """Draw normal factors with standard deviation scale / √n_factors: the size of p·q then depends on scale only."""
    factors = rng.standard_normal(shape, dtype=np.float32)
    factors *= np.float32(scale / np.sqrt(shape[1]))
    return in_huge_pages(factors, shape[1])


def finite_number(value: Any) -> float:
    """Return a number of a `TrainerState`.

    Raises
    ------
    ValueError
        If it is none, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def first_state(name: str, shape: tuple[int, ...]) -> Float32Array:
    """Return what a state has of new rows: accumulators start at 1 (`fastmf_kernels.sgd.arrays`), all else at 0."""
    return np.full(shape, 1 if name.endswith("squares") else 0, np.float32)


def in_one_line(record: Record, left_out: tuple[str, ...] = ()) -> str:
    """Write the metrics of an epoch as progress shows them."""
    shown = [name for name in record if name not in ("epoch", "seconds", *left_out)]
    shown += [name for name in ("seconds",) if name not in left_out]
    return ", ".join(f"{name} " + ("undefined" if record[name] is None else f"{record[name]:.4g}") for name in shown)


def in_narrower_lines(record: Record) -> list[str]:
    """Write the metrics of an epoch for terminals that are too narrow for all of them, the longest line first.

    Examples
    --------
    >>> in_narrower_lines({"epoch": 1, "train_rmse": 0.7, "objective": 12.5, "seconds": 0.25, "validation_rmse": 0.9})
    ['train_rmse 0.7, validation_rmse 0.9, seconds 0.25', 'train_rmse 0.7, validation_rmse 0.9', 'validation_rmse 0.9']
    """
    lines = [in_one_line(record, left_out) for left_out in (("objective",), ("objective", "seconds"))]
    others = tuple(name for name in record if not name.startswith("validation_"))
    return lines if len(others) == len(record) else [*lines, in_one_line(record, others)]


def diverged(epoch: int, reason: str) -> DivergenceError:
    """Return the error of a training run that has diverged in an epoch."""
    return DivergenceError(f"training diverged in epoch {epoch}: {reason}")


def make_fitted(
    trainer: Trainer,
    ratings: Interactions,
    trained_with: dict[str, Any],
    features: dict[str, SideFeatures] | None = None,
) -> Fitted:
    """Return the fitted state of a model; it shares the arrays of the trainer, which changes them."""
    indptr, indices, values = ratings.by_user
    return Fitted(
        trainer.factors,
        trainer.link,
        ratings.user_ids,
        ratings.item_ids,
        Rows(indptr, indices),
        describe(ratings),
        trainer.state,
        trained_with,
        values=values,
        features=features or {},
    )


def describe(ratings: Interactions) -> dict[str, Any]:
    """Return counts, mean, times and checksum of a data set, which tell it from others in a manifest."""
    fingerprint = 0
    for array in ratings.by_user:
        fingerprint = zlib.crc32(array.view(np.uint8).data, fingerprint)
    times = None if ratings.timestamps is None else range_in_words(ratings.timestamps, ratings.timestamp_type)
    return {
        "n_users": ratings.n_users,
        "n_items": ratings.n_items,
        "n_ratings": ratings.n_ratings,
        "mean": float(ratings.ratings.mean(dtype=np.float64)),
        "deviation": deviation_of(ratings),
        "fingerprint": f"crc32:{fingerprint:08x}",
        **({} if times is None else {"times": times}),
    }
