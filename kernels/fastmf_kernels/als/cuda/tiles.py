"""Symmetric matrices in the registers of a block of threads: each holds a square tile of the lower half.

A matrix grows by products v vᵀ of vectors in shared memory. There, the vectors' numbers are laid out so that threads of
a warp, which own tiles side by side, read four numbers each from places side by side: for tiles of eight, first the
first four numbers of every eight, then the others. Otherwise half of the memory banks would be idle.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastmf_kernels._cuda.jit import WARP, cuda, device, isa
from fastmf_kernels._cuda.rows import VECTOR
from fastmf_kernels._types import Float32Array
from fastmf_kernels.als.cuda.problem import DeviceSweep, scaled_target, weigh

_ALL_LANES = 0xFFFFFFFF
_ZERO = np.float32(0)
# Vectors whose numbers a thread loads at the same time.
_GATHERED = 4


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
        Row and column of the thread's tile; 0 and -1 for a surplus thread.
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
    # If the compiler unrolls a loop around so many products, it moves large tiles out of registers.
    at_once = VECTOR if size == VECTOR else 1
    add_one = _make_add_one(width, size, sign)
    add_some = _make_add_four(width, size, sign) if at_once == VECTOR else add_one

    @device
    def add(tile: Float32Array, lefts: Float32Array, rights: Float32Array, first: int, n: int, i: int, j: int) -> None:
        at, n_left = np.int32(first), np.int32(n)
        while n_left >= at_once:
            add_some(tile, lefts, rights, at, i, j)
            at, n_left = np.int32(at + at_once * width), np.int32(n_left - at_once)
        while n_left > 0:
            add_one(tile, lefts, rights, at, i, j)
            at, n_left = np.int32(at + width), np.int32(n_left - 1)

    return add


@functools.cache
def _make_add_four(width: int, size: int, sign: np.float32) -> Any:
    add_one = _make_add_one(width, size, sign)

    @device
    def add_four(tile: Float32Array, lefts: Float32Array, rights: Float32Array, first: int, i: int, j: int) -> None:
        """Add the products of four vectors; the compiler would not unroll a loop of so many products."""
        add_one(tile, lefts, rights, first, i, j)
        add_one(tile, lefts, rights, first + width, i, j)
        add_one(tile, lefts, rights, first + 2 * width, i, j)
        add_one(tile, lefts, rights, first + 3 * width, i, j)

    return add_four


@functools.cache
def _make_add_one(width: int, size: int, sign: np.float32) -> Any:
    parts, stride = size // VECTOR, width * VECTOR // size

    @device
    def add_one(tile: Float32Array, lefts: Float32Array, rights: Float32Array, first: int, i: int, j: int) -> None:
        left, right = cuda.local.array(size, np.float32), cuda.local.array(size, np.float32)
        row, column = np.int32(first + VECTOR * i), np.int32(first + VECTOR * j)
        for part in range(parts):
            of_rows, of_columns = isa.load4(lefts, row + part * stride), isa.load4(rights, column + part * stride)
            for e in range(VECTOR):
                left[VECTOR * part + e] = sign * of_rows[e]
                right[VECTOR * part + e] = of_columns[e]
        for a in range(size):
            for b in range(size):
                tile[a * size + b] += left[a] * right[b]

    return add_one


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


class Chunk(NamedTuple):
    """How many vectors a block of threads gathers at a time.

    Attributes
    ----------
    lanes : int
        Threads of a vector, four numbers each.
    step : int
        Vectors that all threads gather together.
    size : int
        Vectors of a chunk: each thread has its numbers of several of them on their way.
    """

    lanes: int
    step: int
    size: int


def chunk_of(width: int, size: int) -> Chunk:
    """Return how a block of threads, for tiles of some size, gathers vectors."""
    lanes = width // VECTOR
    step = make_tiles(width, size).threads // lanes
    return Chunk(lanes, step, _GATHERED * step)


@functools.cache
def make_accumulate(width: int, size: int) -> Any:
    """Return the device function that adds a row's entries to its equations, a `Chunk` at a time.

    The next chunk is on its way to registers while one is multiplied, and then goes into the other half of ``vectors``
    and ``targets``; between barriers, no thread writes what another one reads.
    """
    tiles, chunk, n_gathered = make_tiles(width, size), chunk_of(width, size).size, VECTOR * _GATHERED
    own, place, add = tiles.own, tiles.place, tiles.add
    gather, stage = _make_gather(width, size), _make_stage(width, size)

    @device
    def accumulate(
        problem: DeviceSweep,
        start: int,
        stop: int,
        tile: Float32Array,
        right: np.float32,
        vectors: Float32Array,
        targets: Float32Array,
    ) -> np.float32:
        """Add q̃ q̃ᵀ to the matrix and return the thread's number of the right side, b + Σ t̃ q̃."""
        numbers = cuda.local.array(n_gathered, np.float32)
        scaled = cuda.local.array(_GATHERED, np.float32)
        # A thread without a tile adds up the first one, which nobody reads.
        i, j = own()
        j = max(j, 0)
        at, half, first = np.int32(place(min(cuda.threadIdx.x, width - 1))), np.int32(0), start
        if start < stop:
            gather(problem, start, stop, numbers, scaled)
            stage(numbers, scaled, vectors, targets, half)
        cuda.syncthreads()
        while first < stop:
            later = first + chunk
            if later < stop:
                gather(problem, later, stop, numbers, scaled)
            t = np.int32(half * chunk)
            end = np.int32(t + min(chunk, stop - first))
            while t < end:  # the last chunk is padded with zeros to four
                add(tile, vectors, vectors, t * width, VECTOR, i, j)
                of_four, one = isa.load4(targets, t), np.int32(t * width + at)
                right += of_four[0] * vectors[one] + of_four[1] * vectors[one + width]
                right += of_four[2] * vectors[one + 2 * width] + of_four[3] * vectors[one + 3 * width]
                t = np.int32(t + VECTOR)
            half = np.int32(1 - half)
            if later < stop:
                stage(numbers, scaled, vectors, targets, half)
            cuda.syncthreads()
            first = later
        return right

    return accumulate


