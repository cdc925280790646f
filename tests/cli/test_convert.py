"""``fastmf convert``: MovieLens files by their names, any other delimited text as told."""

import bz2
import gzip
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf.reading import lines
from fastmf.reading.text import convert

Done = CompletedProcess[str]
RATINGS = {"user_id": [1, 1, 2], "item_id": [20, 10, 20]}
WHOLE = pa.table({**RATINGS, "rating": [5, 3, 4], "timestamp": [881250949, 891717742, 878887116]})
HALVES = pa.table({**RATINGS, "rating": [5.0, 3.5, 4.0], "timestamp": [881250949, 891717742, 878887116]})

U_DATA = "1\t20\t5\t881250949\n1\t10\t3\t891717742\n2\t20\t4\t878887116\n"
RATINGS_DAT = U_DATA.replace("\t", "::")
RATINGS_CSV = "userId,movieId,rating,timestamp\n1,20,5.0,881250949\n1,10,3.5,891717742\n2,20,4.0,878887116\n"
NO_HEADER = ("--columns", "user_id", "item_id", "rating", "timestamp")
RENAMED = ("--user-column", "who", "--item-column", "what", "--rating-column", "stars", "--timestamp-column", "at")


def one_row(item: str) -> pa.Table:
    return pa.table({"user_id": [1], "item_id": [item], "rating": [5]})


def ids_text(*users: str) -> str:
    return "user_id,item_id\n" + "".join(f"{user},1\n" for user in users)


def ids_table(*users: int | str) -> pa.Table:
    return pa.table({"user_id": users, "item_id": [1] * len(users)})


def times_text(time: str) -> str:
    return f"user_id,item_id,timestamp\n1,2,{time}\n"


def times_table(times: list[int], kind: pa.DataType) -> pa.Table:
    integers = pa.array(times, pa.int32() if kind == pa.date32() else pa.int64())
    return pa.table({"user_id": [1], "item_id": [2], "timestamp": integers.cast(kind)})


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


SOURCES |= {
    "u1.base": (U_DATA, (), WHOLE),
    "ua.test": (U_DATA, (), WHOLE),
    "windows.csv": (RATINGS_CSV.replace("\n", "\r\n"), (), HALVES),
    "marked.csv": ("\ufeff" + RATINGS_CSV, (), HALVES),
    "no-end.csv": (RATINGS_CSV.rstrip("\n"), (), HALVES),
    "gaps.csv": ("\n" + RATINGS_CSV.replace("\n", "\n\n"), (), HALVES),
    "colons.dat": ("1::a:b::5\n", ("--columns", "user_id", "item_id", "rating"), one_row("a:b")),
    "zeros.csv": (ids_text("007", "7"), (), ids_table("007", "7")),
    "plus.csv": (ids_text("+7", "7"), (), ids_table("+7", "7")),
    "blank.csv": (ids_text(" 7", "7"), (), ids_table(" 7", "7")),
    "beyond.csv": (ids_text("9223372036854775808", "7"), (), ids_table("9223372036854775808", "7")),
    "decimal.csv": (ids_text("7.0", "7"), (), ids_table("7.0", "7")),
    "words.csv": (ids_text("true", "null", "NA", "nan"), (), ids_table("true", "null", "NA", "nan")),
    "low.csv": (ids_text("-9223372036854775808", "0"), (), ids_table(-(2**63), 0)),
    "as-int.csv": (ids_text("007", "8"), ("--types", "user_id=int"), ids_table(7, 8)),
    "as-text.csv": (ids_text("7", "8"), ("--types", "user_id=text"), ids_table("7", "8")),
    "inches.tsv": ('user_id\titem_id\n1\t"a\n2\tb"\n', (), pa.table({"user_id": [1, 2], "item_id": ['"a', 'b"']})),
    "inches.csv": ('user_id,item_id\n1,5" disc\n', (), pa.table({"user_id": [1], "item_id": ['5" disc']})),
    "plain.csv": (
        'user_id,item_id\n1,"a\n2,b"\n',
        ("--quote", "none"),
        pa.table({"user_id": [1, 2], "item_id": ['"a', 'b"']}),
    ),
    "single.csv": ("user_id,item_id\n1,'a,b'\n", ("--quote", "'"), pa.table({"user_id": [1], "item_id": ["a,b"]})),
    "quoted.tsv": ('user_id\titem_id\n1\t"a\tb"\n', ("--quote", '"'), pa.table({"user_id": [1], "item_id": ["a\tb"]})),
    "other.csv": (
        "user_id,item_id,zip,price,seen\n1,2,01234,1.10,\n1,3,99999,2,yes\n",
        (),
        pa.table(
            {
                "user_id": [1, 1],
                "item_id": [2, 3],
                "zip": ["01234", "99999"],
                "price": ["1.10", "2"],
                "seen": ["", "yes"],
            }
        ),
    ),
    "priced.csv": (
        "user_id,item_id,price\n1,2,1.10\n",
        ("--types", "price=float"),
        pa.table({"user_id": [1], "item_id": [2], "price": [1.1]}),
    ),
    "days.csv": (times_text("2020-01-02"), (), times_table([18263], pa.date32())),
    "seconds.csv": (times_text("2020-01-02 00:00:01"), (), times_table([1577923201000], pa.timestamp("ms"))),
    "micro.csv": (times_text("1970-01-01T00:00:00.000007"), (), times_table([7], pa.timestamp("us"))),
}

