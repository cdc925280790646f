"""Options that are hyper-parameters of models, made from the registry of models and their docstrings.

A model that joins `fastmf.models.MODELS` is one more choice of ``--model``; a parameter that it declares is one more
option.
"""

import argparse
import dataclasses
import re
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

from fastmf.cli.options import note, number_or_auto, positive_integer
from fastmf.errors import ParameterError
from fastmf.models import FACTOR_MODELS, MODELS, Model
from fastmf.models.feedback import feedback_of
from fastmf.models.parameter_docs import ParameterDoc
from fastmf.models.suggestion import MODEL_OF_EVENTS, MODEL_OF_RATINGS, suggest_model
from fastmf.reading.interactions import Interactions

# Every command has options of its own for these.
_NOT_OF_MODELS = ("seed", "backend", "n_threads", "verbose")
_NONE = "none"
"""On the command line, a parameter that is None and would be something else by default."""
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
    def may_be_none(self) -> bool:
        """Whether the value may be None in a model where that is not the default."""
        kinds = (
            next(field for field in dataclasses.fields(model) if field.name == self.parameter)
            for model in self.models.values()
        )
        return not self.doc.choices and any(
            type(None) in typing.get_args(field.type) and field.default is not None for field in kinds
        )

    @property
    def _declared(self) -> list[Any]:
        model = next(iter(self.models.values()))
        declared = next(field.type for field in dataclasses.fields(model) if field.name == self.parameter)
        return [kind for kind in typing.get_args(declared) if kind is not type(None)] or [declared]


AUTO_MODEL = "auto"
"""The choice of ``--model`` that leaves it to the data."""


def command_name(model: type[Model]) -> str:
    """Return the name of a class of models on the command line: ``ImplicitALS`` is ``implicit-als``."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "-", model.__name__).lower()


def models_by_command_name() -> dict[str, type[Model]]:
    """Return the classes of models by their names on the command line."""
    return {command_name(model): model for model in MODELS.values()}


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--model``."""
    models = models_by_command_name()
    titles = (f"{name}: {_lower((model.__doc__ or '').partition('.')[0])}" for name, model in models.items())
    of_ratings, of_events = _auto_names()
    auto = f"{AUTO_MODEL}: {of_events} for clicks, counts, amounts and good ratings alone, else {of_ratings}"
    text = f"which model to train. {'; '.join(titles)}; {auto}"
    parser.add_argument("--model", choices=[*sorted(models), AUTO_MODEL], required=True, help=_escaped(text))


def _auto_names() -> list[str]:
    """Return the names of the models that ``--model auto`` may be: that of ratings, and that of events."""
    return [command_name(model) for model in (MODEL_OF_RATINGS, MODEL_OF_EVENTS)]