@functools.cache
def _make_gather(width: int, size: int) -> Any:
    lanes, step, _ = chunk_of(width, size)

    @device
    def gather(problem: DeviceSweep, first: int, stop: int, numbers: Float32Array, scaled: Float32Array) -> None:
        """Read the thread's numbers of q̃, and t̃, of a chunk of entries; what is past the last entry is 0.

        Neighbouring threads read neighbouring memory. Past the last entry they read that entry again: without a
        branch, all reads are in flight together.
        """
        t, f = cuda.threadIdx.x // lanes, cuda.threadIdx.x % lanes * VECTOR
        for i in range(_GATHERED):
            entry = min(first + t + i * step, stop - 1)
            q = isa.load4(problem.fixed_factors, np.int64(problem.indices[np.uint64(entry)]) * width + f)
            root, inverse = weigh(problem, entry)
            target = scaled_target(problem, entry, inverse)
            if first + t + i * step >= stop:
                root, target = _ZERO, _ZERO
            for e in range(VECTOR):
                numbers[VECTOR * i + e] = root * q[e]
            scaled[i] = target

    return gather


@functools.cache
def _make_stage(width: int, size: int) -> Any:
    (lanes, step, chunk), place = chunk_of(width, size), make_place(width, size)

    @device
    def stage(
        numbers: Float32Array, scaled: Float32Array, vectors: Float32Array, targets: Float32Array, half: int
    ) -> None:
        """Write what was gathered to shared memory."""
        f = cuda.threadIdx.x % lanes * VECTOR
        t = half * chunk + cuda.threadIdx.x // lanes
        at = np.int32(t * width + place(f))
        for i in range(_GATHERED):
            n = VECTOR * i
            four = (numbers[n], numbers[n + 1], numbers[n + 2], numbers[n + 3])
            isa.store4(vectors, at + i * (step * width), four)
            if f == 0:
                targets[t + i * step] = scaled[i]

    return stage