ENCODED: dict[str, tuple[str, tuple[str, ...]]] = {
    "latin-1": ("latin-1", ("--encoding", "latin-1")),
    "utf-16": ("utf-16", ("--encoding", "utf-16")),
    "cp1252": ("cp1252", ("--encoding", "cp1252")),
    "utf-8": ("utf-8", ()),
}


@pytest.mark.parametrize("case", ENCODED)
def test_convert_reads_encodings(case: str, tmp_path: Path, run_fastmf: Callable[..., Done]) -> None:
    encoding, options = ENCODED[case]
    (tmp_path / "a.csv").write_bytes("user_id,item_id\nJosé,1\n".encode(encoding))

    run_fastmf("convert", "a.csv", "out.parquet", *options)

    assert pq.read_table(tmp_path / "out.parquet").to_pydict() == {"user_id": ["José"], "item_id": [1]}


LATE: dict[str, tuple[str, list[str], pa.DataType]] = {
    "ratings that become decimals": ("rating", ["4", "4.5"], pa.float64()),
    "ids that become text": ("item_id", ["4", "x4"], pa.string()),
    "ids that get a leading zero": ("user_id", ["4", "04"], pa.string()),
    "ids beyond int64": ("user_id", ["4", "99999999999999999999"], pa.string()),
    "another column that becomes text": ("other", ["4", ""], pa.string()),
}


