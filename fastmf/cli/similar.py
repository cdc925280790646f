"""Show the items (or users) that are most similar to one.

example:
  fastmf similar model --item 50 -k 5
"""

import argparse
from typing import Any

from fastmf.cli.options import add_run_options, load_model, positive_integer
from fastmf.common.json_text import to_json
from fastmf.errors import UnknownIdError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("model", metavar="MODEL", help="model directory")
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("--item", metavar="ID", help="an item")
    whose.add_argument("--user", metavar="ID", help="a user")
    parser.add_argument("-k", type=positive_integer, default=10, help="how many (default: %(default)s)")
    add_run_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Find the most similar ones and print one per line."""
    model = load_model(parsed.model, parsed)
    if parsed.item is not None:
        table = model.similar_items([_id_of("--item", parsed.item, model.item_ids)], parsed.k).to_arrow()
    else:
        table = model.similar_users([_id_of("--user", parsed.user, model.user_ids)], parsed.k).to_arrow()
    if parsed.json:
        print(to_json(table.to_pylist()))
        return 0
    print("rank  cosine  id")
    for row in zip(table["rank"].to_pylist(), table["score"].to_pylist(), table.column(2).to_pylist(), strict=True):
        print("{:>4}  {:>6.3f}  {}".format(*row))
    return 0


def _id_of(option: str, text: str, vocabulary: Any) -> int | str:
    """Turn what was typed into an id of the model."""
    from fastmf.reading import ids

    are_integers = str(vocabulary.type) == "int64"
    try:
        typed = int(text) if are_integers else text
        is_known = ids.look_up(vocabulary, [typed], option)[0] >= 0
    except (ValueError, OverflowError):
        is_known = False
    if not is_known:
        kind = "an integer" if are_integers else "one"
        raise UnknownIdError(f"{option} {text} is unknown to the model; expected {kind} of its training data")
    return typed
