"""`tune`: the arguments of a search, and what is made of its result."""

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fastmf.common.files import expanded_path, naming
from fastmf.common.leftovers import aside_beside
from fastmf.common.parameters import require_choice, require_integer, require_number
from fastmf.errors import DivergenceError, ParameterError, named
from fastmf.keeping.model_directory import require_replaceable
from fastmf.models import FactorModel, Model
from fastmf.models.advice import advise_on_data, silent
from fastmf.models.training import describe
from fastmf.reading.parquet import PathLike
from fastmf.tuning.held_out import Parts, hold_out, is_share, require_telling
from fastmf.tuning.outcome import Tuned, changed_params
from fastmf.tuning.samplers import SAMPLERS, make_sampler
from fastmf.tuning.search import Plan, Search, best_trial
from fastmf.tuning.spaces import Space, as_space, with_params
from fastmf.tuning.training import Stop, Trainer, as_objective
from fastmf.tuning.trials import ROUND, Trial, TrialFile, to_table

_N_TRIALS = 3 * ROUND
_EPOCHS_TIMES = 3
# Of all epochs: without a better score for so long, a training ends.
_PATIENCE = 1 / 9
_CORES_A_TRAINING = 4
MODEL_FOLDER = "model"


def tune(
    model: Model | type[Model],
    ratings: Any,
    *,
    space: Mapping[str, Any] | None = None,
    validation: Any = 0.1,
    validation_by: str = "random",
    metric: str | None = None,
    n_trials: int | None = None,
    minutes: float | None = None,
    max_epochs: int | None = None,
    sampler: str = "local",
    seed: int = 0,
    output: PathLike | None = None,
    overwrite: bool = False,
    n_parallel: int | None = None,
    refit: bool = True,
) -> Tuned:
    """Search for good parameters of a model, and train it with them.

    Models with parameters out of a space are trained on a part of the ratings and compared on the rest, after every
    epoch: the number of epochs is found on the way. They are compared after a ninth, a third and all of the epochs, and
    a third of them goes on each time (successive halving: Jamieson, Talwalkar, AISTATS 2016). The first one is the
    model as given, so the result is at least as good on these ratings.

    Parameters
    ----------
    model : FactorModel or class
        What to tune. Parameters of an instance that are not at their defaults stay as they are, unless ``space`` has
        them. Only the number of epochs is always found anew: ``n_epochs`` is that of the first trial at least, and
        bounds the others by ``max_epochs``. The model says how to run, too: ``backend``, ``n_threads``, and ``verbose``
        to show progress.
    ratings : Interactions, table or SciPy sparse matrix
        As in `FactorModel.fit`.
    space : dict of str to range or list, optional
        What to try for each parameter: a list of values, or `Uniform`, `LogUniform`, `Integers` or `Multiple` of
        `fastmf.tuning`. None: `fastmf.tuning.default_space`.
    validation : float, Interactions, table or SciPy sparse matrix
        What models are compared on: a share of the ratings, or other ratings.
    validation_by : {"random", "user", "time", "last"}
        How a share is held out: by the function of `fastmf.split` `random`, `per_user`, `temporal`, or `leave_last_out`
        (the last rating of every user, whatever the share).
    metric : str, optional
        A name out of `fastmf.metrics.METRICS`, with a cut-off as in ``"recall@20"`` (10 if there is none). None: the
        first of the model's `validation_metrics`.
    n_trials : int, optional
        How many models to try, at least 1. None: 27, or with ``minutes`` as many as there is time for. Trials that
        ``output`` has already all count, also where this asks for fewer.
    minutes : float, optional
        After so long, the search ends with what it has found. The last training comes on top.
    max_epochs : int, optional
        Most epochs of a training, at least 1. None: 3 times the model's ``n_epochs``. A training also ends after a
        ninth of them without a better score, whatever the model's ``patience``.
    sampler : {"local", "random", "tpe"}
        How parameters are drawn: at random and, after nine trials, mostly near the best ones; at random; or by Optuna's
        tree-structured Parzen estimator, which needs ``pip install "fastmf[tune]"``.
    seed : int
        Seed of the split and of the parameters, at least 0. The model has a seed of its own. The same arguments give
        the same result, for any number of threads, unless ``minutes`` ends the search.
    output : path-like, optional
        Directory to keep trials in, as ``trials.parquet``, and the trained model, as ``model``. The same call goes on
        after a search that was interrupted, or that had fewer trials or less time.
    overwrite : bool
        Whether to start anew, without the trials and the model that are in that directory.
    n_parallel : int, optional
        Trainings side by side, each with its share of the threads. None: one for every four threads.
    refit : bool
        Whether to train the best model on all ratings, also those given for validation.

    Returns
    -------
    Tuned

    Raises
    ------
    ParameterError
        If a parameter, or a value of the space, makes no sense.
    DataError
        If the ratings do not suit the model, or cannot be divided; if no validation rating is of a user and an item
        that are in training; if the file of trials is damaged.
    DivergenceError
        If no model could be trained.
    OutputExistsError
        If ``output`` has the trials of another search, or something else.

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.testing.low_rank(n_users=60, n_items=30, density=0.5, seed=0)
    >>> space = {"n_factors": [2, 4], "regularization": fastmf.tuning.LogUniform(0.01, 1)}
    >>> tuned = fastmf.tune(fastmf.ALS(n_epochs=3), ratings, space=space, n_trials=4)
    >>> tuned.score <= tuned.default_score, tuned.model.user_factors.shape[0]
    (True, 60)
    """
    given = _as_model(model)
    _require_arguments(n_trials, minutes, max_epochs, sampler, seed)
    objective, parts = as_objective(metric, given), hold_out(ratings, validation, validation_by, seed)
    require_telling(parts.train, parts.validation)
    searched = as_space(given, space, parts.train)
    draws = make_sampler(sampler, given, searched, seed, objective.higher_is_better)
    n_epochs = _EPOCHS_TIMES * given.n_epochs if max_epochs is None else max_epochs
    n_side_by_side, n_threads = _share_threads(given, n_parallel)
    setting = {"sampler": sampler, "seed": seed, "max_epochs": n_epochs, "metric": str(objective)}
    setting |= _describe_held_out(validation, validation_by)
    known: dict[int, Trial] = {}
    with ExitStack() as stack:
        file = None
        if output is not None:
            file = TrialFile(output, setting | _describe(given, searched, parts), objective.higher_is_better)
            require_replaceable(_model_folder(output), overwrite=True)
            known = stack.enter_context(file.claimed(overwrite))
            if overwrite:
                _remove_model(output)
        advise_on_data(given, parts.train, parts.validation)
        stop = Stop(None if minutes is None else 60 * minutes)
        trainer = Trainer(given, parts, objective, n_epochs, math.ceil(_PATIENCE * n_epochs), n_threads, stop)
        if n_trials is None and minutes is None:
            n_trials = _N_TRIALS
        plan = Plan(searched, n_trials, n_side_by_side, given.verbose)
        trials = Search(trainer, draws, plan, known, file.save if file else _keep_nowhere).run()
        tuned = _outcome(trainer, trials)
        if refit:
            _refit(tuned, parts, output)
    return tuned


