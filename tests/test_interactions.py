"""Building `Interactions`, and refusing what cannot be used as it is."""

import datetime
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse

from fastmf import Interactions, read_parquet
from fastmf.errors import DataError, FastMFError, OutputExistsError, ParameterError
from fastmf.reading.interactions import as_interactions


def columns(ratings: Interactions) -> dict[str, list[Any]]:
    return ratings.to_arrow().to_pydict()


def test_from_arrays_keeps_the_rows_and_gives_dense_indices() -> None:
    ratings = Interactions.from_arrays(["bob", "ann", "bob"], [9, 7, 7], [5, 3.5, 1], [30, 10, 20])

    assert (ratings.n_users, ratings.n_items, ratings.n_ratings, len(ratings)) == (2, 2, 3, 3)
    assert ratings.users.tolist() == [1, 0, 1]
    assert ratings.items.tolist() == [1, 0, 0]
    assert ratings.user_ids.to_pylist() == ["ann", "bob"]
    assert ratings.item_ids.to_pylist() == [7, 9]
    assert [array.dtype for array in (ratings.users, ratings.items, ratings.ratings)] == ["int32", "int32", "float32"]
    assert columns(ratings) == {
        "user_id": ["bob", "ann", "bob"],
        "item_id": [9, 7, 7],
        "rating": [5, 3.5, 1],
        "timestamp": [30, 10, 20],
    }
    assert repr(ratings) == "Interactions(n_users=2, n_items=2, n_ratings=3)"


def test_without_ratings_every_rating_is_1() -> None:
    ratings = Interactions.from_arrays([1, 2], [1, 1])

    assert ratings.ratings.tolist() == [1, 1]
    assert ratings.timestamps is None
    assert list(columns(ratings)) == ["user_id", "item_id", "rating"]


@pytest.mark.parametrize(
    "kind",
    [pa.int8(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.decimal128(6, 2)],
    ids=str,
)
def test_any_number_is_a_rating(kind: pa.DataType) -> None:
    values = pa.array([3, 4]).cast(pa.float32()).cast(kind)

    assert Interactions.from_arrays([1, 2], [1, 2], values).ratings.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([datetime.date(1970, 1, 3)], [2]),
        ([datetime.datetime(1970, 1, 1, 0, 0, 1)], [1_000_000]),
        (pa.array([7], pa.timestamp("s", tz="UTC")), [7]),
        (pa.array([7], pa.time32("s")), [7]),
        (pa.array([7], pa.duration("ms")), [7]),
        (np.array([7], np.uint8), [7]),
    ],
    ids=str,
)
def test_times_keep_their_unit(values: Any, expected: list[int]) -> None:
    ratings = Interactions.from_arrays([1], [1], timestamps=values)

    assert ratings.timestamps is not None
    assert ratings.timestamps.dtype == np.int64
    assert ratings.timestamps.tolist() == expected


@pytest.mark.parametrize(
    "kind",
    [
        pa.date32(),
        pa.date64(),
        pa.timestamp("s"),
        pa.timestamp("ns", "Europe/Berlin"),
        pa.time32("ms"),
        pa.time64("us"),
        pa.duration("ms"),
    ],
    ids=str,
)
def test_times_come_back_as_they_were(kind: pa.DataType, tmp_path: Path) -> None:
    days = np.array([86_400_000, 0, 2 * 86_400_000]) if kind == pa.date64() else np.array([5, 3, 4])
    times = pa.array(days, pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)
    ratings = Interactions.from_arrays([1, 1, 2], [1, 2, 1], timestamps=times)

    ratings.to_parquet(tmp_path / "r.parquet")
    again = read_parquet(tmp_path / "r.parquet", timestamp="timestamp")

    assert ratings.timestamp_type == again.timestamp_type or kind in (pa.timestamp("s"), pa.date64())
    assert ratings.to_arrow()["timestamp"].type == kind
    assert again.to_arrow()["timestamp"].cast(kind).combine_chunks().equals(times)
    assert ratings.take(np.array([0])).timestamp_type == kind


def test_by_user_and_by_item_are_the_table_read_both_ways() -> None:
    ratings = Interactions.from_arrays([2, 1, 2, 2], [9, 8, 7, 8], [1, 2, 3, 4])

    rows, columns = ratings.by_user, ratings.by_item

    assert [array.tolist() for array in rows] == [[0, 1, 4], [1, 0, 1, 2], [2, 3, 4, 1]]
    assert [array.tolist() for array in columns] == [[0, 1, 3, 4], [1, 0, 1, 1], [3, 2, 4, 1]]


