"""The tables in Markdown that are made from results: nobody edits their numbers."""

import statistics
from collections.abc import Iterator, Sequence

from fastmf.errors import DataError
from fastmf_bench import cold_table, tables
from fastmf_bench.results import Measurement, Run, ours, ratio

BEGIN, END = "<!-- performance: written by `fastmf bench readme` -->", "<!-- end of performance -->"
_TASKS = {
    ("sgd", "epoch"): "SGD, one epoch",
    ("als", "implicit sweep"): "iALS, one sweep",
    ("topk", "top-10"): "top-10 for every user",
    ("topk", "top-100"): "top-100 for every user",
    ("topk", "top-10, seen left out"): "top-10 for every user, seen items left out",
    ("ingest", "Parquet to dense ids"): "Parquet to dense ids",
}


def updated(text: str, runs: Sequence[Run]) -> str:
    """Return the text of a Markdown file with the tables between their marks replaced.

    See `performance`, and `fastmf_bench.cold_table.of_runs`.

    Raises
    ------
    DataError
        If the marks of no table are there.
    """
    tables = ((BEGIN, END, performance), (cold_table.BEGIN, cold_table.END, cold_table.of_runs))
    found = [table for table in tables if table[0] in text and table[1] in text]
    if not found:
        raise DataError(f"the file lacks the lines {BEGIN!r} and {END!r}; the table goes between them")
    for begin, end, make in found:
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{make(runs)}\n{end}{rest.partition(end)[2]}"
    return text


def performance(runs: Sequence[Run]) -> str:
    """Return the table in Markdown: fastmf's wall time in each race, and the CPU time of the others beside its own.

    Of several runs, the first that has a task gives all its rows.

    Raises
    ------
    DataError
        If they are not of one machine with the same number of threads: one table would be misleading.
    """
    run, others = runs[0], runs[1:]
    for other in others:
        if tables.machine_text(other.machine) != tables.machine_text(run.machine) or other.n_threads != run.n_threads:
            raise DataError("the results are of different machines or numbers of threads; expected those of one")
    return "\n".join(
        [
            f"{tables.machine_text(run.machine)}; {run.n_threads} threads; fastmf {run.machine['packages']['fastmf']}, "
            f"{run.machine['date']}. CPU time is that of all threads; a peer's is given in multiples of fastmf's.",
            "",
            "| work | on | fastmf, wall | CPU of the others |",
            "| --- | --- | --- | --- |",
            *(row for task in _TASKS for row in _rows(task, runs)),
        ]
    )


def _races(task: tuple[str, str], runs: Sequence[Run]) -> list[list[Measurement]]:
    """Return the races of a task in the first of the runs that has any."""
    for run in runs:
        races = [race for race in run.races() if (race[0].suite, race[0].task) == task]
        if races:
            return races
    return []


def _rows(task: tuple[str, str], runs: Sequence[Run]) -> Iterator[str]:
    for race in _races(task, runs):
        first, own = race[0], ours(race)
        if own is None or first.settings["n_threads"] != runs[0].n_threads:
            continue
        others = [f"{m.contestant} {tables.times_text(ratio(m, own))} ×" for m in race if m.wall and m is not own]
        factors = f", {first.settings['n_factors']} factors" if "n_factors" in first.settings else ""
        ids = f", {first.settings['ids']}" if "ids" in first.settings else ""
        wall = tables.seconds_text(statistics.median(own.wall))
        speed = f" ({tables.rate_text(own)})" if own.unit in ("ratings", "rows") else ""
        if others:
            yield f"| {_TASKS[task]} | {first.problem}{factors}{ids} | {wall} s{speed} | {'; '.join(others)} |"
