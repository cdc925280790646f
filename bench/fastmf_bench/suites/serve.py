"""Serving: top-10 of one user at a time, asked for by 1, 2, 4 and 8 threads, and the first request of a process.

Each thread of a contestant asks for one user after the other. Laps are of the same number of requests on every number
of threads; the latencies of all laps together give the median and the 99th percentile.
"""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse

import fastmf
from fastmf.answering.fitted import Fitted
from fastmf_bench.contest import Contestant
from fastmf_bench.pace import Lap, Pace, Task
from fastmf_bench.problems import SHAPES
from fastmf_bench.results import OURS
from fastmf_bench.session import Session, Work
from fastmf_bench.suites import startup, topk
from fastmf_bench.suites.ceilings import COPY
from fastmf_bench.suites.topk import MATVEC, N_FACTORS, Arrays
from fastmf_kernels._types import Float32Array, Int32Array
from fastmf_kernels.predict.arrays import Factors, make_link
from fastmf_kernels.topk.arrays import Rows

ONE_USER, FIRST = "top-10 of one user", "first request in a fresh process"
RANDOM = "100k random items"
MEDIAN, P99 = "median ms", "p99 ms"
CALLERS = (1, 2, 4, 8)
_K = 10
_REQUESTS_A_LAP = 1600
_ITEMS, _USERS = 100_000, 2000
_FILTER = "even"

_FIRST_REQUEST = """
import json, sys, time
wall, cpu = time.perf_counter(), time.process_time()
import fastmf
fastmf.Recommender(sys.argv[1]).recommend(7, k=10)
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]))
"""


def run(session: Session) -> None:
    """Race single requests on random factors, first requests, and single requests on trained factors."""
    quick = session.options.quick
    random = topk.random_arrays(_USERS, _ITEMS, session.options.seed)
    folder = random.save(session.options.folder / "serve-random")
    for callers in CALLERS[:2] if quick else CALLERS:
        _race(session, RANDOM, folder, callers)
    _race_first_request(session)
    name, n_users = ("ml-1m", 6040) if quick else ("ml-20m", 10_000)
    with session.noting(name):
        folder = topk.trained(session, session.problem(SHAPES[name]), n_users)
        for callers in CALLERS[:1] if quick else CALLERS:
            _race(session, f"factors trained on {name}", folder, callers)


def _race(session: Session, problem: str, folder: str, callers: int) -> None:
    common = {"folder": folder, "callers": callers}
    contestants = [
        Contestant(OURS, "serve.fastmf", common),
        Contestant(f"{OURS}, seen left out", "serve.fastmf", {**common, "seen": True}),
        Contestant(f"{OURS}, a named filter", "serve.fastmf", {**common, "filtered": True}),
        Contestant(MATVEC, "serve.matvec", common, blas_threads=1),
        Contestant("numpy, with argpartition", "serve.numpy", common, blas_threads=1),
    ]
    if session.has("implicit"):
        contestants.append(Contestant("implicit", "serve.implicit", common, blas_threads=1))
        contestants.append(Contestant("implicit, seen left out", "serve.implicit", {**common, "seen": True}, 1))
    n_items = len(np.load(Path(folder) / "items.npy", mmap_mode="r"))
    work = Work(_REQUESTS_A_LAP, "requests", COPY, cost=4 * N_FACTORS * n_items)
    settings = {"n_factors": N_FACTORS, "k": _K, "callers": callers, "n_threads": 1}
    session.race("serve", ONE_USER, problem, settings, contestants, work)


def _race_first_request(session: Session) -> None:
    folder = session.options.folder / "serve-model"
    if not folder.exists():
        session.work("serve.save", {"arrays": str(session.options.folder / "serve-random"), "model": str(folder)})
    contestants = [Contestant(OURS, "serve.first_request", {"model": str(folder)})]
    session.race("serve", FIRST, RANDOM, {"n_factors": N_FACTORS, "k": _K}, contestants)


def recommend_with_fastmf(
    pace: Pace, folder: str, callers: int, seen: bool = False, filtered: bool = False
) -> dict[str, Any]:
    """Ask `fastmf.Recommender`; all items may be recommended, as by the other contestants."""
    arrays = Arrays.load(folder)
    recommender = fastmf.Recommender(_model(arrays), filters={_FILTER: np.arange(len(arrays.items)) % 2 == 0})
    request: dict[str, Any] = {"exclude": "seen" if seen else None, "cold": "include"}
    if filtered:
        request["filters"] = _FILTER
    recommender.warmup(_K)

    def ask(user: int) -> Int32Array:
        return np.asarray(recommender.recommend(user, _K, **request).items[0])

    shown = arrays._replace(items=_without_odd(arrays.items)) if filtered else arrays
    return _serve(pace, ask, callers, shown, seen)


