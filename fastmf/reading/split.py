"""Split ratings into a training and a test part. Both keep the id space and the row order of the source."""

from typing import Any

import numpy as np
import pyarrow as pa

from fastmf.common.parameters import require_choice, require_integer, require_number
from fastmf.errors import DataError, ParameterError, named
from fastmf.reading.interactions import Interactions
from fastmf.reading.times import in_unit_of
from fastmf.reading.values import to_arrow_times
from fastmf_kernels._types import Int64Array

Split = tuple[Interactions, Interactions]

HELD_OUT_BY = ("random", "user", "time", "last")
"""The rules of `hold_out`, by their names."""

_TEST_FRACTION = 0.1


def random(ratings: Interactions, test_fraction: float = 0.1, seed: int = 0) -> Split:
    """Put a random share of all ratings into the test part.

    Parameters
    ----------
    ratings : Interactions
    test_fraction : float
        Between 0 and 1, exclusive; the count is rounded, and both parts get at least one rating.
    seed : int

    Returns
    -------
    train, test : Interactions

    Raises
    ------
    ParameterError, DataError

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.Interactions.from_arrays([1, 1, 2, 2], [1, 2, 1, 2], [5, 4, 3, 2])
    >>> train, test = fastmf.split.random(ratings, test_fraction=0.25, seed=0)
    >>> len(train), len(test)
    (3, 1)
    """
    _require_ratings(ratings)
    _require_fraction(test_fraction)
    n_test = _test_count(ratings.n_ratings, test_fraction)
    chosen = _shuffled(ratings, seed)[:n_test]
    return _cut(ratings, chosen)


def per_user(ratings: Interactions, test_fraction: float = 0.1, seed: int = 0) -> Split:
    """Put a random share of every user's ratings into the test part.

    Parameters
    ----------
    ratings : Interactions
    test_fraction : float
        Between 0 and 1, exclusive. Of a user's n ratings, round(n · test_fraction) (halves up) go to the test part; at
        least one stays in the training part.
    seed : int

    Returns
    -------
    train, test : Interactions
    """
    _require_ratings(ratings)
    _require_fraction(test_fraction)
    order = _shuffled(ratings, seed)
    rank, count = _rank_within_user(ratings, order)
    goal = np.minimum(np.floor(count * test_fraction + 0.5), count - 1)
    advice = "raise test_fraction; a user with one rating keeps it in the training part"
    return _cut(ratings, np.flatnonzero(rank < goal), advice)


def leave_last_out(ratings: Interactions, n: int = 1) -> Split:
    """Put every user's last ``n`` ratings into the test part; among equal times, the later row is the later one.

    Parameters
    ----------
    ratings : Interactions
        With timestamps.
    n : int
        All ratings of a user with ``n`` or fewer stay in the training part.

    Returns
    -------
    train, test : Interactions

    Raises
    ------
    DataError
        If there are no timestamps.
    """
    require_integer("n", n, minimum=1)
    newest_first = np.argsort(_times(ratings), kind="stable")[::-1]
    rank, count = _rank_within_user(ratings, newest_first)
    advice = f"choose n below {count.max()}, the largest number of ratings of a user"
    return _cut(ratings, np.flatnonzero((rank < n) & (count > n)), advice)


def temporal(ratings: Interactions, test_fraction: float | None = None, at: Any = None) -> Split:
    """Put all ratings at or after a point in time into the test part.

    Parameters
    ----------
    ratings : Interactions
        With timestamps.
    test_fraction : float, optional
        Share of the newest ratings; ratings of the same time stay together, on the test side.
    at : int, date, datetime, numpy.datetime64 or Arrow time, optional
        First time of the test part. Give this or ``test_fraction``. An integer is in the unit of the timestamps; a time
        without a time zone is in that of the timestamps. Times need timestamps that were read from a column of dates
        or times (``ratings.timestamp_type``): integers have no unit.

    Returns
    -------
    train, test : Interactions

    Raises
    ------
    ParameterError
        If not exactly one of the two is given, or ``at`` does not go with the timestamps.
    DataError
        If there are no timestamps, or a part would be empty.

    Examples
    --------
    >>> import datetime, fastmf
    >>> days = [datetime.date(2024, 1, day) for day in (1, 2, 3)]
    >>> ratings = fastmf.Interactions.from_arrays([1, 1, 2], [1, 2, 1], timestamps=days)
    >>> train, test = fastmf.split.temporal(ratings, at=datetime.date(2024, 1, 3))
    >>> len(train), len(test)
    (2, 1)
    """
    times = _times(ratings)
    if (test_fraction is None) == (at is None):
        raise ParameterError(f"test_fraction is {test_fraction} and at is {at}; expected exactly one of them")
    if test_fraction is not None:
        _require_fraction(test_fraction)
        start = int(np.sort(times)[ratings.n_ratings - _test_count(ratings.n_ratings, test_fraction)])
    else:
        start = in_unit_of(ratings.timestamp_type, at)
    is_test = times >= start if abs(start) < 2**63 else np.full(len(times), start < 0)
    return _cut(ratings, np.flatnonzero(is_test), _points(times, ratings.timestamp_type))


def _points(times: Int64Array, kind: Any) -> str:
    """Word which points in time leave something on both sides."""
    if not len(times):
        return "there are no ratings"
    first, last = _in_words(np.array([times.min(), times.max()]), kind)
    return f"choose at after {first} and up to {last}"


