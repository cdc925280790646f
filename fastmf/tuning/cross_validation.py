"""Cross-validation: a model measured on every part of the ratings, each time trained on the rest."""

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from fastmf.errors import ParameterError, named
from fastmf.measuring.evaluation import evaluate
from fastmf.models import Model
from fastmf.models.training import as_training_part
from fastmf.reading.split import Split, k_fold


class CrossValidation(NamedTuple):
    """The metrics of a model on the parts of the ratings.

    Attributes
    ----------
    folds : pyarrow.Table
        A row for each fold: ``fold``, the metrics, and ``fit_seconds`` and ``evaluate_seconds``.
    mean, deviation : dict of str to float
        Mean over the folds of each metric and time, and standard deviation (with n - 1) over them; NaN where a metric
        is undefined in some fold.
    """

    folds: pa.Table
    mean: dict[str, float]
    deviation: dict[str, float]


def cross_validate(
    model: Model | type[Model],
    ratings: Any,
    *,
    n_folds: int = 5,
    metrics: Iterable[str] | None = None,
    k: int | Sequence[int] = 10,
    seed: int = 0,
    splits: Iterable[Split] | None = None,
) -> CrossValidation:
    """Measure a model on each of some parts of the ratings, trained on the others.

    Parameters
    ----------
    model : Model or class
        It is not changed: each fold trains a new one with its parameters.
    ratings : Interactions, table or SciPy sparse matrix
    n_folds : int
        Parts of equal size, cut at random, at least 2.
    metrics : sequence of str, optional
        Names out of `fastmf.metrics.METRICS`. None: the model's `validation_metrics`.
    k : int or sequence of int
        Cut-offs of the ranking metrics.
    seed : int
        Seed of the parts.
    splits : iterable of (train, test), optional
        These in place of random parts; ``ratings`` may be None then.

    Returns
    -------
    CrossValidation

    Raises
    ------
    ParameterError
        If a parameter makes no sense.
    DataError
        If there are fewer ratings than folds, or they do not suit the model.

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.testing.low_rank(n_users=60, n_items=30, density=0.5, seed=0)
    >>> found = fastmf.cross_validate(fastmf.ALS(n_factors=4, n_epochs=3), ratings, n_folds=3)
    >>> found.folds.column_names
    ['fold', 'rmse', 'fit_seconds', 'evaluate_seconds']
    >>> found.mean["rmse"] < 1
    True
    """
    given = model() if isinstance(model, type) else model
    if not isinstance(given, Model):
        raise ParameterError(f"{named('model')} is a {type(model).__name__}; expected a model of fastmf, or its class")
    names = given.validation_metrics if metrics is None else metrics
    measured = (names,) if isinstance(names, str) else tuple(names)
    if (patience := getattr(given, "patience", None)) is not None:
        raise ParameterError(
            f"{named('patience')} is {patience}, and a fold has no ratings to stop by; set it to None, and n_epochs to "
            "the epochs that are best in validation (fastmf.tune finds them)"
        )
    parts = k_fold(as_training_part(ratings), n_folds, seed) if splits is None else splits
    rows = [_measure(given, *_as_pair(part), measured, k) for part in parts]
    if not rows:
        raise ParameterError(f"{named('splits')} is empty; expected pairs of ratings to train and to test on")
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    values = {name: np.array(column, np.float64) for name, column in columns.items()}  # None becomes NaN
    folds = {"fold": pa.array(range(len(rows)), pa.int32())}
    return CrossValidation(
        pa.table(folds | {name: pa.array(column, pa.float64()) for name, column in columns.items()}),
        {name: float(column.mean()) for name, column in values.items()},
        {name: float(column.std(ddof=1)) if len(rows) > 1 else np.nan for name, column in values.items()},
    )


def _as_pair(part: Any) -> tuple[Any, Any]:
    is_sequence = isinstance(part, (tuple, list))
    if not is_sequence or len(part) != 2:
        length = f" and length {len(part)}" if is_sequence else ""
        raise ParameterError(
            f"{named('splits')} has something of type {type(part).__name__}{length}; expected pairs of ratings to "
            "train and to test on"
        )
    return part[0], part[1]


def _measure(
    model: Model, train: Any, test: Any, metrics: tuple[str, ...], k: int | Sequence[int]
) -> dict[str, float | None]:
    started = time.perf_counter()
    fitted = type(model)(**model.get_params()).fit(train)
    fit_seconds = time.perf_counter() - started
    started = time.perf_counter()
    found = evaluate(fitted, test, k=k, metrics=metrics)
    metrics_alone = {name: value for name, value in found.items() if not name.startswith("n_")}
    return {**metrics_alone, "fit_seconds": fit_seconds, "evaluate_seconds": time.perf_counter() - started}
