"""What the contestants of the suite "cuda" do."""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fastmf
from fastmf.backend import get_backend
from fastmf.models.least_squares import SOLVERS
from fastmf_bench.pace import Pace, Task
from fastmf_kernels._types import Float32Array
from fastmf_kernels.als.arrays import HalfSweep, Solver, Table, Weighting
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Factors, make_link
from fastmf_kernels.sgd.arrays import Step, first_row_steps
from fastmf_kernels.sgd.schedule import make_blocks, shuffled_strata
from fastmf_kernels.topk.arrays import no_rows

# With these exponents the most active user has the share of all ratings that one has in MovieLens-20M and the Netflix
# Prize (0.05 % and 0.02 %), and the most popular item (0.3 % and 0.2 %).
_SKEW_OF_USERS, _SKEW_OF_ITEMS = 1.5, 1.7
_CG_STEPS = 3
_CHUNK_SCORES = 1 << 31
_LAUNCHES = 1000
_EPOCHS = 8
# What is trained on real data: models, and the solvers of those that have several.
_MODELS = (
    ("SGD", None),
    *(("ALS", solver) for solver in SOLVERS),
    *(("ImplicitALS", solver) for solver in SOLVERS),
)
_STEP = Step(*(np.float32(term) for term in (0.1, 0.02, 1, 0.05, 0.05, 0.02, 0.02)))


def make(_: Pace, shape: dict[str, Any], folder: str, seed: int) -> dict[str, Any]:
    """Draw ratings whose users and items are as unequal as in real data, and keep them by user and by item."""
    n_users, n_items, n_ratings = shape["n_users"], shape["n_items"], shape["n_ratings"]
    rng, layout, path = np.random.default_rng(seed), get_backend("cpu"), Path(folder)
    users, items = (
        rng.permutation(n).astype(np.int32)[(n * rng.random(n_ratings, np.float32) ** skew).astype(np.int32)]
        for n, skew in ((n_users, _SKEW_OF_USERS), (n_items, _SKEW_OF_ITEMS))
    )
    ratings = rng.integers(1, 11, n_ratings).astype(np.float32) / 2
    by_user = layout.transpose(layout.coo_to_csr(items, users, ratings, n_items, None), n_users, None)
    path.mkdir(parents=True, exist_ok=True)
    for name, rows in (("by_user", by_user), ("by_item", layout.transpose(by_user, n_items, None))):
        for field, array in rows._asdict().items():
            np.save(path / f"{name}-{field}.npy", array)
    return {}


def _load(folder: str, name: str) -> CSR:
    return CSR(*(np.load(Path(folder) / f"{name}-{field}.npy") for field in CSR._fields))


def _factors(n_rows: int, n_factors: int, seed: int) -> Float32Array:
    return np.random.default_rng(seed).standard_normal((n_rows, n_factors), np.float32) / np.float32(n_factors)


def _paced(pace: Pace, work: Callable[[], object], on_device: bool) -> dict[str, Any]:
    """Work lap by lap; on a device also tell what kernels took in the last lap, from the first launch to the last."""
    if not on_device:
        while pace():
            work()
        return {}
    from fastmf_kernels._cuda.jit import timed

    seconds: dict[str, float] = {}
    while pace():
        with timed() as clock:
            work()
        seconds = clock.seconds()
    return {"kernels": sum(seconds.values()), "kernels by name": sorted(seconds.items())}


def sgd(
    pace: Pace, folder: str, n_factors: int, backend: str, n_threads: int, storage: str = "float32"
) -> dict[str, Any]:
    """Run epochs of SGD on tables that stay on the device."""
    by_user, kernels = _load(folder, "by_user"), get_backend(backend)
    n_users, n_items = len(by_user.indptr) - 1, len(_load(folder, "by_item").indptr) - 1
    grid, rng = kernels.make_grid(n_users, n_items, len(by_user.indices)), np.random.default_rng(0)
    blocks = make_blocks(by_user, n_items, grid, kernels.group_by, n_threads)
    factors = Factors(
        _factors(n_users, n_factors, 1),
        _factors(n_items, n_factors, 2),
        np.zeros(n_users, np.float32),
        np.zeros(n_items, np.float32),
        np.float32(by_user.values.mean()),
    )
    tables = kernels.training_to_device(blocks, factors, first_row_steps(n_users, n_items), storage)
    errors: list[float] = []

    def work() -> None:
        strata = shuffled_strata(grid, rng)
        errors.append(
            kernels.run_epoch(tables.blocks, strata, tables.factors, make_link(None), _STEP, tables.rows, n_threads)
        )

    work()
    metrics = _paced(pace, work, backend == "cuda")
    return {**metrics, "train rmse, last epoch": math.sqrt(errors[-1] / len(by_user.indices))}


