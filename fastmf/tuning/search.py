"""Successive halving: many models for a few epochs, the best third of them for more."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import NamedTuple

from fastmf.common.progress import Progress
from fastmf.tuning.samplers import Sampler
from fastmf.tuning.spaces import Space, changes_at, with_params
from fastmf.tuning.training import Trainer
from fastmf.tuning.trials import OPEN, ROUND, STOPPED, Trial, has_same_values

_THIRD = 3


class Plan(NamedTuple):
    """How much a search does.

    Attributes
    ----------
    space : Space
    n_trials : int or None
        None: as many as there is time for.
    n_parallel : int
        Trainings side by side.
    shown : bool
        Whether to show progress.
    """

    space: Space
    n_trials: int | None
    n_parallel: int
    shown: bool


class Search:
    """A search for the best trial, in rounds.

    The trials of a round run a ninth of the epochs. A third of them goes on to a third of the epochs, and a third of
    these to all: those that are among the best third of all trials, of any round, that have come so far (successive
    halving: Jamieson, Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS
    2016; rounds as in Li, Jamieson, DeSalvo, Rostamizadeh, Talwalkar, "Hyperband", JMLR 18, 2018). The first trial, the
    model as given, always goes on. A trial that goes on is trained from the start, so nothing is kept but scores; this
    is half as much work again as to keep all models.

    What is done next depends on scores only, not on when they come in. So a search that was interrupted is run again,
    with the scores that are known in place of trainings. What is known counts, also where there is time or leave for
    fewer trials.

    Parameters
    ----------
    trainer : Trainer
    sampler : Sampler
    plan : Plan
    known : dict of int to Trial
        Trials of an interrupted search.
    save : callable
        Called with all trials after every training.
    """

    def __init__(
        self,
        trainer: Trainer,
        sampler: Sampler,
        plan: Plan,
        known: dict[int, Trial],
        save: Callable[[Sequence[Trial]], None],
    ) -> None:
        self._trainer, self._sampler, self._plan, self._known, self._save = trainer, sampler, plan, known, save
        self._trials: dict[int, Trial] = {}
        # By number of epochs, the best scores of the trials that have come so far.
        self._at_rung: dict[int, list[float]] = {n_epochs: [] for n_epochs in rungs(trainer.max_epochs)}

    @property
    def trials(self) -> list[Trial]:
        """All trials that were trained, in the order of their numbers."""
        return [trial for _, trial in sorted(self._trials.items()) if trial.scores or trial.state != OPEN]

    def _keep(self) -> None:
        """Save all trials, also those that an interrupted search knows and this one has not come to."""
        trials = {**self._known, **{trial.number: trial for trial in self.trials}}
        self._save([trial for _, trial in sorted(trials.items())])

    def run(self) -> list[Trial]:
        """Run the search to its end, or to that of its time, but not before it has come to all that is known."""
        with _Report(self._trainer, self._plan) as report:
            for numbers in self._rounds():
                proposed = self._sampler.propose(numbers[0])
                trials = [self._make_trial(number, shares) for number, shares in zip(numbers, proposed, strict=False)]
                self._trials |= {trial.number: trial for trial in trials}
                if not self._run_round(numbers, report) or (self._trainer.stop.is_due and not self._known):
                    break
                self._sampler.learn([self._trials[number] for number in numbers])
        return self.trials

    def _rounds(self) -> Iterator[range]:
        n_trials = self._plan.n_trials
        if n_trials is not None:
            n_trials = max(n_trials, *(number + 1 for number in self._known), 1)
        for first in itertools.count(0, ROUND):
            end = first + ROUND if n_trials is None else min(first + ROUND, n_trials)
            if first >= end:
                return
            yield range(first, end)

    def _make_trial(self, number: int, shares: dict[str, float]) -> Trial:
        model, space, train = self._trainer.model, self._plan.space, self._trainer.parts.train
        # The first one is the model as given.
        changes = changes_at(model, space, shares, train) if number else {}
        numbers = with_params(model, changes).with_numbers(train)
        return Trial(number, changes, {name: getattr(numbers, name) for name in space})

    def _run_round(self, numbers: range, report: "_Report") -> bool:
        """Run a round, and return whether there was time for all of it."""
        going = list(numbers)
        for n_epochs, scores in self._at_rung.items():
            self._train(going, n_epochs, report)
            if any(self._is_due(self._trials[number], n_epochs) for number in going):
                return False
            best = {number: self._score(number, n_epochs) for number in going}
            scores += best.values()
            going = [number for number in going if number == 0 or self._is_among_the_best(best[number], scores)]
            for number in best.keys() - set(going):
                if self._trials[number].state == OPEN:
                    self._trials[number] = self._trials[number]._replace(state=STOPPED)
            report.n_over += len(best) - len(going)
        report.n_over += len(going)
        self._keep()
        report.show(None, self.trials)
        return True

    def _score(self, number: int, n_epochs: int) -> float:
        best = self._trials[number].best(self._trainer.objective.higher_is_better, n_epochs)
        return math.nan if best is None else best.score

    def _is_among_the_best(self, score: float, scores: list[float]) -> bool:
        n_better = sum(self._trainer.objective.is_better(other, score) for other in scores)
        return not math.isnan(score) and n_better < max(len(scores) // _THIRD, 1)

    def _train(self, numbers: Sequence[int], n_epochs: int, report: "_Report") -> None:
        """Train trials up to an epoch, several side by side, but for those that have come so far."""
        for number in numbers:
            self._recall(number)
        due = [number for number in numbers if self._is_due(self._trials[number], n_epochs)]
        n_workers = min(self._plan.n_parallel, len(due))
        if n_workers <= 1:
            for number in due:
                self._take(self._advance_in_time(self._trials[number], n_epochs), report)
            return
        with ThreadPoolExecutor(n_workers) as pool:
            try:
                trainings = [pool.submit(self._advance_in_time, self._trials[number], n_epochs) for number in due]
                for training in as_completed(trainings):
                    self._take(training.result(), report)
            except BaseException:
                self._trainer.stop.now()
                pool.shutdown(cancel_futures=True)
                raise

    def _advance_in_time(self, trial: Trial, n_epochs: int) -> Trial:
        """Train a trial further, unless the time is up; the first one has a score in any case."""
        if self._trainer.stop.is_due and (trial.number or trial.scores):
            return trial
        return self._advance(trial, n_epochs)

    def _recall(self, number: int) -> None:
        """Take over what an interrupted search knows of a trial."""
        trial, known = self._trials[number], self._known.pop(number, None)
        if known is not None and has_same_values(known, trial):
            state = OPEN if known.state == STOPPED else known.state
            self._trials[number] = trial._replace(scores=known.scores, seconds=known.seconds, state=state)

    def _epochs_of(self, trial: Trial, n_epochs: int) -> int:
        """Return how far a trial is trained: the first one at least as far as the model as given would be."""
        given = min(self._trainer.model.n_epochs, self._trainer.max_epochs)
        return max(n_epochs, given) if trial.number == 0 else n_epochs

    def _is_due(self, trial: Trial, n_epochs: int) -> bool:
        return not trial.is_over and len(trial.scores) < self._epochs_of(trial, n_epochs)

    def _advance(self, trial: Trial, n_epochs: int) -> Trial:
        until = self._epochs_of(trial, 0)
        return self._trainer.advance(trial, self._epochs_of(trial, n_epochs), patient_until=until)

    def _take(self, trial: Trial, report: "_Report") -> None:
        if trial is self._trials[trial.number]:  # there was no time for it
            return
        self._trials[trial.number] = trial
        self._keep()
        report.show(trial, self.trials)


def rungs(max_epochs: int) -> list[int]:
    """Return after how many epochs trials are compared: a ninth, a third, and all."""
    return sorted({math.ceil(max_epochs / _THIRD**2), math.ceil(max_epochs / _THIRD), max_epochs})


def best_trial(trials: Sequence[Trial], higher_is_better: bool) -> Trial | None:
    """Return the trial with the best score, of equal ones the first; None if no trial has a score."""
    sign = -1 if higher_is_better else 1
    found = [(sign * best.score, trial.number, trial) for trial in trials if (best := trial.best(higher_is_better))]
    return min(found)[2] if found else None


class _Report:
    """Shows how far a search has come, and the best score so far."""

    def __init__(self, trainer: Trainer, plan: Plan) -> None:
        self._objective, self._stop = trainer.objective, trainer.stop
        self._by_time = plan.n_trials is None
        total = math.ceil(trainer.stop.seconds or 0) if plan.n_trials is None else plan.n_trials
        unit = "second" if self._by_time else "trial"
        self._progress = Progress("tune", total, unit, plan.shown, with_rate=False)
        self._n_shown = 0
        self.n_over = 0

    def show(self, trial: Trial | None, trials: Sequence[Trial]) -> None:
        """Tell the latest score, if there is one, and the best one."""
        n_now = int(self._stop.elapsed) if self._by_time else self.n_over
        self._progress.advance(n_now - self._n_shown, self._in_words(trial, trials))
        self._n_shown = n_now

    def _in_words(self, trial: Trial | None, trials: Sequence[Trial]) -> str:
        higher, words = self._objective.higher_is_better, []
        winner = best_trial(trials, higher)
        best = winner and winner.best(higher)
        if winner and best:
            words.append(f"best {self._objective} {best.score:.5g} (trial {winner.number}, epoch {best.epoch})")
        if trial is not None:
            latest = trial.best(higher)
            score = trial.state if latest is None else f"{latest.score:.5g}"
            words.append(f"trial {trial.number}, {len(trial.scores)} epochs: {score}")
        return "; ".join(words)

    def __enter__(self) -> "_Report":
        self._progress.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.__exit__(None, None, None)
