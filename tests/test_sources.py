"""Which files belong to a source, and what the names of their folders say."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf.errors import DataError, ParameterError
from fastmf.reading.sources import find_files

COLUMNS = ("user_id", "item_id", "rating")


def write(path: Path, **columns: Any) -> Path:
    """Write one row: user and item are the number in ``columns``, or 1; a column that is None is left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {**dict.fromkeys(COLUMNS, 1), **columns}
    pq.write_table(pa.table({name: [value] for name, value in table.items() if value is not None}), path)
    return path


def triples(source: Any) -> list[tuple[Any, ...]]:
    table = fastmf.read_parquet(source).to_arrow()
    return list(zip(*(table[name].to_pylist() for name in COLUMNS), strict=True))


def names(source: Any, folder: Path) -> list[str]:
    return [os.path.relpath(file.name, folder) for file in find_files(source)]


@pytest.mark.parametrize("source", ["file", "folder", "pattern"])
def test_keys_above_what_was_given_do_not_count(source: str, tmp_path: Path) -> None:
    folder = tmp_path / "rating=5"
    write(folder / "r.parquet", rating=2)

    given = {"file": folder / "r.parquet", "folder": folder, "pattern": f"{folder}/*.parquet"}[source]

    assert triples(given) == [(1, 1, 2.0)]


def test_a_key_that_would_count_from_the_folder_above_is_named(tmp_path: Path) -> None:
    write(tmp_path / "user_id=7" / "r.parquet", user_id=None)

    with pytest.raises(DataError, match=r"no column 'user_id'.*; the folder user_id=... counts if the folder above it"):
        fastmf.read_parquet(tmp_path / "user_id=7")
    assert triples(tmp_path) == [(7, 1, 1.0)]


@pytest.mark.parametrize("pattern", ["user_id=*/r.parquet", "*/r.parquet", "**/*.parquet", "user_id=*", "*"])
def test_keys_that_a_pattern_matches_count(pattern: str, tmp_path: Path) -> None:
    for user in (5, 6):
        write(tmp_path / f"user_id={user}" / "r.parquet", user_id=None)

    assert [row[0] for row in triples(f"{tmp_path}/{pattern}")] == [5, 6]


@pytest.mark.parametrize(
    ("folders", "users"),
    [
        (["5", "-6", "0"], [-6, 0, 5]),
        (["007", "7"], ["007", "7"]),
        (["+5", "5"], ["+5", "5"]),
        (["1", "9223372036854775808"], ["1", "9223372036854775808"]),
        (["1", "1.0"], ["1", "1.0"]),
        (["-0", "0"], ["-0", "0"]),
        (["a%20b", "a"], ["a", "a b"]),
        (["true", "2024-01-31"], ["2024-01-31", "true"]),
        (["a=b"], ["a=b"]),
    ],
)
def test_ids_of_folders_keep_their_text_unless_all_are_canonical_integers(
    folders: list[str], users: list[Any], tmp_path: Path
) -> None:
    for folder in folders:
        write(tmp_path / f"user_id={folder}" / "r.parquet", user_id=None)

    assert fastmf.read_parquet(tmp_path).user_ids.to_pylist() == users


def test_quoted_ids_that_are_no_text_stay_apart(tmp_path: Path) -> None:
    for value in ("%FF", "%FE", "%C3%A9"):
        write(tmp_path / f"user_id={value}" / "r.parquet", user_id=None)

    assert {user for user, _, _ in triples(tmp_path)} == {"%FF", "%FE", "é"}


@pytest.mark.parametrize("inside", [3, 3.5, "three"])
def test_a_column_of_the_file_wins_over_a_key(inside: Any, tmp_path: Path) -> None:
    name = "rating" if inside != "three" else "item_id"
    write(tmp_path / f"{name}=9" / "r.parquet", **{name: inside})

    table = fastmf.read_parquet(tmp_path).to_arrow()

    assert table[name].to_pylist() == [inside]


@pytest.mark.parametrize(
    "key", ["month=1", "month=x", "rating=5", "note=%FF", "=3", "month=__HIVE_DEFAULT_PARTITION__"]
)
def test_keys_that_nobody_asked_for_are_ignored(key: str, tmp_path: Path) -> None:
    write(tmp_path / key / "r.parquet", month=7, note="n")

    assert triples(tmp_path) == [(1, 1, 1.0)]


def test_files_with_and_without_the_column_go_together(tmp_path: Path) -> None:
    write(tmp_path / "a" / "r.parquet", user_id=3)
    write(tmp_path / "user_id=4" / "r.parquet", user_id=None)
    write(tmp_path / "user_id=5" / "r.parquet", user_id=6)

    assert [row[0] for row in triples(tmp_path)] == [3, 4, 6]


def test_keys_beside_a_column_of_strings_are_strings(tmp_path: Path) -> None:
    write(tmp_path / "a" / "r.parquet", user_id="x")
    write(tmp_path / "user_id=4" / "r.parquet", user_id=None)

    assert [row[0] for row in triples(tmp_path)] == ["x", "4"]