def recommend_with_implicit(pace: Pace, folder: str, callers: int, seen: bool = False) -> dict[str, Any]:
    """Ask implicit's model."""
    from implicit.cpu.als import AlternatingLeastSquares

    arrays = Arrays.load(folder)
    model = AlternatingLeastSquares(factors=N_FACTORS, num_threads=1)
    model.user_factors, model.item_factors = arrays.users, arrays.items
    values, shape = np.ones(len(arrays.seen), np.float32), (len(arrays.users), len(arrays.items))
    liked = scipy.sparse.csr_matrix((values, arrays.seen, arrays.indptr), shape=shape)

    def ask(user: int) -> Int32Array:
        return np.asarray(model.recommend(user, liked[user], N=_K, filter_already_liked_items=seen)[0])

    return _serve(pace, ask, callers, arrays, seen)


def recommend_with_numpy(pace: Pace, folder: str, callers: int) -> dict[str, Any]:
    """Multiply and partition."""
    arrays = Arrays.load(folder)

    def ask(user: int) -> Int32Array:
        scores = arrays.items @ arrays.users[user]
        top = np.argpartition(scores, -_K)[-_K:]
        return np.asarray(top[np.argsort(-scores[top])])

    return _serve(pace, ask, callers, arrays, seen=False)


def multiply(pace: Pace, folder: str, callers: int) -> dict[str, Any]:
    """Multiply the item factors with one user after the other, each thread into memory of its own."""
    arrays, local = Arrays.load(folder), threading.local()

    def ask(user: int) -> None:
        if not hasattr(local, "scores"):
            local.scores = np.empty(len(arrays.items), np.float32)
        np.matmul(arrays.items, arrays.users[user], out=local.scores)

    return {**_timed(pace, ask, callers, len(arrays.users)), "note": "no answer comes of it"}


def save(_: Pace, arrays: str, model: str) -> dict[str, Any]:
    """Save a model with given factors."""
    _model(Arrays.load(arrays)).save(model)
    return {}


def first_request(pace: Pace, model: str) -> dict[str, Any]:
    """Import, load and ask in a new interpreter, a lap each, with a warm kernel cache."""
    startup.run_source(_FIRST_REQUEST, model, cached=True)  # fills the cache
    lap: Lap | None = None
    while pace(lap):
        lap = startup.run_source(_FIRST_REQUEST, model, cached=True)
    return {"peak_bytes": 0}


def _serve(pace: Pace, ask: Callable[[int], Int32Array], callers: int, arrays: Arrays, seen: bool) -> dict[str, Any]:
    """Check answers, then time them."""
    n_checked = min(50, len(arrays.users))
    answers = np.array([ask(user) for user in range(n_checked)])
    few = Arrays(arrays.users[:n_checked], arrays.items, arrays.indptr[: n_checked + 1], arrays.seen)
    return {**_timed(pace, ask, callers, len(arrays.users)), "agreement": topk.agreement(few, answers, _K, seen)}


def _timed(pace: Pace, ask: Callable[[int], object], callers: int, n_users: int) -> dict[str, Any]:
    """Let callers ask at the same time, lap by lap, and return quantiles of all their waiting times."""
    shares = np.array_split(np.random.default_rng(0).permutation(_REQUESTS_A_LAP) % n_users, callers)
    latencies: list[list[float]] = []

    def call(users: Sequence[int], start: threading.Barrier, found: list[float]) -> None:
        start.wait()
        for user in users:
            before = time.perf_counter()
            ask(user)
            found.append(time.perf_counter() - before)

    _lap(call, shares)
    while pace():
        latencies += _lap(call, shares)
    waited = 1000 * np.array([seconds for of_caller in latencies for seconds in of_caller])
    if not len(waited):
        return {}
    return {MEDIAN: float(np.median(waited)), P99: float(np.quantile(waited, 0.99))}


def _lap(call: Callable[[Sequence[int], threading.Barrier, list[float]], None], shares: Sequence[Any]) -> Any:
    start, found = threading.Barrier(len(shares)), [[] for _ in shares]  # type: ignore[var-annotated]
    threads = [
        threading.Thread(target=call, args=(users.tolist(), start, mine))
        for users, mine in zip(shares, found, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def _model(arrays: Arrays) -> fastmf.ImplicitALS:
    """Return a fitted model with these factors; ids are the indices."""
    (n_users, n_factors), n_items = arrays.users.shape, len(arrays.items)
    zeros = np.zeros(n_users, np.float32), np.zeros(n_items, np.float32)
    fitted = Fitted(
        Factors(arrays.users, arrays.items, *zeros, np.float32(0)),
        make_link(None),
        pa.array(np.arange(n_users)),
        pa.array(np.arange(n_items)),
        Rows(arrays.indptr, arrays.seen),
        {"n_users": n_users, "n_items": n_items, "n_ratings": len(arrays.seen), "mean": 1.0, "fingerprint": ""},
    )
    model = fastmf.ImplicitALS(n_factors=n_factors, n_threads=1)
    model.restore(fitted, [])
    return model


def _without_odd(items: Float32Array) -> Float32Array:
    """Return items of which the odd ones score nothing."""
    shown = items.copy()
    shown[1::2] = 0
    return shown


TASKS: dict[str, Task] = {
    "serve.fastmf": recommend_with_fastmf,
    "serve.implicit": recommend_with_implicit,
    "serve.numpy": recommend_with_numpy,
    "serve.matvec": multiply,
    "serve.save": save,
    "serve.first_request": first_request,
}
