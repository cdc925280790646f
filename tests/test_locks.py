"""A lock of one process: threads wait for each other, and a forked child finds it free."""

import os
import threading
import warnings

import pytest

from fastmf.common.locks import ProcessLock


def test_threads_exclude_each_other() -> None:
    lock, inside, entered = ProcessLock(), threading.Event(), threading.Event()

    def enter() -> None:
        inside.set()
        with lock.of_this_process:
            entered.set()

    with lock.of_this_process:
        other = threading.Thread(target=enter)
        other.start()
        inside.wait()
        assert not lock.of_this_process.acquire(blocking=False)
        assert not entered.is_set()
    other.join()
    assert entered.is_set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_finds_it_free_though_another_thread_holds_it() -> None:
    lock, held, ended = ProcessLock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock.of_this_process:
            held.set()
            ended.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from 3.12 on Python warns of a fork beside threads: that is the point
        child = os.fork()
    if child == 0:
        os._exit(0 if lock.of_this_process.acquire(blocking=False) else 1)
    status = os.waitpid(child, 0)[1]
    is_free = lock.of_this_process.acquire(blocking=False)
    ended.set()
    holder.join()

    assert status == 0
    assert not is_free
