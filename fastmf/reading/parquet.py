"""Read columns of Parquet files, and write tables whole or not at all.

A column is read one row group at a time, on all cores. The length of what was read is compared with the metadata: Arrow
skips pages of a type that it does not know, so that a damaged column can be shorter than the others.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastmf.common.files import new_file
from fastmf.common.memory import is_out_of_memory
from fastmf.errors import DataError, FastMFError, OutOfMemoryError
from fastmf.reading.columns import (
    ANY,
    Column,
    Kind,
    Part,
    Places,
    decode,
    is_text,
    require_column,
    require_kind,
    value_type,
)
from fastmf.reading.file_kinds import describe_content
from fastmf.reading.sources import DataFile, PathLike, Version, find_files, first_line

__all__ = ["ParquetFiles", "PathLike", "open_dataset", "read_column", "write_table"]

_ABSURD_SIZE = 1 << 42  # bytes of one allocation

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


class _Opened(NamedTuple):
    """A file whose metadata has been read."""

    file: DataFile
    version: Version
    metadata: Any
    schema: Any

    def type_of(self, name: str) -> Any:
        """Return the type of a column of the file, or None if the file has no such column."""
        if name not in self.schema.names:
            return None
        require_column(self.schema.names, name, self.file.name)
        return value_type(self.schema.field(name).type)


class ParquetFiles:
    """Parquet files as one table, in the order of the files.

    Parameters
    ----------
    source : path-like, binary file object, or iterable of these
        As in `fastmf.reading.sources.find_files`.

    Raises
    ------
    DataError
        If a file does not exist, is not Parquet, or is damaged.
    """

    def __init__(self, source: Any) -> None:
        self._opened = _map(_open, find_files(source))

    @property
    def files(self) -> list[str]:
        """Names of the files."""
        return [opened.file.name for opened in self._opened]

    @property
    def schema(self) -> Any:
        """Arrow schema of the first file, and of the Hive keys of its folders."""
        first = self._opened[0]
        keys = [key for key in first.file.keys if key not in first.schema.names]
        return pa.schema([*first.schema, *(pa.field(key, self._key_values(key, ANY).type) for key in keys)])

    def column_names(self) -> list[str]:
        """Return the names of the columns, and of the Hive keys, that any of the files has."""
        names = [[*opened.schema.names, *opened.file.keys] for opened in self._opened]
        return list(dict.fromkeys(name for of_file in names for name in of_file))

    def count_rows(self) -> int:
        """Return the number of rows of all files."""
        return sum(opened.metadata.num_rows for opened in self._opened)

    def type_of(self, name: str, kind: Kind, advice: str = "") -> Any:
        """Return the one type that holds a column of all files; ``advice`` ends the message if it is missing.

        Raises
        ------
        DataError
            If a file lacks the column, or has it with a type that cannot be used, or with one that has none in common
            with the files before it. The message names the file.
        """
        common = None
        keys = self._key_values(name, kind)
        for opened in self._opened:
            found = opened.type_of(name)
            if found is None:
                self._require_key(opened, name, advice)
                found = keys.type
            if pa.types.is_null(found) and common is not None:
                continue
            if not pa.types.is_null(found):
                require_kind(found, name, kind, opened.file.name if len(self._opened) > 1 else "")
            wider = found if common in (None, pa.null(), found) else kind.unify(common, found)
            if wider is None:
                raise DataError(
                    f"column {name!r} has type {found} in {opened.file.name} and {common} in the files before it; "
                    "expected one type: cast the column in one of them"
                )
            common = wider
        return common

    def read(self, name: str, kind: Kind = ANY) -> Column:
        """Read one column of all files.

        Raises
        ------
        DataError
            As `type_of`; or if a file is damaged, or was written again since it was opened. The message names the file
            and the row group.
        """
        common = self.type_of(name, kind)
        keys = iter(self._key_values(name, kind))
        pieces = [piece for opened in self._opened for piece in _pieces(opened, name, keys)]
        read = _map(lambda piece: _read_piece(piece, name, common), pieces)
        return Column(pa.chunked_array([chunk for chunks in read for chunk in chunks], common), Places(self._parts()))

    def _key_values(self, name: str, kind: Kind) -> pa.Array:
        """Parse the Hive keys of all files that have no such column: one value for each of them."""
        types = [opened.type_of(name) for opened in self._opened]
        texts = [opened.file.keys.get(name) for opened, found in zip(self._opened, types, strict=True) if found is None]
        if any(found is not None and is_text(found) for found in types):
            return pa.array(texts, pa.string())
        return kind.parse(texts)

    def _require_key(self, opened: _Opened, name: str, advice: str) -> None:
        """Require that a file without a column is in a folder ``NAME=VALUE``, below the folder that was given."""
        file, names = opened.file, opened.schema.names
        if name in file.keys:
            return
        alone = len(self._opened) == 1
        hint = f" (in {file.name})" if alone else ""
        if f"/{name}=" in f"/{file.name}":
            hint += f"; the folder {name}=... counts if the folder above it is given"
        hint += advice if alone or not advice else f"{advice}, or leave this file out"
        keys = [key for key in file.keys if key not in names]
        require_column([*names, *keys], name, "" if alone else file.name, hint)

    def _parts(self) -> list[Part]:
        parts, start = [], 0
        for opened in self._opened:
            first_row = 0
            for group in range(opened.metadata.num_row_groups):
                n_rows = opened.metadata.row_group(group).num_rows
                if n_rows:
                    parts.append(Part(start, opened.file.name, group, first_row))
                start, first_row = start + n_rows, first_row + n_rows
        return parts


def open_dataset(source: Any) -> ParquetFiles:
    """Open Parquet files as one table; see `ParquetFiles`."""
    return ParquetFiles(source)


def read_column(dataset: ParquetFiles, name: str) -> pa.ChunkedArray:
    """Read one column of all files, in file order; see `ParquetFiles.read`."""
    return dataset.read(name).values


class _Piece(NamedTuple):
    """Row groups of a file to read, or the Hive key that stands for its column."""

    opened: _Opened
    row_groups: list[int]
    key: Any = None


def _pieces(opened: _Opened, name: str, keys: Iterator[Any]) -> list[_Piece]:
    """Cut the row groups of a file into one piece for each core."""
    if opened.type_of(name) is None:
        return [_Piece(opened, [], next(keys))]
    cut = np.array_split(np.arange(opened.metadata.num_row_groups), pa.cpu_count())
    return [_Piece(opened, groups.tolist()) for groups in cut if len(groups)]


def _open(file: DataFile) -> _Opened:
    """Read the metadata of a file, and require that its row counts agree."""
    with _naming(file):
        version = file.version()
        with file.open() as handle:
            parquet = pq.ParquetFile(handle, pre_buffer=False)
            metadata, schema = parquet.metadata, parquet.schema_arrow
        n_rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        if min(n_rows, default=0) < 0 or sum(n_rows) != metadata.num_rows:
            raise ValueError(f"its row groups have {sum(n_rows)} rows, its metadata says {metadata.num_rows}")
        for name in schema.names:
            name.encode()
    return _Opened(file, version, metadata, schema)


def _read_piece(piece: _Piece, name: str, kind: Any) -> list[pa.Array]:
    opened = piece.opened
    if not piece.row_groups:
        n_rows = opened.metadata.num_rows
        scalar = pa.nulls(1, kind)[0] if piece.key is None else piece.key.cast(kind)
        return [pa.repeat(scalar, n_rows)]
    with _naming(opened.file, "", opened.version), opened.file.open() as handle:
        parquet = pq.ParquetFile(handle, pre_buffer=False, page_checksum_verification=True)
        if opened.file.version() != opened.version or not parquet.metadata.equals(opened.metadata):
            raise _changed(opened.file)
        groups = [_read_group(parquet, opened, group, name) for group in piece.row_groups]
    if _differs(opened.file, opened.version):
        raise _changed(opened.file)
    return [chunk if chunk.type == kind else _cast(chunk, name, kind, opened) for chunks in groups for chunk in chunks]


def _read_group(parquet: Any, opened: _Opened, group: int, name: str) -> list[pa.Array]:
    """Read one row group of one column, and require that it has as many values as the row group has rows.

    The metadata of the column is not asked for its number of values: damaged metadata of a column makes pyarrow end the
    process.
    """
    with _naming(opened.file, f"column {name!r}, row group {group}: ", opened.version):
        n_rows = opened.metadata.row_group(group).num_rows
        values = parquet.read_row_group(group, columns=[name], use_threads=False).column(name)
        if len(values) != n_rows:
            raise ValueError(f"it has {len(values)} values for {n_rows} rows")
        values.validate()
        return list(decode(values).chunks)


def _cast(chunk: pa.Array, name: str, kind: Any, opened: _Opened) -> pa.Array:
    """Cast to the type that the column has in all files."""
    try:
        return chunk.cast(kind)
    except pa.ArrowException as error:
        raise DataError(
            f"column {name!r} in {opened.file.name} does not fit into {kind}, its type in all files: "
            f"{first_line(error)}; cast it first"
        ) from error


def _changed(file: DataFile) -> DataError:
    return DataError(f"{file.name} was written again while it was read; read it again when it is complete")


@contextmanager
def _naming(file: DataFile, part: str = "", version: Version | None = None) -> Iterator[None]:
    """Turn any error into a `DataError` that names the file and says what it is instead of sound Parquet.

    Damaged files make Arrow raise errors of many types, also such as OverflowError and UnicodeDecodeError.
    """
    try:
        yield
    except FastMFError:
        raise
    except Exception as error:
        if is_out_of_memory(error) and not _is_absurd(error):
            raise OutOfMemoryError(
                f"too little memory to read {file.name} ({first_line(error)}); free some, lift the limit of the "
                "process, or use a larger machine; if there is enough, the file is damaged: copy or write it again"
            ) from error
        if version is not None and _differs(file, version):
            raise _changed(file) from error
        advice = describe_content(file) or "copy or write it again"
        raise DataError(f"cannot read {file.name} as Parquet: {part}{first_line(error)}; {advice}") from error


def _is_absurd(error: BaseException) -> bool:
    """Whether an error for want of memory asks for so much that the size must be damaged."""
    size = re.search(r"size (\d+)", str(error))
    return size is not None and int(size[1]) > _ABSURD_SIZE


def _differs(file: DataFile, version: Version) -> bool:
    try:
        return file.version() != version
    except (OSError, pa.ArrowException):
        return True


def _map(work: Callable[[_Task], _Result], tasks: Sequence[_Task]) -> list[_Result]:
    """Return the results of all tasks in order, from as many threads as there are cores and as can be started."""
    n_threads = min(pa.cpu_count(), len(tasks))
    if n_threads > 1:
        try:
            with ThreadPoolExecutor(n_threads) as pool:
                return list(pool.map(work, tasks))
        except RuntimeError as error:  # "can't start new thread"
            if isinstance(error, FastMFError):
                raise
    return [work(task) for task in tasks]


def write_table(table: pa.Table, path: PathLike, overwrite: bool = False) -> None:
    """Write a table to one Parquet file; it appears whole or not at all.

    Raises
    ------
    OutputExistsError
        If ``path`` exists and ``overwrite`` is false.
    """
    with new_file(path, overwrite) as temporary:
        pq.write_table(table, temporary, compression="zstd")
