"""Compare two models on test ratings, user by user.

example:
  fastmf compare model-a model-b test.parquet -k 10

Each metric is measured for the users for whom it is defined with both models: those whom both can rank, or for rmse and
mae all. Items of the training ratings of either model are not ranked; --exclude names other ratings to leave out
instead, and --among the only items to rank.

The difference is B - A. Its interval is that of the paired bootstrap, with 1,000 samples of the users. p is that of the
paired randomisation test: a small p says that the difference is unlikely to come from the choice of test users, and
with n users it is at least 2^(1-n). Won, tied and lost count the users for whom B is better, equal, or worse.
"""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fastmf.cli.options import add_run_options, fraction, load_model, show
from fastmf.cli.setting_options import add_setting_options, read_setting
from fastmf.common.json_text import to_json

if TYPE_CHECKING:
    from fastmf.measuring.comparison import Difference


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("model_a", metavar="MODEL_A", help="model directory")
    parser.add_argument("model_b", metavar="MODEL_B", help="another model directory")
    add_setting_options(parser)
    parser.add_argument(
        "--ci", type=fraction, default=0.95, metavar="LEVEL", help="level of the intervals (default: %(default)s)"
    )
    add_run_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Compare and print a table of the metrics."""
    import fastmf

    models = (load_model(path, parsed) for path in (parsed.model_a, parsed.model_b))
    found = fastmf.compare(*models, **read_setting(parsed), ci=parsed.ci)
    if parsed.json:
        print(to_json({name: difference._asdict() for name, difference in found.items()}))
    else:
        print(f"A: {parsed.model_a}\nB: {parsed.model_b}\n")
        _print_table(found, parsed.ci)
        n_excluded = max(each.n_excluded for each in found.values())
        if n_excluded:
            print(
                f"\n{n_excluded:,} test ratings are of items that are not ranked for the user, and can only be missed"
            )
    return 0


def _print_table(found: "Mapping[str, Difference]", ci: float) -> None:
    rows: list[tuple[str, ...]] = [
        ("", "A", "B", "B - A", f"{100 * ci:g} % interval", "p", "users", "won", "tied", "lost")
    ]
    for name, each in found.items():
        interval = "undefined" if each.low is None else f"{_number(each.low)} .. {_number(each.high)}"
        counts = (each.n_users, each.n_won, each.n_tied, each.n_lost)
        measured = (_number(each.a), _number(each.b), _number(each.difference), interval, _chance(each.p_value))
        rows.append((name, *measured, *map(show, counts)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        print("  ".join([first.ljust(widths[0]), *cells]))


def _chance(p_value: float | None) -> str:
    """Write a p-value, which is never 0."""
    return "<0.001" if p_value is not None and p_value < 0.001 else _number(p_value, 3)


def _number(value: float | None, n_digits: int = 4) -> str:
    return "undefined" if value is None else f"{value:.{n_digits}f}"
