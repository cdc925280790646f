"""Top-k: seconds to recommend to many users, beside the matrix product that any full scan contains.

Tasks called "top-k" score every pair, ``pruning=False``; the others leave out what cannot be among the best.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

import fastmf
from fastmf_bench.contest import Contestant
from fastmf_bench.pace import Pace, Task
from fastmf_bench.problems import SHAPES, Problem, Shape, from_split, open_problem
from fastmf_bench.results import OURS
from fastmf_bench.session import Session, Work
from fastmf_bench.suites.ceilings import COPY, SCORING, SCORING_ITEMS
from fastmf_kernels._types import Float32Array, Int32Array, Int64Array

N_FACTORS = 64
_SEEN = 100
_BATCH = 1000
_CHECKED_QUERIES, _CHECKED_SCORES = 200, 50_000_000
_LARGE_USERS = 5000
RANDOM, LARGE = "random factors", "random factors, 5k × 1M"
_RANKING = (*fastmf.metrics.RANKING_METRICS, "coverage")
REAL, _PARTS = "movielens-1m", ("train", "test")
PRUNED, QUERIES, EVALUATE = "top-10, seen left out", "one query at a time", "evaluate for all users"
RERANK = "10 of 100, re-ranked"
MATVEC, RECOMMEND_ALL = "matrix-vector product alone", "fastmf, recommend to all"
_TRAINED = (("ml-1m", 6040), ("ml-20m", 10_000), ("many-items", 1000))
_QUERY_ITEMS = 100_000
_QUERIES_A_LAP = 50


class Arrays(NamedTuple):
    """Factors to score with, and what each user has seen."""

    users: Float32Array
    items: Float32Array
    indptr: Int64Array
    seen: Int32Array

    def save(self, folder: Path) -> str:
        """Write the arrays to a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in self._asdict().items():
            np.save(folder / f"{name}.npy", array)
        return str(folder)

    @classmethod
    def load(cls, folder: str) -> "Arrays":
        """Read the arrays back."""
        return cls(*(np.load(Path(folder) / f"{name}.npy") for name in cls._fields))


def run(session: Session) -> None:
    """Race scans of random factors, then of trained factors, then single queries, evaluations, and re-ranking."""
    quick = session.options.quick
    random = random_arrays(2000 if quick else 20_000, SCORING_ITEMS, session.options.seed)
    folder = random.save(session.options.folder / "topk-random")
    for k in (10,) if quick else (10, 100):
        _race(session, f"top-{k}", RANDOM, folder, k, seen=False)
    _race(session, PRUNED, RANDOM, folder, 10, seen=True)
    if not quick:
        with session.noting(LARGE):
            large = random_arrays(_LARGE_USERS, 1_000_000, session.options.seed, 128)
            folder = large.save(session.options.folder / "topk-large")
            for k in (10, 100):
                _race(session, f"top-{k}", LARGE, folder, k, seen=False)
    for name, n_queries in _TRAINED[:1] if quick else _TRAINED:
        with session.noting(name):
            _race_trained(session, session.problem(SHAPES[name]), n_queries)
    if session.options.data is not None:
        with session.noting(REAL):
            train, test = (session.options.data / REAL / "splits" / f"pmf_demo_{part}.parquet" for part in _PARTS)
            _race_trained(session, from_split(REAL, train, test, session.options.folder), 6040)
    _race_queries(session)
    name = "ml-1m" if quick else "ml-20m"
    with session.noting(name):
        _race_evaluation(session, SHAPES[name])


