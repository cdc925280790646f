"""Symmetric matrices in the registers of a block of threads: each holds a square tile of the lower half.

A matrix grows by products v vᵀ of vectors in shared memory. There, the vectors' numbers are laid out so that threads of
a warp, which own tiles side by side, read four numbers each from places side by side: for tiles of eight, first the
first four numbers of every eight, then the others. Otherwise half of the banks would stand idle.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastmf_kernels._cuda.jit import WARP, cuda, device, isa
from fastmf_kernels._cuda.rows import VECTOR
from fastmf_kernels._types import Float32Array
from fastmf_kernels.als.cuda_problem import Problem, scaled_target, weigh

_ALL_LANES = 0xFFFFFFFF


class Tiles(NamedTuple):
    """How a block of threads shares a symmetric matrix.

    Attributes
    ----------
    across : int
        Tiles side by side.
    parts : int
        Four numbers at a time that a tile is wide.
    threads : int
        At least one for each tile of the lower half, and one for each row.
    own : device function
        Row and column of the thread's tile; 0 and -1 of a thread that is left over.
    place : device function
        Where a number of a vector is in shared memory.
    add : device function
        ``add(tile, lefts, rights, first, n, i, j)`` adds v wᵀ of n vectors of each that lie from ``first`` on.
    subtract : device function
        The same, less.
    """

    across: int
    parts: int
    threads: int
    own: Callable[[], tuple[int, int]]
    place: Callable[[int], int]
    add: Callable[..., None]
    subtract: Callable[..., None]


def tile_size(width: int) -> int:
    """Return how wide the tiles of a matrix are: the smaller ones give enough threads to narrow matrices."""
    return 8 if width > 64 else 4


@device
def place_of_tile(number: int) -> tuple[int, int]:
    """Return row and column of a tile of the lower half; tiles are numbered row by row."""
    i, j = 0, number
    while j > i:
        i += 1
        j -= i
    return i, j


@functools.cache
def make_tiles(width: int, size: int) -> Tiles:
    """Return how a matrix of some width is shared, in tiles of 4 or 8."""
    across, parts = width // size, size // VECTOR
    n_tiles = across * (across + 1) // 2
    threads = -(-max(n_tiles, width) // WARP) * WARP

    @device
    def own() -> tuple[int, int]:
        if cuda.threadIdx.x >= n_tiles:
            return 0, -1
        return place_of_tile(cuda.threadIdx.x)

    add, subtract = make_add(width, size, np.float32(1)), make_add(width, size, np.float32(-1))
    return Tiles(across, parts, threads, own, make_place(width, size), add, subtract)


@functools.cache
def make_place(width: int, size: int) -> Any:
    """Return the device function that says where a number of a vector is in shared memory, for tiles of some width."""
    parts = size // VECTOR
    stride = width // parts

    @device
    def place(f: int) -> int:
        four = f // VECTOR
        return four % parts * stride + four // parts * VECTOR + f % VECTOR

    return place


@functools.cache
def make_add(width: int, size: int, sign: np.float32) -> Any:
    """Return the device function that adds products of vectors, times ``sign``, to a tile; see `Tiles`."""
    parts, stride = size // VECTOR, width * VECTOR // size

    @device
    def add(tile: Float32Array, lefts: Float32Array, rights: Float32Array, first: int, n: int, i: int, j: int) -> None:
        left, right = cuda.local.array(size, np.float32), cuda.local.array(size, np.float32)
        for t in range(n):
            for part in range(parts):
                at = first + t * width + part * stride
                of_rows, of_columns = isa.load4(lefts, at + VECTOR * i), isa.load4(rights, at + VECTOR * j)
                for e in range(VECTOR):
                    left[VECTOR * part + e] = sign * of_rows[e]
                    right[VECTOR * part + e] = of_columns[e]
            for a in range(size):
                for b in range(size):
                    tile[a * size + b] += left[a] * right[b]

    return add


@functools.cache
def make_largest(n: int) -> Any:
    """Return the device function that finds the largest of n numbers; each warp does so for itself."""

    @device
    def largest_of(numbers: Float32Array) -> np.float32:
        lane = cuda.threadIdx.x % WARP
        largest: np.float32 = numbers[lane % n]
        for at in range(lane, n, WARP):
            largest = max(largest, numbers[at])
        distance = WARP // 2
        while distance > 0:
            largest = max(largest, cuda.shfl_xor_sync(_ALL_LANES, largest, distance))
            distance //= 2
        return largest

    return largest_of


@functools.cache
def make_accumulate(width: int, size: int, chunk: int) -> Any:
    """Return the device function that adds a row's entries to its equations, ``chunk`` at a time.

    While a chunk is multiplied the next one is gathered, into the other half of ``vectors`` and ``targets``; between
    barriers, no thread writes what another one reads.
    """
    tiles = make_tiles(width, size)
    own, place, add, stage = tiles.own, tiles.place, tiles.add, _make_stage(width, size)

    @device
    def accumulate(
        problem: Problem,
        start: int,
        stop: int,
        tile: Float32Array,
        right: np.float32,
        vectors: Float32Array,
        targets: Float32Array,
    ) -> np.float32:
        """Add q̃ q̃ᵀ to the matrix and return the thread's number of the right side, b + Σ t̃ q̃."""
        # A thread without a tile adds up the first one, which nobody reads.
        i, j = own()
        j = max(j, 0)
        at, half, first = place(min(cuda.threadIdx.x, width - 1)), 0, start
        stage(problem, start, min(chunk, stop - start), vectors, targets, 0)
        cuda.syncthreads()
        while first < stop:
            n = min(chunk, stop - first)
            later = first + n
            if later < stop:
                stage(problem, later, min(chunk, stop - later), vectors, targets, (1 - half) * chunk)
            add(tile, vectors, vectors, half * chunk * width, n, i, j)
            for t in range(half * chunk, half * chunk + n):
                right += targets[t] * vectors[t * width + at]
            cuda.syncthreads()
            first, half = later, 1 - half
        return right

    return accumulate


@functools.cache
def _make_stage(width: int, size: int) -> Any:
    # A thread takes the same four factors of every vector; a power of two of them divides the number of threads.
    lanes, place = width // VECTOR, make_place(width, size)
    step = make_tiles(width, size).threads // lanes

    @device
    def stage(problem: Problem, first: int, n: int, vectors: Float32Array, targets: Float32Array, to: int) -> None:
        """Gather q̃ and t̃ of n entries: side by side, threads read what is side by side."""
        t, f = cuda.threadIdx.x // lanes, cuda.threadIdx.x % lanes * VECTOR
        at = to * width + place(f)
        while t < n:
            root, inverse = weigh(problem, first + t)
            q = isa.load4(problem.fixed_factors, np.int64(problem.indices[np.uint64(first + t)]) * width + f)
            isa.store4(vectors, at + t * width, (root * q[0], root * q[1], root * q[2], root * q[3]))
            if f == 0:
                targets[to + t] = scaled_target(problem, first + t, inverse)
            t += step

    return stage
