"""Quality on real data sets with their splits, and error over time beside peers.

The data is not part of fastmf: ``--data`` names a directory with

- ``movielens-100k/splits/u{1..5}_{train,test}.parquet`` (the five official folds),
- ``movielens-1m/ratings.parquet`` and ``movielens-1m/splits/pmf_demo_{train,test}.parquet``,
- ``ncf-movielens-1m/{train,test,test_negatives}.parquet`` (He et al., "Neural Collaborative Filtering", WWW 2017),
- ``citeulike-a/splits/cmn_{train,test,test_negatives}.parquet`` (Ebesu, Shen, Fang, "Collaborative Memory Network",
  SIGIR 2018),
- ``movielens-1m-topn/splits/0_{train,test}.parquet`` (Anelli et al., "Top-N Recommendation Algorithms", UMAP 2022),

with columns ``user_id``, ``item_id`` and, in ratings, ``rating``.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

import fastmf
from fastmf.models import MODELS
from fastmf.models.least_squares import SOLVERS
from fastmf_bench import problems
from fastmf_bench.contest import Contestant
from fastmf_bench.pace import Pace, Task
from fastmf_bench.problems import open_problem
from fastmf_bench.quality import Curve, ndcg, of_errors, of_rankings
from fastmf_bench.results import OURS
from fastmf_bench.session import Session
from fastmf_bench.suites import als, sgd
from fastmf_bench.suites.quality_settings import SETTINGS_1M, SETTINGS_100K, SETTINGS_TOPN

IntArray = npt.NDArray[np.int64]

MOVIELENS_100K = "movielens-100k"
MOVIELENS_1M = "movielens-1m"
NCF_MOVIELENS_1M = "ncf-movielens-1m"
CITEULIKE = "citeulike-a"
TOPN = "movielens-1m-topn"
PARTS = ("train", "test")
OF_SOLVERS = "NDCG@10 over time, solvers"
_RMSE_GOAL = 0.86
_NDCG_GOAL = 0.31
_CURVE_FACTORS = 64
_SURPRISE_EPOCHS = (5, 10, 20)


# Protocols that measure every model that has settings for them; the first one is the one of the protocol.
_SETTINGS = {MOVIELENS_100K: SETTINGS_100K, MOVIELENS_1M: SETTINGS_1M, TOPN: SETTINGS_TOPN}


def run(session: Session) -> None:
    """Measure each protocol whose data is there, then error over time."""
    data = session.options.data
    if data is None:
        session.leave_out("quality", "it needs real data, in the directory that --data names")
        return
    quick = session.options.quick
    seeds = session.options.seeds[: 1 if quick else None]
    for name, model in _PROTOCOLS.items():
        if quick and name != MOVIELENS_100K:
            continue
        if _is_there(session, data / name):
            arguments = {"folder": str(data / name), "seeds": seeds, "n_threads": session.options.n_threads}
            contestant = Contestant(f"{OURS}, {model}", f"quality.{name}", arguments)
            contestants = [contestant]
            if name == NCF_MOVIELENS_1M:
                contestants += [
                    Contestant(f"{OURS}, {model}, {solver}", f"quality.{name}", {**arguments, "solver": solver})
                    for solver in SOLVERS[1:]
                ]
            contestants += [
                Contestant(f"{OURS}, {other}", f"quality.{name}", {**arguments, "model": other})
                for other in tuple(_SETTINGS.get(name, ()))[1:]
            ]
            if name == MOVIELENS_1M and session.has("surprise"):
                contestants.append(Contestant("Surprise, SVD", "quality.surprise_folds", {"folder": str(data / name)}))
            session.race("quality", "protocol", name, {"seeds": len(seeds)}, contestants, n_laps=0)
    if not quick:
        _race_to_rmse(session, data / MOVIELENS_1M / "splits")
        _race_to_ndcg(session, data / TOPN / "splits")


def _is_there(session: Session, folder: Path) -> bool:
    if not folder.is_dir():
        session.note(f"quality: {folder} is not there; left out")
    return folder.is_dir()


def _race_to_rmse(session: Session, splits: Path) -> None:
    if not _is_there(session, splits):
        return
    files = splits / "pmf_demo_train.parquet", splits / "pmf_demo_test.parquet"
    problem = problems.from_split(MOVIELENS_1M, *files, session.options.folder)
    arguments = {"folder": str(problem.folder), "n_threads": session.options.n_threads}
    curve = {**arguments, "n_factors": _CURVE_FACTORS, "n_epochs": 40, "goal": _RMSE_GOAL}
    contestants = [
        Contestant(f"{OURS}, SGD", "sgd.fastmf_curve", curve),
        Contestant(f"{OURS}, ALS", "quality.als_curve", arguments),
    ]
    if session.has("libmf"):
        contestants.append(Contestant("LIBMF", "sgd.libmf_curve", {**curve, "program": str(session.options.libmf)}))
    if session.has("surprise"):
        contestants.append(Contestant("Surprise", "quality.surprise_curve", {"folder": str(problem.folder)}))
    settings = {"n_factors": _CURVE_FACTORS, "goal": _RMSE_GOAL}
    session.race("quality", "RMSE over time", MOVIELENS_1M, settings, contestants, n_laps=0)


def _race_to_ndcg(session: Session, splits: Path) -> None:
    if not _is_there(session, splits):
        return
    problem = problems.from_split(TOPN, splits / "0_train.parquet", splits / "0_test.parquet", session.options.folder)
    arguments = {"folder": str(problem.folder), "n_threads": session.options.n_threads}
    contestants = [Contestant(f"{OURS}, ImplicitALS", "quality.implicit_als_curve", arguments)]
    if session.has("implicit"):
        contestants += [
            Contestant(f"implicit, {solver}", "quality.implicit_curve", {**arguments, "use_cg": solver == "cg"}, 1)
            for solver in ("cholesky", "cg")
        ]
    settings = {"n_factors": _CURVE_FACTORS, "goal": _NDCG_GOAL}
    session.race("quality", "NDCG@10 over time", TOPN, settings, contestants, n_laps=0)
    for n_factors in als.CURVE_FACTORS:
        contestants = [
            Contestant(
                f"{OURS}, {solver}", "quality.solver_curve", {**arguments, "n_factors": n_factors, "solver": solver}
            )
            for solver in SOLVERS
        ]
        session.race("quality", OF_SOLVERS, TOPN, {"n_factors": n_factors}, contestants, n_laps=0)


def movielens_100k(_: Pace, folder: str, seeds: Sequence[int], n_threads: int, model: str = "SGD") -> dict[str, Any]:
    """Measure a model on the five official folds: mean RMSE over folds, and of u1 alone.

    The hyper-parameters were chosen by looking at these folds, as for the published results.
    """
    splits = Path(folder) / "splits"

    def fold_rmse(fold: int, seed: int) -> float:
        train, test = (fastmf.read_parquet(splits / f"u{fold}_{part}.parquet") for part in PARTS)
        return _fitted_rmse(model, SETTINGS_100K[model], seed, n_threads, train, test)

    def measure(seed: int) -> dict[str, float]:
        errors = [fold_rmse(fold, seed) for fold in range(1, 6)]
        return {"mean RMSE of u1..u5": float(np.mean(errors)), "RMSE of u1": errors[0]}

    return _over_seeds(seeds, measure)


def movielens_1m(_: Pace, folder: str, seeds: Sequence[int], n_threads: int, model: str = "SGD") -> dict[str, Any]:
    """Measure a model on five random folds; seeds change the folds, too."""
    ratings = fastmf.read_parquet(Path(folder) / "ratings.parquet")

    def measure(seed: int) -> dict[str, float]:
        folds = fastmf.split.k_fold(ratings, 5, seed)
        errors = [_fitted_rmse(model, SETTINGS_1M[model], seed, n_threads, *fold) for fold in folds]
        return {"mean RMSE of 5 folds": float(np.mean(errors))}

    return _over_seeds(seeds, measure)


def _fitted_rmse(
    model: str,
    settings: dict[str, Any],
    seed: int,
    n_threads: int,
    train: fastmf.Interactions,
    test: fastmf.Interactions,
) -> float:
    fitted = MODELS[model](**settings, seed=seed, n_threads=n_threads).fit(train)
    return float(fastmf.evaluate(fitted, test, metrics=["rmse"])["rmse"])


def surprise_folds(_: Pace, folder: str) -> dict[str, Any]:
    """Measure Surprise's SVD with its own settings on five random folds, and time one epoch of its SVD++ on the first.

    An epoch of its SVD++ takes as long as many of fastmf's trainings: a whole one would take a quarter of an hour.
    """
    import surprise

    ratings = fastmf.read_parquet(Path(folder) / "ratings.parquet")
    errors, seconds, epoch = [], 0.0, 0.0
    for train, test in fastmf.split.k_fold(ratings, 5, 0):
        trainset = sgd.surprise_trainset(train)
        started = time.perf_counter()
        model = surprise.SVD(random_state=0).fit(trainset)
        seconds += time.perf_counter() - started
        pairs = zip(test.users.tolist(), test.items.tolist(), strict=True)
        errors.append(fastmf.metrics.rmse(test.ratings, [model.predict(*pair).est for pair in pairs]))
        if not epoch:
            started = time.perf_counter()
            surprise.SVDpp(n_epochs=1, random_state=0).fit(trainset)
            epoch = time.perf_counter() - started
    metrics = {"mean RMSE of 5 folds": float(np.mean(errors)), "seconds of one SVD++ epoch": epoch}
    return {"seconds": seconds, **metrics, "note": "one thread; one seed; seconds of training alone"}


def ncf_movielens_1m(
    _: Pace, folder: str, seeds: Sequence[int], n_threads: int, solver: str = "cholesky"
) -> dict[str, Any]:
    """Measure iALS on leave-one-out with 99 sampled negatives, settings of Rendle et al. (RecSys 2022)."""
    settings = {"n_factors": 192, "n_epochs": 12, "regularization": 0.007, "unobserved_weight": 0.3, "solver": solver}
    return _leave_one_out(Path(folder), "", seeds, {**settings, "n_threads": n_threads})


def citeulike(_: Pace, folder: str, seeds: Sequence[int], n_threads: int) -> dict[str, Any]:
    """Measure iALS on leave-one-out with 100 sampled negatives.

    Of 79 settings, this one ranked items best that were held out of the training part, one a user, among 100 items of
    the catalogue. The published results (iALS: HR@10 0.9006, NDCG@10 0.7313) come with the remark that 1115 negatives
    are items which their user has in training.
    """
    settings = {"n_factors": 256, "n_epochs": 8, "regularization": 0.02, "unobserved_weight": 0.006}
    return _leave_one_out(Path(folder) / "splits", "cmn_", seeds, {**settings, "n_threads": n_threads})


def _leave_one_out(folder: Path, prefix: str, seeds: Sequence[int], settings: dict[str, Any]) -> dict[str, Any]:
    train = fastmf.read_parquet(folder / f"{prefix}train.parquet", rating=None)
    test, negatives, seen = (_pairs(folder / f"{prefix}{part}.parquet") for part in ("test", "test_negatives", "train"))
    unseen = ~np.isin(_codes(negatives), _codes(seen))

    def measure(seed: int) -> dict[str, float]:
        model = fastmf.ImplicitALS(**settings, seed=seed).fit(train)
        metrics = dict(zip(("HR@10", "NDCG@10"), leave_one_out(model.predict, test, negatives, k=10), strict=True))
        if not unseen.all():
            kept = negatives[0][unseen], negatives[1][unseen]
            metrics["NDCG@10, unseen negatives"] = leave_one_out(model.predict, test, kept, k=10)[1]
        return metrics

    return _over_seeds(seeds, measure)


def movielens_1m_topn(
    _: Pace, folder: str, seeds: Sequence[int], n_threads: int, model: str = "ImplicitALS"
) -> dict[str, Any]:
    """Measure a model on the five hold-outs, all items ranked that the user has not in training.

    Of 75 settings of iALS and 12 of BPR, these ranked a fifth of the first hold-out's training part best.
    """
    splits = Path(folder) / "splits"

    def measure(seed: int) -> dict[str, float]:
        found = []
        for fold in range(5):
            train, test = (fastmf.read_parquet(splits / f"{fold}_{part}.parquet", rating=None) for part in PARTS)
            fitted = MODELS[model](**SETTINGS_TOPN[model], seed=seed, n_threads=n_threads).fit(train)
            found.append(fastmf.evaluate(fitted, test, k=10, metrics=["ndcg", "recall"]))
        return {name: float(np.mean([one[name] for one in found])) for name in ("ndcg@10", "recall@10")}

    return _over_seeds(seeds, measure)


def _over_seeds(seeds: Sequence[int], measure: Callable[[int], dict[str, float]]) -> dict[str, Any]:
    """Measure with each seed: the mean of each metric, its spread, and the seconds that one seed took."""
    started = time.perf_counter()
    found = [measure(seed) for seed in seeds]
    metrics: dict[str, Any] = {"seconds": (time.perf_counter() - started) / len(seeds)}
    for name in found[0]:
        values = [one[name] for one in found]
        metrics |= {name: float(np.mean(values)), f"{name}, spread": float(np.ptp(values))}
    return metrics


def leave_one_out(
    predict: Callable[[IntArray, IntArray], npt.NDArray[np.float32]],
    test: tuple[IntArray, IntArray],
    negatives: tuple[IntArray, IntArray],
    k: int,
) -> tuple[float, float]:
    """Rank the test item of each user among the sampled negatives of that user: hit rate and NDCG at k.

    A negative listed twice counts once, and one that is the test item itself not at all, as in the original evaluation.
    Of equal scores the test item comes last.

    Parameters
    ----------
    predict : callable
        Scores of (user ids, item ids).
    test : (user ids, item ids)
        One row a user.
    negatives : (user ids, item ids)
        In long form.
    k : int

    Returns
    -------
    hit_rate, ndcg : float
    """
    order = np.argsort(test[0])
    users, items = test[0][order], test[1][order]
    scores = predict(users, items)
    pairs = np.unique(np.stack(negatives), axis=1)
    row = np.searchsorted(users, pairs[0])
    other = pairs[1] != items[row]
    at_least_as_good = predict(pairs[0][other], pairs[1][other]) >= scores[row[other]]
    rank = np.bincount(row[other][at_least_as_good], minlength=len(users))
    hit = rank < k
    return float(hit.mean()), float((hit / np.log2(rank + 2)).mean())


def _codes(pairs: tuple[IntArray, IntArray]) -> IntArray:
    return pairs[0] * (1 << 32) + pairs[1]


def _pairs(path: Path) -> tuple[IntArray, IntArray]:
    table = pq.read_table(path, columns=["user_id", "item_id"])
    return table["user_id"].to_numpy(), table["item_id"].to_numpy()


def als_curve(_: Pace, folder: str, n_threads: int) -> dict[str, Any]:
    """Train `fastmf.ALS`, evaluated after each sweep."""
    model = fastmf.ALS(n_factors=_CURVE_FACTORS, n_epochs=15, regularization=0.05, n_threads=n_threads)
    return of_errors(sgd.validated(model, open_problem(folder)), _RMSE_GOAL)


def surprise_curve(_: Pace, folder: str) -> dict[str, Any]:
    """Train Surprise's SVD from the start for several numbers of epochs, since it reports none in between."""
    problem = open_problem(folder)
    trainset, test, curve = sgd.surprise_trainset(problem.train()), problem.test(), []
    for n_epochs in _SURPRISE_EPOCHS:
        model = sgd.surprise_model(_CURVE_FACTORS, n_epochs, learning_rate=0.01)
        started = time.perf_counter()
        model.fit(trainset)
        seconds = time.perf_counter() - started
        pairs = zip(test.users.tolist(), test.items.tolist(), strict=True)
        curve.append((seconds, fastmf.metrics.rmse(test.ratings, [model.predict(*pair).est for pair in pairs])))
    return of_errors(curve, _RMSE_GOAL)


