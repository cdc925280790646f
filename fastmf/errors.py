"""Everything fastmf raises on purpose, and what it warns of. A message says what was given or seen, and what to do."""

import re
from collections.abc import Callable

# Stands before and after the names of parameters in a message, and is never shown.
_MARK = "\x1f"


def named(parameter: str) -> str:
    """Mark a parameter that a message names, so that the command can name the option that stands for it.

    ``named("overwrite=True")`` stands for an option without a value.

    Examples
    --------
    >>> error = ParameterError(f"{named('n_epochs')} is 0; expected at least 1")
    >>> str(error)
    'n_epochs is 0; expected at least 1'
    >>> error.in_words_of({"n_epochs": "--epochs"}.get)
    '--epochs is 0; expected at least 1'
    """
    return f"{_MARK}{parameter}{_MARK}"


class _Worded(Exception):  # noqa: N818 - a warning is one, too
    """An exception whose message can name parameters in the words of whoever called.

    Parameters
    ----------
    message : str
        The parameters that it names are marked by `named`.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message.replace(_MARK, ""))
        self._marked = message

    def in_words_of(self, name_of: Callable[[str], str | None]) -> str:
        """Return the message with other names for the parameters.

        Parameters
        ----------
        name_of : callable
            Takes the name of a parameter, and returns its other name, or None if it has none.
        """

        def rename(marked: re.Match[str]) -> str:
            return re.sub(r"(\w+)(=True)?", lambda word: name_of(word[1]) or word[0], marked[1])

        return re.sub(f"{_MARK}([^{_MARK}]*){_MARK}", rename, self._marked)


class FastMFError(_Worded):
    """Base of all errors of fastmf; the command prints its message without a traceback.

    Parameters
    ----------
    message : str
        What was given, what was expected, and what to do. The parameters that it names are marked by `named`.
    """


class QualityWarning(_Worded, UserWarning):
    """A fit or its data look such that the model may be bad; the message says why, and what to do.

    Ignore all of them by ``warnings.simplefilter("ignore", fastmf.errors.QualityWarning)``.

    Parameters
    ----------
    message : str
        What was seen, and what to do. The parameters that it names are marked by `named`.
    """


class ParameterError(FastMFError, ValueError):
    """A parameter has a value that makes no sense."""


class DataError(FastMFError, ValueError):
    """Ratings, or a file of them, cannot be used as they are."""


class UnknownIdError(FastMFError, LookupError):
    """An id was asked for that the model has not seen."""


class NotFittedError(FastMFError, RuntimeError):
    """A model was asked for something before `fit`."""


class DivergenceError(FastMFError, ArithmeticError):
    """Training ran off to infinity; the model keeps what it was before `fit`."""


class ModelError(FastMFError):
    """A model directory is incomplete, damaged, or of a newer version."""


class OutputExistsError(FastMFError, FileExistsError):
    """The output is there already, and overwriting was not asked for."""


class OutputError(FastMFError, OSError):
    """An output cannot be written, for want of room or of permission; what was there before is untouched."""


class BackendError(FastMFError, RuntimeError):
    """A backend was asked for that this machine or this installation does not have."""


class OutOfMemoryError(FastMFError, MemoryError):
    """The work needs more memory than the system gives."""
