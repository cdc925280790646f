"""Whether the difference of two models could be chance: the randomisation test over users.

If the models were alike, each user's values could as well be those of the other model. The test exchanges them for some
users, and counts how often the models then differ by as much as they do. It is exact for any number of users, where
the bootstrap takes differences of a few users for certain (Smucker, Allan, Carterette, "A comparison of statistical
significance tests for information retrieval evaluation", CIKM 2007).
"""

import numpy as np

from fastmf.measuring.user_values import UserValues
from fastmf_kernels._types import Float64Array

N_EXCHANGES = 10_000
"""Random choices of users whose values are exchanged, where there are too many users to go through all choices."""
# Of so many users who differ, all choices are gone through.
_MOST_TO_ENUMERATE = 14
# Differences below this share of the metric are 0 but for rounding.
_ROUNDING = 1e-12
# The bits of each byte, the lowest first.
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1, bitorder="little").astype(np.float64)


def p_value(a: UserValues, b: UserValues, seed: int) -> float:
    """Return how likely the models would differ by as much as they do, if they were alike; two-sided.

    Parameters
    ----------
    a, b : UserValues
        A metric of two models, of the same users.
    seed : int
        Of the random choices.

    Returns
    -------
    float
        At least 2 ** (1 - n), for n users for whom the models differ.

    Examples
    --------
    >>> import numpy as np
    >>> a, b = (UserValues.of(np.array(values)) for values in ([0.1, 0.2, 0.3], [0.2, 0.4, 0.5]))
    >>> p_value(a, b, seed=0)
    0.25
    """
    before = np.array([[values.sums.sum(), values.weights.sum()] for values in (a, b)])
    changes = np.stack([b.sums - a.sums, b.weights - a.weights], axis=1)
    differ = changes.any(axis=1)
    moved = _moved(changes[differ], seed)
    of_a, of_b = (a.ratios(*(start + sign * moved).T) for start, sign in zip(before, (1, -1), strict=True))
    observed = abs(b.total - a.total) - _ROUNDING * max(abs(a.total), abs(b.total))
    n_as_large = np.count_nonzero(np.abs(of_b - of_a) >= observed)
    # Of random choices, the one that was observed is another.
    n_more = 0 if np.count_nonzero(differ) <= _MOST_TO_ENUMERATE else 1
    return float((n_as_large + n_more) / (len(moved) + n_more))


def _moved(changes: Float64Array, seed: int) -> Float64Array:
    """Return what comes to the first model when values of some users are exchanged, for all or many choices of them.

    Parameters
    ----------
    changes : float64 array, shape (n_users, 2)
        What comes with each user.
    seed : int

    Returns
    -------
    float64 array, shape (n_choices, 2)
    """
    n_users, generator = len(changes), np.random.default_rng(seed)
    is_exact = n_users <= _MOST_TO_ENUMERATE
    all_choices = np.arange(1 << n_users) if is_exact else np.empty(0, np.int64)
    moved = np.zeros((len(all_choices) if is_exact else N_EXCHANGES, 2))
    # Eight users at a time: the bits of a byte say whose values are exchanged.
    for start in range(0, n_users, 8):
        chosen = all_choices >> start & 255 if is_exact else generator.integers(256, size=N_EXCHANGES, dtype=np.uint8)
        of_eight = changes[start : start + 8]
        moved += (_BITS[:, : len(of_eight)] @ of_eight)[chosen]
    return moved
