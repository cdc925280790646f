"""Write every user's best items to Parquet.

example:
  fastmf recommend model --output recs.parquet -k 10

The file has the columns user_id, rank (from 1), item_id and score. It appears when it is whole; a command that was
interrupted goes on where it has stopped when it is given again.
"""

import argparse
from pathlib import Path
from typing import Any

from fastmf.cli.options import add_run_options, load_model, note, positive_integer, print_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("model", metavar="MODEL", help="model directory")
    parser.add_argument("--output", required=True, metavar="RECS.parquet", help="file to write")
    parser.add_argument("--partitioned", action="store_true", help="write a directory of several files instead")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument("-k", type=positive_integer, default=10, help="items a user (default: %(default)s)")
    parser.add_argument("--users", metavar="USERS.parquet", help="users to recommend to (default: all)")
    parser.add_argument("--user-column", default="user_id", metavar="NAME", help="their column (default: %(default)s)")
    parser.add_argument("--include-seen", action="store_true", help="also recommend items of the training ratings")
    add_run_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Recommend and print what was written."""
    from fastmf.common.files import require_absent

    require_absent(Path(parsed.output), parsed.overwrite)
    model = load_model(parsed.model, parsed)
    users = None if parsed.users is None else _read_users(parsed)
    n_users = len(model.user_ids) if users is None else len(users)
    note(f"recommending {parsed.k} of {len(model.item_ids):,} items to {n_users:,} users", parsed)
    n_rows = model.recommend_to_parquet(
        parsed.output,
        parsed.k,
        users=users,
        exclude=None if parsed.include_seen else "seen",
        partitioned=parsed.partitioned,
        overwrite=parsed.overwrite,
    )
    print_result({"output": parsed.output, "n_users": n_users, "n_rows": n_rows}, parsed.json)
    return 0


def _read_users(parsed: argparse.Namespace) -> Any:
    """Read the ids of a Parquet file, each once, in order of appearance."""
    from fastmf.reading.parquet import open_dataset, read_column

    return read_column(open_dataset(parsed.users), parsed.user_column).unique()
