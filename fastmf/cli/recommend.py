"""Write the best items of every user to Parquet.

example:
  fastmf recommend model --output recs.parquet -k 10

The file has the columns user_id, rank (from 1), item_id and score. It appears when it is whole. After an interruption,
the same command continues after the parts that were finished. Users that the model does not know are skipped and
counted, and so are users without training ratings, unless --cold says otherwise. Progress shows how many tiles (a few
users and items each) were skipped, because no score in them can be among the best.

With --for, the users are those of a file of ratings, also such that the model does not know: what they have rated there
(and in training) says what they like, and is not recommended. Ratings of items that the model does not know are
counted, and left out. For a model that was trained with features of users, --user-features says what is known of these
people, with --for or without: then they are the people of that file.

Recommendations may get another order, which says more than the score: --diversify prefers items that differ from those
above them (0.3: maximal marginal relevance), --at-most genre=3 --item-features ITEMS.parquet allows so many of each
genre, and --explore gives places to items with few ratings. The items are chosen from the --candidates that score
highest. rank is the new order; scores stay those of the model.
"""

import argparse
from typing import Any, NamedTuple

from fastmf.cli.configuration import add_config_options, is_shared
from fastmf.cli.feature_options import add_feature_options, read_side, require_uses
from fastmf.cli.id_files import read_known_ids, shown_ids
from fastmf.cli.options import (
    add_cold_option,
    add_column_options,
    add_run_options,
    load_model,
    note,
    positive_integer,
    print_result,
    read_ratings,
)
from fastmf.cli.reranking_options import add_reranking_options, read_reranking
from fastmf.cli.run_log import add_log_option, log_result