def implicit_als_curve(_: Pace, folder: str, n_threads: int) -> dict[str, Any]:
    """Train `fastmf.ImplicitALS`, evaluated after each sweep."""
    return of_rankings(_evaluated_sweeps(folder, n_threads, _CURVE_FACTORS, "cholesky", 12), _NDCG_GOAL)


def solver_curve(_: Pace, folder: str, n_threads: int, n_factors: int, solver: str) -> dict[str, Any]:
    """Train `fastmf.ImplicitALS` with one of its solvers, evaluated after each sweep: 10 of the exact one, else 20."""
    n_epochs = 10 if solver == "cholesky" else 20
    return of_rankings(_evaluated_sweeps(folder, n_threads, n_factors, solver, n_epochs), _NDCG_GOAL)


def _evaluated_sweeps(folder: str, n_threads: int, n_factors: int, solver: str, n_epochs: int) -> Curve:
    problem, seconds = open_problem(folder), 0.0
    curve: Curve = []

    def on_epoch(model: fastmf.ImplicitALS, record: dict[str, Any]) -> None:
        nonlocal seconds
        seconds += record["seconds"]
        curve.append((seconds, ndcg(problem, model.user_factors, model.item_factors)))

    settings: dict[str, Any] = {"n_factors": n_factors, "regularization": 0.01, "unobserved_weight": 0.3}
    settings["solver"] = solver
    fastmf.ImplicitALS(**settings, n_epochs=1, n_threads=n_threads).fit(fastmf.testing.power_law(300, 200, 3000))
    fastmf.ImplicitALS(**settings, n_epochs=n_epochs, n_threads=n_threads).fit(problem.train(), callbacks=[on_epoch])
    return curve


