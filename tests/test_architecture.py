"""The invariants of ARCHITECTURE.md, read off the sources."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fastmf.backend import _NOT_ON_CUDA, _ON_THE_HOST, BACKENDS
from fastmf.testing import VARIANTS

ROOT = Path(__file__).parents[1]
SOURCE_ROOTS = {"fastmf": ROOT, "fastmf_kernels": ROOT / "kernels", "fastmf_bench": ROOT / "bench"}
MODULES = {
    ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
    for package, root in SOURCE_ROOTS.items()
    for path in sorted((root / package).rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
NODES = [(name, node) for name, tree in TREES.items() for node in ast.walk(tree)]
FUNCTIONS = {f"{name}:{node.name}": node for name, node in NODES if isinstance(node, ast.FunctionDef)}
OPERATIONS = sorted({name.split(".")[1] for name in MODULES if name.endswith(".reference")})


def variant_of(name: str) -> str:
    """Return what follows the operation in the name of a kernel's module: a variant is a file, or a folder of files."""
    parts = name.split(".")
    return parts[2] if parts[0] == "fastmf_kernels" and len(parts) > 2 else ""


class Import(NamedTuple):
    importer: str
    imported: str
    line: int
    in_function: bool

    @property
    def packages(self) -> tuple[str, str]:
        return self.importer.partition(".")[0], self.imported.partition(".")[0]

    @property
    def files(self) -> tuple[str, str]:
        return self.importer.rpartition(".")[2], self.imported.rpartition(".")[2]


def imports_of(importer: str, node: ast.AST, in_function: bool = False) -> Iterator[Import]:
    """All imports that run: those for the type checker alone are left out."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    names: set[str] = set()
    if isinstance(node, ast.Import):
        names = {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
        members = {f"{node.module}.{alias.name}" for alias in node.names}
        names = {name if name in MODULES else str(node.module) for name in members}
    yield from (Import(importer, name, getattr(node, "lineno", 0), in_function) for name in names)
    for child in ast.iter_child_nodes(node):
        yield from imports_of(importer, child, in_function or isinstance(node, ast.FunctionDef))


IMPORTS = [found for name, tree in TREES.items() for found in imports_of(name, tree)]


def test_there_is_something_to_look_at() -> None:
    assert {"layout", "linalg", "predict", "sgd", "svdpp", "als", "topk"} <= set(OPERATIONS)
    assert {i.packages[1] for i in IMPORTS} >= {"fastmf", "fastmf_kernels", "fastmf_bench", "numba", "numpy"}
    assert not any(node.level for _, node in NODES if isinstance(node, ast.ImportFrom))  # none is relative


def test_the_map_names_every_layer() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")

    layers = {path.name for path in (ROOT / "fastmf").iterdir() if (path / "__init__.py").exists()}
    assert {"cli", "models"} <= layers
    assert {name for name in layers if f"`{name}/`" not in text} == set()


def test_imports_keep_to_the_layers() -> None:
    """What rests on what is in pyproject.toml; imports inside of functions count."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, SOURCE_ROOTS.values()))}
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
    assert "3 kept, 0 broken" in done.stdout


def test_fastmf_knows_the_benchmarks_by_their_command_alone() -> None:
    assert {i.importer for i in IMPORTS if i.packages == ("fastmf", "fastmf_bench")} == {"fastmf.cli.bench"}


def test_references_need_nothing_but_numpy_and_scipy() -> None:
    references = ("reference", "reference_rows")

    def is_allowed(found: Import) -> bool:
        if found.packages[1] == "fastmf_kernels":
            return found.imported.count(".") <= 2 and found.files[1] in ("arrays", "_types", "schedule", *references)
        return found.packages[1] in {"numpy", "scipy", *sys.stdlib_module_names}

    assert [i for i in IMPORTS if i.files[0] in references and not is_allowed(i)] == []


def test_points_are_plain_python() -> None:
    of_points = [i for i in IMPORTS if i.files[0] == "point"]

    assert of_points
    assert [i for i in of_points if i.files[1] in ("numba", "_jit") or variant_of(i.imported) in ("cpu", "cuda")] == []


