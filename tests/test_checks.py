"""Arrays and matrices that do not go together are refused: kernels trust them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse

from fastmf import Interactions
from fastmf.errors import DataError, FastMFError, ParameterError

GOOD: dict[str, Any] = {
    "users": np.array([0, 1, 1], np.int32),
    "items": np.array([0, 0, 2], np.int32),
    "ratings": np.array([1, 2, 3], np.float32),
    "timestamps": np.array([1, 2, 3]),
    "user_ids": pa.array([5, 6]),
    "item_ids": pa.array(["a", "b", "c"]),
}

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "too high": (
        {"items": np.array([0, 3, 9], np.int32)},
        "items has 2 indices out of range, the first in row 1 .*: 3",
    ),
    "negative": ({"users": np.array([0, -1, 1], np.int32)}, "users has 1 indices out of range.*: -1; expected 0 to 1"),
    "beyond int32": ({"users": np.array([0, 2**32, 1])}, "users has 1 indices out of range"),
    "floats": (
        {"users": np.array([0.0, 1, 1])},
        "users is an array of float64 with 1 dimensions; expected integers in",
    ),
    "objects": ({"users": np.array([0, 1, "x"], object)}, "users is an array of object"),
    "masked": ({"ratings": np.ma.array([1.0, 2.0, 3.0], mask=[0, 1, 0])}, "ratings has 1 masked values; expected"),
    "bools": ({"items": np.array([True, False, True])}, "items is an array of bool"),
    "two dimensions": ({"users": np.zeros((3, 1), np.int32)}, "users is an array of int32 with 2 dimensions"),
    "a number": ({"users": 3}, "users is an array of int64 with 0 dimensions"),
    "short users": ({"users": np.zeros(2, np.int32)}, r"the arrays differ in length: \{'users': 2, 'items': 3"),
    "long ratings": ({"ratings": np.zeros(4, np.float32)}, r"differ in length: .*'ratings': 4"),
    "short times": ({"timestamps": np.zeros(1, np.int64)}, r"differ in length: .*'timestamps': 1"),
    "float times": ({"timestamps": np.zeros(3)}, "timestamps is an array of float64"),
    "NaN": ({"ratings": np.array([1, np.nan, 2])}, "ratings has values that are not finite in float32"),
    "beyond float32": ({"ratings": np.array([1, 1e39, 2])}, "ratings has values that are not finite in float32"),
    "text": ({"ratings": np.array(["1", "2", "3"])}, "ratings is an array of <U1"),
    "ids not sorted": ({"user_ids": pa.array([6, 5])}, "user_ids are not distinct and ascending"),
    "ids twice": ({"item_ids": pa.array(["a", "a", "b"])}, "item_ids are not distinct and ascending"),
    "null id": ({"item_ids": pa.array(["a", "b", None])}, "item_ids are not distinct and ascending"),
    "float ids": ({"user_ids": pa.array([5.0, 6.0])}, "user_ids is of type double; expected an Arrow array"),
    "list of ids": ({"user_ids": [5, 6]}, "user_ids is of type list; expected an Arrow array of int64 or string"),
    "times beyond int64": (
        {"timestamps": np.array([1, 2, 2**63], np.uint64)},
        "timestamps has values beyond int64, the largest is 9223372036854775808",
    ),
    "a type that is none": ({"timestamp_type": "s"}, "timestamp_type is 's'; expected an Arrow type of times"),
    "a type of no times": ({"timestamp_type": pa.string()}, "timestamp_type is .*; expected an Arrow type of times"),
    "ids not UTF-8": (
        {"user_ids": pa.array([b"a", b"\xff"]).view(pa.string())},
        "user_ids are damaged: .*; make them again, as UTF-8",
    ),
    "no ids": ({"user_ids": pa.array([], pa.int64())}, "users has 3 indices out of range"),
}


@pytest.mark.parametrize("case", BAD)
def test_interactions_of_arrays_that_do_not_go_together_are_refused(case: str) -> None:
    bad, message = BAD[case]

    with pytest.raises(ParameterError, match=message):
        Interactions(**GOOD | bad)


@pytest.mark.parametrize(
    "same",
    [
        {"users": [0, 1, 1]},
        {"users": np.array([0, 1, 1], np.uint8)},
        {"items": np.array([0, 9, 0, 9, 2, 9], np.int32)[::2]},
        {"ratings": np.array([1, 2, 3])},
        {"timestamps": [1, 2, 3]},
        {"item_ids": pa.array(["a", "b", "c"], pa.large_string())},
    ],
    ids=str,
)
def test_arrays_of_other_layouts_become_what_kernels_take(same: dict[str, Any]) -> None:
    ratings = Interactions(**GOOD | same)

    assert ratings.users.dtype == ratings.items.dtype == np.int32
    assert all(array.flags.c_contiguous for array in (ratings.users, ratings.items, ratings.ratings))
    assert ratings.to_scipy().toarray().tolist() == [[1, 0, 0], [2, 0, 3]]


@pytest.mark.parametrize(
    "positions",
    [np.array([3]), np.array([-4]), np.array([True]), np.array([0.5]), "x", 0, np.int64(1), True, None, [[0], [1]]],
    ids=str,
)
def test_positions_beyond_the_ratings_are_refused(positions: Any) -> None:
    with pytest.raises(ParameterError, match="positions do not fit 3 ratings"):
        Interactions(**GOOD).take(positions)


def compressed(kind: str = "csr", shape: tuple[int, int] = (3, 3), **parts: Any) -> Any:
    """Make a matrix, and put other arrays into it without SciPy's checks."""
    matrix: Any = scipy.sparse.csr_array(np.eye(*shape)).asformat(kind)
    for name, array in parts.items():
        given = np.asarray(array)
        setattr(matrix, name, given.astype(np.int32) if given.dtype == np.int64 else given)
    return matrix


