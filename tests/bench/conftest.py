"""The command, without the seconds that its ceilings and proofs take."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fastmf_bench import __main__ as command
from fastmf_bench import cases
from fastmf_bench.suites import ceilings


@pytest.fixture
def bench(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[str, str]]:
    """Run ``fastmf bench ARGS`` in this process, insist on its exit status, and return what it printed.

    Kernels count as proven: `test_proofs` proves them.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cases, "prove", lambda *_: None)
    monkeypatch.setattr(ceilings, "run", lambda session: None)

    def run(*arguments: object, status: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        returned = command.main(list(map(str, arguments)))
        output, errors = capsys.readouterr()
        assert returned == status, errors
        return output, errors

    return run
