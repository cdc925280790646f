"""NumPy reference of epochs beside drawn items: the specification of `fastmf_kernels.negative_sampling.cpu`."""

from collections.abc import Iterator

import numpy as np

from fastmf_kernels._types import Float32Array, Int32Array
from fastmf_kernels.negative_sampling.arrays import TRIES, Ranked, Sampling
from fastmf_kernels.predict.arrays import Factors
from fastmf_kernels.sgd.arrays import RowSteps, Step
from fastmf_kernels.sgd.reference_rows import Norms, begin_block, descend, move_bias, move_row, score_of, sides, sigmoid
from fastmf_kernels.sgd.schedule import Blocks


def run_bpr_epoch(
    blocks: Blocks,
    strata: Int32Array,
    factors: Factors,
    step: Step,
    rows: RowSteps,
    sampling: Sampling,
    n_threads: int | None = None,
) -> Ranked:
    """Draw items beside every rating, and take one step for each pair (BPR).

    Parameters
    ----------
    blocks : Blocks
        The ratings, with two columns to a task; their values do not matter.
    strata, factors, step, rows, n_threads
        As in `fastmf_kernels.sgd.reference.run_epoch`.
    sampling : Sampling

    Returns
    -------
    Ranked
    """
    n_pairs = n_right = 0
    for place, norms, columns in _places_in_pairs(blocks, strata, factors):
        user, chosen = int(blocks.users[place]), int(blocks.items[place])
        for drawn in _draws(sampling, columns, user, place):
            p, q_i, q_j = (table.astype(np.float64) for table in _rows(factors, user, chosen, drawn))
            difference = p @ (q_i - q_j) + float(factors.item_biases[chosen]) - float(factors.item_biases[drawn])
            _descend_pair(user, (chosen, drawn), sigmoid(float(-difference)), factors, norms, step, rows)
            n_pairs, n_right = n_pairs + 1, n_right + int(difference > 0)
    return Ranked(n_pairs, n_right)


def run_logistic_epoch(
    blocks: Blocks,
    strata: Int32Array,
    factors: Factors,
    step: Step,
    rows: RowSteps,
    sampling: Sampling,
    n_threads: int | None = None,
) -> Ranked:
    """Take a step for every rating, towards 1, and for each item drawn beside it, towards 0 (logistic loss).

    The parameters are those of `run_bpr_epoch`.

    Returns
    -------
    Ranked
    """
    n_pairs = n_right = 0
    for place, norms, columns in _places_in_pairs(blocks, strata, factors):
        user, chosen = int(blocks.users[place]), int(blocks.items[place])
        p = factors.user_factors[user]
        chosen_score = score_of(user, chosen, p, factors)
        descend(user, chosen, p, 1 - sigmoid(chosen_score), factors, norms, step, rows)
        for drawn in _draws(sampling, columns, user, place):
            drawn_score = score_of(user, drawn, p, factors)
            descend(user, drawn, p, -sigmoid(drawn_score), factors, norms, step, rows)
            n_pairs, n_right = n_pairs + 1, n_right + int(chosen_score > drawn_score)
    return Ranked(n_pairs, n_right)


Column = tuple[int, int]


def _places_in_pairs(
    blocks: Blocks, strata: Int32Array, factors: Factors
) -> Iterator[tuple[int, Norms, tuple[Column, Column, int]]]:
    """Go over the places of all ratings, each with its column, its task's other one, and the number of columns."""
    n_columns = len(blocks.column_cuts) - 1
    for task in strata.reshape(-1, strata.shape[2]):
        for block, other in zip(task, task[::-1], strict=True):
            norms = begin_block(factors)
            own, partner = (
                (int(blocks.column_cuts[c]), int(blocks.column_cuts[c + 1]))
                for c in (block % n_columns, other % n_columns)
            )
            for place in range(blocks.offsets[block], blocks.offsets[block + 1]):
                yield place, norms, (own, partner, n_columns)


def _draws(sampling: Sampling, columns: tuple[Column, Column, int], user: int, place: int) -> Iterator[int]:
    """Draw items that the user has not rated, beside the rating at a place: fewer than wanted if there are few."""
    (first, last), (other_first, other_last), n_columns = columns
    seen = set(sampling.indices[sampling.indptr[user] : sampling.indptr[user + 1]].tolist())
    for n in range(sampling.n_negatives):
        for trial in range(TRIES):
            share = _random(int(sampling.key), (place * sampling.n_negatives + n) * TRIES + trial)
            position = share * ((last - first) + (n_columns - 1) * (other_last - other_first))
            if position < last - first:
                item = first + int(position)
            else:
                item = min(other_first + int((position - (last - first)) / (n_columns - 1)), other_last - 1)
            if item not in seen:
                yield item
                break


def _random(key: int, counter: int) -> float:
    """Return a number from 0 to just below 1: SplitMix64."""
    bits = 2**64 - 1
    z = (key + (counter + 1) * 0x9E3779B97F4A7C15) & bits
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & bits
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & bits
    return float(((z ^ (z >> 31)) >> 11) * 2.0**-53)


def _rows(factors: Factors, user: int, first: int, second: int) -> tuple[Float32Array, Float32Array, Float32Array]:
    return factors.user_factors[user], factors.item_factors[first], factors.item_factors[second]


def _descend_pair(
    user: int,
    items: tuple[int, int],
    error: float,
    factors: Factors,
    norms: Norms,
    step: Step,
    rows: RowSteps,
) -> None:
    """Move a user, an item whose score is to rise, and one whose score is to fall."""
    users, both = sides(factors, step, rows)
    p, q_i, q_j = (row.astype(np.float64) for row in _rows(factors, user, *items))
    k, user_norm = len(p), norms.users[user]
    move_row(users, user, error * (q_i - q_j), error**2 * (norms.items[items[0]] + norms.items[items[1]]) / k)
    for item, e in zip(items, (error, -error), strict=True):
        move_bias(both, item, e, move_row(both, item, e * p, e**2 * user_norm / k))
