"""Alternating least squares: seconds a sweep over both sides."""

import contextlib
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse

import fastmf
from fastmf.errors import FastMFError
from fastmf.models.least_squares import SOLVERS
from fastmf_bench import quality
from fastmf_bench.contest import Contestant
from fastmf_bench.pace import Lap, Pace, Task, clocks
from fastmf_bench.problems import SHAPES, Problem, open_problem
from fastmf_bench.results import OURS
from fastmf_bench.session import Session, Work
from fastmf_bench.suites.ceilings import SGEMM
from fastmf_kernels.layout.arrays import CSR

FACTORS = (64, 128)
# fastmf's solvers alone: all of them with the first number of factors, with the second those without a normal matrix.
MANY_FACTORS = (256, 512)
CURVE_FACTORS = (128, 256)
TO_OBJECTIVE = "objective over time"
_CURVE_EPOCHS = 10
# The weighting that all of these libraries have: confidence 1 + r on observed cells (Hu, Koren, Volinsky, ICDM 2008).
_ALPHA = 1.0
_REGULARIZATION = 1.0
_EXPLICIT_REGULARIZATION = 0.05
_SAMPLED_USERS = 500
# cmfrec reports no epochs: a lap takes four of them.
_CMFREC_LIMIT = 2_000_000
_CG_NOTE = "3 steps; rate as if exact"
_FOREVER = 1_000_000
WITH_FEATURES = "implicit sweep with features"
# Of each of these there are as many features as real tags and attributes have, drawn at random.
_N_FEATURES, _FEATURES_OF_A_ROW = 10_000, 10
_MAP_REGULARIZATION = 1.0


def run(session: Session) -> None:
    """Race sweeps of implicit ALS, then of explicit ALS, then fastmf on fewer threads."""
    for problem in session.training_problems():
        for n_factors in session.factors((64,) if session.options.quick else FACTORS):
            _race(session, problem, "implicit sweep", n_factors, _implicit_contestants(session, problem, n_factors))
        n_factors = session.factors((64,))[0]
        _race(session, problem, "explicit sweep", n_factors, _explicit_contestants(session, problem, n_factors))
        if session.options.quick:
            _race_with_features(session, problem)
        for n_threads in session.fewer_threads:
            ours = make_contestant(problem, n_factors, n_threads, SOLVERS[0])
            _race(session, problem, "implicit sweep", n_factors, [ours], n_threads)
    if session.runs_usual_problems:
        with session.noting("ml-1m"):
            problem = session.problem(SHAPES["ml-1m"])
            _race(session, problem, "implicit sweep", 64, _implicit_contestants(session, problem, 64))
            _race_with_features(session, problem)
        if not session.options.quick:
            with session.noting("ml-10m"):
                _race_with_many_factors(session, session.problem(SHAPES["ml-10m"]))


def _race_with_features(session: Session, problem: Problem) -> None:
    for n_factors in session.factors(FACTORS):
        _race(session, problem, WITH_FEATURES, n_factors, _contestants_with_features(session, problem, n_factors))


def _race_with_many_factors(session: Session, problem: Problem) -> None:
    n_threads = session.options.n_threads
    for n_factors in MANY_FACTORS:
        solvers = [solver for solver in SOLVERS if solver != "cholesky" or n_factors == MANY_FACTORS[0]]
        contestants = [make_contestant(problem, n_factors, n_threads, solver) for solver in solvers]
        _race(session, problem, "implicit sweep", n_factors, contestants)
    for n_factors in CURVE_FACTORS:
        common = {"folder": str(problem.folder), "n_factors": n_factors, "n_threads": n_threads}
        curves = [
            Contestant(f"{OURS}, {solver}", "als.fastmf_curve", {**common, "solver": solver})
            for solver in ("cholesky", "subspace")
        ]
        session.race("als", TO_OBJECTIVE, problem.name, {"n_factors": n_factors}, curves, n_laps=0)


