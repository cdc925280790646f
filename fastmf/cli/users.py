"""Write the best users of every item to Parquet.

example:
  fastmf users model --output users.parquet -k 100

The file has the columns item_id, rank (from 1), user_id and score: for whom the model predicts the most. Users who have
rated an item in training are left out. Items that the model does not know are skipped and counted, and so are items
with neither training ratings nor features, unless --cold says otherwise.
"""

import argparse

from fastmf.cli.id_files import read_known_ids
from fastmf.cli.options import add_run_options, load_model, note, positive_integer, print_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("model", metavar="MODEL", help="model directory")
    parser.add_argument("--output", required=True, metavar="USERS.parquet", help="file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument("-k", type=positive_integer, default=10, help="users an item (default: %(default)s)")
    parser.add_argument("--items", metavar="ITEMS.parquet", help="items to find users for (default: all)")
    parser.add_argument(
        "--item-column", default="item_id", metavar="NAME", help="item ids in that file (default: %(default)s)"
    )
    parser.add_argument("--strict", action="store_true", help="refuse items that the model does not know")
    parser.add_argument("--include-seen", action="store_true", help="also name users who have rated the item")
    parser.add_argument(
        "--cold",
        choices=("skip", "include"),
        default="skip",
        help="items with neither training ratings nor features get no users, or those who score highest with their "
        "factors; only include also names users who have neither (default: %(default)s)",
    )
    add_run_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Find the users and print what was written."""
    from fastmf.common.files import require_absent

    require_absent(parsed.output, parsed.overwrite)
    model = load_model(parsed.model, parsed)
    items, n_unknown = None, 0
    if parsed.items is not None:
        items, n_unknown = read_known_ids(
            parsed.items, parsed.item_column, model.item_ids, parsed, "items", parsed.strict
        )
    n_items = len(model.item_ids if items is None else items)
    note(f"finding {parsed.k} of {len(model.user_ids):,} users for {n_items:,} items", parsed)
    exclude = None if parsed.include_seen else "seen"
    found = model.users_for_item(items, parsed.k, exclude=exclude, cold=parsed.cold)
    found.to_parquet(parsed.output, overwrite=parsed.overwrite)
    counts = {"n_items": n_items, "n_cold_items": found.n_cold_items, "n_rows": int((found.users >= 0).sum())}
    unknown = {} if parsed.items is None else {"n_unknown_items": n_unknown}
    print_result({"output": parsed.output, **counts, **unknown}, parsed.json)
    return 0