def implicit_curve(_: Pace, folder: str, n_threads: int, use_cg: bool) -> dict[str, Any]:
    """Train implicit's ALS, evaluated after each sweep.

    A confidence of 1 / 0.3 on observed cells and 1 elsewhere is the unobserved weight of 0.3 that fastmf has, scaled.
    """
    import scipy.sparse
    from implicit.cpu.als import AlternatingLeastSquares

    problem, curve, seconds = open_problem(folder), [], 0.0
    rows = problem.train().by_user
    shape = (problem.shape.n_users, problem.shape.n_items)
    confidences = np.full(len(rows.indices), 1 / 0.3, np.float32)

    def on_epoch(_: int, lap: float, __: object) -> None:
        nonlocal seconds
        seconds += lap
        curve.append((seconds, ndcg(problem, model.user_factors, model.item_factors)))

    model = AlternatingLeastSquares(
        factors=_CURVE_FACTORS, regularization=20.0, use_cg=use_cg, iterations=12, num_threads=n_threads, random_state=0
    )
    matrix = scipy.sparse.csr_matrix((confidences, rows.indices, rows.indptr), shape)
    als.require_full_work(matrix)
    model.fit(matrix, show_progress=False, callback=on_epoch)
    return of_rankings(curve, _NDCG_GOAL)


_PROTOCOLS = {
    MOVIELENS_100K: "SGD",
    NCF_MOVIELENS_1M: "ImplicitALS",
    CITEULIKE: "ImplicitALS",
    TOPN: "ImplicitALS",
    MOVIELENS_1M: "SGD",
}

TASKS: dict[str, Task] = {
    f"quality.{MOVIELENS_100K}": movielens_100k,
    f"quality.{MOVIELENS_1M}": movielens_1m,
    f"quality.{NCF_MOVIELENS_1M}": ncf_movielens_1m,
    f"quality.{CITEULIKE}": citeulike,
    f"quality.{TOPN}": movielens_1m_topn,
    "quality.als_curve": als_curve,
    "quality.surprise_curve": surprise_curve,
    "quality.surprise_folds": surprise_folds,
    "quality.implicit_als_curve": implicit_als_curve,
    "quality.implicit_curve": implicit_curve,
    "quality.solver_curve": solver_curve,
}
