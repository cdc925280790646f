"""Search for good hyper-parameters of a model, and train it with them on all ratings.

example:
  fastmf tune ratings.parquet --model implicit-als --output tuned --minutes 10

Models with hyper-parameters drawn at random, later near the best ones, are trained on a part of the ratings and
compared on the rest. All run a few epochs, and the best third of them more. Hyper-parameters that are given stay as
they are, but for the number of epochs, which is always found anew: --epochs is that of the first model, whose score is
shown as the default, and by default a third of --max-epochs. --space says what to search, and where:

  --space factors=32,64,128                     one of these
  --space regularization=0.001..1:log           a number in a range, by its logarithm
  --space regularization-exponent=0.5..1        a number in a range, or an integer where both bounds are integers
  --space regularization=x0.25..4               0.25 to 4 times what it would be otherwise

DIR/trials.parquet has a row for each trial, and DIR/model the trained model. The same call goes on after a search that
was interrupted, or that had less time or fewer trials; trials that are there all count.
"""

import argparse
import math
import shlex
from typing import TYPE_CHECKING, Any

from fastmf.cli.configuration import add_config_options
from fastmf.cli.options import (
    add_column_options,
    add_run_options,
    fraction,
    note,
    positive_integer,
    print_result,
    read_ratings,
)
from fastmf.cli.run_log import add_log_option, log_data, log_result
from fastmf.cli.validation import DEFAULT_SHARE, duplicates_of_whole, read_whole, require_consistent, require_same_ids
from fastmf.errors import ParameterError

if TYPE_CHECKING:
    from fastmf import Interactions
    from fastmf.models import Model
    from fastmf.tuning import Tuned
    from fastmf.tuning.held_out import Apart

_WORDS = {"None": None, "True": True, "true": True, "False": False, "false": False}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    from fastmf.cli.model_options import add_model_option, add_parameter_options

    parser.add_argument("ratings", nargs="+", metavar="RATINGS", help="Parquet file, directory or pattern")
    add_model_option(parser)
    parser.add_argument("--output", required=True, metavar="DIR", help="directory of trials and of the model")
    parser.add_argument(
        "--overwrite", action="store_true", help="start anew: replace the trials and the model that are there"
    )
    _add_search_options(parser)
    _add_validation_options(parser)
    add_column_options(parser)
    add_parameter_options(parser)
    add_run_options(parser)
    add_log_option(parser)
    add_config_options(parser)


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
    _require_no_patience(parsed)
    candidates = make_candidates(parsed)
    for name, model in candidates.items():
        _require_epochs(name, model)
        _space(parsed, model)
    ratings = read_ratings(parsed.ratings, parsed)
    note(f"read {ratings.n_ratings:,} ratings of {ratings.n_users:,} users on {ratings.n_items:,} items", parsed)
    log_data(ratings, parsed)
    validation = _read_apart(ratings, parsed) or parsed.validation_fraction or DEFAULT_SHARE
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
    found = verdict(
        {tuned.metric: tuned.score, f"baseline_{tuned.metric}": tuned.baseline_score}, tuned.model.is_implicit
    )
    result = _result_for_programs(tuned, found, parsed)
    log_result(result, parsed)
    if parsed.json:
        print_result(result, as_json=True)
        return 0
    print_result(_result(tuned, parsed), as_json=False)
    if found is not None:
        print(found)
    return 0


def _require_no_patience(parsed: argparse.Namespace) -> None:
    if parsed.patience is not None:
        raise ParameterError(
            "--patience is not an option of a search, which ends a training after a ninth of --max-epochs without a "
            "better score, and keeps the best number of epochs; leave it out"
        )


def _read_apart(ratings: "Interactions", parsed: argparse.Namespace) -> "Apart | None":
    """Read the ratings of --validation, and all ratings as the command that trains the model will read them."""
    from fastmf.tuning.held_out import Apart

    if parsed.validation is None:
        return None
    validation = read_ratings(parsed.validation, parsed)
    require_same_ids(ratings, validation, parsed)
    return Apart(validation, read_whole(parsed))


def _require_epochs(name: str, model: "Model") -> None:
    from fastmf.models import FactorModel

    if not isinstance(model, FactorModel):
        raise ParameterError(f"--model {name} has nothing to tune; expected a model that is trained in epochs")