def _refit(tuned: Tuned, parts: Parts, output: PathLike | None) -> None:
    """Train the best model on everything, and save it; if that fails, the error says which model it was."""
    try:
        with silent():
            tuned.model.fit(parts.everything)
        if output is not None:
            tuned.model.save(_model_folder(output), overwrite=True)
    except BaseException as error:
        error.add_note(f"the best model was not saved; this trains it: {tuned.python}")
        raise


def _as_model(model: Any) -> FactorModel:
    made = model() if isinstance(model, type) and issubclass(model, FactorModel) else model
    if not isinstance(made, FactorModel):
        given = model.__name__ if isinstance(model, type) else f"a {type(model).__name__}"
        raise ParameterError(f"model is {given}; expected a model that is trained in epochs, or its class: fastmf.SGD")
    return made


def _require_arguments(n_trials: Any, minutes: Any, max_epochs: Any, sampler: Any, seed: Any) -> None:
    require_choice("sampler", sampler, SAMPLERS)
    require_integer("seed", seed, minimum=0)
    if n_trials is not None:
        require_integer("n_trials", n_trials, minimum=1)
    if minutes is not None:
        require_number("minutes", minutes, minimum=0, exclusive=True)
    if max_epochs is not None:
        require_integer("max_epochs", max_epochs, minimum=1)


