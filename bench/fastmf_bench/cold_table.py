"""What was measured of items with no training ratings or few, as tables for a terminal and in Markdown."""

from collections.abc import Iterator, Sequence

from fastmf.errors import DataError
from fastmf_bench.cold_recall import LEVEL, Estimate
from fastmf_bench.cold_sets import features_in_words
from fastmf_bench.results import Run
from fastmf_bench.suites import cold
from fastmf_bench.suites.cold import Result

BEGIN, END = "<!-- cold items: written by `fastmf bench readme` -->", "<!-- end of cold items -->"
COLUMNS = ("cold", "cold of all", "few", "few of few", "rest", "all")


def of_runs(runs: Sequence[Run]) -> str:
    """Return a table in Markdown for each data set, and under it how far features change the other metrics.

    Of several runs, the first that has the suite counts. The best value of a column is bold.

    Raises
    ------
    DataError
        If no run has the suite.
    """
    for run in runs:
        found = cold.results(run)
        if found:
            return "\n\n".join(_section(name, results) for name, results in found.items())
    raise DataError("there are no measurements of the suite cold in these results; run: fastmf bench cold --data DIR")


def rows(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the table of a data set: a row for each method."""
    header = ["method", *COLUMNS, "seconds"]
    cells = [[r.method, *(_cell(r.recalls.get(name)) for name in COLUMNS), f"{r.seconds:.1f}"] for r in results]
    return header, cells


def comparison(results: Sequence[Result]) -> str:
    """Say how far the features change the metrics of items with training ratings; "" where that was not measured."""
    plain = next((result for result in results if result.method == cold.PLAIN), None)
    parts = [
        f"{name} {found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f}){_share(found, plain, name)}"
        for result in results
        for name, found in result.less_plain.items()
    ]
    return f"{cold.HYBRID} less {cold.PLAIN}: {'; '.join(parts)}" if parts else ""


def _share(found: Estimate, plain: Result | None, name: str) -> str:
    """Word a difference as a share of the metric without features."""
    value = 0.0 if plain is None or name not in plain.recalls else plain.recalls[name].value
    return f", {found.value / value:+.1%}" if value else ""


def _cell(found: Estimate | None) -> str:
    return "" if found is None else f"{found.value:.4f} ({found.low:.4f}–{found.high:.4f})"


def _section(name: str, results: Sequence[Result]) -> str:
    known = features_in_words(name)
    lines = [f"**{name}** ({known})" if known else f"**{name}**", "", *_markdown(results)]
    compared = comparison(results)
    return "\n".join([*lines, "", f"{compared}. Intervals: {LEVEL:.0%}."] if compared else lines)


def _markdown(results: Sequence[Result]) -> Iterator[str]:
    header, cells = rows(results)
    yield f"| {' | '.join(header)} |"
    yield f"| --- {'| ---: ' * (len(header) - 1)}|"
    best = {name: max((r.recalls[name].value for r in results if name in r.recalls), default=None) for name in COLUMNS}
    for result, (method, *row, seconds) in zip(results, cells, strict=True):
        values = (result.recalls[name].value if name in result.recalls else None for name in COLUMNS)
        bold = [
            f"**{cell}**" if value is not None and value == best[name] else cell
            for name, cell, value in zip(COLUMNS, row, values, strict=True)
        ]
        yield f"| {' | '.join([method, *bold, seconds])} |"