def useful_flops(problem: Problem, n_factors: int) -> float:
    """Count the arithmetic of one exact sweep over both sides.

    The symmetric half of each row's normal matrix takes k² operations a rating, its Cholesky factor k³/3.
    """
    n_rows = problem.shape.n_users + problem.shape.n_items
    return 2.0 * problem.n_train * n_factors**2 + n_rows * n_factors**3 / 3


def _race(
    session: Session,
    problem: Problem,
    task: str,
    n_factors: int,
    contestants: list[Contestant],
    n_threads: int | None = None,
) -> None:
    settings = {"n_factors": n_factors} | ({} if n_threads is None else {"n_threads": n_threads})
    work = Work(useful_flops(problem, n_factors), "flop", SGEMM)
    session.race("als", task, problem.name, settings, contestants, work)


def make_contestant(problem: Problem, n_factors: int, n_threads: int, solver: str) -> Contestant:
    """Return the contestant that trains fastmf with one of its solvers."""
    arguments = {"folder": str(problem.folder), "n_factors": n_factors, "n_threads": n_threads, "solver": solver}
    return Contestant(f"{OURS}, {solver}", "als.fastmf", arguments)


def _implicit_contestants(session: Session, problem: Problem, n_factors: int) -> list[Contestant]:
    n_threads = session.options.n_threads
    common = {"folder": str(problem.folder), "n_factors": n_factors}
    contestants = [make_contestant(problem, n_factors, n_threads, solver) for solver in SOLVERS]
    contestants.append(Contestant("numpy", "als.numpy", common))
    for peer, solver in itertools.product(("implicit", "cmfrec"), ("cholesky", "cg")):
        too_slow = peer == "cmfrec" and (
            problem.n_train > _CMFREC_LIMIT or (session.options.quick and solver == "cholesky")
        )
        if session.has(peer) and not too_slow:
            arguments = {**common, "n_threads": n_threads, "use_cg": solver == "cg"}
            contestants.append(Contestant(f"{peer}, {solver}", f"als.{peer}", arguments, blas_threads=1))
    return contestants


def _explicit_contestants(session: Session, problem: Problem, n_factors: int) -> list[Contestant]:
    arguments = {"folder": str(problem.folder), "n_factors": n_factors, "n_threads": session.options.n_threads}
    return [Contestant(f"{OURS}, cholesky", "als.fastmf_explicit", arguments)]


def name_with(sides: Sequence[str]) -> str:
    """Return the name of the contestant that trains fastmf with features of some sides."""
    return f"{OURS}, features of {' and '.join(f'{side}s' for side in sides) or 'none'}"


def _contestants_with_features(session: Session, problem: Problem, n_factors: int) -> list[Contestant]:
    common = {"folder": str(problem.folder), "n_factors": n_factors, "n_threads": session.options.n_threads}
    return [
        Contestant(name_with(sides), "als.fastmf_with_features", {**common, "sides": sides})
        for sides in ((), ("item",), ("item", "user"))
    ]


def train_fastmf_with_features(
    pace: Pace, folder: str, n_factors: int, n_threads: int, sides: Sequence[str]
) -> dict[str, Any]:
    """Train `fastmf.ImplicitALS` with features of some sides, a sweep a lap."""
    train = open_problem(folder).train()
    model = fastmf.ImplicitALS(
        n_factors=n_factors,
        n_epochs=_FOREVER,
        item_feature_regularization=_MAP_REGULARIZATION,
        user_feature_regularization=_MAP_REGULARIZATION,
        n_threads=n_threads,
    ).fit(
        train,
        callbacks=[lambda *_: not pace()],
        item_features=_random_features(train.item_ids) if "item" in sides else None,
        user_features=_random_features(train.user_ids) if "user" in sides else None,
    )
    return {"epochs": len(model.history)}


