"""Show which past ratings of a user, or which features, carry the prediction for an item.

example:
  fastmf explain model --user 42 --item 50 --titles films.parquet

The lines of the output add up to the score of the pair. With --titles, items are shown by the column `title` of a
Parquet file, beside its column `item_id`. In a model with features, those of the user are lines, too; --by item shows
what the features of the item carry, and all its ratings together.
"""

import argparse

from fastmf.cli.id_files import typed_id
from fastmf.cli.options import add_run_options, load_model, positive_integer
from fastmf.cli.titles import read_titles
from fastmf.common.json_text import to_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("model", metavar="MODEL", help="model directory")
    parser.add_argument("--user", metavar="ID", required=True, help="a user of the training ratings")
    parser.add_argument("--item", metavar="ID", required=True, help="the item whose prediction is explained")
    parser.add_argument(
        "--by",
        choices=("user", "item"),
        default="user",
        help="whose ratings and features are shown; item: of ALS and ImplicitALS models (default: %(default)s)",
    )
    parser.add_argument("--titles", metavar="FILE", help="Parquet file with the columns item_id and title")
    parser.add_argument(
        "-k",
        type=positive_integer,
        default=10,
        help="how many ratings, and features, are shown; --json shows all of them (default: %(default)s)",
    )
    add_run_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Explain a prediction and print its terms, one per line."""
    model = load_model(parsed.model, parsed)
    user, item = typed_id("--user", parsed.user, model.user_ids), typed_id("--item", parsed.item, model.item_ids)
    titles = {} if parsed.titles is None else read_titles(model, parsed.titles)
    explanation = model.explain(user, item, by=parsed.by)
    if not parsed.json:
        print(explanation.to_text(titles, parsed.k))
        return 0
    terms = explanation.to_arrow().to_pylist()
    if parsed.titles is not None:
        terms = [term | {"title": titles.get(term["item_id"])} for term in terms]
    result = {"user_id": user, "item_id": item, "prediction": explanation.prediction, "score": explanation.score}
    print(to_json(result | {"terms": terms}))
    return 0
