"""Search for good hyper-parameters of a model, and train it with them on all ratings.

example:
  fastmf tune ratings.parquet --model implicit-als --output tuned --minutes 10

Models with hyper-parameters drawn at random, later near the best ones, are trained on a part of the ratings and
compared on the rest. All run a few epochs, and the best third of them more. Hyper-parameters that are given stay as
they are; --space says which to search, and where:

  --space factors=32,64,128                     one of these
  --space regularization=0.001..1:log           a number in a range, by its logarithm
  --space regularization-exponent=0.5..1        a number in a range, or an integer where both bounds are integers
  --space regularization=x0.25..4               0.25 to 4 times what it would be otherwise

DIR/trials.parquet has a row for each trial, and DIR/model the trained model. The same call goes on after a search that
was interrupted, or that had less time or fewer trials.
"""

import argparse
import math
import shlex
from typing import TYPE_CHECKING, Any

from fastmf.cli.options import (
    add_column_options,
    add_run_options,
    fraction,
    note,
    positive_integer,
    print_result,
    read_ratings,
)
from fastmf.cli.validation import require_consistent
from fastmf.errors import ParameterError

if TYPE_CHECKING:
    from fastmf.models import Model
    from fastmf.tuning import Tuned

_DEFAULT_SHARE = 0.1

_WORDS = {"None": None, "True": True, "true": True, "False": False, "false": False}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    from fastmf.cli.model_options import add_model_option, add_parameter_options

    parser.add_argument("ratings", nargs="+", metavar="RATINGS", help="Parquet file, directory or pattern")
    add_model_option(parser)
    parser.add_argument("--output", required=True, metavar="DIR", help="directory of trials and of the model")
    parser.add_argument("--overwrite", action="store_true", help="replace the trials of another search")
    _add_search_options(parser)
    _add_validation_options(parser)
    add_column_options(parser)
    add_parameter_options(parser)
    add_run_options(parser)


def _add_search_options(parser: argparse.ArgumentParser) -> None:
    from fastmf.tuning.samplers import SAMPLERS

    search = parser.add_argument_group("search")
    search.add_argument(
        "--space",
        action="append",
        metavar="NAME=VALUES",
        help="hyper-parameter to search; may be given several times (default: those that matter most for the model)",
    )
    search.add_argument(
        "--trials", dest="n_trials", type=positive_integer, metavar="N", help="models to try (default: 27)"
    )
    search.add_argument("--minutes", type=_positive, metavar="M", help="end the search after so long (default: never)")
    search.add_argument(
        "--max-epochs",
        type=positive_integer,
        metavar="N",
        help="most epochs of a training (default: 3 times those of the model)",
    )
    search.add_argument("--metric", help="what to improve, such as rmse or recall@20 (default: that of the model)")
    search.add_argument(
        "--sampler",
        choices=SAMPLERS,
        default="local",
        help="how hyper-parameters are drawn: mostly near the best so far; at random; or by Optuna, which needs "
        'pip install "fastmf[tune]" (default: %(default)s)',
    )
    search.add_argument(
        "--parallel",
        dest="n_parallel",
        type=positive_integer,
        metavar="N",
        help="trainings side by side (default: one for every four threads)",
    )
    search.add_argument("--seed", type=int, default=0, help="seed of all random numbers (default: %(default)s)")


def _add_validation_options(parser: argparse.ArgumentParser) -> None:
    from fastmf.reading.split import HELD_OUT_BY

    held_out = parser.add_argument_group("ratings to compare trials on")
    held_out.add_argument(
        "--validation-fraction", type=fraction, metavar="F", help="share of ratings to hold out (default: 0.1)"
    )
    held_out.add_argument(
        "--validation", metavar="FILE", help="ratings of their own; in the end the model is trained on them, too"
    )
    held_out.add_argument(
        "--validation-by",
        choices=HELD_OUT_BY,
        help="hold out ratings at random, of every user at random, the newest, or the last one of every user "
        "(default: random)",
    )
    parser.set_defaults(refit=False)  # an option of `train`: this command always does


def run(parsed: argparse.Namespace) -> int:
    """Search, save, and print the best score, those of the default and the baseline, and how to train the model."""
    import fastmf
    from fastmf.cli.model_options import choose_model, make_candidates
    from fastmf.measuring.beside_baseline import verdict

    require_consistent(parsed)
    candidates = make_candidates(parsed)
    for name, model in candidates.items():
        _require_epochs(name, model)
        _space(parsed, model)
    ratings = read_ratings(parsed.ratings, parsed)
    note(f"read {ratings.n_ratings:,} ratings of {ratings.n_users:,} users on {ratings.n_items:,} items", parsed)
    validation = _DEFAULT_SHARE if parsed.validation_fraction is None else parsed.validation_fraction
    if parsed.validation is not None:
        validation = read_ratings(parsed.validation, parsed)
    model = choose_model(candidates, ratings, parsed)
    tuned = fastmf.tune(
        model,
        ratings,
        space=_space(parsed, model),
        validation=validation,
        validation_by=parsed.validation_by or "random",
        metric=parsed.metric,
        n_trials=parsed.n_trials,
        minutes=parsed.minutes,
        max_epochs=parsed.max_epochs,
        sampler=parsed.sampler,
        seed=parsed.seed,
        output=parsed.output,
        overwrite=parsed.overwrite,
        n_parallel=parsed.n_parallel,
    )
    print_result(_result(tuned, parsed), parsed.json)
    found = verdict(
        {tuned.metric: tuned.score, f"baseline_{tuned.metric}": tuned.baseline_score}, tuned.model.is_implicit
    )
    if found is not None and not parsed.json:
        print(found)
    return 0