def _random_features(ids: pa.Array) -> fastmf.Features:
    rng, n_ids = np.random.default_rng(0), len(ids)
    # Steps of at least 1 from one feature to the next of a row, so that they are distinct and ascend.
    steps = rng.integers(1, _N_FEATURES // _FEATURES_OF_A_ROW, (n_ids, _FEATURES_OF_A_ROW))
    columns = np.cumsum(steps, axis=1).ravel() - 1
    indptr = np.arange(n_ids + 1) * _FEATURES_OF_A_ROW
    rows = CSR(indptr, columns.astype(np.int32), np.ones(len(columns), np.float32))
    return fastmf.Features(ids, rows, tuple(map(str, range(_N_FEATURES))), np.zeros(_N_FEATURES, np.bool_))


def train_fastmf(pace: Pace, folder: str, n_factors: int, n_threads: int, solver: str) -> dict[str, Any]:
    """Train `fastmf.ImplicitALS`, a sweep a lap."""
    problem = open_problem(folder)
    model = fastmf.ImplicitALS(
        n_factors=n_factors,
        n_epochs=_FOREVER,
        weighting="hu",
        alpha=_ALPHA,
        regularization=_REGULARIZATION,
        solver=solver,
        n_threads=n_threads,
    ).fit(problem.train(), callbacks=[lambda *_: not pace()])
    return {"epochs": len(model.history), "NDCG@10": quality.ndcg(problem, model.user_factors, model.item_factors)}


def train_fastmf_curve(_: Pace, folder: str, n_factors: int, n_threads: int, solver: str) -> dict[str, Any]:
    """Train `fastmf.ImplicitALS` and tell the objective after each sweep."""
    model = fastmf.ImplicitALS(
        n_factors=n_factors,
        n_epochs=_CURVE_EPOCHS,
        weighting="hu",
        alpha=_ALPHA,
        regularization=_REGULARIZATION,
        solver=solver,
        n_threads=n_threads,
    )
    warm_up = fastmf.testing.power_law(300, 200, 3000)
    fastmf.ImplicitALS(n_factors=n_factors, n_epochs=1, solver=solver, n_threads=n_threads).fit(warm_up)
    model.fit(open_problem(folder).train())
    seconds = itertools.accumulate(record["seconds"] for record in model.history)
    curve = [(wall, record["objective"]) for wall, record in zip(seconds, model.history, strict=True)]
    return {"curve": curve, "objective": curve[-1][1]}


def train_fastmf_explicit(pace: Pace, folder: str, n_factors: int, n_threads: int) -> dict[str, Any]:
    """Train `fastmf.ALS`, a sweep a lap."""
    problem = open_problem(folder)
    model = fastmf.ALS(
        n_factors=n_factors, n_epochs=_FOREVER, regularization=_EXPLICIT_REGULARIZATION, n_threads=n_threads
    ).fit(problem.train(), callbacks=[lambda *_: not pace()])
    biases = model.fitted.factors.user_biases, model.fitted.factors.item_biases
    error = quality.rmse(problem, model.user_factors, model.item_factors, *biases, model.global_mean)
    return {"epochs": len(model.history), "test RMSE": error}


def train_numpy(pace: Pace, folder: str, n_factors: int) -> dict[str, Any]:
    """Solve the rows of some of the users, each with NumPy's matrix product and solver."""
    problem = open_problem(folder)
    rows = problem.train().by_user
    users = np.random.default_rng(0).choice(problem.shape.n_users, min(_SAMPLED_USERS, problem.shape.n_users), False)
    q = np.random.default_rng(1).standard_normal((problem.shape.n_items, n_factors), np.float32)
    gram = q.T @ q + _REGULARIZATION * np.eye(n_factors, dtype=np.float32)
    solved = np.empty((len(users), n_factors), np.float32)
    while pace():
        for place, user in enumerate(users):
            entries = slice(rows.indptr[user], rows.indptr[user + 1])
            seen, weight = q[rows.indices[entries]], _ALPHA * rows.values[entries]
            solved[place] = np.linalg.solve(gram + (seen.T * weight) @ seen, seen.T @ (1 + weight))
    n_ratings = int(np.diff(rows.indptr)[users].sum())
    work = n_ratings * n_factors**2 + len(users) * n_factors**3 / 3
    return {"work": work, "note": f"the rows of {len(users)} users"}


def train_implicit(pace: Pace, folder: str, n_factors: int, n_threads: int, use_cg: bool) -> dict[str, Any]:
    """Train implicit's ALS, a sweep a lap; it takes the whole confidence 1 + αr as the value of a cell."""
    from implicit.cpu.als import AlternatingLeastSquares

    problem = open_problem(folder)
    matrix = confidences(problem)
    model = AlternatingLeastSquares(
        factors=n_factors,
        regularization=_REGULARIZATION,
        use_cg=use_cg,
        iterations=_FOREVER,
        num_threads=n_threads,
        random_state=0,
    )
    epochs = 0

    def on_epoch(*_: Any) -> None:
        nonlocal epochs
        epochs += 1
        if not pace():
            raise _EnoughError

    with contextlib.suppress(_EnoughError):
        model.fit(matrix, show_progress=False, callback=on_epoch)
    metrics = {"epochs": epochs, "NDCG@10": quality.ndcg(problem, model.user_factors, model.item_factors)}
    return metrics | ({"note": _CG_NOTE} if use_cg else {})


def train_cmfrec(pace: Pace, folder: str, n_factors: int, n_threads: int, use_cg: bool) -> dict[str, Any]:
    """Train cmfrec's implicit model; it reports no epochs, so a lap is a run of three less a run of one, halved."""
    import cmfrec

    problem = open_problem(folder)
    matrix = confidences(problem).tocoo()
    matrix.data -= 1  # cmfrec adds the 1 itself

    def fit(n_epochs: int) -> tuple[Any, Lap]:
        model = cmfrec.CMF_implicit(
            k=n_factors,
            lambda_=_REGULARIZATION,
            alpha=_ALPHA,
            use_cg=use_cg,
            niter=n_epochs,
            nthreads=n_threads,
            precompute_for_predictions=False,
            random_state=1,
        )
        before = clocks()
        model.fit(matrix)
        after = clocks()
        return model, Lap(after.wall - before.wall, after.cpu - before.cpu)

    lap: Lap | None = None
    while pace(lap):
        (_, short), (model, long) = fit(1), fit(3)
        lap = Lap(*((b - a) / 2 for a, b in zip(short, long, strict=True)))
    metrics = {"epochs": 3, "NDCG@10": quality.ndcg(problem, model.A_, model.B_)}
    return metrics | ({"note": _CG_NOTE} if use_cg else {})


class _EnoughError(Exception):
    """Ends a training of implicit, which has no other way to stop early."""


def confidences(problem: Problem) -> "scipy.sparse.csr_matrix":
    """Return the ratings as confidences 1 + αr, in a SciPy matrix; see `require_full_work`."""
    rows = problem.train().by_user
    shape = (problem.shape.n_users, problem.shape.n_items)
    matrix = scipy.sparse.csr_matrix((1 + _ALPHA * rows.values, rows.indices, rows.indptr), shape=shape)
    require_full_work(matrix)
    return matrix


def require_full_work(matrix: "scipy.sparse.csr_matrix") -> None:
    """Refuse confidences on which a peer has less to do than fastmf.

    implicit's exact solver adds (c - 1) q qᵀ for each cell and skips the product where the confidence c is exactly 1;
    a confidence below 0 means dislike to it.

    Raises
    ------
    FastMFError
        If a confidence is 1 or less, or not a number.
    """
    n_skipped = int(np.count_nonzero(~(matrix.data > 1)))
    if n_skipped:
        raise FastMFError(
            f"{n_skipped:,} of {len(matrix.data):,} confidences are not above 1, where implicit does less work than "
            "fastmf; expected ratings above 0"
        )


TASKS: dict[str, Task] = {
    "als.fastmf": train_fastmf,
    "als.fastmf_curve": train_fastmf_curve,
    "als.fastmf_explicit": train_fastmf_explicit,
    "als.fastmf_with_features": train_fastmf_with_features,
    "als.numpy": train_numpy,
    "als.implicit": train_implicit,
    "als.cmfrec": train_cmfrec,
}
