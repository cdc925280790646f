"""The equations of a block of coordinates, which a block of threads makes from a few columns of a row's vectors.

Each thread adds up a square tile of the lower half. There are more threads than tiles of a small block: they are cut
into slices, each of which has all tiles and a share of the entries.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from fastmf_kernels._cuda.jit import WARP, cuda, device, isa
from fastmf_kernels._cuda.rows import VECTOR, make_group
from fastmf_kernels._types import Float32Array
from fastmf_kernels.als.cuda.problem import DeviceSweep, weigh
from fastmf_kernels.als.cuda.tiles import make_largest, make_tiles, place_of_tile

TILE = 4
# A pivot this small is singular in any case: there is nothing to compare it with.
_SMALLEST_PIVOT = np.float32(1e-30)
_EPSILON = np.float32(np.finfo(np.float32).eps)
_ALL_LANES = 0xFFFFFFFF
_ZERO = np.float32(0)


class RowWorkers(NamedTuple):
    """The threads that work on one row together.

    Attributes
    ----------
    threads : int
    n_kept : int
        Entries whose columns are in shared memory at a time.
    """

    threads: int
    n_kept: int


class Slices(NamedTuple):
    """How the threads of a row share the products of a block: a slice of threads has all tiles and some of the entries.

    Attributes
    ----------
    n_tiles, n_slices : int
    n_cells : int
        Numbers of all tiles.
    n_shared : int
        Numbers in shared memory for the tiles of all slices, and later for L.
    """

    n_tiles: int
    n_slices: int
    n_cells: int
    n_shared: int


def slices_of(block: int, workers: RowWorkers) -> Slices:
    """Return how the threads of a row share the products of a block."""
    across = block // TILE
    n_tiles = across * (across + 1) // 2
    n_slices = workers.threads // n_tiles
    n_cells, n_factor = n_tiles * TILE * TILE, block * (block + 1) // 2
    return Slices(n_tiles, n_slices, n_cells, max(n_factor, n_slices * n_cells if n_slices > 1 else 0))


@functools.cache
def make_stage(width: int, block: int, workers: RowWorkers) -> Any:
    """Return the device function that gathers columns of a row's vectors."""
    size, _, number, lane_of, _, _ = make_group(block)
    n_groups = workers.threads // size

    @device
    def stage(
        problem: DeviceSweep,
        u: int,
        column: int,
        first: int,
        n: int,
        vectors: Float32Array,
        errors: Float32Array,
        base: int,
        part: Float32Array,
    ) -> None:
        """Gather a block of q̃ of n of a row's entries; add the thread's share of Σ (t̃ - q̃·x) q̃."""
        t, f, start = number(), VECTOR * lane_of(), problem.indptr[u] + first
        while t < n:
            root, row = weigh(problem, start + t)[0], np.int64(problem.indices[np.uint64(start + t)]) * width
            q, error = isa.load4(problem.fixed_factors, row + column + f), errors[base + first + t]
            scaled = root * q[0], root * q[1], root * q[2], root * q[3]
            isa.store4(vectors, t * block + f, scaled)
            for e in range(VECTOR):
                part[e] += error * scaled[e]
            t += n_groups

    return stage


@functools.cache
def make_accumulate(block: int, workers: RowWorkers) -> Any:
    """Return the device function that multiplies gathered columns with each other."""
    n_slices = slices_of(block, workers).n_slices
    add, place_of = make_tiles(block, TILE).add, _make_place(block, workers)

    @device
    def accumulate(tile: Float32Array, vectors: Float32Array, n: int) -> None:
        """Add q̃ q̃ᵀ of the slice's share of n vectors to the thread's tile."""
        part, number = place_of()
        i, j = place_of_tile(number)
        of_slice = (n + n_slices - 1) // n_slices
        first = min(part * of_slice, n)
        add(tile, vectors, vectors, first * block, min(of_slice, n - first), i, j)

    return accumulate


@functools.cache
def _make_place(block: int, workers: RowWorkers) -> Any:
    n_tiles, n_slices, _, _ = slices_of(block, workers)

    @device
    def place_of() -> tuple[int, int]:
        """Return the thread's slice and tile: surplus threads repeat the last tile, or have no entries."""
        if n_slices == 1:
            return 0, min(cuda.threadIdx.x, n_tiles - 1)
        return cuda.threadIdx.x // n_tiles, cuda.threadIdx.x % n_tiles

    return place_of