def als(pace: Pace, folder: str, n_factors: int, solver: str, backend: str, n_threads: int) -> dict[str, Any]:
    """Run sweeps of iALS, both sides, on tables that stay where kernels work on them, as a fit does."""
    by_user, by_item, kernels = _load(folder, "by_user"), _load(folder, "by_item"), get_backend(backend)
    n_users, n_items = len(by_user.indptr) - 1, len(by_item.indptr) - 1
    how = Solver(solver, _CG_STEPS if solver == "cg" else 0)
    weighting = Weighting(*(np.float32(term) for term in (1, 0, 1, 0)))
    p, q = (kernels.to_device(_factors(n, n_factors, seed), how) for n, seed in ((n_users, 1), (n_items, 2)))
    sides = [
        (rows, np.zeros(n_fixed, np.float32), (0.01 * (np.diff(rows.indptr) + 0.1 * n_fixed)).astype(np.float32))
        for rows, n_fixed in ((by_user, n_items), (by_item, n_users))
    ]

    def half_sweep(side: tuple[CSR, Float32Array, Float32Array], fixed: Table, target: Table) -> float:
        (rows, offsets, strengths), gram = side, (0.1 * kernels.gram(fixed, n_threads)).astype(np.float32)
        problem = HalfSweep(rows, fixed, offsets, gram, strengths, weighting)
        return float(kernels.run_half_sweep(problem, target, n_threads, how).sum())

    losses: list[float] = []

    def work() -> None:
        half_sweep(sides[0], q, p)
        losses.append(half_sweep(sides[1], p, q))

    work()
    metrics = _paced(pace, work, backend == "cuda")
    return {**metrics, "objective": losses[-1]}


def top_k(
    pace: Pace, n_queries: int, n_items: int, n_factors: int, k: int, pruning: bool, halves: bool = True
) -> dict[str, Any]:
    """Find the best items of all queries; norms of items vary as those of trained factors do."""
    from fastmf_kernels.topk import cuda

    cuda.HALVES = halves
    kernels, (queries, items) = get_backend("cuda"), _tables(n_queries, n_items, n_factors)
    index = kernels.index_items(items, pruning, None)
    n_first = min(n_queries, 10_000)
    found = kernels.top_k(queries[:n_first], index, k, no_rows(n_first), None)
    exact = get_backend("cpu").top_k(
        queries[:100], get_backend("cpu").index_items(items, True, None), k, no_rows(100), None
    )
    same = float(np.mean(found.top.indices[:100] == exact.top.indices))
    metrics = _paced(pace, lambda: kernels.top_k(queries, index, k, no_rows(n_queries), None), on_device=True)
    return {**metrics, "agreement": same}


def _tables(n_queries: int, n_items: int, n_factors: int) -> tuple[Float32Array, Float32Array]:
    queries, items = _factors(n_queries, n_factors, 1), _factors(n_items, n_factors, 2)
    items *= np.random.default_rng(3).lognormal(0, 0.5, (n_items, 1)).astype(np.float32)
    return queries, items