def _race(session: Session, task: str, problem: str, folder: str, k: int, seen: bool) -> None:
    n_threads, pruning = session.options.n_threads, task == PRUNED
    common = {"folder": folder, "k": k}
    ours = {**common, "seen": seen, "n_threads": n_threads}
    other = f"{OURS}, {'full scan' if pruning else 'pruned'}"
    contestants = [
        Contestant(OURS, "topk.fastmf", {**ours, "pruning": pruning}),
        Contestant(other, "topk.fastmf", {**ours, "pruning": not pruning}),
        Contestant("matmul alone", "topk.matmul", {"folder": folder}),
    ]
    usual = problem == RANDOM
    if usual and not seen:
        contestants.append(Contestant("numpy", "topk.numpy", common))
        if session.has("faiss"):
            contestants.append(Contestant("faiss", "topk.faiss", {**common, "n_threads": n_threads}))
    if usual and session.has("implicit"):
        arguments = {**common, "seen": seen, "n_threads": n_threads}
        contestants.append(Contestant("implicit", "topk.implicit", arguments, blas_threads=1))
    shapes = [np.load(Path(folder) / f"{side}.npy", mmap_mode="r").shape for side in ("users", "items")]
    work = Work(2.0 * shapes[0][0] * shapes[1][0] * shapes[0][1], "flop", SCORING)
    session.race("topk", task, problem, {"n_factors": shapes[0][1], "k": k}, contestants, work)


def _race_queries(session: Session) -> None:
    folder = random_arrays(_QUERIES_A_LAP, _QUERY_ITEMS, session.options.seed).save(
        session.options.folder / "topk-queries"
    )
    contestants = [
        Contestant(OURS, "topk.fastmf_query", {"folder": folder, "k": 10, "indexed": False}),
        Contestant(f"{OURS}, in an index", "topk.fastmf_query", {"folder": folder, "k": 10, "indexed": True}),
        Contestant(MATVEC, "topk.matvec", {"folder": folder}, blas_threads=1),
    ]
    work = Work(_QUERIES_A_LAP, "queries", COPY, cost=4 * N_FACTORS * _QUERY_ITEMS)
    settings = {"n_factors": N_FACTORS, "k": 10, "n_threads": 1}
    session.race("topk", QUERIES, f"{_QUERY_ITEMS:,} random items", settings, contestants, work)


def _race_evaluation(session: Session, shape: Shape) -> None:
    problem, n_threads = session.problem(shape), session.options.n_threads
    model = problem.folder / "topk-model"
    if not model.exists():
        session.say(f"topk: training on {shape}")
        session.work("topk.train_model", {"problem": str(problem.folder), "model": str(model), "n_threads": n_threads})
    common = {"model": str(model), "n_threads": n_threads}
    contestants = [
        Contestant(OURS, "topk.evaluate", {**common, "problem": str(problem.folder)}),
        Contestant(RECOMMEND_ALL, "topk.recommend_all", common),
    ]
    settings = {"n_factors": N_FACTORS, "k": 10}
    session.race("topk", EVALUATE, problem.name, settings, contestants, Work(shape.n_users, "users"))
    contestants = [
        Contestant(f"{OURS}, diversified", "topk.recommend_reranked", {**common, "diversify": 0.3}),
        Contestant(f"{OURS}, the 100 alone", "topk.recommend_reranked", {**common, "diversify": None}),
    ]
    session.race("topk", RERANK, problem.name, settings, contestants, Work(shape.n_users, "users"))


def random_arrays(n_users: int, n_items: int, seed: int, n_factors: int = N_FACTORS) -> Arrays:
    """Draw factors from a normal distribution, and for each user 100 items that he has seen."""
    rng = np.random.default_rng(seed)
    # Squares of uniform numbers favour low indices, the popular items; adding 0, 1, 2, ... makes a user's items differ.
    seen = np.sort((rng.random((n_users, _SEEN)) ** 2 * (n_items - _SEEN)).astype(np.int32), axis=1)
    seen += np.arange(_SEEN, dtype=np.int32)
    return Arrays(
        rng.standard_normal((n_users, n_factors), np.float32),
        rng.standard_normal((n_items, n_factors), np.float32),
        np.arange(n_users + 1, dtype=np.int64) * _SEEN,
        seen.ravel(),
    )


def _race_trained(session: Session, problem: Problem, n_queries: int) -> None:
    folder = trained(session, problem, n_queries)
    _race(session, PRUNED, f"factors trained on {problem.name}", folder, 10, seen=True)


def trained(session: Session, problem: Problem, n_queries: int) -> str:
    """Return the folder of the factors of a model that was trained on a problem, with so many of its users."""
    folder = problem.folder / f"topk-{n_queries}"
    if not (folder / "seen.npy").exists():
        arguments = {"problem": str(problem.folder), "folder": str(folder), "n_queries": n_queries}
        session.say(f"topk: training on {problem.shape}")
        session.work("topk.train", {**arguments, "n_threads": session.options.n_threads})
    return str(folder)