@pytest.mark.parametrize(("values", "ratings"), [(["1", "5"], [1.0, 5.0]), (["0.5", "4"], [0.5, 4.0])])
def test_ratings_of_folders_are_numbers(values: list[str], ratings: list[float], tmp_path: Path) -> None:
    for user, value in enumerate(values):
        write(tmp_path / f"rating={value}" / "r.parquet", user_id=user, rating=None)

    assert [row[2] for row in triples(tmp_path)] == ratings


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("rating=good", "column 'rating' has type string; expected numbers as ratings"),
        ("rating=__HIVE_DEFAULT_PARTITION__", "column 'rating' has 1 null value, the first in row 0 .*r.parquet"),
    ],
)
def test_keys_that_are_no_ratings_are_refused(key: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / key / "r.parquet", rating=None)

    with pytest.raises(DataError, match=message):
        fastmf.read_parquet(tmp_path)


def test_times_of_folders_are_dates(tmp_path: Path) -> None:
    for day in (1, 2):
        write(tmp_path / f"day=2024-01-0{day}" / "r.parquet", user_id=day)

    ratings = fastmf.read_parquet(tmp_path, timestamp="day")

    assert ratings.timestamp_type == pa.date32()
    assert ratings.timestamps is not None
    assert ratings.timestamps.tolist() == [19723, 19724]


SKIPPED = [
    "_temporary/0/b.parquet",
    ".ipynb_checkpoints/r-checkpoint.parquet",
    "a/_tmp/x.parquet",
    ".hidden/a/b.parquet",
    ".r.parquet",
    "_metadata.parquet",
    "_SUCCESS",
    ".month=3/r.parquet",
]


@pytest.mark.parametrize("pattern", ["", "/**", "/**/*.parquet", "/*", "/*/**"])
@pytest.mark.parametrize("skipped", SKIPPED)
def test_hidden_and_unfinished_files_do_not_belong(skipped: str, pattern: str, tmp_path: Path) -> None:
    write(tmp_path / "sub" / "good.parquet")
    write(tmp_path / skipped)

    assert names(f"{tmp_path}{pattern}", tmp_path) == ["sub/good.parquet"]


@pytest.mark.parametrize("given", ["_temporary", "_temporary/0/*.parquet", "_*/0/b.parquet", "_temporary/0/b.parquet"])
def test_what_is_asked_for_by_name_belongs(given: str, tmp_path: Path) -> None:
    write(tmp_path / "_temporary/0/b.parquet")

    assert names(f"{tmp_path}/{given}", tmp_path) == ["_temporary/0/b.parquet"]


@pytest.mark.parametrize("name", ["_user=1/r.parquet", "r.PARQUET", "r.parq", "r.pq", "deep.parquet/part-0.parquet"])
def test_folders_of_keys_and_other_endings_belong(name: str, tmp_path: Path) -> None:
    write(tmp_path / name)

    assert names(tmp_path, tmp_path) == [name]


@pytest.mark.parametrize("pattern", ["part-*", "*", "[p]art-?", "**", "part-[12]/**/*.parquet"])
def test_patterns_match_folders(pattern: str, tmp_path: Path) -> None:
    for name in ("part-1/b/r.parquet", "part-2/r.parquet"):
        write(tmp_path / name)

    assert names(f"{tmp_path}/{pattern}", tmp_path) == ["part-1/b/r.parquet", "part-2/r.parquet"]


def test_links_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "r.parquet")
    write(tmp_path / "single.parquet")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "s.parquet").symlink_to(tmp_path / "single.parquet")

    assert names(folder, folder) == ["linked/r.parquet", "s.parquet"]
    assert names(f"{folder}/**/*.parquet", folder) == ["linked/r.parquet", "s.parquet"]


@pytest.mark.parametrize("pattern", ["", "/**/*.parquet"])
def test_a_link_that_leads_back_is_followed_once(pattern: str, tmp_path: Path) -> None:
    write(tmp_path / "a" / "r.parquet")
    (tmp_path / "a" / "back").symlink_to(tmp_path)

    assert names(f"{tmp_path}{pattern}", tmp_path) == ["a/r.parquet"]


def test_a_link_to_nothing_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").symlink_to(tmp_path / "gone")

    with pytest.raises(DataError, match=r"cannot read .*b\.parquet as Parquet: .*No such file"):
        fastmf.read_parquet(tmp_path)


@pytest.mark.parametrize("pattern", ["", "/*/*.parquet", "/**/*.parquet"])
def test_a_folder_that_cannot_be_listed_is_an_error(
    pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a" / "r.parquet")
    locked = str(write(tmp_path / "locked" / "r.parquet").parent)
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if path == locked:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)

    with pytest.raises(DataError, match=r"cannot list .*locked: Permission denied; expected a folder that can be read"):
        fastmf.read_parquet(f"{tmp_path}{pattern}")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "r.parquet")

    with pytest.raises(DataError, match=r"cannot read .*r\.parquet as Parquet: it is a pipe, not a regular file"):
        fastmf.read_parquet(tmp_path / "r.parquet")


