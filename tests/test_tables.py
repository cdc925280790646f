"""Tables and arrays of other libraries as ratings: each is taken, or refused with what to do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import scipy.sparse

import fastmf
from fastmf import Interactions
from fastmf.errors import DataError, ParameterError
from fastmf.reading.interactions import as_interactions

ROWS = [("a", "x", 1.0), ("b", "y", 2.0), ("a", "y", 3.0)]
USERS, ITEMS, RATINGS = (list(column) for column in zip(*ROWS, strict=True))


def triples(ratings: Interactions) -> list[tuple[Any, ...]]:
    table = ratings.to_arrow()
    return list(zip(*(table[name].to_pylist() for name in ("user_id", "item_id", "rating")), strict=True))


def category(values: list[str], index: Any, words: Any) -> pa.Array:
    """What polars hands over for Categorical and Enum: a dictionary of string views with unsigned indices."""
    known = sorted(set(values))
    return pa.DictionaryArray.from_arrays(pa.array([known.index(v) for v in values], index), pa.array(known, words))


class Lazy:
    """What a lazy table of polars has."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def collect_schema(self) -> Any:
        class Schema:
            @staticmethod
            def names() -> list[str]:
                return list(self._table.column_names)

        return Schema()

    def select(self, names: list[str]) -> "Lazy":
        return Lazy(self._table.select(names))

    def collect(self) -> pa.Table:
        return self._table


class Stream:
    """What nearly every library of tables has."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


class Breaking:
    """A table whose library raises an error of its own."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        raise RuntimeError("cannot convert column of mixed types")


TABLE = pa.table({"user_id": USERS, "item_id": ITEMS, "rating": RATINGS, "title": [["?"], [], None]})

WRAPS: dict[str, Callable[[], Any]] = {
    "pyarrow": lambda: TABLE,
    "batch": lambda: TABLE.to_batches()[0],
    "reader": lambda: TABLE.to_reader(),
    "stream": lambda: Stream(TABLE),
    "dataset": lambda: ds.dataset(TABLE),
    "scanner": lambda: ds.dataset(TABLE).scanner(),
    "lazy": lambda: Lazy(TABLE),
    "polars": lambda: pytest.importorskip("polars").from_arrow(TABLE),
    "lazy polars": lambda: pytest.importorskip("polars").from_arrow(TABLE).lazy(),
    "pandas": lambda: pytest.importorskip("pandas").DataFrame(TABLE.to_pydict()),
    "categorical polars": lambda: (
        pytest.importorskip("polars")
        .from_arrow(TABLE)
        .with_columns(
            user_id=pytest.importorskip("polars").Series(USERS, dtype=pytest.importorskip("polars").Categorical),
            item_id=pytest.importorskip("polars").Series(ITEMS, dtype=pytest.importorskip("polars").Enum(["x", "y"])),
        )
    ),
    "categorical pandas": lambda: (
        pytest.importorskip("pandas")
        .DataFrame(TABLE.to_pydict())
        .astype({"user_id": "category", "item_id": "category"})
    ),
}


@pytest.mark.parametrize("wrap", WRAPS)
def test_tables_of_any_library_are_taken(wrap: str) -> None:
    assert triples(Interactions.from_arrow(WRAPS[wrap]())) == ROWS


@pytest.mark.parametrize("wrap", [name for name in WRAPS if name not in ("reader", "scanner")])
def test_fit_and_evaluate_take_them_too(wrap: str) -> None:
    model = fastmf.ALS(n_factors=2, n_epochs=1, verbose=False)

    fitted = model.fit(WRAPS[wrap](), validation=WRAPS[wrap]())
    metrics = fastmf.evaluate(fitted, WRAPS[wrap](), exclude=None, k=1)

    assert fitted.user_ids.to_pylist() == ["a", "b"]
    assert metrics["n_ratings"] == 3