def train(pace: Pace, problem: str, folder: str, n_queries: int, n_threads: int) -> dict[str, Any]:
    """Train `fastmf.ImplicitALS`, and keep the item factors and those of some users."""
    ratings = open_problem(problem).train()
    model = fastmf.ImplicitALS(n_factors=N_FACTORS, n_epochs=3, n_threads=n_threads).fit(ratings)
    rng = np.random.default_rng(0)
    users = np.sort(rng.choice(ratings.n_users, min(n_queries, ratings.n_users), replace=False))
    by_user = ratings.by_user
    seen = [np.sort(by_user.indices[by_user.indptr[u] : by_user.indptr[u + 1]]) for u in users]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in seen])]).astype(np.int64)
    Arrays(model.user_factors[users], model.item_factors, indptr, np.concatenate(seen)).save(Path(folder))
    return {}


def train_model(_: Pace, problem: str, model: str, n_threads: int) -> dict[str, Any]:
    """Save a model to evaluate."""
    ratings = open_problem(problem).train()
    fastmf.ImplicitALS(n_factors=N_FACTORS, n_epochs=3, n_threads=n_threads).fit(ratings).save(model)
    return {}


def evaluate(pace: Pace, model: str, problem: str, n_threads: int) -> dict[str, Any]:
    """Rank the test items of all users, by all usual metrics of rankings, as if the test part were new each time."""
    loaded, test = fastmf.load(model).set_params(n_threads=n_threads), open_problem(problem).test()
    metrics = fastmf.evaluate(loaded, test, k=10, metrics=_RANKING)
    while pace():
        fastmf.evaluate(loaded, replace(test), k=10, metrics=_RANKING)
    return {"ndcg@10": metrics["ndcg@10"], "users ranked": metrics["n_users"]}


def recommend_all(pace: Pace, model: str, n_threads: int) -> dict[str, Any]:
    """Recommend to all users, into memory."""
    loaded = fastmf.load(model).set_params(n_threads=n_threads)
    scan = loaded.recommend(k=10).scan
    while pace():
        loaded.recommend(k=10)
    return {"tiles skipped": scan.n_skipped / (scan.n_skipped + scan.n_screened), "pairs scored": scan.n_scored}


def recommend_reranked(pace: Pace, model: str, n_threads: int, diversify: float | None) -> dict[str, Any]:
    """Recommend 10 of the 100 best items to all users, re-ranked; or, without ``diversify``, find these 100 alone."""
    loaded = fastmf.load(model).set_params(n_threads=n_threads)
    rerank = None if diversify is None else fastmf.Reranking(diversify=diversify, n_candidates=100)
    k = 100 if rerank is None else 10
    found = loaded.recommend(k=k, rerank=rerank)
    while pace():
        loaded.recommend(k=k, rerank=rerank)
    return {"diversity": fastmf.metrics.diversity(found.items[:, :10], loaded.item_factors)}


def scan_fastmf(pace: Pace, folder: str, k: int, seen: bool, n_threads: int, pruning: bool) -> dict[str, Any]:
    """Recommend with `fastmf.top_k`."""
    arrays = Arrays.load(folder)
    exclude = (arrays.indptr, arrays.seen) if seen else None

    def work() -> Int32Array:
        items = fastmf.index_items(arrays.items, pruning=pruning)
        return fastmf.top_k(arrays.users, items, k, exclude=exclude, n_threads=n_threads).indices

    indices = work()
    while pace():
        work()
    return {"agreement": agreement(arrays, indices, k, seen)}


def scan_implicit(pace: Pace, folder: str, k: int, seen: bool, n_threads: int) -> dict[str, Any]:
    """Recommend with implicit."""
    from implicit.cpu.als import AlternatingLeastSquares

    arrays = Arrays.load(folder)
    model = AlternatingLeastSquares(factors=N_FACTORS, num_threads=n_threads)
    model.user_factors, model.item_factors = arrays.users, arrays.items
    values, shape = np.ones(len(arrays.seen), np.float32), (len(arrays.users), len(arrays.items))
    liked = scipy.sparse.csr_matrix((values, arrays.seen, arrays.indptr), shape=shape)
    users = np.arange(len(arrays.users))

    def work() -> Int32Array:
        return np.asarray(model.recommend(users, liked, N=k, filter_already_liked_items=seen)[0])

    indices = work()
    while pace():
        work()
    return {"agreement": agreement(arrays, indices, k, seen)}


