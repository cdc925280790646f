"""Checks of single parameters, so that every constructor words its errors alike."""

import math
import operator
from collections.abc import Sequence

from fastmf.errors import ParameterError


def require_integer(name: str, value: object, *, minimum: int) -> None:
    """Raise `ParameterError` unless ``value`` is an integer of at least ``minimum``."""
    if not _is_integer(value) or value < minimum:  # type: ignore[operator]
        raise ParameterError(f"{name} is {value!r}; expected an integer of at least {minimum}")


def require_number(name: str, value: object, *, minimum: float, exclusive: bool = False) -> None:
    """Raise `ParameterError` unless ``value`` is finite and at least (``exclusive``: above) ``minimum``."""
    valid = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if valid:
        valid = value > minimum if exclusive else value >= minimum  # type: ignore[operator]
    if not valid:
        bound = "above" if exclusive else "of at least"
        raise ParameterError(f"{name} is {value!r}; expected a finite number {bound} {minimum:g}")


def require_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise `ParameterError` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ParameterError(f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}")


def _is_integer(value: object) -> bool:
    if isinstance(value, bool):
        return False
    try:
        operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True