def add_parameter_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for every hyper-parameter; one that is not given keeps the default of the model."""
    group = parser.add_argument_group("hyper-parameters")
    for option in _options():
        group.add_argument(option.flag, dest=option.parameter, help=_escaped(_help(option)), **_settings(option))


def option_names(model: type[Model]) -> list[tuple[str, str, bool]]:
    """Return of each hyper-parameter of a model the name of its option, its own, and whether the option negates it.

    Examples
    --------
    >>> import fastmf
    >>> option_names(fastmf.SGD)[0], ("no-biases", "biases", True) in option_names(fastmf.SGD)
    (('factors', 'n_factors', False), True)
    """
    return [
        (option.flag.removeprefix("--"), option.parameter, option.default is True)
        for option in _options()
        if model in option.models.values()
    ]


def make_candidates(parsed: argparse.Namespace) -> dict[str, Model]:
    """Return the model that is asked for, by its name on the command line; for "auto", those that it may be.

    Raises
    ------
    ParameterError
        As `make_model`.
    """
    names = _auto_names() if parsed.model == AUTO_MODEL else [parsed.model]
    return {name: make_model(parsed, name) for name in names}


def choose_model(candidates: dict[str, Model], ratings: Interactions, parsed: argparse.Namespace) -> Model:
    """Return the model that was asked for, or for "auto" the one for the kind of data."""
    if parsed.model != AUTO_MODEL:
        return candidates[parsed.model]
    name = command_name(type(suggest_model(ratings)))
    note(f"--model {AUTO_MODEL} is {name}: {feedback_of(ratings).reason}", parsed)
    if not candidates[name].is_implicit:
        note(f"{name} predicts ratings; to recommend the best items, --model {_auto_names()[1]} ranks better", parsed)
    return candidates[name]


def make_model(parsed: argparse.Namespace, name: str | None = None) -> Model:
    """Return the model that the options describe.

    Parameters
    ----------
    parsed : Namespace
    name : str, optional
        Of the model, on the command line. None: ``--model``.

    Raises
    ------
    ParameterError
        If an option was given that the model has no parameter for, or a value makes no sense.
    """
    name = parsed.model if name is None else name
    params: dict[str, Any] = {}
    for option in _options():
        value = getattr(parsed, option.parameter)
        if value is None:
            continue
        if name not in option.models:
            raise ParameterError(_no_parameter(option.flag, name, parsed.model))
        if option.may_be_none and value == _NONE:
            value = None
        params[option.parameter] = tuple(value) if isinstance(value, list) else value
    model = models_by_command_name()[name]
    return model(**params, seed=parsed.seed, backend=parsed.device, n_threads=parsed.threads, verbose=not parsed.quiet)


def _no_parameter(flag: str, name: str, asked_for: str) -> str:
    """Say that a model has no such parameter."""
    if asked_for == AUTO_MODEL:
        return f"{flag} is not a hyper-parameter of {name}, which --model auto may be; name the model, or leave it out"
    return f"{flag} is not a hyper-parameter of --model {name}; leave it out"


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
    if option.may_be_none:
        return {"type": _number_auto_or_none, "metavar": "X"}
    return {"type": number_or_auto if option.may_be_auto else kind, "metavar": "X"}


def _number_auto_or_none(text: str) -> float | str:
    return text if text == _NONE else number_or_auto(text)


def _help(option: _Option) -> str:
    """Say what the parameter means, and to which models; where all models of factors have it, these are not named."""
    names_of = _grouped(option, lambda model: _lower(_doc_of(model, option.parameter).summary))
    if len(names_of) == 1 and _has_all_with_factors(option):
        text = next(iter(names_of))
    else:
        text = "; ".join(f"{', '.join(names)}: {summary}" for summary, names in names_of.items())
    if option.types[0] is bool:
        return f"set {option.parameter}={not option.default}. {text}"
    return f"{text} ({_defaults(option)})"


def _defaults(option: _Option) -> str:
    """Say what value the parameter has where it is not given: one for all models, or one for each."""
    names_of = _grouped(option, lambda model: _worded(getattr(model, option.parameter)))
    if len(names_of) == 1:
        return f"default: {next(iter(names_of))}"
    return "defaults: " + "; ".join(f"{', '.join(names)} {value}" for value, names in names_of.items())


def _grouped(option: _Option, text_of: Callable[[type[Model]], str]) -> dict[str, list[str]]:
    """Return the names of the models that have the parameter, by a text on each."""
    names_of: dict[str, list[str]] = {}
    for name, model in option.models.items():
        names_of.setdefault(text_of(model), []).append(name)
    return names_of


def _has_all_with_factors(option: _Option) -> bool:
    """Whether all models of factors have the parameter: there is no need to name them."""
    return set(FACTOR_MODELS.values()) <= set(option.models.values())


def _worded(value: object) -> str:
    """Write a default value as it is given on the command line."""
    if isinstance(value, (tuple, list)):
        return " ".join(map(_worded, value))
    return "not set" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _doc_of(model: type[Model], parameter: str) -> ParameterDoc:
    """Return what a parameter means; ``python -OO`` has no docstrings to say so."""
    return model.parameter_docs.get(parameter, ParameterDoc("", ""))


def _lower(text: str) -> str:
    """Begin with a small letter, unless the first word is an abbreviation."""
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def as_arguments(model: Model) -> list[str]:
    """Return the options that give a model its parameters, of those that are not at their defaults.

    Examples
    --------
    >>> import fastmf
    >>> as_arguments(fastmf.SGD(n_factors=32, rating_range=(1, 5), biases=False))
    ['--factors', '32', '--no-biases', '--rating-range', '1', '5']
    >>> as_arguments(fastmf.BPR(bias_regularization=None))
    ['--bias-regularization', 'none']
    """
    params, defaults = model.get_params(), type(model)().get_params()
    words: list[str] = []
    for option in _options():
        value = params.get(option.parameter)
        if option.parameter not in params or value == defaults[option.parameter]:
            continue
        if value is None:
            words += [option.flag, _NONE] if option.may_be_none else []
            continue
        values = value if isinstance(value, (tuple, list)) else () if option.types[0] is bool else (value,)
        words += [option.flag, *map(str, values)]
    return words
