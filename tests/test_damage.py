"""Files that are damaged, replaced while they are read, or not Parquet: the culprit is named, nothing is believed."""

import errno
import gzip
import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf.errors import DataError, FastMFError, OutOfMemoryError
from fastmf.reading import parquet as reading

N_ROWS = 2000
SKIPPED_PAGE = 0x0F  # Arrow skips pages of a type that it does not know
NAMES = ("user_id", "item_id", "rating", "timestamp")


def table(n: int = N_ROWS, first: int = 0) -> pa.Table:
    rows = np.arange(first, first + n)
    return pa.table([rows // 10, rows % 10 * 7, rows % 5 + 1.0, rows], NAMES)


def content_of(given: pa.Table, **options: Any) -> bytearray:
    sink = io.BytesIO()
    pq.write_table(given, sink, **{"row_group_size": 500, **options})
    return bytearray(sink.getvalue())


def read(source: Any) -> fastmf.Interactions:
    return fastmf.read_parquet(source, timestamp="timestamp")


@pytest.mark.parametrize("column", NAMES)
@pytest.mark.parametrize("group", [0, 3])
@pytest.mark.parametrize("dictionary", [False, True])
def test_a_column_that_lost_a_page_is_refused(column: str, group: int, dictionary: bool, tmp_path: Path) -> None:
    content = content_of(table(), use_dictionary=dictionary)
    chunk = pq.read_metadata(io.BytesIO(content)).row_group(group).column(NAMES.index(column))
    content[chunk.data_page_offset + 1] = SKIPPED_PAGE
    (tmp_path / "r.parquet").write_bytes(content)

    with pytest.raises(DataError) as error:
        read(tmp_path / "r.parquet")

    assert f"cannot read {tmp_path}/r.parquet as Parquet: column {column!r}, row group {group}: " in str(error.value)
    assert "it has 0 values for 500 rows" in str(error.value)


@pytest.mark.parametrize("column", NAMES)
def test_all_columns_that_lost_the_same_page_are_refused_too(column: str, tmp_path: Path) -> None:
    content = content_of(table())
    for place in range(4):
        chunk = pq.read_metadata(io.BytesIO(content)).row_group(1).column(place)
        content[chunk.data_page_offset + 1] = SKIPPED_PAGE

    with pytest.raises(DataError, match="row group 1: it has 0 values for 500 rows"):
        read(io.BytesIO(content))


def test_the_damaged_one_of_many_files_is_named_alone(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"f{number}.parquet").write_bytes(content_of(table(100, 100 * number)))
    content = content_of(table(100, 300))
    chunk = pq.read_metadata(io.BytesIO(content)).row_group(0).column(2)
    content[chunk.dictionary_page_offset : chunk.data_page_offset] = bytes(
        chunk.data_page_offset - chunk.dictionary_page_offset
    )
    (tmp_path / "f3.parquet").write_bytes(content)

    with pytest.raises(
        DataError, match=r"cannot read \S*f3.parquet as Parquet: column 'rating', row group 0: "
    ) as error:
        read(tmp_path)

    assert str(error.value).count(".parquet") == 1


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("user_id", None, "column 'user_id' has 1 null value, the first in row 7 (from 0) of {file}, row group 1"),
        ("item_id", None, "column 'item_id' has 1 null value, the first in row 7 (from 0) of {file}, row group 1"),
        ("rating", None, "column 'rating' has 1 null value, the first in row 7 (from 0) of {file}, row group 1"),
        ("timestamp", None, "column 'timestamp' has 1 null value, the first in row 7 (from 0) of {file}, row group 1"),
        ("rating", np.nan, "the first in row 7 (from 0): nan; drop or repair those rows first ({file}, row group 1)"),
        ("rating", -np.inf, "the first in row 7 (from 0): -inf; drop or repair those rows first ({file}, row group 1)"),
    ],
)
def test_a_bad_value_is_named_with_file_row_group_and_row(
    column: str, value: Any, message: str, tmp_path: Path
) -> None:
    for number in range(4):
        rows = table(10, 10 * number)
        if number == 2:
            values = [*rows[column].to_pylist()[:7], value, *rows[column].to_pylist()[8:]]
            rows = rows.set_column(NAMES.index(column), column, pa.array(values, rows[column].type))
        (tmp_path / f"f{number}.parquet").write_bytes(content_of(rows, row_group_size=5))

    with pytest.raises(DataError) as error:
        read(tmp_path)

    assert message.format(file=tmp_path / "f2.parquet") in str(error.value)


