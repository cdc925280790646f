"""The best settings of a model on a data set, by its test part: what default settings are compared with.

iALS is searched over ρ and c, which mean the same on all data: ρ = α₀·n_users·n_items / n_ratings is the weight of all
cells over that of the observed ones, and c = λ(1 + ρ) the L2 strength over the weight of an average row's data.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

import fastmf
from fastmf import Interactions
from fastmf.errors import DivergenceError
from fastmf.models import MODELS, Model

K = 20
N_FACTORS = 64
_IMPLICIT_EPOCHS = 10
_LEAST_RHO, _LEAST_C, _N_STEPS = 2.0, 0.03, 4
_EPOCHS = {"SGD": (10, 20, 40), "SVDpp": (10, 20, 40), "ALS": (5, 10, 20)}
_LEARNING_RATES = (0.05, 0.1)
# λ and λ_b of rows that pay once for every rating, and once in all: with ratings in units of their deviation.
_STRENGTHS = {
    "count": [(strength, 0.02) for strength in (0.02, 0.05, 0.1, 0.2)],
    "none": [(strength, 3.0) for strength in (5.0, 10.0, 20.0, 40.0, 80.0)],
}
# What is changed around the best settings, and by which factor.
_FINER = (("regularization", 2.0), ("bias_regularization", 3.0))
_QUICK_EPOCHS = 10

Point = tuple[float, float]
Parts = tuple[Interactions, Interactions]


class Cell(NamedTuple):
    """Settings of a grid, and the RMSE or the Recall@20 that they reach on the test part."""

    value: float
    settings: dict[str, Any]


def measure(model: Model, test: Interactions) -> float:
    """Return the RMSE of a fitted model of ratings, or the Recall@20 of an implicit one."""
    if model.is_implicit:
        return float(fastmf.evaluate(model, test, k=K, metrics=["recall"])[f"recall@{K}"])
    return float(fastmf.evaluate(model, test, metrics=["rmse"])["rmse"])


def search_implicit_als(parts: Parts, common: dict[str, Any], quick: bool = False) -> list[Cell]:
    """Measure `ImplicitALS` with ρ from 2 to 16 and c from 0.03 to 0.24, then with finer ones around the best.

    Parameters
    ----------
    parts : (train, test)
    common : dict
        ``seed``, ``n_threads`` and other parameters that all cells have.
    quick : bool
        Measure four cells only.

    Returns
    -------
    list of Cell
        As they were measured.
    """
    train, test = parts
    cells = []

    def recall(point: Point) -> float:
        settings = settings_of(train, _LEAST_RHO * 2 ** point[0], _LEAST_C * 2 ** point[1])
        model = fastmf.ImplicitALS(
            n_factors=N_FACTORS, n_epochs=_IMPLICIT_EPOCHS, regularization_exponent=1.0, **settings, **common
        )
        cells.append(Cell(measure(model.fit(train), test), settings))
        return cells[-1].value

    steps = (1, 3) if quick else range(_N_STEPS)
    search(recall, itertools.product(steps, steps), () if quick else (1.0, 0.5))
    return cells


def settings_of(train: Interactions, rho: float, c: float) -> dict[str, Any]:
    """Return the parameters of `ImplicitALS` that stand for ρ and c on some data."""
    n_users, n_items = (len(np.unique(indices)) for indices in (train.users, train.items))
    return {"unobserved_weight": rho * train.n_ratings / (n_users * n_items), "regularization": c / (1 + rho)}


def search(value: Callable[[Point], float], points: Iterable[Point], steps: Iterable[float]) -> dict[Point, float]:
    """Find the highest value over points of a plane, then over the eight around the best at each of some distances.

    A point is measured once.
    """
    found = {point: value(point) for point in points}
    for step in steps:
        best = max(found, key=lambda point: found[point])
        for move in itertools.product((-step, 0, step), repeat=2):
            point = best[0] + move[0], best[1] + move[1]
            if point not in found:
                found[point] = value(point)
    return found


def search_ratings(name: str, parts: Parts, common: dict[str, Any], quick: bool = False) -> list[Cell]:
    """Measure a model of ratings with both scalings of its L2 strength, weak to strong, after few epochs and many.

    Then half and twice the best λ are measured, if the grid leaves them out, and a third and three times the best λ_b.

    Parameters
    ----------
    name : {"SGD", "ALS", "SVDpp"}
    parts, common, quick
        As in `search_implicit_als`.

    Returns
    -------
    list of Cell
        As they were measured. Settings with which training diverges are left out.
    """
    grid = _grid(name, quick)
    cells = [cell for settings in grid for cell in _by_epochs(name, settings, parts, common, quick)]
    for parameter, factor in () if quick else _FINER:
        best = dict(min(cells, key=lambda cell: cell.value).settings)
        del best["n_epochs"]
        for value in (best[parameter] / factor, best[parameter] * factor) if parameter in best else ():
            settings = best | {parameter: value}
            cells += [] if settings in grid else _by_epochs(name, settings, parts, common, quick)
    return cells


def _grid(name: str, quick: bool) -> list[dict[str, Any]]:
    known = MODELS[name]().get_params()
    grid = []
    for scaling, strengths in _STRENGTHS.items():
        for strength, of_biases in strengths[1:2] if quick else strengths:
            settings = {"regularization": strength, "regularization_scaling": scaling}
            if "bias_regularization" in known:
                settings["bias_regularization"] = of_biases
            rates = _LEARNING_RATES[:1] if quick else _LEARNING_RATES
            grid += [settings | {"learning_rate": rate} for rate in rates] if "learning_rate" in known else [settings]
    return grid


def _by_epochs(name: str, settings: dict[str, Any], parts: Parts, common: dict[str, Any], quick: bool) -> list[Cell]:
    """Train once and return a cell for each number of epochs, up to the first that is worse than the one before."""
    numbers = (_QUICK_EPOCHS,) if quick else _EPOCHS[name]
    cells: list[Cell] = []

    def keep(_: Any, record: dict[str, Any]) -> bool:
        if record["epoch"] not in numbers:
            return False
        least = min((cell.value for cell in cells), default=math.inf)
        cells.append(Cell(record["validation_rmse"], settings | {"n_epochs": record["epoch"]}))
        return bool(cells[-1].value > least)

    model = MODELS[name](**{"n_factors": N_FACTORS, "n_epochs": numbers[-1], **settings, **common})
    with contextlib.suppress(DivergenceError):  # the cells before it count
        model.fit(parts[0], validation=parts[1], callbacks=[keep])
    return cells
