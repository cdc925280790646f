"""Training a model of a trial, with its score after every epoch."""

import math
import re
import threading
import time
from typing import Any, NamedTuple

from fastmf.errors import DivergenceError, ParameterError, named
from fastmf.measuring.evaluation import evaluate
from fastmf.measuring.metrics import METRICS
from fastmf.models import FactorModel
from fastmf.models.advice import silent
from fastmf.reading.interactions import Interactions
from fastmf.tuning.held_out import Parts
from fastmf.tuning.spaces import with_params
from fastmf.tuning.trials import DIVERGED, FINISHED, OPEN, Trial

_K = 10


class Objective(NamedTuple):
    """What a search improves: a metric, with its cut-off if it has one.

    Attributes
    ----------
    metric : str
    k : int
    higher_is_better : bool
    """

    metric: str
    k: int
    higher_is_better: bool

    def __str__(self) -> str:
        return f"{self.metric}@{self.k}" if METRICS[self.metric].has_cut_off else self.metric

    def score(self, model: Any, validation: Interactions) -> float:
        """Return the metric of a fitted model; NaN if it is undefined."""
        k = min(self.k, model.fitted.n_items)
        found = evaluate(model, validation, k=k, metrics=[self.metric])
        value = next(value for name, value in found.items() if name.partition("@")[0] == self.metric)
        return math.nan if value is None else float(value)

    def is_better(self, score: float, other: float) -> bool:
        """Whether a score is better than another one; any is better than NaN."""
        if math.isnan(score) or math.isnan(other):
            return math.isnan(other) and not math.isnan(score)
        return score > other if self.higher_is_better else score < other


def as_objective(metric: str | None, model: FactorModel) -> Objective:
    """Return the metric of this name, such as ``"rmse"`` or ``"recall@20"``; by default the first of the model.

    Raises
    ------
    ParameterError
        If there is no such metric.
    """
    given = model.validation_metrics[0] if metric is None else metric
    parts = re.fullmatch(r"(\w+)(?:@(\d+))?", given) if isinstance(given, str) else None
    if parts is None or parts[1] not in METRICS:
        raise ParameterError(f"{named('metric')} is {given!r}; expected one of {', '.join(METRICS)}, or as ndcg@20")
    found, k = METRICS[parts[1]], int(parts[2] or _K)
    if parts[2] is not None and not found.has_cut_off:
        raise ParameterError(f"{named('metric')} is {given!r}; {found.name} looks at all items: leave @{k} out")
    if k < 1:
        raise ParameterError(f"{named('metric')} is {given!r}; expected a cut-off of at least 1 after the @")
    return Objective(found.name, k, found.higher_is_better)


class Stop:
    """Whether all trainings should end: somebody asked for it, or the time is up.

    Parameters
    ----------
    seconds : float or None
        How long there is time; None: as long as it takes.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds, self._event, self._started = seconds, threading.Event(), time.monotonic()

    def now(self) -> None:
        """Ask trainings to end after their epoch."""
        self._event.set()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    @property
    def is_due(self) -> bool:
        """Whether there is no time for more."""
        return self._event.is_set() or (self.seconds is not None and self.elapsed >= self.seconds)


class Trainer(NamedTuple):
    """Trains the models of trials, from the start: what is kept of a trial are its scores.

    Attributes
    ----------
    model : FactorModel
        As given.
    parts : Parts
    objective : Objective
    max_epochs : int
    patience : int
        A training ends after so many epochs without a better score.
    n_threads : int or None
    stop : Stop
    """

    model: FactorModel
    parts: Parts
    objective: Objective
    max_epochs: int
    patience: int
    n_threads: int | None
    stop: Stop

    def advance(self, trial: Trial, n_epochs: int, patient_until: int = 0) -> Trial:
        """Return the trial after ``n_epochs`` epochs, or fewer if it is over before.

        Epochs that were scored before are run again, and not evaluated again. Without a better score, the training goes
        on up to the epoch ``patient_until`` at least.
        """
        watch, state, started = _Watch(self, trial.scores, patient_until), OPEN, time.perf_counter()
        run = {"n_epochs": n_epochs, "patience": None, "n_threads": self.n_threads, "verbose": False}
        try:
            with silent():
                with_params(self.model, {**trial.changes, **run}).fit(self.parts.train, callbacks=[watch])
        except DivergenceError:
            state = DIVERGED
        if state == OPEN and (watch.is_stuck or len(watch.scores) == self.max_epochs):
            state = FINISHED
        scores = max(tuple(watch.scores), trial.scores, key=len)
        return trial._replace(scores=scores, seconds=trial.seconds + time.perf_counter() - started, state=state)


class _Watch:
    """A callback that scores the model after each epoch, and ends a training that is of no more use."""

    def __init__(self, trainer: Trainer, known: tuple[float, ...], patient_until: int) -> None:
        self._trainer, self._known, self._patient_until = trainer, known, patient_until
        self._best, self._best_epoch = math.nan, 0
        self.scores: list[float] = []
        self.is_stuck = False

    def __call__(self, model: FactorModel, record: dict[str, Any]) -> bool:
        if record["epoch"] == 1 and self.scores:  # a fit that diverged has begun again, with a smaller step size
            self.scores, self._known, self._best, self._best_epoch = [], (), math.nan, 0
        epoch, objective = len(self.scores) + 1, self._trainer.objective
        if epoch <= len(self._known):
            self.scores.append(self._known[epoch - 1])
        else:
            self.scores.append(objective.score(model, self._trainer.parts.validation))
        if objective.is_better(self.scores[-1], self._best):
            self._best, self._best_epoch = self.scores[-1], epoch
        self.is_stuck = epoch >= self._patient_until and epoch - self._best_epoch >= self._trainer.patience
        return self.is_stuck or self._trainer.stop.is_due
