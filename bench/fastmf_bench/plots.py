"""The plots of a report, each as an SVG that goes into the page itself."""

import io
import math
import statistics
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from fastmf.errors import FastMFError
from fastmf_bench.results import OURS, Measurement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OWN_COLOUR, _OWN_SHADE, _PEER_COLOUR = "#0b6e4f", "#6fbf9f", "#9aa5b1"
# Colour-blind safe (Okabe, Ito, "Color Universal Design", 2008), fastmf's own first.
_LINE_COLOURS = ("#0b6e4f", "#d55e00", "#0072b2", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
# Inches, and points of text: readable where the page is as narrow as a phone, which shows a plot somewhat smaller.
_WIDTH, _TEXT = 4.0, 9
_LETTERS_A_LINE = 16
# The share of the width that is left for the numbers beside the bars.
_BESIDE_BARS = 0.3
# Bars of which one is this many times the other are drawn on a logarithmic axis.
_LOGARITHMIC_FROM = 20
# A logarithmic axis of more decades is labelled at powers of ten only, a shorter one at 1, 2 and 5 of each.
_FEW_DECADES = 2


def bars(race: Sequence[Measurement]) -> str:
    """Draw the CPU and wall seconds of a race, per unit of work where contestants did different amounts."""
    timed = sorted((m for m in race if m.wall), key=lambda m: m.seconds("cpu"), reverse=True)
    whole = max(m.work for m in timed) or 1
    figure, axes = _figure(0.7 + 0.5 * len(timed))
    for place, m in enumerate(timed):
        for offset, clock in ((0.19, "cpu"), (-0.19, "wall")):
            laps = [lap / (m.work or 1) * whole for lap in getattr(m, clock)]
            middle = statistics.median(laps)
            shades = (_OWN_COLOUR, _OWN_SHADE) if _is_own(m) else ("#5c6773", _PEER_COLOUR)
            colour = shades[0] if clock == "cpu" else shades[1]
            error = [[middle - min(laps)], [max(laps) - middle]]
            axes.barh(place + offset, middle, 0.36, color=colour, xerr=error, error_kw={"lw": 0.8, "ecolor": "#333"})
            axes.annotate(
                f"{middle:.3g} s {'CPU' if clock == 'cpu' else 'wall'}",
                (max(laps), place + offset),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=_TEXT - 1,
            )
    names = [m.contestant + (" *" if m.note else "") for m in timed]
    axes.set_yticks(range(len(timed)), [textwrap.fill(name, _LETTERS_A_LINE) for name in names])
    seconds = [m.seconds("cpu") for m in timed]
    logarithmic = max(seconds) > _LOGARITHMIC_FROM * min(seconds)
    _label(axes, "x", "seconds", logarithmic)
    if any(m.note for m in timed):
        axes.set_xlabel(f"{axes.get_xlabel()} (*: see the note)")
    left, right = axes.get_xlim()
    if logarithmic:
        axes.set_xlim(left, left * (right / left) ** (1 / (1 - _BESIDE_BARS)))
        _number_decades(axes, "x")
    else:
        axes.set_xlim(0, right / (1 - _BESIDE_BARS))
    return _svg(figure)


def against_factors(measurements: Sequence[Measurement]) -> str:
    """Draw CPU seconds per lap against the number of factors, a line a contestant."""
    points = [(m.contestant, m.settings["n_factors"], m.seconds("cpu") * (m.work or 1)) for m in measurements]
    return _lines(points, "n_factors", "CPU seconds", whole_numbers=True)


def against_threads(measurements: Sequence[Measurement]) -> str:
    """Draw the speed of one contestant against the number of threads, beside a speed that grows with it."""
    slowest = min(measurements, key=lambda m: m.settings["n_threads"])
    base = slowest.seconds("wall") * slowest.settings["n_threads"]
    points = [(m.contestant, m.settings["n_threads"], base / m.seconds("wall")) for m in measurements]
    ideal = [("in proportion", m.settings["n_threads"], m.settings["n_threads"]) for m in measurements]
    return _lines(points + ideal, "threads", "times as fast as one thread", whole_numbers=True)


def against_ratings(measurements: Sequence[Measurement]) -> str:
    """Draw wall seconds of an epoch against the number of ratings."""
    points = [(m.contestant, m.work, statistics.median(m.wall)) for m in measurements]
    return _lines(points, "ratings", "seconds (wall)", logarithmic=True)


def over_time(race: Sequence[Measurement], label: str) -> str:
    """Draw a metric against the seconds trained, a line a contestant."""
    points = [(m.contestant, seconds, value) for m in race for seconds, value in m.figures["curve"]]
    return _lines(points, "seconds of training (wall)", label, logarithmic_x=True)


def _lines(
    points: Iterable[tuple[str, float, float]],
    x_label: str,
    y_label: str,
    *,
    logarithmic: bool = False,
    logarithmic_x: bool = False,
    whole_numbers: bool = False,
) -> str:
    by_name: dict[str, list[tuple[float, float]]] = {}
    for name, x, y in points:
        by_name.setdefault(name, []).append((x, y))
    figure, axes = _figure(2.8)
    for colour, (name, line) in zip(_LINE_COLOURS * len(by_name), by_name.items(), strict=False):
        line.sort()
        axes.plot([x for x, _ in line], [y for _, y in line], marker="o", ms=3.5, lw=1.6, color=colour, label=name)
    _label(axes, "x", x_label, logarithmic or logarithmic_x)
    _label(axes, "y", y_label, logarithmic)
    if whole_numbers:
        axes.set_ylim(bottom=0)
        axes.set_xticks(sorted({int(x) for line in by_name.values() for x, _ in line}))
    axes.legend(frameon=False, fontsize=_TEXT - 1)
    return _svg(figure)


def _figure(height: float) -> "tuple[Figure, Axes]":
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise FastMFError("a report needs matplotlib to draw; run: pip install 'fastmf[bench]'") from error
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=_TEXT - 1)
    axes.grid(axis="x", lw=0.4, color="#dddddd")
    axes.set_axisbelow(True)
    return figure, axes


def _label(axes: "Axes", which: Literal["x", "y"], label: str, logarithmic: bool) -> None:
    """Name an axis; one that is logarithmic says so."""
    axes.set(**{f"{which}label": f"{label}, logarithmic" if logarithmic else label})
    if logarithmic:
        axes.set(**{f"{which}scale": "log"})
        _number_decades(axes, which)


def _number_decades(axes: "Axes", which: Literal["x", "y"]) -> None:
    """Write plain numbers at the decades of a logarithmic axis: 0.1, 1, 10 and not powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    is_short = math.log10(high / low) <= _FEW_DECADES
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if is_short else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axis.set_minor_formatter(NullFormatter())


def _short(value: float) -> str:
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value:g}"


def _svg(figure: "Figure") -> str:
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "fastmf", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue().partition("<svg")[1] + buffer.getvalue().partition("<svg")[2]


def _is_own(m: Measurement) -> bool:
    return m.contestant.split(",")[0] == OURS
