"""The examples of the documentation do what they say."""

import dataclasses
import doctest
import importlib
import inspect
import itertools
import pkgutil
import pydoc
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastmf
from fastmf.models import MODELS, FactorModel
from fastmf.models.descent import DescentModel
from fastmf.models.parameter_docs import ParameterDoc, read_parameters, with_parameters


def public_modules() -> Iterator[str]:
    yield "fastmf"
    for module in pkgutil.walk_packages(fastmf.__path__, "fastmf."):
        if not any(part.startswith("_") for part in module.name.split(".")):
            yield module.name


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for name in public_modules() for test in finder.find(importlib.import_module(name))]
    return sorted((test for test in found if test.examples), key=lambda test: test.name)


EXAMPLES = examples()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example(example: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # an example that writes a file shall not write it into the repository
    report: list[str] = []

    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=report.append)

    assert result.failed == 0, "".join(report)


@pytest.mark.parametrize("name", [*MODELS, "Interactions", "compare", "evaluate", "load", "read_parquet", "top_k"])
def test_what_a_newcomer_meets_first_has_an_example(name: str) -> None:
    value = getattr(fastmf, name)

    assert f"{value.__module__}.{name}" in {example.name for example in EXAMPLES}


PARAMETERS = [(model, name) for model in MODELS.values() for name in model().get_params()]
each_parameter = pytest.mark.parametrize(
    ("model", "name"), PARAMETERS, ids=[f"{model.__name__}.{name}" for model, name in PARAMETERS]
)


def entry_of(doc: str, name: str) -> tuple[str, str]:
    """Return the type and the meaning that a docstring gives for a parameter, as a reader would find them."""
    section = doc.partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    lines = section.splitlines()
    starts = [n for n, line in enumerate(lines) if line.startswith(f"{name} : ")]
    assert len(starts) == 1, f"{name} has {len(starts)} entries"
    meaning = itertools.takewhile(lambda line: line.startswith("    "), lines[starts[0] + 1 :])
    return lines[starts[0]].partition(" : ")[2], " ".join(line.strip() for line in meaning)


@each_parameter
def test_the_docstring_of_a_model_tells_type_meaning_and_default_of_every_parameter(
    model: type[FactorModel], name: str
) -> None:
    kind, meaning = entry_of(inspect.getdoc(model) or "", name)

    field = next(field for field in dataclasses.fields(model) if field.name == name)
    assert ("optional" in kind) == (field.default is None)
    if field.default is not None:
        assert kind.endswith(f", default {field.default!r}")
    words = {int: "int", float: "float", bool: "bool", str: "{"}
    kinds = [word for type_, word in words.items() if type_ in (field.type, *typing.get_args(field.type))]
    assert kind.startswith(tuple(kinds) or "(")
    assert meaning[0].isupper()
    assert meaning.endswith(".")


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.__name__)
def test_help_shows_what_the_base_classes_say(model: type[FactorModel]) -> None:
    shown = pydoc.render_doc(model, renderer=pydoc.plaintext)

    for text in ("n_threads : int, optional", "Number of threads, at least 1. None: all cores.", "Examples"):
        assert text in shown
    if issubclass(model, DescentModel):
        assert "learning_rate_decay : float, default 1.0" in shown


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.__name__)
def test_parameters_are_listed_in_the_order_of_the_constructor(
    model: type[FactorModel],
) -> None:
    section = (inspect.getdoc(model) or "").partition("Parameters\n----------\n")[2].partition("\n\n")[0]

    listed = [line.partition(" : ")[0] for line in section.splitlines() if not line.startswith(" ")]

    assert listed == list(model().get_params())


@pytest.mark.parametrize("base", [FactorModel, DescentModel])
def test_a_parameter_is_described_where_it_is_declared(base: type[FactorModel]) -> None:
    parameters = {field.name for field in dataclasses.fields(base) if field.init}
    declared = parameters & vars(base)["__annotations__"].keys()

    assert declared
    assert declared <= read_parameters(base.__doc__).keys() == parameters


def test_a_docstring_keeps_what_stands_around_its_parameters() -> None:
    doc = """Title.

    Parameters
    ----------
    a : int
        Old.

    Returns
    -------
    int
    """
    entries = read_parameters(doc) | {"b": ParameterDoc('{"x", "y"}', "One.\nTwo.")}

    written = with_parameters(doc, entries, {"b": "x"})

    assert written == (
        "Title.\n\nParameters\n----------\na : int\n    Old.\n"
        'b : {"x", "y"}, default \'x\'\n    One.\n    Two.\n\nReturns\n-------\nint\n'
    )
    assert entries["b"].choices == ("x", "y")


def test_a_docstring_without_parameters_gets_them_at_its_end() -> None:
    entries = {"a": ParameterDoc("(low, high), optional", "Bounds: both count. None: no bounds.")}

    assert with_parameters("Title.", entries, {}) == (
        "Title.\n\nParameters\n----------\na : (low, high), optional\n    Bounds: both count. None: no bounds.\n"
    )
    assert (entries["a"].summary, entries["a"].names_of_values) == ("Bounds", ("low", "high"))
    assert read_parameters(None) == {}
