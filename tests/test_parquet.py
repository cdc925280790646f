"""Parquet files as they come: one, many, in directories, damaged, and at odds with each other."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf.errors import DataError, OutputExistsError
from fastmf.reading.parquet import open_dataset, read_column, write_table

GOOD: dict[str, Any] = {"user_id": [1, 2], "item_id": [3, 4], "rating": [1.0, 2.0]}


def write(path: Path, columns: dict[str, Any] = GOOD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def triples(ratings: fastmf.Interactions) -> list[tuple[Any, ...]]:
    table = ratings.to_arrow()
    return list(zip(*(table[name].to_pylist() for name in ("user_id", "item_id", "rating")), strict=True))


@pytest.fixture
def three_files(tmp_path: Path) -> Path:
    """Three files whose names sort otherwise than they were written, one of them a level below."""
    for name, user in (("c.parquet", 3), ("a.parquet", 1), ("b/part.parquet", 2)):
        write(tmp_path / name, {"user_id": [user], "item_id": [user], "rating": [float(user)]})
    return tmp_path


@pytest.mark.parametrize(
    ("source", "users"),
    [
        pytest.param(lambda d: d / "a.parquet", [1], id="a file"),
        pytest.param(lambda d: str(d / "a.parquet"), [1], id="a string"),
        pytest.param(lambda d: [d / "c.parquet", d / "a.parquet"], [3, 1], id="files in the order given"),
        pytest.param(lambda d: (d / "c.parquet",), [3], id="a tuple of one"),
        pytest.param(lambda d: d, [1, 2, 3], id="a directory and what is below it"),
        pytest.param(lambda d: f"{d}/*.parquet", [1, 3], id="a pattern"),
        pytest.param(lambda d: f"{d}/**/*.parquet", [1, 2, 3], id="a pattern over directories"),
        pytest.param(lambda d: [d / "b", d / "a.parquet"], [2, 1], id="a directory and a file"),
        pytest.param(lambda d: f"file://{d}/a.parquet", [1], id="a URI"),
    ],
)
def test_sources(source: Callable[[Path], Any], users: list[int], three_files: Path) -> None:
    assert triples(fastmf.read_parquet(source(three_files))) == [(user, user, user) for user in users]


def test_hidden_and_other_files_of_a_directory_are_passed_over(three_files: Path) -> None:
    for name in (".tmp.parquet", "_metadata.parquet", "README.txt"):
        (three_files / name).write_text("not Parquet")

    assert fastmf.read_parquet(three_files).n_ratings == 3


def test_a_name_with_pattern_characters_is_a_file_first(tmp_path: Path) -> None:
    write(tmp_path / "r[1].parquet")

    assert fastmf.read_parquet(tmp_path / "r[1].parquet").n_ratings == 2


def test_columns_may_have_any_names_and_others_are_not_read(tmp_path: Path) -> None:
    unreadable_as_rating = {"u": ["x", "y"], "i": [3, 4], "t": [9, 8], "junk": ["?", None]}
    path = write(tmp_path / "r.parquet", unreadable_as_rating)

    ratings = fastmf.read_parquet(path, user="u", item="i", rating=None, timestamp="t")

    assert triples(ratings) == [("x", 3, 1.0), ("y", 4, 1.0)]
    assert ratings.timestamps is not None
    assert ratings.timestamps.tolist() == [9, 8]


def test_many_row_groups_are_one_table(tmp_path: Path) -> None:
    users, items = np.divmod(np.arange(1000), 20)
    table = pa.table({"user_id": users, "item_id": items, "rating": np.arange(1000.0)})
    pq.write_table(table, tmp_path / "r.parquet", row_group_size=64)

    ratings = fastmf.read_parquet(tmp_path / "r.parquet")

    assert ratings.users.tolist() == users.tolist()
    assert ratings.ratings.tolist() == list(range(1000))


def test_a_partitioned_directory_gives_its_column(tmp_path: Path) -> None:
    for user in (5, 6):
        write(tmp_path / f"user_id={user}" / "part.parquet", {"item_id": [1, 2], "rating": [1.0, 2.0]})

    assert [triple[:2] for triple in triples(fastmf.read_parquet(tmp_path))] == [(5, 1), (5, 2), (6, 1), (6, 2)]


@pytest.mark.parametrize("missing", ["user", "item", "rating", "timestamp"])
def test_a_missing_column_names_those_that_exist(missing: str, tmp_path: Path) -> None:
    path = write(tmp_path / "r.parquet")

    with pytest.raises(DataError) as error:
        fastmf.read_parquet(path, **{missing: "Nope"})

    assert "no column 'Nope'; the columns are 'user_id', 'item_id', 'rating'" in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        pytest.param("zero.parquet", lambda good: b"", "Parquet file size is 0 bytes", id="zero bytes"),
        pytest.param("text.parquet", lambda good: b"user_id,item_id\n1,2\n" * 9, "magic bytes not found", id="text"),
        pytest.param("half.parquet", lambda good: good[: len(good) // 2], "magic bytes not found", id="truncated"),
    ],
)
@pytest.mark.parametrize("among", [False, True], ids=["alone", "among others"])
def test_a_file_that_is_not_parquet_is_named_with_the_reason(
    name: str, content: Callable[[bytes], bytes], reason: str, among: bool, tmp_path: Path
) -> None:
    good = write(tmp_path / "good.parquet")
    bad = tmp_path / name
    bad.write_bytes(content(good.read_bytes()))

    with pytest.raises(DataError) as error:
        fastmf.read_parquet([good, bad] if among else bad)

    message = str(error.value)
    assert f"cannot read {bad} as Parquet" in message
    assert reason in message
    assert "copy or write it again" in message
    assert "\n" not in message


def test_a_row_group_that_cannot_be_read_is_an_error_and_not_fewer_rows(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    write(path, {"user_id": np.random.default_rng(0).integers(0, 10**6, 5000), "item_id": np.arange(5000)})
    content = bytearray(path.read_bytes())
    content[100:3000] = bytes(2900)  # in the pages of user_id; the footer, and with it the schema, stays whole
    path.write_bytes(content)

    with pytest.raises(DataError, match=f"cannot read {path} as Parquet: "):
        fastmf.read_parquet(path, rating=None)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no.parquet", "no such file: {}/no.parquet; expected a Parquet file, a directory of them, or a pattern"),
        ("part-*.parquet", "no such file: {}/part-*.parquet; expected a Parquet file"),
        ("empty", "directory {}/empty holds no *.parquet file; expected at least one"),
    ],
)
def test_no_files_is_an_error_that_names_the_source(source: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(DataError) as error:
        fastmf.read_parquet(tmp_path / source)

    assert message.format(tmp_path) in str(error.value)


def test_an_empty_list_of_files_is_an_error() -> None:
    with pytest.raises(DataError, match="no files were given; expected at least one Parquet file"):
        fastmf.read_parquet([])


def test_a_file_without_rows_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = write(tmp_path / "r.parquet", {name: pa.array([], pa.int64()) for name in GOOD})

    with pytest.raises(DataError) as error:
        fastmf.read_parquet(path)

    assert f"there are no rows in {path}; expected at least one rating" in str(error.value)


@pytest.mark.parametrize("turned", [False, True], ids=["integers first", "strings first"])
def test_ids_of_two_types_in_two_files_name_the_column_the_file_and_both_types(turned: bool, tmp_path: Path) -> None:
    # Arrow alone would turn the integers of the second file into strings and find nothing wrong.
    kinds = [("int64", [1, 2]), ("string", ["x", "y"])]
    (first, values), (second, others) = kinds[::-1] if turned else kinds
    files = [write(tmp_path / "a.parquet", GOOD | {"user_id": values})]
    files.append(write(tmp_path / "b.parquet", GOOD | {"user_id": others}))

    with pytest.raises(DataError) as error:
        fastmf.read_parquet(files)

    assert f"column 'user_id' has type {second} in {files[1]} and {first} in the files before it" in str(error.value)
    assert "expected one type: cast the column" in str(error.value)


def test_a_column_that_a_later_file_lacks_is_missing_and_not_null(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.parquet"), write(tmp_path / "b.parquet", {"user_id": [9], "item_id": [9]})]

    with pytest.raises(DataError) as error:
        fastmf.read_parquet(files)

    assert f"no column 'rating' in {files[1]}; the columns are 'user_id', 'item_id'" in str(error.value)
    assert fastmf.read_parquet(files, rating=None).n_ratings == 3


@pytest.mark.parametrize("turned", [False, True], ids=["narrow first", "wide first"])
def test_numbers_of_two_widths_in_two_files_lose_nothing(turned: bool, tmp_path: Path) -> None:
    narrow = {"user_id": pa.array([1], pa.int8()), "item_id": pa.array(["a"]), "rating": [3]}
    wide = {"user_id": [2**40], "item_id": pa.array(["b"], pa.large_string()), "rating": [4.5]}
    files = [write(tmp_path / "a.parquet", narrow), write(tmp_path / "b.parquet", wide)]

    ratings = fastmf.read_parquet(files[::-1] if turned else files)

    assert sorted(triples(ratings)) == [(1, "a", 3.0), (2**40, "b", 4.5)]


def test_read_column_takes_files_in_order(three_files: Path) -> None:
    dataset = open_dataset([three_files / "c.parquet", three_files / "a.parquet"])

    assert read_column(dataset, "user_id").to_pylist() == [3, 1]


def test_write_table_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.parquet"
    write_table(pa.table(GOOD), out)

    with pytest.raises(OutputExistsError, match="exists already"):
        write_table(pa.table({"a": [1]}), out)

    def full(table: pa.Table, path: Path, **_: Any) -> None:
        path.write_bytes(b"PAR1 half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        write_table(pa.table({"a": [1]}), out, overwrite=True)

    assert pq.read_table(out).to_pydict() == GOOD
    assert os.listdir(tmp_path) == ["out.parquet"]
