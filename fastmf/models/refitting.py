"""Training again on everything, once a validation set has told for how long."""

from collections.abc import Iterable
from typing import Any

from fastmf.errors import ParameterError, named
from fastmf.models.advice import silent
from fastmf.models.base import Model
from fastmf.models.training import Callback, Record, best_record
from fastmf.reading.parquet import PathLike


def best_validated(model: Model) -> Record:
    """Return the record of the epoch whose validation metric is best, whether or not its factors were kept.

    Raises
    ------
    ParameterError
        If the last fit had no validation set.
    """
    metric, history = model.validation_metrics[0], _validated(model)
    if not history:
        raise ParameterError(
            "the model was not fitted with a validation set, which tells for how many epochs to train; call "
            "fit(ratings, validation=...) first"
        )
    return best_record(history, metric)


def _validated(model: Model) -> list[Record]:
    """Return the records of the last fit with a validation set; empty if it had none."""
    name = f"validation_{model.validation_metrics[0]}"
    history = [record for record in model.history if not (record.get("refit") or record.get("partial"))]
    return history if any(key.partition("@")[0] == name for key in (history or [{}])[0]) else []


def refit(
    model: Model,
    ratings: Any,
    *,
    callbacks: Iterable[Callback] = (),
    checkpoint: PathLike | None = None,
    checkpoint_every: int = 1,
    start: Model | None = None,
    item_features: Any = None,
    user_features: Any = None,
) -> Model:
    """Train a copy of a model again: on all ratings, for as many epochs as were best on the validation set.

    Parameters
    ----------
    model : Model
        Fitted. It stays as it is.
    ratings : Interactions, table or SciPy sparse matrix
        All ratings: those that the model was trained on and those that it was validated on.
    callbacks, checkpoint, checkpoint_every
        As in `fit`. The directory is another one than that of the fit before.
    start : Model, optional
        As in `fit`. Give what the fit before began at: its number of epochs was best from there on.
    item_features, user_features : Features or table, optional
        As in `fit`: those that the fit before had, and no others.

    Returns
    -------
    Model
        With ``n_epochs`` of the best epoch, if there was a validation set, and without ``patience``. Parameters that
        are ``"auto"`` are chosen anew. Its `history` has the records of the fit before, and then its own, in which
        ``refit`` is True.

    Raises
    ------
    NotFittedError
        If the model was not fitted.
    ParameterError
        If the fit before had features that are not given now, or none where some are given; and as `fit`.
    DataError, DivergenceError, OutOfMemoryError, ModelError, OutputError
        As `fit`.

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.testing.low_rank(n_users=50, n_items=20, density=0.5, seed=0)
    >>> train, validation = fastmf.split.random(ratings, test_fraction=0.2)
    >>> model = fastmf.ALS(n_factors=4, n_epochs=20, patience=2).fit(train, validation=validation)
    >>> final = fastmf.refit(model, ratings)
    >>> final.n_epochs == model.best_epoch
    True
    """
    params, known = model.get_params(), model.fitted.features
    given = {"item_features": item_features, "user_features": user_features}
    features = {name: of_side for name, of_side in given.items() if of_side is not None}
    for name in given:
        had_some = name.removesuffix("_features") in known
        if had_some and name not in features:
            raise ParameterError(f"the model was trained with {named(name)}, and there are none now; pass them, too")
        if name in features and not had_some:
            raise ParameterError(
                f"{named(name)} are given, but the model was trained without; leave them out, or fit it with them first"
            )
    if "patience" in params:  # a baseline has none, and runs as many sweeps as it needs
        params["patience"] = None
        if _validated(model):
            params["n_epochs"] = int(best_validated(model)["epoch"])
    with silent():
        again = type(model)(**params)
        checkpoints: dict[str, Any] = {"checkpoint": checkpoint, "checkpoint_every": checkpoint_every}
        again.fit(ratings, callbacks=callbacks, start=start, **checkpoints, **features)
    records = [{**record, "refit": True} for record in again.history]
    again.restore(again.fitted, model.history + records)
    return again
