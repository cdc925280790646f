"""The reader and mutated Parquet files: no crash, no hang, no foreign exception, no wrong answer.

``FASTMF_FUZZ=20000 python -m pytest tests/test_reader_fuzz.py -s`` reads so many mutants and prints what came of them.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

N_MUTANTS = int(os.environ.get("FASTMF_FUZZ", "2000"))
N_PROCESSES = 2
SECONDS = 120 + N_MUTANTS // 20


@pytest.mark.slow
def test_mutants_are_refused_or_read_as_pyarrow_reads_them(tmp_path: Path) -> None:
    share = -(-N_MUTANTS // N_PROCESSES)
    firsts = [share * worker for worker in range(N_PROCESSES)]
    program = Path(__file__).with_name("reader_fuzz.py")
    environment = {**os.environ, "NUMBA_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, str(program), str(tmp_path), str(first), str(share)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        for first in firsts
    ]
    counts: Counter[str] = Counter()
    failures: list[str] = []
    try:
        for first, worker in zip(firsts, workers, strict=True):
            out, errors = worker.communicate(timeout=SECONDS)
            current = (tmp_path / f"current-{first}").read_text()
            assert worker.returncode == 0, f"mutant {current} ended the process: {worker.returncode}, {errors[-2000:]}"
            told = json.loads(out)
            counts.update(told["counts"])
            failures += told["failures"]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    print(dict(counts))

    assert failures == []
    assert counts.total() == share * N_PROCESSES
    assert counts["refused (DataError)"] > N_MUTANTS // 2  # else the mutations do not reach what matters
    assert counts["other data, as pyarrow reads it"] + counts["the data of the sound file"] > N_MUTANTS // 20
