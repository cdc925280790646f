"""Train a model on ratings in Parquet.

example:
  fastmf train ratings/ --model implicit-als --output model --factors 64 --validation-fraction 0.1
"""

import argparse
from typing import Any

from fastmf.cli.options import (
    add_column_options,
    add_run_options,
    fraction,
    note,
    print_result,
    read_ratings,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    from fastmf.cli.model_options import add_model_option, add_parameter_options

    parser.add_argument("ratings", nargs="+", metavar="RATINGS", help="Parquet file, directory or pattern")
    add_model_option(parser)
    parser.add_argument("--output", required=True, metavar="DIR", help="model directory to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing model")
    parser.add_argument(
        "--validation-fraction",
        type=fraction,
        metavar="F",
        help="share of ratings to hold out, and evaluate after each epoch (default: none)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers (default: %(default)s)")
    add_column_options(parser)
    add_parameter_options(parser)
    add_run_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Train, save, and print the metrics of the epoch whose factors were kept."""
    import fastmf
    from fastmf.cli.model_options import make_model
    from fastmf.keeping.model_directory import require_replaceable

    model = make_model(parsed)
    require_replaceable(parsed.output, parsed.overwrite)
    ratings = read_ratings(parsed.ratings, parsed)
    note(f"read {ratings.n_ratings:,} ratings of {ratings.n_users:,} users on {ratings.n_items:,} items", parsed)
    train, validation = ratings, None
    if parsed.validation_fraction is not None:
        train, validation = fastmf.split.random(ratings, parsed.validation_fraction, seed=parsed.seed)
    model.fit(train, validation=validation)
    model.save(parsed.output, overwrite=parsed.overwrite, source={"files": parsed.ratings})
    kept = model.history[-1 if model.best_epoch is None else model.best_epoch - 1]
    result: dict[str, Any] = {"model": parsed.output, "n_ratings": train.n_ratings, **kept}
    result["seconds"] = sum(record["seconds"] for record in model.history)
    if parsed.json:
        result["history"] = model.history
    print_result(result, parsed.json)
    return 0
