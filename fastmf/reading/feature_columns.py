"""Turn the columns of a table into features: numbers, categories and tags.

A column becomes one feature (numbers, truth values), or one for each of its categories or tags.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastmf.errors import DataError, QualityWarning, named
from fastmf.reading.columns import Column, Where, decode, is_number, is_text, value_type
from fastmf.reading.values import to_finite_numbers
from fastmf_kernels._notes import level_of_user
from fastmf_kernels._types import Float32Array, Int32Array

_SECONDS_OF_A_YEAR = 365.2425 * 86400  # mean year of the Gregorian calendar
_STEPS_OF_A_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_FEW_CATEGORIES = 20  # of so few, each may occur once: a small table
_MOST_CATEGORIES = 0.9  # of the entries; of more, hardly any two rows share one


class Block(NamedTuple):
    """The features of one column: an entry is a row of the table, a feature, and its value.

    Attributes
    ----------
    rows : int32 array, shape (n_entries,)
    features : int32 array, shape (n_entries,)
        Position in ``names``.
    values : float32 array, shape (n_entries,)
    names : list of str
    is_numeric : bool
    """

    rows: Int32Array
    features: Int32Array
    values: Float32Array
    names: list[str]
    is_numeric: bool


class Wording(NamedTuple):
    """How the texts of a table are read.

    Attributes
    ----------
    separator : str
        Between the tags of a text; a column with it in a text has tags.
    categories : tuple of str
        Columns of numbers that are codes: each number is a category.
    """

    separator: str = "|"
    categories: tuple[str, ...] = ()


def to_block(name: str, column: Column, wording: Wording) -> Block:
    """Read the features of a column; warn if it has none, or as many as rows.

    Parameters
    ----------
    name : str
        Of the column.
    column : Column
    wording : Wording

    Raises
    ------
    DataError
        If a number is not finite in float32, or the type of the column is of no use.
    """
    try:
        column.values.validate()
        plain = Column(decode(column.values), column.where)
        if name in wording.categories:
            plain = Column(_as_codes(name, plain.values), column.where)
        block = _read(name, plain, wording.separator)
    except pa.ArrowException as error:
        raise DataError(f"column {name!r} is damaged: {error}; make it again") from error
    _warn_of_useless(name, block)
    return block


def _read(name: str, column: Column, separator: str) -> Block:
    kind = column.values.type
    if pa.types.is_null(kind):
        return _one_feature(name, np.empty(0, np.int32), np.empty(0, np.float32), is_numeric=False)
    if pa.types.is_boolean(kind):
        rows = np.flatnonzero(column.values.fill_null(False).to_numpy()).astype(np.int32)
        return _one_feature(name, rows, np.ones(len(rows), np.float32), is_numeric=False)
    if is_number(kind):
        return _numbers(name, column.values, column.where)
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return _numbers(name, _years(column.values), column.where)
    if is_text(kind):
        return _texts(name, column.values, separator)
    if _is_list(kind) and (is_text(value_type(kind.value_type)) or pa.types.is_integer(value_type(kind.value_type))):
        rows, items = _flatten(column.values)
        return _categories(name, rows, decode(items))
    raise DataError(
        f"column {name!r} has type {kind}; expected numbers, dates, truth values, texts, or lists of texts or "
        f"integers: cast it, or leave it out by {named('columns')}"
    )


def _as_codes(name: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    if is_text(values.type) or _is_list(values.type) or pa.types.is_null(values.type):
        return values
    if not pa.types.is_integer(values.type):
        raise DataError(
            f"column {name!r} has type {values.type}; expected integers or texts as {named('categories')}: cast it"
        )
    return values.cast(pa.string())


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _one_feature(name: str, rows: Int32Array, values: Float32Array, *, is_numeric: bool) -> Block:
    names = [name] if len(rows) else []
    return Block(rows, np.zeros(len(rows), np.int32), values, names, is_numeric)


def _numbers(name: str, values: pa.ChunkedArray, where: Where) -> Block:
    rows = np.flatnonzero(values.is_valid().to_numpy()).astype(np.int32)
    known = Column(values.drop_null(), lambda position: where(int(rows[position])))
    return _one_feature(name, rows, to_finite_numbers(known, name, "values"), is_numeric=True)


def _years(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return times as years: 2001.5 is the middle of 2001."""
    kind = values.type
    if pa.types.is_date32(kind):
        values, steps_of_a_second = values.cast(pa.int32()), 1 / 86400
    else:
        steps_of_a_second = _STEPS_OF_A_SECOND["ms" if pa.types.is_date64(kind) else kind.unit]
    steps = values.cast(pa.int64()).cast(pa.float64(), safe=False)
    return pc.add(pc.divide(steps, steps_of_a_second * _SECONDS_OF_A_YEAR), 1970.0)


