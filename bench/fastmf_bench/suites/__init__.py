"""What can be measured: each suite is a module with ``run(session)`` and the tasks of its contestants."""

from collections.abc import Callable
from typing import NamedTuple

from fastmf_bench import problems
from fastmf_bench.pace import Task
from fastmf_bench.session import Session
from fastmf_bench.suites import (
    als,
    ceilings,
    cold,
    cuda,
    cuda_tasks,
    defaults,
    fold_in,
    ingest,
    memory,
    onboarding,
    quality,
    serve,
    sgd,
    startup,
    topk,
)


class Suite(NamedTuple):
    """What can be asked for by name.

    Attributes
    ----------
    run : callable
        Runs its races in a session.
    operations : tuple of str
        The kernels it rests on: they are proven before it starts.
    summary : str
        For the help.
    """

    run: Callable[[Session], None]
    operations: tuple[str, ...]
    summary: str


SUITES = {
    "sgd": Suite(
        sgd.run,
        ("layout", "sgd", "negative_sampling", "svdpp", "predict"),
        "gradient descent: seconds an epoch, and error over time",
    ),
    "als": Suite(als.run, ("layout", "als", "predict"), "alternating least squares: seconds a sweep"),
    "topk": Suite(
        topk.run,
        ("layout", "topk", "als", "fold_in", "rerank"),
        "recommending: full scans, trained factors, single queries",
    ),
    "serve": Suite(
        serve.run, ("layout", "topk", "als"), "serving: one user at a time from several threads, first request"
    ),
    "ingest": Suite(ingest.run, ("layout",), "Parquet to ratings with dense indices"),
    "startup": Suite(
        startup.run, ("layout", "sgd", "negative_sampling", "als", "predict"), "import, first fit cold and cached, load"
    ),
    "memory": Suite(memory.run, ("layout", "sgd", "als", "topk", "predict"), "peak memory, each in its own process"),
    "quality": Suite(
        quality.run,
        ("layout", "sgd", "negative_sampling", "svdpp", "als", "topk", "predict"),
        "quality on real data (needs --data)",
    ),
    defaults.SUITE: Suite(
        defaults.run,
        ("layout", "sgd", "negative_sampling", "svdpp", "als", "topk", "predict"),
        "models with default settings beside a baseline and the best of a grid (needs --data)",
    ),
    fold_in.SUITE: Suite(
        fold_in.run,
        ("layout", "sgd", "negative_sampling", "svdpp", "als", "topk", "predict", "fold_in"),
        "users folded in beside the same users in a fit, and continued fits (needs --data)",
    ),
    onboarding.SUITE: Suite(
        onboarding.run,
        ("layout", "als", "topk", "predict", "fold_in"),
        "new users who answer questions, chosen in several ways (needs --data)",
    ),
    cold.SUITE: Suite(
        cold.run, ("layout", "als"), "items with no ratings or few, by their features, beside peers (needs --data)"
    ),
}

GPU_SUITES = {
    "training": Suite(cuda.run_training, ("als", "predict"), "SGD and iALS in the shapes of MovieLens-20M and Netflix"),
    "topk": Suite(cuda.run_top_k, ("topk",), "top-100 of 100 thousand queries in a million items"),
    "topk-large": Suite(cuda.run_large_top_k, ("topk",), "the same for a million queries"),
    "quality": Suite(cuda.run_quality, (), "models trained on real data, beside the CPU (needs --data)"),
}

TASKS: dict[str, Task] = {
    "problems.generate": problems.generate_in_worker,
    "ceilings.copy": ceilings.copy,
    "ceilings.gather": ceilings.gather,
    "ceilings.matmul": ceilings.matmul,
    **sgd.TASKS,
    **als.TASKS,
    **topk.TASKS,
    **serve.TASKS,
    **ingest.TASKS,
    **startup.TASKS,
    **memory.TASKS,
    **quality.TASKS,
    **defaults.TASKS,
    **fold_in.TASKS,
    **onboarding.TASKS,
    **cold.TASKS,
    **cuda_tasks.TASKS,
}