def coordinates(rows: Any, columns: Any, data: Any) -> Any:
    matrix: Any = scipy.sparse.coo_array(np.eye(3))
    matrix.coords, matrix.data = (np.asarray(rows), np.asarray(columns)), np.asarray(data)
    return matrix


def put(matrix: Any, name: str, value: Any) -> Any:
    setattr(matrix, name, value)
    return matrix


class Failing:
    shape = (3, 3)

    def tocoo(self) -> Any:
        raise RuntimeError("cannot")


BROKEN: dict[str, Callable[[], Any]] = {
    **{
        f"{kind}: {name}": (lambda kind=kind, parts=parts: compressed(kind, **parts))
        for kind in ("csr", "csc", "bsr")
        for name, parts in {
            "column too high": {"indices": [0, 1, 3]},
            "column negative": {"indices": [0, -1, 2]},
            "column far away": {"indices": np.array([0, 1, 2**31 - 1])},
            "offsets fall": {"indptr": [0, 2, 1, 3]},
            "offsets too high": {"indptr": [0, 1, 2, 1000]},
            "offsets negative": {"indptr": [0, -1, 2, 3]},
            "offsets do not begin at 0": {"indptr": [1, 1, 2, 3]},
            "too few offsets": {"indptr": [0, 3]},
            "too many offsets": {"indptr": [0, 1, 2, 3, 3]},
            "float indices": {"indices": [0.0, 1.0, 2.0]},
            "float offsets": {"indptr": [0.0, 1.0, 2.0, 3.0]},
        }.items()
    },
    "csr: less data": lambda: compressed(data=[1.0, 2.0]),
    "coo: row too high": lambda: coordinates([0, 1, 3], [0, 1, 2], [1.0, 1.0, 1.0]),
    "coo: column negative": lambda: coordinates([0, 1, 2], [0, -1, 2], [1.0, 1.0, 1.0]),
    "coo: less data": lambda: coordinates([0, 1, 2], [0, 1, 2], [1.0]),
    "coo: less rows": lambda: coordinates([0], [0, 1, 2], [1.0, 1.0, 1.0]),
    "csr: no data": lambda: put(scipy.sparse.csr_array(np.eye(3)), "data", None),
    "coo: no data": lambda: put(scipy.sparse.coo_array(np.eye(3)), "data", None),
    "a matrix of another library": lambda: Failing(),
    "a vector": lambda: scipy.sparse.coo_array(np.ones(3)),
    "a dense array": lambda: np.eye(3),
    "no matrix": lambda: [[1, 2]],
    "too many rows": lambda: scipy.sparse.coo_array(([1.0], ([0], [0])), shape=(2**31, 2)),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_matrix_is_refused(case: str) -> None:
    with pytest.raises(ParameterError):
        Interactions.from_scipy(BROKEN[case]())


@pytest.mark.parametrize("data", [[1j, 0, 0], ["a", "b", "c"]], ids=["complex", "text"])
def test_a_matrix_of_what_is_no_number_is_refused(data: Any) -> None:
    with pytest.raises(FastMFError, match=r"column 'data'|is not consistent"):
        Interactions.from_scipy(compressed(data=data))


@pytest.mark.parametrize("kind", ["csr", "csc", "bsr", "coo", "lil", "dok", "dia"])
def test_a_sound_matrix_of_any_format_is_taken(kind: str) -> None:
    dense = np.arange(8.0).reshape(4, 2)

    assert (
        Interactions.from_scipy(scipy.sparse.csr_array(dense).asformat(kind)).to_scipy().toarray().tolist()
        == dense.tolist()
    )


@pytest.mark.parametrize("kind", ["csr", "csc"])
def test_room_for_more_entries_is_no_error(kind: str) -> None:
    ratings = Interactions.from_scipy(compressed(kind, indptr=[0, 1, 1, 2]))  # the third entry is not in use

    assert ratings.to_scipy().toarray().sum() == ratings.n_ratings == 2


def test_a_bad_entry_is_named_by_its_cell() -> None:
    with pytest.raises(DataError, match=r"the first in cell \(1, 1\): nan"):
        Interactions.from_scipy(compressed(data=[1.0, np.nan, 2.0]))
