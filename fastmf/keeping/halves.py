"""Tables of factors as float16: half the bytes, three significant digits."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fastmf.errors import ParameterError, named

LARGEST_HALF = 65_504.0
"""The largest number that float16 has (IEEE 754-2019, binary16)."""
# Rows that are converted at once: the temporary arrays stay small.
_ROWS = 1 << 14


def to_halves(name: str, table: npt.NDArray[Any]) -> npt.NDArray[np.float16]:
    """Round a table of float32 numbers to float16, to the nearest and of two to the even one.

    Parameters
    ----------
    name : str
        Of the table, for the message of an error.
    table : float32 array, shape (n, n_factors)

    Returns
    -------
    float16 array of the same shape

    Raises
    ------
    ParameterError
        If a number is beyond ±65,504. Numbers below 6e-8 become 0.

    Examples
    --------
    >>> to_halves("user_factors.npy", np.array([[0.1, 1e-9]], np.float32)).tolist()
    [[0.0999755859375, 0.0]]
    """
    halves = np.empty(table.shape, np.float16)
    for start in range(0, len(table), _ROWS):
        part = np.asarray(table[start : start + _ROWS])
        sizes = np.abs(part)
        if (sizes > LARGEST_HALF).any():
            row, column = np.unravel_index(int(np.argmax(sizes)), part.shape)
            raise ParameterError(
                f"{named('factor_dtype')} is float16, whose largest number is {LARGEST_HALF:,.0f}, and "
                f"{name.removesuffix('.npy')}[{start + row}, {column}] is {part[row, column]:g}; save as float32"
            )
        halves[start : start + _ROWS] = part
    return halves
