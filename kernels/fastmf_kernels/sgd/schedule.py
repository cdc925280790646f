"""Which ratings may be walked at the same time, and in which order: fixed by the data and the seed, never by threads.

The table of ratings is cut into a grid of user ranges by item ranges. Blocks that share neither a row nor a column of
the grid touch disjoint factors; a *stratum* is a set of such blocks, one in each row and column. Strata run one after
the other, the blocks of a stratum side by side without locks, and the result has the same bits for any number of
threads (Gemulla, Nijkamp, Haas, Sismanis, "Large-Scale Matrix Factorization with Distributed Stochastic Gradient
Descent", KDD 2011; the grid on one machine: Chin, Zhuang, Juan, Lin, "A Fast Parallel Stochastic Gradient Method for
Matrix Factorization in Shared Memory Systems", ACM TIST 6(1), 2015).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastmf_kernels._types import Float32Array, Int32Array, Int64Array
from fastmf_kernels.layout.arrays import CSR, Groups

_FEWEST_TASKS, _MOST_TASKS = 8, 64
_RATINGS_PER_BLOCK, _FEWEST_PER_BLOCK = 1 << 15, 512
_RATINGS_PER_WAVE, _FEWEST_PER_WAVE, _ENOUGH_WAVES = 1 << 16, 1 << 13, 16


class Blocks(NamedTuple):
    """Ratings in block order: block (row, column) holds ``offsets[row * n_columns + column]`` and up.

    Attributes
    ----------
    users, items : int32 arrays, shape (n_ratings,)
        Sorted by user inside a block, so that a user's factors stay in the cache.
    ratings : float32 array, shape (n_ratings,)
    offsets : int64 array, shape (n_rows * n_columns + 1,)
    row_cuts : int64 array, shape (n_rows + 1,)
        The users of row ``r`` are ``row_cuts[r]`` and up.
    column_cuts : int64 array, shape (n_columns + 1,)
        The items of column ``c`` are ``column_cuts[c]`` and up.
    """

    users: Int32Array
    items: Int32Array
    ratings: Float32Array
    offsets: Int64Array
    row_cuts: Int64Array
    column_cuts: Int64Array


def cut_by_count(counts: Int64Array, n_parts: int) -> Int64Array:
    """Cut a sequence into contiguous parts of about equal total count.

    Parameters
    ----------
    counts : int64 array, shape (n,)
    n_parts : int

    Returns
    -------
    int64 array, shape (n_parts + 1,)
        Part ``i`` is ``cuts[i]:cuts[i + 1]``. A part may be empty.
    """
    cumulative = np.cumsum(counts)
    total = cumulative[-1] if len(cumulative) else 0
    goals = total * np.arange(1, n_parts) / n_parts
    inner = np.searchsorted(cumulative, goals, side="left") + 1
    return np.concatenate([[0], np.minimum(inner, len(counts)), [len(counts)]]).astype(np.int64)


class Grid(NamedTuple):
    """How a table is cut.

    Attributes
    ----------
    n_tasks : int
        Blocks, or groups of them, that run side by side.
    width : int
        Blocks of a task: there are ``n_tasks · width`` columns of blocks.
    n_waves : int
        Parts of the users that are walked one after the other: there are ``n_waves · n_tasks`` rows of blocks.
    """

    n_tasks: int
    width: int = 1
    n_waves: int = 1


def make_grid(n_users: int, n_items: int, n_ratings: int, width: int = 1) -> Grid:
    """Choose the grid for a table; it depends on nothing else.

    Each column brings in the users' factors once more, so there are no more of them than it takes to keep as many cores
    busy as a table of this size is worth.
    """
    wanted = max(int(np.sqrt(n_ratings / _RATINGS_PER_BLOCK)), _FEWEST_TASKS)
    worthwhile = int(np.sqrt(n_ratings / _FEWEST_PER_BLOCK))
    return Grid(max(1, min(_MOST_TASKS, wanted, worthwhile, n_users, n_items)), width)


def make_blocks(
    by_user: CSR,
    n_items: int,
    grid: Grid,
    group_by: Callable[[Int32Array, int, int | None], Groups],
    n_threads: int | None = None,
) -> Blocks:
    """Put ratings into block order.

    Parameters
    ----------
    by_user : CSR
        One row a user.
    n_items : int
    grid : Grid
    group_by : callable
        The variant of `fastmf_kernels.layout` to sort with.
    n_threads : int, optional

    Returns
    -------
    Blocks
    """
    n_rows, n_columns = grid.n_waves * grid.n_tasks, grid.n_tasks * grid.width
    row_cuts = cut_by_count(np.diff(by_user.indptr), n_rows)
    column_cuts = cut_by_count(np.bincount(by_user.indices, minlength=n_items), n_columns)
    row_of_user = np.repeat(np.arange(n_rows, dtype=np.int32), np.diff(row_cuts))
    column_of_item = np.repeat(np.arange(n_columns, dtype=np.int32), np.diff(column_cuts))
    users = by_user.row_of_each_entry()
    block = row_of_user[users]
    block *= np.int32(n_columns)
    block += column_of_item[by_user.indices]
    offsets, order = group_by(block, n_rows * n_columns, n_threads)
    return Blocks(users[order], by_user.indices[order], by_user.values[order], offsets, row_cuts, column_cuts)


def shuffled_strata(grid: Grid, rng: np.random.Generator) -> Int32Array:
    """Draw the order of one epoch: a random Latin square of rows and groups of columns, the groups random too.

    Parameters
    ----------
    grid : Grid
    rng : numpy.random.Generator

    Returns
    -------
    int32 array, shape (n_tasks, n_tasks, width)
        The blocks of each task of each stratum. Every block comes up once.
    """
    n, width = grid.n_tasks, grid.width
    groups = rng.permutation(n * width).reshape(n, width)
    rows, shifts = rng.permutation(n), rng.permutation(n)
    group = (rows[None, :] + shifts[:, None]) % n
    return np.asarray(np.arange(n)[None, :, None] * (n * width) + groups[group], np.int32)


def make_waves(n_users: int, n_items: int, n_ratings: int) -> Grid:
    """Choose the grid for a table whose users are walked in waves; it depends on nothing else.

    What waits for the end of a wave before it moves overshoots if the wave is long; each wave makes all threads wait
    for one another a few times more.
    """
    wanted = max(n_ratings // _RATINGS_PER_WAVE, min(n_ratings // _FEWEST_PER_WAVE, _ENOUGH_WAVES))
    n_waves = max(1, min(wanted, n_users))
    grid = make_grid(n_users // n_waves, n_items, n_ratings // n_waves)
    return grid._replace(n_waves=n_waves)


def shuffled_waves(grid: Grid, rng: np.random.Generator) -> Int32Array:
    """Draw the order of one epoch of waves: a random order of the waves, and `shuffled_strata` in each of them.

    Parameters
    ----------
    grid : Grid
    rng : numpy.random.Generator

    Returns
    -------
    int32 array, shape (n_waves, n_tasks, n_tasks, width)
        The blocks of each task of each stratum of each wave. Every block comes up once.
    """
    blocks_of_a_wave = grid.n_tasks**2 * grid.width
    order = rng.permutation(grid.n_waves)
    return np.stack([np.int32(wave * blocks_of_a_wave) + shuffled_strata(grid, rng) for wave in order])
