"""Users folded into models with default settings, beside the same users as a fit leaves them; and continued fits.

For the suite fold-in, ``--data`` names a directory with a folder for each data set that has a file ``ratings.parquet``
with columns ``user_id``, ``item_id`` and ``rating``. ``--sets`` names the folders; without it they are movielens-100k
and movielens-1m. A fifth of the ratings is the test part. Models of ratings are measured by RMSE; those of implicit
feedback take every rating as a choice, and are measured by nDCG@10. Fits are continued where there is a column
``timestamp`` without gaps.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

import fastmf
from fastmf import ALS, ImplicitALS, Interactions
from fastmf.models import MODELS, Model
from fastmf_bench import people
from fastmf_bench.contest import Contestant
from fastmf_bench.data_sets import files_of_ratings
from fastmf_bench.pace import Pace, Task
from fastmf_bench.people import People
from fastmf_bench.results import OURS
from fastmf_bench.session import Session
from fastmf_kernels.predict.arrays import Factors

SUITE = "fold-in"
# Factors that differ by less, as a share of the largest, count as those of the fit.
SAME = 1e-4
RATINGS, CHOICES = "ratings", "choices"
_SETS = ("movielens-100k", "movielens-1m")
_TEST, _HELD_OUT = 0.2, 0.1
_N_ALONE, _RATINGS_ALONE, _N_BATCHES = 30, 50, 3
_N_STEPS = 5


class Kind(NamedTuple):
    """What is measured of models of ratings, or of choices.

    Attributes
    ----------
    metric : str
    baseline : str
        The class of the model that users who were held out are also measured with.
    models : dict
        By name: the class, and the parameters that are not left as they are.
    continued : str
        The class whose fits are continued.
    """

    metric: str
    baseline: str
    models: dict[str, tuple[str, dict[str, Any]]]
    continued: str


KINDS = {
    RATINGS: Kind(
        "RMSE",
        "Bias",
        {name: (name, {}) for name in ("ALS", "SGD", "SVDpp", "Bias")}
        | {"SGD in a range": ("SGD", {"rating_range": (1, 5)})},
        "ALS",
    ),
    CHOICES: Kind(
        f"nDCG@{people.K}",
        "Popularity",
        {"ImplicitALS": ("ImplicitALS", {}), "SGD logistic": ("SGD", {"loss": "logistic"}), "BPR": ("BPR", {})},
        "ImplicitALS",
    ),
}


class Subject(NamedTuple):
    """A model to measure, and the ratings.

    Attributes
    ----------
    file : str
    kind : {"ratings", "choices"}
    model : str
        A name of `KINDS`.
    seed, n_threads : int
    """

    file: str
    kind: str
    model: str
    seed: int
    n_threads: int

    def unfitted(self, **settings: Any) -> Model:
        """Return the model before its fit."""
        name, given = KINDS[self.kind].models[self.model]
        return MODELS[name](**{**given, "seed": self.seed, "n_threads": self.n_threads, **settings})

    def baseline(self) -> Model:
        """Return the model that it is compared with, before its fit."""
        return MODELS[KINDS[self.kind].baseline](n_threads=self.n_threads)

    def load(self, timestamp: str | None = None) -> Interactions:
        """Read the ratings."""
        rating = "rating" if self.kind == RATINGS else None
        return fastmf.read_parquet(self.file, rating=rating, timestamp=timestamp, duplicates="last")


def run(session: Session) -> None:
    """Measure every model on each data set, then continued fits."""
    options = session.options
    if options.data is None:
        session.leave_out(SUITE, "it needs real data, in the directory that --data names")
        return
    files: list[Path] = []
    with session.noting(SUITE):
        files = files_of_ratings(options.data, options.sets, _SETS)
    settings = {"seed": options.seeds[0]}
    for file in files[:1] if options.quick else files:
        for kind, told in KINDS.items():
            subjects = [Subject(str(file), kind, name, options.seeds[0], options.n_threads) for name in told.models]
            contestants = [_contestant("fold-in.model", subject) for subject in subjects]
            session.race(SUITE, f"users from {kind}", file.parent.name, settings, contestants, n_laps=0)
            if _has_times(file):
                continued = [_contestant("fold-in.partial_fit", s) for s in subjects if s.model == told.continued]
                session.race(SUITE, f"continued with {kind}", file.parent.name, settings, continued, n_laps=0)


def _contestant(task: str, subject: Subject) -> Contestant:
    return Contestant(f"{OURS}, {subject.model}", task, {"subject": subject})


def _has_times(file: Path) -> bool:
    if "timestamp" not in pq.read_schema(file).names:
        return False
    times = pq.read_table(file, columns=["timestamp"])["timestamp"]
    return bool(times.null_count == 0)


def of_model(_: Pace, subject: Subject) -> dict[str, Any]:
    """Fold the users of a fit in from their training ratings, and users who were held out; time both."""
    subject = Subject(*subject)
    whole = subject.load()
    train, test = fastmf.split.random(whole, _TEST, seed=subject.seed)
    model, before = fit_twice(subject, train)
    after = people.trained(model)
    again = people.folded(model, train)
    users = np.unique(train.users).astype(np.int32)
    best = people.best_items(after, train, users)
    difference = people.largest_difference(again, after)
    figures: dict[str, Any] = {
        "largest difference": difference,
        "same factors": difference <= SAME,
        **people.agreement(people.best_items(again, train, users), best),
        **_of_epoch(people.agreement(people.best_items(before, train, users), best)),
        "trained": people.quality(after, train, test),
        "folded in": people.quality(again, train, test),
    }
    return figures | _of_held_out_users(subject, whole) | _times(model, train)


def _of_epoch(found: dict[str, float]) -> dict[str, float]:
    return {f"{name}, one epoch before": value for name, value in found.items()}


def fit_twice(subject: Subject, train: Interactions) -> tuple[Model, People]:
    """Return a fitted model, and its users with the items as they were one epoch before the last."""
    kept: list[People] = []

    def keep(model: Model, _: Any) -> None:
        p, q, *biases, mean = model.fitted.factors
        factors = Factors(p.copy(), q.copy(), biases[0].copy(), biases[1].copy(), mean)
        fitted = dataclasses.replace(model.fitted, factors=factors)
        kept[:] = [*kept[-1:], People(model, fitted, factors.user_factors, factors.user_biases)]

    model = subject.unfitted().fit(train, callbacks=[keep])
    return model, kept[0]


def _of_held_out_users(subject: Subject, whole: Interactions) -> dict[str, float]:
    """Measure users of whom a fit knew nothing, against a fit that had their ratings, and a baseline."""
    rng = np.random.default_rng(subject.seed)
    is_held_out = np.zeros(whole.n_users, bool)
    is_held_out[rng.permutation(whole.n_users)[: round(_HELD_OUT * whole.n_users)]] = True
    positions = np.flatnonzero(~is_held_out[whole.users])
    others = whole.take(positions)
    given, rest = fastmf.split.per_user(whole.take(np.flatnonzero(is_held_out[whole.users])), _TEST, seed=subject.seed)
    model, baseline = subject.unfitted().fit(others), subject.baseline().fit(others)
    rest = people.of_known_items(model.fitted, rest)
    with_them = subject.unfitted().fit(_together(whole, positions, given))
    return {
        "held out, folded in": people.quality(people.folded(model, given), given, rest),
        "held out, in the fit": people.quality(people.trained(with_them), given, rest),
        "held out, baseline": people.quality(people.folded(baseline, given), given, rest),
    }


def _together(whole: Interactions, others: "np.typing.NDArray[np.int64]", given: Interactions) -> Interactions:
    """Return the ratings at some positions with those given, in the order of the whole."""
    key = whole.users.astype(np.int64) * whole.n_items + whole.items
    are_given = np.isin(key, given.users.astype(np.int64) * whole.n_items + given.items)
    are_given[others] = True
    return whole.take(np.flatnonzero(are_given))


def _times(model: Model, train: Interactions) -> dict[str, float]:
    """Return milliseconds a user: alone with 50 ratings, and all in a batch with their own."""
    rows = train.by_user
    counts = np.diff(rows.indptr)
    chosen = np.flatnonzero(counts >= min(_RATINGS_ALONE, counts.max()))[:_N_ALONE]
    single = [train.take(np.flatnonzero(train.users == user)[:_RATINGS_ALONE]) for user in chosen]
    requests = [
        fastmf.Interactions.from_arrays(one.user_ids.take(one.users), one.item_ids.take(one.items), one.ratings)
        for one in single
    ]
    model.fold_in(requests[0])
    alone = [_seconds(model.fold_in, request) for request in requests]
    batch = [_seconds(model.fold_in, train) for _ in range(_N_BATCHES)]
    return {
        "ms a user alone": 1e3 * statistics.median(alone),
        "ms a user in a batch": 1e3 * statistics.median(batch) / int((counts > 0).sum()),
    }


def _seconds(call: Callable[[Interactions], object], ratings: Interactions) -> float:
    started = time.perf_counter()
    call(ratings)
    return time.perf_counter() - started


def of_partial_fit(_: Pace, subject: Subject) -> dict[str, Any]:
    """Fit the oldest 80 % of the ratings, continue with the others in 5 steps, and compare with one fit of all.

    A tenth of the ratings, at random, is the test part of all of them, as far as the first fit knows the items.
    """
    subject = Subject(*subject)
    train, test = fastmf.split.random(subject.load("timestamp"), 0.1, seed=subject.seed)
    assert train.timestamps is not None
    order = np.argsort(train.timestamps, kind="stable")
    n_first = round(0.8 * len(order))
    parts = [order[:n_first], *np.array_split(order[n_first:], _N_STEPS)]
    model = subject.unfitted()
    seconds: list[float] = []
    qualities: list[float] = []
    assert isinstance(model, ALS | ImplicitALS)
    for number, part in enumerate(parts):
        seconds.append(_seconds(model.partial_fit if number else model.fit, train.take(part)))
        if number == 0:
            test = people.of_known_items(model.fitted, test)
        qualities.append(people.quality(people.trained(model), train, test))
    full = subject.unfitted()
    seconds_of_fit = _seconds(full.fit, train)
    return {
        "after 80 %": qualities[0],
        "after 5 steps": qualities[-1],
        "full fit": people.quality(people.trained(full), train, test),
        "seconds a step": statistics.median(seconds[1:]),
        "seconds of a full fit": seconds_of_fit,
        "after each step": qualities,
    }


TASKS: dict[str, Task] = {"fold-in.model": of_model, "fold-in.partial_fit": of_partial_fit}
