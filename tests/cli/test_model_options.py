"""The options of ``fastmf train`` that are hyper-parameters come from the models."""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

import fastmf
import fastmf_kernels
from fastmf.cli import make_parser, model_options
from fastmf.models import MODELS

Done = CompletedProcess[str]

# Scripts rely on these names.
FLAGS = {
    "--factors": "n_factors",
    "--epochs": "n_epochs",
    "--regularization": "regularization",
    "--regularization-scaling": "regularization_scaling",
    "--regularization-exponent": "regularization_exponent",
    "--item-regularization": "item_regularization",
    "--bias-regularization": "bias_regularization",
    "--item-bias-regularization": "item_bias_regularization",
    "--implicit-learning-rate": "implicit_learning_rate",
    "--implicit-regularization": "implicit_regularization",
    "--no-biases": "biases",
    "--learning-rate": "learning_rate",
    "--bias-learning-rate": "bias_learning_rate",
    "--learning-rate-decay": "learning_rate_decay",
    "--constant-steps": "adaptive",
    "--loss": "loss",
    "--negatives": "n_negatives",
    "--storage": "storage",
    "--rating-range": "rating_range",
    "--unobserved-weight": "unobserved_weight",
    "--alpha": "alpha",
    "--weighting": "weighting",
    "--init-scale": "init_scale",
    "--solver": "solver",
    "--cg-steps": "cg_steps",
    "--block-size": "block_size",
    "--nonnegative": "nonnegative",
    "--patience": "patience",
    "--half-life": "half_life",
}


def actions_of_train() -> dict[str, argparse.Action]:
    subparsers = next(a for a in make_parser("train")._actions if isinstance(a, argparse._SubParsersAction))
    return {flag: action for action in subparsers.choices["train"]._actions for flag in action.option_strings}


def test_every_option_keeps_its_name() -> None:
    actions = actions_of_train()

    assert {flag: actions[flag].dest for flag in FLAGS} == FLAGS
    assert {
        "als",
        "bias",
        "bpr",
        "implicit-als",
        "popularity",
        "sgd",
        "svdpp",
    } <= model_options.models_by_command_name().keys()


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.__name__)
def test_every_parameter_of_a_model_has_an_option(model: type[fastmf.SGD]) -> None:
    common = {"seed": "seed", "backend": "device", "n_threads": "threads", "verbose": "quiet"}

    options = {action.dest for action in actions_of_train().values()}

    assert {common.get(name, name) for name in model().get_params()} <= options


def test_help_can_be_printed_in_every_encoding() -> None:
    assert all(str(action.help).isascii() for action in actions_of_train().values())


def test_help_says_what_a_parameter_means_and_to_which_models() -> None:
    actions = actions_of_train()

    of_models = "defaults: sgd, svdpp, bpr, als 64; implicit-als 128"
    assert actions["--factors"].help == f"length of each factor vector, at least 1 ({of_models})"
    assert actions["--unobserved-weight"].help.startswith("implicit-als: weight of every cell")
    assert actions["--no-biases"].help.startswith("set biases=False. sgd, svdpp, als: whether users and items have")
    assert str(actions["--weighting"].help).endswith("(default: rendle)")
    assert str(actions["--alpha"].help).endswith("above 0 (default: not set)")
    assert "implicit-als: " in str(actions["--unobserved-weight"].help)
    assert str(actions["--unobserved-weight"].help).endswith("(default: auto)")
    assert list(actions["--solver"].choices) == ["cholesky", "cg", "subspace"]
    assert actions["--rating-range"].metavar == ("LOW", "HIGH")


def test_help_shows_a_default_once_or_for_each_model() -> None:
    classes = model_options.models_by_command_name()
    actions = actions_of_train()

    for option in model_options._options():
        shown = str(actions[option.flag].help)
        defaults = {getattr(classes[name], option.parameter) for name in option.models}
        if option.default is True or option.default is False:
            assert "default" not in shown
        elif len(defaults) == 1:
            assert "(default: " in shown
        else:
            told = shown.partition("(defaults: ")[2]
            assert all(name in told for name in option.models)


def test_a_model_that_joins_the_registry_is_an_option(
    monkeypatch: pytest.MonkeyPatch, data: Any, call_fastmf: Callable[..., Done], tmp_path: Any
) -> None:
    @dataclass(kw_only=True, eq=False)
    class SecondALS(fastmf.ALS):
        """Another model. It is like ALS.

        Parameters
        ----------
        n_turns : int
            How often it turns: at least 1.
        is_calm : bool
            Whether it is calm, 100 % of the time.
        """

        n_turns: int = 2
        is_calm: bool = True

    monkeypatch.setitem(MODELS, "SecondALS", SecondALS)

    assert "second-als: another model" in str(actions_of_train()["--model"].help)
    assert actions_of_train()["--turns"].help == "second-als: how often it turns (default: 2)"
    call_fastmf("train", "--help")
    options = ("--epochs", 1, "--factors", 2, "--turns", 5, "--no-is-calm", "--cg-steps", 4)
    call_fastmf("train", data.ratings, "--model", "second-als", "--output", "model", *options)
    model = fastmf.load(tmp_path / "model")
    assert isinstance(model, SecondALS)
    assert (model.n_turns, model.is_calm, model.cg_steps) == (5, False, 4)


@pytest.mark.slow
def test_options_do_not_depend_on_docstrings(data: Any, tmp_path: Any) -> None:
    options = ("--model", "sgd", "--output", str(tmp_path / "model"), "--rating-range", "0", "6", "--factors", "2")
    packages = (Path(str(package.__file__)).parents[1] for package in (fastmf, fastmf_kernels))
    done = subprocess.run(
        [sys.executable, "-OO", "-m", "fastmf", "train", str(data.ratings), *options, "--no-biases", "--epochs", "1"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, packages))},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    model = fastmf.load(tmp_path / "model")
    assert model.get_params().items() >= {"rating_range": (0.0, 6.0), "n_factors": 2, "biases": False}.items()


def test_commands_that_train_nothing_do_not_wait_for_the_models(run_fastmf: Callable[..., Done]) -> None:
    prelude = "import atexit, sys; atexit.register(lambda: print('numpy' in sys.modules))"

    assert run_fastmf("--version", prelude=prelude).stdout.splitlines()[-1] == "False"
    assert run_fastmf("recommend", "--help", prelude=prelude).stdout.splitlines()[-1] == "False"