def _in_words(times: Int64Array, kind: Any) -> list[Any]:
    try:
        return list(to_arrow_times(times, kind).cast("string").to_pylist())
    except pa.ArrowException:  # a time zone that is not known here
        return list(times.tolist())


def hold_out(ratings: Interactions, by: str = "random", test_fraction: float | None = None, seed: int = 0) -> Split:
    """Put ratings into the test part by a rule with a name: one of the other splits.

    Parameters
    ----------
    ratings : Interactions
        With timestamps for "time" and "last".
    by : {"random", "user", "time", "last"}
        A share of all ratings at random (`random`), a share of each user's (`per_user`), the newest share of all
        (`temporal`), or the last rating of each user (`leave_last_out`).
    test_fraction : float, optional
        Between 0 and 1, exclusive; 0.1 if None. "last" takes none.
    seed : int
        For "random" and "user".

    Returns
    -------
    train, test : Interactions

    Raises
    ------
    ParameterError
        If ``by`` is another name, or "last" is given a share.
    DataError
        If there are no timestamps and ``by`` needs them, or a part would be empty.

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.Interactions.from_arrays([1, 1, 2, 2], [1, 2, 1, 2], timestamps=[4, 3, 2, 1])
    >>> train, test = fastmf.split.hold_out(ratings, by="last")
    >>> test.items.tolist()
    [0, 0]
    """
    require_choice("by", by, HELD_OUT_BY)
    if by == "last":
        if test_fraction is not None:
            raise ParameterError(f'test_fraction is {test_fraction} and by is "last", which takes one of each user')
        return leave_last_out(ratings)
    share = _TEST_FRACTION if test_fraction is None else test_fraction
    if by == "time":
        _require_times_apart(ratings)
        return temporal(ratings, share)
    return (per_user if by == "user" else random)(ratings, share, seed)


def _require_times_apart(ratings: Interactions) -> None:
    times = _times(ratings)
    if ratings.n_ratings > 1 and times.min() == times.max():
        (time,) = _in_words(times[:1], ratings.timestamp_type)
        raise DataError(
            f"all ratings have the same time ({time}), and none is newer than others; hold out by another rule: "
            "random, user or last"
        )


def k_fold(ratings: Interactions, n_folds: int = 5, seed: int = 0) -> list[Split]:
    """Cut ratings into ``n_folds`` random parts of equal size; each is the test part once.

    Parameters
    ----------
    ratings : Interactions
    n_folds : int
        At least 2.
    seed : int

    Returns
    -------
    list of (train, test)
    """
    _require_ratings(ratings)
    require_integer("n_folds", n_folds, minimum=2)
    if n_folds > ratings.n_ratings:
        raise DataError(f"{ratings.n_ratings} ratings cannot be cut into {n_folds} folds; use fewer folds")
    order = _shuffled(ratings, seed)
    return [_cut(ratings, fold) for fold in np.array_split(order, n_folds)]


def _require_ratings(ratings: Interactions) -> None:
    if not isinstance(ratings, Interactions):
        raise ParameterError(
            f"ratings is of type {type(ratings).__name__}; expected Interactions: read_parquet, "
            "Interactions.from_arrow, from_arrays and from_scipy make them"
        )


def _require_fraction(test_fraction: float) -> None:
    require_number("test_fraction", test_fraction, minimum=0, exclusive=True)
    if test_fraction >= 1:
        raise ParameterError(f"test_fraction is {test_fraction}; expected a number between 0 and 1")


def _test_count(n_ratings: int, test_fraction: float) -> int:
    if n_ratings < 2:
        raise DataError(f"{n_ratings} rating cannot be split; expected at least 2")
    return min(max(round(n_ratings * test_fraction), 1), n_ratings - 1)


def _shuffled(ratings: Interactions, seed: int) -> Int64Array:
    require_integer("seed", seed, minimum=0)
    return np.random.default_rng(seed).permutation(ratings.n_ratings)


def _times(ratings: Interactions) -> Int64Array:
    _require_ratings(ratings)
    if ratings.timestamps is None:
        raise DataError(
            f"these ratings have no timestamps; read them with {named('timestamp')}=..., or use another split"
        )
    return ratings.timestamps


def _rank_within_user(ratings: Interactions, order: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return each rating's rank among the ratings of its user in the given order, from 0, and their number."""
    grouped = order[np.argsort(ratings.users[order], kind="stable")]
    counts = np.bincount(ratings.users, minlength=ratings.n_users)
    starts = np.cumsum(counts) - counts
    rank = np.empty(ratings.n_ratings, np.int64)
    rank[grouped] = np.arange(ratings.n_ratings) - starts[ratings.users[grouped]]
    return rank, counts[ratings.users]


def _cut(
    ratings: Interactions, test_positions: Int64Array, advice: str = "use another split, or more ratings"
) -> Split:
    is_test = np.zeros(ratings.n_ratings, np.bool_)
    is_test[test_positions] = True
    n_test = int(np.count_nonzero(is_test))
    if n_test in (0, ratings.n_ratings):
        raise DataError(
            f"the test part would have {n_test} of {ratings.n_ratings} ratings; expected some on both sides: {advice}"
        )
    return ratings.take(np.flatnonzero(~is_test)), ratings.take(np.flatnonzero(is_test))
