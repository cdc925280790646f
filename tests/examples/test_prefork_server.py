"""The server of several processes answers as the model does, and outlives its workers."""

import json
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.examples.conftest import EXAMPLES, Running, until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")]


@pytest.fixture
def running(start: Callable[..., Running], model: Any) -> Running:
    return start(EXAMPLES / "prefork_server.py", "model", "--port", 0, "--workers", 2)


@pytest.fixture
def port(running: Running) -> str:
    return running.line().split()[-1]


@pytest.fixture
def ask(port: str) -> Callable[..., Any]:
    def ask_for(query: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/recommend?{query}", timeout=60) as answer:
            return json.load(answer)

    return ask_for


def items_of(model: Any) -> Any:
    return model.recommend(["user-0001"], k=5).to_arrow().select(["item_id", "score"]).to_pylist()


def test_every_worker_answers_as_the_model_does(ask: Callable[..., Any], model: Any, running: Running) -> None:
    workers = set()

    def both_have_answered() -> bool:
        found = ask("user=user-0001&k=5")
        assert found["items"] == items_of(model)
        assert found["by_popularity"] is False
        workers.add(found["process"])
        return len(workers) == 2

    until(both_have_answered)
    assert ask("user=nobody")["by_popularity"] is True
    with pytest.raises(urllib.error.HTTPError, match="400"):
        ask("k=5")
    assert running.process.pid not in workers
    assert running.end() == 0
    for process in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_a_worker_that_is_killed_is_replaced(ask: Callable[..., Any], running: Running) -> None:
    killed = ask("user=user-0001")["process"]

    os.kill(killed, signal.SIGKILL)

    seen: set[int] = set()

    def two_others_answer() -> bool:
        try:
            seen.add(ask("user=user-0001")["process"])
        except (urllib.error.URLError, ConnectionError):  # the one that was just killed had it
            return False
        return len(seen - {killed}) == 2

    until(two_others_answer)
    assert running.end() == 0


def test_a_new_model_is_taken_up(
    ask: Callable[..., Any], running: Running, model: Any, other_model: Any, tmp_path: Path
) -> None:
    old, new = items_of(model), items_of(other_model)
    assert old != new
    other_model.save(tmp_path / "model", overwrite=True)

    running.process.send_signal(signal.SIGHUP)

    answers: list[Any] = []

    def the_new_model_answers() -> bool:
        answers.append(ask("user=user-0001&k=5")["items"])
        return len(answers) >= 20 and all(answer == new for answer in answers[-20:])

    until(the_new_model_answers)
    assert all(answer in (old, new) for answer in answers)
    assert running.end() == 0


def test_workers_end_after_a_master_that_is_killed(ask: Callable[..., Any], running: Running) -> None:
    """Else nothing could be started on their port."""
    worker = ask("user=user-0001")["process"]

    running.process.kill()

    def has_ended() -> bool:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return True
        return is_zombie(worker)

    until(has_ended)


def is_zombie(process: int) -> bool:
    """Tell whether a process has ended, though nobody has asked how."""
    found = Path(f"/proc/{process}/stat")
    return found.exists() and found.read_text().rpartition(")")[2].split()[0] == "Z"


def test_an_invalid_address_is_answered(port: str) -> None:
    with socket.create_connection(("127.0.0.1", int(port)), timeout=60) as client:
        client.sendall(b"GET http://[ HTTP/1.0\r\n\r\n")

        assert b" 400 " in client.recv(1 << 16).splitlines()[0]