@pytest.mark.parametrize(
    ("column", "bad"),
    [("user_id", [1.5]), ("item_id", [True]), ("rating", ["x"]), ("timestamp", [0.5]), ("user_id", [b"x"])],
)
def test_a_file_with_a_wrong_type_is_named_before_anything_is_read(column: str, bad: Any, tmp_path: Path) -> None:
    for number in range(3):
        rows = table(1, number)
        if number == 1:
            rows = rows.set_column(NAMES.index(column), column, pa.array(bad))
        (tmp_path / f"f{number}.parquet").write_bytes(content_of(rows))

    with pytest.raises(DataError, match=rf"column '{column}' has type \w+ in \S*f1.parquet; expected "):
        read(tmp_path)


def feather_file(path: Path) -> None:
    feather.write_feather(table(5), path)


OTHER_KINDS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "csv": (lambda p: p.write_text("user_id,item_id\n1,2\n"), "it is text: convert text with `fastmf convert`"),
    "latin-1 csv": (lambda p: p.write_bytes("name\nJosé\n".encode("latin-1") * 9), "it is text: convert text with"),
    "long csv": (lambda p: p.write_text("aä€,1\n" * 4000), "it is text: convert text with `fastmf convert`"),
    "utf-16 csv": (lambda p: p.write_bytes("user_id,item_id\n".encode("utf-16")), "it is text: convert text with"),
    "tab-separated": (lambda p: p.write_text("1\t2\t3\n" * 9), "it is text: convert text with `fastmf convert`"),
    "gzip": (lambda p: p.write_bytes(gzip.compress(b"1,2\n" * 9)), "compressed with gzip: convert text with `fastmf c"),
    "zip": (lambda p: p.write_bytes(b"PK\x03\x04" + bytes(50)), "it is a ZIP archive (or .xlsx, .npz): unpack it"),
    "arrow": (feather_file, "it is an Arrow file: read it with pyarrow.ipc and pass the table to Interactions"),
    "orc": (lambda p: orc.write_table(table(5), p), "it is an ORC file: read it with pyarrow.orc"),
    "numpy": (lambda p: p.write_bytes(b"\x93NUMPY" + bytes(50)), "it is a NumPy file: load it with numpy.load"),
    "encrypted": (lambda p: p.write_bytes(b"PARE" + bytes(50) + b"PARE"), "it is an encrypted Parquet file"),
    "random": (
        lambda p: p.write_bytes(b"\x00\x01\x02\x03" * 20),
        r"it begins with b'\x00\x01\x02\x03', not with b'PAR1'",
    ),
    "cut off": (lambda p: p.write_bytes(content_of(table())[:-9]), "it is cut off after "),
    "empty": (lambda p: p.write_bytes(b""), "file size is 0 bytes; copy or write it again"),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
