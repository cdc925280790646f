"""JSON as the standard has it: what is undefined is null, never NaN or Infinity."""

import json
import math
import numbers
from collections.abc import Mapping
from typing import Any


def to_json(value: Any, indent: int | None = None) -> str:
    """Return the JSON text of a value; numbers that are not finite become null.

    Parameters
    ----------
    value : object
        Numbers (also of NumPy), text, None, and mappings, lists and tuples of them. Other objects, dates for example,
        become text.
    indent : int, optional
        Spaces a level; None for one line.

    Examples
    --------
    >>> to_json({"rmse": float("nan"), "n_users": 3})
    '{"rmse": null, "n_users": 3}'
    """
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(inner) for inner in value]
    if hasattr(value, "tolist"):  # of NumPy
        return _plain(value.tolist())
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    return str(value)
