"""Tables of features become named columns of a sparse matrix, or are refused with what to do."""

import datetime as dt
import doctest
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastmf import Features
from fastmf.errors import DataError, ParameterError, QualityWarning, UnknownIdError
from fastmf_kernels.layout.arrays import CSR


def cells(features: Features) -> dict[tuple[Any, str], float]:
    """Return every stored entry by id and name."""
    row_ids = features.ids.to_pylist()
    rows = features.rows.row_of_each_entry()
    places = zip(rows, features.rows.indices, features.rows.values, strict=True)
    return {(row_ids[row], features.names[column]): float(value) for row, column, value in places}


def column(values: Any, **options: Any) -> Features:
    """Read one column x of a table whose ids count from 0."""
    return Features.from_arrow(pa.table({"item_id": range(len(values)), "x": values}), **options)


def numeric(features: Features) -> list[str]:
    return [name for name, is_numeric in zip(features.names, features.is_numeric, strict=True) if is_numeric]


def test_a_table_of_many_types() -> None:
    table = pa.table(
        {
            "item_id": ["b", "a"],
            "year": [1999, None],
            "new": [True, False],
            "genres": ["Drama|Crime", "Drama"],
            "kind": pa.array(["film", None]).dictionary_encode(),
            "cast": [["x", "y"], ["x"]],
        }
    )

    features = Features.from_arrow(table)

    assert features.ids.to_pylist() == ["a", "b"]
    assert features.names == ("year", "new", "genres=Crime", "genres=Drama", "kind=film", "cast=x", "cast=y")
    assert numeric(features) == ["year"]
    assert cells(features) == {
        ("b", "year"): 1999.0,
        **dict.fromkeys([("b", name) for name in features.names[1:]], 1.0),
        ("a", "genres=Drama"): 1.0,
        ("a", "cast=x"): 1.0,
    }
    assert repr(features) == "Features(n_ids=2, n_features=7, n_entries=9)"
    assert (len(features), features.n_features) == (2, 7)


def test_a_number_0_is_a_value_and_a_null_is_none() -> None:
    assert cells(column([0.0, None, 2.5])) == {(0, "x"): 0.0, (2, "x"): 2.5}


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.decimal128(5, 2)])
def test_numbers_of_every_type(kind: Any) -> None:
    values = pa.array([2.0, None], pa.float32()).cast(kind)

    features = column(values)

    assert cells(features) == {(0, "x"): 2.0}
    assert features.is_numeric.tolist() == [True]


@pytest.mark.parametrize(
    ("time", "year"),
    [
        (dt.date(1970, 1, 1), 1970.0),
        (dt.date(2000, 7, 2), 2000.5),
        (dt.datetime(1969, 7, 2), 1969.5),
        (dt.datetime(2001, 1, 1, tzinfo=dt.UTC), 2001.0),
        (pa.scalar(dt.date(2000, 7, 2), pa.date64()), 2000.5),
        *((pa.scalar(dt.datetime(2000, 7, 2), pa.timestamp(unit)), 2000.5) for unit in ("s", "ms", "us", "ns")),
        (dt.datetime(9999, 12, 31), 9999.997),
        (pa.scalar(-(2**60), pa.timestamp("s")), 1970 - 2**60 / (365.2425 * 86400)),  # beyond other units
    ],
)
def test_times_are_years(time: Any, year: float) -> None:
    kind = time.type if isinstance(time, pa.Scalar) else None
    features = column(pa.array([time, None], kind))

    assert cells(features)[0, "x"] == pytest.approx(year, rel=1e-6, abs=0.003)
    assert len(cells(features)) == 1
    assert numeric(features) == ["x"]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_tags_are_split_and_trimmed_and_count_once(kind: Any) -> None:
    features = column(pa.array([" a |b||a", "b", "(none)", "", None]).cast(kind))

    assert features.names == ("x=(none)", "x=a", "x=b")
    assert cells(features) == dict.fromkeys([(0, "x=a"), (0, "x=b"), (1, "x=b"), (2, "x=(none)")], 1.0)


def test_texts_without_a_separator_are_categories() -> None:
    values = ["a, b", " a, b ", None]

    assert cells(column(values)) == {(0, "x=a, b"): 1.0, (1, "x=a, b"): 1.0}
    assert column(values, separator=",").names == ("x=a", "x=b")
    assert column(["a|b", "c"], separator="").names == ("x=a|b", "x=c")


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.int64()), pa.large_list(pa.int32()), pa.list_(pa.int64(), 2), pa.list_(pa.string())]
)
def test_lists_are_tags(kind: Any) -> None:
    values = pa.chunked_array([pa.array([[3, 3]]), pa.array([None, [12, None]], pa.list_(pa.int64()))]).cast(kind)

    features = column(values)

    assert set(features.names) == {"x=3", "x=12"}
    assert cells(features) == {(0, "x=3"): 1.0, (2, "x=12"): 1.0}


