"""Loading a model directory: finds the class of the model and restores it."""

import dataclasses
from typing import Any

from fastmf.common.work_log import LOG
from fastmf.errors import ModelError
from fastmf.keeping.model_directory import Stored, inspect, read
from fastmf.keeping.regular_files import damaged
from fastmf.models import MODELS
from fastmf.models.base import Model
from fastmf.models.folding import OBJECTIVE, objective_of
from fastmf.reading.parquet import PathLike


def load(path: PathLike, *, verify: bool = False) -> Model:
    """Read a model directory.

    Factors are mapped into memory, not read: loading takes milliseconds whatever the size, and processes share one
    copy. A change of a mapped array stays in this process; it never reaches the file. A model may be saved at the same
    path while it is loaded: the result is the old model or the new one. But files that somebody else shortens in place
    while they are mapped end the process with the signal SIGBUS: replace a model by `save`, or by renaming.

    Factors that are stored as float16 become float32 at their first use: this process then has its own copy of them.

    Nothing in a directory can run code, and nothing is allocated because a file claims to be large.

    Parameters
    ----------
    path : path-like
        What `save` wrote.
    verify : bool
        Whether to compare everything with the manifest, too: every byte with its checksum, all ids, indices and
        numbers, links that lead out of the directory, and files that are not of a model. This reads the files whole.

    Returns
    -------
    Model
        Of the class that was saved.

    Raises
    ------
    ModelError
        If the directory is not a model, is incomplete or damaged, or of a newer format.

    Examples
    --------
    >>> import fastmf
    >>> model = fastmf.load("model/")  # doctest: +SKIP
    """
    stored = read(path, verify)
    try:
        model = MODELS[stored.model](**stored.parameters)
        _require_parameters(model, stored.fitted.trained_with)
        _require_equal_terms(model, stored)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise damaged(path, error) from error
    fitted = stored.fitted
    if model.fixed_parameters and not fitted.trained_with:  # saved by a version that did not write them
        fitted = dataclasses.replace(fitted, trained_with=model.fixed_params())
    model.restore(fitted, stored.history)
    try:
        _ = model.best_epoch  # it is read off the history
    except (LookupError, TypeError, ValueError, StopIteration) as error:
        patience = fitted.trained_with.get("patience", stored.parameters.get("patience"))
        raise damaged(path, f"its history lacks what patience={patience!r} needs") from error
    sizes = type(model).__name__, fitted.n_users, fitted.n_items
    LOG.info("loaded %s of %d users and %d items from %s", *sizes, path)
    return model


def _require_parameters(model: Model, trained_with: dict[str, Any]) -> None:
    """Check that what a fit has kept of its parameters are parameters of the model, with values that it takes.

    Numbers that were not finite are None, and are not looked at.

    Raises
    ------
    KeyError, TypeError, ValueError, AttributeError, ArithmeticError
    """
    names = model.get_params().keys()
    kept: dict[str, Any] = {name: value for name, value in trained_with.items() if name in names}
    for values in (kept, trained_with.get("chosen", {}), trained_with.get(OBJECTIVE, {})):
        if unknown := [name for name in values if name not in names]:
            raise ValueError(f"trained_with has {unknown[0]!r:.80}, which is no parameter of {type(model).__name__}")
        for name, value in values.items():
            if value is not None:
                type(model)(**{name: tuple(value) if isinstance(value, list) else value})


def _require_equal_terms(model: Model, stored: Stored) -> None:
    """Check that the maps of features have a column of the bias if, and only if, rows are solved with biases.

    Raises
    ------
    ValueError
    """
    names = getattr(model, "objective_parameters", ())
    has_biases = bool(objective_of(stored.fitted, model.get_params(), names).get("biases"))
    if stored.maps_have_biases not in (None, has_biases):
        raise ValueError(
            f"the maps of features are of a fit with biases: {stored.maps_have_biases}, "
            f"and its objective says {has_biases}"
        )


def find_damage(path: PathLike) -> list[str]:
    """Compare everything in a model directory with its manifest, as ``load(path, verify=True)`` does.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    list of str
        A message for each damaged file; empty if there is none.
    """
    if problems := inspect(path):
        return problems
    try:
        load(path)
    except ModelError as error:
        return [str(error)]
    return []
