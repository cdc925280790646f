"""How good the factors of a contestant are: one yardstick for all libraries, on the ratings held out."""

from typing import Any

import numpy as np
import numpy.typing as npt

import fastmf
from fastmf.answering.rows import take_rows
from fastmf_bench.problems import Problem
from fastmf_kernels.topk.arrays import Rows

_JUDGED_USERS = 2000
_K = 10
FloatArray = npt.NDArray[np.float32]
Curve = list[tuple[float, float]]


def rmse(
    problem: Problem,
    user_factors: FloatArray,
    item_factors: FloatArray,
    user_biases: FloatArray | None = None,
    item_biases: FloatArray | None = None,
    mean: float = 0.0,
) -> float:
    """Return the error of mean + b_u + b_i + p·q on the test ratings."""
    test = problem.test()
    predictions = np.full(test.n_ratings, mean)
    if user_biases is not None and item_biases is not None:
        predictions += user_biases[test.users] + item_biases[test.items]
    step = 1 << 20
    for start in range(0, test.n_ratings, step):
        users, items = test.users[start : start + step], test.items[start : start + step]
        predictions[start : start + step] += np.einsum("nf,nf->n", user_factors[users], item_factors[items])
    return fastmf.metrics.rmse(test.ratings, predictions)


def ndcg(problem: Problem, user_factors: FloatArray, item_factors: FloatArray, seed: int = 0) -> float:
    """Return NDCG@10 over some of the users: all items ranked by p·q, those of training left out."""
    train, test = problem.train().by_user, problem.test().by_user
    has_test = np.flatnonzero(np.diff(test.indptr))
    rng = np.random.default_rng(seed)
    users = np.sort(rng.choice(has_test, min(_JUDGED_USERS, len(has_test)), replace=False))
    exclude = take_rows(Rows(train.indptr, train.indices), users.astype(np.int32))
    relevant = take_rows(Rows(test.indptr, test.indices), users.astype(np.int32))
    queries = np.ascontiguousarray(user_factors[users], np.float32)
    _, best = fastmf.top_k(queries, np.ascontiguousarray(item_factors, np.float32), _K, exclude=exclude)
    return fastmf.metrics.ndcg_at_k(best, relevant, _K)


def of_errors(curve: Curve, goal: float | None = None) -> dict[str, Any]:
    """Return the figures of a curve of (seconds, RMSE): the best, and when it first was at most the goal."""
    reached = next((seconds for seconds, error in curve if goal is not None and error <= goal), None)
    return {"best RMSE": min(error for _, error in curve), "seconds to goal": reached, "curve": curve}


def of_rankings(curve: Curve, goal: float) -> dict[str, Any]:
    """Return the figures of a curve of (seconds, NDCG@10): the best, and when it first was at least the goal."""
    reached = next((seconds for seconds, ndcg in curve if ndcg >= goal), None)
    return {"best NDCG@10": max(ndcg for _, ndcg in curve), "seconds to goal": reached, "curve": curve}
