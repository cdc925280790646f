"""Attributes that are computed once: threads, forks and pickles."""

import functools
import os
import pickle
import threading
from typing import Any

import numpy as np
import pytest

from fastmf import Interactions
from fastmf.common.lazy import compute_once, state_without_locks
from fastmf.reading.interactions import Interactions as Class


class Thing:
    """Something with a ``__dict__``."""


def ratings() -> Interactions:
    return Interactions.from_arrays([2, 1, 2], [9, 8, 7], [1.0, 2.0, 3.0])


def test_the_value_is_computed_once_and_kept() -> None:
    thing, calls = Thing(), []

    values = [compute_once(thing, "value", lambda: calls.append(1) or object()) for _ in range(3)]

    assert len(calls) == 1
    assert len(set(map(id, values))) == 1
    assert list(thing.__dict__) == ["value"]  # no lock is left


def test_threads_that_ask_at_once_get_the_same_value() -> None:
    thing, started, go, values = Thing(), threading.Event(), threading.Event(), []

    def compute() -> object:
        started.set()
        assert go.wait(30)
        return object()

    threads = [threading.Thread(target=lambda: values.append(compute_once(thing, "value", compute))) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert started.wait(30)
    go.set()
    for thread in threads:
        thread.join(30)

    assert len(values) == 5
    assert len(set(map(id, values))) == 1


def test_one_instance_does_not_wait_for_another() -> None:
    slow, quick, started, go = Thing(), Thing(), threading.Event(), threading.Event()

    def compute() -> int:
        started.set()
        assert go.wait(30)
        return 1

    thread = threading.Thread(target=compute_once, args=(slow, "value", compute))
    thread.start()
    try:
        assert started.wait(30)
        answers: list[int] = []
        other = threading.Thread(target=lambda: answers.append(compute_once(quick, "value", lambda: 2)))
        other.start()
        other.join(20)
        assert answers == [2]
    finally:
        go.set()
        thread.join(30)


def test_an_error_leaves_nothing_behind() -> None:
    thing = Thing()

    with pytest.raises(ZeroDivisionError):
        compute_once(thing, "value", lambda: 1 // 0)

    assert thing.__dict__ == {}
    assert compute_once(thing, "value", lambda: 3) == 3


def test_one_value_may_need_another() -> None:
    thing = Thing()

    assert compute_once(thing, "twice", lambda: 2 * compute_once(thing, "once", lambda: 4)) == 8


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_is_forked_meanwhile_does_not_wait() -> None:
    thing, started, go = Thing(), threading.Event(), threading.Event()

    def compute() -> int:
        started.set()
        assert go.wait(60)
        return 1

    thread = threading.Thread(target=compute_once, args=(thing, "value", compute))
    thread.start()
    assert started.wait(30)
    try:
        child = os.fork()
        if child == 0:
            threading.Timer(20, os._exit, (9,)).start()  # a child that waits for a lock ends with 9
            os._exit(compute_once(thing, "value", lambda: 5))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
    finally:
        go.set()
        thread.join(30)


@pytest.mark.parametrize("laid_out", [False, True])
def test_interactions_can_be_pickled(laid_out: bool) -> None:
    given = ratings()
    if laid_out:
        given.lay_out(1, both=True)

    again = pickle.loads(pickle.dumps(given))

    assert again.to_arrow().equals(given.to_arrow())
    for name in ("by_user", "by_item"):
        for ours, theirs in zip(getattr(given, name), getattr(again, name), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_pickle_does_not_wait_for_another_thread_that_stores_a_value() -> None:
    given, ready = ratings(), threading.Event()

    def store() -> None:
        for number in range(20_000):
            given.__dict__[f"value {number}"] = number
            ready.set()

    thread = threading.Thread(target=store)
    thread.start()
    assert ready.wait(30)
    while thread.is_alive():
        state_without_locks(given)
    thread.join(30)


def test_layouts_are_computed_once() -> None:
    given = ratings()

    assert given.by_user is given.by_user
    assert given.by_item is given.by_item
    layouts: Any = (given.by_user, given.by_item)
    given.lay_out(1, both=True)
    assert (given.by_user, given.by_item) == layouts


def test_no_attribute_of_the_class_holds_one_lock_for_all() -> None:
    assert not [name for name, member in vars(Class).items() if isinstance(member, functools.cached_property)]
