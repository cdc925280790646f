"""Convert delimited text to Parquet, block by block, in two passes: the first finds the types, the second writes.

Nothing is guessed from a part of the file: ids are integers only if all of them are, written as Python writes them;
"007" makes them strings. A line that cannot be read is an error that gives its number.
"""

import csv
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from fastmf.common.files import new_file
from fastmf.errors import DataError, ParameterError, named
from fastmf.reading.columns import require_column
from fastmf.reading.lines import Block, blocks, without_compression
from fastmf.reading.sources import PathLike
from fastmf.reading.text_types import TYPES, Guess

_MOVIELENS_COLUMNS = ("user_id", "item_id", "rating", "timestamp")
_MOVIELENS_NAMES = {"userId": "user_id", "movieId": "item_id"}
_MOVIELENS_FILES = re.compile(r"u[1-5ab]?\.(data|base|test)|ratings\.dat")
_DELIMITERS = {".data": "\t", ".base": "\t", ".test": "\t", ".tsv": "\t", ".tab": "\t", ".dat": "::"}
_SEPARATOR = "\x1e"  # stands for "::" while a block is parsed: Arrow splits at single characters


class Format(NamedTuple):
    """How text is laid out; None stands for what the name of the file says.

    Attributes
    ----------
    delimiter : str or None
        One character, or ``::``. By default a tab for .data, .base, .test, .tsv and .tab, ``::`` for .dat, and a comma
        for others.
    columns : sequence of str or None
        Names of the columns of a file without a header line.
    quote : str or None
        The character around values that hold the delimiter, doubled inside of such values; "" if there is none. By
        default ``"``, and none beside a tab or ``::``.
    encoding : str
        A name that Python knows. UTF-8 may begin with a byte order mark.
    """

    delimiter: str | None = None
    columns: Sequence[str] | None = None
    quote: str | None = None
    encoding: str = "utf-8"


