"""How groups of threads work on rows without forming their matrix: one group a row, or all groups of a block.

A vector of a row is in the registers of a group, four numbers of it at a time in each thread.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from fastmf_kernels._cuda.jit import WARP, cuda, device, isa
from fastmf_kernels._cuda.rows import VECTOR, make_group
from fastmf_kernels._types import Float32Array
from fastmf_kernels.als.cuda.problem import DeviceSweep, weigh

_WIDEST_SHARED_GRAM = 64
_ZERO = np.float32(0)


class RowSharing(NamedTuple):
    """How a block of threads shares rows.

    Attributes
    ----------
    threads : int
    together : bool
        Whether all of its groups work on one row.
    room : int
        Float32 numbers that fit into its shared memory.
    """

    threads: int
    together: bool
    room: int = 12288


class Plan(NamedTuple):
    """How a block of threads works on rows of some width.

    Attributes
    ----------
    n_gram, n_sums : int
        Numbers in shared memory for G, and for what groups add up.
    n_groups : int
        In a block.
    n_helpers : int
        Groups that work on one row.
    n_kept : int
        Vectors that a group keeps: a number of whole batches.
    batch : int
        Vectors that a group works on at the same time, so that one does not wait for the sums of the other.
    """

    n_gram: int
    n_sums: int
    n_groups: int
    n_helpers: int
    n_kept: int
    batch: int


@functools.cache
def plan_for(width: int, dense: bool, sharing: RowSharing) -> Plan:
    """Divide the shared memory of a block of threads."""
    n_groups = sharing.threads // make_group(width).size
    n_gram = width * width if dense and width <= _WIDEST_SHARED_GRAM else 0
    n_sums = n_groups * width if sharing.together else 0
    batch = max(1, min(VECTOR, 512 // width))
    n_kept = (sharing.room - n_gram - n_sums) // (n_groups * width) // batch * batch
    return Plan(n_gram, n_sums, n_groups, n_groups if sharing.together else 1, n_kept, batch)


def longest_alone(width: int, dense: bool, sharing: RowSharing) -> int:
    """Count the entries that a group keeps in shared memory: one group works on a row of at most so many."""
    return plan_for(width, dense, sharing).n_kept


def rows_at_once(width: int, sharing: RowSharing) -> int:
    """Count the rows that a block of threads works on at the same time."""
    return 1 if sharing.together else sharing.threads // make_group(width).size


@functools.cache
def make_dot(width: int) -> Any:
    """Return the device function for scalar products of a group's vectors."""
    group = make_group(width)
    of_a_lane, total = VECTOR * group.chunks, group.total

    @device
    def dot(x: Float32Array, y: Float32Array, mask: Any) -> np.float32:
        """Return x·y, for all threads of the group."""
        product = _ZERO
        for f in range(of_a_lane):
            product += x[f] * y[f]
        return total(product, mask)  # type: ignore[no-any-return]

    return dot


@functools.cache
def make_gather(width: int) -> Any:
    """Return the device function that gathers the vector of an entry."""
    size, chunks, _, _, _, _ = make_group(width)

    @device
    def gather(problem: DeviceSweep, entry: int, stop: int, q: Float32Array, to: int, lane: int) -> None:
        """Set the thread's numbers of q̃; those of an entry past the last one to 0.

        Past the last entry that one is read again: without a branch, the reads of a batch are under way together.
        """
        at = min(entry, stop - 1)
        root, row = weigh(problem, at)[0], np.int64(problem.indices[np.uint64(at)]) * width
        root = root if entry < stop else _ZERO
        for chunk in range(chunks):
            four = isa.load4(problem.fixed_factors, row + VECTOR * (chunk * size + lane))
            for i in range(VECTOR):
                q[to + VECTOR * chunk + i] = root * four[i]

    return gather


@functools.cache
def make_products(width: int, batch: int) -> Any:
    """Return the device function for scalar products of a batch of gathered vectors."""
    size, chunks, _, _, _, _ = make_group(width)
    of_a_lane = VECTOR * chunks

    @device
    def products(q: Float32Array, x: Float32Array, scores: Float32Array, mask: Any) -> None:
        """Set scores[e] = q̃_e·x for all threads of the group: the sums of a batch are on their way together."""
        for e in range(batch):
            score = _ZERO
            for f in range(of_a_lane):
                score += q[e * of_a_lane + f] * x[f]
            scores[e] = score
        distance = size // 2
        while distance > 0:
            for e in range(batch):
                scores[e] += cuda.shfl_xor_sync(mask, scores[e], distance)
            distance //= 2

    return products


@functools.cache
def make_add_all_cells(width: int, dense: bool, sharing: RowSharing) -> Any:
    """Return the device function that multiplies with G."""
    size, chunks, number, lane_of, _, _ = make_group(width)
    n_helpers = plan_for(width, dense, sharing).n_helpers

    @device
    def add_all_cells(x: Float32Array, product: Float32Array, gram: Float32Array, mask: Any) -> None:
        """Add the group's share of Gx: it takes the rows of G that belong to some of its threads."""
        lane = lane_of()
        if dense:
            other, base = number() % n_helpers, cuda.threadIdx.x % WARP // size * size
            while other < size:
                for part in range(chunks):
                    for i in range(VECTOR):
                        factor = cuda.shfl_sync(mask, x[VECTOR * part + i], base + other)
                        row = (VECTOR * (part * size + other) + i) * width
                        for chunk in range(chunks):
                            four = isa.load4(gram, row + VECTOR * (chunk * size + lane))
                            for e in range(VECTOR):
                                product[VECTOR * chunk + e] += factor * four[e]
                other += n_helpers

    return add_all_cells


@functools.cache
def make_share(width: int, sharing: RowSharing) -> Any:
    """Return the device function that adds up what the groups of a block have of a vector."""
    size, chunks, number, lane_of, _, _ = make_group(width)
    together, n_groups = sharing.together, sharing.threads // size

    @device
    def share(values: Float32Array, sums: Float32Array) -> None:
        """Add up a vector of all groups of a block, in the same order in each: they all go on with the same bits."""
        if together:
            lane = lane_of()
            for chunk in range(chunks):
                at = VECTOR * chunk
                four = (values[at], values[at + 1], values[at + 2], values[at + 3])
                isa.store4(sums, number() * width + VECTOR * (chunk * size + lane), four)
                for i in range(VECTOR):
                    values[at + i] = _ZERO
            cuda.syncthreads()
            for group in range(n_groups):
                for chunk in range(chunks):
                    four = isa.load4(sums, group * width + VECTOR * (chunk * size + lane))
                    for i in range(VECTOR):
                        values[VECTOR * chunk + i] += four[i]
            cuda.syncthreads()

    return share
