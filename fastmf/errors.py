"""Everything fastmf raises on purpose. A message says what was given, what was expected, and what to do."""


class FastMFError(Exception):
    """Base of all errors of fastmf; the command prints its message without a traceback."""


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
