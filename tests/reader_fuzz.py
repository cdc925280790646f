"""Reads mutated Parquet files and counts what comes of it; run by `test_reader_fuzz.py` in processes of its own.

A mutant must be refused with a `FastMFError`, or give the data of the sound file, or the data that pyarrow gives
when it reads the whole file with all its checks.
"""

import io
import json
import random
import resource
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import fastmf
from fastmf.errors import FastMFError

COLUMNS = ["user_id", "item_id", "rating", "timestamp"]
MEMORY = 8 << 30  # bytes of address space: a mutant that asks for more must be refused like any other


class Base(NamedTuple):
    """A sound file, and where its page headers are likely to be."""

    content: bytes
    footer: int
    headers: list[int]
    rows: list[tuple[Any, ...]]


def table_of(kind: str, n: int = 300) -> pa.Table:
    rng = np.random.default_rng(7)
    cells = rng.choice(60 * 50, n, replace=False)
    users, items = cells // 50, cells % 50 * 1_000_003
    if kind == "text":
        users, items = ([f"{name}{i}é" for i in array] for name, array in (("u", users), ("item", items)))
    times = pa.array(rng.integers(0, 2**40, n), pa.int64())
    ratings = rng.integers(1, 6, n).astype("f4" if kind == "int" else "f8")
    return pa.table([users, items, ratings, times if kind == "int" else times.cast(pa.timestamp("us"))], COLUMNS)


LAYOUTS: list[tuple[str, dict[str, Any]]] = [
    ("int", {"compression": "snappy"}),
    ("int", {"compression": "none", "use_dictionary": False}),
    ("int", {"compression": "zstd", "data_page_version": "2.0", "write_page_index": True}),
    (
        "int",
        {"compression": "none", "use_dictionary": False, "encoding_of_integers": "DELTA_BINARY_PACKED"},
    ),
    ("int", {"compression": "gzip", "write_page_checksum": True, "data_page_size": 256}),
    ("text", {"compression": "snappy"}),
    ("text", {"compression": "none", "use_dictionary": False, "data_page_size": 512}),
    ("text", {"compression": "zstd", "write_page_checksum": True}),
]


def make_base(kind: str, options: dict[str, Any]) -> Base:
    table, options = table_of(kind), dict(options)
    if encoding := options.pop("encoding_of_integers", None):
        options["column_encoding"] = {name: encoding for name in COLUMNS if name != "rating"}
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=110, **options)
    content = sink.getvalue()
    metadata = pq.read_metadata(io.BytesIO(content))
    chunks = [metadata.row_group(g).column(c) for g in range(metadata.num_row_groups) for c in range(4)]
    headers = [chunk.data_page_offset for chunk in chunks]
    headers += [chunk.dictionary_page_offset for chunk in chunks if chunk.has_dictionary_page]
    return Base(content, len(content) - 8 - metadata.serialized_size, headers, as_rows(table))


def as_rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(plain(table[name]).to_pylist() for name in COLUMNS), strict=True))


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return what fastmf makes of a column: ids as they are, ratings in float32, times as integers."""
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return column.cast(pa.float32(), safe=False)
    if pa.types.is_temporal(kind):
        return column.cast(pa.int32() if kind.bit_width == 32 else pa.int64()).cast(pa.int64())
    return column.cast(pa.int64()) if pa.types.is_integer(kind) else column


def place(base: Base, rng: random.Random) -> int:
    """Choose a byte: in a page header, in the footer, or anywhere."""
    where = rng.randrange(3)
    if where == 0:
        return min(rng.choice(base.headers) + rng.randrange(24), len(base.content) - 1)
    return rng.randrange(base.footer if where == 1 else 0, len(base.content))


def change_bytes(content: bytearray, base: Base, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content[place(base, rng)] = rng.choice((rng.randrange(256), 0, 0x7F, 0x80, 0xFF))


def flip_bit(content: bytearray, base: Base, rng: random.Random) -> None:
    content[place(base, rng)] ^= 1 << rng.randrange(8)


def cut_off(content: bytearray, base: Base, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def zero_range(content: bytearray, base: Base, rng: random.Random) -> None:
    start = place(base, rng)
    stop = min(start + rng.randrange(1, 200), len(content))
    content[start:stop] = bytes(stop - start)


def delete_range(content: bytearray, base: Base, rng: random.Random) -> None:
    start = place(base, rng)
    del content[start : start + rng.randrange(1, 40)]


def insert_range(content: bytearray, base: Base, rng: random.Random) -> None:
    start = place(base, rng)
    content[start:start] = rng.randbytes(rng.randrange(1, 40))


def copy_range(content: bytearray, base: Base, rng: random.Random) -> None:
    """Put a piece of the file in another place, such as a page header of another column."""
    source, target, size = place(base, rng), place(base, rng), rng.randrange(1, 60)
    piece = content[source : source + size]
    content[target : target + len(piece)] = piece


MUTATIONS: list[Callable[[bytearray, Base, random.Random], None]] = [
    change_bytes,
    change_bytes,
    change_bytes,
    flip_bit,
    flip_bit,
    cut_off,
    zero_range,
    delete_range,
    insert_range,
    copy_range,
]


def outcome_of(content: bytes, base: Base, path: Path) -> str:
    """Read a mutant as fastmf and as pyarrow does, and say how they compare."""
    path.write_bytes(content)
    try:
        table = fastmf.read_parquet(path, timestamp="timestamp").to_arrow()
    except FastMFError as error:
        return f"refused ({type(error).__name__})"
    except BaseException as error:
        return f"FOREIGN {type(error).__name__}: {error}"
    rows = as_rows(table)
    if repr(rows) == repr(base.rows):
        return "the data of the sound file"
    try:
        whole = pq.ParquetFile(path, page_checksum_verification=True).read()
        whole.validate(full=True)
        expected = as_rows(whole)
    except Exception as error:
        return f"WRONG: accepted, but pyarrow says {error}"
    return "other data, as pyarrow reads it" if repr(rows) == repr(expected) else "WRONG: pyarrow reads other data"


def main(folder: str, first: int, count: int) -> None:
    """Read mutants ``first`` to ``first + count``; the number of the current one is in ``folder/current-FIRST``."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.RLIM_INFINITY))
    bases = [make_base(kind, options) for kind, options in LAYOUTS]
    counts: Counter[str] = Counter()
    failures = []
    path, current = Path(folder, f"mutant-{first}.parquet"), Path(folder, f"current-{first}")
    for base in bases:
        assert outcome_of(base.content, base, path) == "the data of the sound file"
    for number in range(first, first + count):
        current.write_text(str(number))
        rng = random.Random(number)
        base = bases[number % len(bases)]
        content = bytearray(base.content)
        rng.choice(MUTATIONS)(content, base, rng)
        outcome = outcome_of(bytes(content), base, path)
        counts[outcome.partition(":")[0]] += 1
        if outcome.startswith(("FOREIGN", "WRONG")):
            failures.append(f"mutant {number}: {outcome}")
    print(json.dumps({"counts": counts, "failures": failures}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