def test_parts_of_longer_arrays() -> None:
    lists = pa.array([["a"], ["b", "c"], [], None, ["d"]]).slice(1, 3)
    table = pa.table({"item_id": [9, 3, 2, 1, 0], "x": [5, None, 7, 8, 9]}).slice(1, 3)

    assert cells(column(lists)) == {(0, "x=b"): 1.0, (0, "x=c"): 1.0}
    assert cells(Features.from_arrow(table)) == {(2, "x"): 7.0, (1, "x"): 8.0}


def test_codes_are_categories_where_they_are_named() -> None:
    features = column([10, 2, None], categories=["x"])

    assert cells(features) == {(0, "x=10"): 1.0, (1, "x=2"): 1.0}
    assert not features.is_numeric.any()


def test_pairs_are_sorted_and_named_by_text() -> None:
    table = pa.table({"user_id": [5, 3, 5], "tag": [10, 2, 2], "weight": [0.5, 1.5, 2.5]})

    plain = Features.from_arrow(table, "user_id", "tag")
    weighted = Features.from_arrow(table, "user_id", "tag", "weight")

    assert plain.names == ("2", "10")
    assert cells(plain) == dict.fromkeys([(3, "2"), (5, "2"), (5, "10")], 1.0)
    assert cells(weighted) == {(3, "2"): 1.5, (5, "2"): 2.5, (5, "10"): 0.5}
    assert not weighted.is_numeric.any()


@pytest.mark.parametrize(("rule", "value"), [("first", 1.0), ("last", 3.0), ("mean", 2.0), ("sum", 4.0)])
def test_a_rule_for_pairs_that_repeat(rule: str, value: float) -> None:
    table = pa.table({"item_id": [1, 1], "tag": ["a", "a"], "weight": [1, 3]})

    assert cells(Features.from_arrow(table, feature="tag", value="weight", duplicates=rule)) == {(1, "a"): value}
    with pytest.raises(DataError, match=r"1 rows repeat a \(item_id, tag\) pair, for example \(1, 'a'\).*duplicates="):
        Features.from_arrow(table, feature="tag", value="weight")


def test_columns_pick_and_order() -> None:
    table = pa.table({"title": ["t", "u"], "b": [1, 2], "item_id": [1, 2], "a": [1, 2]})

    assert Features.from_arrow(table, columns=["a", "b"]).names == ("a", "b")
    assert Features.from_arrow(table).names == ("title=t", "title=u", "b", "a")


def test_files_are_one_table(tmp_path: Path) -> None:
    pq.write_table(pa.table({"item_id": [1], "x": ["a"], "y": [[1]]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"item_id": [0], "x": ["b"], "y": [[1]]}), tmp_path / "1.parquet")

    features = Features.from_parquet(tmp_path)

    assert cells(features) == dict.fromkeys([(0, "x=b"), (0, "y=1"), (1, "x=a"), (1, "y=1")], 1.0)
    assert Features.from_parquet(tmp_path / "*.parquet", columns=["x"]).names == ("x=a", "x=b")
    pairs = Features.from_parquet(tmp_path, feature="x")
    assert cells(pairs) == {(1, "a"): 1.0, (0, "b"): 1.0}


