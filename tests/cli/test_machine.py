"""``fastmf doctor``, ``warmup`` and ``bench``: what is said of, and done to, this machine."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from fastmf.cli import warmup
from fastmf.models import FACTOR_MODELS
from fastmf_kernels import _cache, _jit

Done = CompletedProcess[str]

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("FASTMF_PLAIN_LOOPS", "plain: FASTMF_PLAIN_LOOPS is set"),
        ("NUMBA_DISABLE_JIT", "plain Python: NUMBA_DISABLE_JIT is set"),
    ],
)
def test_doctor_says_why_there_is_no_vector_code(variable: str, told: str, run_fastmf: Callable[..., Done]) -> None:
    done = run_fastmf("doctor", "--json", prelude=f"import os; os.environ[{variable!r}] = '1'")

    assert json.loads(done.stdout)["inner loops"] == told


def test_doctor_shows_the_variables_that_are_set(run_fastmf: Callable[..., Done]) -> None:
    change = "for name in list(os.environ): name.startswith('FASTMF_') and os.environ.pop(name)"
    of_run = "os.environ |= {'FASTMF_CACHE_DIR': '', 'FASTMF_Cache': 'x'}"

    told = [
        json.loads(run_fastmf("doctor", "--json", prelude=f"import os\n{text}").stdout) for text in (change, of_run)
    ]

    assert told[0]["environment"] == "nothing is set"
    assert "FASTMF_CACHE_DIR='', FASTMF_Cache='x' (not a variable of the library)" in told[1]["environment"]


def test_doctor_knows_a_read_only_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    monkeypatch.setenv("FASTMF_CACHE_DIR", str(tmp_path / "cache"))
    folder = _cache.folder_of("fastmf_kernels.layout.cpu", _jit.COMPILER)
    assert folder is not None
    _cache.write(folder / f"one{_cache.SUFFIX}", b"code")
    _cache.write(tmp_path / "cache" / "layout.cpu-0123456789abcdef" / f"old{_cache.SUFFIX}", b"old code")
    monkeypatch.setattr(_cache, "why_not_writable", lambda: "the file system is read-only")

    told = json.loads(call_fastmf("doctor", "--json").stdout)

    assert told["kernel cache"] == f"{tmp_path / 'cache'} (read-only)"
    assert told["kernels cached"] == 1


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("FASTMF_CACHE_DIR", "", "cannot be kept: FASTMF_CACHE_DIR is empty; set FASTMF_CACHE_DIR to a folder"),
        ("FASTMF_CACHE_DIR", "taken", "cannot be kept: taken is not writable; set FASTMF_CACHE_DIR to a folder"),
        ("NUMBA_DISABLE_JIT", "1", "NUMBA_DISABLE_JIT is set: nothing would be compiled; unset it"),
    ],
)
def test_warmup_fails_where_nothing_can_be_kept(
    variable: str, value: str, told: str, tmp_path: Path, run_fastmf: Callable[..., Done]
) -> None:
    (tmp_path / "taken").touch()

    done = run_fastmf("warmup", status=1, prelude=f"import os; os.environ[{variable!r}] = {value!r}")

    assert told in done.stderr
    assert done.stdout == ""


def test_warmup_fails_where_not_all_was_stored(
    monkeypatch: pytest.MonkeyPatch, call_fastmf: Callable[..., Done]
) -> None:
    counts = iter([_jit.Compilations(5, 4), _jit.Compilations(35, 33)])
    monkeypatch.setattr(warmup, "_compile_everything", lambda parsed: None)
    monkeypatch.setattr(_jit, "compilations", lambda: next(counts))

    done = call_fastmf("warmup", "--quiet", status=1)

    assert "30 kernels were compiled, and 29 of them stored in" in done.stderr


@pytest.mark.stress
@pytest.mark.slow
def test_warmup_leaves_nothing_to_compile(data: Any, tmp_path: Path, start_fastmf: Callable[..., Any]) -> None:
    cache = f"import os; os.environ['FASTMF_CACHE_DIR'] = {str(tmp_path / 'cache')!r}\n"
    warming = start_fastmf("warmup", "--json", "--factors", "64", "8", prelude=cache)
    output, errors = warming.communicate(timeout=600)
    assert warming.returncode == 0, errors
    assert json.loads(output)["cache"] == str(tmp_path / "cache")
    for model in FACTOR_MODELS.values():
        assert errors.count(f"compiling {model.__name__}, ") == 2 * len(model.kernel_variants)

    calls = (Path(__file__).parent / "every_public_call.py").read_text(encoding="utf-8")
    calling = start_fastmf(data.ratings, data.test, prelude=cache + calls)  # exits by itself: with 1 if any compiled
    output, errors = calling.communicate(timeout=600)
    assert calling.returncode == 0, errors
