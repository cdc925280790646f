"""``--log``: a line for the start of a run, for each epoch, and for its end."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastmf.cli.options import resolved_options

if TYPE_CHECKING:
    from fastmf import Interactions
    from fastmf.models.training import Callback


def add_log_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--log``."""
    parser.add_argument(
        "--log",
        metavar="RUN.jsonl",
        help="append JSON lines on the run: its options, the machine, each epoch, and how it ended",
    )


@contextmanager
def logged_run(parsed: argparse.Namespace) -> Iterator[None]:
    """Keep the log that ``--log`` asks for; `callbacks_of`, `log_data` and `log_result` add to it."""
    if getattr(parsed, "log", None) is None:
        yield
        return
    from fastmf.keeping.run_log import log_to

    options = resolved_options(parsed)
    with log_to(parsed.log, command=parsed.command, arguments=parsed.arguments, options=options) as parsed.run_log:
        yield


def callbacks_of(parsed: argparse.Namespace) -> "list[Callback]":
    """Return the callbacks of a fit: the log, if there is one."""
    return [] if parsed.run_log is None else [parsed.run_log]


def log_data(ratings: "Interactions", parsed: argparse.Namespace, **more: Any) -> None:
    """Log how many ratings there are, of how many users and items."""
    if parsed.run_log is not None:
        sizes = {"n_users": ratings.n_users, "n_items": ratings.n_items, "n_ratings": ratings.n_ratings}
        parsed.run_log.write("data", **sizes, **more)


def log_interruption(parsed: argparse.Namespace) -> None:
    """Let the last line of the log say that a signal has ended the run, which has a result all the same."""
    if parsed.run_log is not None:
        parsed.run_log.status = "interrupted"


def log_result(result: dict[str, Any], parsed: argparse.Namespace) -> None:
    """Let the last line of the log say what the run has given."""
    if parsed.run_log is not None:
        parsed.run_log.result.update(result)
