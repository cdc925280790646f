"""``.ci/run`` runs the test command that the README shows, and the tests that this leaves out."""

import glob
import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (extraction,) = re.findall(r"^test_command=\$\((.*)\)$", script, re.MULTILINE)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"<!-- test command -->\s*```\w*\n(.*?)```", readme, re.DOTALL)

    done = subprocess.run(["bash", "-c", extraction], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip()
    assert done.stdout.strip() == shown.strip()
    assert "pytest" in done.stdout


def test_ci_runs_what_it_extracted() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()

    assert 'eval "$test_command"' in lines
    assert 'test -n "$test_command"' in lines  # nothing found is a failure, not a pass
    assert "set -euo pipefail" in lines


def test_every_test_is_run_by_one_of_the_commands() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    named, marked = re.findall(r"^python -m pytest (.*)$", script, re.MULTILINE)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]

    def files(*patterns: str) -> set[str]:
        """Test files of the checkout that match a pattern, or lie below a folder that does."""
        found = [Path(path) for pattern in patterns for path in glob.glob(pattern, root_dir=ROOT)]
        nested = [below for path in found for below in (ROOT / path).rglob("test_*.py")]
        return {(ROOT / path).relative_to(ROOT).as_posix() for path in (*found, *nested) if path.suffix == ".py"}

    by_default, by_name = files(*settings["testpaths"]), files(*named.split())

    assert settings["addopts"][-2:] == ["-m", "not stress"]
    assert marked == "-m stress"
    assert by_default | by_name == files("tests", "bench")
    assert by_name - by_default == {
        "bench/test_kernels.py",
        *(f"tests/cuda/test_{name}.py" for name in ("compiled", "compiled_als", "compiled_topk")),
        *("tests/cuda/test_on_device.py", "tests/cuda/test_parity.py"),
        *files("tests/cuda/parity"),
    }
