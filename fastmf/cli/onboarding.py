"""Choose the items to ask a new user about.

example:
  fastmf onboarding model -n 10 --titles films.parquet

`share` is the share of the users of the model who have rated an item. With --titles, items are shown by the column
`title` of a Parquet file, too, beside its column `item_id`.
"""

import argparse

from fastmf.cli.options import add_run_options, load_model, positive_integer
from fastmf.cli.titles import read_titles
from fastmf.common.json_text import to_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("model", metavar="MODEL", help="model directory")
    parser.add_argument("-n", type=positive_integer, default=10, help="how many items (default: %(default)s)")
    parser.add_argument(
        "--popularity-weight",
        type=float,
        default=0.5,
        metavar="A",
        help="how much it counts that many people know an item, from 0 (default: %(default)s)",
    )
    parser.add_argument("--titles", metavar="FILE", help="Parquet file with the columns item_id and title")
    add_run_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Choose the items and print one per line."""
    import fastmf

    model = load_model(parsed.model, parsed)
    found = fastmf.onboarding(model, parsed.n, popularity_weight=parsed.popularity_weight)
    rows = found.to_arrow().to_pylist()
    if parsed.titles is not None:
        titles = read_titles(model, parsed.titles)
        rows = [row | {"title": titles.get(row["item_id"])} for row in rows]
    if parsed.json:
        print(to_json(rows))
        return 0
    print("rank  share  id" + ("" if parsed.titles is None else "  title"))
    for row in rows:
        title = row.get("title")
        print(f"{row['rank']:>4}  {row['share']:>5.3f}  {row['item_id']}" + ("" if title is None else f"  {title}"))
    return 0