def test_an_empty_folder_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("user_id,item_id\n")

    with pytest.raises(DataError, match=r"holds no \*.parquet file; expected at least one; it holds ratings.csv"):
        fastmf.read_parquet(tmp_path)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda path: (p for p in [path]),
        lambda path: {path},
        lambda path: map(str, [path]),
        lambda path: os.fsencode(path),
        lambda path: io.BytesIO(path.read_bytes()),
        lambda path: pa.OSFile(str(path)),
        lambda path: [io.BytesIO(path.read_bytes())],
    ],
    ids=["generator", "set", "map", "bytes", "BytesIO", "pyarrow", "a list of file objects"],
)
def test_iterables_and_file_objects_are_sources(wrap: Callable[[Path], Any], tmp_path: Path) -> None:
    assert triples(wrap(write(tmp_path / "r.parquet"))) == [(1, 1, 1.0)]


def test_an_open_file_is_a_source(tmp_path: Path) -> None:
    with open(write(tmp_path / "r.parquet"), "rb") as file:
        assert triples(file) == [(1, 1, 1.0)]


def test_a_file_object_is_read_from_its_beginning(tmp_path: Path) -> None:
    content = io.BytesIO()
    pq.write_table(pa.table({name: [1] for name in COLUMNS}), content)

    assert triples(content) == triples(content) == [(1, 1, 1.0)]

    with open(tmp_path / "r.parquet", "wb+") as file:
        file.write(content.getvalue())
        assert triples(file) == [(1, 1, 1.0)]


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "r.parquet")
    monkeypatch.setenv("HOME", str(tmp_path))

    assert triples("~/r.parquet") == triples("~/*.parquet") == [(1, 1, 1.0)]


class Closed:
    def read(self) -> bytes:
        raise RuntimeError("it is closed")


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        (None, ParameterError, "path is None; expected the path of a Parquet file"),
        (3, ParameterError, "path is 3; expected the path"),
        ({"a": 1}, ParameterError, "path is {'a': 1}; expected the path"),
        ([3], ParameterError, "path holds 3; expected paths, URIs or file objects"),
        ([None, "x"], ParameterError, "path holds None"),
        (pa.table({"user_id": [1]}), ParameterError, "path is a Table; .*pass tables to Interactions.from_arrow"),
        (b"PAR1...", ParameterError, r"path is the content of a Parquet file; wrap it: read_parquet\(io.BytesIO"),
        ("a\0b", DataError, "a name cannot hold a NUL character"),
        (io.StringIO("x"), DataError, "the StringIO gives str; expected bytes: open the file in binary mode"),
        (io.BytesIO(b"x"), DataError, "cannot read the BytesIO as Parquet"),
        (Closed(), DataError, "cannot read the Closed: it is closed"),
        (
            "http://host/r.parquet",
            DataError,
            "the scheme 'http' of http://host/r.parquet is not known; expected one of",
        ),
        ("ftp://host/r.parquet", DataError, "the scheme 'ftp' .* copy the file to this machine first"),
        ("nosuch://a", DataError, "the scheme 'nosuch'"),
        ("s3:/bucket/r.parquet", DataError, "no such file: s3:/bucket/r.parquet; .*give a URI as a str"),
    ],
    ids=str,
)
def test_what_is_no_source_is_refused(source: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        fastmf.read_parquet(source)


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the bucket of an object store."""
    filesystem = pa_fs.SubTreeFileSystem(str(tmp_path), pa_fs.LocalFileSystem())
    monkeypatch.setattr(
        "fastmf.reading.sources._open_uri", lambda uri: (filesystem, uri.removeprefix("s3://bucket/").rstrip("/"))
    )
    return tmp_path


def test_a_folder_of_an_object_store_is_read_as_one_of_this_machine(remote: Path) -> None:
    write(remote / "set" / "user_id=5" / "r.parquet", user_id=None)
    write(remote / "set" / "_temporary" / "r.parquet")
    write(remote / "set" / ".r.parquet")

    assert [file.name for file in find_files("s3://bucket/set/")] == ["s3://bucket/set/user_id=5/r.parquet"]
    assert triples("s3://bucket/set") == [(5, 1, 1.0)]
    with pytest.raises(DataError, match=r"no such file: s3://bucket/gone"):
        fastmf.read_parquet("s3://bucket/gone")


def test_an_object_store_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(uri: str) -> Any:
        raise OSError("When resolving region: AWS Error NETWORK_CONNECTION\nand more")

    monkeypatch.setattr("fastmf.reading.sources._open_uri", fail)

    with pytest.raises(DataError, match=r"cannot open s3://b/r.parquet: When resolving region.*; check the address"):
        fastmf.read_parquet("s3://b/r.parquet")
