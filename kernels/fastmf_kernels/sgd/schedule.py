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

_MAX_GRID = 32
_RATINGS_PER_BLOCK = 512


class Blocks(NamedTuple):
    """Ratings in block order: block (row, column) of the grid holds ``offsets[row * n + column]`` and up.

    Attributes
    ----------
    users, items : int32 arrays, shape (n_ratings,)
        Sorted by user inside a block, so that a user's factors stay in the cache.
    ratings : float32 array, shape (n_ratings,)
    offsets : int64 array, shape (n * n + 1,)
        For a grid of n rows and n columns.
    """

    users: Int32Array
    items: Int32Array
    ratings: Float32Array
    offsets: Int64Array


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


def grid_size(n_users: int, n_items: int, n_ratings: int) -> int:
    """Choose the rows (and columns) of the grid: enough for many cores, while blocks stay worth a visit."""
    wanted = int(np.sqrt(n_ratings / _RATINGS_PER_BLOCK))
    return max(1, min(_MAX_GRID, wanted, n_users, n_items))


def make_blocks(
    by_user: CSR,
    n_items: int,
    group_by: Callable[[Int32Array, int, int | None], Groups],
    n_threads: int | None = None,
) -> Blocks:
    """Put ratings into block order.

    Parameters
    ----------
    by_user : CSR
        One row a user.
    n_items : int
    group_by : callable
        The variant of `fastmf_kernels.layout` to sort with.
    n_threads : int, optional

    Returns
    -------
    Blocks
    """
    n_users = len(by_user.indptr) - 1
    n = grid_size(n_users, n_items, len(by_user.indices))
    user_counts = np.diff(by_user.indptr)
    item_counts = np.bincount(by_user.indices, minlength=n_items)
    row_of_user = np.repeat(np.arange(n, dtype=np.int32), np.diff(cut_by_count(user_counts, n)))
    column_of_item = np.repeat(np.arange(n, dtype=np.int32), np.diff(cut_by_count(item_counts, n)))
    users = by_user.row_of_each_entry()
    block = row_of_user[users]
    block *= np.int32(n)
    block += column_of_item[by_user.indices]
    offsets, order = group_by(block, n * n, n_threads)
    return Blocks(users[order], by_user.indices[order], by_user.values[order], offsets)


def shuffled_strata(n: int, rng: np.random.Generator) -> Int32Array:
    """Draw the order of one epoch: a random Latin square.

    Parameters
    ----------
    n : int
        Rows of the grid.
    rng : numpy.random.Generator

    Returns
    -------
    int32 array, shape (n, n)
        Stratum ``s`` pairs grid row ``r`` with grid column ``strata[s, r]``. Every block comes up once.
    """
    columns, shifts = rng.permutation(n), rng.permutation(n)
    rows = rng.permutation(n)
    return np.asarray(columns[(rows[None, :] + shifts[:, None]) % n], np.int32)
