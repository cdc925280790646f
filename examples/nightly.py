"""A night's work without a scheduler: prepare, train, compare with yesterday's model, recommend, and swap.

Start it from cron, as often as you like:

    python examples/nightly.py 'events/*.parquet' --folder nightly --day 2026-05-01

FOLDER/DAY has what each step has made, and FOLDER/model the model that is served. A step whose output is there is not
done again: outputs appear whole or not at all, so a second start after a kill goes on where the first was, also in the
middle of the training. A candidate that ranks the newest events worse than yesterday's model is refused (status 1).
"""

import argparse
import datetime
import fcntl
import json
import sys
from pathlib import Path
from typing import Any

import fastmf
from fastmf.errors import FastMFError

METRIC = "ndcg@10"


def prepare(sources: list[str], day: Path) -> tuple[fastmf.Interactions, fastmf.Interactions]:
    """Keep what there was to read this night, the newest tenth apart: a second start finds the same."""
    train, test = day / "train.parquet", day / "test.parquet"
    if not (train.exists() and test.exists()):
        events = fastmf.read_parquet(sources, timestamp="timestamp", duplicates="sum")
        parts = fastmf.split.temporal(events, test_fraction=0.1)
        for part, path in zip(parts, (train, test), strict=True):
            part.to_parquet(path, overwrite=True)
    return fastmf.read_parquet(train), fastmf.read_parquet(test)


def train(events: fastmf.Interactions, day: Path, settings: dict[str, Any], log: Any) -> Any:
    """Train a candidate; after a kill, from its last finished epoch on."""
    candidate = day / "candidate"
    if not candidate.exists():
        model = fastmf.ImplicitALS(**settings)
        model.fit(events, checkpoint=day / "checkpoint", callbacks=[log]).save(candidate)
    return fastmf.load(candidate)


def compare(candidate: Any, served: Path, test: fastmf.Interactions) -> dict[str, Any]:
    """Say whether the candidate is good enough: not worse than yesterday's model, but for chance."""
    if not served.exists():
        return {"is_accepted": True, METRIC: fastmf.evaluate(candidate, test, metrics=["ndcg"])[METRIC]}
    found = fastmf.compare(fastmf.load(served), candidate, test, metrics=["ndcg"])[METRIC]
    is_worse = found.high is not None and found.high < 0
    return {"is_accepted": not is_worse, METRIC: found.b, "yesterday": found.a, "difference": [found.low, found.high]}


def run(sources: list[str], folder: Path, day: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Do what is not done yet; return the report of the night."""
    report, served = day / "report.json", folder / "model"
    if report.exists():
        return dict(json.loads(report.read_text()))
    with fastmf.log_to(folder / "runs.jsonl", day=day.name) as log:
        events, test = prepare(sources, day)
        candidate = train(events, day, settings, log)
        result = read_or_write(day / "comparison.json", lambda: compare(candidate, served, test))
        if result["is_accepted"]:
            if not (day / "recommendations.parquet").exists():
                candidate.recommend_to_parquet(day / "recommendations.parquet", k=10, cold="popular")
            # Readers find the old model or the new one, and a service that swaps takes the new one up.
            candidate.save(served, overwrite=True)
        log.result.update(result)
        return read_or_write(report, lambda: result)


def read_or_write(path: Path, make: Any) -> dict[str, Any]:
    """Return what a file has; write it first if it is not there or empty, whole or not at all."""
    if not path.exists() or not path.stat().st_size:
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(make()))
        unfinished.replace(path)
    return dict(json.loads(path.read_text()))


def main() -> int:
    """Run one night at a time."""
    parser = argparse.ArgumentParser(description="Train, compare, recommend and swap.")
    parser.add_argument("sources", nargs="+", help="Parquet with user_id, item_id, rating and timestamp")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--day", default=datetime.date.today().isoformat())
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=15)
    parsed = parser.parse_args()
    day = parsed.folder / parsed.day
    day.mkdir(parents=True, exist_ok=True)
    with (parsed.folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets go of it when the process ends
            settings = {"n_factors": parsed.factors, "n_epochs": parsed.epochs}
            report = run(parsed.sources, parsed.folder, day, settings)
        except BlockingIOError:
            print(f"another process works in {parsed.folder}", file=sys.stderr)
            return 1
        except FastMFError as error:
            print(f"the night of {parsed.day} failed: {error}", file=sys.stderr)
            return 1
    print(json.dumps(report))
    return 0 if report["is_accepted"] else 1


if __name__ == "__main__":
    sys.exit(main())