def test_only_jit_talks_to_numba() -> None:
    def importers(package: str) -> set[str]:
        return {i.importer for i in IMPORTS if i.packages[1] == package}

    emitters = {name for name in MODULES if name.endswith("_simd")}
    of_cuda = {f"fastmf_kernels._cuda.{name}" for name in ("jit", "isa", "simulated")}
    assert importers("numba") == {"fastmf_kernels._jit", "fastmf_kernels._builder", *of_cuda}
    assert importers("llvmlite") == {"fastmf_kernels._builder", "fastmf_kernels._cuda.isa", *emitters}
    assert {i.importer for i in IMPORTS if i.imported == "fastmf_kernels._builder"} == {
        "fastmf_kernels._vectors",
        *emitters,
    }


def test_only_plain_loops_know_their_vector_code() -> None:
    emitters = {name for name in MODULES if name.endswith("_simd")}
    assert {"fastmf_kernels.linalg.panels_simd", "fastmf_kernels.topk.cpu.tiles_simd"} <= emitters

    known = {(i.importer, i.imported, i.in_function) for i in IMPORTS if i.imported in emitters}
    assert known == {(name.removesuffix("_simd"), name, True) for name in emitters}


def test_only_the_backend_picks_variants() -> None:
    by_name = {name for name, node in NODES if isinstance(node, ast.Attribute) and node.attr == "import_module"}

    assert by_name == {"fastmf", "fastmf.backend"}  # the facade does so for its own lazy names
    own = [i for i in IMPORTS if i.packages[1] == "fastmf_kernels" and i.files[1] == "cuda"]
    # The benchmark switches float16 on.
    assert {i.importer for i in own} - {"fastmf.backend"} == {"fastmf_bench.suites.cuda_tasks"}


def test_only_variants_for_cuda_touch_the_device() -> None:
    """Others may ask what loads nothing: whether there is one, where an array is, and what the user is told."""

    def is_for_cuda(name: str) -> bool:
        in_kernels = "_cuda" in name.split(".") or variant_of(name) == "cuda"
        return in_kernels or name.startswith("fastmf_bench.suites.cuda")

    touching = [i for i in IMPORTS if is_for_cuda(i.imported) and i.packages[1] == "fastmf_kernels"]
    others = {(i.importer, i.files[1], i.in_function) for i in touching if not is_for_cuda(i.importer)}
    assert others == {
        ("fastmf.backend", "probe", True),
        ("fastmf.backend", "exchange", True),
        ("fastmf.reading.ids", "exchange", True),
        ("fastmf.cli.doctor", "probe", True),
        ("fastmf_bench.machine", "probe", True),
    }


def test_fastmf_pickles_nothing() -> None:
    pickling = ("pickle", "joblib", "shelve", "marshal", "cloudpickle")

    assert [i for i in IMPORTS if i.packages[0] == "fastmf" and i.packages[1] in pickling] == []


def test_nothing_outside_the_kernels_loads_the_compiler_when_imported() -> None:
    early = [i for i in IMPORTS if i.packages[0] != "fastmf_kernels" and not i.in_function]

    assert [i for i in early if variant_of(i.imported) in ("cpu", "cuda") or i.files[1] == "_jit"] == []


def test_no_file_is_longer_than_450_lines() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}

    assert {name: length for name, length in lengths.items() if length > 450} == {}


def test_no_function_body_is_longer_than_60_lines() -> None:
    def length(function: ast.FunctionDef) -> int:
        first = function.body[1 if ast.get_docstring(function) and len(function.body) > 1 else 0]
        return int(function.end_lineno or 0) - first.lineno + 1

    assert {name: length(function) for name, function in FUNCTIONS.items() if length(function) > 60} == {}


def test_no_kernel_has_more_than_10_arguments() -> None:
    compiling = {"device", "in_vectors", "inlined", "kernel", "parallel"}

    def is_kernel(function: ast.FunctionDef) -> bool:
        decorators = {ast.unparse(decorator).partition("(")[0] for decorator in function.decorator_list}
        return bool(decorators & compiling)

    n_arguments = {name: len(function.args.args) for name, function in FUNCTIONS.items() if is_kernel(function)}
    of_each_kind = {"cholesky", "add_product", "length", "solve_chunk", "_gather"}
    assert of_each_kind <= {name.rpartition(":")[2] for name in n_arguments}
    # The docstring of the module says why.
    tiles = {f"fastmf_kernels.topk.cpu.tiles:{name}" for name in ("append_passed", "screen_bytes", "screen_floats")}
    assert {name for name, n in n_arguments.items() if n > 10} <= tiles


