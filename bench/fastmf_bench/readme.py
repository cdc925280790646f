"""The README's performance table, made from results: nobody edits its numbers."""

import statistics
from collections.abc import Iterator

from fastmf.errors import DataError
from fastmf_bench import tables
from fastmf_bench.results import Run, ours, ratio

BEGIN, END = "<!-- performance: written by `fastmf bench readme` -->", "<!-- end of performance -->"
_TASKS = {
    ("sgd", "epoch"): "SGD, one epoch",
    ("als", "implicit sweep"): "iALS, one sweep",
    ("topk", "top-10"): "top-10 for every user",
    ("topk", "top-100"): "top-100 for every user",
    ("topk", "top-10, seen left out"): "top-10 for every user, seen items left out",
    ("ingest", "Parquet to dense ids"): "Parquet to dense ids",
}


def updated(text: str, run: Run) -> str:
    """Return the text of a README with the table between its two marks replaced.

    Raises
    ------
    DataError
        If the marks are not there.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DataError(f"the README lacks the lines {BEGIN!r} and {END!r}; the table goes between them")
    return f"{before}{BEGIN}\n{performance(run)}\n{END}{after}"


def performance(run: Run) -> str:
    """Return the table in Markdown: fastmf's wall time in each race, and the CPU time of the others beside its own."""
    return "\n".join(
        [
            f"{tables.machine_text(run.machine)}; {run.n_threads} threads; fastmf {run.machine['packages']['fastmf']}, "
            f"{run.machine['date']}. CPU time is that of all threads; a peer's is given in multiples of fastmf's.",
            "",
            "| work | on | fastmf, wall | CPU of the others |",
            "| --- | --- | --- | --- |",
            *_rows(run),
        ]
    )


def _rows(run: Run) -> Iterator[str]:
    for race in run.races():
        first, own = race[0], ours(race)
        if own is None or (first.suite, first.task) not in _TASKS or first.settings["n_threads"] != run.n_threads:
            continue
        others = [f"{m.contestant} {tables.times_text(ratio(m, own))} ×" for m in race if m.wall and m is not own]
        factors = f", {first.settings['n_factors']} factors" if "n_factors" in first.settings else ""
        ids = f", {first.settings['ids']}" if "ids" in first.settings else ""
        wall = tables.seconds_text(statistics.median(own.wall))
        speed = f" ({tables.rate_text(own)})" if own.unit in ("ratings", "rows") else ""
        if others:
            work = _TASKS[first.suite, first.task]
            yield f"| {work} | {first.problem}{factors}{ids} | {wall} s{speed} | {'; '.join(others)} |"