@pytest.mark.parametrize(
    "column",
    [
        category(USERS, pa.uint32(), pa.string_view()),
        category(USERS, pa.uint8(), pa.string_view()),
        category(USERS, pa.int8(), pa.large_string()),
        pa.array(USERS, pa.string_view()),
        pa.chunked_array(
            [category(USERS[:1], pa.uint32(), pa.string_view()), category(USERS[1:], pa.uint32(), pa.string_view())]
        ),
        pa.RunEndEncodedArray.from_arrays(pa.array([1, 2, 3], pa.int32()), pa.array(USERS)),
        np.array(USERS),
        np.array(USERS, object),
        np.array(USERS, np.dtypes.StringDType()),
    ],
    ids=lambda column: str(getattr(column, "type", getattr(column, "dtype", ""))),
)
def test_text_of_any_layout_is_an_id(column: Any) -> None:
    assert triples(Interactions.from_arrays(column, ITEMS, RATINGS)) == ROWS
    known = pa.array(["a", "b"])
    assert fastmf.reading.ids.look_up(known, column, "users").tolist() == [0, 1, 0]
    if isinstance(column, (pa.Array, pa.ChunkedArray)):
        table = pa.table([column, ITEMS, RATINGS], ["user_id", "item_id", "rating"])
        assert triples(Interactions.from_arrow(table)) == ROWS


def test_nulls_behind_a_dictionary_are_nulls() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), pa.array(["a", None]))

    with pytest.raises(DataError, match="column 'users' has 1 null value, the first in row 1"):
        Interactions.from_arrays(column, ITEMS)


def test_masked_values_are_nulls() -> None:
    with pytest.raises(DataError, match="column 'users' has 1 null value, the first in row 2"):
        Interactions.from_arrays(np.ma.array([1, 2, 3], mask=[0, 0, 1]), ITEMS)


@pytest.mark.parametrize("strings", [["a\0b", "a"], ["a\0", "a"], ["\0", "\0\0"], ["x\0y\0z", "x\0y"]])
@pytest.mark.parametrize("swapped", [False, True])
def test_nul_in_numpy_strings_is_not_cut(strings: list[str], swapped: bool) -> None:
    array = np.array(strings)
    array = array.astype(array.dtype.newbyteorder()) if swapped else array
    expected = sorted(set(array.tolist()))  # NumPy itself drops NUL at the end

    ratings = Interactions.from_arrays(array, [1, 2])

    assert ratings.user_ids.to_pylist() == expected


@pytest.mark.parametrize("wrap", ["pyarrow", "stream", "lazy", "pandas"])
@pytest.mark.parametrize("column", ["user_id", "item_id", "rating"])
def test_a_column_that_is_there_twice_is_refused(wrap: str, column: str) -> None:
    names = ["user_id", "item_id", "rating", column]
    table = pa.table([USERS, ITEMS, RATINGS, RATINGS], names)
    given: Any = {"pyarrow": lambda: table, "stream": lambda: Stream(table), "lazy": lambda: Lazy(table)}.get(wrap)
    if wrap == "pandas":
        rows = list(zip(USERS, ITEMS, RATINGS, RATINGS, strict=True))
        given = lambda: pytest.importorskip("pandas").DataFrame(rows, columns=names)  # noqa: E731

    with pytest.raises(DataError, match=f"2 columns '{column}'; expected one: the columns are .*; rename all but one"):
        Interactions.from_arrow(given())


def test_columns_that_nobody_asked_for_may_be_there_twice() -> None:
    table = pa.table([USERS, ITEMS, RATINGS, RATINGS], ["user_id", "item_id", "rating", "rating"])

    assert Interactions.from_arrow(table, rating=None).n_ratings == 3


def test_what_another_library_raises_becomes_an_error_of_ours() -> None:
    with pytest.raises(
        DataError, match=r"the columns 'user_id', .* of the Breaking cannot be turned into Arrow arrays: "
    ):
        Interactions.from_arrow(Breaking())
    with pytest.raises(
        DataError, match="column 'users' cannot be turned into an Arrow array: cannot convert column of"
    ):
        Interactions.from_arrays(Breaking(), [1])


def test_pandas_columns_of_mixed_types_matter_only_where_they_are_used() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"user_id": ["a", 1], "item_id": [1, 2], "rating": [1, 2], "other": ["b", 2]})

    with pytest.raises(DataError, match="Conversion failed for column user_id with type object"):
        Interactions.from_arrow(frame)
    with pytest.raises(DataError, match="column 'users' cannot be turned into an Arrow array"):
        Interactions.from_arrays(frame["user_id"], frame["item_id"])
    assert Interactions.from_arrow(frame, user="rating").n_ratings == 2


def test_a_subclass_of_a_pandas_table_is_one() -> None:
    class Special(pytest.importorskip("pandas").DataFrame):  # type: ignore[misc]
        pass

    table = Special(TABLE.to_pydict() | {"title": [1, "?", 2.5]})

    assert triples(Interactions.from_arrow(table)) == triples(Interactions.from_arrow(TABLE))