@pytest.mark.parametrize("among", [False, True], ids=["alone", "among others"])
def test_a_file_of_another_kind_says_what_it_is_and_what_to_do(kind: str, among: bool, tmp_path: Path) -> None:
    write, message = OTHER_KINDS[kind]
    bad, good = tmp_path / "b.parquet", tmp_path / "a.parquet"
    write(bad)
    good.write_bytes(content_of(table(5)))

    with pytest.raises(DataError) as error:
        read([good, bad] if among else bad)

    assert str(error.value).startswith(f"cannot read {bad} as Parquet: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("way", ["file", "arrow", "arrays"])
@pytest.mark.parametrize("column", ["user_id", "item_id"])
@pytest.mark.parametrize("dictionary", [False, True])
def test_ids_that_are_not_utf8_are_refused(way: str, column: str, dictionary: bool, tmp_path: Path) -> None:
    ids = pa.array([b"a", b"b", b"c\xff", b"d"]).view(pa.string())
    other = "item_id" if column == "user_id" else "user_id"
    rows = pa.table({column: ids.dictionary_encode() if dictionary else ids, other: [1, 2, 3, 4], "rating": [1.0] * 4})
    pq.write_table(rows.cast(pa.schema([(column, pa.string()), *list(rows.schema)[1:]])), tmp_path / "r.parquet")
    ways = {
        "file": lambda: fastmf.read_parquet(tmp_path / "r.parquet"),
        "arrow": lambda: fastmf.Interactions.from_arrow(rows),
        "arrays": lambda: fastmf.Interactions.from_arrays(rows["user_id"], rows["item_id"]),
    }

    with pytest.raises(DataError, match=r"has an id that is not UTF-8, in row 2 \(from 0\).*: b'c\\xff'; write the"):
        ways[way]()


def test_ids_to_look_up_that_are_not_utf8_are_refused() -> None:
    bad = pa.array([b"c\xff"] * 100).view(pa.string())

    for asked in (bad, bad[:1]):
        with pytest.raises(DataError, match="column 'users' has an id that is not UTF-8"):
            fastmf.reading.ids.look_up(pa.array(["a", "b"]), asked, "users")


def replace_by_rename(path: Path, content: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(content)
    os.replace(new, path)


def write_in_place(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def remove(path: Path, content: bytes) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [replace_by_rename, write_in_place, remove])
@pytest.mark.parametrize("other", [table(N_ROWS, 5), table(100)], ids=["same size", "smaller"])
@pytest.mark.parametrize("before", ["item_id", "timestamp"])
def test_a_file_that_is_changed_between_two_columns_is_noticed(
    change: Callable[[Path, bytes], None], other: pa.Table, before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.parquet"
    path.write_bytes(content_of(table()))
    os.utime(path, ns=(1, 1))  # what comes later has another time
    read_column = reading.ParquetFiles.read

    def read_after_change(files: reading.ParquetFiles, name: str, kind: Any) -> Any:
        if name == before:
            change(path, bytes(content_of(other)))
        return read_column(files, name, kind)

    monkeypatch.setattr(reading.ParquetFiles, "read", read_after_change)

    with pytest.raises(DataError) as error:
        read(path)

    assert f"{path} was written again while it was read" in str(error.value) or "No such file" in str(error.value)


def test_a_file_that_is_changed_but_keeps_size_and_time_is_noticed_by_its_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.parquet"
    path.write_bytes(content_of(table()))
    monkeypatch.setattr(reading.DataFile, "version", lambda file: reading.Version(1, 1))
    files = reading.ParquetFiles(path)
    path.write_bytes(content_of(table(N_ROWS, 5)))

    with pytest.raises(DataError, match="was written again while it was read"):
        files.read("rating")


@pytest.mark.parametrize(
    "error", [MemoryError(), pa.ArrowMemoryError("malloc of size 64 failed"), OSError(12, "ENOMEM")]
)
@pytest.mark.parametrize("way", ["file", "arrow", "arrays", "scipy"])
def test_too_little_memory_says_how_much_is_needed(
    error: Exception, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert errno.ENOMEM == 12
    rows = table(1000)
    pq.write_table(rows, tmp_path / "r.parquet")
    matrix = fastmf.Interactions.from_arrow(rows).to_scipy()
    ways: dict[str, Callable[[], Any]] = {
        "file": lambda: read(tmp_path / "r.parquet"),
        "arrow": lambda: fastmf.Interactions.from_arrow(rows),
        "arrays": lambda: fastmf.Interactions.from_arrays(*rows.columns),
        "scipy": lambda: fastmf.Interactions.from_scipy(matrix),
    }

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("fastmf.reading.interactions.to_ratings", fail)

    with pytest.raises(OutOfMemoryError, match=r"reading 1,000 ratings from .* needs about 56 kB of memory") as raised:
        ways[way]()

    assert isinstance(raised.value, MemoryError)
    assert isinstance(raised.value, FastMFError)


def test_too_little_memory_for_a_column_is_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(table(1000), tmp_path / "r.parquet")

    def fail(*_: Any) -> None:
        raise pa.ArrowMemoryError("malloc of size 12345678 failed")

    monkeypatch.setattr(reading, "decode", fail)

    with pytest.raises(OutOfMemoryError, match="malloc of size 12345678 failed"):
        read(tmp_path / "r.parquet")


@pytest.mark.parametrize("reason", ["Couldn't deserialize thrift: std::bad_alloc", "Failed to launch worker thread: x"])
def test_too_little_memory_in_words_of_arrow_is_not_damage(
    reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(table(1000), tmp_path / "r.parquet")

    def fail(*_: Any) -> None:
        raise OSError(reason)

    monkeypatch.setattr(reading, "decode", fail)

    with pytest.raises(
        OutOfMemoryError, match=r"reading 1,000 ratings from \S*r.parquet needs about .*too little memory"
    ):
        read(tmp_path / "r.parquet")


def test_without_threads_the_file_is_read_on_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r.parquet").write_bytes(content_of(table()))
    expected = read(tmp_path / "r.parquet")

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(reading.pa, "cpu_count", lambda: 4)
    monkeypatch.setattr(threading.Thread, "start", fail)

    assert read(tmp_path / "r.parquet").to_arrow().equals(expected.to_arrow())


@pytest.mark.parametrize("n_cores", [1, 2, 7])
def test_the_number_of_cores_does_not_change_the_order(
    n_cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading.pa, "cpu_count", lambda: n_cores)
    for number, n in enumerate((3, 100, 0, 41)):
        (tmp_path / f"f{number}.parquet").write_bytes(content_of(table(n, 1000 * number), row_group_size=7))

    ratings = read(tmp_path)

    assert ratings.timestamps is not None
    assert ratings.timestamps.tolist() == [*range(3), *range(1000, 1100), *range(3000, 3041)]
