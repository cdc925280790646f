"""Checks of single parameters, so that every constructor words its errors alike."""

import math
import numbers
import operator
from collections.abc import Sequence

from fastmf.errors import ParameterError, named


def require_integer(name: str, value: object, *, minimum: int, otherwise: str = "") -> None:
    """Raise `ParameterError` unless ``value`` is an integer of at least ``minimum``.

    ``otherwise`` says what else is allowed, such as ``"None for all cores"``.
    """
    if not _is_integer(value) or value < minimum:  # type: ignore[operator]
        alternative = f", or {otherwise}" if otherwise else ""
        raise ParameterError(f"{named(name)} is {value!r}; expected an integer of at least {minimum}{alternative}")


def require_number(name: str, value: object, *, minimum: float, exclusive: bool = False) -> None:
    """Raise `ParameterError` unless ``value`` is finite and at least (``exclusive``: above) ``minimum``."""
    valid = not isinstance(value, bool) and isinstance(value, numbers.Real) and math.isfinite(value)
    if valid:
        valid = value > minimum if exclusive else value >= minimum  # type: ignore[operator]
    if not valid:
        bound = "" if minimum == -math.inf else f" {'above' if exclusive else 'of at least'} {minimum:g}"
        raise ParameterError(f"{named(name)} is {value!r}; expected a finite number{bound}")


def require_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise `ParameterError` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ParameterError(f"{named(name)} is {value!r}; expected one of {', '.join(map(repr, choices))}")


def _is_integer(value: object) -> bool:
    if isinstance(value, bool):
        return False
    try:
        operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True
