"""Write the best items of every user to Parquet.

example:
  fastmf recommend model --output recs.parquet -k 10

The file has the columns user_id, rank (from 1), item_id and score. It appears when it is whole. After an interruption,
the same command continues after the parts that were finished. Users that the model does not know are skipped and
counted, and so are users without training ratings, unless --cold says otherwise. Progress shows how many tiles (a few
users and items each) were skipped, because no score in them can be among the best.
"""

import argparse
from typing import Any

from fastmf.cli.options import add_cold_option, add_run_options, load_model, note, positive_integer, print_result

# So many unknown users are shown.
_SHOWN = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("model", metavar="MODEL", help="model directory")
    parser.add_argument("--output", required=True, metavar="RECS.parquet", help="file to write")
    parser.add_argument("--partitioned", action="store_true", help="write a directory of several files instead")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument("-k", type=positive_integer, default=10, help="items a user (default: %(default)s)")
    parser.add_argument("--users", metavar="USERS.parquet", help="users to recommend to (default: all)")
    parser.add_argument("--strict", action="store_true", help="refuse users that the model does not know")
    parser.add_argument("--user-column", default="user_id", metavar="NAME", help="their column (default: %(default)s)")
    parser.add_argument("--include-seen", action="store_true", help="also recommend items of the training ratings")
    add_cold_option(
        parser,
        "users without training ratings get no items, the most popular items, or those that score highest with "
        "their factors; only include also recommends items without training ratings",
    )
    add_run_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Recommend and print what was written."""
    from fastmf.answering.asked import count_cold_users
    from fastmf.keeping.recommendations import require_replaceable

    require_replaceable(parsed.output, overwrite=parsed.overwrite, partitioned=parsed.partitioned)
    model = load_model(parsed.model, parsed)
    users, n_unknown = (None, 0) if parsed.users is None else _read_users(model, parsed)
    n_users = len(model.user_ids) if users is None else len(users)
    note(f"recommending {parsed.k} of {len(model.item_ids):,} items to {n_users:,} users", parsed)
    n_rows = model.recommend_to_parquet(
        parsed.output,
        parsed.k,
        users=users,
        exclude=None if parsed.include_seen else "seen",
        cold=parsed.cold,
        partitioned=parsed.partitioned,
        overwrite=parsed.overwrite,
    )
    n_cold = count_cold_users(model.fitted, users)
    result = {"output": parsed.output, "n_users": n_users, "n_cold_users": n_cold, "n_rows": n_rows}
    if parsed.users is not None:
        result["n_unknown_users"] = n_unknown
    print_result(result, parsed.json)
    return 0


def _read_users(model: Any, parsed: argparse.Namespace) -> tuple[Any, int]:
    """Read the ids of a Parquet file, each once, in order of appearance.

    Returns
    -------
    users : Arrow array
        Those that the model knows; all of them with ``--strict``, so that the library refuses the others.
    n_unknown : int
    """
    import numpy as np
    import pyarrow as pa

    from fastmf.errors import UnknownIdError
    from fastmf.reading import ids
    from fastmf.reading.columns import IDS
    from fastmf.reading.parquet import open_dataset

    column = open_dataset(parsed.users).read(parsed.user_column, IDS)
    indices, distinct = ids.encode(column.values, parsed.user_column, column.where)
    first = np.sort(np.unique(indices, return_index=True)[1])
    users = distinct.take(pa.array(indices[first]))
    is_known = ids.look_up(model.user_ids, users, parsed.user_column) >= 0
    n_unknown = int(len(users) - is_known.sum())
    if n_unknown == 0 or parsed.strict:
        return users, 0
    unknown = users.filter(pa.array(~is_known)).slice(0, _SHOWN).to_pylist()
    shown = ", ".join(map(repr, unknown)) + ("" if n_unknown <= _SHOWN else f" and {n_unknown - _SHOWN:,} more")
    if n_unknown == len(users):
        raise UnknownIdError(
            f"none of the {n_unknown:,} users of {parsed.users} is known to the model: {shown}; expected ids that "
            "were in the training data"
        )
    note(f"skipping {n_unknown:,} of {len(users):,} users that the model does not know: {shown}", parsed)
    return users.filter(pa.array(is_known)), n_unknown