@pytest.mark.parametrize("places", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_columns_of_pandas_may_have_numbers_as_names(places: Any) -> None:
    table = pytest.importorskip("pandas").DataFrame(dict(zip(places, [USERS, ITEMS, RATINGS], strict=True)))
    table = table[[0, 1, 2]]

    assert triples(Interactions.from_arrow(table, *places)) == triples(Interactions.from_arrow(TABLE))


def test_a_column_may_have_an_empty_name(tmp_path: Path) -> None:
    table = pa.table({"": [1, 2], "b": [3, 4], "c": [5, 6]})
    pq.write_table(table, tmp_path / "r.parquet")

    ways: list[tuple[Any, Any]] = [(Interactions.from_arrow, table), (fastmf.read_parquet, tmp_path / "r.parquet")]
    for read, source in ways:
        assert triples(read(source, "", "b", "c")) == [(1, 3, 5.0), (2, 4, 6.0)]
        assert triples(read(source, "b", "c", "")) == [(3, 5, 1.0), (4, 6, 2.0)]
        assert read(source, "b", "c", None, "").timestamps.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((None,), "user is None; expected the name of a column"),
        (("user_id", None), "item is None; expected the name of a column"),
        ((["user_id"],), r"user is \['user_id'\]; expected the name of a column"),
        (("user_id", "item_id", ["rating"]), r"rating is \['rating'\]; expected the name of a column, or None"),
    ],
)
def test_what_is_no_name_of_a_column_is_refused(names: tuple[Any, ...], message: str, tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "r.parquet")

    ways: list[tuple[Any, Any]] = [(Interactions.from_arrow, TABLE), (fastmf.read_parquet, tmp_path / "r.parquet")]
    for read, source in ways:
        with pytest.raises(ParameterError, match=message):
            read(source, *names)


def test_ids_from_an_iterator_that_are_unknown_are_named() -> None:
    with pytest.raises(fastmf.errors.UnknownIdError, match="1 of 2 ids in 'users' are unknown to the model: 9"):
        fastmf.reading.ids.require_known(pa.array([1]), iter([1, 9]), "users")


ADVICE: dict[str, tuple[Any, str, Callable[[Any], Interactions]]] = {
    "repeated cells": (
        scipy.sparse.coo_array(([1.0, 2.0], ([0, 0], [1, 1])), shape=(2, 2)),
        'choose duplicates="first", .* Interactions.from_scipy(matrix, duplicates=...)',
        lambda given: Interactions.from_scipy(given, duplicates="last"),
    ),
    "repeated rows": (
        pa.table({"user_id": [1, 1], "item_id": [1, 1], "rating": [1, 2]}),
        'choose duplicates="first", .* Interactions.from_arrow(table, .*duplicates=...)',
        lambda given: Interactions.from_arrow(given, duplicates="last"),
    ),
    "other names": (
        pa.table({"user": [1], "item": [1]}),
        "no column 'user_id'.* Interactions.from_arrow(table, user=..., item=..., rating=..., ",
        lambda given: Interactions.from_arrow(given, user="user", item="item", rating=None),
    ),
}


@pytest.mark.parametrize("case", ADVICE)
def test_advice_that_fit_gives_can_be_followed(case: str) -> None:
    given, message, follow = ADVICE[case]
    pattern = message.replace("(", r"\(").replace(")", r"\)").replace("...", r"\.\.\.")

    with pytest.raises(DataError, match=rf"^ratings: .*{pattern}"):
        fastmf.ALS(n_epochs=1, verbose=False).fit(given)
    with pytest.raises(DataError, match=rf"^test: .*{pattern}"):
        as_interactions(given, "test")
    assert follow(given).n_ratings == 1


@pytest.mark.parametrize(("rule", "value"), [("first", 1.0), ("last", 2.0), ("mean", 1.5), ("sum", 3.0)])
def test_from_scipy_has_a_rule_for_cells_that_are_stored_twice(rule: str, value: float) -> None:
    matrix = scipy.sparse.coo_array(([1.0, 2.0, 7.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))

    ratings = Interactions.from_scipy(matrix, duplicates=rule)

    assert ratings.to_scipy().toarray().tolist() == [[0, value], [7, 0]]
