"""Options that several commands share, and how results are printed."""

import argparse
import math
import sys
from typing import TYPE_CHECKING, Any

from fastmf.common.json_text import to_json

if TYPE_CHECKING:
    from fastmf import Interactions


def positive_integer(text: str) -> int:
    """Parse an integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 1")
    return value


def fraction(text: str) -> float:
    """Parse a number between 0 and 1, exclusive."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return value


def number_or_auto(text: str) -> float | str:
    """Parse a number, or the word "auto"."""
    if text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number or "auto"') from None


# Options whose names are not those of the parameters that they set.
_OPTION_OF = {
    "backend": "device",
    "n_threads": "threads",
    "verbose": "quiet",
    "validation": "validation_fraction",
    "test_fraction": "validation_fraction",
    "by": "validation_by",
    "user": "user_column",
    "item": "item_column",
    "rating": "rating_column",
    "timestamp": "timestamp_column",
    "features": "user_features",
}


def destination_of(parameter: str) -> str:
    """Return where a command keeps what is given for a parameter of the library."""
    return _OPTION_OF.get(parameter, parameter)


def option_of(parser: argparse.ArgumentParser, parameter: str) -> str | None:
    """Return the option of a command that sets a parameter of the library; None if there is none."""
    destination = destination_of(parameter)
    options = (action.option_strings for action in parser._actions if action.dest == destination)
    return next((names[-1] for names in options if names), None)


NOT_OF_THE_RUN = ("help", "debug", "config", "print_config")
"""Options that say nothing of what is done."""


def name_of(action: argparse.Action) -> str:
    """Return the name of an argument in a configuration: that of its option without dashes, or a word for its place."""
    return max(action.option_strings, key=len).lstrip("-") if action.option_strings else action.dest


def resolved_options(parsed: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of a run by their names, as given or by default; those that are not set are left out."""
    options: dict[str, Any] = {}
    for action in parsed.parser._actions:
        value = getattr(parsed, action.dest, None)
        is_switch = action.nargs == 0
        if action.dest in NOT_OF_THE_RUN or (value != action.const if is_switch else value is None):
            continue
        options[name_of(action)] = True if is_switch else value
    return options


def add_column_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the columns of a ratings file."""
    group = parser.add_argument_group("columns of the ratings")
    group.add_argument("--user-column", default="user_id", metavar="NAME", help="user ids (default: %(default)s)")
    group.add_argument("--item-column", default="item_id", metavar="NAME", help="item ids (default: %(default)s)")
    ratings = group.add_mutually_exclusive_group()
    ratings.add_argument("--rating-column", default="rating", metavar="NAME", help="ratings (default: %(default)s)")
    ratings.add_argument(
        "--no-rating-column",
        dest="rating_column",
        action="store_const",
        const=None,
        help="there is no such column: every rating is 1",
    )
    group.add_argument("--timestamp-column", metavar="NAME", help="times (default: not read)")
    group.add_argument(
        "--duplicates",
        choices=("error", "first", "last", "mean", "sum"),
        default="error",
        help="what to do with a repeated (user, item) pair (default: %(default)s)",
    )


def add_cold_option(parser: argparse.ArgumentParser, text: str) -> None:
    """Add --cold; ``text`` says what each of its choices does."""
    parser.add_argument(
        "--cold", choices=("skip", "popular", "include"), default="skip", help=f"{text} (default: %(default)s)"
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how to run."""
    group = parser.add_argument_group("running")
    group.add_argument("--threads", type=positive_integer, metavar="N", help="threads to use (default: all cores)")
    group.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to run (default: %(default)s)")
    add_output_options(group)


def add_output_options(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    """Add the options that say what to print."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def read_ratings(path: "str | list[str]", parsed: argparse.Namespace) -> "Interactions":
    """Read ratings as the column options say."""
    import fastmf
    from fastmf.errors import DataError, named

    try:
        return fastmf.read_parquet(
            path,
            user=parsed.user_column,
            item=parsed.item_column,
            rating=parsed.rating_column,
            timestamp=parsed.timestamp_column,
            duplicates=parsed.duplicates,
        )
    except DataError as error:
        if not str(error).startswith(f"no column {parsed.rating_column!r}"):
            raise
        raise DataError(f"{error.in_words_of(named)}, or give --no-rating-column: every rating is 1 then") from error


def load_model(path: str, parsed: argparse.Namespace) -> Any:
    """Load a model and set how it runs."""
    import fastmf

    return fastmf.load(path).set_params(backend=parsed.device, n_threads=parsed.threads, verbose=not parsed.quiet)


def print_result(result: dict[str, Any], as_json: bool) -> None:
    """Print names and values, aligned for people or as JSON for programs."""
    if as_json:
        print(to_json(result))
        return
    width = max(map(len, result), default=0)
    for name, value in result.items():
        print(f"{name:<{width}}  {show(value)}")


def show(value: object) -> str:
    """Return a value as text for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float) and math.isnan(value):
        return "undefined"
    if isinstance(value, float):
        return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name}={show(inner)}" for name, inner in value.items())
    return str(value)


def note(text: str, parsed: argparse.Namespace) -> None:
    """Print a line on progress to standard error, unless --quiet."""
    if not parsed.quiet:
        print(text, file=sys.stderr)
