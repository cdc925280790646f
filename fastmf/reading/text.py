"""Convert delimited text to Parquet, block by block."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from fastmf.common.files import new_file
from fastmf.errors import DataError, ParameterError
from fastmf.reading.parquet import PathLike, require_column

_MOVIELENS_COLUMNS = ("user_id", "item_id", "rating", "timestamp")
_MOVIELENS_NAMES = {"userId": "user_id", "movieId": "item_id"}


def convert(
    source: PathLike,
    output: PathLike,
    *,
    delimiter: str | None = None,
    columns: Sequence[str] | None = None,
    renamed: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> tuple[list[str], int]:
    """Convert delimited text to a Parquet file, which appears whole or not at all.

    Parameters
    ----------
    source : path-like
        Text, possibly compressed (.gz, .bz2). The first line names the columns, unless ``columns`` is given or the file
        has the name of a MovieLens file without a header line (u.data, ratings.dat).
    output : path-like
    delimiter : str, optional
        One character, or ``::``. Tab for .data, .tsv and .tab, ``::`` for .dat, a comma otherwise.
    columns : sequence of str, optional
        Names of the columns of a file without a header line.
    renamed : mapping, optional
        From names in the text to names in the output; MovieLens' ``userId`` and ``movieId`` are known.
    overwrite : bool

    Returns
    -------
    columns : list of str
        Names of the columns written.
    n_rows : int

    Raises
    ------
    DataError
        If the text cannot be read, a line has the wrong number of columns, or there is no row.
    """
    path = Path(source)
    if not path.is_file():
        raise DataError(f"no such file: {path}; expected a text file")
    delimiter = delimiter or _guess_delimiter(path)
    if columns is None and _stem(path).name in ("u.data", "ratings.dat"):
        columns = _MOVIELENS_COLUMNS
    with _reading(path, delimiter):
        reader = pa_csv.open_csv(path, *_options(delimiter, columns))
    n_rows = 0
    with reader, new_file(output, overwrite) as temporary:
        names = _names(reader.schema, renamed or {})
        schema = pa.schema([field.with_name(name) for field, name in zip(reader.schema, names, strict=True)])
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for batch in _batches(reader, path, delimiter):
                writer.write_batch(batch.rename_columns(names))
                n_rows += len(batch)
        if n_rows == 0:
            raise DataError(f"{path} has no rows; expected at least one below the header line")
    return names, n_rows


@contextmanager
def _reading(path: Path, delimiter: str) -> Iterator[None]:
    """Turn errors of Arrow and of the system into a `DataError` that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"cannot read {path} as text delimited by {delimiter!r}: {error}") from error


def _batches(reader: pa_csv.CSVStreamingReader, path: Path, delimiter: str) -> Iterator[pa.RecordBatch]:
    with _reading(path, delimiter):
        yield from reader


def _stem(path: Path) -> Path:
    """Remove the suffix of a compressed file."""
    return path.with_suffix("") if path.suffix in (".gz", ".bz2") else path


def _guess_delimiter(path: Path) -> str:
    endings = {".data": "\t", ".tsv": "\t", ".tab": "\t", ".dat": "::"}
    return endings.get(_stem(path).suffix, ",")


def _options(
    delimiter: str, columns: Sequence[str] | None
) -> tuple[pa_csv.ReadOptions, pa_csv.ParseOptions, pa_csv.ConvertOptions]:
    if delimiter == "::":
        if columns is None:
            raise ParameterError("a file delimited by '::' has no header line that can be read; give --columns")
        # Arrow splits at single characters, so that "::" gives an empty column between two values.
        spaced = [part for i, name in enumerate(columns) for part in (f"_{i}", name)][1:]
        return (
            pa_csv.ReadOptions(column_names=spaced),
            pa_csv.ParseOptions(delimiter=":"),
            pa_csv.ConvertOptions(include_columns=list(columns)),
        )
    if len(delimiter) != 1:
        raise ParameterError(f"delimiter is {delimiter!r}; expected one character, or '::'")
    names = None if columns is None else list(columns)
    return pa_csv.ReadOptions(column_names=names), pa_csv.ParseOptions(delimiter=delimiter), pa_csv.ConvertOptions()


def _names(schema: pa.Schema, renamed: Mapping[str, str]) -> list[str]:
    for name in renamed:
        require_column(schema, name)
    names = [renamed.get(name, _MOVIELENS_NAMES.get(name, name)) for name in schema.names]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise DataError(f"column {min(repeated)!r} would come up twice; the columns are {', '.join(map(repr, names))}")
    return names
