"""Training again on everything, once a validation set has told for how long."""

from typing import Any

from fastmf.errors import ParameterError
from fastmf.models.advice import silent
from fastmf.models.base import Model
from fastmf.models.training import Record, best_record


def best_validated(model: Model) -> Record:
    """Return the record of the epoch whose validation metric is best, whether or not its factors were kept.

    Raises
    ------
    ParameterError
        If the last fit had no validation set.
    """
    metric = model.validation_metrics[0]
    history = [record for record in model.history if not record.get("refit")]
    if not any(name.partition("@")[0] == f"validation_{metric}" for name in (history or [{}])[0]):
        raise ParameterError(
            "the model was not fitted with a validation set, which tells for how many epochs to train; call "
            "fit(ratings, validation=...) first"
        )
    return best_record(history, metric)


def refit(model: Model, ratings: Any) -> Model:
    """Train a copy of a model again: on all ratings, for as many epochs as were best on the validation set.

    Parameters
    ----------
    model : Model
        Fitted with a validation set, or a result of this function, or a model without epochs. It stays as it is.
    ratings : Interactions, table or SciPy sparse matrix
        All ratings: those that the model was trained on and those that it was validated on.

    Returns
    -------
    Model
        With ``n_epochs`` of the best epoch and without ``patience``. Parameters that are ``"auto"`` are chosen anew.
        Its `history` has the records of the fit before, and then its own, in which ``refit`` is True.

    Raises
    ------
    ParameterError
        If the model has epochs and was not fitted with a validation set.
    NotFittedError
        If the model was not fitted.
    DataError, DivergenceError, OutOfMemoryError
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
    params, _ = model.get_params(), model.fitted
    if "n_epochs" in params:
        params["n_epochs"] = int(best_validated(model)["epoch"])
    if "patience" in params:
        params["patience"] = None
    with silent():
        again = type(model)(**params).fit(ratings)
    records = [{**record, "refit": True} for record in again.history]
    again.restore(again.fitted, model.history + records)
    return again
