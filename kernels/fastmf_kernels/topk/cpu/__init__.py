"""Top-k on all cores; the contract is that of `fastmf_kernels.topk.reference`.

A scan bounds every score from above (`scan.py`, `index.py`). Only items whose bound reaches the k-th best score so far
are scored (`best.py`): few of all pairs of a query and an item.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from fastmf_kernels._jit import run_tasks
from fastmf_kernels._types import BoolArray, Float32Array, Int32Array
from fastmf_kernels.topk.arrays import Counts, Found, ItemIndex, Pairs, Rows, Scan, TopK
from fastmf_kernels.topk.cpu.best import Candidates, Search, full_at, make_candidates
from fastmf_kernels.topk.cpu.count import count_panels
from fastmf_kernels.topk.cpu.hits import find_relevant
from fastmf_kernels.topk.cpu.index import lay_out
from fastmf_kernels.topk.cpu.scan import (
    Block,
    make_block,
    scan_bytes,
    scan_candidates,
    scan_floats,
    scan_rows,
)
from fastmf_kernels.topk.cpu.tiles import ROWS

# Queries of a block share each load of a panel. Panels of floats are four times as large as panels of bytes, and gain
# from more queries; with bytes, more queries would need buffers larger than the cache.
_QUERIES_A_BLOCK, _QUERIES_A_BLOCK_OF_FLOATS = 64, 256
# Memory of the buffers of a block; a block has at least 8 queries.
_MOST_BYTES_A_BLOCK = 1 << 25
# The calling thread does up to so many multiplications alone, in less time than starting other threads takes.
_MOST_SERIAL_PRODUCTS = 1 << 24
_TASKS_A_THREAD, _MOST_BLOCKS = 8, 16
_NO_LAYOUT = np.empty(0, np.int32)


def index_items(items: Float32Array, pruning: bool = True, n_threads: int | None = None) -> ItemIndex:
    """Lay items out for `top_k`; see the reference."""
    return lay_out(items, pruning)


def top_k(queries: Float32Array, index: ItemIndex, k: int, exclude: Rows, n_threads: int | None = None) -> Found:
    """Find the k items with the largest dot product for every query; see the reference."""
    search = Search(
        queries, index.factors, exclude, index.places, index.order, k, full_at(k, scored=not len(index.norms))
    )
    if not len(index.norms):
        top = _one_by_one(search, len(index.factors), n_threads, partial(scan_rows, search))
        return Found(top, Scan(0, 0, len(queries) * len(index.factors)))
    top = _empty(len(queries), k)
    n_rows = _rows_of_a_block(search, _QUERIES_A_BLOCK_OF_FLOATS if len(index.floats) else _QUERIES_A_BLOCK, n_threads)
    scan = scan_floats if len(index.floats) else scan_bytes
    size = n_rows * _blocks_of_a_task(len(queries), n_rows, n_threads)
    counts = np.zeros((-(-len(queries) // size), len(Scan._fields)), np.int64)

    def task(number: int, block: Block) -> None:
        start = number * size
        scan(search, index, start, min(start + size, len(queries)), block, top, counts[number])

    run_tasks(task, len(counts), _threads_for(search, n_threads), lambda: make_block(n_rows, k, index))
    return Found(top, Scan(*counts.sum(axis=0).tolist()))


def top_k_among(
    queries: Float32Array,
    items: Float32Array,
    k: int,
    candidates: Rows,
    exclude: Rows,
    n_threads: int | None = None,
) -> TopK:
    """Find the k best among each query's own candidates; see the reference."""
    search = Search(queries, items, exclude, _NO_LAYOUT, _NO_LAYOUT, k, full_at(k))
    longest = int(np.diff(candidates.indptr).max(initial=0))
    return _one_by_one(search, longest, n_threads, partial(scan_candidates, search, candidates))


def count_better(
    queries: Float32Array, index: ItemIndex, relevant: Rows, exclude: Rows, n_threads: int | None = None
) -> Counts:
    """Count, for some items of each query, how many others score higher, and how many the same; see the reference."""
    counts = Counts(np.zeros(len(relevant.indices), np.int64), np.zeros(len(relevant.indices), np.int64))
    search = Search(queries, index.factors, exclude, index.places, index.order, 1, 1)
    n_rows = _rows_of_a_block(search, _QUERIES_A_BLOCK, n_threads)

    def task(number: int, block: Block) -> None:
        start = number * n_rows
        count_panels(search, index, relevant, start, min(start + n_rows, len(queries)), block, counts)

    n_tasks = -(-len(queries) // n_rows)
    run_tasks(task, n_tasks, _threads_for(search, n_threads), lambda: make_block(n_rows, 1, index))
    return counts


def mark_hits(indices: Int32Array, k: int, relevant: Pairs, n_threads: int | None = None) -> BoolArray:
    """Tell which of the first k items found for each query are relevant; see the reference."""
    is_hit = np.zeros((len(indices), k), np.bool_)
    find_relevant(indices, relevant, is_hit)
    return is_hit


def _one_by_one(
    search: Search, n_candidates: int, n_threads: int | None, scan: Callable[[int, int, Candidates, TopK], None]
) -> TopK:
    """Search items in the order in which they are stored, one query at a time."""
    n_queries, top = len(search.queries), _empty(len(search.queries), search.k)

    def task(number: int, best: Candidates) -> None:
        start = number * _QUERIES_A_BLOCK
        scan(start, min(start + _QUERIES_A_BLOCK, n_queries), best, top)

    n_tasks = -(-n_queries // _QUERIES_A_BLOCK)
    run_tasks(
        task,
        n_tasks,
        _threads_for(search, n_threads),
        lambda: make_candidates(1, search.k, n_candidates, len(search.factors)),
    )
    return top


def _threads_for(search: Search, n_threads: int | None) -> int | None:
    """Return 1 where there is too little work to share with other threads."""
    return 1 if search.queries.size * len(search.factors) < _MOST_SERIAL_PRODUCTS else n_threads


def _rows_of_a_block(search: Search, most: int, n_threads: int | None) -> int:
    """Return how many queries, whole tiles of them and not more than ``most``, go through the index together."""
    n_bytes = 12 * search.full + len(search.factors) // 8
    by_memory = min(most, _MOST_BYTES_A_BLOCK // n_bytes // ROWS * ROWS)
    by_threads = -(-len(search.queries) // ((n_threads or 8) * _TASKS_A_THREAD * ROWS)) * ROWS
    return max(ROWS, min(by_memory, by_threads))


def _blocks_of_a_task(n_queries: int, n_rows: int, n_threads: int | None) -> int:
    """Return how many blocks to run at a call of a kernel, which takes as long as a few queries."""
    return max(1, min(_MOST_BLOCKS, n_queries // n_rows // ((n_threads or 8) * _TASKS_A_THREAD)))


def _empty(n_queries: int, k: int) -> TopK:
    return TopK(np.full((n_queries, k), -np.inf, np.float32), np.full((n_queries, k), -1, np.int32))
