"""Results as tables of plain text, for a terminal."""

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from fastmf_bench import cold_table
from fastmf_bench.results import Measurement, Run, disturbances, ours, ratio
from fastmf_bench.suites import cold, defaults
from fastmf_bench.targets import Verdict

# Suites with a table of their own.
_OWN_TABLES = ("ceilings", defaults.SUITE, cold.SUITE)
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))


def of_run(run: Run) -> str:
    """Return all tables of a run: the machine, its ceilings, one table a race, and what could not be run."""
    parts = [_heading(run)]
    ceilings = run.select(suite="ceilings")
    if ceilings:
        parts.append(_table("ceilings", *ceiling_rows(ceilings)))
    parts += [_race_table(race) for race in run.races() if race[0].suite not in _OWN_TABLES]
    parts += [*_tables_of_defaults(run), *_tables_of_cold_items(run)]
    if run.proofs:
        right = [operation for operation, wrong in run.proofs.items() if not wrong]
        parts.append(f"proven against NumPy before timing: {', '.join(right) or 'nothing'}")
    parts += [f"! {problem}" for problem in run.problems]
    parts += [f"? disturbed: {line}" for line in disturbances(run)]
    return "\n\n".join(parts)


def of_targets(verdicts: Sequence[Verdict]) -> str:
    """Return a table of the targets that were measured, one of the others with the reasons, and the counts."""
    measured, others = split_verdicts(verdicts)
    parts = []
    if measured:
        rows = [[v.what, v.shape, v.target, v.found, v.verdict] for v in measured]
        parts.append(_table("targets", ["what", "shape", "target", "measured", ""], rows, left=5))
    if others:
        rows = [[v.what, v.shape, v.target, v.found] for v in others]
        parts.append(_table("targets that were not measured", ["what", "shape", "target", "why"], rows, left=4))
    return "\n\n".join([*parts, count_verdicts(verdicts)])


def split_verdicts(verdicts: Sequence[Verdict]) -> tuple[list[Verdict], list[Verdict]]:
    """Return the verdicts on targets that were measured, and the others."""
    return [v for v in verdicts if v.was_measured], [v for v in verdicts if not v.was_measured]


def count_verdicts(verdicts: Sequence[Verdict]) -> str:
    """Count the targets that were met, missed and not measured."""
    met, missed = (sum(v.verdict == word for v in verdicts) for word in ("met", "missed"))
    return f"{met} met, {missed} missed, {len(verdicts) - met - missed} not measured"


