"""Train a model on ratings in Parquet.

example:
  fastmf train ratings/ --model implicit-als --output model --factors 64 --validation-fraction 0.1
"""

import argparse
from pathlib import Path
from typing import Any

from fastmf.cli.options import (
    add_column_options,
    add_run_options,
    fraction,
    note,
    positive_integer,
    print_result,
    read_ratings,
)
from fastmf.errors import ParameterError

_MODELS = {"implicit-als": "ImplicitALS", "als": "ALS", "sgd": "SGD", "svdpp": "SVDpp", "bpr": "BPR"}
# Command-line name -> parameter; each is passed on only if given, so that defaults live in the models.
_PARAMETERS = {
    "factors": "n_factors",
    "epochs": "n_epochs",
    "regularization": "regularization",
    "regularization_scaling": "regularization_scaling",
    "regularization_exponent": "regularization_exponent",
    "item_regularization": "item_regularization",
    "bias_regularization": "bias_regularization",
    "item_bias_regularization": "item_bias_regularization",
    "implicit_learning_rate": "implicit_learning_rate",
    "implicit_regularization": "implicit_regularization",
    "biases": "biases",
    "learning_rate": "learning_rate",
    "bias_learning_rate": "bias_learning_rate",
    "learning_rate_decay": "learning_rate_decay",
    "adaptive": "adaptive",
    "loss": "loss",
    "negatives": "n_negatives",
    "storage": "storage",
    "rating_range": "rating_range",
    "unobserved_weight": "unobserved_weight",
    "alpha": "alpha",
    "weighting": "weighting",
    "init_scale": "init_scale",
    "solver": "solver",
    "cg_steps": "cg_steps",
    "block_size": "block_size",
    "nonnegative": "nonnegative",
    "patience": "patience",
}

_OPTIONS = {"biases": "--no-biases", "adaptive": "--constant-steps"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("ratings", nargs="+", metavar="RATINGS", help="Parquet file, directory or pattern")
    parser.add_argument("--model", choices=sorted(_MODELS), required=True, help="which model to train")
    parser.add_argument("--output", required=True, metavar="DIR", help="model directory to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing model")
    parser.add_argument(
        "--validation-fraction", type=fraction, metavar="F", help="share of ratings held out and measured each epoch"
    )
    parser.add_argument(
        "--patience",
        type=positive_integer,
        metavar="N",
        help="stop after so many epochs without a better validation figure, and keep the best epoch",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: %(default)s)")
    add_column_options(parser)
    group = parser.add_argument_group("hyper-parameters (defaults: those of the Python class)")
    group.add_argument("--factors", type=positive_integer, metavar="N", help="length of the factor vectors")
    group.add_argument("--epochs", type=positive_integer, metavar="N", help="passes over the data")
    group.add_argument("--regularization", type=float, metavar="X", help="L2 strength")
    group.add_argument("--init-scale", type=float, metavar="X", help="size of the first factors")
    group.add_argument(
        "--no-biases", dest="biases", action="store_const", const=False, help="als, sgd, svdpp, bpr: leave out biases"
    )
    group.add_argument(
        "--regularization-scaling", choices=("count", "none"), help="als, sgd, svdpp, bpr: scale L2 by a row's count"
    )
    group.add_argument(
        "--solver", choices=("cholesky", "cg", "subspace"), help="als, implicit-als: exact, or faster with many factors"
    )
    group.add_argument("--cg-steps", type=positive_integer, metavar="N", help="als, implicit-als, cg: steps a row")
    group.add_argument("--block-size", type=positive_integer, metavar="N", help="als, implicit-als, subspace: factors")
    group.add_argument(
        "--nonnegative", action="store_const", const=True, help="als, implicit-als: let no factor fall below 0"
    )
    _add_descent_options(group)
    group.add_argument("--weighting", choices=("rendle", "hu"), help="implicit-als: whose objective")
    group.add_argument(
        "--unobserved-weight", type=float, metavar="X", help="implicit-als, rendle: weight of unseen cells"
    )
    group.add_argument("--alpha", type=float, metavar="X", help="implicit-als: weight of one unit of rating")
    group.add_argument(
        "--regularization-exponent", type=float, metavar="X", help="implicit-als, rendle: exponent of L2"
    )
    add_run_options(parser)


def _add_descent_options(group: "argparse._ArgumentGroup") -> None:
    for option, text in (
        ("learning-rate", "first step size"),
        ("bias-learning-rate", "first step size of biases"),
        ("learning-rate-decay", "factor on step sizes after each epoch"),
        ("item-regularization", "L2 strength on item factors, if not that of users"),
        ("bias-regularization", "L2 strength on biases"),
        ("item-bias-regularization", "L2 strength on item biases, if not that of users"),
    ):
        group.add_argument(f"--{option}", type=float, metavar="X", help=f"sgd, svdpp, bpr: {text}")
    group.add_argument("--implicit-learning-rate", type=float, metavar="X", help="svdpp: step size of y")
    group.add_argument("--implicit-regularization", type=float, metavar="X", help="svdpp: L2 strength on y")
    group.add_argument(
        "--constant-steps", dest="adaptive", action="store_const", const=False, help="sgd, svdpp, bpr: no AdaGrad"
    )
    group.add_argument("--loss", choices=("squared", "logistic"), help="sgd: of ratings, or of what was chosen")
    group.add_argument("--storage", choices=("float32", "float16"), help="sgd, --device cuda: of factors in training")
    group.add_argument("--negatives", type=positive_integer, metavar="N", help="bpr, sgd, logistic: draws a rating")
    group.add_argument(
        "--rating-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="sgd, svdpp: sigmoid into this range"
    )


def run(parsed: argparse.Namespace) -> int:
    """Train, save, and print the figures of the epoch whose factors were kept."""
    import fastmf
    from fastmf.keeping.model_directory import require_replaceable

    model = _make_model(parsed)
    require_replaceable(Path(parsed.output), parsed.overwrite)
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


def _make_model(parsed: argparse.Namespace) -> Any:
    import fastmf

    model_class = getattr(fastmf, _MODELS[parsed.model])
    given = {name: value for name in _PARAMETERS if (value := getattr(parsed, name)) is not None}
    known = model_class().get_params()
    for name in given:
        if _PARAMETERS[name] not in known:
            option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
            raise ParameterError(f"{option} is not a hyper-parameter of --model {parsed.model}; leave it out")
    params = {_PARAMETERS[name]: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return model_class(
        **params, seed=parsed.seed, backend=parsed.device, n_threads=parsed.threads, verbose=not parsed.quiet
    )
