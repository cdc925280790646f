"""Stochastic gradient descent on explicit ratings: seconds an epoch, and error over time."""

from typing import Any

import numpy as np

import fastmf
from fastmf.backend import get_backend
from fastmf.models.advice import silent
from fastmf.models.descent import make_step
from fastmf_bench import libmf, quality
from fastmf_bench.contest import Contestant
from fastmf_bench.pace import Lap, Pace, Task, averaged
from fastmf_bench.problems import SHAPES, Problem, open_problem
from fastmf_bench.results import OURS
from fastmf_bench.session import Session, Work
from fastmf_bench.suites.ceilings import gather_ceiling
from fastmf_kernels.predict.arrays import Factors, make_link
from fastmf_kernels.sgd.arrays import first_row_steps
from fastmf_kernels.sgd.schedule import make_blocks, make_grid, shuffled_strata

FACTORS = (32, 64, 128)
# Of 0.02, 0.03, 0.04 and 0.05, that with LIBMF's lowest test error on the 10M shape.
_REGULARIZATION = 0.03
_LEARNING_RATE = 0.1
_LEARNING_RATE_DECAY = 0.95
_BIAS_REGULARIZATION = 0.01
_SURPRISE_LEARNING_RATE = 0.01
_CURVE_EPOCHS = 30
# A lap has at least so many ratings: an epoch of a small problem is too short to be timed alone.
_RATINGS_A_LAP = 10_000_000
_SAMPLE = 20_000
# Surprise trains on a million ratings a second, and takes minutes to read more than these.
_SURPRISE_LIMIT = 2_000_000
_FOREVER = 1_000_000


def run(session: Session) -> None:
    """Race epochs at several numbers of factors, then threads and sizes of fastmf alone, then error over time."""
    factors = session.factors((64,) if session.options.quick else FACTORS)
    for problem in session.training_problems():
        for n_factors in factors:
            _race_epochs(session, problem, n_factors)
        for n_threads in session.fewer_threads:
            _race_alone(session, problem, 64 if 64 in factors else factors[0], n_threads)
        for n_factors in factors:
            _race_to_error(session, problem, n_factors)
    if session.runs_usual_problems:
        with session.noting("ml-1m"):
            _race_epochs(session, session.problem(SHAPES["ml-1m"]), 64)
        with session.noting("ml-20m"):
            _race_alone(session, session.problem(SHAPES["ml-20m"]), 64, session.options.n_threads)


def _race_epochs(session: Session, problem: Problem, n_factors: int) -> None:
    work = Work(problem.n_train, "ratings", gather_ceiling(4 * n_factors))
    contestants = _contestants(session, problem, n_factors)
    session.race("sgd", "epoch", problem.name, {"n_factors": n_factors}, contestants, work)


def _contestants(session: Session, problem: Problem, n_factors: int) -> list[Contestant]:
    folder, n_threads = str(problem.folder), session.options.n_threads
    common = {"folder": folder, "n_factors": n_factors}
    contestants = [
        Contestant(OURS, "sgd.fastmf", {**common, "n_threads": n_threads}),
        Contestant("numpy", "sgd.numpy", common),
    ]
    if session.has("libmf"):
        program = {"program": str(session.options.libmf), "n_threads": n_threads, "n_laps": session.options.n_laps}
        contestants.append(Contestant("LIBMF", "sgd.libmf", {**common, **program}))
    if session.has("surprise") and problem.n_train <= _SURPRISE_LIMIT:
        n_epochs = 1 if session.options.quick else 2
        contestants.append(Contestant("Surprise", "sgd.surprise", {**common, "n_epochs": n_epochs}))
    return contestants


def _race_alone(session: Session, problem: Problem, n_factors: int, n_threads: int) -> None:
    settings = {"n_factors": n_factors, "n_threads": n_threads}
    contestant = Contestant(OURS, "sgd.fastmf", {"folder": str(problem.folder), **settings})
    work = Work(problem.n_train, "ratings", gather_ceiling(4 * n_factors))
    session.race("sgd", "epoch", problem.name, settings, [contestant], work)


def _race_to_error(session: Session, problem: Problem, n_factors: int) -> None:
    arguments = {"folder": str(problem.folder), "n_factors": n_factors, "n_threads": session.options.n_threads}
    contestants = [Contestant(OURS, "sgd.fastmf_curve", arguments)]
    if session.has("libmf"):
        contestants.append(Contestant("LIBMF", "sgd.libmf_curve", {**arguments, "program": str(session.options.libmf)}))
    session.race("sgd", "error over time", problem.name, {"n_factors": n_factors}, contestants, n_laps=0)


def train_fastmf(pace: Pace, folder: str, n_factors: int, n_threads: int) -> dict[str, Any]:
    """Train `fastmf.SGD`, some epochs a lap."""
    problem = open_problem(folder)
    epochs_a_lap = _epochs_a_lap(problem)
    end_lap = averaged(pace, epochs_a_lap)

    def on_epoch(_: fastmf.SGD, record: dict[str, Any]) -> bool:
        return record["epoch"] % epochs_a_lap == 0 and not end_lap()

    model = _model(n_factors, n_threads, _FOREVER).fit(problem.train(), callbacks=[on_epoch])
    fitted = model.fitted.factors
    error = quality.rmse(
        problem, model.user_factors, model.item_factors, fitted.user_biases, fitted.item_biases, model.global_mean
    )
    return {"epochs": len(model.history), "test RMSE": error}


