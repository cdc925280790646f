"""NumPy reference of an SGD epoch: the specification of `fastmf_kernels.sgd.cpu`."""

from fastmf_kernels._types import Int32Array
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.sgd import schedule
from fastmf_kernels.sgd.arrays import RowSteps, Step, TrainingState
from fastmf_kernels.sgd.reference_rows import begin_block, descend, predict, score_of
from fastmf_kernels.sgd.schedule import Blocks, Grid


def run_epoch(
    blocks: Blocks,
    strata: Int32Array,
    factors: Factors,
    link: Link,
    step: Step,
    rows: RowSteps,
    n_threads: int | None = None,
) -> float:
    """Take one gradient step for every rating, stratum by stratum.

    Parameters
    ----------
    blocks : Blocks
        The ratings.
    strata : int32 array, shape (n_strata, n_rows, width)
        The order, from `fastmf_kernels.sgd.schedule.shuffled_strata`.
    factors : Factors
        Changed in place.
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
    for block in strata.ravel():
        entries = slice(blocks.offsets[block], blocks.offsets[block + 1])
        norms = begin_block(factors)
        for user, item, rating in zip(
            blocks.users[entries], blocks.items[entries], blocks.ratings[entries], strict=True
        ):
            p = factors.user_factors[user]
            prediction, slope = predict(score_of(user, item, p, factors), link)
            error = float(rating) - prediction
            squared_error += error**2
            descend(user, item, p, error * slope, factors, norms, step, rows)
    return squared_error


def make_grid(n_users: int, n_items: int, n_ratings: int, width: int = 1) -> Grid:
    """Choose how a table is cut into blocks; see `fastmf_kernels.sgd.schedule.make_grid`."""
    return schedule.make_grid(n_users, n_items, n_ratings, width)


def to_device(blocks: Blocks, factors: Factors, rows: RowSteps, factor_dtype: str = "float32") -> TrainingState:
    """Move the training state to the device, for the time of training; a no-op on the CPU.

    Parameters
    ----------
    blocks, factors, rows
        As `run_epoch` takes them. They must not be changed before `to_host`.
    factor_dtype : {"float32", "float16"}
        Of factors on the device. A GPU reads and writes float16 in half the time, and still computes in float32;
        kernels of the CPU take float32 only.

    Returns
    -------
    TrainingState
    """
    if factor_dtype == "float32":
        return TrainingState(blocks, factors, rows)
    tables = {name: getattr(factors, name).astype(factor_dtype) for name in ("user_factors", "item_factors")}
    return TrainingState(blocks, factors._replace(**tables), rows)


def to_host(state: TrainingState, factors: Factors, rows: RowSteps) -> None:
    """Write what epochs have changed back to the arrays on the host; a no-op where these are the same arrays.

    Parameters
    ----------
    state : TrainingState
        From `to_device`; it remains good for more epochs.
    factors, rows
        Changed in place.
    """
    if state.factors is not factors:
        factors.user_factors[:], factors.item_factors[:] = state.factors[:2]
