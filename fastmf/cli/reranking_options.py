"""Options of a new order for the recommended items: that they differ, caps on categories, and new items."""

import argparse
from typing import TYPE_CHECKING, Any

from fastmf.cli.configuration import is_shared
from fastmf.cli.options import positive_integer

if TYPE_CHECKING:
    from fastmf import Features, Reranking

_SETTINGS = ("n_candidates", "diversify", "at_most", "similarity", "explore", "few_ratings", "seed")


def add_reranking_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `fastmf.Reranking`; none of them is set by default."""
    group = parser.add_argument_group("re-ranking")
    group.add_argument(
        "--diversify", type=float, metavar="SHARE", help="how much less similar items count than scores, 0 to 1"
    )
    group.add_argument(
        "--at-most",
        type=_limit,
        action="append",
        metavar="COLUMN=N",
        help="at most N items of a category of this column of the item features; may be repeated",
    )
    group.add_argument(
        "--item-features",
        metavar="FILE",
        help="categories of the items for --at-most and --similarity, in Parquet, a row each; they change no score",
    )
    group.add_argument(
        "--similarity",
        choices=("factors", "features"),
        help="what --diversify compares: item factors (default), or categories and tags of the item features",
    )
    group.add_argument(
        "--explore",
        type=float,
        metavar="SHARE",
        help="probability, 0 to 1, of an item with few ratings at each place",
    )
    group.add_argument("--few-ratings", type=positive_integer, metavar="N", help="fewer ratings are few (default: 10)")
    group.add_argument("--seed", type=int, metavar="N", help="seed of what --explore draws (default: 0)")
    group.add_argument(
        "--candidates",
        dest="n_candidates",
        type=positive_integer,
        metavar="N",
        help="length of the list to choose from (default: 100)",
    )


def read_reranking(parsed: argparse.Namespace) -> "Reranking | None":
    """Return what the options say; None if they leave the order as it is.

    Raises
    ------
    ParameterError
        If an option has no use.
    DataError
        If the features cannot be used as they are.
    """
    import fastmf

    given = {name: getattr(parsed, name) for name in _SETTINGS if getattr(parsed, name) is not None}
    _require_uses(parsed, given)
    if not {"diversify", "at_most", "explore"} & set(given):
        return None
    if "at_most" in given:
        given["at_most"] = _as_limits(given["at_most"])
    if parsed.item_features is not None and ("at_most" in given or given.get("similarity") == "features"):
        given["item_features"] = _read_features(parsed, given)
    return fastmf.Reranking(**given)


def _require_uses(parsed: argparse.Namespace, given: dict[str, Any]) -> None:
    """Check that what an option is for is given, too; options that a configuration has for all commands may wait."""
    from fastmf.errors import ParameterError

    uses = {
        "n_candidates": ("--candidates", ("diversify", "at_most", "explore")),
        "similarity": ("--similarity", ("diversify",)),
        "few_ratings": ("--few-ratings", ("explore",)),
        "seed": ("--seed", ("explore",)),
        "item_features": ("--item-features", ("at_most", "similarity")),
    }
    options = {"diversify": "--diversify", "at_most": "--at-most", "explore": "--explore"}
    options["similarity"] = "--similarity features"
    for destination, (option, users) in uses.items():
        is_used = any(user in given for user in users)
        if getattr(parsed, destination) is None or is_used:
            continue
        if is_shared(parsed, destination):
            given.pop(destination, None)
            continue
        needed = " or ".join(options[user] for user in users)
        raise ParameterError(f"{option} has no use without {needed}; add that, or leave {option} out")


def _limit(text: str) -> str:
    """Parse a limit of a column; it stays text, as in a configuration."""
    column, _, limit = text.rpartition("=")
    if not column or not limit.isascii() or not limit.isdigit() or int(limit) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a column and an integer of at least 1, such as genre=3")
    return text


def _as_limits(texts: list[str]) -> dict[str, int]:
    """Return a limit for each column.

    Raises
    ------
    ParameterError
        If a column has two.
    """
    from fastmf.errors import ParameterError, named

    limits: dict[str, int] = {}
    for text in texts:
        column, _, limit = text.rpartition("=")
        if column in limits:
            raise ParameterError(
                f"{named('at_most')} has {column}={limits[column]} and {text}; expected one limit for a column"
            )
        limits[column] = int(limit)
    return limits


def _read_features(parsed: argparse.Namespace, given: dict[str, Any]) -> "Features":
    """Read the columns that are used; integers in those with a limit are codes of categories."""
    import pyarrow as pa

    import fastmf
    from fastmf.reading.columns import ANY
    from fastmf.reading.parquet import ParquetFiles

    limited = list(dict.fromkeys(column.partition("=")[0] for column in given.get("at_most", ())))
    files = ParquetFiles(parsed.item_features)
    codes = [column for column in limited if pa.types.is_integer(files.type_of(column, ANY))]
    columns = None if given.get("similarity") == "features" else limited
    return fastmf.Features.from_parquet(parsed.item_features, id=parsed.item_column, columns=columns, categories=codes)
