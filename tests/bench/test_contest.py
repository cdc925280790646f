"""Contestants in processes of their own: laps in turn, and what happens to one that fails."""

import math
import sys
import time
from pathlib import Path

import pytest

from fastmf_bench import contest
from fastmf_bench.contest import Contestant, run_contest

pytestmark = pytest.mark.slow

SMALL = {"shape": (8, 8, 8)}


def test_every_contestant_runs_every_lap() -> None:
    outcomes = run_contest([Contestant(name, "ceilings.matmul", SMALL) for name in ("a", "b")], 3, 1)

    assert list(outcomes) == ["a", "b"]
    for outcome in outcomes.values():
        assert outcome.error is None
        assert len(outcome.laps) == 3
        assert all(lap.wall > 0 and lap.cpu >= 0 for lap in outcome.laps)
        assert outcome.metrics == {}


def test_contestants_use_the_kernels_of_this_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    for core in ("Nehalem", None):
        if core is None:
            monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
        else:
            monkeypatch.setenv("OPENBLAS_CORETYPE", core)
        names.append(run_contest([Contestant("a", "ceilings.matmul", SMALL)], 1, 1)["a"].blas)

    assert names[0] == names[1] != ""
    assert "Nehalem" not in names[0]


def test_no_lap_is_begun_when_the_time_is_over() -> None:
    outcome = run_contest([Contestant("a", "ceilings.matmul", SMALL)], 3, 1, until=time.perf_counter())["a"]

    assert (outcome.error, outcome.laps) == (None, [])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_peak_memory_is_that_of_the_contestant_alone() -> None:
    held = bytearray(1 << 29)  # what this process holds must not be counted

    outcome = run_contest([Contestant("a", "ceilings.matmul", SMALL)], 1, 1)["a"]

    assert 2**24 < outcome.peak_bytes < len(held)


def test_one_that_fails_is_left_out_and_the_others_go_on() -> None:
    contestants = [
        Contestant("wrong", "ceilings.matmul", {"shape": (8, 8)}),
        Contestant("unknown", "ceilings.dance", {}),
        Contestant("right", "ceilings.matmul", SMALL),
    ]

    outcomes = run_contest(contestants, 2, 1)

    assert outcomes["wrong"].error == "ValueError: not enough values to unpack (expected 3, got 2)"
    assert outcomes["unknown"].error == "KeyError: 'ceilings.dance'"
    assert (outcomes["right"].error, len(outcomes["right"].laps)) == (None, 2)


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("read order; kill -9 $$", "was killed by signal 9 (out of memory, or no answer?)"),
        ("read order; echo no such luck >&2; exit 3", "ended with status 3: no such luck"),
        ("exit 0", "ended with status 0"),
    ],
)
def test_one_that_dies_says_how(script: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))

    outcome = run_contest([Contestant("a", "ceilings.matmul", SMALL)], 2, 1)["a"]

    assert (outcome.error, outcome.laps) == (error, [])


@pytest.mark.parametrize("until", [math.inf, 0.0])
def test_one_that_hangs_is_ended(until: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nread order\nread never\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    if until == math.inf:
        monkeypatch.setattr(contest, "_PATIENCE", 0.2)

    outcome = run_contest([Contestant("a", "ceilings.matmul", SMALL)], 1, 1, until)["a"]

    assert outcome.error == "was killed by signal 9 (out of memory, or no answer?)"