@pytest.mark.parametrize("positions", [np.array([2, 0]), np.array([True, False, True])], ids=["positions", "mask"])
def test_take_keeps_the_id_space(positions: np.ndarray) -> None:
    ratings = Interactions.from_arrays(["a", "b", "c"], [1, 2, 3], [4, 5, 6], [7, 8, 9])

    some = ratings.take(positions)

    assert some.user_ids is ratings.user_ids
    assert some.item_ids is ratings.item_ids
    assert sorted(columns(some)["timestamp"]) == [7, 9]
    assert columns(some)["user_id"] == (["c", "a"] if positions.dtype == np.int64 else ["a", "c"])


class ArrowStream:
    """What pandas, polars and duckdb hand over: nothing but ``__arrow_c_stream__``."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("wrap", [lambda table: table, ArrowStream, lambda table: table.to_batches()[0]])
def test_from_arrow_takes_whatever_exports_a_stream(wrap: Any) -> None:
    table = pa.table({"u": ["a", "b"], "i": [1, 2], "r": [3.0, 4.0], "t": [5, 6]})

    ratings = Interactions.from_arrow(wrap(table), "u", "i", "r", "t")

    assert columns(ratings) == {"user_id": ["a", "b"], "item_id": [1, 2], "rating": [3, 4], "timestamp": [5, 6]}


def test_from_arrow_refuses_what_is_no_table_and_says_what_takes_it() -> None:
    with pytest.raises(DataError, match=r"got a dict; expected an Arrow table .*; for plain arrays use .*from_arrays"):
        Interactions.from_arrow({"user_id": [1]})


def test_from_arrow_names_the_columns_there_are() -> None:
    with pytest.raises(DataError, match="no column 'item_id'; the columns are 'user_id', 'movie'"):
        Interactions.from_arrow(pa.table({"user_id": [1], "movie": [2]}))


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "lil"])
def test_from_scipy_and_back(kind: str) -> None:
    matrix = scipy.sparse.random_array((7, 5), density=0.4, rng=np.random.default_rng(0), dtype=np.float32)

    ratings = Interactions.from_scipy(matrix.asformat(kind))

    assert ratings.user_ids.to_pylist() == list(range(7))
    assert ratings.item_ids.to_pylist() == list(range(5))
    np.testing.assert_array_equal(ratings.to_scipy().toarray(), matrix.toarray())


def test_a_stored_zero_is_observed() -> None:
    matrix = scipy.sparse.coo_array(([0.0, 2.0], ([0, 1], [1, 0])), shape=(2, 2))

    ratings = Interactions.from_scipy(matrix)

    assert ratings.n_ratings == 2
    assert ratings.to_scipy().nnz == 2


def test_a_sparse_matrix_with_a_cell_twice_is_refused() -> None:
    with pytest.raises(DataError, match=r"1 ratings repeat .* \(0, 1\)"):
        Interactions.from_scipy(scipy.sparse.coo_array(([1.0, 2.0], ([0, 0], [1, 1])), shape=(2, 2)))


def test_a_model_takes_interactions_or_a_sparse_matrix_and_nothing_else() -> None:
    ratings = Interactions.from_arrays([1], [2])

    assert as_interactions(ratings, "ratings") is ratings
    assert as_interactions(scipy.sparse.eye_array(3), "ratings").n_ratings == 3
    with pytest.raises(ParameterError, match=r"ratings is a list; expected Interactions .* or a SciPy sparse matrix"):
        as_interactions([[1, 2]], "ratings")


def test_parquet_round_trip(tmp_path: Path) -> None:
    ratings = Interactions.from_arrays(["b", "a", "b"], [5, 6, 6], [0.1, -2, 3], [3, 2, 1])

    ratings.to_parquet(tmp_path / "r.parquet")
    again = read_parquet(tmp_path / "r.parquet", timestamp="timestamp")

    assert columns(again) == columns(ratings)
    assert again.ratings.tobytes() == ratings.ratings.tobytes()


def test_to_parquet_refuses_to_overwrite(tmp_path: Path) -> None:
    out = tmp_path / "r.parquet"
    Interactions.from_arrays([1], [1]).to_parquet(out)

    with pytest.raises(OutputExistsError, match=r"r\.parquet exists already"):
        Interactions.from_arrays([2], [2]).to_parquet(out)
    assert pq.read_table(out)["user_id"].to_pylist() == [1]

    Interactions.from_arrays([2], [2]).to_parquet(out, overwrite=True)
    assert pq.read_table(out)["user_id"].to_pylist() == [2]


# Pair (1, 1) comes three times, (2, 2) twice; the rest once.
REPEATED = {
    "users": [2, 1, 1, 3, 2, 1],
    "items": [2, 1, 1, 3, 2, 1],
    "ratings": [1.0, 2.0, 3.0, 4.0, 5.0, 10.0],
    "timestamps": [10, 20, 30, 40, 50, 60],
}


@pytest.mark.parametrize(
    ("rule", "ratings", "timestamps"),
    [
        ("first", [1, 2, 4], [10, 20, 40]),
        ("last", [5, 10, 4], [50, 60, 40]),
        ("mean", [3, 5, 4], [50, 60, 40]),
        ("sum", [6, 15, 4], [50, 60, 40]),
    ],
)
def test_duplicates_are_merged_by_the_rule_in_order_of_first_appearance(
    rule: str, ratings: list[float], timestamps: list[int]
) -> None:
    merged = Interactions.from_arrays(**REPEATED, duplicates=rule)

    assert columns(merged) == {
        "user_id": [2, 1, 3],
        "item_id": [2, 1, 3],
        "rating": ratings,
        "timestamp": timestamps,
    }


# In time, the rows of pair (1, 1) come as 30, 10, 10, 20; those of (2, 2) are equal.
OUT_OF_TIME = {
    "users": [1, 2, 1, 1, 2, 1],
    "items": [1, 2, 1, 1, 2, 1],
    "ratings": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    "timestamps": [30, 7, 10, 10, 7, 20],
}


@pytest.mark.parametrize(
    ("rule", "ratings", "timestamps"),
    [("first", [3, 2], [10, 7]), ("last", [1, 5], [30, 7]), ("mean", [3.5, 3.5], [30, 7]), ("sum", [14, 7], [30, 7])],
)
@pytest.mark.parametrize("kind", [pa.int64(), pa.timestamp("s"), pa.date32()], ids=str)
def test_first_and_last_go_by_time_and_by_row_among_equal_times(
    rule: str, ratings: list[float], timestamps: list[int], kind: pa.DataType
) -> None:
    times = pa.array(OUT_OF_TIME["timestamps"], pa.int32() if kind == pa.date32() else pa.int64()).cast(kind)

    merged = Interactions.from_arrays(**OUT_OF_TIME | {"timestamps": times}, duplicates=rule)

    assert merged.ratings.tolist() == ratings
    assert merged.timestamps is not None
    assert merged.timestamps.tolist() == timestamps
    assert merged.timestamp_type == (None if kind == pa.int64() else kind)


def test_first_and_last_go_by_row_without_times() -> None:
    without = {name: values for name, values in OUT_OF_TIME.items() if name != "timestamps"}

    assert Interactions.from_arrays(**without, duplicates="first").ratings.tolist() == [1, 2]
    assert Interactions.from_arrays(**without, duplicates="last").ratings.tolist() == [6, 5]


def test_a_sum_beyond_float32_is_refused() -> None:
    with pytest.raises(DataError, match=r"the sum of a repeated .* is not finite in float32; scale the ratings first"):
        Interactions.from_arrays([1, 1], [1, 1], [3e38, 3e38], duplicates="sum")


def test_duplicates_are_an_error_unless_a_rule_is_chosen() -> None:
    with pytest.raises(DataError) as error:
        Interactions.from_arrays(**REPEATED)

    message = str(error.value)
    assert "3 ratings repeat a (user, item) pair, for example (1, 1)" in message
    assert 'choose duplicates="first", "last", "mean" or "sum"' in message


def test_the_example_of_a_duplicate_is_one() -> None:
    # The last item of a user and the first of the next are neighbours in memory, and no duplicates.
    with pytest.raises(DataError, match=r"1 ratings repeat .* \('c', 'y'\)"):
        Interactions.from_arrays(["a", "b", "c", "c"], ["x", "x", "y", "y"])
    assert Interactions.from_arrays(["a", "b", "c"], ["x", "x", "x"]).n_ratings == 3


@pytest.mark.parametrize("rule", ["error", "first", "last", "mean", "sum"])
def test_the_rule_changes_nothing_where_there_are_no_duplicates(rule: str) -> None:
    ratings = Interactions.from_arrays([2, 1], [1, 2], [3, 4], duplicates=rule)

    assert columns(ratings) == {"user_id": [2, 1], "item_id": [1, 2], "rating": [3, 4]}


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ParameterError, match="duplicates is 'avg'; expected one of 'error', 'first', 'last', 'mean'"):
        Interactions.from_arrays([1], [1], duplicates="avg")


BROKEN = pa.DictionaryArray.from_arrays(pa.array([0, 9]), pa.array([1, 2]), safe=False)

BAD_COLUMNS: dict[str, tuple[dict[str, Any], str]] = {
    "float id": ({"user_id": [1.0, 2.0]}, "column 'user_id' has type double; expected integers or strings as ids"),
    "bool id": ({"item_id": [True, False]}, "column 'item_id' has type bool; expected integers or strings as ids"),
    "date id": (
        {"user_id": [datetime.date(2020, 1, 1)] * 2},
        "column 'user_id' has type date32[day]; expected integers or strings as ids",
    ),
    "null id": ({"item_id": ["a", None]}, "column 'item_id' has 1 null value, the first in row 1 (from 0)"),
    "null rating": ({"rating": [None, 1.0]}, "column 'rating' has 1 null value, the first in row 0 (from 0)"),
    "null time": ({"time": pa.array([None, None], pa.int64())}, "column 'time' has 2 null values, the first in row 0"),
    "text rating": ({"rating": ["5", "3"]}, "column 'rating' has type string; expected numbers as ratings"),
    "bool rating": ({"rating": [True, False]}, "column 'rating' has type bool; expected numbers as ratings"),
    "NaN rating": (
        {"rating": [1.0, math.nan]},
        "column 'rating' has 1 ratings that are not finite in float32, the first in row 1 (from 0): nan; drop or",
    ),
    "infinite rating": (
        {"rating": [-math.inf, math.inf]},
        "column 'rating' has 2 ratings that are not finite in float32, the first in row 0 (from 0): -inf",
    ),
    "rating beyond float32": (
        {"rating": [1.0, 1e39]},
        "column 'rating' has 1 ratings that are not finite in float32, the first in row 1 (from 0): 1e+39",
    ),
    "rating of no word": ({"rating": BROKEN}, "column 'rating' is damaged: "),
    "time of no word": ({"time": BROKEN}, "column 'time' is damaged: "),
    "float time": ({"time": [1.0, 2.0]}, "column 'time' has type double; expected integers or times"),
    "text time": ({"time": ["2020", "2021"]}, "column 'time' has type string; expected integers or times"),
    "time beyond int64": (
        {"time": pa.array([1, 2**64 - 1], pa.uint64())},
        "column 'time' of type uint64 does not fit into int64",
    ),
}


@pytest.mark.parametrize("way", ["parquet", "arrow", "arrays"])
@pytest.mark.parametrize("case", BAD_COLUMNS)
def test_a_bad_column_is_refused_with_where_and_why(case: str, way: str, tmp_path: Path) -> None:
    bad, message = BAD_COLUMNS[case]
    table = pa.table({"user_id": [1, 2], "item_id": ["a", "b"], "rating": [1.0, 2.0], "time": [1, 2]} | bad)
    if not any(column is BROKEN for column in bad.values()):  # Arrow writes no such column
        pq.write_table(table, tmp_path / "r.parquet")
    elif way == "parquet":
        return

    ways = {
        "parquet": lambda: read_parquet(tmp_path / "r.parquet", timestamp="time"),
        "arrow": lambda: Interactions.from_arrow(table, timestamp="time"),
        "arrays": lambda: Interactions.from_arrays(*table.columns),
    }

    with pytest.raises(DataError) as error:
        ways[way]()

    if way == "arrays":  # there the columns are called after the parameters
        for column in ("user_id", "item_id", "rating", "time"):
            parameter = {"user_id": "users", "item_id": "items", "rating": "ratings", "time": "timestamps"}[column]
            message = message.replace(f"'{column}'", f"'{parameter}'")
    assert message in str(error.value)


def test_nulls_of_a_list_are_nulls() -> None:
    with pytest.raises(DataError, match="column 'ratings' has 1 null value, the first in row 1"):
        Interactions.from_arrays([1, 2], [1, 2], [1.0, None])


def test_a_bad_entry_of_a_sparse_matrix_is_refused() -> None:
    with pytest.raises(DataError, match="column 'data' has 1 ratings that are not finite"):
        Interactions.from_scipy(scipy.sparse.coo_array(([math.nan], ([0], [0])), shape=(1, 1)))


def test_arrays_of_different_length_are_refused_with_their_lengths() -> None:
    with pytest.raises(DataError, match=r"the arrays differ in length: \{'users': 2, 'items': 1, 'ratings': 2\}"):
        Interactions.from_arrays([1, 2], [1], [3, 4])


def test_mixed_ids_are_refused() -> None:
    with pytest.raises(DataError, match="column 'users' cannot be turned into an Arrow array"):
        Interactions.from_arrays(["a", 1], [1, 2])


@pytest.mark.parametrize("build", [lambda: Interactions.from_arrays([], []), lambda: Interactions.from_arrow(EMPTY)])
def test_no_rows_are_refused(build: Any) -> None:
    with pytest.raises(FastMFError, match=r"there are no rows in the (arrays|table); expected at least one rating"):
        build()


EMPTY = pa.table({name: pa.array([], pa.int64()) for name in ("user_id", "item_id", "rating")})
