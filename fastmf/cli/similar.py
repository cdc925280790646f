"""Show the items (or users) that are nearest to one, to a vector, or to the answer of an analogy.

example:
  fastmf similar model --item 50 -k 5

With --positive and --negative it answers analogies: --positive a --positive c --negative b shows what is to c as a is
to b. A vector is numbers with commas between them, or a file of NumPy (.npy); one that begins with a minus is given as
--vector=-0.1,0.2. Distances (--measure euclidean) grow from the nearest on; cosines and dot products fall.
"""

import argparse
from typing import Any

from fastmf.cli.id_files import read_known_ids, typed_id
from fastmf.cli.options import add_run_options, load_model, positive_integer
from fastmf.common.json_text import to_json

_NAMES = {"cosine": "cosine", "dot": "dot product", "euclidean": "distance"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("model", metavar="MODEL", help="model directory")
    to_what = parser.add_mutually_exclusive_group(required=True)
    to_what.add_argument("--item", metavar="ID", help="an item")
    to_what.add_argument("--user", metavar="ID", help="a user")
    to_what.add_argument("--vector", metavar="NUMBERS|FILE.npy", help="as many numbers as the model has factors")
    to_what.add_argument("--positive", action="append", metavar="ID", help="an item to add; may be repeated")
    parser.add_argument("--negative", action="append", metavar="ID", help="an item to subtract; may be repeated")
    parser.add_argument(
        "--side",
        choices=("item", "user"),
        help="with --vector or --positive: whether items or users are compared (default: item)",
    )
    parser.add_argument(
        "--measure", choices=tuple(_NAMES), default="cosine", help="how closeness is measured (default: %(default)s)"
    )
    parser.add_argument("--allow", metavar="IDS.parquet", help="show only these items (or users)")
    parser.add_argument("--deny", metavar="IDS.parquet", help="show none of these items (or users)")
    parser.add_argument(
        "--id-column", metavar="NAME", help="ids in the files of --allow and --deny (default: item_id, or user_id)"
    )
    parser.add_argument("-k", type=positive_integer, default=10, help="how many (default: %(default)s)")
    add_run_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Find the nearest ones and print one per line."""
    _require_consistent(parsed)
    vector = None if parsed.vector is None else _read_vector(parsed.vector)
    model = load_model(parsed.model, parsed)
    side = "user" if parsed.user is not None else parsed.side or "item"
    wanted = {"measure": parsed.measure, **_lists(model, side, parsed)}
    table = _find(model, side, vector, wanted, parsed).to_arrow()
    if parsed.vector is not None or parsed.positive is not None:
        table = table.drop_columns("vector")
    if parsed.json:
        print(to_json(table.to_pylist()))
        return 0
    name, form = _NAMES[parsed.measure], "{:.3f}" if parsed.measure == "cosine" else "{:.4g}"
    print(f"rank  {name}  id")
    ids = table[f"similar_{side}_id"].to_pylist()
    for rank, score, an_id in zip(table["rank"].to_pylist(), table["score"].to_pylist(), ids, strict=True):
        print(f"{rank:>4}  {form.format(score):>{len(name)}}  {an_id}")
    return 0


def _find(model: Any, side: str, vector: Any, wanted: dict[str, Any], parsed: argparse.Namespace) -> Any:
    import fastmf

    find, known = (model.similar_items, model.item_ids) if side == "item" else (model.similar_users, model.user_ids)
    if vector is not None:
        return find(vector=vector, k=parsed.k, **wanted)
    if parsed.positive is not None:
        positive = [typed_id("--positive", text, known) for text in parsed.positive]
        negative = [typed_id("--negative", text, known) for text in parsed.negative or []]
        return fastmf.analogy(model, positive, negative, parsed.k, side=side, **wanted)
    option, text = ("--item", parsed.item) if side == "item" else ("--user", parsed.user)
    return find([typed_id(option, text, known)], parsed.k, **wanted)


def _require_consistent(parsed: argparse.Namespace) -> None:
    from fastmf.errors import ParameterError

    if parsed.negative is not None and parsed.positive is None:
        raise ParameterError("--negative is for analogies; add --positive, or leave --negative out")
    if parsed.side is not None and (parsed.item is not None or parsed.user is not None):
        given = "--item" if parsed.item is not None else "--user"
        raise ParameterError(f"--side is for --vector and --positive, and {given} says it itself; leave --side out")
    if parsed.id_column is not None and parsed.allow is None and parsed.deny is None:
        raise ParameterError("--id-column is for the files of --allow and --deny; add one, or leave --id-column out")


def _lists(model: Any, side: str, parsed: argparse.Namespace) -> dict[str, Any]:
    """Read the files of --allow and --deny."""
    known, column = model.item_ids if side == "item" else model.user_ids, parsed.id_column or f"{side}_id"
    files = {"allow": parsed.allow, "deny": parsed.deny}
    return {
        name: None if path is None else read_known_ids(path, column, known, parsed, f"{side}s").ids
        for name, path in files.items()
    }


def _read_vector(text: str) -> Any:
    """Read a vector from a file of NumPy, or from numbers with commas between them."""
    import numpy as np

    from fastmf.errors import DataError, ParameterError

    if not text.endswith(".npy"):
        try:
            return np.array([float(number) for number in text.split(",")])
        except ValueError:
            raise ParameterError(
                f"--vector {text} is neither numbers with commas between them, such as 0.1,-0.2, nor a file .npy"
            ) from None
    try:
        vector = np.load(text, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"there is no file {text}; expected a vector in a file of NumPy") from None
    except (ValueError, EOFError) as error:
        raise DataError(f"{text} is no array of NumPy: {error}; write one with numpy.save") from error
    if vector.ndim == 2 and len(vector) != 1:
        raise DataError(f"{text} has {len(vector)} vectors; expected one")
    return vector
