"""A server of several processes that share one model, of the standard library alone (Linux and macOS).

    python examples/prefork_server.py model --port 8000 --workers 4
    curl 'localhost:8000/recommend?user=alice&k=5'
    kill -HUP PROCESS                                   # of the master: take up the model that is at the path now

The master loads the model before it forks: workers share its pages and the index of its items. With ``n_threads=1`` it
starts no thread, which a forked process would lack. All workers accept connections from one socket. One that dies is
replaced; on SIGHUP all are, by workers of the new model, and the old ones finish what they have begun.
"""

import argparse
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pyarrow as pa

import fastmf
from fastmf.errors import FastMFError

SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}


class Handler(BaseHTTPRequestHandler):
    """Answers ``GET /recommend?user=ID&k=10`` in JSON."""

    recommender: ClassVar[fastmf.Recommender]
    timeout = 10  # of a client that says nothing: a worker serves one at a time

    def do_GET(self) -> None:
        """Answer one request."""
        try:
            status, answer = 200, self._recommend(dict(parse_qsl(urlsplit(self.path).query)))
        except (FastMFError, KeyError, ValueError) as error:
            status, answer = 400, {"error": str(error), "expected": "/recommend?user=ID&k=10"}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _recommend(self, query: dict[str, str]) -> dict[str, Any]:
        model = self.recommender.model
        user = int(query["user"]) if pa.types.is_integer(model.user_ids.type) else query["user"]
        found = self.recommender.recommend([user], min(int(query.get("k", 10)), len(model.item_ids)))
        items = found.to_arrow().select(["item_id", "score"]).to_pylist()
        return {"process": os.getpid(), "by_popularity": np.any(found.by_popularity).item(), "items": items}

    def log_message(self, *_: object) -> None:
        """Say nothing of single requests."""


def start_worker(shared: socket.socket, recommender: fastmf.Recommender) -> int:
    """Fork a worker, which serves until SIGTERM or the end of its master; return its process id."""
    master = os.getpid()
    if process := os.fork():
        return process
    ending: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ending.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the master tells the workers
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    Handler.recommender = recommender
    server = HTTPServer(shared.getsockname(), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket, server.timeout = shared, 0.2  # so often it looks whether it is to end
    while not ending and os.getppid() == master:  # one without a master would keep the port
        server.handle_request()
    os._exit(0)


def keep_serving(path: str, shared: socket.socket, n_workers: int) -> None:
    """Keep workers alive until SIGTERM or Ctrl-C."""
    recommender = fastmf.Recommender(path, n_threads=1)
    recommender.warmup(k=1)
    shared.setblocking(False)  # another worker may have taken the connection
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # they wait until the master asks for them
    workers = {start_worker(shared, recommender) for _ in range(n_workers)}
    print(f"serving {path} on port {shared.getsockname()[1]}", flush=True)
    while (number := signal.sigwait(SIGNALS)) in (signal.SIGCHLD, signal.SIGHUP):
        old = workers if number == signal.SIGHUP else set()
        try:
            if old:
                recommender.swap(path, verify=True)
        except FastMFError as error:
            print(f"the old model goes on: {error}", file=sys.stderr, flush=True)
            continue
        alive = workers - ended(workers) - old
        workers = alive | {start_worker(shared, recommender) for _ in range(n_workers - len(alive))}
        for process in old:
            os.kill(process, signal.SIGTERM)
    for process in workers - ended(workers):
        os.kill(process, signal.SIGTERM)
        os.waitpid(process, 0)


def ended(workers: set[int]) -> set[int]:
    """Return which workers have ended since the last call; old ones that have are forgotten as well."""
    found: set[int] = set()
    with suppress(ChildProcessError):  # none is left
        while process := os.waitpid(-1, os.WNOHANG)[0]:
            found.add(process)
    return found & workers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve recommendations from several processes.")
    parser.add_argument("model", help="model directory")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=4)
    parsed = parser.parse_args()
    keep_serving(parsed.model, socket.create_server(("127.0.0.1", parsed.port), backlog=128), parsed.workers)
