"""Quality of the factors of a contestant, measured in the same way for all libraries, on the ratings held out."""

from typing import Any

import numpy as np
import numpy.typing as npt

import fastmf
from fastmf.answering.rows import take_rows
from fastmf_bench.problems import Problem
from fastmf_kernels.topk.arrays import Rows

_RANKED_USERS = 2000
_K = 10
_RATINGS_A_BATCH = 1 << 20
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
    """Return the RMSE of mean + b_u + b_i + p·q on the test ratings; without biases, of mean + p·q."""
    test = problem.test()
    predictions = np.full(test.n_ratings, mean)
    if user_biases is not None and item_biases is not None:
        predictions += user_biases[test.users] + item_biases[test.items]
    for start in range(0, test.n_ratings, _RATINGS_A_BATCH):
        batch = slice(start, start + _RATINGS_A_BATCH)
        p, q = user_factors[test.users[batch]], item_factors[test.items[batch]]
        predictions[batch] += np.einsum("nf,nf->n", p, q)
    return fastmf.metrics.rmse(test.ratings, predictions)


def ndcg(problem: Problem, user_factors: FloatArray, item_factors: FloatArray, seed: int = 0) -> float:
    """Return NDCG@10, averaged over at most 2,000 users who have test ratings.

    All items are ranked by p·q, except those that the user has in the training part.
    """
    train, test = problem.train().by_user, problem.test().by_user
    has_test = np.flatnonzero(np.diff(test.indptr))
    rng = np.random.default_rng(seed)
    users = np.sort(rng.choice(has_test, min(_RANKED_USERS, len(has_test)), replace=False))
    exclude = take_rows(Rows(train.indptr, train.indices), users.astype(np.int32))
    relevant = take_rows(Rows(test.indptr, test.indices), users.astype(np.int32))
    queries = np.ascontiguousarray(user_factors[users], np.float32)
    _, best = fastmf.top_k(queries, np.ascontiguousarray(item_factors, np.float32), _K, exclude=exclude)
    return fastmf.metrics.ndcg_at_k(best, relevant, _K)


def of_errors(curve: Curve, goal: float | None = None) -> dict[str, Any]:
    """Return the metrics of a curve of (seconds, RMSE): its lowest RMSE, and the first seconds with RMSE ≤ goal."""
    reached = next((seconds for seconds, error in curve if goal is not None and error <= goal), None)
    return {"best RMSE": min(error for _, error in curve), "seconds to goal": reached, "curve": curve}


def of_rankings(curve: Curve, goal: float) -> dict[str, Any]:
    """Return the metrics of a curve of (seconds, NDCG@10): its highest NDCG, and the first seconds with NDCG ≥ goal."""
    reached = next((seconds for seconds, ndcg in curve if ndcg >= goal), None)
    return {"best NDCG@10": max(ndcg for _, ndcg in curve), "seconds to goal": reached, "curve": curve}
