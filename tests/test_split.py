"""Ratings into training and test parts."""

import datetime
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fastmf import Interactions, split, testing
from fastmf.errors import DataError, ParameterError


def timed(n_ratings: int = 200, seed: int = 0) -> Interactions:
    """Make users with 1 to many ratings, in no order of time, with equal times among them."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, 30, n_ratings) ** 2 // 30  # squared: some users get many ratings, some few
    users[rng.integers(n_ratings)] = 99  # and one has a single one
    items = rng.permutation(n_ratings)
    return Interactions.from_arrays(users, items, rng.integers(1, 6, n_ratings), rng.integers(0, 50, n_ratings))


def rows(ratings: Interactions) -> list[tuple[Any, ...]]:
    assert ratings.timestamps is not None
    columns = (ratings.users, ratings.items, ratings.ratings, ratings.timestamps)
    return list(zip(*(column.tolist() for column in columns), strict=True))


SPLITS: dict[str, Callable[[Interactions], list[split.Split]]] = {
    "random": lambda r: [split.random(r, 0.3, seed=1)],
    "per_user": lambda r: [split.per_user(r, 0.3, seed=1)],
    "leave_last_out": lambda r: [split.leave_last_out(r, n=2)],
    "temporal by share": lambda r: [split.temporal(r, 0.3)],
    "temporal by time": lambda r: [split.temporal(r, at=25)],
    "k_fold": lambda r: split.k_fold(r, 4, seed=1),
}


@pytest.mark.parametrize("name", SPLITS)
def test_both_parts_keep_the_id_space_and_the_order_and_lose_nothing(name: str) -> None:
    ratings = timed()

    for train, test in SPLITS[name](ratings):
        order = {row: position for position, row in enumerate(rows(ratings))}
        for part in (train, test):
            assert part.user_ids is ratings.user_ids
            assert part.item_ids is ratings.item_ids
            positions = [order[row] for row in rows(part)]
            assert positions == sorted(positions)
        assert Counter(rows(train)) + Counter(rows(test)) == Counter(rows(ratings))
        assert len(test) > 0


@pytest.mark.parametrize("name", ["random", "per_user", "k_fold"])
def test_the_seed_decides(name: str) -> None:
    again = {
        "random": lambda seed: split.random(timed(), 0.3, seed)[1],
        "per_user": lambda seed: split.per_user(timed(), 0.3, seed)[1],
        "k_fold": lambda seed: split.k_fold(timed(), 4, seed)[0][1],
    }[name]

    assert rows(again(0)) == rows(again(0))
    assert rows(again(0)) != rows(again(1))


@pytest.mark.parametrize(("fraction", "n_test"), [(0.1, 20), (0.3, 60), (0.001, 1), (0.999, 199)])
def test_random_takes_the_share_and_leaves_both_parts_something(fraction: float, n_test: int) -> None:
    train, test = split.random(timed(200), fraction)

    assert (len(train), len(test)) == (200 - n_test, n_test)


def test_random_draws_from_all_rows() -> None:
    ratings = timed()

    drawn = [set(rows(split.random(ratings, 0.1, seed)[1])) for seed in range(60)]

    assert set.union(*drawn) == set(rows(ratings))


@pytest.mark.parametrize("fraction", [0.3, 0.9])
def test_per_user_takes_the_share_of_each_user_and_leaves_him_one(fraction: float) -> None:
    ratings = timed()

    _, test = split.per_user(ratings, fraction)

    had, gave = (Counter(part.users.tolist()) for part in (ratings, test))
    assert min(had.values()) == 1  # else the rule for such a user would not be seen
    assert {user: gave[user] for user in had} == {user: min(int(n * fraction + 0.5), n - 1) for user, n in had.items()}


@pytest.mark.parametrize("n", [1, 3])
def test_leave_last_out_takes_the_newest_of_each_user(n: int) -> None:
    ratings = timed()

    _, test = split.leave_last_out(ratings, n)

    expected = set()
    for user in set(ratings.users.tolist()):
        own = [(row[3], position) for position, row in enumerate(rows(ratings)) if row[0] == user]
        expected |= {position for _, position in sorted(own)[-n:]} if len(own) > n else set()
    assert rows(test) == [rows(ratings)[position] for position in sorted(expected)]


def test_leave_last_out_takes_the_later_row_of_equal_times() -> None:
    ratings = Interactions.from_arrays([1, 1, 1], [1, 2, 3], timestamps=[5, 5, 4])

    _, test = split.leave_last_out(ratings)

    assert test.items.tolist() == [1]


def test_temporal_cuts_time_in_two() -> None:
    train, test = split.temporal(timed(), at=25)

    assert train.timestamps is not None
    assert test.timestamps is not None
    assert train.timestamps.max() < 25 <= test.timestamps.min()


def test_temporal_by_share_keeps_equal_times_together_on_the_test_side() -> None:
    ratings = Interactions.from_arrays([1] * 5, [1, 2, 3, 4, 5], timestamps=[10, 20, 20, 20, 30])

    train, test = split.temporal(ratings, 0.4)  # two ratings; the second newest shares its time with two more

    assert train.items.tolist() == [0]
    assert test.items.tolist() == [1, 2, 3, 4]


def test_hold_out_is_the_split_of_that_name() -> None:
    ratings = timed()

    expected = {
        "random": split.random(ratings, 0.2, seed=4),
        "user": split.per_user(ratings, 0.2, seed=4),
        "time": split.temporal(ratings, 0.2),
    }

    for by, (train, test) in expected.items():
        found = split.hold_out(ratings, by, 0.2, seed=4)
        assert [rows(part) for part in found] == [rows(train), rows(test)]
    assert rows(split.hold_out(ratings, "last")[1]) == rows(split.leave_last_out(ratings)[1])
    assert len(split.hold_out(ratings)[1]) == len(split.random(ratings, 0.1)[1])


def test_hold_out_says_what_it_knows() -> None:
    with pytest.raises(ParameterError, match="by is 'date'; expected one of 'random', 'user', 'time', 'last'"):
        split.hold_out(timed(), "date")
    with pytest.raises(ParameterError, match=r'test_fraction is 0\.2 and by is "last", which takes one of each user'):
        split.hold_out(timed(), "last", 0.2)


UTC = datetime.UTC
BERLIN = datetime.timezone(datetime.timedelta(hours=1))
NOON = 1577880000  # 2020-01-01 12:00 UTC, in seconds

# What a time column holds in three rows, and points in time that cut it after the first, the second, and so on.
MOMENTS: dict[str, tuple[pa.Array, list[tuple[Any, int]]]] = {
    "days": (
        pa.array([18262, 18263, 18264], pa.int32()).view(pa.date32()),  # from 2020-01-01 on
        [
            (datetime.date(2020, 1, 2), 2),
            (datetime.datetime(2020, 1, 2), 2),
            (datetime.datetime(2020, 1, 2, 0, 0, 1), 1),
            (np.datetime64("2020-01-03"), 1),
            (np.datetime64("2020-01-02T23"), 1),
            (pa.scalar(datetime.date(2020, 1, 2)), 2),
            (18263, 2),
            (np.int32(18264), 1),
        ],
    ),
    "seconds": (
        pa.array([NOON - 1, NOON, NOON + 1], pa.timestamp("s")),
        [
            (datetime.datetime(2020, 1, 1, 12), 2),
            (datetime.datetime(2020, 1, 1, 12, 0, 0, 1), 1),
            (np.datetime64("2020-01-01T12:00:00.000000001"), 1),
            (np.datetime64(NOON // 60, "m"), 2),
            (pa.scalar(datetime.datetime(2020, 1, 1, 12)), 2),
            (pa.scalar(NOON * 1000 + 1, pa.timestamp("ms")), 1),
            (NOON + 1, 1),
            (pa.scalar(NOON, pa.int64()), 2),
        ],
    ),
    "nanoseconds in UTC": (
        pa.array([NOON * 10**9 + ns for ns in (-1, 0, 1)], pa.timestamp("ns", "UTC")),
        [
            (datetime.datetime(2020, 1, 1, 12, tzinfo=UTC), 2),
            (datetime.datetime(2020, 1, 1, 13, tzinfo=BERLIN), 2),
            (datetime.datetime(2020, 1, 1, 12), 2),
            (pa.scalar(NOON * 10**9 + 1, pa.timestamp("ns", "Europe/Berlin")), 1),
            (pa.scalar(NOON * 10**9 + 1, pa.timestamp("ns")), 1),
        ],
    ),
    "milliseconds in Berlin": (
        pa.array([(NOON - 3600) * 1000 + ms for ms in (-1, 0, 1)], pa.timestamp("ms", "Europe/Berlin")),
        [
            (datetime.datetime(2020, 1, 1, 12), 2),  # by the clock of Berlin
            (datetime.datetime(2020, 1, 1, 11, tzinfo=UTC), 2),
            (pa.scalar(datetime.datetime(2020, 1, 1, 12)), 2),
        ],
    ),
    "before 1970": (
        pa.array([-2, -1, 0], pa.timestamp("s")),
        [(datetime.datetime(1969, 12, 31, 23, 59, 58, 500_000), 2), (datetime.date(1970, 1, 1), 1)],
    ),
    "times of day": (pa.array([1, 2, 3], pa.time32("s")), [(datetime.time(0, 0, 2), 2)]),
    "durations": (
        pa.array([1, 2, 3], pa.duration("s")),
        [(datetime.timedelta(seconds=1.5), 2), (np.timedelta64(3, "s"), 1)],
    ),
}
CUTS = [(name, at, n_test) for name, (_, cuts) in MOMENTS.items() for at, n_test in cuts]


@pytest.mark.parametrize(("name", "at", "n_test"), CUTS, ids=lambda value: type(value).__name__)
def test_temporal_takes_times_in_the_unit_of_the_column(name: str, at: Any, n_test: int) -> None:
    ratings = Interactions.from_arrays([1, 1, 1], [1, 2, 3], timestamps=MOMENTS[name][0])

    train, test = split.temporal(ratings, at=at)

    assert test.items.tolist() == [0, 1, 2][-n_test:]
    assert train.timestamp_type == test.timestamp_type == MOMENTS[name][0].type


@pytest.mark.parametrize("name", SPLITS)
def test_both_parts_keep_the_unit_of_times(name: str) -> None:
    ratings = timed()
    ratings = Interactions.from_arrays(
        ratings.users, ratings.items, ratings.ratings, pa.array(ratings.timestamps, pa.timestamp("ms"))
    )

    for train, test in SPLITS[name](ratings):
        assert train.timestamp_type == test.timestamp_type == pa.timestamp("ms")


class Vague:
    """What is neither true nor false if it is compared, as columns and missing values of pandas and polars."""

    def __eq__(self, other: object) -> Any:
        return self

    __ne__ = __eq__
    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise TypeError("it is ambiguous")

    def __repr__(self) -> str:
        return "vague"


NO_POINTS: list[tuple[Any, Any, str]] = [
    (None, datetime.date(2020, 1, 1), "whose unit is not known; give an integer (1577836800 if they are seconds)"),
    (None, np.datetime64("2020-01-01"), "give an integer (1577836800 if they are seconds), or read a column of dates"),
    (None, "2020-01-01", "at is '2020-01-01'; expected an integer, a date, a datetime or an Arrow time"),
    (None, 1.5, "at is 1.5; expected an integer"),
    (None, float("nan"), "at is nan; expected an integer"),
    (None, pa.scalar(1, pa.timestamp("ns")), "whose unit is not known; give an integer (0 if they are seconds)"),
    (None, True, "at is True; expected an integer"),
    (None, np.array([1, 2]), "expected an integer, a date"),
    (None, pa.array([1, 2]), "expected an integer, a date"),
    (pa.timestamp("s"), np.array(["2020-01-01", "2020-01-02"], "datetime64[D]"), "expected an integer, a date"),
    (pa.timestamp("s"), Vague(), "at is vague; expected an integer, a date"),
    (pa.timestamp("s", "No/Where"), datetime.date(2020, 1, 1), "'No/Where', is not known here; give at with one"),
    (pa.timestamp("s"), np.datetime64("NaT"), "expected an integer, a date"),
    (pa.timestamp("s"), pa.scalar(None, pa.timestamp("s")), "expected an integer, a date"),
    (pa.timestamp("s"), pa.scalar("x"), "expected an integer, a date"),
    (pa.timestamp("s"), datetime.timedelta(1), "a duration; the timestamps are of type timestamp[s]: give a moment"),
    (pa.timestamp("s"), datetime.time(1), "a time of day; the timestamps are of type timestamp[s]: give a moment"),
    (pa.duration("s"), datetime.date(2020, 1, 1), "a moment; the timestamps are of type duration[s]: give a duration"),
    (pa.timestamp("s"), datetime.datetime(2020, 1, 1, tzinfo=UTC), "the timestamps have none (timestamp[s]): give it"),
]


@pytest.mark.parametrize(("kind", "at", "message"), NO_POINTS, ids=lambda value: type(value).__name__)
def test_what_is_no_point_of_these_times_is_refused(kind: Any, at: Any, message: str) -> None:
    times = pa.array([1, 2, 3], pa.int64())
    ratings = Interactions.from_arrays([1, 1, 1], [1, 2, 3], timestamps=times if kind is None else times.view(kind))

    with pytest.raises(ParameterError) as error:
        split.temporal(ratings, at=at)

    assert message in str(error.value)


@pytest.mark.parametrize(
    ("kind", "at", "advice"),
    [
        (None, 2**80, "choose at after 1 and up to 3"),
        (None, -(2**80), "choose at after 1 and up to 3"),
        (
            pa.timestamp("s"),
            datetime.date(2020, 1, 1),
            "choose at after 1970-01-01 00:00:01 and up to 1970-01-01 00:00:03",
        ),
        (pa.timestamp("s"), 1, "choose at after 1970-01-01 00:00:01 and up to 1970-01-01 00:00:03"),
    ],
)
def test_a_point_beyond_all_times_names_those_that_cut(kind: Any, at: Any, advice: str) -> None:
    times = pa.array([1, 2, 3], pa.int64())
    ratings = Interactions.from_arrays([1, 1, 1], [1, 2, 3], timestamps=times if kind is None else times.view(kind))

    with pytest.raises(DataError, match=advice):
        split.temporal(ratings, at=at)


@pytest.mark.parametrize("at", [2, datetime.datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC)], ids=["integer", "with a zone"])
def test_times_in_a_zone_that_is_not_known_can_be_cut(at: Any) -> None:
    times = pa.array([1, 2, 3], pa.int64()).view(pa.timestamp("s", "No/Where"))
    ratings = Interactions.from_arrays([1, 1, 1], [1, 2, 3], timestamps=times)

    assert list(map(len, split.temporal(ratings, at=at))) == [1, 2]
    assert list(map(len, split.temporal(ratings, 0.3))) == [2, 1]
    with pytest.raises(DataError, match="choose at after 1 and up to 3"):
        split.temporal(ratings, at=4)


@pytest.mark.parametrize("name", SPLITS)
@pytest.mark.parametrize(
    "given", [None, [(1, 1, 5.0)], pa.table({"user_id": [1], "item_id": [1]})], ids=["None", "list", "table"]
)
def test_what_is_no_interactions_is_refused(given: Any, name: str) -> None:
    with pytest.raises(
        ParameterError, match=r"ratings is of type \w+; expected Interactions: read_parquet, Interactions"
    ):
        SPLITS[name](given)


@pytest.mark.parametrize(
    ("kind", "time"), [(None, r"\(5\)"), (pa.timestamp("s"), r"\(1970-01-01 00:00:05\)")], ids=["integers", "times"]
)
def test_hold_out_by_time_needs_more_than_one_time(kind: pa.DataType | None, time: str) -> None:
    times = pa.array([5, 5, 5]) if kind is None else pa.array([5, 5, 5]).cast(kind)
    ratings = Interactions.from_arrays([1, 1, 2], [1, 2, 1], timestamps=times)

    with pytest.raises(DataError, match=f"all ratings have the same time {time}.*: random, user or last"):
        split.hold_out(ratings, "time")


def test_temporal_takes_times_before_1970() -> None:
    ratings = Interactions.from_arrays([1, 1, 1], [1, 2, 3], timestamps=[-5, 0, 5])

    assert len(split.temporal(ratings, at=-1)[1]) == 2
    assert len(split.temporal(ratings, at=0)[1]) == 2
    assert len(split.temporal(ratings, at=1)[1]) == 1


def test_k_fold_tests_every_rating_once_in_folds_of_equal_size() -> None:
    ratings = timed(50)

    folds = split.k_fold(ratings, 4)

    assert sorted(len(test) for _, test in folds) == [12, 12, 13, 13]
    assert Counter(row for _, test in folds for row in rows(test)) == Counter(rows(ratings))


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (lambda r: split.random(r, 0), "test_fraction is 0; expected a finite number above 0"),
        (lambda r: split.random(r, 1.5), "test_fraction is 1.5; expected a number between 0 and 1"),
        (lambda r: split.random(r, float("nan")), "test_fraction is nan; expected a finite number above 0"),
        (lambda r: split.random(r, 0.5, seed=-1), "seed is -1; expected an integer of at least 0"),
        (lambda r: split.per_user(r, 1), "test_fraction is 1; expected a number between 0 and 1"),
        (lambda r: split.per_user(r, 0.5, seed=-1), "seed is -1; expected an integer of at least 0"),
        (lambda r: split.leave_last_out(r, 0), "n is 0; expected an integer of at least 1"),
        (lambda r: split.temporal(r), "test_fraction is None and at is None; expected exactly one"),
        (lambda r: split.temporal(r, 0.1, 5), "test_fraction is 0.1 and at is 5; expected exactly one"),
        (lambda r: split.k_fold(r, 1), "n_folds is 1; expected an integer of at least 2"),
        (lambda r: split.k_fold(r, 3, seed=-1), "seed is -1; expected an integer of at least 0"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(cut: Callable[[Interactions], Any], message: str) -> None:
    with pytest.raises(ParameterError) as error:
        cut(timed(10))

    assert message in str(error.value)


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (lambda r: split.random(r.take(np.arange(1)), 0.5), "1 rating cannot be split; expected at least 2"),
        (lambda r: split.k_fold(r, 1000), "ratings cannot be cut into 1000 folds; use fewer folds"),
        (lambda r: split.leave_last_out(r), "these ratings have no timestamps; read them with timestamp="),
        (lambda r: split.temporal(r, 0.1), "these ratings have no timestamps; read them with timestamp="),
    ],
)
def test_ratings_that_cannot_be_cut_are_refused(cut: Callable[[Interactions], Any], message: str) -> None:
    with pytest.raises(DataError) as error:
        cut(testing.low_rank(5, 5))

    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("temporal", {"at": 10**9}), ("temporal", {"at": -1}), ("leave_last_out", {"n": 50}), ("per_user", {})],
)
def test_an_empty_part_is_an_error(name: str, arguments: dict[str, int]) -> None:
    ratings = Interactions.from_arrays([1, 2, 3], [1, 1, 2], [5.0, 4.0, 3.0], [1, 2, 3])

    with pytest.raises(DataError, match=r"the test part would have (0|3) of 3 ratings; expected some on both sides"):
        getattr(split, name)(ratings, **arguments)
