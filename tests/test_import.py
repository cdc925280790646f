"""`import fastmf` costs next to nothing, and its lazy names are the ones that type checkers see."""

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fastmf

# Looks at the interpreter before and after the import, from the inside.
PROBE = """
import json, os, sys, threading

before = dict(os.environ)
import fastmf

tasks = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1
print(json.dumps({
    "modules": sorted({name.partition(".")[0] for name in sys.modules}),
    "threads": [threading.active_count(), tasks],
    "environment": dict(os.environ) == before,
    "dir": dir(fastmf),
}))
"""

HEAVY = {
    "cuda",
    "cupy",
    "fastmf_kernels",
    "llvmlite",
    "numba",
    "numba_cuda",
    "numpy",
    "platformdirs",
    "pyarrow",
    "scipy",
    "tbb",
    "tqdm",
}


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Import fastmf in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_import_brings_in_nothing_heavy(probe: dict[str, Any]) -> None:
    assert "fastmf" in probe["modules"]
    assert HEAVY.isdisjoint(probe["modules"])


def test_import_starts_no_thread(probe: dict[str, Any]) -> None:
    assert probe["threads"] == [1, 1]


def test_import_writes_no_environment_variable(probe: dict[str, Any]) -> None:
    assert probe["environment"]


def test_dir_is_what_is_exported(probe: dict[str, Any]) -> None:
    assert probe["dir"] == sorted(fastmf.__all__) == dir(fastmf)


@pytest.mark.parametrize("name", fastmf.__all__)
def test_every_exported_name_resolves(name: str) -> None:
    value = getattr(fastmf, name)

    assert value is not None
    assert getattr(value, "__name__", name).rpartition(".")[2] == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'fastmf' has no attribute 'SVD'"):
        fastmf.SVD  # noqa: B018
    assert not hasattr(fastmf, "nothing")


def imports_for_type_checkers() -> dict[str, str]:
    """Read the ``if TYPE_CHECKING:`` block: name to module."""
    tree = ast.parse(Path(str(fastmf.__file__)).read_text(encoding="utf-8"))
    blocks = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    imports = [node for block in blocks for node in block.body]
    assert all(isinstance(node, ast.ImportFrom) for node in imports)
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def test_the_lazy_table_is_what_type_checkers_see() -> None:
    submodules = dict.fromkeys(fastmf._SUBMODULES, "fastmf")

    assert imports_for_type_checkers() == fastmf._MODULE_OF | submodules
    assert set(fastmf.__all__) == imports_for_type_checkers().keys()


@pytest.mark.parametrize("name", fastmf._SUBMODULES)
def test_submodules_are_modules(name: str) -> None:
    assert getattr(fastmf, name) is importlib.import_module(f"fastmf.{name}")
