"""Options that say how models are measured, for the commands that measure."""

import argparse
from typing import Any

from fastmf.cli.options import add_cold_option, add_column_options, positive_integer, read_ratings


class _MetricsHelp(str):
    """Help that lists the metrics when it is formatted: to list them earlier would import NumPy for every command."""

    __slots__ = ()

    def __mod__(self, parameters: Any, /) -> str:
        from fastmf.metrics import METRICS

        default = ", ".join(name for name, metric in METRICS.items() if metric.is_default)
        others = ", ".join(name for name, metric in METRICS.items() if not metric.is_default)
        errors = ", ".join(name for name, metric in METRICS.items() if not metric.higher_is_better)
        return f"some of {default} (these are the default), {others} (lower is better for {errors})"


def add_setting_options(parser: argparse.ArgumentParser) -> None:
    """Add the test ratings, the metrics, and what is ranked."""
    parser.add_argument("test", metavar="TEST.parquet", help="test ratings")
    parser.add_argument("--exclude", metavar="TRAIN.parquet", help="ratings whose items are not ranked")
    parser.add_argument(
        "--among",
        metavar="CANDIDATES.parquet",
        help="pairs of a user and an item: only these and the test items are ranked, also those in the training "
        "ratings; for evaluations with sampled items (default: all items)",
    )
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


def read_setting(parsed: argparse.Namespace) -> dict[str, Any]:
    """Read the files, and return the parameters of `fastmf.evaluate` that the options set."""
    return {
        "test": read_ratings(parsed.test, parsed),
        "exclude": "seen" if parsed.exclude is None else read_ratings(parsed.exclude, parsed),
        "among": None if parsed.among is None else _read_candidates(parsed),
        "k": parsed.k,
        "metrics": parsed.metrics,
        "min_relevant_rating": parsed.min_relevant_rating,
        "cold": parsed.cold,
    }


def _read_candidates(parsed: argparse.Namespace) -> Any:
    import fastmf

    return fastmf.read_parquet(
        parsed.among, user=parsed.user_column, item=parsed.item_column, rating=None, duplicates="first"
    )
