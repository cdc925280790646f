"""How far a metric would vary with other users: the percentile bootstrap over users."""

from collections.abc import Mapping, Sequence

import numpy as np

from fastmf.common.parameters import require_integer, require_number
from fastmf.errors import ParameterError, named
from fastmf.measuring.measurement import Measurement
from fastmf.measuring.user_values import UserValues
from fastmf_kernels._types import BoolArray, Float64Array

N_RESAMPLES = 1000
"""Samples of users that are drawn."""
# Users that are drawn together, in as many samples as that makes.
_DRAWN_AT_ONCE = 1 << 20


def require_level(ci: object, seed: object) -> None:
    """Raise `ParameterError` unless these are a confidence level between 0 and 1, and the seed of a generator."""
    require_number("ci", ci, minimum=0, exclusive=True)
    if ci >= 1:  # type: ignore[operator]
        raise ParameterError(f"{named('ci')} is {ci!r}; expected a number below 1, such as 0.95")
    require_integer("seed", seed, minimum=0)


def totals_of_samples(metrics: Sequence[UserValues], seed: int) -> Float64Array:
    """Compute metrics for samples of users, drawn with replacement, each as large as all users together.

    A metric is the same whatever others are computed beside it.

    Parameters
    ----------
    metrics : sequence of UserValues
        Of the same users.
    seed : int

    Returns
    -------
    float64 array, shape (N_RESAMPLES, n_metrics)
        NaN where a metric is undefined.
    """
    n_users, generator = len(metrics[0].sums), np.random.default_rng(seed)
    columns = np.stack([part for metric in metrics for part in (metric.sums, metric.weights)], axis=1)
    totals = np.full((N_RESAMPLES, columns.shape[1]), np.nan)
    n_at_once = max(1, _DRAWN_AT_ONCE // max(n_users, 1))
    for start in range(0, N_RESAMPLES, n_at_once):
        n_samples = min(n_at_once, N_RESAMPLES - start)
        drawn = generator.integers(n_users, size=(n_samples, n_users))
        drawn += np.arange(n_samples)[:, np.newaxis] * n_users
        # How often each user is in each sample: a draw from a multinomial distribution.
        counts = np.bincount(drawn.ravel(), minlength=n_samples * n_users).reshape(n_samples, n_users)
        totals[start : start + n_samples] = counts @ columns
    pairs = zip(metrics, totals.T[::2], totals.T[1::2], strict=True)
    return np.stack([metric.ratios(sums, weights) for metric, sums, weights in pairs], axis=1)


def interval(totals: Float64Array, ci: float, n_users: int) -> tuple[float | None, float | None]:
    """Return the percentiles of a metric between which the share ``ci`` of samples lies; None for a single user.

    Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    if n_users < 2:
        return None, None
    low, high = np.nanquantile(totals, [(1 - ci) / 2, (1 + ci) / 2])
    return float(low), float(high)


def groups_of_users(defined: Mapping[str, BoolArray]) -> list[tuple[BoolArray, list[str]]]:
    """Put the names of metrics together that are defined for the same users.

    Parameters
    ----------
    defined : mapping of str to bool array, shape (n_users,)

    Returns
    -------
    list of (bool array, shape (n_users,), and list of str)
    """
    groups: dict[bytes, tuple[BoolArray, list[str]]] = {}
    for name, users in defined.items():
        groups.setdefault(np.packbits(users).tobytes(), (users, []))[1].append(name)
    return list(groups.values())


def intervals(metrics: Sequence[Measurement], ci: float, seed: int) -> dict[str, tuple[float | None, float | None]]:
    """Return the low and the high end of each metric that has values of users, by name.

    They are None where the metric is undefined, or defined for one user alone: all samples are then the same.
    """
    found: dict[str, tuple[float | None, float | None]] = {}
    of_users = {metric.name: metric.of_users for metric in metrics if metric.of_users is not None}
    for users, names in groups_of_users({name: values.is_defined for name, values in of_users.items()}):
        if not users.any():
            found |= dict.fromkeys(names, (None, None))
            continue
        totals = totals_of_samples([of_users[name].take(users) for name in names], seed)
        n_users = int(np.count_nonzero(users))
        found |= {name: interval(column, ci, n_users) for name, column in zip(names, totals.T, strict=True)}
    return found