def _texts(name: str, values: pa.ChunkedArray, separator: str) -> Block:
    """Read texts as categories; or as tags, if one of them has the separator in it."""
    values = values.cast(pa.large_string())
    if separator and pc.any(pc.match_substring(values, separator)).as_py():
        values = pc.split_pattern(values, separator)
        return _categories(name, *_flatten(values))
    return _categories(name, np.arange(len(values), dtype=np.int32), values)


def _flatten(lists: pa.ChunkedArray) -> tuple[Int32Array, pa.ChunkedArray]:
    """Return the row and the value of each entry of lists; a null is an empty list."""
    sizes = np.asarray(pc.list_value_length(lists).fill_null(0)).astype(np.int64)
    rows = np.repeat(np.arange(len(lists), dtype=np.int32), sizes)
    chunks = [chunk.flatten() for chunk in lists.chunks]
    return rows, pa.chunked_array(chunks, lists.type.value_type)


def _categories(name: str, rows: Int32Array, values: pa.ChunkedArray) -> Block:
    """Read one category or tag for each entry; nulls and empty texts are none, and each counts once in a row."""
    if is_text(values.type):
        values = pc.utf8_trim_whitespace(values.cast(pa.large_string()))
        values = pc.if_else(pc.equal(values, ""), pa.scalar(None, values.type), values)
    rows = rows[values.is_valid().to_numpy()]
    encoded = values.drop_null().combine_chunks().dictionary_encode()
    order = np.asarray(pc.sort_indices(encoded.dictionary)).astype(np.int64)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    features = rank[encoded.indices.to_numpy()]
    names = [f"{name}={word}" for word in encoded.dictionary.take(pa.array(order)).to_pylist()]
    rows, features = _once_a_row(rows, features, max(len(names), 1))
    return Block(rows, features, np.ones(len(rows), np.float32), names, is_numeric=False)


def _once_a_row(rows: Int32Array, features: Int32Array, n_features: int) -> tuple[Int32Array, Int32Array]:
    pairs = np.sort(rows.astype(np.int64) * n_features + features)
    is_new = np.append(True, pairs[1:] != pairs[:-1])[: len(pairs)]
    distinct = pairs[is_new]
    return (distinct // n_features).astype(np.int32), (distinct % n_features).astype(np.int32)


def _warn_of_useless(name: str, block: Block) -> None:
    n_categories, n_entries = len(block.names), len(block.rows)
    if n_entries == 0:
        warnings.warn(
            QualityWarning(f"column {name!r} has no value in any row; it gives no feature"), stacklevel=level_of_user()
        )
    elif not block.is_numeric and n_categories >= max(_FEW_CATEGORIES, _MOST_CATEGORIES * n_entries):
        warnings.warn(
            QualityWarning(
                f"column {name!r} has {n_categories:,} categories in {n_entries:,} entries: hardly any two rows share "
                f"one, and each is a feature; leave the column out, by naming the others in {named('columns')}"
            ),
            stacklevel=level_of_user(),
        )
