"""What fastmf raises on purpose can be caught as one, and as what Python calls such a thing."""

import inspect

import pytest

from fastmf import errors
from fastmf.errors import FastMFError

CLASSES = [member for _, member in inspect.getmembers(errors, inspect.isclass) if member.__module__ == errors.__name__]

ALSO = {
    "BackendError": RuntimeError,
    "DataError": ValueError,
    "DivergenceError": ArithmeticError,
    "NotFittedError": RuntimeError,
    "OutputError": OSError,
    "OutputExistsError": FileExistsError,
    "ParameterError": ValueError,
    "UnknownIdError": LookupError,
}


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_every_error_can_be_caught_as_one(error: type[Exception]) -> None:
    assert issubclass(error, FastMFError)


@pytest.mark.parametrize("name", ALSO)
def test_an_error_is_also_what_python_calls_it(name: str) -> None:
    assert issubclass(getattr(errors, name), ALSO[name])


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_a_message_reads_as_it_was_written(error: type[Exception]) -> None:
    # KeyError would show its repr, quotes and all; OSError would read several arguments as a number and a reason.
    assert str(error("user 'ann' is unknown\nand so on")) == "user 'ann' is unknown\nand so on"


def test_all_errors_were_looked_at() -> None:
    assert {error.__name__ for error in CLASSES} == {*ALSO, "FastMFError", "ModelError"}