def train_fastmf_curve(
    _: Pace,
    folder: str,
    n_factors: int,
    n_threads: int,
    n_epochs: int = _CURVE_EPOCHS,
    learning_rate: float = _LEARNING_RATE,
    goal: float | None = None,
) -> dict[str, Any]:
    """Train `fastmf.SGD`; the test error at the end of each epoch, with the seconds trained so far."""
    model = _model(n_factors, n_threads, n_epochs).set_params(learning_rate=learning_rate)
    return quality.of_errors(validated(model, open_problem(folder)), goal)


def validated(model: fastmf.SGD | fastmf.ALS, problem: Problem) -> quality.Curve:
    """Train a model; seconds trained and test error after each epoch."""
    with silent():
        history = model.fit(problem.train(), validation=problem.test()).history
    seconds = np.cumsum([record["seconds"] for record in history]).tolist()
    return list(zip(seconds, (record["validation_rmse"] for record in history), strict=True))


def train_numpy(pace: Pace, folder: str, n_factors: int) -> dict[str, Any]:
    """Run epochs of the NumPy reference on some of the ratings."""
    reference = get_backend("reference")
    problem = open_problem(folder)
    ratings = problem.train()
    rng = np.random.default_rng(0)
    sample = ratings.take(np.arange(min(_SAMPLE, ratings.n_ratings)))
    grid = make_grid(sample.n_users, sample.n_items, sample.n_ratings)
    blocks = make_blocks(sample.by_user, sample.n_items, grid, reference.group_by)
    p, q = (rng.standard_normal((n, n_factors), np.float32) for n in (ratings.n_users, ratings.n_items))
    factors = Factors(
        p / np.float32(n_factors),  # small enough for steps that do not diverge, however many laps there are
        q / np.float32(n_factors),
        np.zeros(ratings.n_users, np.float32),
        np.zeros(ratings.n_items, np.float32),
        np.float32(3.5),
    )
    strata = shuffled_strata(grid, rng)
    rows = first_row_steps(ratings.n_users, ratings.n_items)
    step = make_step(_model(n_factors, 1, 1), 0)
    while pace():
        reference.run_epoch(blocks, strata, factors, make_link(None), step, rows, None)
    return {"work": sample.n_ratings, "note": f"on {sample.n_ratings:,} of the ratings"}


def train_libmf(pace: Pace, folder: str, n_factors: int, n_threads: int, program: str, n_laps: int) -> dict[str, Any]:
    """Train with LIBMF; the test error is that of as many epochs as the others had."""
    problem = open_problem(folder)
    settings = libmf.Settings(program, n_factors, n_threads, _REGULARIZATION)
    train, test = libmf.write_text(problem)
    peak = libmf.peak_of_training(settings, train)
    lap: Lap | None = None
    while pace(lap):
        lap = libmf.time_epoch(settings, train)
    n_epochs = (n_laps + 1) * _epochs_a_lap(problem)
    error = libmf.test_errors(settings, train, test, n_epochs)[-1]
    return {"epochs": n_epochs, "test RMSE": error, "peak_bytes": peak}


def train_libmf_curve(
    _: Pace,
    folder: str,
    n_factors: int,
    n_threads: int,
    program: str,
    n_epochs: int = _CURVE_EPOCHS,
    goal: float | None = None,
) -> dict[str, Any]:
    """Train with LIBMF; the test error after each epoch, each of which is taken to last as long as the average."""
    settings = libmf.Settings(program, n_factors, n_threads, _REGULARIZATION)
    train, test = libmf.write_text(open_problem(folder))
    seconds = libmf.time_epoch(settings, train).wall
    errors = libmf.test_errors(settings, train, test, n_epochs)
    return quality.of_errors([(seconds * (epoch + 1), error) for epoch, error in enumerate(errors)], goal)


def train_surprise(pace: Pace, folder: str, n_factors: int, n_epochs: int) -> dict[str, Any]:
    """Train Surprise's SVD, which has one thread, for some epochs a lap."""
    trainset = surprise_trainset(open_problem(folder).train())
    end_lap = averaged(pace, n_epochs)
    while end_lap():
        surprise_model(n_factors, n_epochs, _SURPRISE_LEARNING_RATE).fit(trainset)
    return {"note": "one thread"}


def surprise_trainset(ratings: fastmf.Interactions) -> Any:
    """Return ratings as Surprise takes them."""
    import pandas as pd
    import surprise

    scale = float(ratings.ratings.min()), float(ratings.ratings.max())
    frame = pd.DataFrame({"user": ratings.users, "item": ratings.items, "rating": ratings.ratings})
    return surprise.Dataset.load_from_df(frame, surprise.Reader(rating_scale=scale)).build_full_trainset()


def surprise_model(n_factors: int, n_epochs: int, learning_rate: float) -> Any:
    """Return Surprise's SVD with the regularisation of the others."""
    import surprise

    return surprise.SVD(n_factors, n_epochs=n_epochs, lr_all=learning_rate, reg_all=_REGULARIZATION, random_state=0)


def _epochs_a_lap(problem: Problem) -> int:
    return max(1, _RATINGS_A_LAP // problem.n_train)


def _model(n_factors: int, n_threads: int, n_epochs: int) -> fastmf.SGD:
    return fastmf.SGD(
        n_factors=n_factors,
        n_epochs=n_epochs,
        learning_rate=_LEARNING_RATE,
        learning_rate_decay=_LEARNING_RATE_DECAY,
        regularization=_REGULARIZATION,
        bias_regularization=_BIAS_REGULARIZATION,
        n_threads=n_threads,
    )


TASKS: dict[str, Task] = {
    "sgd.fastmf": train_fastmf,
    "sgd.fastmf_curve": train_fastmf_curve,
    "sgd.numpy": train_numpy,
    "sgd.libmf": train_libmf,
    "sgd.libmf_curve": train_libmf_curve,
    "sgd.surprise": train_surprise,
}
