"""Options that are hyper-parameters of models, made from the registry of models and their docstrings.

A model that joins `fastmf.models.MODELS` is one more choice of ``--model``; a parameter that it declares is one more
option.
"""

import argparse
import dataclasses
import re
import typing
from typing import Any, NamedTuple

from fastmf.cli.options import number_or_auto, positive_integer
from fastmf.errors import ParameterError
from fastmf.models import FACTOR_MODELS, MODELS, Model
from fastmf.models.parameter_docs import ParameterDoc

# Every command has options of its own for these.
_NOT_OF_MODELS = ("seed", "backend", "n_threads", "verbose")
_SPECIAL_FLAGS = {"adaptive": "--constant-steps"}


class _Option(NamedTuple):
    """A parameter, and the models that have it, by their names on the command line."""

    parameter: str
    models: dict[str, type[Model]]

    @property
    def doc(self) -> ParameterDoc:
        return _doc_of(next(iter(self.models.values())), self.parameter)

    @property
    def default(self) -> Any:
        return getattr(next(iter(self.models.values())), self.parameter)

    @property
    def flag(self) -> str:
        """``n_factors`` becomes ``--factors``, and ``biases``, which is True by default, ``--no-biases``."""
        name = self.parameter.removeprefix("n_").replace("_", "-")
        return _SPECIAL_FLAGS.get(self.parameter, f"--no-{name}" if self.default is True else f"--{name}")

    @property
    def types(self) -> tuple[type, ...]:
        """The type of the value, or those of the values of a pair; None and ``"auto"`` are not counted."""
        plain = self._declared[0]
        return typing.get_args(plain) or (typing.cast("type", plain),)

    @property
    def may_be_auto(self) -> bool:
        """Whether the value is a number or ``"auto"``."""
        return self._declared == [float, str]

    @property
    def _declared(self) -> list[Any]:
        model = next(iter(self.models.values()))
        declared = next(field.type for field in dataclasses.fields(model) if field.name == self.parameter)
        return [kind for kind in typing.get_args(declared) if kind is not type(None)] or [declared]


def models_by_command_name() -> dict[str, type[Model]]:
    """Return the classes of models by their names on the command line: ``ImplicitALS`` is ``implicit-als``."""
    return {re.sub("(?<=[a-z])(?=[A-Z])", "-", name).lower(): model for name, model in MODELS.items()}


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--model``."""
    models = models_by_command_name()
    titles = (f"{name}: {_lower((model.__doc__ or '').partition('.')[0])}" for name, model in models.items())
    text = f"which model to train. {'; '.join(titles)}"
    parser.add_argument("--model", choices=sorted(models), required=True, help=_escaped(text))


def add_parameter_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for every hyper-parameter; one that is not given keeps the default of the model."""
    group = parser.add_argument_group("hyper-parameters (defaults: see python -m pydoc fastmf.ALS, or another class)")
    for option in _options():
        group.add_argument(option.flag, dest=option.parameter, help=_escaped(_help(option)), **_settings(option))


def make_model(parsed: argparse.Namespace) -> Model:
    """Return the model that the options describe.

    Raises
    ------
    ParameterError
        If an option was given that the model has no parameter for, or a value makes no sense.
    """
    params: dict[str, Any] = {}
    for option in _options():
        value = getattr(parsed, option.parameter)
        if value is None:
            continue
        if parsed.model not in option.models:
            raise ParameterError(f"{option.flag} is not a hyper-parameter of --model {parsed.model}; leave it out")
        params[option.parameter] = tuple(value) if isinstance(value, list) else value
    model = models_by_command_name()[parsed.model]
    return model(**params, seed=parsed.seed, backend=parsed.device, n_threads=parsed.threads, verbose=not parsed.quiet)


def _options() -> list[_Option]:
    """Return an option for each parameter of any model, in the order of the models and of their parameters."""
    options: dict[str, _Option] = {}
    for name, model in models_by_command_name().items():
        for field in dataclasses.fields(model):
            if field.init and field.name not in _NOT_OF_MODELS:
                options.setdefault(field.name, _Option(field.name, {})).models[name] = model
    return list(options.values())


def _settings(option: _Option) -> dict[str, Any]:
    """Return what argparse has to know of the values of an option."""
    kind, *others = option.types
    if kind is bool:
        return {"action": "store_const", "const": not option.default}
    if option.doc.choices:
        return {"choices": option.doc.choices}
    if others:
        names = tuple(name.upper() for name in option.doc.names_of_values)
        return {"type": kind, "nargs": len(option.types), "metavar": names or "X"}
    if kind is int:
        return {"type": positive_integer, "metavar": "N"}
    return {"type": number_or_auto if option.may_be_auto else kind, "metavar": "X"}


def _help(option: _Option) -> str:
    """Say what the parameter means, and to which models; where all models of factors have it, these are not named."""
    models_of: dict[str, list[str]] = {}
    for name, model in option.models.items():
        models_of.setdefault(_lower(_doc_of(model, option.parameter).summary), []).append(name)
    if len(models_of) == 1 and set(FACTOR_MODELS.values()) <= set(option.models.values()):
        text = next(iter(models_of))
    else:
        text = "; ".join(f"{', '.join(names)}: {summary}" for summary, names in models_of.items())
    return f"set {option.parameter}={not option.default}. {text}" if option.types[0] is bool else text


def _doc_of(model: type[Model], parameter: str) -> ParameterDoc:
    """Return what a parameter means; ``python -OO`` has no docstrings to say so."""
    return model.parameter_docs.get(parameter, ParameterDoc("", ""))


def _lower(text: str) -> str:
    """Begin with a small letter, unless the first word is an abbreviation."""
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
