"""Train a model on ratings in Parquet.

example:
  fastmf train ratings/ --model implicit-als --output model --factors 64 --validation-fraction 0.1

With --item-features and --user-features, models als and implicit-als learn from what is known of items and users:
those without ratings get factors, too. Columns of numbers, categories, tags (lists, or a text with | between them).

Hyper-parameters that are "auto" are chosen from the data. With validation, --patience keeps the best epoch, and --refit
then trains on everything.
"""

import argparse
from typing import TYPE_CHECKING, Any

from fastmf.cli.checkpoint_options import (
    INTERRUPTED,
    REFIT,
    add_checkpoint_options,
    checkpointing,
    how_to_go_on,
    load_start,
    note_refit_goes_on,
    note_saved_early,
    require_free,
)
from fastmf.cli.configuration import add_config_options
from fastmf.cli.feature_options import (
    add_feature_options,
    described_features,
    read_features,
    require_taken,
    require_uses,
)
from fastmf.cli.interruptions import Request, letting_epochs_end
from fastmf.cli.options import add_column_options, add_run_options, note, print_result
from fastmf.cli.run_log import add_log_option, callbacks_of, log_data, log_interruption, log_result
from fastmf.cli.validation import Parts, add_validation_options, described, is_asked_for, read_parts, require_consistent
from fastmf.errors import ParameterError

