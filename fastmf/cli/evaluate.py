"""Measure a model on test ratings.

example:
  fastmf evaluate model test.parquet -k 10 20

For each user, items are ranked by their scores, without the items of the training ratings; --exclude names other
ratings to leave out instead, and --among the only items to rank. Users and items without training ratings take no part,
unless --cold says otherwise. For an implicit model, rmse and mae measure against a preference: 1 for a rating above 0,
and 0 for others.

Counts: n_ratings test ratings; n_unknown of them, of a user or item without training ratings; n_excluded of them, of an
item that is left out for the user, and can only be missed; n_users, for whom items were ranked; n_cold_users, with test
ratings but no training ratings; and with --among n_unknown_candidates, which have no training ratings and are left out.

Beside each metric stands that of what the model has to beat, fitted to the same ratings: the biases of users and items
(bias-only) for a model of ratings, popularity for an implicit one. Where the baseline is clearly better by rmse, or by
the metric by which the model selects epochs, a last line says so.
"""

import argparse
from typing import Any

from fastmf.cli.configuration import add_config_options
from fastmf.cli.options import add_run_options, fraction, load_model, note, print_result, show
from fastmf.cli.run_log import add_log_option, log_result
from fastmf.cli.setting_options import add_setting_options, read_setting

# So large a share of the test ratings may have been trained on.
_MOST_TRAINED_ON = 0.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("model", metavar="MODEL", help="model directory")
    add_setting_options(parser)
    parser.add_argument(
        "--ci",
        type=fraction,
        nargs="?",
        const=0.95,
        metavar="LEVEL",
        help="add confidence intervals over users to the metrics, as ndcg@10_low and ndcg@10_high (level: 0.95)",
    )
    parser.add_argument(
        "--per-user",
        metavar="OUT.parquet",
        help="also write a table with the metrics of each user, and the numbers of relevant items and of ratings",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument(
        "--no-baseline",
        action="store_true",
        help="leave out the metrics of the baseline; a model that an earlier version saved may have none",
    )
    add_run_options(parser)
    add_log_option(parser)
    add_config_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Evaluate and print the metrics."""
    import fastmf
    from fastmf.common.files import require_absent
    from fastmf.measuring.beside_baseline import has_baseline, verdict
    from fastmf.models import FactorModel
    from fastmf.reading.parquet import write_table

    if parsed.per_user is not None:
        require_absent(parsed.per_user, parsed.overwrite)
    model, setting = load_model(parsed.model, parsed), read_setting(parsed)
    if parsed.per_user is not None:
        table = fastmf.evaluate(model, **setting, per_user=True)
        write_table(table, parsed.per_user, parsed.overwrite)
        note(f"wrote the metrics of {len(table):,} users to {parsed.per_user}", parsed)
    results = fastmf.evaluate(model, **setting, ci=parsed.ci, baseline=not parsed.no_baseline)
    if not parsed.no_baseline and isinstance(model, FactorModel) and not has_baseline(results):
        note("no baseline: the model was saved by an earlier version; fit it again", parsed)
    _note_training_ratings(results, parsed)
    log_result(results, parsed)
    print_result(results if parsed.json else _in_words(results, model.is_implicit), parsed.json)
    found = verdict(results, model.is_implicit, {"rmse", model.validation_metrics[0]})
    if found is not None and not parsed.json:
        print(found)
    return 0


def _note_training_ratings(results: dict[str, Any], parsed: argparse.Namespace) -> None:
    """Say that many of the test ratings were trained on; with --exclude, other ratings are left out."""
    n_ratings, n_excluded = results.get("n_ratings", 0), results.get("n_excluded", 0)
    if parsed.exclude is None and n_excluded > _MOST_TRAINED_ON * n_ratings:
        note(
            f"{n_excluded:,} of {n_ratings:,} test ratings were trained on: errors include them, rankings leave them "
            "out",
            parsed,
        )


def _in_words(results: dict[str, Any], is_implicit: bool) -> dict[str, Any]:
    """Put a metric, its interval and that of the baseline into one line, and say what is undefined."""
    from fastmf.measuring.baseline import name_of_baseline

    words = {name: "undefined" if value is None else value for name, value in results.items()}
    for name in [name for name in words if f"{name}_low" in words]:
        low, high = words.pop(f"{name}_low"), words.pop(f"{name}_high")
        if results[name] is not None:
            bounds = "one user has no interval" if results[f"{name}_low"] is None else f"{show(low)} .. {show(high)}"
            words[name] = f"{show(words[name])}  ({bounds})"
    for name in [name for name in words if f"baseline_{name}" in words]:
        other = words.pop(f"baseline_{name}")
        if results[name] is not None:
            words[name] = f"{show(words[name])}, {name_of_baseline(is_implicit)} {show(other)}"
    return words
