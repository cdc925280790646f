"""The examples of the documentation do what they say."""

import doctest
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastmf
from fastmf.models import MODELS


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


@pytest.mark.parametrize("name", [*MODELS, "Interactions", "evaluate", "load", "read_parquet", "top_k"])
def test_what_a_newcomer_meets_first_has_an_example(name: str) -> None:
    value = getattr(fastmf, name)

    assert f"{value.__module__}.{name}" in {example.name for example in EXAMPLES}
