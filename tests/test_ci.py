"""``.ci/run`` runs the test command that the README shows, and no other."""

import re
import subprocess
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
