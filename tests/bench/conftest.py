"""Results that no machine measured, for what is made of results; and the command without its ceilings."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fastmf_bench import __main__ as command
from fastmf_bench import machine
from fastmf_bench.results import Measurement, Run
from fastmf_bench.suites import ceilings


def measurement(
    suite: str = "sgd",
    task: str = "epoch",
    problem: str = "ml-10m",
    contestant: str = "fastmf",
    *,
    seconds: float = 1.0,
    work: float = 100.0,
    **rest: object,
) -> Measurement:
    settings = {"n_threads": 2, "n_factors": 64, **rest.pop("settings", {})}  # type: ignore[dict-item]
    laps = [seconds * share for share in (1.0, 0.9, 1.0, 1.1, 1.0)] if seconds else []
    cpu = [2 * lap for lap in laps]
    return Measurement(suite, task, problem, contestant, settings, laps, cpu, 2**20, work, "ratings", **rest)  # type: ignore[arg-type]


def made_run(*measurements: Measurement, **rest: object) -> Run:
    return Run("fastmf bench", machine.describe(), 2, list(measurements), **rest)  # type: ignore[arg-type]


@pytest.fixture
def bench(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[str, str]]:
    """Run ``fastmf bench ARGS`` in this process, insist on its exit status, and return what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ceilings, "run", lambda session: None)

    def run(*arguments: object, status: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        returned = command.main(list(map(str, arguments)))
        output, errors = capsys.readouterr()
        assert returned == status, errors
        return output, errors

    return run
