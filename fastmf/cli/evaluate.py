"""Measure a model on test ratings.

example:
  fastmf evaluate model test.parquet -k 10 20

For each user, items are ranked by their scores, without the items of the training ratings; --exclude names other
ratings to leave out instead. Users and items without training ratings take no part, unless --cold says otherwise. For
an implicit model, rmse and mae measure against a preference: 1 for a rating above 0, and 0 for others.

Counts: n_ratings test ratings; n_unknown of them, of a user or item without training ratings; n_excluded of them, of an
item that is left out for the user, and can only be missed; n_users, for whom items were ranked; and n_cold_users, with
test ratings but no training ratings.
"""

import argparse
from typing import Any

from fastmf.cli.options import (
    add_cold_option,
    add_column_options,
    add_run_options,
    load_model,
    positive_integer,
    print_result,
    read_ratings,
)


class _MetricsHelp(str):
    """Help that lists the metrics when it is formatted: to list them earlier would import NumPy for every command."""

    __slots__ = ()

    def __mod__(self, parameters: Any, /) -> str:
        from fastmf.metrics import METRICS

        default = ", ".join(name for name, metric in METRICS.items() if metric.is_default)
        others = ", ".join(name for name, metric in METRICS.items() if not metric.is_default)
        errors = ", ".join(name for name, metric in METRICS.items() if not metric.higher_is_better)
        return f"some of {default} (these are the default), {others}; lower is better for {errors}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("model", metavar="MODEL", help="model directory")
    parser.add_argument("test", metavar="TEST.parquet", help="test ratings")
    parser.add_argument("--exclude", metavar="TRAIN.parquet", help="ratings whose items are not ranked")
    parser.add_argument("-k", type=positive_integer, nargs="+", default=[10], help="cut-offs (default: 10)")
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help=_MetricsHelp("names of metrics"))
    parser.add_argument(
        "--min-relevant-rating",
        type=float,
        metavar="X",
        help="test items are relevant from this rating on (default: all)",
    )
    add_cold_option(
        parser,
        "for users without training ratings, rank nothing, rank items by popularity, or rank them by the users' "
        "factors; only include also ranks items without training ratings",
    )
    add_column_options(parser)
    add_run_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Evaluate and print the metrics."""
    import fastmf

    results = fastmf.evaluate(
        load_model(parsed.model, parsed),
        read_ratings(parsed.test, parsed),
        exclude="seen" if parsed.exclude is None else read_ratings(parsed.exclude, parsed),
        k=parsed.k,
        metrics=parsed.metrics,
        min_relevant_rating=parsed.min_relevant_rating,
        cold=parsed.cold,
    )
    if not parsed.json:
        results = {name: "undefined" if value is None else value for name, value in results.items()}
    print_result(results, parsed.json)
    return 0
