"""What a search may try: a range or a list of choices for each parameter, and the spaces that are built in."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from fastmf.common.parameters import require_integer, require_number
from fastmf.errors import ParameterError, named
from fastmf.models import FactorModel
from fastmf.reading.interactions import Interactions

# A search finds the number of epochs by itself; the others say how to run.
_NOT_SEARCHED = ("n_epochs", "patience", "seed", "backend", "n_threads", "verbose")


def _require_bounds(low: Any, high: Any, minimum: float) -> None:
    require_number("low", low, minimum=minimum, exclusive=minimum == 0)
    require_number("high", high, minimum=minimum)
    if not low < high:
        raise ParameterError(f"a range goes from {low!r} to {high!r}; expected the lower bound first")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _in_range(value: float, low: float, high: float) -> float:
    return float(min(max(_rounded(value), low), high))


def _rounded(value: float) -> float:
    """Keep three digits: more do not change the quality of a model, and nobody wants to type them."""
    return float(f"{value:.3g}")


@dataclass(frozen=True)
class Uniform:
    """Numbers from ``low`` to ``high``, all alike."""

    low: float
    high: float
    n_values: ClassVar[float] = math.inf

    def __post_init__(self) -> None:
        _require_bounds(self.low, self.high, -math.inf)

    def at(self, share: float) -> float:
        """Return the number at a share of the range, from 0 to 1, to three digits."""
        return _in_range(self.low + share * (self.high - self.low), self.low, self.high)

    def share_of(self, given: Any) -> float | None:
        """Return the share at which the value of the model as given is; None if it is not in the range."""
        if not _is_number(given) or not self.low <= given <= self.high:
            return None
        return float((given - self.low) / (self.high - self.low))


@dataclass(frozen=True)
class LogUniform:
    """Numbers from ``low``, above 0, to ``high``, their logarithms all alike: as many from 0.01 to 0.1 as to 1."""

    low: float
    high: float
    n_values: ClassVar[float] = math.inf

    def __post_init__(self) -> None:
        _require_bounds(self.low, self.high, 0)

    def at(self, share: float) -> float:
        """Return the number at a share of the range, from 0 to 1, to three digits."""
        return _in_range(self.low * (self.high / self.low) ** share, self.low, self.high)

    def share_of(self, given: Any) -> float | None:
        """Return the share at which the value of the model as given is; None if it is not in the range."""
        if not _is_number(given) or not self.low <= given <= self.high:
            return None
        return math.log(given / self.low) / math.log(self.high / self.low)


@dataclass(frozen=True)
class Multiple:
    """The number that the model as given has for the parameter, times ``low`` to ``high``, by their logarithms.

    Of a parameter that is ``"auto"``, it is the number chosen from the data, beside the other parameters of the trial.
    """

    low: float
    high: float
    n_values: ClassVar[float] = math.inf

    def __post_init__(self) -> None:
        _require_bounds(self.low, self.high, 0)

    def at(self, share: float) -> float:
        """Return the factor at a share of the range, from 0 to 1."""
        return float(self.low * (self.high / self.low) ** share)

    def share_of(self, given: Any) -> float | None:
        """Return the share at which the factor is 1; None if it is not in the range."""
        return LogUniform(self.low, self.high).share_of(1.0)


@dataclass(frozen=True)
class Integers:
    """Integers from ``low`` to ``high``, both included, all alike."""

    low: int
    high: int

    def __post_init__(self) -> None:
        require_integer("low", self.low, minimum=-(1 << 62))
        require_integer("high", self.high, minimum=self.low)

    @property
    def n_values(self) -> int:
        """How many integers there are."""
        return self.high - self.low + 1

    def at(self, share: float) -> int:
        """Return the integer at a share of the range, from 0 to 1."""
        return min(self.low + int(share * self.n_values), self.high)

    def share_of(self, given: Any) -> float | None:
        """Return the share at which the value of the model as given is; None if it is not in the range."""
        if not _is_number(given) or not self.low <= given <= self.high:
            return None
        return float((given - self.low + 0.5) / self.n_values)


@dataclass(frozen=True)
class Choices:
    """One of some values, all alike; a list in a space stands for it."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ParameterError("a list of choices is empty; expected at least one value")

    @property
    def n_values(self) -> int:
        """How many values there are."""
        return len(self.values)

    def at(self, share: float) -> Any:
        """Return the value at a share of the list, from 0 to 1."""
        return self.values[min(int(share * self.n_values), self.n_values - 1)]

    def share_of(self, given: Any) -> float | None:
        """Return the share at which the value of the model as given is; None if it is not in the list."""
        return (self.values.index(given) + 0.5) / self.n_values if given in self.values else None


