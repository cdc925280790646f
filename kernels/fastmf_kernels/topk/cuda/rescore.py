"""Exact scores of candidates on a GPU, and the proof that no other item is among the best.

A dot product of n float32 products, in any order, fused or not, is off by at most γₙ Σ|pᵢqᵢ| ≤ γₙ‖p‖‖q‖ with
γₙ = nu / (1 - nu), u = 2⁻²⁴ (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1), and by what
denormal numbers lose. What was dropped scored no more than a threshold T on the screen: its exact score is not above
T + γₙ‖p‖‖q‖, and when the k-th best is, no item is missing.
"""

import functools
import math
from typing import Any

import numpy as np

from fastmf_kernels._cuda.jit import cuda, device, isa, kernel
from fastmf_kernels._cuda.rows import VECTOR, make_group
from fastmf_kernels._types import Float32Array
from fastmf_kernels.topk.cuda.arrays import Best, Buffers, Catalogue, Queries

# Below this, no sum on the screen was infinite, in whatever order.
LONGEST_PRODUCT = np.float64(2.0**126)
_ZERO: Any = np.float64(0)
_NONE = np.float32(-np.inf)
_UP, _LEAST = np.float64(1 + 2**-22), np.float64(2.0**-149)


@functools.cache
def make_measure(width: int, n_threads: int) -> Any:
    """Return the kernel that finds the lengths of rows, rounded up: a group of threads for each row."""
    size, chunks, number, lane_of, mask_of, total = make_group(width)

    @kernel
    def measure(rows: Float32Array, norms: Float32Array) -> None:
        row, lane = np.int64(cuda.blockIdx.x * (n_threads // size) + number()), lane_of()
        if row < norms.size:
            squares = _ZERO
            for chunk in range(chunks):
                p = isa.load4(rows, row * width + VECTOR * (chunk * size + lane))
                for i in range(VECTOR):
                    squares += np.float64(p[i]) * np.float64(p[i])
            squares = total(squares, mask_of())
            if lane == 0:
                norms[row] = np.float32(math.sqrt(squares) * _UP + _LEAST)

    return measure


@functools.cache
def make_rescore(width: int, most: int, n_threads: int) -> Any:
    """Return the kernel that scores at most ``most`` candidates, and puts them in order: a block for each query."""
    score_all, prove = _make_score_all(width, n_threads), _make_prove(width)

    @kernel
    def rescore(
        catalogue: Catalogue,
        batch: Queries,
        buffers: Buffers,
        stride: int,
        n_parts: int,
        k: int,
        longest: float,
        best: Best,
    ) -> None:
        scores = cuda.shared.array(most, np.float32)
        items = cuda.shared.array(most, np.int32)
        query = np.int64(cuda.blockIdx.x)
        count, threshold = buffers.counts[query * n_parts], buffers.thresholds[query * n_parts]
        score_all(catalogue, batch.factors, buffers, query, query * stride, count, scores, items)
        reach = np.float64(batch.norms[query]) * longest
        if cuda.threadIdx.x == 0:
            best.proven[query] = count < k and threshold == _NONE and reach < LONGEST_PRODUCT
        cuda.syncthreads()
        i = cuda.threadIdx.x
        while i < count:
            score, item, rank, j = scores[i], items[i], 0, 0
            while j < count:
                rank += scores[j] > score or (scores[j] == score and items[j] < item)
                j += 1
            if rank < k:
                best.scores[query * k + rank] = score
                best.items[query * k + rank] = item
            if rank == k - 1:
                best.proven[query] = prove(score, threshold, reach)
            i += n_threads
        i = count + cuda.threadIdx.x
        while i < k:
            best.scores[query * k + i] = _NONE
            best.items[query * k + i] = -1
            i += n_threads

    return rescore


def _make_score_all(width: int, n_threads: int) -> Any:
    size, chunks, number, lane_of, mask_of, total = make_group(width)
    of_a_lane, n_groups = VECTOR * chunks, n_threads // size

    @device
    def score_all(
        catalogue: Catalogue,
        queries: Float32Array,
        buffers: Buffers,
        query: Any,
        start: Any,
        count: int,
        scores: Any,
        items: Any,
    ) -> None:
        """Score the candidates of a query, a group of threads for each: Σ pᵢqᵢ in float64, rounded once."""
        p, lane, i = cuda.local.array(of_a_lane, np.float32), lane_of(), number()
        for chunk in range(chunks):
            four = isa.load4(queries, query * width + VECTOR * (chunk * size + lane))
            for j in range(VECTOR):
                p[VECTOR * chunk + j] = four[j]
        while i < count:
            place, score = np.int64(buffers.places[start + i]), _ZERO
            for chunk in range(chunks):
                q = isa.load4(catalogue.factors, place * width + VECTOR * (chunk * size + lane))
                for j in range(VECTOR):
                    score += np.float64(p[VECTOR * chunk + j]) * np.float64(q[j])
            score = total(score, mask_of())
            if lane == 0:
                scores[i] = np.float32(score)
                items[i] = catalogue.order[place]
            i += n_groups

    return score_all


def _make_prove(width: int) -> Any:
    n_units = width * 2.0**-24
    share = np.float64(n_units / (1 - n_units) * (1 + 2**-10))
    # Two roundings a factor, even if the device makes zeros of denormal numbers.
    lost = np.float64(width * 2.0**-125)

    @device
    def prove(score: np.float32, threshold: np.float32, reach: Any) -> Any:
        """Whether nothing that was dropped scores as much, when all are rounded to float32."""
        return reach < LONGEST_PRODUCT and np.float32(threshold + (reach * share + lost)) < score

    return prove
