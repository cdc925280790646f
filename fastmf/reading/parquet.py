"""Read columns of Parquet files, and write tables whole or not at all."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from fastmf.common.files import new_file
from fastmf.errors import DataError

PathLike = str | os.PathLike[str]


def open_dataset(source: PathLike | Sequence[PathLike]) -> ds.Dataset:
    """Open Parquet files as one table.

    Parameters
    ----------
    source : path-like or sequence of path-like
        A file, a directory (all ``*.parquet`` files below it), a glob pattern, a URI such as ``s3://...``, or several.

    Raises
    ------
    DataError
        If there is no such file, or it is not Parquet.
    """
    several = isinstance(source, (list, tuple))
    files = [name for one in (source if several else [source]) for name in _expand(os.fspath(one))]  # type: ignore[union-attr, arg-type]
    if not files:
        raise DataError("no files were given; expected at least one Parquet file")
    try:
        return ds.dataset(files if len(files) > 1 else files[0], format="parquet", partitioning="hive")
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(files, error) from error


def _expand(name: str) -> list[str]:
    """Resolve one path, directory, pattern or URI to file names in a fixed order."""
    if "://" in name:
        return [name]
    path = Path(name)
    if path.is_dir():
        found = sorted(str(p) for p in path.rglob("*.parquet") if not p.name.startswith((".", "_")))
        if not found:
            raise DataError(f"directory {name} holds no *.parquet file; expected at least one")
        return found
    if path.exists():
        return [name]
    found = sorted(glob.glob(name, recursive=True))
    if not found:
        raise DataError(f"no such file: {name}; expected a Parquet file, a directory of them, or a pattern")
    return found


def read_column(dataset: ds.Dataset, name: str) -> pa.ChunkedArray:
    """Read one column of all files, in file order.

    Raises
    ------
    DataError
        If there is no such column (the message names those that exist), or a file cannot be read.
    """
    require_column(dataset.schema, name)
    try:
        return dataset.to_table(columns=[name]).column(0)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(getattr(dataset, "files", []), error) from error


def require_column(schema: pa.Schema, name: str, file: str = "") -> None:
    """Raise `DataError`, naming the columns there are, unless ``name`` is one of them."""
    if name not in schema.names:
        where = f" in {file}" if file else ""
        raise DataError(f"no column {name!r}{where}; the columns are {', '.join(map(repr, schema.names)) or 'none'}")


def with_columns(dataset: ds.Dataset, names: Sequence[str]) -> ds.Dataset:
    """Require that every file has the columns, and unify their types: the wider one of numbers and of times.

    Arrow takes the schema of the first file: it fills a column that a later file lacks with nulls, and casts
    integers to strings. Both are errors here.

    Raises
    ------
    DataError
        If a file lacks a column (the message names the file and the columns it has) or cannot be read, or if the types
        of two files have no common type.
    """
    for name in names:
        require_column(dataset.schema, name)
    if len(getattr(dataset, "files", [])) < 2:
        return dataset
    common = {name: dataset.schema.field(name) for name in names}
    for fragment in dataset.get_fragments():
        try:
            schema = fragment.physical_schema
        except (pa.ArrowException, OSError) as error:
            raise _unreadable([fragment.path], error) from error
        partition = ds.get_partition_keys(fragment.partition_expression)
        for name in names:
            if name not in partition:
                require_column(schema, name, fragment.path)
                common[name] = _wider(common[name], schema.field(name), fragment.path)
    schema = pa.schema([common.get(field.name, field) for field in dataset.schema])
    return ds.dataset(
        dataset.files, filesystem=dataset.filesystem, schema=schema, format="parquet", partitioning="hive"
    )


def _wider(a: pa.Field, b: pa.Field, file: str) -> pa.Field:
    try:
        return pa.unify_schemas([pa.schema([a]), pa.schema([b])], promote_options="permissive").field(0)
    except pa.ArrowException as error:
        raise DataError(
            f"column {a.name!r} has type {b.type} in {file} and {a.type} in the files before it; expected one type: "
            "cast the column in one of them"
        ) from error


def _unreadable(files: Sequence[str], error: Exception) -> DataError:
    reason = str(error).strip().splitlines()[0]
    named = ", ".join(map(str, files[:3])) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
    return DataError(f"cannot read {named} as Parquet: {reason}; copy or write it again")


def write_table(table: pa.Table, path: PathLike, overwrite: bool = False) -> None:
    """Write a table to one Parquet file; it appears whole or not at all.

    Raises
    ------
    OutputExistsError
        If ``path`` exists and ``overwrite`` is false.
    """
    with new_file(path, overwrite) as temporary:
        pq.write_table(table, temporary, compression="zstd")
