"""Outside ids to dense indices and back."""

import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fastmf.errors import DataError, UnknownIdError
from fastmf.reading import ids


def chunked(values: Any, kind: pa.DataType | None = None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


@pytest.mark.parametrize(
    ("given", "indices", "vocabulary"),
    [
        pytest.param([30, 10, 20, 10], [2, 0, 1, 0], [10, 20, 30], id="integers from a narrow range"),
        pytest.param([2**62, -(2**62), 7], [2, 0, 1], [-(2**62), 7, 2**62], id="integers far apart"),
        pytest.param([-3, -1, -3], [0, 1, 0], [-3, -1], id="negative integers"),
        pytest.param([2**63 - 1, -(2**63)], [1, 0], [-(2**63), 2**63 - 1], id="the ends of int64"),
        pytest.param(["b", "", "ä", "a"], [2, 0, 3, 1], ["", "a", "b", "ä"], id="strings"),
        pytest.param(["\U0001f600", "\uffff"], [1, 0], ["\uffff", "\U0001f600"], id="strings in code point order"),
    ],
)
def test_indices_are_positions_in_the_sorted_vocabulary(given: list[Any], indices: list[int], vocabulary: list) -> None:
    encoded, known = ids.encode(chunked(given), "user_id")

    assert encoded.dtype == np.int32
    assert encoded.tolist() == indices
    assert known.to_pylist() == vocabulary


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        (pa.int8(), pa.int64()),
        (pa.uint32(), pa.int64()),
        (pa.int64(), pa.int64()),
        (pa.uint64(), pa.int64()),
        (pa.string(), pa.string()),
        (pa.large_string(), pa.string()),
        (pa.string_view(), pa.string()),
        (pa.dictionary(pa.int8(), pa.string()), pa.string()),
        (pa.dictionary(pa.int8(), pa.int32()), pa.int64()),
    ],
    ids=str,
)
def test_ids_are_stored_as_int64_or_string(kind: pa.DataType, stored: pa.DataType) -> None:
    text = pa.types.is_string(stored)
    values = pa.array(["5", "3", "5"] if text else [5, 3, 5])
    if pa.types.is_dictionary(kind):
        values = values.cast(kind.value_type).dictionary_encode().cast(kind)

    encoded, known = ids.encode(pa.chunked_array([values.cast(kind)]), "user_id")

    assert encoded.tolist() == [1, 0, 1]
    assert known.type == stored
    assert known.to_pylist() == (["3", "5"] if text else [3, 5])


def test_several_chunks_are_one_column() -> None:
    encoded, known = ids.encode(pa.chunked_array([["b"], [], ["a", "b"]]), "user_id")

    assert encoded.tolist() == [1, 0, 1]
    assert known.to_pylist() == ["a", "b"]


def test_no_ids_give_an_empty_vocabulary() -> None:
    encoded, known = ids.encode(chunked([], pa.string()), "user_id")

    assert len(encoded) == len(known) == 0


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        pytest.param([1.0], "double", id="float"),
        pytest.param([True], "bool", id="bool"),
        pytest.param([datetime.date(2020, 1, 1)], "date32[day]", id="date"),
        pytest.param([b"a"], "binary", id="bytes"),
        pytest.param([[1]], "list<item: int64>", id="list"),
    ],
)
def test_ids_of_another_type_are_refused_by_name(values: list[Any], kind: str) -> None:
    with pytest.raises(DataError) as error:
        ids.encode(chunked(values), "user_id")

    assert f"column 'user_id' has type {kind}; expected integers or strings" in str(error.value)
    assert "cast the column" in str(error.value)


def test_integers_beyond_int64_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"column 'user_id' holds integers beyond int64, the first in row 1 .*: 9223372"
    ):
        ids.encode(chunked([1, 2**63, 2**63 + 1], pa.uint64()), "user_id")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, None, 2], "column 'user_id' has 1 null value, the first in row 1"),
        ([None, "a", None], "column 'user_id' has 2 null values, the first in row 0"),
    ],
)
def test_nulls_are_counted_and_the_first_is_named(values: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        ids.encode(chunked(values), "user_id")

    assert "drop or fill those rows" in str(error.value)


@pytest.mark.parametrize("n", [1, 500], ids=["a few", "many"])  # strings take another way when they are many
@pytest.mark.parametrize("vocabulary", [[2, 3, 5], ["bb", "c", "é"]], ids=["integers", "strings"])
def test_look_up_finds_known_ids_and_gives_minus_1_for_others(vocabulary: list[Any], n: int) -> None:
    known = pa.array(vocabulary)
    asked = [vocabulary[2], vocabulary[0], vocabulary[1], *([4, 1, 6] if vocabulary[0] == 2 else ["b", "", "z"])]

    found = ids.look_up(known, asked * n, "items")

    assert found.dtype == np.int32
    assert found.tolist() == [2, 0, 1, -1, -1, -1] * n


@pytest.mark.parametrize("vocabulary", [pa.array([], pa.int64()), pa.array([], pa.string())], ids=["int", "str"])
def test_an_empty_vocabulary_knows_nobody(vocabulary: pa.Array) -> None:
    asked = [1] if pa.types.is_int64(vocabulary.type) else ["a"]

    assert ids.look_up(vocabulary, asked, "users").tolist() == [-1]
    assert ids.look_up(vocabulary, [], "users").tolist() == []


@pytest.mark.parametrize(
    "asked",
    [
        7,
        np.int64(7),
        [7],
        (7,),
        {7},
        np.array([7], np.int16),
        pa.array([7]),
        pa.chunked_array([[7]]),
        iter([7]),
        range(7, 8),
    ],
    ids=lambda value: type(value).__name__,
)
def test_one_id_or_any_array_of_them_can_be_asked_for(asked: Any) -> None:
    assert ids.look_up(pa.array([3, 7]), asked, "users").tolist() == [1]


@pytest.mark.parametrize(
    ("vocabulary", "asked", "types"),
    [([1, 2], ["1"], ("string", "int64")), (["1", "2"], [1], ("int64", "string"))],
)
def test_ids_of_the_other_type_name_both_types(vocabulary: list[Any], asked: list[Any], types: tuple[str, str]) -> None:
    with pytest.raises(DataError) as error:
        ids.look_up(pa.array(vocabulary), asked, "users")

    assert f"column 'users' has ids of type {types[0]}, the model's are {types[1]}" in str(error.value)


@pytest.mark.parametrize("asked", [[1, "a"], [object()], [2**70], np.ones((2, 2), np.int64)], ids=str)
def test_what_is_no_column_of_ids_is_refused(asked: Any) -> None:
    with pytest.raises(DataError, match="column 'users' cannot be turned into an Arrow array"):
        ids.look_up(pa.array([1]), asked, "users")


def test_unknown_ids_are_counted_and_the_first_are_named() -> None:
    with pytest.raises(UnknownIdError) as error:
        ids.require_known(pa.array([1, 2]), [2, 13, 11, 1, 19, 12, 18, 17], "users")

    message = str(error.value)
    assert "6 of 8 ids in 'users' are unknown to the model: 13, 11, 19, 12, 18, ...;" in message
    assert "expected ids that were in the training data" in message