def convert(
    source: PathLike,
    output: PathLike,
    form: Format | None = None,
    *,
    renamed: Mapping[str, str] | None = None,
    types: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> tuple[list[str], int]:
    """Convert delimited text to a Parquet file, which appears whole or not at all.

    Parameters
    ----------
    source : path-like
        Text, possibly compressed (.gz, .bz2, .xz). The first line names the columns, unless ``form.columns`` is given
        or the file has the name of a MovieLens file without a header line (u.data, ratings.dat).
    output : path-like
    form : Format, optional
    renamed : mapping, optional
        From names in the text to names in the output; MovieLens' ``userId`` and ``movieId`` are known.
    types : mapping, optional
        From names in the text to "text", "int", "float" or "time". By default, user_id and item_id are int if all their
        values are canonical integers, else text; rating is int or float; timestamp is int or time; all others are int
        or text.
    overwrite : bool

    Returns
    -------
    columns : list of str
        Names of the columns written.
    n_rows : int

    Raises
    ------
    DataError
        If the text cannot be read, a line has the wrong number of columns, a value is not of its type, or there is no
        row. The message gives the number of the line.
    ParameterError
        If an option has a value that makes no sense.
    """
    text = _Text(Path(source), form or Format())
    names = _output_names(text.names, renamed or {})
    guesses = _guesses(text, names, types or {})
    n_rows = 0
    for block, table in text.tables():
        n_rows += len(table)
        for guess, column in zip(guesses, table.columns, strict=True):
            with text.naming():
                guess.narrow(column, block)
    if n_rows == 0:
        raise DataError(f"{source} has no rows; expected at least one below the header line")
    schema = pa.schema([(name, guess.kind) for name, guess in zip(names, guesses, strict=True)])
    with new_file(output, overwrite) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for block, table in text.tables():
            with text.naming():
                columns = [guess.cast(column, block) for guess, column in zip(guesses, table.columns, strict=True)]
            writer.write_table(pa.table(columns, schema=schema))
    return names, n_rows


class _Text:
    """A text file, and the names of its columns."""

    def __init__(self, path: Path, form: Format) -> None:
        path = path if path.exists() else Path(os.path.expanduser(path))
        if path.is_dir():
            raise DataError(f"{path} is a folder; expected a text file")
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is a pipe or a device, and is read twice; write the text to a file first")
        if not path.is_file():
            raise DataError(f"no such file: {path}; expected a text file")
        self._path, self._encoding = path, form.encoding
        stem = without_compression(path)
        self._delimiter = form.delimiter if form.delimiter is not None else _DELIMITERS.get(stem.suffix, ",")
        if self._delimiter != "::" and not _is_ascii_character(self._delimiter):
            raise ParameterError(f"{named('delimiter')} is {self._delimiter!r}; expected one ASCII character, or '::'")
        default_quote = "" if self._delimiter in ("\t", "::") else '"'
        self._quote = default_quote if form.quote is None else form.quote
        if self._quote and (not _is_ascii_character(self._quote) or self._quote in self._delimiter):
            raise ParameterError(
                f"{named('quote')} is {self._quote!r}; expected one ASCII character other than the delimiter, or none"
            )
        columns = form.columns
        if columns is None and _MOVIELENS_FILES.fullmatch(stem.name):
            columns = _MOVIELENS_COLUMNS
        self._has_header = columns is None
        self.names = self._header() if columns is None else list(columns)
        if len(self.names) < 2:
            raise DataError(
                f"{path} has one column, {self.names[0]!r}, if it is delimited by {self._delimiter!r}; expected at "
                "least two: give --delimiter"
            )

    def tables(self) -> Iterator[tuple[Block, pa.Table]]:
        """Yield blocks of lines and their values as strings; row i of a table is line i of its block."""
        skip_first = self._has_header
        with self.naming():
            for block in blocks(self._path, self._encoding):
                rest = block.drop_first() if skip_first else block
                skip_first = False
                if rest.text:
                    yield rest, self._parse(rest)

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Turn errors about lines and of the system into a `DataError` that names the file."""
        try:
            yield
        except (DataError, OSError, pa.ArrowException) as error:
            raise DataError(f"cannot read {self._path} as text delimited by {self._delimiter!r}: {error}") from error

    def _header(self) -> list[str]:
        with self.naming():
            if self._delimiter == "::":
                raise ParameterError("a file delimited by '::' has no header line that can be read; give --columns")
            first = next(blocks(self._path, self._encoding), None)
            if first is None:
                raise DataError("it is empty; expected a header line and at least one row")
            line = first.text.partition("\n")[0]
            self._require_quotes(Block(line, first.first_line))
            if self._quote:
                names = next(csv.reader([line], delimiter=self._delimiter, quotechar=self._quote))
            else:
                names = line.split(self._delimiter)
            if all(re.fullmatch(r"[+-]?[0-9.]+", name) for name in names):
                raise DataError(f"line {first.first_line}: expected names of columns, got {line}; give --columns")
            return names

    def _parse(self, block: Block) -> pa.Table:
        self._require_quotes(block)
        text, delimiter = block.text, self._delimiter
        if delimiter == "::":
            if _SEPARATOR in text:
                raise DataError(f"line {block.line_with(_SEPARATOR)}: it holds the control character {_SEPARATOR!r}")
            text, delimiter = text.replace("::", _SEPARATOR), _SEPARATOR
        bad: list[pa_csv.InvalidRow] = []

        def note(row: pa_csv.InvalidRow) -> str:
            bad.append(row)
            return "skip"

        places = [str(place) for place in range(len(self.names))]
        content = text.encode()
        table = pa_csv.read_csv(
            pa.py_buffer(content),
            pa_csv.ReadOptions(use_threads=False, column_names=places, block_size=max(len(content) + 1, 1 << 16)),
            pa_csv.ParseOptions(delimiter=delimiter, quote_char=self._quote or False, invalid_row_handler=note),
            pa_csv.ConvertOptions(
                column_types=dict.fromkeys(places, pa.string()), strings_can_be_null=False, check_utf8=False
            ),
        )
        if bad:
            line, shown = block.line_of(int(bad[0].number) - 1), bad[0].text.replace(_SEPARATOR, "::")
            raise DataError(
                f"line {line}: Expected {len(self.names)} columns, got {bad[0].actual_columns}: {shown}; repair "
                "the line, or give --delimiter or --quote"
            )
        if len(table) != block.n_lines:
            raise DataError(
                f"lines {block.first_line} to {block.line_of(-1)} give {len(table)} rows; give --quote none"
            )
        return table

    def _require_quotes(self, block: Block) -> None:
        """Require that quotes stand at both ends of a value, and that no value goes on in the next line."""
        if not self._quote or self._quote not in block.text:
            return
        quote, delimiter = re.escape(self._quote), re.escape(self._delimiter)
        value = f"(?:{quote}(?:[^{quote}]|{quote}{quote})*{quote}|[^{quote}{delimiter}][^{delimiter}]*|)"
        lines = pa.array(block.text.split("\n")[: block.n_lines])
        good = np.asarray(pc.match_substring_regex(lines, f"^{value}(?:{delimiter}{value})*$"))
        if not good.all():
            row = int(np.argmin(good))
            raise DataError(
                f"line {block.line_of(row)}: a quote {self._quote} is not closed in its line, or stands inside of a "
                f"value: {lines[row]}; repair the line, or give --quote none"
            )


def _is_ascii_character(text: str) -> bool:
    return len(text) == 1 and text.isascii() and text not in "\r\n\0"


def _output_names(names: Sequence[str], renamed: Mapping[str, str]) -> list[str]:
    for name in renamed:
        require_column(names, name)
    given = [renamed.get(name, _MOVIELENS_NAMES.get(name, name)) for name in names]
    repeated = {name for name in given if given.count(name) > 1}
    if repeated:
        raise DataError(f"column {min(repeated)!r} would come up twice; the columns are {', '.join(map(repr, given))}")
    return given


def _guesses(text: _Text, names: Sequence[str], types: Mapping[str, str]) -> list[Guess]:
    for name, kind in types.items():
        require_column(text.names, name)
        if kind not in TYPES:
            raise ParameterError(f"the type of {name!r} is {kind!r}; expected one of {', '.join(TYPES)}")
    return [Guess(name, types.get(given)) for given, name in zip(text.names, names, strict=True)]
