"""Which points of a space are tried next."""

from typing import Any, Protocol

import numpy as np

from fastmf.errors import ParameterError, named
from fastmf.models import FactorModel
from fastmf.tuning.spaces import Choices, Space
from fastmf.tuning.trials import DIVERGED, ROUND, STOPPED, Trial

SAMPLERS = ("local", "random", "tpe")

# How far a point is from the best ones, as a share of the range: at first, from round to round, and at last.
_FARTHEST, _SHRINKING, _NEAREST = 0.25, 0.85, 0.05

Shares = dict[str, float]
"""A point of a space: of each range a share from 0 to 1."""


class Sampler(Protocol):
    """What proposes points."""

    def propose(self, first: int) -> list[Shares]:
        """Return the points of a round, whose first trial has the number ``first``."""

    def learn(self, trials: list[Trial]) -> None:
        """Take the results of the points that were proposed last, in their order; some of the last may be missing."""


def make_sampler(name: str, model: FactorModel, space: Space, seed: int, higher_is_better: bool) -> Sampler:
    """Return a sampler by its name."""
    if name == "tpe":
        return TreeSampler(space, seed, higher_is_better)
    if name == "random":
        return RandomSampler(space, seed)
    given = {name: of_values.share_of(getattr(model, name)) for name, of_values in space.items()}
    return LocalSampler(space, seed, higher_is_better, given)


class RandomSampler:
    """Points at random, those of a round in different ninths of each range.

    This is Latin hypercube sampling (McKay, Beckman, Conover, Technometrics 21(2), 1979), round by round.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self._names, self._seed = list(space), seed

    def propose(self, first: int) -> list[Shares]:
        """Return the points of a round."""
        rng = np.random.default_rng([self._seed, first])
        columns = [(rng.permutation(ROUND) + rng.random(ROUND)) / ROUND for _ in self._names]
        return [dict(zip(self._names, map(float, row), strict=True)) for row in zip(*columns, strict=True)]

    def learn(self, trials: list[Trial]) -> None:
        """Do nothing: points do not depend on results."""


class LocalSampler(RandomSampler):
    """A first round at random; of later rounds a third at random, and the others near the best trials so far.

    Such a point is one of the best, with about two of its shares moved by a normal distance, which shrinks from round
    to round.

    Parameters
    ----------
    space : Space
    seed : int
    higher_is_better : bool
    given : dict of str to float or None
        The point of the model as given; None where it is not in the range.
    """

    def __init__(self, space: Space, seed: int, higher_is_better: bool, given: dict[str, float | None]) -> None:
        super().__init__(space, seed)
        self._sign, self._given = -1 if higher_is_better else 1, given
        self._least_steps = np.array([1 / of_values.n_values for of_values in space.values()])
        self._asked: list[Shares] = []
        # Of all trials, best first: what orders them, and the point.
        self._ranked: list[tuple[float, int, Shares]] = []

    def propose(self, first: int) -> list[Shares]:
        """Return the points of a round."""
        points, rng = super().propose(first), np.random.default_rng([self._seed, first, 1])
        if first == 0:
            points[0] |= {name: share for name, share in self._given.items() if share is not None}
        elif self._ranked:
            distance = max(_FARTHEST * _SHRINKING ** (first // ROUND - 1), _NEAREST)
            points = [
                point if place % 3 == 0 else self._near(self._draw_one_of_the_best(rng), distance, rng)
                for place, point in enumerate(points)
            ]
        self._asked = points
        return points

    def _draw_one_of_the_best(self, rng: np.random.Generator) -> Shares:
        """Return the best point with probability 1/2, the second best with 1/4, and so on."""
        return self._ranked[min(int(rng.geometric(0.5)) - 1, len(self._ranked) - 1)][2]

    def _near(self, point: Shares, distance: float, rng: np.random.Generator) -> Shares:
        n = len(self._names)
        moved = rng.random(n) < 1 / n
        moved[rng.integers(n)] = True
        steps = distance * rng.standard_normal(n)
        # At least to the next of a few values.
        steps = np.copysign(np.maximum(np.abs(steps), self._least_steps), steps) * moved
        return {name: _moved(point[name], float(step)) for name, step in zip(self._names, steps, strict=True)}

    def learn(self, trials: list[Trial]) -> None:
        """Rank the trials by their scores."""
        for trial, point in zip(trials, self._asked, strict=False):
            best = trial.best(self._sign < 0)
            if best is not None:
                self._ranked.append((self._sign * best.score, trial.number, point))
        self._ranked.sort(key=lambda entry: entry[:2])


def _moved(share: float, step: float) -> float:
    """Return a share after a step, or after one to the other side where the first would leave the range."""
    there = share + step if 0 <= share + step <= 1 else share - step
    return min(max(there, 0.0), 1.0)


class TreeSampler:
    """Points where good trials were denser than bad ones: the tree-structured Parzen estimator, as Optuna has it.

    Bergstra, Bardenet, Bengio, Kégl, "Algorithms for Hyper-Parameter Optimization", NIPS 2011; Akiba, Sano, Yanase,
    Ohta, Koyama, "Optuna", KDD 2019.

    Raises
    ------
    ParameterError
        If Optuna is not installed.
    """

    def __init__(self, space: Space, seed: int, higher_is_better: bool) -> None:
        self._optuna, self._space = _import_optuna(), space
        logging = self._optuna.logging
        before = logging.get_verbosity()
        logging.set_verbosity(logging.WARNING)  # it tells that there is a new study
        try:
            self._study = self._optuna.create_study(
                direction="maximize" if higher_is_better else "minimize",
                sampler=self._optuna.samplers.TPESampler(seed=seed, n_startup_trials=ROUND),
            )
        finally:
            logging.set_verbosity(before)
        self._asked: list[Any] = []

    def propose(self, first: int) -> list[Shares]:
        """Return the points of a round."""
        self._asked = [self._study.ask() for _ in range(ROUND)]
        return [{name: self._suggest(asked, name) for name in self._space} for asked in self._asked]

    def _suggest(self, asked: Any, name: str) -> float:
        of_values = self._space[name]
        if isinstance(of_values, Choices):
            n = len(of_values.values)
            return (int(asked.suggest_categorical(name, list(range(n)))) + 0.5) / n
        return float(asked.suggest_float(name, 0, 1))

    def learn(self, trials: list[Trial]) -> None:
        """Tell Optuna the best score of each trial, and which were given up early."""
        state = self._optuna.trial.TrialState
        for asked, trial in zip(self._asked, trials, strict=False):
            best = trial.best(self._is_maximized)
            if best is None or trial.state == DIVERGED:
                self._study.tell(asked, state=state.FAIL)
            elif trial.state == STOPPED:
                asked.report(best.score, step=len(trial.scores))
                self._study.tell(asked, state=state.PRUNED)
            else:
                self._study.tell(asked, best.score)

    @property
    def _is_maximized(self) -> bool:
        return bool(self._study.direction == self._optuna.study.StudyDirection.MAXIMIZE)


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ParameterError(
            f'{named("sampler")} is "tpe", which needs Optuna; install it with pip install "fastmf[tune]", or '
            'choose "local" or "random"'
        ) from None
    return optuna
