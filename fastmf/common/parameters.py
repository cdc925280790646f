"""Checks of single parameters, so that every constructor words its errors alike."""

import math
import numbers
import operator
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastmf.common.arrays import as_plain_array
from fastmf.errors import ParameterError, named
from fastmf_kernels._types import Int32Array

AUTO = "auto"
"""The value of a hyper-parameter whose number `fit` chooses from the data."""


def require_integer(name: str, value: object, *, minimum: int, otherwise: str = "") -> None:
    """Raise `ParameterError` unless ``value`` is an integer of at least ``minimum``.

    ``otherwise`` says what else is allowed, such as ``"None for all cores"``.
    """
    if not _is_integer(value) or value < minimum:  # type: ignore[operator]
        alternative = f", or {otherwise}" if otherwise else ""
        raise ParameterError(f"{named(name)} is {value!r}; expected an integer of at least {minimum}{alternative}")


def require_number(name: str, value: object, *, minimum: float, exclusive: bool = False, otherwise: str = "") -> None:
    """Raise `ParameterError` unless ``value`` is finite and at least (``exclusive``: above) ``minimum``.

    ``otherwise`` says what else is allowed.
    """
    valid = not isinstance(value, bool) and isinstance(value, numbers.Real) and math.isfinite(value)
    if valid:
        valid = value > minimum if exclusive else value >= minimum  # type: ignore[operator]
    if not valid:
        bound = "" if minimum == -math.inf else f" {'above' if exclusive else 'of at least'} {minimum:g}"
        alternative = f", or {otherwise}" if otherwise else ""
        raise ParameterError(f"{named(name)} is {value!r}; expected a finite number{bound}{alternative}")


def require_number_or_auto(name: str, value: object, *, minimum: float, exclusive: bool = False) -> None:
    """Raise `ParameterError` unless ``value`` is ``"auto"`` or as `require_number` has it."""
    if not (isinstance(value, str) and value == AUTO):
        otherwise = f'"{AUTO}" to choose it from the data'
        require_number(name, value, minimum=minimum, exclusive=exclusive, otherwise=otherwise)


def number(value: float | str) -> float:
    """Return a parameter that is not, or no longer, ``"auto"``.

    Raises
    ------
    ParameterError
        If it is text.
    """
    if isinstance(value, str):
        raise ParameterError(f"a parameter is {value!r}; expected a number: it is chosen in `fit`")
    return value


def require_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise `ParameterError` unless ``value`` is one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise ParameterError(f"{named(name)} is {value!r}; expected one of {', '.join(map(repr, choices))}")


def require_truth(name: str, value: object) -> None:
    """Raise `ParameterError` unless ``value`` is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise ParameterError(f"{named(name)} is {value!r}; expected True or False")


def require_names(parameter: str, names: Any) -> tuple[str, ...]:
    """Return distinct names as a tuple.

    Raises
    ------
    ParameterError
        If they are not a list of texts, or one occurs twice.
    """
    is_list = isinstance(names, Sequence) and not isinstance(names, (str, bytes))
    if not is_list or not all(isinstance(name, str) for name in names):
        raise ParameterError(f"{named(parameter)} is {names!r}; expected a list of names")
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise ParameterError(f"{named(parameter)} has {twice!r} twice; expected distinct names")
    return tuple(names)


def as_rows(name: str, given: Any, n_rows: int) -> Int32Array:
    """Return indices of rows as kernels take them.

    Parameters
    ----------
    name : str
        Of the parameter, for the message.
    given : array-like of int, shape (n,)
        From 0, or -1 for a row that is not known.
    n_rows : int

    Raises
    ------
    ParameterError
        If they are not one-dimensional integers from -1 to ``n_rows`` - 1.
    """
    rows = as_plain_array(given, named(name))
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise ParameterError(
            f"{named(name)} are {rows.dtype} of shape {rows.shape}; expected integers in one dimension"
        )
    if rows.size and not (rows.min() >= -1 and rows.max() < n_rows):
        raise ParameterError(
            f"{named(name)} run from {rows.min()} to {rows.max()}; expected rows from 0 to {n_rows - 1}, or -1"
        )
    return np.require(rows, np.int32, ["C", "A"])


def _is_integer(value: object) -> bool:
    if isinstance(value, bool):
        return False
    try:
        operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True