def exported(operation: str, variant: str) -> dict[str, str]:
    """Public functions of a variant with their signatures, those that it takes over from the reference included."""
    signatures = {}
    for node in TREES[f"fastmf_kernels.{operation}.{variant}"].body:
        if isinstance(node, ast.FunctionDef):
            signatures[node.name] = f"({ast.unparse(node.args)}) -> {ast.unparse(node.returns or node)}"
        elif isinstance(node, ast.ImportFrom) and node.module == f"fastmf_kernels.{operation}.reference":
            reference = exported(operation, "reference")
            signatures |= {alias.name: reference[alias.name] for alias in node.names}
    return {name: signature for name, signature in signatures.items() if not name.startswith("_")}


def test_no_name_of_a_variant_hides_a_file_of_its_folder() -> None:
    """Or what ``from fastmf_kernels.als.cuda import gram`` gives depends on who was imported before."""

    def names(package: str) -> Iterator[str]:
        for node in TREES[package].body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield node.name
            elif isinstance(node, ast.Import | ast.ImportFrom) and getattr(node, "module", "") != package:
                yield from (alias.asname or alias.name for alias in node.names)
            elif isinstance(node, ast.Assign):
                yield from (ast.unparse(target) for target in node.targets)

    packages = {name for name, path in MODULES.items() if variant_of(name) and path.name == "__init__.py"}
    assert {"fastmf_kernels.als.cuda", "fastmf_kernels.topk.cpu"} <= packages
    hidden = {f"{package}.{name}" for package in packages for name in names(package)} & set(MODULES)
    assert hidden == set()


# linalg has no operation on whole arrays: its cpu.py is the small float32 solver that is compiled into the kernels of
# ALS, its reference.py the float64 one that the reference of ALS calls. tests/kernels holds one against the other.
@pytest.mark.parametrize("operation", sorted(set(OPERATIONS) - {"linalg"}))
@pytest.mark.parametrize("variant", [*VARIANTS, "cuda"])
def test_variants_export_the_same_functions(operation: str, variant: str) -> None:
    reference = exported(operation, "reference")
    if f"fastmf_kernels.{operation}.{variant}" not in MODULES:
        assert variant == "cuda"
        assert operation in {*_ON_THE_HOST, *_NOT_ON_CUDA}
        return

    assert reference
    assert exported(operation, variant) == reference


def test_the_table_of_variants_names_what_there_is() -> None:
    for operation in OPERATIONS:
        there = {backend for backend in BACKENDS if f"fastmf_kernels.{operation}.{backend}" in MODULES}
        assert there - {"cuda"} == {"reference", *VARIANTS}, operation


def test_the_library_prints_nothing() -> None:
    prints = ("print", "sys.stdout.write", "sys.stderr.write")
    printing = {name for name, node in NODES if isinstance(node, ast.Call) and ast.unparse(node.func) in prints}

    assert "fastmf.common.progress" in printing
    assert {
        name for name in printing - {"fastmf.common.progress"} if not name.startswith(("fastmf.cli", "fastmf_bench"))
    } == set()


def test_everything_public_has_a_docstring() -> None:
    def without(name: str, node: ast.Module | ast.ClassDef | ast.FunctionDef) -> Iterator[str]:
        if ast.get_docstring(node) is None:
            yield name
        for child in () if isinstance(node, ast.FunctionDef) else node.body:
            if not isinstance(child, ast.ClassDef | ast.FunctionDef) or child.name.startswith("_"):
                continue
            if "overload" not in map(ast.unparse, child.decorator_list):  # what follows has the docstring
                yield from without(f"{name}.{child.name}", child)

    assert [found for name, tree in TREES.items() for found in without(name, tree)] == []


LAZY = """
import os, sys, threading
before = dict(os.environ)
import fastmf
assert not {"numpy", "pyarrow", "scipy", "numba"} & set(sys.modules), "import fastmf is not lazy"
assert threading.active_count() == 1
for name in fastmf.__all__:
    getattr(fastmf, name)
assert "pyarrow" in sys.modules
assert not {"numba", "llvmlite"} & set(sys.modules), "a public name loads the compiler"
assert dict(os.environ) == before
"""


def test_importing_fastmf_loads_nothing_heavy_and_changes_nothing() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, SOURCE_ROOTS.values()))}
    done = subprocess.run([sys.executable, "-c", LAZY], env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
