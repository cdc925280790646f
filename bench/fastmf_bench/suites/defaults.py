"""Models with default settings on real data, beside a baseline and the best of a grid.

For the suite defaults, ``--data`` names a directory with a folder for each data set. Of the files there,

- ``ratings.parquet`` has ratings, of which a random tenth is the test part,
- ``interactions.parquet`` has events, of which a random fifth of each user's is the test part,
- ``train.parquet`` and ``test.parquet`` have ratings if there is a column ``rating``, else events,

all with columns ``user_id`` and ``item_id``. Folders of these names have files or splits of their own: movielens-100k,
movielens-1m, movielens-1m-topn, epinions-topn, steam-200k, hetrec-lastfm-2k, deepcf-lastfm, deepcf-amazon-music and
amazon-beauty-seq. Other folders are left out. ``--sets`` names those that are wanted.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from fastmf.errors import DivergenceError
from fastmf.models import MODELS
from fastmf_bench import grids
from fastmf_bench.contest import Contestant
from fastmf_bench.data_sets import EVENTS, RATINGS, DataSet, find_sets, load
from fastmf_bench.grids import K, measure
from fastmf_bench.pace import Pace, Task
from fastmf_bench.results import OURS, Measurement, Run
from fastmf_bench.session import Session

SUITE = "defaults"


class Kind(NamedTuple):
    """What is measured on a kind of data.

    Attributes
    ----------
    metric : str
    is_error : bool
        Whether the metric is better where it is lower.
    baseline : str
        The class of the model that others are compared with.
    models : dict
        By name: the class, and the parameters that are not left as they are.
    searched : tuple of str
        The models whose best settings are sought.
    to_baseline : float
        What the metric less that of the baseline is to be, at most for an error and at least otherwise.
    to_best : float
        The same for the metric as a share of the best of the grid.
    """

    metric: str
    is_error: bool
    baseline: str
    models: dict[str, tuple[str, dict[str, Any]]]
    searched: tuple[str, ...]
    to_baseline: float
    to_best: float

    def holds(self, value: float | None, bound: float) -> bool:
        """Whether a bound holds for what was measured; also where nothing was."""
        return value is None or (value <= bound if self.is_error else value >= bound)


KINDS = {
    RATINGS: Kind(
        "RMSE",
        True,
        "Bias",
        {"SGD": ("SGD", {}), "ALS": ("ALS", {}), "SVDpp": ("SVDpp", {})},
        ("SGD", "ALS", "SVDpp"),
        to_baseline=0.002,
        to_best=1.015,
    ),
    EVENTS: Kind(
        f"Recall@{K}",
        False,
        "Popularity",
        {"ImplicitALS": ("ImplicitALS", {}), "BPR": ("BPR", {}), "SGD logistic": ("SGD", {"loss": "logistic"})},
        ("ImplicitALS",),
        to_baseline=0.0,
        to_best=0.93,
    ),
}


def run(session: Session) -> None:
    """Measure each data set: first the baseline and the models as they are, then the best of a grid for each model."""
    options = session.options
    if options.data is None:
        session.leave_out(SUITE, "it needs real data, in the directory that --data names")
        return
    found: list[DataSet] = []
    with session.noting(SUITE):
        found = find_sets(options.data, options.sets)
    for data_set in _smallest(found) if options.quick else found:
        for contestants in _contests(data_set, options.seeds[0], options.n_threads, options.quick):
            settings = {"seed": options.seeds[0]}
            session.race(SUITE, data_set.kind, data_set.name, settings, contestants, n_laps=0)


def _smallest(found: list[DataSet]) -> list[DataSet]:
    """Return the smallest set of each kind."""
    kinds = [[one for one in found if one.kind == kind] for kind in KINDS]
    return [min(sets, key=lambda one: one.n_bytes) for sets in kinds if sets]


def _contests(data_set: DataSet, seed: int, n_threads: int, quick: bool) -> Iterator[list[Contestant]]:
    """Yield the baseline with the models, then each grid alone, so that a run cut short has the quick ones."""
    kind, arguments = KINDS[data_set.kind], {"data_set": data_set, "n_threads": n_threads}
    yield [
        Contestant(kind.baseline, "defaults.baseline", arguments),
        *(
            Contestant(_default(model), "defaults.default", {**arguments, "model": model, "seed": seed})
            for model in kind.models
        ),
    ]
    for model in kind.searched:
        grid = {**arguments, "model": model, "seed": seed, "quick": quick}
        yield [Contestant(_best(model), "defaults.best_of_grid", grid)]


def _default(model: str) -> str:
    return f"{OURS}, {model}"


def _best(model: str) -> str:
    return f"{OURS}, {model}, best of a grid"


def baseline(_: Pace, data_set: DataSet, n_threads: int) -> dict[str, Any]:
    """Measure a model without factors."""
    kind = KINDS[DataSet(*data_set).kind]
    train, test = load(DataSet(*data_set))
    return {kind.metric: measure(MODELS[kind.baseline](n_threads=n_threads).fit(train), test)}


def default(_: Pace, data_set: DataSet, model: str, seed: int, n_threads: int) -> dict[str, Any]:
    """Measure a model with default settings. One that diverges has no metric."""
    data_set = DataSet(*data_set)
    name, settings = KINDS[data_set.kind].models[model]
    train, test = load(data_set)
    fitted = MODELS[name](**{**settings, "seed": seed, "n_threads": n_threads})
    try:
        fitted.fit(train)
    except DivergenceError as error:
        return {KINDS[data_set.kind].metric: None, "note": str(error)}
    return {KINDS[data_set.kind].metric: measure(fitted, test), "note": _in_words(fitted.chosen)}


def best_of_grid(_: Pace, data_set: DataSet, model: str, seed: int, n_threads: int, quick: bool) -> dict[str, Any]:
    """Measure a model with the settings of a grid: the best on the test part, what each cell reached, and where."""
    data_set = DataSet(*data_set)
    parts, common = load(data_set), {"seed": seed, "n_threads": n_threads}
    if data_set.kind == EVENTS:
        cells = grids.search_implicit_als(parts, common, quick)
        best = max(cells, key=lambda cell: cell.value)
    else:
        cells = grids.search_ratings(model, parts, common, quick)
        best = min(cells, key=lambda cell: cell.value)
    return {KINDS[data_set.kind].metric: best.value, "cells": cells, "note": _in_words(best.settings)}


def _in_words(settings: dict[str, Any]) -> str:
    shown = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in settings.items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items())


class Result(NamedTuple):
    """A model with default settings on a data set, beside the baseline and the best of a grid.

    Attributes
    ----------
    name, kind, model : str
    default : float
        RMSE or Recall@20; ∞ or 0 where training diverged.
    baseline, best : float or None
        None where it was not measured.
    best_settings : str
    """

    name: str
    kind: str
    model: str
    default: float
    baseline: float | None
    best: float | None
    best_settings: str

    @property
    def over_baseline(self) -> float | None:
        """The metric less that of the baseline."""
        return None if self.baseline is None else self.default - self.baseline

    @property
    def of_best(self) -> float | None:
        """The metric as a share of the best of the grid."""
        return self.default / self.best if self.best else None

    @property
    def is_met(self) -> bool:
        """Whether the model reaches what it is to reach, as far as that was measured."""
        kind = KINDS[self.kind]
        over, of_best = self.over_baseline, self.of_best
        return kind.holds(over, kind.to_baseline) and kind.holds(of_best, kind.to_best)


def results(run: Run) -> list[Result]:
    """Return what a run has measured of default settings, set by set."""
    races = [race for race in run.races() if race[0].suite == SUITE]
    return [found for race in races for found in _results_of({m.contestant: m for m in race}, race[0].task)]


def _results_of(race: dict[str, Measurement], kind: str) -> Iterator[Result]:
    metric, is_error, of_baseline, models, *_ = KINDS[kind]
    baseline = race.get(of_baseline)
    for model in models:
        own, best = race.get(_default(model)), race.get(_best(model))
        if own is None:
            continue
        value = own.figures[metric]
        yield Result(
            own.problem,
            kind,
            model,
            _worst(is_error) if value is None else value,
            None if baseline is None else baseline.figures[metric],
            None if best is None else best.figures[metric],
            "" if best is None else best.note,
        )


def _worst(is_error: bool) -> float:
    """Return the metric of a training that diverged."""
    return math.inf if is_error else 0.0


TASKS: dict[str, Task] = {
    "defaults.baseline": baseline,
    "defaults.default": default,
    "defaults.best_of_grid": best_of_grid,
}