if TYPE_CHECKING:
    from fastmf import Features
    from fastmf.models import Model
    from fastmf.models.hyper_parameters import Chosen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    from fastmf.cli.model_options import add_model_option, add_parameter_options

    parser.add_argument("ratings", nargs="+", metavar="RATINGS", help="Parquet file, directory or pattern")
    add_model_option(parser)
    parser.add_argument("--output", required=True, metavar="DIR", help="model directory to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing model")
    parser.add_argument(
        "--factor-dtype",
        choices=("float32", "float16"),
        default="float32",
        help="how the model stores factors; float16 takes half the bytes (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers (default: %(default)s)")
    add_validation_options(parser)
    add_checkpoint_options(parser)
    add_column_options(parser)
    add_feature_options(parser)
    add_parameter_options(parser)
    add_run_options(parser)
    add_log_option(parser)
    add_config_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Train, save, and print the metrics of the epoch whose factors were kept."""
    try:
        return _run(parsed)
    except KeyboardInterrupt as error:
        error.add_note(how_to_go_on(parsed))
        raise


def _run(parsed: argparse.Namespace) -> int:
    from fastmf.cli.model_options import choose_model, make_candidates
    from fastmf.keeping.model_directory import require_replaceable
    from fastmf.measuring.beside_baseline import beside_baseline

    require_consistent(parsed)
    require_uses(parsed)
    candidates = make_candidates(parsed)
    require_taken(candidates, parsed)
    for model in candidates.values():
        _require_validation_for_patience(model, parsed)
    require_replaceable(parsed.output, parsed.overwrite)
    require_free(parsed)
    start = load_start(candidates, parsed)
    features = read_features(parsed, candidates)
    parts = read_parts(parsed)
    data = described(parts, parsed) | described_features(features, parsed)
    log_data(parts.train, parsed, **data)
    trained = choose_model(candidates, parts.train, parsed)
    with letting_epochs_end(parsed.keep_on_interrupt) as request:
        how = {"callbacks": [*callbacks_of(parsed), *request.callbacks], **checkpointing(parsed), **features}
        trained.fit(parts.train, validation=parts.validation, start=start, **how)
        baseline = _baseline(trained, parts)
        if not request.was_made:
            _note_stop(trained, parsed)
        is_wanted = parsed.refit and not request.was_made
        refitted = _refit(trained, start, parts, parsed, request, features) if is_wanted else None
    model = trained if refitted is None else refitted
    if request.was_made:
        model.history[-1][INTERRUPTED] = True
    kept = _kept(trained, is_refitted=refitted is not None)
    result: dict[str, Any] = {"model": parsed.output, "n_ratings": parts.train.n_ratings, **kept}
    result["seconds"] = sum(record["seconds"] for record in trained.history)
    details = {"model_class": type(model).__name__, **baseline, **data, "history": trained.history}
    if refitted is not None:
        details["refit"] = _described(refitted, len(trained.history), parsed)
    if model.chosen:
        note(f"chose {_in_words(model.chosen)} from the data", parsed)
    source = {"files": parsed.ratings, **{name: getattr(parsed, name) for name in features}, **baseline}
    model.save(parsed.output, overwrite=parsed.overwrite, source=source, factor_dtype=parsed.factor_dtype)
    if request.was_made:
        result[INTERRUPTED] = True
        note_saved_early(model, len(model.history) - (0 if refitted is None else len(trained.history)), parsed)
    details |= {"chosen": model.chosen, "warnings": parsed.warned}
    log_result(result | {name: details[name] for name in details if name != "history"}, parsed)
    if request.was_made:
        log_interruption(parsed)
    shown = beside_baseline(result | baseline, model.is_implicit)
    if refitted is not None:
        shown["saved"] = _saved(details["refit"])
    print_result(result | details if parsed.json else shown, parsed.json)
    return request.status


def _require_validation_for_patience(model: "Model", parsed: argparse.Namespace) -> None:
    """Find before anything is read what `fit` would find after it."""
    patience = getattr(model, "patience", None)
    if patience is not None and not is_asked_for(parsed):
        raise ParameterError(
            f"--patience is {patience} but there is no validation set; add --validation-fraction, --validation-by or "
            "--validation"
        )


def _kept(model: "Model", is_refitted: bool) -> dict[str, Any]:
    """Return the record of the epoch that counts: the best one, if it was kept or trained for again, or the last."""
    from fastmf.models.refitting import best_validated
    from fastmf.models.training import kept_record

    if is_refitted:
        return best_validated(model)
    return kept_record(model.history, model.best_epoch)


def _note_stop(model: "Model", parsed: argparse.Namespace) -> None:
    """Say after which epoch a lack of progress has ended training, and which epoch was the best."""
    patience, best = getattr(model, "patience", None), model.best_epoch
    n_done = len(model.history)
    if patience is None or best is None or n_done - best < patience or n_done == getattr(model, "n_epochs", n_done):
        return
    kept = "was the best" if parsed.refit else "is kept"
    note(f"stopped after epoch {n_done}: no better for {_epochs(n_done - best)}; epoch {best} {kept}", parsed)


def _baseline(model: "Model", parts: Parts) -> dict[str, Any]:
    """Return the validation metrics of the model's baseline, by the names of the model's own, with a prefix."""
    from fastmf.measuring.beside_baseline import baseline_metrics
    from fastmf.models.base import VALIDATION_K

    if parts.validation is None:
        return {}
    k = min(VALIDATION_K, model.fitted.n_items)
    metrics = baseline_metrics(model, parts.validation, k=k, metrics=model.validation_metrics)
    return {name.replace("baseline_", "baseline_validation_"): value for name, value in metrics.items()}


def _refit(
    model: "Model",
    start: "Model | None",
    parts: Parts,
    parsed: argparse.Namespace,
    request: Request,
    features: "dict[str, Features]",
) -> "Model":
    """Train again on everything, from what the training before began at."""
    import fastmf

    note_refit_goes_on(parsed)
    callbacks = [*callbacks_of(parsed), *request.callbacks]
    how = {**checkpointing(parsed, REFIT), **features}
    return fastmf.refit(model, parts.whole, callbacks=callbacks, start=start, **how)


def _described(model: "Model", n_before: int, parsed: argparse.Namespace) -> dict[str, Any]:
    """Say for how long and on what a model was trained again; return it for programs."""
    history = model.history[n_before:]
    n_ratings = model.fitted.data["n_ratings"]
    note(f"trained again for {_epochs(len(history))} on all {n_ratings:,} ratings; this model is saved", parsed)
    return {"n_epochs": len(history), "n_ratings": n_ratings, "history": history}


def _saved(refit: dict[str, Any]) -> str:
    """Say what was saved in place of the model that the metrics are of."""
    return f"trained again, {_epochs(refit['n_epochs'])}, {refit['n_ratings']:,} ratings"


def _epochs(n: int) -> str:
    return "1 epoch" if n == 1 else f"{n:,} epochs"


def _in_words(chosen: "Chosen") -> str:
    """Write parameters and their values as a person would."""
    words = {name: value if isinstance(value, str) else f"{value:.3g}" for name, value in chosen.items()}
    return ", ".join(f"{name}={word}" for name, word in words.items())