def _require_epochs(name: str, model: "Model") -> None:
    from fastmf.models import FactorModel

    if not isinstance(model, FactorModel):
        raise ParameterError(f"--model {name} has nothing to tune; expected a model that is trained in epochs")


def _space(parsed: argparse.Namespace, model: "Model") -> dict[str, Any] | None:
    return None if parsed.space is None else dict(_parse(text, model) for text in parsed.space)


def _result(tuned: "Tuned", parsed: argparse.Namespace) -> dict[str, Any]:
    scores = {"best": tuned.score, "default": tuned.default_score, "baseline": tuned.baseline_score}
    result: dict[str, Any] = {
        "model": f"{parsed.output.rstrip('/')}/model",
        "n_trials": len(tuned.trials),
        **{f"{name} {tuned.metric}": score for name, score in scores.items() if score is not None},
        "seconds": sum(tuned.trials["seconds"].to_pylist()),
    }
    if parsed.json:
        result |= {"model_class": type(tuned.model).__name__, "parameters": tuned.params, "warnings": parsed.warned}
    return {**result, "command": _command(tuned, parsed), "python": tuned.python}


def _command(tuned: "Tuned", parsed: argparse.Namespace) -> str:
    """Return the command that trains the model."""
    from fastmf.cli.model_options import as_arguments, command_name

    name = command_name(type(tuned.model))
    ratings = [*parsed.ratings, *([] if parsed.validation is None else [parsed.validation])]
    words = ["fastmf", "train", *ratings, "--model", name, "--output", "MODEL", *_column_arguments(parsed)]
    run = [*_given("--seed", parsed.seed, 0), *_given("--device", parsed.device, "cpu")]
    return shlex.join([*words, *as_arguments(tuned.model), *run])


def _column_arguments(parsed: argparse.Namespace) -> list[str]:
    words = [
        *_given("--user-column", parsed.user_column, "user_id"),
        *_given("--item-column", parsed.item_column, "item_id"),
        *_given("--timestamp-column", parsed.timestamp_column, None),
    ]
    if parsed.rating_column is None:
        words.append("--no-rating-column")
    else:
        words += _given("--rating-column", parsed.rating_column, "rating")
    # A pair that is rated in both files counts with its later rating.
    duplicates = parsed.duplicates if parsed.validation is None else "last"
    return [*words, *_given("--duplicates", duplicates, "error")]


def _given(option: str, value: Any, default: Any) -> list[str]:
    return [] if value == default else [option, str(value)]


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (0 < value < math.inf):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _parse(text: str, model: Any) -> tuple[str, Any]:
    """Return the parameter that a ``--space`` names, and its range."""
    name, equals, values = text.partition("=")
    parameter = _parameter_of(name.strip().lstrip("-").replace("-", "_"), model)
    if not equals or not values:
        example = "factors=32,64 or regularization=0.01..1:log"
        raise ParameterError(f"--space is {text!r}; expected NAME=VALUES, such as {example}")
    return parameter, _as_range(values, text)


def _parameter_of(name: str, model: Any) -> str:
    params = model.get_params()
    return next((known for known in (name, f"n_{name}", name.removeprefix("no_")) if known in params), name)


def _as_range(values: str, text: str) -> Any:
    from fastmf.tuning import Integers, LogUniform, Multiple, Uniform

    if ".." not in values:
        return [_as_value(word.strip()) for word in values.split(",")]
    bounds = values.removeprefix("x").removesuffix(":log").partition("..")
    low, high = (_as_value(word.strip()) for word in (bounds[0], bounds[2]))
    if not all(isinstance(bound, (int, float)) and not isinstance(bound, bool) for bound in (low, high)):
        raise ParameterError(f"--space is {text!r}; expected numbers on both sides of the two dots")
    if values.startswith("x"):
        return Multiple(low, high)
    if values.endswith(":log"):
        return LogUniform(low, high)
    return Integers(low, high) if isinstance(low, int) and isinstance(high, int) else Uniform(low, high)


def _as_value(word: str) -> Any:
    if word in _WORDS:
        return _WORDS[word]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word
