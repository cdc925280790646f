"""Buffers of candidates that a warp reduces to the best, on a GPU.

The n-th best score is found by halving an interval of float32 numbers, which are in the order of integers
(`_key_of`); all threads of a warp work on one buffer, and only they wait for each other.
"""

import functools
from typing import Any

import numpy as np

from fastmf_kernels._cuda.jit import WARP, cuda, device, kernel
from fastmf_kernels._types import Int32Array
from fastmf_kernels.topk.cuda.arrays import Buffers

_ALL = 0xFFFFFFFF
_NONE, _ZERO = np.float32(-np.inf), np.float32(0)
_REST = 0x7FFFFFFF


@device
def _key_of(score: np.float32) -> Any:
    """Return a whole number in the order of float32 numbers."""
    bits = score.view(np.int32)
    return np.int64(bits ^ ((bits >> 31) & _REST))


@device
def _score_of(key: Any) -> Any:
    bits = np.int32(key)
    return np.int32(bits ^ ((bits >> 31) & _REST)).view(np.float32)


@device
def _is_among(items: Int32Array, low: Any, high: Any, item: Any) -> Any:
    """Whether an item is in ``items[low:high]``, which ascend."""
    stop = high
    while low < high:
        middle = (low + high) >> 1
        if items[middle] < item:
            low = middle + 1
        else:
            high = middle
    return low < stop and items[low] == item


@device
def _move(buffers: Buffers, to: Any, stays: bool, score: np.float32, place: Any) -> Any:
    """Write what stays of the 32 candidates that a warp has read to ``to`` and after; returns how many stay.

    That is never after the place where they were read, and no candidate that is still to be read.
    """
    staying = cuda.ballot_sync(_ALL, stays)
    cuda.syncwarp()
    if stays:
        at = to + cuda.popc(staying & ((1 << cuda.laneid) - 1))
        buffers.scores[at] = score
        buffers.places[at] = place
    return cuda.popc(staying)


@device
def drop_excluded(
    buffers: Buffers,
    start: Any,
    n_checked: Any,
    count: Any,
    order: Int32Array,
    excluded: Int32Array,
    low: Any,
    high: Any,
) -> Any:
    """Take items that are excluded out of a buffer, from ``n_checked`` on; returns how many candidates there are then.

    Excluded are ``excluded[low:high]``. A warp calls this together.
    """
    if low == high:
        return count
    n_left, first = n_checked, n_checked
    while first < count:
        mine = first + cuda.laneid
        stays, score, place = False, _ZERO, np.int32(0)
        if mine < count:
            score, place = buffers.scores[start + mine], buffers.places[start + mine]
            stays = not _is_among(excluded, low, high, order[place])
        n_left += _move(buffers, start + n_left, stays, score, place)
        first += WARP
    cuda.syncwarp()
    return n_left


@device
def keep_best(buffers: Buffers, start: Any, count: Any, n_kept: Any, threshold: np.float32) -> Any:
    """Reduce a buffer of more than ``n_kept`` candidates to so many; returns the new threshold.

    No candidate is below the old one, and what goes is not above the new one. A warp calls this together.
    """
    # Adding 0 makes 0 of -0, whose key is another. From low on there are n_kept candidates or more, from high on fewer.
    low, high, n_above = _key_of(threshold), _key_of(_highest(buffers, start, count) + _ZERO) + 1, 0
    while high - low > 1:
        middle = (low + high) >> 1
        n = _count_from(buffers, start, count, _score_of(middle))
        if n >= n_kept:
            low = middle
            if n == n_kept:
                break
        else:
            high, n_above = middle, n
    floor, above = _score_of(low), _score_of(high)
    _keep(buffers, start, count, floor, above, n_kept - n_above)
    return floor


@device
def _highest(buffers: Buffers, start: Any, count: Any) -> Any:
    highest, mine = _NONE, cuda.laneid
    while mine < count:
        highest = max(highest, buffers.scores[start + mine])
        mine += WARP
    distance = WARP // 2
    while distance > 0:
        highest = max(highest, cuda.shfl_xor_sync(_ALL, highest, distance))
        distance //= 2
    return highest


@device
def _count_from(buffers: Buffers, start: Any, count: Any, score: np.float32) -> Any:
    """Count the candidates that score so much or more."""
    n, first = 0, 0
    while first < count:
        mine = first + cuda.laneid
        passes = False
        if mine < count:
            passes = buffers.scores[start + mine] >= score
        n += cuda.popc(cuda.ballot_sync(_ALL, passes))
        first += WARP
    return n


@device
def _keep(buffers: Buffers, start: Any, count: Any, floor: np.float32, above: np.float32, quota: Any) -> None:
    """Keep all candidates from ``above`` on, and of those below it a quota of those from ``floor`` on."""
    n_left, n_ties, first = 0, 0, 0
    while first < count:
        mine = first + cuda.laneid
        stays, ties, score, place = False, False, _ZERO, np.int32(0)
        if mine < count:
            score, place = buffers.scores[start + mine], buffers.places[start + mine]
            stays = score >= above
            ties = score >= floor and not stays
        tied = cuda.ballot_sync(_ALL, ties)
        if ties:
            stays = n_ties + cuda.popc(tied & ((1 << cuda.laneid) - 1)) < quota
        n_ties += cuda.popc(tied)
        n_left += _move(buffers, start + n_left, stays, score, place)
        first += WARP
    cuda.syncwarp()


@functools.cache
def make_merge(n_threads: int) -> Any:
    """Return the kernel that makes one buffer, the first, of those that each query has: a warp for each query."""
    n_warps = n_threads // WARP

    @kernel
    def merge(buffers: Buffers, n_queries: int, n_parts: int, capacity: int, n_kept: int) -> None:
        query = np.int64(cuda.blockIdx.x * n_warps + cuda.threadIdx.x // WARP)
        if query < n_queries:
            slot = query * n_parts
            start, total, threshold = slot * capacity, 0, _NONE
            for part in range(n_parts):
                count = buffers.counts[slot + part]
                threshold = max(threshold, buffers.thresholds[slot + part])
                _gather(buffers, start + total, start + part * capacity, count)
                total += count
            cuda.syncwarp()
            if total > n_kept:
                threshold = max(threshold, keep_best(buffers, start, total, n_kept, _NONE))
                total = n_kept
            cuda.syncwarp()
            if cuda.laneid == 0:
                buffers.counts[slot] = total
                buffers.thresholds[slot] = threshold

    return merge


@device
def _gather(buffers: Buffers, to: Any, start: Any, count: Any) -> None:
    """Move candidates to where the others of a query end."""
    first = 0
    while first < count:
        mine = first + cuda.laneid
        score, place = _ZERO, np.int32(0)
        if mine < count:
            score, place = buffers.scores[start + mine], buffers.places[start + mine]
        _move(buffers, to + first, mine < count, score, place)
        first += WARP
