"""Ceilings: the rates that NumPy reaches on the same threads. Results are given as fractions of them.

Of memory: copying a large array (read + write), and gathering random rows of 128, 256 or 512 bytes (32, 64 or 128
float32 factors) out of a table that no cache holds. Of arithmetic: the product of two large float32 matrices, and one
in the shape of scoring, a tile of users with few factors against the whole catalogue.
"""

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from fastmf_bench.contest import Contestant
from fastmf_bench.pace import Pace
from fastmf_bench.session import Session, Work

COPY = "copy"
SGEMM = "sgemm, large"
SCORING = "sgemm, scoring shape"
SCORING_ITEMS = 26_744
_TABLE_BYTES = 1 << 28
_CHUNK_ROWS = 2048


def gather_ceiling(row_bytes: int) -> str:
    """Name the ceiling of gathering random rows of this size."""
    return f"gather of {row_bytes} B rows"


def run(session: Session) -> None:
    """Measure all ceilings, one line each, on all threads and on one."""
    for n_threads in sorted({session.options.n_threads, 1}, reverse=True):
        _run(session, n_threads)


def _run(session: Session, n_threads: int) -> None:
    size = 1024 if session.options.quick else 2048
    matmuls = {SGEMM: (size, size, size), SCORING: (4096, 64, SCORING_ITEMS)}
    for name, shape in matmuls.items():
        _measure(session, name, n_threads, "ceilings.matmul", {"shape": shape}, Work(2.0 * np.prod(shape), "flop"))
    arguments = {"n_threads": n_threads}
    _measure(session, COPY, n_threads, "ceilings.copy", arguments, Work(2.0 * _TABLE_BYTES, "bytes"))
    for row_bytes in sorted({128, 256, 512, *(4 * n_factors for n_factors in session.options.factors)}):
        rows = Work(_TABLE_BYTES / row_bytes, "rows")
        _measure(
            session,
            gather_ceiling(row_bytes),
            n_threads,
            "ceilings.gather",
            {**arguments, "row_bytes": row_bytes},
            rows,
        )


def _measure(session: Session, name: str, n_threads: int, task: str, arguments: dict[str, Any], work: Work) -> None:
    session.race("ceilings", name, "", {"n_threads": n_threads}, [Contestant("numpy", task, arguments)], work)


def copy(pace: Pace, n_threads: int) -> dict[str, Any]:
    """Copy one large array to another."""
    source = np.ones(_TABLE_BYTES // 8)
    target = np.zeros_like(source)
    parts = [slice(*cut) for cut in _cuts(len(source), n_threads)]
    with ThreadPoolExecutor(n_threads) as pool:
        while pace():
            list(pool.map(lambda part: np.copyto(target[part], source[part]), parts))
    return {}


def gather(pace: Pace, row_bytes: int, n_threads: int) -> dict[str, Any]:
    """Gather every row of a large table once, in random order, a chunk that fits the cache at a time."""
    table = np.ones((_TABLE_BYTES // row_bytes, row_bytes // 4), np.float32)
    order = np.random.default_rng(0).permutation(len(table))
    chunks = [np.empty((_CHUNK_ROWS, table.shape[1]), np.float32) for _ in range(n_threads)]

    def gather_part(thread: int, start: int, stop: int) -> None:
        for first in range(start, stop, _CHUNK_ROWS):
            rows = order[first : min(first + _CHUNK_ROWS, stop)]
            np.take(table, rows, axis=0, out=chunks[thread][: len(rows)], mode="clip")

    parts = [(thread, *cut) for thread, cut in enumerate(_cuts(len(table), n_threads))]
    with ThreadPoolExecutor(n_threads) as pool:
        while pace():
            list(pool.map(gather_part, *zip(*parts, strict=True)))
    return {}


def matmul(pace: Pace, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Multiply an m × k and a k × n matrix of float32."""
    m, k, n = shape
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((n, k), np.float32)
    product = np.empty((m, n), np.float32)
    np.matmul(a, b.T, out=product)
    while pace():
        np.matmul(a, b.T, out=product)
    return {}


def _cuts(size: int, n_parts: int) -> list[tuple[int, int]]:
    cuts = np.linspace(0, size, n_parts + 1).astype(int).tolist()
    return list(itertools.pairwise(cuts))
