"""``fastmf convert``: MovieLens files by their names, any other delimited text as told."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf

Done = CompletedProcess[str]
RATINGS = {"user_id": [1, 1, 2], "item_id": [20, 10, 20]}
WHOLE = pa.table({**RATINGS, "rating": [5, 3, 4], "timestamp": [881250949, 891717742, 878887116]})
HALVES = pa.table({**RATINGS, "rating": [5.0, 3.5, 4.0], "timestamp": [881250949, 891717742, 878887116]})

U_DATA = "1\t20\t5\t881250949\n1\t10\t3\t891717742\n2\t20\t4\t878887116\n"
RATINGS_DAT = U_DATA.replace("\t", "::")
RATINGS_CSV = "userId,movieId,rating,timestamp\n1,20,5.0,881250949\n1,10,3.5,891717742\n2,20,4.0,878887116\n"
NO_HEADER = ("--columns", "user_id", "item_id", "rating", "timestamp")
RENAMED = ("--user-column", "who", "--item-column", "what", "--rating-column", "stars", "--timestamp-column", "at")

# file name -> text, options, table
SOURCES: dict[str, tuple[str, tuple[str, ...], pa.Table]] = {
    "u.data": (U_DATA, (), WHOLE),
    "u1.base.data": (U_DATA, NO_HEADER, WHOLE),
    "ratings.dat": (RATINGS_DAT, (), WHOLE),
    "stars.dat": (RATINGS_DAT, NO_HEADER, WHOLE),
    "ratings.csv": (RATINGS_CSV, (), HALVES),
    "ratings.tsv": (RATINGS_CSV.replace(",", "\t"), (), HALVES),
    "ratings.tab": (RATINGS_CSV.replace(",", "\t"), (), HALVES),
    "ratings.txt": (RATINGS_CSV, (), HALVES),
    "ratings.psv": (RATINGS_CSV.replace(",", "|"), ("--delimiter", "|"), HALVES),
    "plays.csv": (RATINGS_CSV.replace("userId,movieId,rating,timestamp", "who,what,stars,at"), RENAMED, HALVES),
    "headless.csv": (
        RATINGS_CSV.partition("\n")[2],
        ("--columns", "who", "what", "rating", "timestamp", "--user-column", "who", "--item-column", "what"),
        HALVES,
    ),
    "quoted.csv": (
        'user_id,item_id,rating,title\n"ann","x, y",1,"a ""b"""\n',
        (),
        pa.table({"user_id": ["ann"], "item_id": ["x, y"], "rating": [1], "title": ['a "b"']}),
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_convert_reads_text_and_keeps_every_column(name: str, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    text, options, expected = SOURCES[name]
    (tmp_path / name).write_text(text)

    done = call_fastmf("convert", name, "out.parquet", *options, "--json")

    assert pq.read_table(tmp_path / "out.parquet").equals(expected)
    told = {"output": "out.parquet", "n_rows": len(expected), "columns": ", ".join(expected.column_names)}
    assert json.loads(done.stdout) == told


@pytest.mark.parametrize("name", ["u.data", "ratings.dat", "ratings.csv"])
def test_convert_reads_compressed_text_as_if_it_were_not(
    name: str, tmp_path: Path, run_fastmf: Callable[..., Done]
) -> None:
    text, _, expected = SOURCES[name]
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))

    done = run_fastmf("convert", f"{name}.gz", "out.parquet")

    assert done.stderr == ""
    assert done.stdout == "output   out.parquet\nn_rows   3\ncolumns  user_id, item_id, rating, timestamp\n"
    assert pq.read_table(tmp_path / "out.parquet").equals(expected)


def test_what_was_converted_can_be_trained_on(tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    (tmp_path / "ratings.dat").write_text(RATINGS_DAT)

    call_fastmf("convert", "ratings.dat", "out.parquet")

    ratings = fastmf.read_parquet(tmp_path / "out.parquet", timestamp="timestamp")
    assert ratings.to_arrow().sort_by("timestamp").column("item_id").to_pylist() == [20, 20, 10]


def test_convert_reads_block_after_block(tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    n = 100_000  # 1.3 MB: more than one block
    lines = "".join(f"{row % 997},{row},3.5\n" for row in range(n))
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating\n" + lines)

    call_fastmf("convert", "ratings.csv", "out.parquet")

    converted = pq.read_table(tmp_path / "out.parquet")
    assert converted["item_id"].to_pylist() == list(range(n))
    assert converted["user_id"][-1].as_py() == (n - 1) % 997


# id -> file name, text, options, exit status, message
BAD: dict[str, tuple[str, bytes, tuple[str, ...], int, str]] = {
    "empty": ("a.csv", b"", (), 1, "cannot read a.csv as text delimited by ',': it is empty"),
    "header alone": ("a.csv", b"a,b\n", (), 1, "a.csv has no rows; expected at least one below the header line"),
    "a line too long": ("a.csv", b"a,b\n1,2\n1,2,3\n", (), 1, "Expected 2 columns, got 3: 1,2,3"),
    "not text": ("a.csv", bytes(range(256)), (), 1, "cannot read a.csv as text delimited by ','"),
    "cut off": ("a.csv.gz", gzip.compress(U_DATA.encode())[:-20], (), 1, "cannot read a.csv.gz as text delimited by"),
    "no column": ("a.csv", b"a,b\n1,2\n", ("--item-column", "c"), 1, "no column 'c'; the columns are 'a', 'b'"),
    "twice": ("a.csv", b"user_id,b\n1,2\n", ("--user-column", "b"), 1, "column 'user_id' would come up twice"),
    "no names": ("a.dat", b"1::2::3\n", (), 2, "a file delimited by '::' has no header line that can be read"),
    "wide": ("a.csv", b"a||b\n", ("--delimiter", "||"), 2, "delimiter is '||'; expected one character, or '::'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_text_is_named_and_leaves_nothing(
    case: str, tmp_path: Path, call_fastmf: Callable[..., Done], contents: Callable[[], object]
) -> None:
    name, text, options, status, message = BAD[case]
    (tmp_path / name).write_bytes(text)
    before = contents()

    done = call_fastmf("convert", name, "out.parquet", *options, status=status)

    assert message in done.stderr
    assert done.stderr.startswith("fastmf convert: ")
    assert done.stdout == ""
    assert contents() == before


def test_a_bad_line_far_down_leaves_the_earlier_output(
    tmp_path: Path, call_fastmf: Callable[..., Done], contents: Callable[[], object]
) -> None:
    (tmp_path / "a.csv").write_text("userId,movieId,rating\n" + "1,2,3\n" * 400_000 + "1,2,x\n")
    (tmp_path / "out.parquet").write_text("earlier")
    before = contents()

    done = call_fastmf("convert", "a.csv", "out.parquet", "--overwrite", status=1)

    assert "cannot read a.csv as text delimited by ',': line 400002: rating is 'x'; expected a" in done.stderr
    assert contents() == before


def test_no_such_text(run_fastmf: Callable[..., Done], contents: Callable[[], object]) -> None:
    done = run_fastmf("convert", "a.csv", "out.parquet", status=1)

    assert done.stderr == "fastmf convert: no such file: a.csv; expected a text file\n"
    assert contents() == {}