Range = Uniform | LogUniform | Multiple | Integers | Choices
Space = dict[str, Range]

# Of each parameter that a model has, beside the number of factors. What does not depend on others comes first: λ
# depends on the weight of unobserved cells and on the exponent.
_BUILT_IN: Space = {
    "learning_rate_decay": Choices((1.0, 0.97, 0.93)),
    "n_negatives": Choices((1, 2, 4, 8)),
    "regularization_exponent": Uniform(0.5, 1),
    "learning_rate": Multiple(0.25, 2),
    "unobserved_weight": Multiple(0.2, 2),
    "bias_regularization": Multiple(0.25, 4),
    "regularization": Multiple(0.4, 2.5),
}


def default_space(model: FactorModel) -> Space:
    """Return the built-in space of a model.

    It has a range for each parameter that matters most for the quality of models of this kind. A parameter that is not
    at its default is left out: it stays as it was set. Most ranges are multiples of the default, or of the number that
    is chosen from the data; `tune` leaves out multiples of what has no number above 0.

    Parameters
    ----------
    model : FactorModel

    Returns
    -------
    dict of str to range

    Examples
    --------
    >>> import fastmf
    >>> space = fastmf.tuning.default_space(fastmf.ImplicitALS(n_factors=32))
    >>> "n_factors" in space
    False
    """
    params, defaults = model.get_params(), type(model)().get_params()
    n_factors = model.n_factors
    space: Space = {"n_factors": Choices((max(n_factors // 2, 1), n_factors, 2 * n_factors)), **_BUILT_IN}
    left_out = _unused(params)
    return {
        name: of_values
        for name, of_values in space.items()
        if name in params and params[name] == defaults[name] and name not in left_out
    }


def _unused(params: dict[str, Any]) -> tuple[str, ...]:
    """Return parameters that do nothing beside the others."""
    unused: tuple[str, ...] = ()
    if params.get("weighting") == "hu":
        unused += ("unobserved_weight", "regularization_exponent")
    if params.get("loss") == "squared":
        unused += ("n_negatives",)
    if params.get("biases") is False:
        unused += ("bias_regularization",)
    return unused


def as_space(model: FactorModel, space: Mapping[str, Any] | None, train: Interactions) -> Space:
    """Return a space as given, with lists as choices, or the built-in one, as far as there are numbers to multiply.

    Raises
    ------
    ParameterError
        If it is empty, or names something that is no parameter to search; if a range is something else.
    """
    if space is not None and not isinstance(space, Mapping):
        raise ParameterError(
            f"{named('space')} is a {type(space).__name__}; expected a dict with a range or a list of values for each "
            "parameter"
        )
    params = [name for name in model.get_params() if name not in _NOT_SEARCHED]
    given = _multipliable(model, train) if space is None else space
    if not given:
        why = "all parameters of the built-in one are set" if space is None else "it has no range"
        raise ParameterError(
            f"{named('space')} is empty: {why}; expected a range for at least one of {', '.join(params)}"
        )
    for name in given:
        if name in ("n_epochs", "patience"):
            raise ParameterError(
                f"{named('space')} has {name!r}, and a search finds the number of epochs by itself; leave it out, and "
                f"set {named('max_epochs')} to bound them"
            )
        if name not in params:
            raise ParameterError(
                f"{named('space')} has {name!r}, which is no parameter of {type(model).__name__} that is searched; "
                f"expected some of {', '.join(params)}"
            )
    ranges = {name: _as_range(name, of_values) for name, of_values in given.items()}
    for name, of_values in ranges.items():
        for value in _outermost(of_values):
            _require_valid(model, name, value)
    return ranges


def _outermost(of_values: Range) -> tuple[Any, ...]:
    """Return values that tell whether a model takes those of a range: if it takes these, it takes all."""
    if isinstance(of_values, Choices):
        return of_values.values
    return () if isinstance(of_values, Multiple) else (of_values.low, of_values.high)


def _require_valid(model: FactorModel, name: str, value: Any) -> None:
    try:
        with_params(model, {name: value})
    except ParameterError as error:
        raise ParameterError(f"{named('space')} has {value!r} for {name}: {error.in_words_of(named)}") from error


def _multipliable(model: FactorModel, train: Interactions) -> Space:
    """Return the built-in space without multiples of what has no number above 0."""
    numbers = model.with_numbers(train)
    return {
        name: of_values
        for name, of_values in default_space(model).items()
        if not isinstance(of_values, Multiple) or _can_be_multiplied(getattr(numbers, name))
    }


def _as_range(name: str, given: Any) -> Range:
    if isinstance(given, Range):
        return given
    if given == []:
        raise ParameterError(f"{named('space')} has an empty list for {name}; expected at least one value")
    if isinstance(given, list):
        return Choices(tuple(given))
    raise ParameterError(
        f"{named('space')} has {given!r} for {name}; expected a list of values, or Uniform, LogUniform, Multiple or "
        "Integers of fastmf.tuning"
    )


def changes_at(model: FactorModel, space: Space, shares: Mapping[str, float], train: Interactions) -> dict[str, Any]:
    """Return the parameters at a point of a space.

    Parameters
    ----------
    model : FactorModel
        As given.
    space : Space
    shares : mapping of str to float
        Of each range, from 0 to 1.
    train : Interactions
        From which ``"auto"`` parameters are chosen.

    Raises
    ------
    ParameterError
        If the model does not take a value, or there is no number to multiply.
    """
    changes = {name: of.at(shares[name]) for name, of in space.items() if not isinstance(of, Multiple)}
    factors = {name: of.at(shares[name]) for name, of in space.items() if isinstance(of, Multiple)}
    if factors:
        # What a number means may depend on parameters that the model sets with it, such as how strengths are scaled.
        plain = with_params(model, changes)
        numbers = plain.with_numbers(train).get_params()
        open_ones = [name for name, value in plain.get_params().items() if value is None and name not in factors]
        changes |= {name: _plain(numbers[name]) for name in open_ones if numbers[name] is not None}
        for name, factor in factors.items():
            base = number_of(with_params(model, changes), name, train, numbers[name])
            changes[name] = _times(factor, base, name)
    with_params(model, changes)
    return changes


def _plain(value: Any) -> Any:
    return _rounded(value) if isinstance(value, float) else value


def _times(factor: float, base: Any, name: str) -> float | int:
    if not _can_be_multiplied(base):
        raise ParameterError(
            f"{named('space')} has a Multiple for {name}, which is {base!r} in the model as given; expected a number "
            "above 0 there, or LogUniform or Uniform in the space"
        )
    if isinstance(base, int):
        return max(round(factor * base), 1)
    return _rounded(factor * base)


def _can_be_multiplied(value: Any) -> bool:
    return bool(_is_number(value) and value > 0)


def number_of(model: FactorModel, name: str, train: Interactions, otherwise: Any = None) -> Any:
    """Return a parameter of a model, or what it would choose for it from the data; ``otherwise`` if it is None."""
    value = getattr(model.with_numbers(train), name)
    return otherwise if value is None else value


def with_params(model: FactorModel, changes: Mapping[str, Any]) -> FactorModel:
    """Return an unfitted model with some parameters changed."""
    return type(model)(**{**model.get_params(), **changes})
