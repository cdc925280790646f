"""The report: one HTML page with every plot and table in it, readable without a network."""

from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import chain
from typing import Any

from fastmf.errors import DataError
from fastmf_bench import plots, tables, targets
from fastmf_bench.results import OURS, Measurement, Run, compare_runs, disturbances, ours
from fastmf_bench.targets import Verdict

_AGREEMENT = 0.10

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2126; max-width: 70rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { margin-bottom: .2rem; } h2 { margin-top: 2.6rem; border-bottom: 2px solid #0b6e4f; padding-bottom: .2rem; }
h3 { margin: 1.8rem 0 .3rem; font-size: 1rem; }
.machine { color: #556; } .plots { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 1rem 0 0; flex: 1 1 18rem; max-width: 28rem; } figcaption { font-weight: 600; font-size: 13px; }
svg { display: block; width: 100%; max-width: 28rem; height: auto; }
code { background: #f2f4f5; padding: .1rem .3rem; overflow-wrap: anywhere; }
details { margin: .8rem 0; } summary { cursor: pointer; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { padding: .22rem .6rem; text-align: right; border-bottom: 1px solid #e3e6e8; }
td { white-space: nowrap; } th { vertical-align: bottom; max-width: 8rem; }
th:first-child, td:first-child, .words td, .words th { text-align: left; }
.words td { white-space: normal; } .note { white-space: normal; text-align: left; font-size: 12px; }
tr.own td { background: #eef7f3; font-weight: 600; }
.met { color: #0b6e4f; font-weight: 600; } .missed { color: #b3261e; font-weight: 600; } .problem { color: #b3261e; }
@media (max-width: 40rem) {
  body { margin: 1rem auto; padding: 0 .7rem; } h1 { font-size: 1.6rem; }
  .scroll td:first-child, .scroll th:first-child { white-space: normal; min-width: 6rem; }
  .words tr { display: block; padding: .4rem 0; border-bottom: 1px solid #e3e6e8; } .words th { display: none; }
  .words td { display: inline-block; padding: 0 .8rem 0 0; border: none; } .words td:first-child { display: block; }
}
"""


def make_page(runs: Sequence[Run]) -> str:
    """Return the report of some runs, the first of which is shown in full and the others compared with it.

    Raises
    ------
    DataError
        If there is nothing to show.
    """
    if not runs or not runs[0].measurements:
        raise DataError(
            "there are no measurements in these results; expected the output of a run that measured something"
        )
    body = chain(_head(runs), _targets(runs), _agreement(runs), *(_suite(runs[0], suite) for suite in _suites(runs[0])))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>fastmf benchmarks</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _head(runs: Sequence[Run]) -> Iterator[str]:
    run = runs[0]
    machine, versions = tables.machine_text(run.machine), tables.versions_text(run.machine)
    yield f'<h1>fastmf benchmarks</h1><p class="machine">{escape(machine)}<br>{escape(versions)}'
    yield f"<br>{run.n_threads} threads, {escape(run.machine['date'])}, {run.seconds / 60:.0f} minutes: "
    yield f"<code>{escape(run.command)}</code></p>"
    right = [operation for operation, wrong in run.proofs.items() if not wrong]
    yield (
        "<p>Every kernel was held against its NumPy reference before it was timed"
        f" ({', '.join(right) or 'none was needed'}). Contestants ran in processes of their own, lap by lap in turn. "
        "Times are medians of the laps, with the fastest and the slowest; CPU seconds are user + system of all threads."
        "</p>"
    )
    yield from (f'<p class="problem">{escape(problem)}</p>' for problem in run.problems)
    disturbed = disturbances(run)
    if disturbed:
        lines = "".join(f"<li>{escape(line)}</li>" for line in disturbed)
        yield f'<details><summary class="problem">disturbed: {len(disturbed)} measurements</summary>'
        yield f"<ul>{lines}</ul></details>"


def _targets(runs: Sequence[Run]) -> Iterator[str]:
    """Yield the verdicts; targets that were not measured are folded away."""
    verdicts = targets.check(runs)
    yield f"<h2>Targets</h2><p>{escape(tables.count_verdicts(verdicts))}</p>"
    measured, others = tables.split_verdicts(verdicts)
    if measured:
        yield _verdict_table(measured, "measured")
    if others:
        yield f"<details><summary>not measured: {len(others)}</summary>{_verdict_table(others, 'why')}</details>"


def _verdict_table(verdicts: Sequence[Verdict], what_was_found: str) -> str:
    marks = {"met": ' class="met"', "missed": ' class="missed"'}
    rows = [[v.what, v.shape, v.target, v.found, v.verdict] for v in verdicts]
    lines = [
        "<tr>" + "".join(f"<td{marks.get(cell, '')}>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    ]
    header = "".join(f"<th>{name}</th>" for name in ("what", "shape", "target", what_was_found, ""))
    return f'<div class="scroll"><table class="words"><tr>{header}</tr>{"".join(lines)}</table></div>'


def _agreement(runs: Sequence[Run]) -> Iterator[str]:
    if len(runs) < 2:
        return
    compared = compare_runs(runs)
    yield "<h2>How far the runs agree</h2>"
    wide = [(m, own, ratios) for m, own, ratios in compared if _width(ratios) > _AGREEMENT]
    yield (
        f"<p>Of {len(compared)} ratios of CPU time that {len(runs)} runs have in common, "
        f"{len(compared) - len(wide)} lie within {_AGREEMENT:.0%} of each other, from smallest to largest.</p>"
    )
    if wide:
        rows = [
            [
                tables.race_title(m),
                f"{m.contestant} / {own}",
                ", ".join(f"{r:.3g}" for r in ratios),
                f"{_width(ratios):.0%}",
            ]
            for m, own, ratios in sorted(wide, key=lambda entry: -_width(entry[2]))
        ]
        yield "<p>The others:</p>"
        yield _table(["race", "ratio", "in each run", "apart"], rows, words=True)


def _width(ratios: Sequence[float]) -> float:
    return max(ratios) / min(ratios) - 1


def _suite(run: Run, suite: str) -> Iterator[str]:
    yield f"<h2>{escape(suite)}</h2>"
    if suite == "ceilings":
        yield _table(*tables.ceiling_rows(run.select(suite=suite)))
        return
    yield '<div class="plots">'
    yield from _overviews(run, suite)
    yield "</div>"
    for race in run.races():
        if race[0].suite == suite:
            yield from _race(race)


def _overviews(run: Run, suite: str) -> Iterator[str]:
    """Yield the plots over several races of a suite: times against factors, threads and ratings."""
    for task in dict.fromkeys(m.task for m in run.select(suite=suite)):
        timed = [m for m in run.select(suite=suite, task=task) if m.wall and not m.note]
        for problem in dict.fromkeys(m.problem for m in timed):
            here = [m for m in timed if m.problem == problem]
            full = [m for m in here if m.settings["n_threads"] == run.n_threads]
            if len({m.settings.get("n_factors") for m in full}) > 1:
                yield _plot(f"{task}, {problem}: time against factors", plots.against_factors(full))
            for own, alone in _groups(here, lambda m: (m.contestant, m.settings.get("n_factors"))):
                if own[0].split(",")[0] == OURS and len({m.settings["n_threads"] for m in alone}) > 1:
                    yield _plot(f"{task}, {problem}: speed with threads", plots.against_threads(alone))
        for own, alone in _groups(timed, lambda m: (m.contestant, m.settings.get("n_factors"))):
            sizes = [m for m in alone if m.settings["n_threads"] == run.n_threads and m.unit == "ratings"]
            if own[0].split(",")[0] == OURS and len({m.work for m in sizes}) > 1:
                yield _plot(f"{task}, {own[1]} factors: time against ratings", plots.against_ratings(sizes))


def _groups(
    measurements: Sequence[Measurement], key: Callable[[Measurement], tuple[str, Any]]
) -> Iterator[tuple[tuple[str, Any], list[Measurement]]]:
    for name in dict.fromkeys(map(key, measurements)):
        yield name, [m for m in measurements if key(m) == name]


def _race(race: Sequence[Measurement]) -> Iterator[str]:
    yield f"<h3>{escape(tables.race_title(race[0]))}</h3>"
    if sum(bool(m.wall) for m in race) > 1:
        yield plots.bars(race)
    curves = [m for m in race if "curve" in m.figures]
    if curves:
        label = "NDCG@10 on held-out items" if "NDCG" in race[0].task else "RMSE on held-out ratings"
        yield plots.over_time(curves, label)
    header, rows = tables.race_rows(race)
    own = ours(race)
    marked = {place for place, m in enumerate(race) if m is own and len(race) > 1}
    if race[0].ceiling:
        header = [f"of {race[0].ceiling}" if name == "of ceiling" else name for name in header]
    yield _table(header, rows, marked)


def _table(
    header: Sequence[str], rows: Sequence[Sequence[str]], marked: set[int] | None = None, words: bool = False
) -> str:
    columns = tables.used_columns(rows)
    head = "".join(f"<th>{escape(header[c])}</th>" for c in columns)
    lines = [
        f"<tr{' class=own' if place in (marked or ()) else ''}>{_cells([row[c] for c in columns])}</tr>"
        for place, row in enumerate(rows)
    ]
    kind = ' class="words"' if words else ""
    return f'<div class="scroll"><table{kind}><tr>{head}</tr>{"".join(lines)}</table></div>'


def _cells(row: Sequence[str]) -> str:
    """Join cells; those that are words, not numbers, may be broken."""
    return "".join(f"<td{' class=note' if cell.count(' ') > 2 else ''}>{escape(cell)}</td>" for cell in row)


def _plot(title: str, svg: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>"


def _suites(run: Run) -> list[str]:
    return list(dict.fromkeys(m.suite for m in run.measurements))