@pytest.mark.parametrize("case", LATE)
def test_types_are_those_of_the_whole_file(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_BLOCK", 100)
    column, (early, late), kind = LATE[case]
    names = ["user_id", "item_id", "rating", "other"]
    rows = [{**dict.fromkeys(names, "1"), column: early} for _ in range(200)]
    rows[170][column] = late
    (tmp_path / "a.csv").write_text("\n".join([",".join(names), *(",".join(row.values()) for row in rows)]))

    convert(tmp_path / "a.csv", tmp_path / "out.parquet")

    table = pq.read_table(tmp_path / "out.parquet")
    assert table[column].type == kind
    assert table[column].cast(pa.string()).to_pylist() == [row[column] for row in rows]


@pytest.mark.parametrize("name", SOURCES)
def test_convert_reads_text_and_keeps_every_column(name: str, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    text, options, expected = SOURCES[name]
    (tmp_path / name).write_text(text, newline="")

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


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("name", ["ratings.csv", "RATINGS.CSV.GZ", "ratings.csv.xz"])
def test_what_is_compressed_is_seen_from_the_content(
    compress: Callable[[bytes], bytes], name: str, tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    (tmp_path / name).write_bytes(compress(RATINGS_CSV.encode()))

    call_fastmf("convert", name, "out.parquet", "--encoding", "latin-1")

    assert pq.read_table(tmp_path / "out.parquet").equals(HALVES)


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "ratings.csv").write_text(RATINGS_CSV)

    convert("~/ratings.csv", tmp_path / "out.parquet")

    assert pq.read_table(tmp_path / "out.parquet").equals(HALVES)


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
    "colons": (
        "a.dat",
        b"1::2\n1::2::3\n",
        ("--columns", "a", "b"),
        1,
        "line 2: Expected 2 columns, got 3: 1::2::3; rep",
    ),
    "a line too short": (
        "a.csv",
        b"a,b\n1,2\n\n1\n",
        (),
        1,
        "line 4: Expected 2 columns, got 1: 1; repair the line, or",
    ),
    "a quote that stays open": (
        "a.csv",
        b'a,b\n1,2\n1,"x\n3,4\n',
        (),
        1,
        'line 3: a quote " is not closed in its line, or',
    ),
    "quoted lines": (
        "a.csv",
        b'a,b\n1,"x\ny"\n',
        (),
        1,
        'line 2: a quote " is not closed in its line, or stands inside',
    ),
    "text after a quote": (
        "a.csv",
        b'a,b\n1,"x"y\n',
        (),
        1,
        'line 2: a quote " is not closed in its line, or stands in',
    ),
    "latin-1": (
        "a.csv",
        "a,b\n1,2\né,2\n".encode("latin-1"),
        (),
        1,
        r"line 3: the byte b'\xe9' is not utf-8; give --enc",
    ),
    "utf-16": ("a.csv", "a,b\n1,2\n".encode("utf-16"), (), 1, "it is not utf-8 but UTF-16; give --encoding utf-16"),
    "parquet": ("a.csv", b"PAR1\xff\xfe", (), 1, "it is a Parquet file, which needs no conversion"),
    "no rating": (
        "a.csv",
        b"user_id,item_id,rating\n1,2,3\n1,3,\n",
        (),
        1,
        "line 3: rating is ''; expected a finite num",
    ),
    "infinite": (
        "a.csv",
        b"user_id,item_id,rating\n1,2,inf\n",
        (),
        1,
        "line 2: rating is 'inf'; expected a finite number",
    ),
    "no id": ("a.csv", b"user_id,item_id\n1,2\n,3\n", (), 1, "line 3: user_id is ''; expected an id that is not empty"),
    "no time": (
        "a.csv",
        b"user_id,timestamp\n1,2\n1,soon\n",
        (),
        1,
        "line 3: timestamp is 'soon'; expected an integer",
    ),
    "no integer": (
        "a.csv",
        b"a,b\n1,2\n1,x\n",
        ("--types", "b=int"),
        1,
        "line 3: b is 'x'; expected an integer, as in",
    ),
    "numbers for names": (
        "a.csv",
        b"1,20,5.0\n2,20,4.0\n",
        (),
        1,
        "line 1: expected names of columns, got 1,20,5.0; give",
    ),
    "one column": (
        "a.csv",
        b"a;b\n1;2\n",
        (),
        1,
        "a.csv has one column, 'a;b', if it is delimited by ','; expected at",
    ),
    "a type nobody knows": (
        "a.csv",
        b"a,b\n1,2\n",
        ("--types", "b=long"),
        2,
        "the type of 'b' is 'long'; expected one of",
    ),
    "a type of no column": ("a.csv", b"a,b\n1,2\n", ("--types", "c=int"), 1, "no column 'c'; the columns are 'a', 'b'"),
    "no encoding": (
        "a.csv",
        b"a,b\n1,2\n",
        ("--encoding", "klingon"),
        2,
        "encoding is 'klingon'; expected a name that Py",
    ),
    "a wide quote": (
        "a.csv",
        b"a,b\n1,2\n",
        ("--quote", "''"),
        2,
        "quote is \"''\"; expected one ASCII character other than",
    ),
    "a quote beyond ASCII": ("a.csv", b"a,b\n1,2\n", ("--quote", "«"), 2, "--quote is '«'; expected one ASCII"),
    "a quote that ends lines": ("a.csv", b"a,b\n1,2\n", ("--quote", "\n"), 2, r"--quote is '\n'; expected one ASCII"),
    "a delimiter beyond ASCII": (
        "a.csv",
        "a¦b\n1¦2\n".encode(),
        ("--delimiter", "¦"),
        2,
        "--delimiter is '¦'; expected one ASCII character, or '::'",
    ),
    "utf-16 without a mark": (
        "a.csv",
        b"a,b\n1,2\n",
        ("--encoding", "utf-16"),
        1,
        "it is not utf-16: UTF-16 stream does not start with BOM; give --encoding",
    ),
    "an encoding that refuses all": (
        "a.csv",
        b"a,b\n1,2\n",
        ("--encoding", "undefined"),
        1,
        "it is not undefined: undefined encoding; give --encoding",
    ),
    "utf-16 cut off": (
        "a.csv",
        "a,b\n1,2\n".encode("utf-16")[:-1],
        ("--encoding", "utf-16"),
        1,
        "it is cut off or damaged: truncated data; copy it again",
    ),
    "ZIP": ("a.csv", b"PK\x03\x04..", ("--encoding", "latin-1"), 1, "it is a ZIP archive: unpack it first"),
    "zstd": ("a.csv", b"\x28\xb5\x2f\xfd..", (), 1, "it is compressed with zstd: decompress it first"),
    "one column for two": (
        "a.csv",
        b"a,b,c\n1,2,3\n",
        ("--user-column", "a", "--item-column", "a"),
        2,
        "--user-column and --item-column are both 'a'; expected two columns",
    ),
    "no column": ("a.csv", b"a,b\n1,2\n", ("--item-column", "c"), 1, "no column 'c'; the columns are 'a', 'b'"),
    "twice": ("a.csv", b"user_id,b\n1,2\n", ("--user-column", "b"), 1, "column 'user_id' would come up twice"),
    "no names": ("a.dat", b"1::2::3\n", (), 2, "a file delimited by '::' has no header line that can be read"),
    "wide": (
        "a.csv",
        b"a||b\n",
        ("--delimiter", "||"),
        2,
        "--delimiter is '||'; expected one ASCII character, or '::'",
    ),
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


def test_a_type_without_a_name_is_refused(call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf("convert", "a.csv", "out.parquet", "--types", "b", status=2)

    assert "argument --types: 'b' is not NAME=TYPE, for example item_id=text" in done.stderr


def test_no_such_text(run_fastmf: Callable[..., Done], contents: Callable[[], object]) -> None:
    done = run_fastmf("convert", "a.csv", "out.parquet", status=1)

    assert done.stderr == "fastmf convert: no such file: a.csv; expected a text file\n"
    assert contents() == {}


def test_a_pipe_is_refused(tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    os.mkfifo(tmp_path / "a.csv")

    done = call_fastmf("convert", "a.csv", "out.parquet", status=1)

    assert "a.csv is a pipe or a device, and is read twice; write the text to a file first" in done.stderr


def test_a_folder_is_no_text(tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    (tmp_path / "a.csv").mkdir()

    done = call_fastmf("convert", "a.csv", "out.parquet", status=1)

    assert "a.csv is a folder; expected a text file" in done.stderr
