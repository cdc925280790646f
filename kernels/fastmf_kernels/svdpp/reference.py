"""NumPy reference of SVD++: the specification of `fastmf_kernels.svdpp.cpu`.

The score of a user and an item is

    s_ui = μ + b_u + b_i + q_i·(p_u + z_u)      z_u = |N(u)|^-½ Σ_j y_j over the items j in N(u), those that u rated

(Koren, "Factorization meets the neighborhood", KDD 2008). With e_ui = (r - r̂)·dr̂/ds, ratings move biases, p_u and q_i
as in `fastmf_kernels.sgd.point`, where q_i meets p_u + z_u in the place of p_u. The gradient of z_u is summed up over
all ratings of the user before his items move, so that an epoch costs as much as a few of SGD:

    y_j ← (y_j + γ_y |N(u)|^-½ g_u)/(1 + γ_y λ_y) for all j in N(u)     g_u = Σ_i e_ui q_i

with each q_i just before its step.

Users go in *waves*: z_u is taken for all users of a wave when it is begun, and y_j moves when it is done. Adaptive step
sizes are those of `fastmf_kernels.sgd.point` with ‖p_u + z_u‖² and ‖q_i‖² taken once a wave, and ‖g_u‖²/(|N(u)|·k) as
the mean square of the gradient of y_j.
"""

import numpy as np

from fastmf_kernels._types import Float32Array, Float64Array, Int32Array
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.sgd.arrays import RowSteps, Step
from fastmf_kernels.sgd.reference_rows import Norms, descend, move, predict, score_of
from fastmf_kernels.sgd.schedule import Blocks
from fastmf_kernels.svdpp.arrays import Implicit


def run_epoch(
    by_user: CSR,
    blocks: Blocks,
    waves: Int32Array,
    factors: Factors,
    implicit: Implicit,
    link: Link,
    step: Step,
    rows: RowSteps,
    n_threads: int | None = None,
) -> float:
    """Take one gradient step for every rating, wave by wave.

    Parameters
    ----------
    by_user : CSR
        The ratings, one row a user.
    blocks : Blocks
        The ratings once more, in as many columns as a wave has rows of blocks.
    waves : int32 array, shape (n_waves, n_strata, n_tasks, 1)
        The order, from `fastmf_kernels.sgd.schedule.shuffled_waves`.
    factors : Factors
        Changed in place. Its user factors are p_u alone.
    implicit : Implicit
        Its factors and accumulator are changed in place.
    link : Link
    step : Step
    rows : RowSteps
        Its accumulators are changed in place.
    n_threads : int, optional
        Not used here.

    Returns
    -------
    float
        Σ (r - r̂)², each r̂ taken just before its own step.
    """
    squared_error = 0.0
    n_rows = waves.shape[2]
    for wave in waves:
        first = wave.min() // (len(blocks.column_cuts) - 1)
        users = range(blocks.row_cuts[first], blocks.row_cuts[first + n_rows])
        sums = _user_sums(by_user, implicit.item_factors)
        gradients = np.zeros_like(sums)
        norms = Norms(
            ((factors.user_factors + sums) ** 2).sum(axis=1),
            (factors.item_factors.astype(np.float64) ** 2).sum(axis=1),
        )
        for block in wave.ravel():
            entries = slice(blocks.offsets[block], blocks.offsets[block + 1])
            for user, item, rating in zip(
                blocks.users[entries], blocks.items[entries], blocks.ratings[entries], strict=True
            ):
                whole = factors.user_factors[user] + sums[user]
                prediction, slope = predict(score_of(user, item, whole, factors), link)
                error = float(rating) - prediction
                squared_error += error**2
                gradients[user] += error * slope * factors.item_factors[item]
                descend(user, item, whole, error * slope, factors, norms, step, rows)
        for user in users:
            for item in by_user.indices[by_user.indptr[user] : by_user.indptr[user + 1]]:
                gradient = gradients[user] / np.sqrt(by_user.indptr[user + 1] - by_user.indptr[user])
                _move_implicit(item, gradient, implicit, step, float(rows.item_scales[item]))
    return squared_error


def add_implicit(
    by_user: CSR,
    user_factors: Float32Array,
    item_factors: Float32Array,
    whole: Float32Array,
    n_threads: int | None = None,
) -> None:
    """Add z_u to p_u for every user: the vectors that items are multiplied with.

    Parameters
    ----------
    by_user : CSR
        The ratings, one row a user.
    user_factors : float32 array, shape (n_users, n_factors)
        p_u.
    item_factors : float32 array, shape (n_items, n_factors)
        y_j.
    whole : float32 array, shape (n_users, n_factors)
        Filled in.
    n_threads : int, optional
        Not used here.
    """
    whole[:] = user_factors + _user_sums(by_user, item_factors)


def _user_sums(by_user: CSR, item_factors: Float32Array) -> Float64Array:
    """Return z_u of every user."""
    sums = np.zeros((len(by_user.indptr) - 1, item_factors.shape[1]))
    np.add.at(sums, by_user.row_of_each_entry(), item_factors[by_user.indices].astype(np.float64))
    counts = np.diff(by_user.indptr)
    return np.asarray(sums / np.sqrt(np.maximum(counts, 1))[:, None], np.float64)


def _move_implicit(item: int, gradient: Float64Array, implicit: Implicit, step: Step, scale: float) -> None:
    """Move y_j one step, given the derivative of the loss by it, negated."""
    rate = float(implicit.share) * step.learning_rate / np.sqrt(implicit.item_accumulator[item], dtype=np.float64)
    move(implicit.item_factors, item, gradient, float(rate), scale * float(implicit.regularization))
    implicit.item_accumulator[item] += step.adaptive * (gradient**2).mean()