# So many unknown items are shown.
_SHOWN = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("model", metavar="MODEL", help="model directory")
    parser.add_argument("--output", required=True, metavar="RECS.parquet", help="file to write")
    parser.add_argument("--partitioned", action="store_true", help="write a directory of several files instead")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument("-k", type=positive_integer, default=10, help="items a user (default: %(default)s)")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--users", metavar="USERS.parquet", help="users to recommend to (default: all)")
    asked.add_argument(
        "--for", dest="interactions", metavar="RATINGS.parquet", help="ratings of the users to recommend to, in Parquet"
    )
    parser.add_argument("--strict", action="store_true", help="refuse users that the model does not know")
    parser.add_argument("--include-seen", action="store_true", help="also recommend items that users have rated")
    add_cold_option(
        parser,
        "users without training ratings get no items, the most popular items, or those that score highest with "
        "their factors; only include also recommends items without training ratings",
    )
    add_reranking_options(parser)
    add_column_options(parser)
    add_feature_options(parser, ("user",))
    add_run_options(parser)
    add_log_option(parser)
    add_config_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Recommend and print what was written."""
    from fastmf.keeping.recommendations import require_replaceable

    _require_consistent(parsed)
    require_replaceable(parsed.output, overwrite=parsed.overwrite, partitioned=parsed.partitioned)
    reranking = read_reranking(parsed)
    model = load_model(parsed.model, parsed)
    are_people = parsed.interactions is not None or parsed.user_features is not None
    asked = _read_people(model, parsed) if are_people else _read_all_or_some(model, parsed)
    note(f"recommending {parsed.k} of {len(model.item_ids):,} items to {asked.counts['n_users']:,} users", parsed)
    n_rows = model.recommend_to_parquet(
        parsed.output,
        parsed.k,
        **asked.users,
        exclude=None if parsed.include_seen else "seen",
        cold=parsed.cold,
        rerank=reranking,
        partitioned=parsed.partitioned,
        overwrite=parsed.overwrite,
    )
    result = {"output": parsed.output, **asked.counts, "n_rows": n_rows, **asked.unknown}
    log_result(result, parsed)
    print_result(result, parsed.json)
    return 0


class _Asked(NamedTuple):
    """Whom to recommend to.

    Attributes
    ----------
    users : dict
        Arguments of ``recommend_to_parquet`` that name the users.
    counts : dict of str to int
        How many they are.
    unknown : dict of str to int
        How much of what was given the model does not know.
    """

    users: dict[str, Any]
    counts: dict[str, int]
    unknown: dict[str, int]


def _require_consistent(parsed: argparse.Namespace) -> None:
    """Check that options of ratings come with ratings, and that of known users without.

    Raises
    ------
    ParameterError
    """
    from fastmf.errors import ParameterError

    require_uses(parsed, ("user",))
    given = {
        "--item-column": ("item_column", parsed.item_column != "item_id"),
        "--rating-column": ("rating_column", parsed.rating_column not in ("rating", None)),
        "--no-rating-column": ("rating_column", parsed.rating_column is None),
        "--timestamp-column": ("timestamp_column", parsed.timestamp_column is not None),
        "--duplicates": ("duplicates", parsed.duplicates != "error"),
    }
    for option, (destination, is_given) in given.items():
        has_use = (destination == "item_column" and parsed.item_features is not None) or (
            destination == "duplicates" and parsed.user_feature_name is not None
        )
        if is_given and parsed.interactions is None and not has_use and not is_shared(parsed, destination):
            raise ParameterError(f"{option} is for the ratings that --for names; add --for, or leave {option} out")
    if parsed.strict and parsed.interactions is not None:
        raise ParameterError(
            "--strict refuses users that the model does not know, and --for is there to answer them; leave --strict out"
        )
    if parsed.user_features is not None and parsed.interactions is None and (parsed.strict or parsed.users is not None):
        option = "--strict" if parsed.strict else "--users"
        raise ParameterError(
            f"--user-features names the users to recommend to, where --for does not; leave {option} out"
        )


def _read_people(model: Any, parsed: argparse.Namespace) -> _Asked:
    """Read ratings and features of people, and say what of them the model does not know."""
    import numpy as np

    features = read_side(parsed, "user")
    ratings = None if parsed.interactions is None else read_ratings(parsed.interactions, parsed)
    found = model.newcomers(ratings, features)
    n_items, n_people = len(found.unknown_items), len(found.places)
    if ratings is not None and found.n_unknown_ratings:
        shown = shown_ids(found.unknown_items.slice(0, _SHOWN).to_pylist(), n_items)
        rated = f"{found.n_unknown_ratings:,} of {ratings.n_ratings:,} ratings"
        note(f"leaving out {rated}, of {n_items:,} items that the model does not know: {shown}", parsed)
    unknown = {"n_unknown_items": n_items, "n_unknown_ratings": found.n_unknown_ratings}
    if features is not None:
        names = model.fitted.features["user"].columns.names.to_pylist()
        unknown["n_unknown_features"] = features.in_columns(names).n_unknown
        if unknown["n_unknown_features"]:
            n_given = len(features.rows.indices)
            note(
                f"leaving out {unknown['n_unknown_features']:,} of {n_given:,} features of people, which the model "
                "does not know",
                parsed,
            )
    n_cold = int(np.count_nonzero(found.is_cold))
    counts = {"n_users": n_people, "n_known_users": int((found.places >= 0).sum()), "n_cold_users": n_cold}
    return _Asked({"interactions": ratings, "features": features}, counts, unknown)


def _read_all_or_some(model: Any, parsed: argparse.Namespace) -> _Asked:
    """Read the users that --users names; all users of the model without it."""
    from fastmf.answering.asked import count_cold_users

    users, n_unknown = None, 0
    if parsed.users is not None:
        column, known = parsed.user_column, model.user_ids
        users, n_unknown = read_known_ids(parsed.users, column, known, parsed, "users", parsed.strict)
    n_users = len(model.user_ids) if users is None else len(users)
    counts = {"n_users": n_users, "n_cold_users": count_cold_users(model.fitted, users)}
    return _Asked({"users": users}, counts, {} if parsed.users is None else {"n_unknown_users": n_unknown})
