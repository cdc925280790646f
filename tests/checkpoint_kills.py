"""A worker of `test_checkpoint_kills.py`: kills trainings at random moments, and goes on from what they have left.

Usage: ``checkpoint_kills.py FOLDER SEED N_KILLS CASE...``. Each training runs in a forked process, which ends itself
with SIGKILL at the call of a function, of Python or of C, that the seed has drawn: also in the midst of writing. Prints
as JSON how many trainings of each case were killed, how many came to their end, and how many of these ended with other
bits than a training that nobody has killed.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastmf
from fastmf.models import MODELS

_SMALL = {"n_factors": 4, "n_epochs": 5}
CASES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "SGD": ("SGD", _SMALL, False),
    "SGD, patience": ("SGD", _SMALL | {"patience": 3, "learning_rate": 0.4}, True),
    "SVDpp": ("SVDpp", _SMALL, False),
    "BPR": ("BPR", _SMALL, True),
    "ALS": ("ALS", _SMALL | {"solver": "cg"}, False),
    "ALS, patience": ("ALS", _SMALL | {"patience": 3, "regularization": 0.001}, True),
    "ImplicitALS": ("ImplicitALS", _SMALL, False),
    "Bias": ("Bias", {}, True),
    "Popularity": ("Popularity", {}, False),
}


def train(case: str, directory: Path, kill_at: int | None, result: Path) -> None:
    """Train with checkpoints, and write what was learned and how many calls it took."""
    kind, params, validates = CASES[case]
    ratings = fastmf.testing.film_club(n_users=40, n_items=20, mean_ratings=8)
    part, held_out = fastmf.split.random(ratings, test_fraction=0.2, seed=1)
    n_calls = 0

    def count(*_: object) -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = lambda _: None  # type: ignore[assignment]  # what a process has written outlives it
    sys.setprofile(count)
    model = MODELS[kind](**params, n_threads=1).fit(
        part, validation=held_out if validates else None, checkpoint=directory
    )
    sys.setprofile(None)
    model.save(result / "model")
    names = sorted(path.name for path in (result / "model").iterdir() if path.suffix in (".npy", ".arrow"))
    learned = [hashlib.sha256((result / "model" / name).read_bytes()).hexdigest() for name in names]
    history = [{name: value for name, value in record.items() if name != "seconds"} for record in model.history]
    (result / "learned").write_text(json.dumps([names, learned, history, model.chosen, model.best_epoch]))
    (result / "n_calls").write_text(str(n_calls))


def in_a_process(work: Callable[[], None]) -> int:
    """Run a function in a forked process; return the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0
    return 0


def kill_often(case: str, folder: Path, seed: int, n_kills: int) -> dict[str, int]:
    """Kill trainings of a case until there were enough, and let the last one end."""
    rng = random.Random(f"{seed} {case}")
    counts = {"killed": 0, "ended": 0, "different": 0}
    expected, n_calls = "", 0
    directory, n_runs = folder / "checkpoint", 0
    while True:
        result = folder / f"result-{n_runs}"
        result.mkdir(parents=True)
        kill_at = rng.randrange(1, n_calls) if n_runs and counts["killed"] < n_kills else None
        number = in_a_process(lambda to=result, at=kill_at: train(case, directory, at, to))  # type: ignore[misc]
        n_runs += 1
        if number:
            assert number == signal.SIGKILL
            counts["killed"] += 1
            continue
        learned = (result / "learned").read_text()
        if not expected:
            expected, n_calls = learned, int((result / "n_calls").read_text())
        else:
            counts["ended"] += 1
            counts["different"] += learned != expected
        left = sorted(path.name for path in directory.iterdir())
        assert left == ["state"], left  # nothing is left of those that were killed
        shutil.rmtree(directory)
        if counts["killed"] >= n_kills:
            return counts


def main() -> None:
    """Run the cases that are asked for."""
    folder, seed, n_kills, *cases = sys.argv[1:]
    found = {case: kill_often(case, Path(folder) / case.replace(", ", "-"), int(seed), int(n_kills)) for case in cases}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
