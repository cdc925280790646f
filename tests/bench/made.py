"""Results that no machine measured, for tests of what is made of results."""

from fastmf_bench import machine
from fastmf_bench.results import Measurement, Run


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
