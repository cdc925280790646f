"""``fastmf demo``: the whole job, in steps that can be copied."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf

Done = CompletedProcess[str]


@pytest.mark.slow
def test_demo_does_what_the_python_that_it_shows_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_fastmf: Callable[..., Done]
) -> None:
    done = run_fastmf("demo", "--keep", "kept", "--json")

    told = json.loads(done.stdout)
    recs = pq.read_table(tmp_path / "recs.parquet")
    assert (told["output"], told["n_rows"]) == ("recs.parquet", len(recs))
    assert told["ndcg@10"] > 1.5 * told["ndcg@10 of the most popular films"] > 0

    kept = tmp_path / "kept"
    (kept / "model").rename(tmp_path / "its model")
    monkeypatch.chdir(kept)
    names: dict[str, object] = {"fastmf": fastmf}
    steps = [line.removeprefix(">>> ") for line in done.stderr.splitlines() if line.startswith(">>> ")]
    for step in steps:
        exec(step, names)
    assert len(steps) == 6
    assert pq.read_table("recs.parquet").equals(recs)
    assert fastmf.evaluate(fastmf.load("model"), names["test"])["recall@10"] == told["recall@10"]  # type: ignore[arg-type]
    assert fastmf.load(tmp_path / "its model").recommend(k=10).to_arrow().equals(recs)


def test_demo_for_people_leaves_nothing_but_its_output(
    call_fastmf: Callable[..., Done], contents: Callable[[], dict[str, bytes]]
) -> None:
    done = call_fastmf("demo", "--quiet", "--output", "new/mine.parquet")

    assert sorted(contents()) == ["new", "new/mine.parquet"]
    assert done.stderr == ""
    names = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert names == ["output", "n_rows", "ndcg@10", "recall@10", "ndcg@10 of the most popular films"]


@pytest.mark.slow
@pytest.mark.parametrize("there", ["Parquet", "text", "an earlier demo"])
def test_demo_replaces_nothing_unless_told_to(
    there: str, tmp_path: Path, call_fastmf: Callable[..., Done], contents: Callable[[], object]
) -> None:
    if there == "Parquet":
        pq.write_table(pa.table({"mine": [1]}), tmp_path / "recs.parquet")
    elif there == "an earlier demo":
        call_fastmf("demo", "--quiet")
    else:
        (tmp_path / "recs.parquet").write_text("mine")
    before = contents()

    done = call_fastmf("demo", status=1)

    message = "recs.parquet exists already; choose another output, or allow overwriting (--overwrite)"
    assert (done.stdout, done.stderr) == ("", f"fastmf demo: {message}\n")
    assert contents() == before

    done = call_fastmf("demo", "--overwrite")

    assert '.to_parquet("recs.parquet", overwrite=True)' in done.stderr
    assert len(pq.read_table(tmp_path / "recs.parquet")) == 20_000


def test_demo_keeps_nothing_in_a_directory_that_holds_something(
    tmp_path: Path, call_fastmf: Callable[..., Done], contents: Callable[[], object]
) -> None:
    (tmp_path / "ratings.parquet").write_text("mine")
    before = contents()

    done = call_fastmf("demo", "--keep", ".", status=1)

    assert done.stderr == "fastmf demo: . is not empty; choose another directory with --keep\n"
    assert contents() == before
