"""What fastmf raises on purpose can be caught as one, and as what Python calls such a thing."""

import inspect
import pickle

import pytest

from fastmf import errors
from fastmf.errors import FastMFError, named

PUBLIC = [
    member
    for name, member in inspect.getmembers(errors, inspect.isclass)
    if member.__module__ == errors.__name__ and not name.startswith("_")
]
CLASSES = [member for member in PUBLIC if not issubclass(member, Warning)]

ALSO = {
    "BackendError": RuntimeError,
    "DataError": ValueError,
    "DivergenceError": ArithmeticError,
    "NotFittedError": RuntimeError,
    "OutOfMemoryError": MemoryError,
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


@pytest.mark.parametrize("error", PUBLIC, ids=lambda error: error.__name__)
def test_a_message_reads_as_it_was_written(error: type[Exception]) -> None:
    # KeyError would show its repr, quotes and all; OSError would read several arguments as a number and a reason.
    assert str(error("user 'ann' is unknown\nand so on")) == "user 'ann' is unknown\nand so on"


@pytest.mark.parametrize("error", PUBLIC, ids=lambda error: error.__name__)
def test_a_message_names_parameters_in_the_words_of_whoever_called(error: type[FastMFError]) -> None:
    raised = error(f"{named('n_epochs')} is 0 and each end of {named('both_ends of rating_range')} is n_epochs\\1")

    assert str(raised) == "n_epochs is 0 and each end of both_ends of rating_range is n_epochs\\1"
    options = {"n_epochs": "--epochs", "rating_range": "--rating-range"}
    assert raised.in_words_of(options.get) == (
        "--epochs is 0 and each end of both_ends of --rating-range is n_epochs\\1"
    )
    assert raised.in_words_of(lambda _: None) == str(raised)
    again = pickle.loads(pickle.dumps(raised))
    assert (str(again), again.in_words_of(options.get)) == (str(raised), raised.in_words_of(options.get))


def test_all_errors_were_looked_at() -> None:
    assert {error.__name__ for error in CLASSES} == {*ALSO, "FastMFError", "ModelError"}
    assert set(PUBLIC) - set(CLASSES) == {errors.QualityWarning}


@pytest.mark.parametrize(
    ("parameter", "in_python", "on_the_command_line"),
    [
        ("k", "k", "-k"),
        ("overwrite=True", "overwrite=True", "--overwrite"),
        ("strange=True", "strange=True", "strange=True"),
        ("n_epochs", "n_epochs", "--epochs"),
    ],
)
def test_a_message_names_parameters_in_the_words_of_the_caller(
    parameter: str, in_python: str, on_the_command_line: str
) -> None:
    options = {"k": "-k", "overwrite": "--overwrite", "n_epochs": "--epochs"}

    error = errors.OutputExistsError(f"allow it ({errors.named(parameter)})")

    assert str(error) == f"allow it ({in_python})"
    assert error.in_words_of(options.get) == f"allow it ({on_the_command_line})"
