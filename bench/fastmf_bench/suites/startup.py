"""Start-up, in fresh interpreters: import, the first fit with kernels compiled or cached, and loading a model."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import fastmf
from fastmf.models import FACTOR_MODELS
from fastmf.testing import power_law
from fastmf_bench.contest import Contestant
from fastmf_bench.pace import Lap, Pace, Task
from fastmf_bench.results import OURS
from fastmf_bench.session import Session

_LOADED_USERS = 1_000_000

_IMPORT = """
import json, sys, time
wall, cpu = time.perf_counter(), time.process_time()
__import__(sys.argv[1])
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]))
"""
# The first fit over the steady one: data of a fixed size, three epochs, the second and third fit for comparison.
_FIRST_FIT = """
import json, sys, time
import fastmf
ratings = fastmf.testing.power_law(2000, 1000, 100_000)
model = getattr(fastmf, sys.argv[1])(n_factors=64, n_epochs=3)
laps = []
for _ in range(3):
    wall, cpu = time.perf_counter(), time.process_time()
    model.fit(ratings)
    laps.append([time.perf_counter() - wall, time.process_time() - cpu])
print(json.dumps([first - min(rest) for first, *rest in zip(*laps)]))
"""
_LOAD = """
import json, sys, time
import fastmf
fastmf.load, fastmf.SGD
import fastmf.models.loading
wall, cpu = time.perf_counter(), time.process_time()
fastmf.load(sys.argv[1])
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]))
"""


def run(session: Session) -> None:
    """Race imports, then take the first fits of each model and the loading of a large one."""
    importers = [("fastmf", OURS), *(pair for pair in (("implicit",) * 2, ("surprise",) * 2) if session.has(pair[0]))]
    contestants = [
        Contestant(name, "startup.script", {"script": "import", "argument": module}) for module, name in importers
    ]
    session.race("startup", "import", "", {}, contestants)
    for model in tuple(FACTOR_MODELS)[-1:] if session.options.quick else FACTOR_MODELS:
        for cached in (True, False):
            task = "first fit over the steady one, " + ("kernels cached" if cached else "kernels compiled")
            arguments = {"script": "first fit", "argument": model, "cached": cached}
            n_laps = 1 if session.options.quick and not cached else None
            contestant = Contestant(f"{OURS}, {model}", "startup.script", arguments)
            session.race("startup", task, "2,000 × 1,000, 100,000 ratings", {}, [contestant], n_laps=n_laps)
    folder = session.options.folder / "startup-model"
    if not folder.exists():
        session.work("startup.make_model", {"folder": str(folder)})
    contestant = Contestant(OURS, "startup.script", {"script": "load", "argument": str(folder)})
    session.race("startup", "load a model", f"{_LOADED_USERS:,} users × 64 factors", {}, [contestant])


def run_script(pace: Pace, script: str, argument: str, cached: bool = True) -> dict[str, Any]:
    """Run a script in a new interpreter, a lap each; the script has its own clock."""
    source = {"import": _IMPORT, "first fit": _FIRST_FIT, "load": _LOAD}[script]
    if cached:
        run_source(source, argument, cached)  # fills the caches
    lap: Lap | None = None
    while pace(lap):
        lap = run_source(source, argument, cached)
    return {"peak_bytes": 0}


def run_source(script: str, argument: str, cached: bool) -> Lap:
    """Run a script in a new interpreter, with the kernel cache or an empty one; its last line has its clocks."""
    with tempfile.TemporaryDirectory() as empty:
        environment = {**os.environ} if cached else {**os.environ, "FASTMF_CACHE_DIR": empty}
        done = subprocess.run(
            [sys.executable, "-c", script, argument], env=environment, capture_output=True, text=True, check=True
        )
    return Lap(*json.loads(done.stdout.splitlines()[-1]))


def make_model(_: Pace, folder: str) -> dict[str, Any]:
    """Save a model of a million users and 64 factors."""
    ratings = power_law(_LOADED_USERS, 50_000, 2_000_000)
    fastmf.SGD(n_factors=64, n_epochs=1).fit(ratings).save(Path(folder))
    return {}


TASKS: dict[str, Task] = {"startup.script": run_script, "startup.make_model": make_model}