@functools.cache
def make_add_up(block: int, workers: RowWorkers) -> Any:
    """Return the device function that adds up what slices have of the matrix."""
    n_tiles, n_slices, n_cells, _ = slices_of(block, workers)
    n_numbers, threads, place_of = TILE * TILE, workers.threads, _make_place(block, workers)

    @device
    def add_up(tile: Float32Array, memory: Float32Array) -> None:
        """Add up the tiles of all slices, one after the other; surplus threads repeat the last tile."""
        if n_slices > 1:
            part, number = place_of()
            if part < n_slices:
                for e in range(n_numbers):
                    memory[part * n_cells + e * n_tiles + number] = tile[e]
        cuda.syncthreads()
        if n_slices > 1:
            at = cuda.threadIdx.x
            while at < n_cells:
                total = memory[at]
                for other in range(1, n_slices):
                    total += memory[other * n_cells + at]
                memory[at] = total
                at += threads
            cuda.syncthreads()
            number = min(cuda.threadIdx.x, n_tiles - 1)
            for e in range(n_numbers):
                tile[e] = memory[e * n_tiles + number]

    return add_up


@functools.cache
def make_share(block: int, workers: RowWorkers) -> Any:
    """Return the device function that adds up what the threads of a warp have of the right side."""
    size = make_group(block).size

    @device
    def share(part: Float32Array, sums: Float32Array) -> None:
        """Add up the right side in each warp; the barrier that has to follow is that of the tiles."""
        distance = size
        while distance < WARP:
            for e in range(VECTOR):
                part[e] += cuda.shfl_xor_sync(_ALL_LANES, part[e], distance)
            distance *= 2
        lane = cuda.threadIdx.x % WARP
        if lane < size:
            at = cuda.threadIdx.x // WARP * block + VECTOR * lane
            isa.store4(sums, at, (part[0], part[1], part[2], part[3]))

    return share


@functools.cache
def make_added(width: int, dense: bool) -> Any:
    """Return the device function for what a row's entries do not make of its matrix's diagonal."""

    @device
    def added(problem: DeviceSweep, u: int, f: int) -> np.float32:
        """Return G_ff + λ, or 0 where f is padding."""
        if f >= problem.n_factors:
            return _ZERO
        if dense:
            return problem.gram[f * (width + 1)] + problem.regularization[u]  # type: ignore[no-any-return]
        return problem.regularization[u]  # type: ignore[no-any-return]

    return added


@functools.cache
def make_complete(width: int, block: int, dense: bool, workers: RowWorkers) -> Any:
    """Return the device function that completes the equations of a block."""
    n_warps, own, added = workers.threads // WARP, make_tiles(block, TILE).own, make_added(width, dense)
    largest_of = make_largest(block)

    @device
    def complete(
        problem: DeviceSweep,
        u: int,
        column: int,
        factors: Float32Array,
        tile: Float32Array,
        sums: Float32Array,
        diagonal: Float32Array,
    ) -> tuple[np.float32, np.float32]:
        """Add G + λI; return the thread's number of (b - Ax)_b, and how small a pivot counts as 0.

        Where coordinates are padding, the diagonal gets its largest element.
        """
        thread, right = cuda.threadIdx.x, _ZERO
        if thread < block:
            for warp in range(n_warps):
                right += sums[warp * block + thread]
            right -= added(problem, u, column + thread) * factors[u * width + column + thread]
        i, j = own()
        if i == j:
            for a in range(TILE):
                tile[a * TILE + a] += added(problem, u, column + i * TILE + a)
                diagonal[i * TILE + a] = tile[a * TILE + a]
        cuda.syncthreads()
        largest: np.float32 = largest_of(diagonal)
        if i == j:
            for a in range(TILE):
                if column + i * TILE + a >= problem.n_factors:
                    tile[a * TILE + a] = largest
        n = min(block, problem.n_factors - column)
        return right, max(np.float32(n) * _EPSILON * largest, _SMALLEST_PIVOT)

    return complete
