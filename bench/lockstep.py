"""What conflicts cost SGD on a GPU in quality, told without one: ``python bench/lockstep.py TRAIN TEST``.

A model of the kernels in `fastmf_kernels.sgd.cuda.walk` in NumPy. The runs of a stratum advance in lockstep, so many at
a time: each step of all of them starts from the same rows of items, and what they add is added up. On a GPU, runs that
meet at an item do so by chance.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any
from unittest import mock

import numpy as np

import fastmf
from fastmf.backend import Kernels, get_backend
from fastmf.errors import DivergenceError
from fastmf_kernels._types import Float32Array, Int32Array, Int64Array
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.sgd.arrays import RowSteps, Step
from fastmf_kernels.sgd.schedule import Blocks

# What 132 multiprocessors hold of groups of 16 threads.
MOST_RUNS = 16_896
_SETTINGS: tuple[dict[str, Any], ...] = ({}, {"rating_range": (1, 5)}, {"adaptive": False, "learning_rate": 0.01})


def run_epoch(
    blocks: Blocks,
    strata: Int32Array,
    factors: Factors,
    link: Link,
    step: Step,
    rows: RowSteps,
    n_threads: int | None = None,
    *,
    most_runs: int = MOST_RUNS,
    at_first: bool = False,
) -> float:
    """Take one gradient step for every rating, as `fastmf_kernels.sgd.reference.run_epoch` does, but in lockstep.

    Parameters
    ----------
    blocks, strata, factors, link, step, rows, n_threads
        As there.
    most_runs : int
        How many runs advance together.
    at_first : bool
        Enter each run at its first item, and not at a place of its own.
    """
    squared_error = 0.0
    for stratum in strata.reshape(-1, strata.shape[-2], strata.shape[-1]):
        norms = np.einsum("nf,nf->n", factors.item_factors, factors.item_factors, dtype=np.float32)
        own_norms = np.einsum("nf,nf->n", factors.user_factors, factors.user_factors, dtype=np.float32)
        for positions in _walk(blocks, stratum.ravel(), most_runs, at_first):
            squared_error += _take_steps(blocks, positions, factors, link, step, rows, (own_norms, norms))
    return squared_error


def _walk(blocks: Blocks, stratum: Int32Array, most_runs: int, at_first: bool) -> Iterator[Int64Array]:
    """Yield the positions of the ratings whose steps are taken together."""
    starts, stops = [], []
    for start, stop in zip(blocks.offsets[stratum], blocks.offsets[stratum + 1], strict=True):
        users = blocks.users[start:stop]
        begins = np.flatnonzero(np.append(True, users[1:] != users[:-1])[: len(users)]) + start
        starts.append(begins)
        stops.append(np.append(begins[1:], stop)[: len(begins)])
    start, stop = np.concatenate(starts), np.concatenate(stops)
    order = np.argsort(start - stop, kind="stable")
    start, length = start[order], (stop - start)[order]
    entered = np.zeros_like(length) if at_first else (np.arange(len(start)) * 2654435761 & 0xFFFFFFFF) * length >> 32
    running, n_begun = np.arange(min(most_runs, len(start))), min(most_runs, len(start))
    done = np.zeros(len(running), np.int64)
    while len(running):
        yield start[running] + (entered[running] + done) % length[running]
        done += 1
        goes_on = done < length[running]
        n_more = min(int(np.count_nonzero(~goes_on)), len(start) - n_begun)
        running = np.append(running[goes_on], np.arange(n_begun, n_begun + n_more))
        done = np.append(done[goes_on], np.zeros(n_more, np.int64))
        n_begun += n_more


def _take_steps(
    blocks: Blocks,
    positions: Int64Array,
    factors: Factors,
    link: Link,
    step: Step,
    rows: RowSteps,
    norms: tuple[Float32Array, Float32Array],
) -> float:
    """Take a step for each of some ratings, no two of them of one user: the equations are in `sgd.point`."""
    user, item = blocks.users[positions], blocks.items[positions]
    p, q = factors.user_factors[user].astype(np.float32), factors.item_factors[item].astype(np.float32)
    score = factors.global_mean + factors.user_biases[user] + factors.item_biases[item] + np.einsum("nf,nf->n", p, q)
    r_hat, slope = score, np.float32(1)
    if link.span:
        sigmoid = 1 / (1 + np.exp(-score))
        r_hat, slope = link.low + link.span * sigmoid, link.span * sigmoid * (1 - sigmoid)
    residual = blocks.ratings[positions] - r_hat
    error = (residual * slope).astype(np.float32)
    gained = step.adaptive * error**2 / p.shape[1]
    for table, biases, squares, scales, index, own, other, norm, strength, bias_strength in (
        (*factors[0::2][:2], rows.user_accumulator, rows.user_scales, user, p, q, norms[1][item], *step[3::2]),
        (*factors[1::2][:2], rows.item_accumulator, rows.item_scales, item, q, p, norms[0][user], *step[4::2]),
    ):
        root, pull, bias_pull = np.sqrt(squares[index]), scales[index] * strength, scales[index] * bias_strength
        rate = step.learning_rate / (root + step.learning_rate * pull)
        bias_rate = step.bias_learning_rate / (root + step.bias_learning_rate * bias_pull)
        _add(table, index, rate[:, None] * (error[:, None] * other - pull[:, None] * own))
        _add(biases, index, bias_rate * (error - bias_pull * biases[index]))
        _add(squares, index, gained * norm)
    return float(np.sum(residual.astype(np.float64) ** 2))


def _add(table: Any, index: Int32Array, moves: Any) -> None:
    """Add to rows of a table; what comes up several times is added up in float32, and rounded once."""
    order = np.argsort(index, kind="stable")
    ordered = index[order]
    firsts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    rows = ordered[firsts]
    table[rows] = table[rows].astype(np.float32) + np.add.reduceat(moves[order], firsts, axis=0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train with each of some settings on the CPU and in lockstep, and print the errors on the test part."""
    parser = argparse.ArgumentParser(prog="python bench/lockstep.py", description=__doc__.splitlines()[0])
    parser.add_argument("train", help="Parquet file with user_id, item_id, rating")
    parser.add_argument("test", help="the same, of ratings to be measured on")
    parser.add_argument("--runs", type=int, default=MOST_RUNS, help="that advance together (default: %(default)s)")
    parser.add_argument("--at-first", action="store_true", help="enter each run at its first item")
    parser.add_argument("--storage", choices=("float32", "float16"), default="float32", help="of factors")
    parsed = parser.parse_args(arguments)
    train, test = fastmf.read_parquet(parsed.train), fastmf.read_parquet(parsed.test)
    lockstep = get_backend("reference")._replace(
        group_by=get_backend("cpu").group_by,
        run_epoch=partial(run_epoch, most_runs=parsed.runs, at_first=parsed.at_first),
    )
    for settings in _SETTINGS:
        on_cpu = _error(fastmf.SGD(**settings), train, test, get_backend("cpu"))
        model = fastmf.SGD(storage=parsed.storage, backend="reference", **settings)
        print(f"{settings}: CPU {on_cpu:.4f}, lockstep {_error(model, train, test, lockstep):.4f}", flush=True)
    return 0


def _error(model: fastmf.SGD, train: fastmf.Interactions, test: fastmf.Interactions, kernels: Kernels) -> float:
    """Return the RMSE on the test part after training with some kernels; infinite where that diverges."""
    try:
        with mock.patch("fastmf.models.factor_model.get_backend", return_value=kernels), np.errstate(all="ignore"):
            model.fit(train)
    except DivergenceError:
        return float("inf")
    return float(fastmf.evaluate(model.set_params(backend="cpu"), test, metrics=["rmse"])["rmse"])


if __name__ == "__main__":
    sys.exit(main())
