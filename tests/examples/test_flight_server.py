"""The server of Arrow Flight answers as the model does."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.examples.conftest import EXAMPLES, Running

flight = pytest.importorskip("pyarrow.flight")

pytestmark = pytest.mark.slow


@pytest.fixture
def client(start: Callable[..., Running], model: Any) -> Iterator[Any]:
    running = start(EXAMPLES / "flight_server.py", "model", "--port", 0)
    port = running.line().split()[-1]
    with flight.connect(f"grpc://127.0.0.1:{port}") as client:
        yield client
    assert running.end() == 0


def asked(client: Any, **options: Any) -> pa.Table:
    return client.do_get(flight.Ticket(json.dumps(options))).read_all()


def test_one_request(client: Any, model: Any) -> None:
    users = ["user-0003", "user-0001"]

    assert asked(client, users=users, k=4).equals(model.recommend(users, k=4).to_arrow())
    assert asked(client, users=["nobody"]).num_rows == 10


def test_many_users_in_batches(client: Any, model: Any) -> None:
    users = model.user_ids.to_pylist()
    schema = pa.schema({"user_id": pa.string()})
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(json.dumps({"k": 3})))
    answers = []
    with writer:
        writer.begin(schema)
        for first in range(0, len(users), 25):
            writer.write_batch(pa.RecordBatch.from_pydict({"user_id": users[first : first + 25]}, schema))
            answers.append(reader.read_chunk().data)
        writer.done_writing()

    assert pa.Table.from_batches(answers).equals(model.recommend(k=3).to_arrow().combine_chunks())


def test_actions(client: Any, model: Any, other_model: Any, tmp_path: Path) -> None:
    assert {action.type for action in client.list_actions()} == {"stats", "swap"}
    before = asked(client, users=["user-0001"], k=5)

    other_model.save(tmp_path / "model", overwrite=True)
    (told,) = client.do_action(flight.Action("swap", b""))

    assert json.loads(told.body.to_pybytes())["swaps"] == 1
    after = asked(client, users=["user-0001"], k=5)
    assert after.equals(other_model.recommend(["user-0001"], k=5).to_arrow())
    assert not after.equals(before)


@pytest.mark.parametrize(
    ("ticket", "complaint"),
    [
        (b"users", "is no JSON object"),
        (b'{"users": ["user-0001"], "k": 0}', "k is 0"),
        (b'{"users": ["user-0001"], "k": "ten"}', "^k is 'ten'; expected an integer"),
        (b'{"users": ["user-0001"], "k": null}', "^k is None; expected an integer"),
        (b'{"users": [1]}', "user"),
        (b'{"users": ["user-0001"], "filters": ["absent"]}', "absent"),
    ],
)
def test_wrong_requests_are_told_what_is_wrong(ticket: bytes, complaint: str, client: Any) -> None:
    with pytest.raises(pa.ArrowException, match=complaint):
        client.do_get(flight.Ticket(ticket)).read_all()


def test_a_batch_without_users_is_told_what_is_wrong(client: Any) -> None:
    batch = pa.RecordBatch.from_pydict({"user": ["user-0001"]})
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(b"{}"))
    writer.begin(batch.schema)
    writer.write_batch(batch)
    with pytest.raises(pa.ArrowException, match=r"^a batch has no column 'user_id'"):
        reader.read_chunk()
