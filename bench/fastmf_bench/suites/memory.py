"""Peak memory of whole jobs, each in a process of its own: from a Parquet file to a model, from a model to a file."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import fastmf
from fastmf.common.machine import peak_bytes
from fastmf_bench import libmf
from fastmf_bench.contest import Contestant
from fastmf_bench.pace import Pace, Task
from fastmf_bench.problems import SHAPES, Problem, Shape, open_problem
from fastmf_bench.results import OURS
from fastmf_bench.session import Session, Work
from fastmf_bench.suites import als

_N_FACTORS = 64
TRAIN = "train, from a Parquet file"
RECOMMEND = "recommend to all users, to Parquet"
_RECOMMEND_SHAPE = Shape("138k-users", 138_000, 27_000, 5_000_000)
_RECOMMEND_SHAPE_QUICK = Shape("20k-users", 20_000, 5_000, 500_000)


def run(session: Session) -> None:
    """Train on each problem, and recommend to all users of a large one."""
    for problem in session.training_problems():
        _train(session, problem, all_models=True)
    if session.runs_usual_problems:
        with session.noting("netflix"):
            _train(session, session.problem(SHAPES["netflix"]), all_models=False)
    _recommend(session, session.problem(_RECOMMEND_SHAPE_QUICK if session.options.quick else _RECOMMEND_SHAPE))


def _train(session: Session, problem: Problem, all_models: bool) -> None:
    path = problem.folder / "train.parquet"
    if not path.exists():
        session.work("memory.write", {"folder": str(problem.folder), "path": str(path)})
    n_threads = session.options.n_threads
    common = {"n_factors": _N_FACTORS, "n_threads": n_threads}
    contestants = [
        Contestant(f"{OURS}, {model}", "memory.train", {**common, "path": str(path), "model": model})
        for model in ("SGD", "ImplicitALS", "ALS")[: None if all_models else 2]
    ]
    in_folder = {**common, "folder": str(problem.folder)}
    if all_models and session.has("implicit"):
        contestants.append(Contestant("implicit, cholesky", "memory.implicit", in_folder, blas_threads=1))
    if all_models and session.has("libmf"):
        program = str(session.options.libmf)
        contestants.append(Contestant("LIBMF", "memory.libmf", {**in_folder, "program": program}))
    for contestant in contestants:  # one by one: together they might not fit
        work = Work(problem.n_train, "ratings")
        session.race("memory", TRAIN, problem.name, {"n_factors": _N_FACTORS}, [contestant], work, n_laps=0)


def _recommend(session: Session, problem: Problem) -> None:
    model = problem.folder / "model"
    if not model.exists():
        session.work("memory.make_model", {"folder": str(problem.folder), "model": str(model)})
    arguments = {"model": str(model), "n_threads": session.options.n_threads}
    settings = {"n_factors": _N_FACTORS, "k": 10}
    contestants = [Contestant(OURS, "memory.recommend", arguments)]
    session.race("memory", RECOMMEND, problem.name, settings, contestants, Work(problem.shape.n_users, "users"), 0)


def write(_: Pace, folder: str, path: str) -> dict[str, Any]:
    """Write the training ratings to a Parquet file."""
    open_problem(folder).train().to_parquet(path, overwrite=True)
    return {}


def train(_: Pace, path: str, n_factors: int, n_threads: int, model: str) -> dict[str, Any]:
    """Read a Parquet file and train for an epoch."""
    _warm_up(model, n_factors)
    before = peak_bytes()
    ratings = fastmf.read_parquet(path)
    fitted = getattr(fastmf, model)(n_factors=n_factors, n_epochs=1, n_threads=n_threads).fit(ratings)
    factors = 4 * (ratings.n_users + ratings.n_items) * n_factors
    beyond = peak_bytes() - before - factors
    return {
        "bytes a rating": beyond / ratings.n_ratings,
        "MB before": before / 1e6,
        "seconds an epoch": fitted.history[0]["seconds"],
    }


def train_implicit(_: Pace, folder: str, n_factors: int, n_threads: int) -> dict[str, Any]:
    """Train implicit for an epoch on the ratings as a SciPy matrix; what it takes to get there is its own."""
    from implicit.cpu.als import AlternatingLeastSquares

    problem = open_problem(folder)
    before = peak_bytes()
    matrix = als.confidences(problem)
    AlternatingLeastSquares(factors=n_factors, use_cg=False, iterations=1, num_threads=n_threads).fit(matrix, False)
    factors = 4 * (problem.shape.n_users + problem.shape.n_items) * n_factors
    beyond = peak_bytes() - before - factors
    return {"bytes a rating": beyond / problem.n_train, "MB before": before / 1e6}


def train_libmf(_: Pace, folder: str, n_factors: int, n_threads: int, program: str) -> dict[str, Any]:
    """Train LIBMF for an epoch on its text file."""
    problem = open_problem(folder)
    settings = libmf.Settings(program, n_factors, n_threads, 0.05)
    peak = libmf.peak_of_training(settings, libmf.write_text(problem)[0])
    factors = 4 * (problem.shape.n_users + problem.shape.n_items) * n_factors
    return {"bytes a rating": (peak - factors) / problem.n_train, "peak_bytes": peak}


def make_model(_: Pace, folder: str, model: str) -> dict[str, Any]:
    """Save a model to recommend with."""
    ratings = open_problem(folder).train()
    fastmf.SGD(n_factors=_N_FACTORS, n_epochs=1).fit(ratings).save(model)
    return {}


def recommend(_: Pace, model: str, n_threads: int) -> dict[str, Any]:
    """Recommend to every user of a saved model."""
    _warm_up("SGD", _N_FACTORS)
    before = peak_bytes()
    output = Path(model).parent / "recommendations.parquet"
    loaded = fastmf.load(model).set_params(n_threads=n_threads)
    loaded.recommend_to_parquet(output, k=10, overwrite=True)
    size = sum(file.stat().st_size for file in Path(model).iterdir())
    beyond = peak_bytes() - before - size
    metrics = {"MB beyond the model": beyond / 1e6, "MB of the model": size / 1e6, "MB before": before / 1e6}
    return {**metrics, "rows": pq.read_metadata(output).num_rows}


def _warm_up(model: str, n_factors: int) -> None:
    """Load the libraries and the kernels, whose memory is not the job's."""
    ratings = fastmf.testing.power_law(300, 200, 3000)
    fitted = getattr(fastmf, model)(n_factors=n_factors, n_epochs=1).fit(ratings)
    fitted.recommend(k=1)


TASKS: dict[str, Task] = {
    "memory.write": write,
    "memory.train": train,
    "memory.implicit": train_implicit,
    "memory.libmf": train_libmf,
    "memory.make_model": make_model,
    "memory.recommend": recommend,
}
