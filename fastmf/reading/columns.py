"""Columns as they were read: what types they may have, and where each row came from."""

import bisect
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from fastmf.errors import DataError, ParameterError


class Place(NamedTuple):
    """A row, and the file and row group that it is in, in words."""

    row: str
    file: str = ""

    def __str__(self) -> str:
        return f"{self.row} of {self.file}" if self.file else self.row


Where = Callable[[int], Place]


def row_number(row: int) -> Place:
    """Word the place of a row in a table or array."""
    return Place(f"row {row} (from 0)")


class Column(NamedTuple):
    """The values of a column, and a function that words the place of a row."""

    values: pa.ChunkedArray
    where: Where = row_number


class Part(NamedTuple):
    """A row group: its first row counted over all files, its file, its number, and its first row in that file."""

    start: int
    file: str
    row_group: int
    first_row: int


class Places:
    """Words places as row, file and row group.

    Parameters
    ----------
    parts : list of Part
        In ascending order of ``start``.
    """

    def __init__(self, parts: list[Part]) -> None:
        self._parts = parts

    def __call__(self, row: int) -> Place:
        """Word the place of a row, counted over all files."""
        part = self._parts[bisect.bisect_right(self._parts, row, key=lambda part: part.start) - 1]
        number = part.first_row + row - part.start
        return Place(f"row {number} (from 0)", f"{part.file}, row group {part.row_group}")


class Kind(NamedTuple):
    """What a column is used as.

    Attributes
    ----------
    expected : str
        For messages: "integers or strings as ids".
    accepts : function of a type
    unify : function of two types
        Returns the type that holds the values of both, or None if there is none.
    parse : function of texts
        Turns the values of Hive keys into an Arrow array of a type that ``accepts`` takes, if they can be.
    """

    expected: str
    accepts: Callable[[Any], bool]
    unify: Callable[[Any, Any], Any]
    parse: Callable[[list[str | None]], pa.Array]


def value_type(kind: Any) -> Any:
    """Return the type of the plain values behind dictionaries, run lengths, extension types and views."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
            kind = kind.value_type
        else:
            return pa.string() if pa.types.is_string_view(kind) else kind


def decode(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Replace dictionaries, run lengths, extension types and views by plain values."""
    if value_type(values.type) == values.type:
        return values
    return pa.chunked_array([_decode(chunk) for chunk in values.chunks], value_type(values.type))


def _decode(chunk: pa.Array) -> pa.Array:
    while value_type(chunk.type) != chunk.type:
        if isinstance(chunk.type, pa.BaseExtensionType):
            chunk = chunk.storage
        elif pa.types.is_dictionary(chunk.type):
            words = chunk.dictionary  # Arrow takes nothing from views
            chunk = (words.cast(pa.string()) if pa.types.is_string_view(words.type) else words).take(chunk.indices)
        elif pa.types.is_string_view(chunk.type):
            chunk = chunk.cast(pa.string())
        else:
            chunk = pc.run_end_decode(chunk)
    return chunk


def is_text(kind: Any) -> bool:
    """Whether a type is one of Arrow's three string types."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_number(kind: Any) -> bool:
    """Whether a type can be a rating."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


_CANONICAL = re.compile(r"0|-?[1-9][0-9]{0,18}")


def is_canonical_integer(text: str) -> bool:
    """Whether a text is what Python prints for an int64: no sign +, no leading zero, no blank."""
    return _CANONICAL.fullmatch(text) is not None and -(2**63) <= int(text) < 2**63


def parse_ids(texts: Iterable[str | None]) -> pa.Array:
    """Return int64 if all texts are canonical integers, else strings."""
    texts = list(texts)
    if all(text is None or is_canonical_integer(text) for text in texts):
        return pa.array([None if text is None else int(text) for text in texts], pa.int64())
    return pa.array(texts, pa.string())


def _parse_numbers(texts: list[str | None]) -> pa.Array:
    strings = parse_ids(texts)
    return strings if pa.types.is_int64(strings.type) else _cast_or_keep(strings, [pa.float64()])


def _parse_times(texts: list[str | None]) -> pa.Array:
    strings = parse_ids(texts)
    wanted = [pa.date32(), pa.timestamp("us")]
    return strings if pa.types.is_int64(strings.type) else _cast_or_keep(strings, wanted)


def _cast_or_keep(strings: pa.Array, kinds: list[Any]) -> pa.Array:
    for kind in kinds:
        try:
            return strings.cast(kind)
        except pa.ArrowInvalid:
            continue
    return strings


def _unify_ids(a: Any, b: Any) -> Any:
    if pa.types.is_integer(a) and pa.types.is_integer(b):
        return pa.int64()
    return pa.large_string() if is_text(a) and is_text(b) else None


def _unify_times(a: Any, b: Any) -> Any:
    if pa.types.is_integer(a) and pa.types.is_integer(b):
        return _unify_ids(a, b)
    return _unify(a, b)


def _unify(a: Any, b: Any) -> Any:
    try:
        schemas = [pa.schema([("", kind)]) for kind in (a, b)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None


IDS = Kind("integers or strings as ids", lambda kind: pa.types.is_integer(kind) or is_text(kind), _unify_ids, parse_ids)
RATINGS = Kind("numbers as ratings", is_number, lambda a, b: a if a == b else pa.float64(), _parse_numbers)
NUMBERS = RATINGS._replace(expected="numbers")
TIMES = Kind(
    "integers or times",
    lambda kind: pa.types.is_integer(kind) or pa.types.is_temporal(kind),
    _unify_times,
    _parse_times,
)
ANY = Kind("any type", lambda kind: True, _unify, parse_ids)


@dataclass(frozen=True)
class Names:
    """Names of the columns of ratings; None for a column that does not exist.

    Raises
    ------
    ParameterError
        If one is no name.
    """

    user: str
    item: str
    rating: str | None
    timestamp: str | None

    def __post_init__(self) -> None:
        for parameter, name in vars(self).items():
            required = parameter in ("user", "item")
            if not isinstance(name, Hashable) or (name is None and required):
                expected = "the name of a column" if required else "the name of a column, or None"
                raise ParameterError(f"{parameter} is {name!r}; expected {expected}")

    def kinds(self) -> list[tuple[str, str, Kind]]:
        """Return the parameter, name and use of each column that exists."""
        columns = (
            ("user", self.user, IDS),
            ("item", self.item, IDS),
            ("rating", self.rating, RATINGS),
            ("timestamp", self.timestamp, TIMES),
        )
        return [(parameter, name, kind) for parameter, name, kind in columns if name is not None]

    def given(self) -> list[str]:
        """Return the columns that exist."""
        return [name for _, name, _ in self.kinds()]


def require_column(names: Sequence[str], name: str, file: str = "", hint: str = "") -> None:
    """Raise `DataError`, naming the columns there are, unless exactly one of them is called ``name``."""
    count = list(names).count(name)
    where = f" in {file}" if file else ""
    there = f"the columns are {', '.join(map(repr, names)) or 'none'}{hint}"
    if count == 0:
        raise DataError(f"no column {name!r}{where}; {there}")
    if count > 1:
        raise DataError(f"{count} columns {name!r}{where}; expected one: {there}; rename all but one")


def require_kind(found: Any, name: str, kind: Kind, file: str = "") -> None:
    """Raise `DataError` unless a column has a type that can be used as ``kind``."""
    if not kind.accepts(found):
        where = f" in {file}" if file else ""
        raise DataError(f"column {name!r} has type {found}{where}; expected {kind.expected}: cast the column first")