def torch_top_k(pace: Pace, n_queries: int, n_items: int, n_factors: int, k: int) -> dict[str, Any]:
    """Multiply and select with PyTorch, a batch at a time."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    queries, items = (torch.from_numpy(table).cuda() for table in _tables(n_queries, n_items, n_factors))
    batch = max(1, _CHUNK_SCORES // n_items)

    def work() -> None:
        for start in range(0, n_queries, batch):
            torch.topk(queries[start : start + batch] @ items.T, k).indices.cpu()

    while pace():
        work()
    return {"note": "scores in float32, from what is on the device to the host"}


def cupy_top_k(pace: Pace, n_queries: int, n_items: int, n_factors: int, k: int) -> dict[str, Any]:
    """Multiply and partition with CuPy, a batch at a time."""
    import cupy

    queries, items = (cupy.asarray(table) for table in _tables(n_queries, n_items, n_factors))
    batch = max(1, _CHUNK_SCORES // 4 // n_items)

    def work() -> None:
        for start in range(0, n_queries, batch):
            scores = queries[start : start + batch] @ items.T
            best = cupy.argpartition(scores, -k, axis=1)[:, -k:]
            order = cupy.argsort(-cupy.take_along_axis(scores, best, axis=1), axis=1)
            cupy.asnumpy(cupy.take_along_axis(best, order, axis=1))

    while pace():
        work()
    note = "scores in float32, from what is on the device to the host"
    return {"note": note, "work": 2.0 * n_queries * n_items * n_factors}


def posv(pace: Pace, n_rows: int, n_factors: int) -> dict[str, Any]:
    """Factorise and solve as many systems as a sweep has, once their matrices are there."""
    import cupy
    from cupyx import lapack

    batch = min(n_rows, (1 << 32) // (4 * n_factors**2))
    matrices = cupy.broadcast_to(cupy.eye(n_factors, dtype=np.float32) * 2, (batch, n_factors, n_factors)).copy()
    sides = cupy.ones((batch, n_factors), np.float32)
    while pace():
        for _ in range(-(-n_rows // batch)):
            lapack.posv(matrices, sides)
        cupy.cuda.Device().synchronize()
    return {"note": "without making the matrices"}


def ceilings(_: Pace, asked: Sequence[tuple[str, dict[str, Any]]], n_laps: int) -> dict[str, Any]:
    """Measure the ceilings that are asked for; returns the seconds of each lap of each."""
    return {"laps": [_laps(*_CEILINGS[kind](**arguments), n_laps) for kind, arguments in asked]}


def _copy(n_bytes: int) -> tuple[Callable[[], object], int]:
    """Copy one large array to another."""
    import cupy

    source, target = cupy.ones(n_bytes // 4, np.float32), cupy.zeros(n_bytes // 4, np.float32)
    return lambda: cupy.copyto(target, source), 1


def _gather(row_bytes: int, n_bytes: int, n_rows: int) -> tuple[Callable[[], object], int]:
    """Gather random rows of a table; what is read is summed."""
    import cupy

    from fastmf_bench.suites.cuda_kernels import make_gather, n_groups, run

    table = cupy.ones(n_bytes // 4, np.float32)
    order = cupy.random.default_rng(0).integers(0, n_bytes // row_bytes, n_rows, dtype=np.int32)
    sums = cupy.zeros(n_groups(row_bytes // 4), np.float32)
    kernel = make_gather(row_bytes // 4)
    return lambda: run(kernel, table, order, sums), 1


def _add(row_bytes: int, n_bytes: int, n_rows: int) -> tuple[Callable[[], object], int]:
    """Add to random rows of a table, atomically."""
    import cupy

    from fastmf_bench.suites.cuda_kernels import make_add, run

    table = cupy.zeros(n_bytes // 4, np.float32)
    order = cupy.random.default_rng(0).integers(0, n_bytes // row_bytes, n_rows, dtype=np.int32)
    kernel = make_add(row_bytes // 4)
    return lambda: run(kernel, table, order), 1


def _product(size: int, kind: str) -> tuple[Callable[[], object], int]:
    """Multiply two square matrices."""
    import torch

    number = torch.float16 if kind == "float16" else torch.float32
    a, b = (torch.randn(size, size, dtype=number, device="cuda") for _ in range(2))
    out = torch.empty_like(a)

    def multiply() -> None:
        torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
        torch.matmul(a, b, out=out)
        torch.cuda.synchronize()

    return multiply, 1


def _launch() -> tuple[Callable[[], object], int]:
    """Launch a kernel that does nothing, with two arrays as its arguments, many times."""
    from fastmf_bench.suites.cuda_kernels import make_nothing
    from fastmf_kernels._cuda.memory import zeros

    nothing, array = make_nothing()[1, 32], zeros(32, np.float32)
    return lambda: [nothing(array, array) for _ in range(_LAUNCHES)], _LAUNCHES


_CEILINGS: dict[str, Callable[..., tuple[Callable[[], object], int]]] = {
    "copy": _copy,
    "gather": _gather,
    "add": _add,
    "product": _product,
    "launch": _launch,
}


def _laps(work: Callable[[], object], n_rounds: int, n_laps: int) -> list[float]:
    """Work lap by lap, wait for the device in each, and return the seconds of one round."""
    import cupy

    device, laps = cupy.cuda.Device(), []
    for _ in range(1 + n_laps):  # the first one is a warm-up
        started = time.perf_counter()
        work()
        device.synchronize()
        laps.append((time.perf_counter() - started) / n_rounds)
    return laps[1:]


def quality(_: Pace, splits: str, factors: Sequence[int], n_threads: int, backend: str) -> dict[str, Any]:
    """Train and evaluate each model; on a GPU, also compare its top-k with that of the CPU for the same factors."""
    train, test = (fastmf.read_parquet(Path(splits) / f"pmf_demo_{part}.parquet") for part in ("train", "test"))
    found = []
    for n_factors, (model, solver) in itertools.product(factors, _MODELS):
        settings: dict[str, Any] = {"n_factors": n_factors, "n_epochs": _EPOCHS, "n_threads": n_threads}
        settings |= {"solver": solver} if solver else {}
        fitted = getattr(fastmf, model)(**settings, backend=backend).fit(train)
        metric = "ndcg" if fitted.is_implicit else "rmse"
        metrics = {"seconds an epoch": float(np.median([record["seconds"] for record in fitted.history]))}
        measured = fastmf.evaluate(fitted, test, k=10, metrics=[metric])
        metrics |= {name: value for name, value in measured.items() if not name.startswith("n_")}
        if backend == "cuda":
            metrics["top-k unlike the CPU's"] = _n_unlike(fitted)
        found.append(({**settings, "model": model}, metrics))
    return {"found": found}


def _n_unlike(model: Any) -> int:
    """Count the items that a GPU recommends, and the CPU does not recommend at the same place from the same factors."""
    on_gpu = model.recommend(k=100).items
    on_cpu = model.set_params(backend="cpu").recommend(k=100).items
    return int((on_gpu != on_cpu).sum())


TASKS: dict[str, Task] = {
    "cuda.make": make,
    "cuda.sgd": sgd,
    "cuda.als": als,
    "cuda.top_k": top_k,
    "cuda.torch_top_k": torch_top_k,
    "cuda.cupy_top_k": cupy_top_k,
    "cuda.posv": posv,
    "cuda.ceilings": ceilings,
    "cuda.quality": quality,
}
