"""Points in time in the unit of a column of timestamps."""

import datetime
import operator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastmf.errors import ParameterError
from fastmf_kernels._types import Int64Array

_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DAY = 86_400 * 10**9
_MICROSECOND = datetime.timedelta(microseconds=1)
_EPOCH = datetime.datetime(1970, 1, 1)


class _Moment(NamedTuple):
    """A time in nanoseconds: since 1970 ("moment"), since midnight ("time of day"), or a "duration"."""

    nanoseconds: int
    what: str
    in_utc: bool = False


def in_unit_of(kind: Any, at: Any) -> int:
    """Return the first timestamp that is not before a point in time.

    Parameters
    ----------
    kind : pyarrow.DataType or None
        Type of the timestamps; None for integers without a unit.
    at : int, date, datetime, time, timedelta, numpy.datetime64, numpy.timedelta64 or Arrow scalar
        An integer is in the unit of the timestamps. A date is its midnight. What has no time zone is in that of the
        timestamps.

    Raises
    ------
    ParameterError
        If ``at`` is no time, or not of the sort of the timestamps.
    """
    number = _integer(at)
    if number is not None:
        return number
    moment = _moment(at)
    if moment is None:
        raise ParameterError(f"at is {_word(at)}; expected an integer, a date, a datetime or an Arrow time")
    if kind is None:
        raise ParameterError(
            f"at is {_word(at)}, and the timestamps are integers, whose unit is not known; give an integer "
            f"({moment.nanoseconds // 10**9} if they are seconds), or read a column of dates or times"
        )
    if moment.what != _what(kind):
        raise ParameterError(
            f"at is {_word(at)}, a {moment.what}; the timestamps are of type {kind}: give a {_what(kind)}"
        )
    zone = kind.tz if pa.types.is_timestamp(kind) else None
    if moment.in_utc and zone is None and moment.what == "moment":
        raise ParameterError(
            f"at is {_word(at)}, with a time zone; the timestamps have none ({kind}): give it without one"
        )
    nanoseconds = moment.nanoseconds
    if zone is not None and not moment.in_utc:
        nanoseconds = _to_utc(nanoseconds, zone)
    return -(-nanoseconds // _nanoseconds_of(kind))


def range_in_words(timestamps: Int64Array, kind: Any) -> list[str] | None:
    """Return the dates of the earliest and the latest timestamp, as ISO 8601 has them.

    Parameters
    ----------
    timestamps : int64 array
    kind : pyarrow.DataType or None
        Their type; None for integers without a unit, which are seconds if that makes them dates from 1990 to 2099.

    Returns
    -------
    list of str, or None
        None if they are no dates.

    Examples
    --------
    >>> range_in_words(np.array([874724710, 893286638]), None)
    ['1997-09-20', '1998-04-22']
    >>> range_in_words(np.array([1, 2]), None)
    """
    if len(timestamps) == 0:
        return None
    ends = [int(timestamps.min()), int(timestamps.max())]
    if kind is None:
        first, end = (int(datetime.datetime(year, 1, 1, tzinfo=datetime.UTC).timestamp()) for year in (1990, 2100))
        if not first <= ends[0] <= ends[1] < end:
            return None
        kind = pa.timestamp("s")
    if not (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
        return None
    narrow = pa.int32() if pa.types.is_date32(kind) else pa.int64()
    try:
        days = pa.array(ends, narrow).cast(kind).cast(pa.date32())
        return [str(day) for day in days.to_pylist()]
    except (pa.ArrowException, ValueError, OverflowError):  # years that Python has no words for
        return None


def _word(at: Any) -> str:
    """Word a point in time; Arrow cannot word nanoseconds without pandas."""
    try:
        return repr(at)
    except ValueError:
        return f"{at.value} of type {at.type}"


def _integer(at: Any) -> int | None:
    if isinstance(at, (bool, np.bool_)):
        return None
    if isinstance(at, pa.Scalar) and pa.types.is_integer(at.type):
        at = at.as_py()
    try:
        return operator.index(at)
    except TypeError:
        return None


def _moment(at: Any) -> _Moment | None:
    if isinstance(at, pa.Scalar):
        return _moment_of_arrow(at)
    if isinstance(at, (np.datetime64, np.timedelta64)):
        return None if np.isnat(at) else _moment_of_numpy(at)
    if not isinstance(at, (datetime.date, datetime.time, datetime.timedelta)) or at != at:  # pandas.NaT
        return None
    more = int(getattr(at, "nanosecond", 0))  # of pandas.Timestamp
    if isinstance(at, datetime.datetime):
        offset = at.utcoffset()
        naive = at.replace(tzinfo=None) - (offset or datetime.timedelta(0))
        return _Moment((naive - _EPOCH) // _MICROSECOND * 1000 + more, "moment", offset is not None)
    if isinstance(at, datetime.date):
        return _Moment((at - _EPOCH.date()) // _MICROSECOND * 1000, "moment")
    if isinstance(at, datetime.timedelta):
        return _Moment(at // _MICROSECOND * 1000 + int(getattr(at, "nanoseconds", 0)), "duration")
    if isinstance(at, datetime.time) and at.tzinfo is None:
        since = datetime.datetime.combine(_EPOCH.date(), at) - _EPOCH
        return _Moment(since // _MICROSECOND * 1000, "time of day")
    return None


def _moment_of_numpy(at: "np.datetime64 | np.timedelta64") -> _Moment | None:
    unit, count = np.datetime_data(at.dtype)
    what = "moment" if isinstance(at, np.datetime64) else "duration"
    if unit in ("Y", "M") and what == "moment":
        at, unit, count = at.astype("datetime64[D]"), "D", 1
    sizes = {**_NANOSECONDS, "m": 60 * 10**9, "h": 3600 * 10**9, "D": _DAY, "W": 7 * _DAY}
    return _Moment(int(at.astype(np.int64)) * count * sizes[unit], what) if unit in sizes else None


def _moment_of_arrow(at: Any) -> _Moment | None:
    if not pa.types.is_temporal(at.type) or not at.is_valid or pa.types.is_interval(at.type):
        return None
    in_utc = pa.types.is_timestamp(at.type) and at.type.tz is not None
    return _Moment(at.value * _nanoseconds_of(at.type), _what(at.type), in_utc)


def _what(kind: Any) -> str:
    if pa.types.is_duration(kind):
        return "duration"
    return "time of day" if pa.types.is_time(kind) else "moment"


def _nanoseconds_of(kind: Any) -> int:
    """Return how many nanoseconds the unit of a type has."""
    if pa.types.is_date32(kind):
        return _DAY
    return _NANOSECONDS["ms" if pa.types.is_date64(kind) else kind.unit]


def _to_utc(nanoseconds: int, zone: str) -> int:
    """Turn the wall clock of a time zone into UTC; of two such times the earlier one, of none the next one."""
    seconds, rest = divmod(nanoseconds, 10**9)
    wall = pa.scalar(seconds, pa.timestamp("s"))
    try:
        utc = pc.assume_timezone(wall, zone, ambiguous="earliest", nonexistent="latest")
    except pa.ArrowException as error:
        raise ParameterError(
            f"at has no time zone, and that of the timestamps, {zone!r}, is not known here; give at with one"
        ) from error
    return int(utc.value) * 10**9 + rest