def test_a_column_of_a_later_file_is_not_dropped(tmp_path: Path) -> None:
    pq.write_table(pa.table({"item_id": [1], "x": ["a"]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"item_id": [0], "x": ["b"], "y": [1]}), tmp_path / "1.parquet")

    with pytest.raises(DataError, match=r"no column 'y' in .*0\.parquet"):
        Features.from_parquet(tmp_path)


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ({"item_id": [1, 2], "x": [1.0, float("nan")]}, {}, r"'x' has 1 values that are not finite.*row 1 \(from 0\)"),
        ({"item_id": [1, 2, 3], "x": [None, 1.0, 1e39]}, {}, r"not finite in float32, the first in row 2"),
        ({"item_id": [1, 1], "x": [1, 2]}, {}, "1 ids in more than one row, for example 1; expected a row for each id"),
        ({"item_id": ["a", None], "x": [1, 2]}, {}, r"column 'item_id' has 1 null value, the first in row 1"),
        ({"item_id": [1.5], "x": [1]}, {}, "type double; expected integers or strings as ids"),
        ({"id": [1], "x": [1]}, {}, "no column 'item_id'; the columns are 'id', 'x'"),
        ({"item_id": [1], "x": [1]}, {"columns": ["y"]}, "no column 'y'"),
        ({"item_id": [1], "x": [1]}, {"categories": ["y"]}, "no column 'y'"),
        ({"item_id": [1]}, {}, "no column of the table has a value beside the ids"),
        ({"item_id": pa.array([], pa.int64()), "x": pa.array([], pa.int64())}, {}, "there are no rows"),
        ({"item_id": [1], "x": [{"a": 1}]}, {}, "type struct.*leave it out by columns"),
        ({"item_id": [1], "x": [b"a"]}, {}, "type binary; expected numbers"),
        ({"item_id": [1], "x": [dt.time(1)]}, {}, "type time64.*; expected numbers, dates"),
        ({"item_id": [1], "x": [[0.5]]}, {}, "type list.*expected numbers"),
        ({"item_id": [1], "x": [0.5]}, {"categories": ["x"]}, "type double; expected integers or texts as categories"),
        ({"item_id": [1], "x": ["a"], "x=a": [1]}, {}, "two columns give a feature 'x=a'"),
        ({"item_id": [1], "x": [None]}, {"feature": "x"}, "'x' has 1 null value"),
        ({"item_id": [1], "x": [1], "y": [float("inf")]}, {"feature": "x", "value": "y"}, "'y' has 1 values that are"),
        ({"item_id": [1], "x": [1], "y": ["a"]}, {"feature": "x", "value": "y"}, "'y' has type string; expected numb"),
    ],
)
def test_tables_of_no_use_are_refused(table: Any, options: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Features.from_arrow(pa.table(table), **options)


def test_a_column_without_values_gives_a_warning_and_no_feature() -> None:
    table = pa.table({"item_id": [1, 2], "x": [1, 2], "y": pa.nulls(2, pa.string()), "z": [False, None]})

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        features = Features.from_arrow(table)

    assert [str(warning.message).partition(";")[0] for warning in caught] == [
        "column 'y' has no value in any row",
        "column 'z' has no value in any row",
    ]
    assert {(warning.category, warning.filename) for warning in caught} == {(QualityWarning, __file__)}
    assert features.names == ("x",)
    with (
        pytest.warns(QualityWarning, match="no value"),
        pytest.raises(DataError, match="no column of the table has a value"),
    ):
        Features.from_arrow(table, columns=["y"])


def test_a_category_for_every_row_gives_a_warning() -> None:
    titles = [f"title {number}" for number in range(20)]

    with pytest.warns(QualityWarning, match="'x' has 20 categories in 20 entries.*in columns"):
        features = column(titles)

    assert features.n_features == 20
    assert column(titles[:19]).n_features == 19
    assert column(titles[:10] * 2).n_features == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value": "x"}, "value is 'x' without feature"),
        ({"feature": "x", "columns": ["y"]}, "columns and categories are for tables with a row for each id"),
        ({"columns": "x"}, "columns is 'x'; expected a list of names"),
        ({"columns": ["x", "x"]}, "columns has 'x' twice"),
        ({"columns": ["x"], "categories": ["y"]}, "categories has 'y', columns does not"),
        ({"columns": ["item_id"]}, "'item_id' is the column of ids"),
        ({"id": None}, "id is None; expected the name of a column"),
        ({"separator": None}, "separator is None"),
        ({"duplicates": "all"}, "duplicates is 'all'"),
    ],
)
def test_parameters_that_do_not_go_together(options: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        column([1, 2], **options)


def test_something_else_than_a_table() -> None:
    with pytest.raises(DataError, match="got a list; expected an Arrow table"):
        Features.from_arrow([1, 2])


def test_tables_of_pandas() -> None:
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame({"item_id": [2, 1], "x": [0.5, None], "y": pd.Categorical(["a", "b"]), 3: [["t"], []]})

    assert cells(Features.from_arrow(table)) == dict.fromkeys([(2, "y=a"), (1, "y=b"), (2, "3=t")], 1.0) | {
        (2, "x"): 0.5
    }


def test_tables_of_polars() -> None:
    pl = pytest.importorskip("polars")
    table = pl.DataFrame({"item_id": ["b", "a"], "x": [0.5, None], "y": [["t"], []]})
    expected = {("b", "x"): 0.5, ("b", "y=t"): 1.0}

    assert cells(Features.from_arrow(table)) == expected
    assert cells(Features.from_arrow(table.lazy(), columns=["x", "y"])) == expected


def test_rows_for_other_ids() -> None:
    features = Features.from_arrow(pa.table({"item_id": ["a", "b", "c"], "x": [1, 2, 3], "y": ["u", None, "v"]}))

    rows = features.rows_for(["c", "z", "a", "c"])

    assert [part.tolist() for part in rows] == [[0, 2, 2, 4, 6], [0, 2, 0, 1, 0, 2], [3, 1, 1, 1, 3, 1]]
    assert [part.dtype for part in rows] == [np.int64, np.int32, np.float32]
    assert features.positions(["z", "b"]).tolist() == [-1, 1]
    assert features.rows_for(pa.array([], pa.string())).indptr.tolist() == [0]
    with pytest.raises(DataError, match="the ids are of type int64, those of the features of type string"):
        features.rows_for([1])


def test_some_ids_alone() -> None:
    features = Features.from_arrow(pa.table({"item_id": ["a", "b", "c"], "x": [1, 2, 3], "y": ["u", None, "v"]}))

    some = features.take(["c", "a"])

    assert some.names == features.names
    assert cells(some) == {key: value for key, value in cells(features).items() if key[0] != "b"}
    assert len(features.take(pa.array([], pa.string()))) == 0
    with pytest.raises(UnknownIdError, match="2 of 3 ids have no features"):
        features.take(["a", "z", "y"])
    with pytest.raises(DataError, match="1 ids repeat, for example 'b'"):
        features.take(["b", "a", "b"])


def test_in_other_columns() -> None:
    features = column(["a", "b", "c"])

    matched = features.in_columns(["new", "x=c", "x=a"])

    assert matched.n_unknown == 1
    assert [part.tolist() for part in matched.rows] == [[0, 1, 1, 2], [2, 1], [1, 1]]
    assert features.in_columns(features.names).n_unknown == 0
    with pytest.raises(ParameterError, match="names has 'a' twice"):
        features.in_columns(["a", "a"])


def test_joined_tables_have_the_ids_and_columns_of_both() -> None:
    left = Features.from_arrow(pa.table({"item_id": ["a", "c"], "year": [1, 2]}))
    right = Features.from_arrow(pa.table({"item_id": ["b", "a"], "tag": ["t", "u"]}), feature="tag")

    both = left.join(right)

    assert both.names == ("year", "t", "u")
    assert numeric(both) == ["year"]
    assert cells(both) == {("a", "year"): 1.0, ("c", "year"): 2.0, ("b", "t"): 1.0, ("a", "u"): 1.0}
    with pytest.raises(DataError, match="1 features are in both, for example 'year'"):
        left.join(left)
    with pytest.raises(DataError, match="cast one of them"):
        left.join(column([1]))
    with pytest.raises(ParameterError, match="expected Features"):
        left.join(3)  # type: ignore[arg-type]


def test_as_a_matrix_of_scipy() -> None:
    features = column(["b", "a", "b"])

    np.testing.assert_array_equal(features.to_scipy().toarray(), [[0, 1], [1, 0], [0, 1]])


PARTS: dict[str, Any] = {
    "ids": pa.array([1, 2]),
    "rows": CSR(np.array([0, 2, 3]), np.array([0, 1, 0], np.int32), np.ones(3, np.float32)),
    "names": ("x", "y"),
    "is_numeric": np.array([True, False]),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": pa.array([2, 1])}, "not distinct and ascending"),
        ({"ids": pa.array([1])}, "shapes"),
        ({"names": ("x", "x")}, "names has 'x' twice"),
        ({"names": ("x", "y", "z")}, "is_numeric is bool of shape"),
        ({"is_numeric": [1, 0]}, "is_numeric is int64"),
        ({"rows": 3}, "rows is a int; expected .indptr, indices, values. of 2 rows and 2 columns"),
        ({"rows": PARTS["rows"]._replace(indices=np.array([1, 0, 0]))}, "columns do not ascend"),
        ({"rows": PARTS["rows"]._replace(indices=np.array([0, 0, 0]))}, "columns do not ascend"),
        ({"rows": PARTS["rows"]._replace(indices=np.array([0, 2, 0]))}, "columns from 0 to 2"),
        ({"rows": PARTS["rows"]._replace(indptr=np.array([0, 4, 3]))}, "offsets that do not ascend"),
        ({"rows": PARTS["rows"]._replace(values=np.array([1, np.inf, 1]))}, "not finite"),
        ({"rows": PARTS["rows"]._replace(values=np.array(["a", "b", "c"]))}, "types"),
    ],
)
def test_parts_that_do_not_go_together(change: Any, message: str) -> None:
    assert Features(**PARTS).n_features == 2

    with pytest.raises(ParameterError, match=message):
        Features(**{**PARTS, **change})


def test_the_examples_of_the_documentation_do_what_they_say() -> None:
    page = Path(__file__).parents[1] / "docs" / "features.md"

    result = doctest.testfile(str(page), module_relative=False, encoding="utf-8")

    assert result.failed == 0
    assert result.attempted >= 15