def scan_faiss(pace: Pace, folder: str, k: int, n_threads: int) -> dict[str, Any]:
    """Search faiss's exact index."""
    import faiss

    arrays = Arrays.load(folder)
    faiss.omp_set_num_threads(n_threads)
    index = faiss.IndexFlatIP(N_FACTORS)
    index.add(arrays.items)
    indices = index.search(arrays.users, k)[1]
    while pace():
        index.search(arrays.users, k)
    return {"agreement": agreement(arrays, indices, k, seen=False)}


def scan_numpy(pace: Pace, folder: str, k: int) -> dict[str, Any]:
    """Multiply and partition, a batch of users at a time."""
    arrays = Arrays.load(folder)

    def work() -> Int32Array:
        best = np.empty((len(arrays.users), k), np.int32)
        for start in range(0, len(arrays.users), _BATCH):
            scores = arrays.users[start : start + _BATCH] @ arrays.items.T
            top = np.argpartition(scores, -k, axis=1)[:, -k:]
            order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1)
            best[start : start + _BATCH] = np.take_along_axis(top, order, axis=1)
        return best

    indices = work()
    while pace():
        work()
    return {"agreement": agreement(arrays, indices, k, seen=False)}


def scan_matmul(pace: Pace, folder: str) -> dict[str, Any]:
    """Multiply only, a batch of users at a time, into the same memory: no answer comes of it."""
    arrays = Arrays.load(folder)
    batch = min(_BATCH, max(1, (1 << 26) // len(arrays.items)))
    scores = np.empty((batch, len(arrays.items)), np.float32)
    while pace():
        for start in range(0, len(arrays.users), batch):
            part = arrays.users[start : start + batch]
            np.matmul(part, arrays.items.T, out=scores[: len(part)])
    return {"note": "no answer comes of it"}


def query_fastmf(pace: Pace, folder: str, k: int, indexed: bool) -> dict[str, Any]:
    """Ask `fastmf.top_k` for one user after the other."""
    arrays = Arrays.load(folder)
    items = fastmf.index_items(arrays.items) if indexed else arrays.items
    fastmf.top_k(arrays.users[:1], items, k, n_threads=1)
    while pace():
        for user in arrays.users:
            fastmf.top_k(user, items, k, n_threads=1)
    return {}


def query_matvec(pace: Pace, folder: str) -> dict[str, Any]:
    """Multiply the item factors with one user after the other."""
    arrays = Arrays.load(folder)
    scores = np.empty(len(arrays.items), np.float32)
    while pace():
        for user in arrays.users:
            np.matmul(arrays.items, user, out=scores)
    return {"note": "no answer comes of it"}


def agreement(arrays: Arrays, indices: Int32Array, k: int, seen: bool) -> float:
    """Return the share of the first users' items that exact float64 scores put among the first k, too."""
    n = min(_CHECKED_QUERIES, len(arrays.users), max(1, _CHECKED_SCORES // len(arrays.items)))
    scores = arrays.users[:n].astype(np.float64) @ arrays.items.astype(np.float64).T
    if seen:
        scores[np.repeat(np.arange(n), np.diff(arrays.indptr[: n + 1])), arrays.seen[: arrays.indptr[n]]] = -np.inf
    best = np.argsort(-scores, axis=1)[:, :k]
    return float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(best, indices[:n], strict=True)]) / k)


TASKS: dict[str, Task] = {
    "topk.train": train,
    "topk.train_model": train_model,
    "topk.evaluate": evaluate,
    "topk.recommend_all": recommend_all,
    "topk.recommend_reranked": recommend_reranked,
    "topk.fastmf": scan_fastmf,
    "topk.implicit": scan_implicit,
    "topk.faiss": scan_faiss,
    "topk.numpy": scan_numpy,
    "topk.matmul": scan_matmul,
    "topk.fastmf_query": query_fastmf,
    "topk.matvec": query_matvec,
}
