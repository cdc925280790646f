"""``fastmf doctor``, ``warmup`` and ``bench``: what is said of, and done to, this machine."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from fastmf.models import MODELS
from fastmf_kernels import _cache, _jit

Done = CompletedProcess[str]


def test_doctor_tells_what_is_used(run_fastmf: Callable[..., Done]) -> None:
    done = run_fastmf("doctor", "--json")

    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["threads used"] == _jit.resolve_threads(None)
    assert told["threading layer"].split()[0] == _jit.threading_layer()
    assert told["kernel cache"] == str(_cache.cache_root() or "off: FASTMF_CACHE_DIR is empty")
    assert told["inner loops"] == "vector code"
    assert {name: told[name] for name in ("numba", "numpy", "pyarrow")} == {
        name: version(name) for name in ("numba", "numpy", "pyarrow")
    }
    assert told["gpu"].startswith("not used: ")


def test_doctor_for_people(call_fastmf: Callable[..., Done]) -> None:
    told = dict(line.split("  ", 1) for line in call_fastmf("doctor").stdout.splitlines())

    assert told["numpy"].strip() == version("numpy")


@pytest.mark.parametrize(("value", "told"), [("", "off: FASTMF_CACHE_DIR is empty"), ("taken", "is not writable")])
def test_doctor_says_why_there_is_no_cache(
    value: str, told: str, tmp_path: Path, run_fastmf: Callable[..., Done]
) -> None:
    (tmp_path / "taken").touch()

    done = run_fastmf("doctor", prelude=f"import os; os.environ['FASTMF_CACHE_DIR'] = {value!r}")

    assert told in done.stdout


# Counts, for every kernel and both of its machine codes, the types that it has been compiled for.
WARM = """
import importlib, sys
from fastmf.cli import main
from fastmf_kernels._jit import Kernel

def compiled():
    for operation in ("layout", "predict", "sgd", "als", "topk"):
        importlib.import_module(f"fastmf_kernels.{operation}.cpu")
    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith("fastmf_kernels.")]
    kernels = {value for module in modules for value in vars(module).values() if isinstance(value, Kernel)}
    codes = [code for kernel in kernels for code in kernel._codes.values()]
    return sorted((code.__name__, len(code.signatures)) for code in codes)

assert main(["warmup", "--json"]) == 0
before = compiled()
ratings, test = sys.argv[1:]
als = [["--solver", solver] for solver in ("cg", "subspace", "cholesky")] + [["--nonnegative"]]
runs = [("sgd", []), *(("als", options) for options in als), *(("implicit-als", options) for options in als)]
for model, options in runs:
    train = ["train", ratings, "--model", model, "--output", model, "--epochs", "1", "--quiet", "--overwrite"]
    assert main([*train, *options]) == 0
    assert main(["recommend", model, "--output", f"{model}.parquet", "--quiet", "--overwrite"]) == 0
    assert main(["evaluate", model, test, "--quiet"]) == 0
    assert main(["similar", model, "--item", "film-001", "--quiet"]) == 0
print(before, compiled(), sep="\\n", file=sys.stderr)
sys.exit(before != compiled())
"""


def test_warmup_leaves_nothing_to_compile(data: Any, run_fastmf: Callable[..., Done]) -> None:
    done = run_fastmf(data.ratings, data.test, prelude=WARM)  # exits by itself: with 1 if the two counts differ

    assert json.loads(done.stdout.splitlines()[0])["cache"] == str(_jit.cache_directory() or "none")
    assert done.stderr.startswith("compiling SGD, 64 factors, loss=squared\ncompiling SGD, 64 factors, loss=logistic\n")
    for model in MODELS.values():
        assert done.stderr.count(f"compiling {model.__name__}, ") == len(model.kernel_variants)