def _share_threads(model: FactorModel, n_parallel: Any) -> tuple[int, int | None]:
    """Return how many trainings run side by side, and the threads of each."""
    from fastmf_kernels._jit import resolve_threads

    n_threads = resolve_threads(model.n_threads)
    if n_parallel is not None:
        require_integer("n_parallel", n_parallel, minimum=1)
    elif model.backend == "cpu":
        n_parallel = min(max(n_threads // _CORES_A_TRAINING, 1), ROUND)
    else:
        n_parallel = 1
    return n_parallel, model.n_threads if n_parallel == 1 else max(n_threads // n_parallel, 1)


def _describe(model: FactorModel, space: Space, parts: Parts) -> dict[str, Any]:
    """Return what tells a search from others, beside the settings of the search itself."""
    params = {name: value for name, value in model.get_params().items() if name not in ("n_threads", "verbose")}
    return {
        "model": type(model).__name__,
        "parameters": params,
        "space": {name: str(of_values) for name, of_values in space.items()},
        "ratings": describe(parts.train),
        "validation_ratings": describe(parts.validation),
    }


def _describe_held_out(validation: Any, by: str) -> dict[str, Any]:
    if not is_share(validation):
        return {"validation": "ratings of their own"}
    return {**({} if by == "last" else {"validation": validation}), "validation_by": by}


def _keep_nowhere(_: Sequence[Trial]) -> None:
    """Keep no trials."""


def _model_folder(output: PathLike) -> Path:
    return expanded_path(output) / MODEL_FOLDER


def _remove_model(output: PathLike) -> None:
    """Remove the model of another search, at once: nobody should find half of it."""
    folder = _model_folder(output)
    with naming(folder):
        if folder.exists():
            aside = aside_beside(folder)
            os.rename(folder, aside)
            shutil.rmtree(aside)


def _outcome(trainer: Trainer, trials: Sequence[Trial]) -> Tuned:
    """Return the best model, not fitted, and its score beside those of others."""
    given, objective = trainer.model, trainer.objective
    winner = best_trial(trials, objective.higher_is_better)
    best = winner and winner.best(objective.higher_is_better)
    if winner is None or best is None:
        raise DivergenceError(
            f"none of {len(trials)} trials has a score: trainings diverged, or {objective} is undefined on the "
            f"validation part; change {named('space')}, or {named('metric')}"
        )
    model = with_params(given, {**winner.changes, "n_epochs": best.epoch, "patience": None})
    return Tuned(
        model,
        changed_params(model),
        str(objective),
        best.score,
        _default_score(trainer, trials[0]),
        _baseline_score(trainer),
        to_table(trials, objective.higher_is_better),
    )


def _default_score(trainer: Trainer, first: Trial) -> float | None:
    """Return the score of the model as given, after as many epochs as it was given; None if it did not get so far."""
    scores = first.scores[: trainer.model.n_epochs]
    if len(scores) < trainer.model.n_epochs:
        return None
    if trainer.model.patience is not None:
        best = first.best(trainer.objective.higher_is_better, trainer.model.n_epochs)
        return None if best is None else best.score
    return None if math.isnan(scores[-1]) else scores[-1]


def _baseline_score(trainer: Trainer) -> float | None:
    baseline = trainer.model.baseline_model().set_params(verbose=False).fit(trainer.parts.train)
    score = trainer.objective.score(baseline, trainer.parts.validation)
    return None if math.isnan(score) else score
