"""Rows of users by id, and requests for one user: as those for several are answered."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastmf
from fastmf.models import FactorModel
from fastmf.reading import ids
from fastmf.serving.one_user import answer_one
from fastmf.serving.requests import Wishes, read_request
from fastmf.serving.searching import Search
from fastmf.serving.state import State
from fastmf.serving.user_rows import UserRows

TEXTS = sorted(["", "a", "a\x00", "ab", "b", "Ä", "zz", "é", "\uffff", "\U0001f600"], key=str.encode)
INTEGERS = [-(2**63), -5, 0, 1, 7, 2**63 - 1]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_texts_are_found_whatever_their_letters(kind: pa.DataType) -> None:
    known = pa.array(["", *TEXTS, "\U0001f601"], kind)[1:-1]
    rows = UserRows(known)

    assert [rows.find(text) for text in TEXTS] == list(range(len(TEXTS)))
    assert [rows.find(absent) for absent in ("A", "aa", "\U0001f601", "\ud800", 0, None, b"a")] == [-1] * 7


def test_integers_are_found_whatever_their_size() -> None:
    rows = UserRows(pa.array([-(2**63), *INTEGERS])[1:])

    assert [rows.find(number) for number in INTEGERS] == list(range(len(INTEGERS)))
    assert [rows.find(absent) for absent in (2, 2**63, -(2**70), True, False, 1.0, "1", None)] == [-1] * 8


@pytest.mark.parametrize("known", [pa.array([], pa.int64()), pa.array([], pa.string())])
def test_nobody_is_found_among_none(known: pa.Array) -> None:
    rows = UserRows(known)

    assert rows.find(1) == rows.find("a") == -1


@pytest.mark.parametrize("cold", ["popular", "skip", "include"])
@pytest.mark.parametrize("exclude", ["seen", None])
@pytest.mark.parametrize("filters", [(), "large", ["large", "not third"]])
def test_one_user_is_answered_as_several_are(cold: str, exclude: Any, filters: Any, model: FactorModel) -> None:
    chosen = {"large": np.arange(100, 900), "third": np.arange(0, 900, 3)}
    filters_by_name = {name: pa.chunked_array([ids.normalise(items, name)]) for name, items in chosen.items()}
    state = State(model, filters_by_name, 4)
    wishes = Wishes(7, exclude, None, None, filters, cold)

    for user in (3, 5, 17):
        expected = Search(state, read_request(state, user, wishes)).run()
        for form in (user, [user], np.int64(user), np.uint8(user)):
            found = answer_one(state, form, wishes)
            assert found is not None
            np.testing.assert_array_equal(found.items, expected.items)
            np.testing.assert_array_equal(found.scores, expected.scores)
            assert found.user_ids.equals(expected.user_ids)
            assert found.users.tolist() == expected.users.tolist()
            assert found.n_cold_users == expected.n_cold_users == 0
            assert found.by_popularity is not None
            assert not found.by_popularity.any()


OTHERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "several users": ([0, 1], {}),
    "a list in a list": ([[0]], {}),
    "a stranger": (10**9, {}),
    "a truth value": (True, {}),
    "text": ("5", {}),
    "an allow list": (5, {"allow": [1, 2]}),
    "a deny list": (5, {"deny": [1, 2]}),
    "pairs to leave out": (5, {"exclude": fastmf.Interactions.from_arrays([5], [20])}),
    "an array to leave out": (5, {"exclude": np.array([1, 2])}),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_requests_are_left_to_the_search(case: str, model: FactorModel) -> None:
    users, wishes = OTHERS[case]
    plain: dict[str, Any] = {"k": 3, "exclude": "seen", "allow": None, "deny": None, "filters": (), "cold": "popular"}

    assert answer_one(State(model, {}, 4), users, Wishes(**(plain | wishes))) is None
