"""Types of the columns of a text: the narrowest that holds every value of the file."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastmf.errors import DataError
from fastmf.reading.lines import Block

Cast = Callable[[pa.ChunkedArray], pa.ChunkedArray]


class _Candidate(NamedTuple):
    """A type, what to call it, and how to cast strings to it; the cast raises `pyarrow.ArrowInvalid`."""

    kind: Any
    words: str
    cast: Cast


def _refuse(words: str) -> None:
    raise pa.ArrowInvalid(words)


def _canonical_integers(values: pa.ChunkedArray) -> pa.ChunkedArray:
    integers = values.cast(pa.int64())
    if not integers.cast(pa.string()).equals(values):
        _refuse("not canonical")
    return integers


def _finite_numbers(values: pa.ChunkedArray) -> pa.ChunkedArray:
    numbers = values.cast(pa.float64())
    if not np.isfinite(numbers.to_numpy()).all():
        _refuse("not finite")
    return numbers


def _not_empty(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pc.any(pc.equal(values, "")).as_py():
        _refuse("empty")
    return values


_CANONICAL = _Candidate(pa.int64(), "an integer", _canonical_integers)
_FLOAT = _Candidate(pa.float64(), "a finite number", _finite_numbers)
_TEXT = _Candidate(pa.string(), "text", lambda values: values)
_TIMES = [
    _Candidate(kind, "an integer, a date or a time", lambda values, kind=kind: values.cast(kind))  # type: ignore[misc]
    for kind in (pa.date32(), pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("ns"))
]
_BY_NAME: dict[str, list[_Candidate]] = {
    "user_id": [_CANONICAL, _Candidate(pa.string(), "an id that is not empty", _not_empty)],
    "item_id": [_CANONICAL, _Candidate(pa.string(), "an id that is not empty", _not_empty)],
    "rating": [_CANONICAL, _FLOAT],
    "timestamp": [_CANONICAL, *_TIMES],
}
_BY_TYPE: dict[str, list[_Candidate]] = {
    "text": [_TEXT],
    "int": [_Candidate(pa.int64(), "an integer", lambda values: values.cast(pa.int64()))],
    "float": [_FLOAT],
    "time": _TIMES,
}
TYPES = tuple(_BY_TYPE)


class Guess:
    """The types that hold all values of a column seen so far, the most wanted one first.

    Parameters
    ----------
    name : str
        Of the column in the output; decides on the types to try.
    given : str, optional
        One of `TYPES`, which is then the only one.
    """

    def __init__(self, name: str, given: str | None) -> None:
        self._name = name
        self._candidates = _BY_NAME.get(name, [_CANONICAL, _TEXT]) if given is None else _BY_TYPE[given]

    @property
    def kind(self) -> Any:
        """The type that is taken, if there are no more values."""
        return self._candidates[0].kind

    def narrow(self, values: pa.ChunkedArray, block: Block) -> None:
        """Drop the types that do not hold more values.

        Raises
        ------
        DataError
            If none is left; the message gives the line.
        """
        left = [candidate for candidate in self._candidates if _holds(candidate, values)]
        if not left:
            self._refuse(self._candidates, values, block)
        self._candidates = left

    def cast(self, values: pa.ChunkedArray, block: Block) -> pa.ChunkedArray:
        """Return values in the type that is taken.

        Raises
        ------
        DataError
            If the type does not hold them; the message gives the line.
        """
        if not _holds(self._candidates[0], values):
            self._refuse(self._candidates[:1], values, block)
        return self._candidates[0].cast(values)

    def _refuse(self, candidates: list[_Candidate], values: pa.ChunkedArray, block: Block) -> None:
        """Name the value that ends the longest part which one of the types holds."""
        row, candidate = max(
            ((_first_refused(candidate, values), candidate) for candidate in reversed(candidates)),
            key=lambda pair: pair[0],
        )
        raise DataError(
            f"line {block.line_of(row)}: {self._name} is {values[row].as_py()!r}; expected {candidate.words}, as in "
            "the lines before: repair the line, or give --types"
        )


def _first_refused(candidate: _Candidate, values: pa.ChunkedArray) -> int:
    low, high = 0, len(values)  # values before low are held, one of those before high is not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _holds(candidate, values[low:middle]) else (low, middle)
    return low


def _holds(candidate: _Candidate, values: pa.ChunkedArray) -> bool:
    try:
        candidate.cast(values)
    except pa.ArrowInvalid:
        return False
    return True