def _space(parsed: argparse.Namespace, model: "Model") -> dict[str, Any] | None:
    if parsed.space is None:
        return None
    space: dict[str, Any] = {}
    for text in parsed.space:
        parameter, values = _parse(text, model)
        if parameter in space:
            raise ParameterError(f"--space is given twice for {parameter}, the second time as {text!r}; give it once")
        space[parameter] = values
    return space


def _result(tuned: "Tuned", parsed: argparse.Namespace) -> dict[str, Any]:
    scores = {"best": tuned.score, "default": tuned.default_score, "baseline": tuned.baseline_score}
    return {
        "model": _model_path(parsed),
        "n_trials": len(tuned.trials),
        **{f"{name} {tuned.metric}": score for name, score in scores.items() if score is not None},
        "seconds": sum(tuned.trials["seconds"].to_pylist()),
        "command": _command(tuned, parsed),
        "python": tuned.python_on(_ratings_in_python(parsed)),
    }


def _result_for_programs(tuned: "Tuned", found: str | None, parsed: argparse.Namespace) -> dict[str, Any]:
    """Return the same under names that do not depend on the metric."""
    return {
        "model": _model_path(parsed),
        "model_class": type(tuned.model).__name__,
        "n_trials": len(tuned.trials),
        "metric": tuned.metric,
        "score": tuned.score,
        "default_score": tuned.default_score,
        "baseline_score": tuned.baseline_score,
        "seconds": sum(tuned.trials["seconds"].to_pylist()),
        "parameters": tuned.params,
        "warnings": [*parsed.warned, *([] if found is None else [found])],
        "command": _command(tuned, parsed),
        "python": tuned.python_on(_ratings_in_python(parsed)),
    }


def _model_path(parsed: argparse.Namespace) -> str:
    return f"{parsed.output.rstrip('/')}/model"


def _all_ratings(parsed: argparse.Namespace) -> list[str]:
    """Return the files that the best model is trained on."""
    return [*parsed.ratings, *([] if parsed.validation is None else [parsed.validation])]


def _duplicates(parsed: argparse.Namespace) -> str:
    return str(parsed.duplicates) if parsed.validation is None else duplicates_of_whole(parsed)


def _ratings_in_python(parsed: argparse.Namespace) -> str:
    """Return the Python that reads the files that the best model is trained on."""
    files = _all_ratings(parsed)
    given = {
        "user": (parsed.user_column, "user_id"),
        "item": (parsed.item_column, "item_id"),
        "rating": (parsed.rating_column, "rating"),
        "timestamp": (parsed.timestamp_column, None),
        "duplicates": (_duplicates(parsed), "error"),
    }
    words = [f"{name}={value!r}" for name, (value, default) in given.items() if value != default]
    return f"fastmf.read_parquet({', '.join([repr(files[0] if len(files) == 1 else files), *words])})"


def _command(tuned: "Tuned", parsed: argparse.Namespace) -> str:
    """Return the command that trains the model."""
    from fastmf.cli.model_options import as_arguments, command_name

    name = command_name(type(tuned.model))
    words = ["fastmf", "train", *_all_ratings(parsed), "--model", name, "--output", "MODEL", *_column_arguments(parsed)]
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
    return [*words, *_given("--duplicates", _duplicates(parsed), "error")]


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
    if not equals or not values:
        example = "factors=32,64 or regularization=0.01..1:log"
        raise ParameterError(f"--space is {text!r}; expected NAME=VALUES, such as {example}")
    parameter, is_negated = _parameter_of(name.strip().lstrip("-"), text, model)
    given = _as_range(values, text)
    if not is_negated:
        return parameter, given
    if not isinstance(given, list) or not all(isinstance(value, bool) for value in given):
        raise ParameterError(f"--space is {text!r}; expected true, false or both after the =")
    return parameter, [not value for value in given]


def _parameter_of(name: str, text: str, model: Any) -> tuple[str, bool]:
    """Return the parameter that a name means, and whether it is the name of an option that sets it to false."""
    from fastmf.cli.model_options import option_names

    names = option_names(type(model))
    word = name.replace("_", "-")
    if word in ("epochs", "n-epochs", "patience"):
        raise ParameterError(
            f"--space is {text!r}; a search finds the number of epochs by itself: leave it out, and bound them by "
            "--max-epochs"
        )
    for option, parameter, is_negated in names:
        if word == option:
            return parameter, is_negated
        if word == parameter.replace("_", "-"):
            return parameter, False
    expected = ", ".join(option for option, *_ in names if option not in ("epochs", "patience"))
    raise ParameterError(f"--space is {text!r}; {name!r} is nothing that is searched: expected one of {expected}")


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
