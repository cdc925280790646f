"""A server of Arrow Flight: batches of users in, tables of recommendations out, without a copy in JSON between them.

Start it, and ask from Python:

    python examples/flight_server.py model --port 8815

    client = pyarrow.flight.connect("grpc://localhost:8815")
    ticket = pyarrow.flight.Ticket(json.dumps({"users": ["alice", "bob"], "k": 10}))
    table = client.do_get(ticket).read_all()               # user_id, rank, item_id, score

``do_exchange`` is for many users: the descriptor has ``{"k": 10}``, and each batch that is written, with a column
``user_id``, is answered by a batch. The actions are ``stats``, and ``swap``: take up the model that is at the path now.
"""

import argparse
import json
import signal
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight

import fastmf
from fastmf.errors import FastMFError

ACTIONS = {"stats": "count requests, as JSON", "swap": "take up the model that is at its path now"}


class Server(flight.FlightServerBase):  # type: ignore[misc]
    """Answers each call on a thread of gRPC; the recommender takes calls from all of them.

    Parameters
    ----------
    location : str
        Such as "grpc://0.0.0.0:8815".
    path : str
        Of the model.
    """

    def __init__(self, location: str, path: str) -> None:
        super().__init__(location)
        self._path = path
        self._recommender = fastmf.Recommender(path)
        self._recommender.warmup(k=1)

    def do_get(self, _: flight.ServerCallContext, ticket: flight.Ticket) -> flight.RecordBatchStream:
        """Answer one request, ``{"users": [...], "k": 10, "filters": []}``."""
        options = _options(ticket.ticket)
        return flight.RecordBatchStream(self._recommend(options.pop("users", []), options))

    def do_exchange(
        self, _: flight.ServerCallContext, descriptor: flight.FlightDescriptor, reader: Any, writer: Any
    ) -> None:
        """Answer batch by batch, so that neither side holds all users at once."""
        options = _options(descriptor.command or b"{}")
        has_begun = False
        for chunk in reader:
            if chunk.data is None or "user_id" not in chunk.data.schema.names:
                raise flight.FlightServerError("a batch has no column 'user_id'; expected the ids of users there")
            table = self._recommend(chunk.data.column("user_id"), options).combine_chunks()
            if not has_begun:
                writer.begin(table.schema)
                has_begun = True
            # One batch for each that came, also where nobody in it gets anything.
            batches = table.to_batches() or [pa.RecordBatch.from_pylist([], table.schema)]
            writer.write_batch(batches[0])

    def do_action(self, _: flight.ServerCallContext, action: flight.Action) -> Iterator[flight.Result]:
        """Do one of `ACTIONS`."""
        if action.type == "swap":
            _told(self._recommender.swap, self._path, verify=True)
        elif action.type != "stats":
            raise flight.FlightServerError(f"no action {action.type!r}; expected one of {', '.join(ACTIONS)}")
        yield flight.Result(json.dumps(self._recommender.stats()).encode())

    def list_actions(self, _: flight.ServerCallContext) -> list[tuple[str, str]]:
        """List `ACTIONS`."""
        return list(ACTIONS.items())

    def _recommend(self, users: Any, options: dict[str, Any]) -> pa.Table:
        """Return ``user_id, rank, item_id, score``; users of whom nothing is known get popular items."""
        k = options.get("k", 10)
        if isinstance(k, int):  # the library tells what is wrong with another
            k = min(k, len(self._recommender.model.item_ids))
        found: pa.Table = _told(self._recommender.recommend, users, k, filters=options.get("filters", ())).to_arrow()
        return found


def _options(text: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):
        raise flight.FlightServerError(f"{text!r} is no JSON object, such as {{'k': 10}}") from None


def _told(call: Any, *args: Any, **options: Any) -> Any:
    """Call, and let the client read what the library says of a wrong request."""
    try:
        return call(*args, **options)
    except FastMFError as error:
        raise flight.FlightServerError(str(error)) from error


def main() -> None:
    """Serve until the process is asked to end."""
    parser = argparse.ArgumentParser(description="Serve recommendations with Arrow Flight.")
    parser.add_argument("model", help="model directory")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8815)
    parsed = parser.parse_args()
    server = Server(f"grpc://{parsed.host}:{parsed.port}", parsed.model)
    signal.signal(signal.SIGTERM, lambda *_: server.shutdown())
    print(f"serving {parsed.model} on port {server.port}", flush=True)
    server.serve()


if __name__ == "__main__":
    main()