def ceiling_rows(ceilings: Sequence[Measurement]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the table of ceilings."""
    rows = [[m.task, str(m.settings["n_threads"]), rate_text(m), _spread_text(m.wall)] for m in ceilings]
    return ["", "threads", "rate", "spread"], rows


def race_rows(race: Sequence[Measurement]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a race: times where there are any, and every metric that is a number."""
    own = ours(race)
    timed = any(m.wall for m in race)
    metrics = list(dict.fromkeys(name for m in race for name, value in m.figures.items() if not _is_curve(value)))
    header = ["", *(["wall s", "from–to", "CPU s", "CPU ×", "rate", "of ceiling"] if timed else []), "peak", *metrics]
    rows = []
    for m in race:
        row = [m.contestant]
        if timed:
            relative = "" if own is None or not m.cpu else times_text(ratio(m, own))
            fraction = "" if m.ceiling_fraction is None else f"{m.ceiling_fraction:.0%}"
            wall, cpu = (seconds_text(statistics.median(laps)) if laps else "" for laps in (m.wall, m.cpu))
            row += [wall, range_text(m.wall), cpu, relative, rate_text(m), fraction]
        row += [bytes_text(m.peak_bytes), *(_metric_text(m.figures.get(name)) for name in metrics)]
        rows.append([*row, m.note])
    return [*header, ""], rows


def used_columns(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the columns that say something in at least one row."""
    return [column for column, cells in enumerate(zip(*rows, strict=True)) if any(cells)]


def race_title(m: Measurement) -> str:
    """Name a race: what was done, on what, with which settings, in how many laps."""
    settings = [f"{name} {value}" for name, value in m.settings.items()]
    laps = f"{len(m.wall)} laps" if m.wall else ""
    return " · ".join(part for part in (m.suite, m.task, m.problem, ", ".join(settings), laps) if part)


def rate_text(m: Measurement) -> str:
    """Word a rate, such as ``35.2 M ratings/s``."""
    if not m.rate:
        return ""
    size, prefix = next((u for u in _UNITS if m.rate >= u[0]), (1, ""))
    return f"{m.rate / size:.3g} {prefix}{m.unit}/s"


def times_text(ratio: float) -> str:
    """Word a ratio: two decimals, none where it is large."""
    return f"{ratio:.2f}" if ratio < 100 else f"{ratio:,.0f}"


def seconds_text(seconds: float) -> str:
    """Word seconds with three digits."""
    return f"{seconds:.3g}" if seconds < 1000 else f"{seconds:.0f}"


def range_text(laps: Sequence[float]) -> str:
    """Word the spread of laps: smallest to largest."""
    return f"{seconds_text(min(laps))}–{seconds_text(max(laps))}" if laps else ""


def bytes_text(n: int) -> str:
    """Word a size in MiB."""
    return f"{n / 2**20:,.0f} MiB" if n else ""


def machine_text(machine: dict[str, Any]) -> str:
    """Word the machine in one line."""
    return f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB, {machine['system']}"


def versions_text(machine: dict[str, Any]) -> str:
    """Word the versions in one line."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    revision = machine["revision"] or "unknown"
    return f"Python {machine['python']}, {packages}; NumPy's BLAS is {machine['blas']}; revision {revision}"


def _heading(run: Run) -> str:
    lines = [
        f"{run.command}   ({run.machine['date']}, {run.seconds:.0f} s)",
        machine_text(run.machine),
        versions_text(run.machine),
    ]
    return "\n".join(lines)


def _race_table(race: Sequence[Measurement]) -> str:
    header, rows = race_rows(race)
    title = race_title(race[0])
    if race[0].ceiling:
        title += f" (ceiling: {race[0].ceiling})"
    return _table(title, header, rows)


def _tables_of_defaults(run: Run) -> list[str]:
    """Return a table for each kind of data: models with default settings, set by set."""
    found = defaults.results(run)
    parts = []
    for name, kind in defaults.KINDS.items():
        header = ["set", "model", kind.baseline, "default", "best of a grid", "of best", "", "best settings"]
        rows = [_default_row(result) for result in found if result.kind == name]
        if rows:
            parts.append(_table(f"{defaults.SUITE} · {name}, {kind.metric}", header, rows, left=2))
    return parts


def _tables_of_cold_items(run: Run) -> Iterator[str]:
    """Yield a table for each data set of the suite cold: methods with the intervals of their metrics."""
    for name, found in cold.results(run).items():
        header, cells = cold_table.rows(found)
        table = _table(f"{cold.SUITE} · {cold.TASK}, {name}", [*header, ""], [[*row, ""] for row in cells])
        yield "\n".join(filter(None, [table, cold_table.comparison(found)]))


def _default_row(result: defaults.Result) -> list[str]:
    numbers = (result.baseline, result.default, result.best, result.of_best)
    verdict = "met" if result.is_met else "missed"
    return [result.name, result.model, *map(_metric_text, numbers), verdict, result.best_settings]


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Align columns: the first ``left`` to the left, the others to the right, the notes at the end as they are."""
    columns = used_columns(rows)
    widths = {c: max(len(header[c]), *(len(row[c]) for row in rows)) for c in columns}
    last = len(header) - 1

    def line(cells: Sequence[str]) -> str:
        texts = [f"{cells[c]:<{widths[c]}}" if c < left or c == last else f"{cells[c]:>{widths[c]}}" for c in columns]
        return "  ".join(texts).rstrip()

    return "\n".join([title, line(header), *map(line, rows)])


def _spread_text(laps: Sequence[float]) -> str:
    """Word the spread of rates in percent of the median."""
    middle = statistics.median(laps)
    return f"{middle / max(laps) - 1:+.0%} to {middle / min(laps) - 1:+.0%}"


def _metric_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _is_curve(value: object) -> bool:
    return isinstance(value, (list, tuple))
