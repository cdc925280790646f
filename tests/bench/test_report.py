"""The report is one page that needs nothing else; the README's table is what the results say."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fastmf.errors import DataError
from fastmf_bench import plots, readme, report
from fastmf_bench.results import Run
from fastmf_bench.targets import Verdict
from tests.bench.made import made_run, measurement

ROOT = Path(__file__).parents[2]
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Insists that every element is closed, and keeps what refers to something outside."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.outside += [f"{name}={value}" for name, value in attrs if name in ("src", "href") and value[:1] != "#"]  # type: ignore[index]
        self.outside += [str(value) for name, value in attrs if name == "xlink:href" and not str(value).startswith("#")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parse(page: str) -> Page:
    parser = Page()
    parser.feed(page)
    assert parser.open == []
    return parser


def full_run() -> Run:
    sizes = [measurement(problem=name, work=n, seconds=n / 100) for name, n in (("ml-1m", 10.0), ("ml-20m", 200.0))]
    curves = [
        measurement("sgd", "error over time", contestant=name, seconds=0, figures={"curve": [(1, 0.9), (2, error)]})
        for name, error in (("fastmf", 0.8), ("LIBMF", 0.7))
    ]
    factors = [measurement(contestant=name, settings={"n_factors": 32}) for name in ("fastmf", "LIBMF")]
    return made_run(
        measurement("ceilings", "copy", "", "numpy"),
        measurement(ceiling="copy", ceiling_rate=1000.0),
        measurement(contestant="LIBMF", seconds=2),
        measurement(contestant="numpy <script>", seconds=3, work=1, note="a part"),
        measurement(settings={"n_threads": 1}, seconds=1.9),
        *factors,
        *sizes,
        *curves,
        proofs={"sgd": ""},
        problems=["netflix: too large & refused"],
    )


@pytest.fixture(scope="module")
def page() -> str:
    """The report of a full run, drawn once."""
    return report.make_page([full_run()])


def test_the_page_is_well_formed_and_needs_no_network(page: str) -> None:
    assert parse(page).outside == []
    assert not re.search(r"@import|url\((?!#)", page)
    assert "numpy <script>" not in page
    assert "netflix: too large &amp; refused" in page


def test_the_page_has_every_kind_of_plot(page: str) -> None:
    # Two races with peers; time against factors, speed with threads, time against ratings; error over time.
    assert parse(page).tags.count("svg") == 6
    for label in ("n_factors", "threads", "ratings", "seconds of training (wall)", "2 s CPU", "of copy"):
        assert label in page


def test_targets_that_were_not_measured_are_folded_away(page: str) -> None:
    shown, _, folded = page.partition("<h2>Targets</h2>")[2].partition("<h2>")[0].partition("<details>")
    assert page.count("<details>") == 1
    assert "SGD kernels unlike" not in shown  # of its kernels, one alone was proven
    assert shown.count('class="missed">missed') + shown.count('class="met">met') == shown.count("<tr>") - 1 > 0
    assert folded.count("<tr>") - 1 == int(re.search(r"<summary>not measured: (\d+)<", folded)[1]) > 40  # type: ignore[index]
    assert ">met<" not in folded
    assert ">missed<" not in folded


def test_nothing_is_folded_where_everything_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    met = Verdict("a", "b", "≤ 1", "0.5", "met")
    monkeypatch.setattr("fastmf_bench.targets.check", lambda runs: [met])

    assert "<details>" not in report.make_page([made_run(measurement())])


@pytest.mark.parametrize(("peer", "words"), [(19.0, ">seconds<"), (21.0, ">seconds, logarithmic<")])
def test_bars_on_a_logarithmic_axis_say_so(peer: float, words: str) -> None:
    svg = plots.bars([measurement(), measurement(contestant="LIBMF", seconds=peer)])

    assert words in svg


def test_lines_on_logarithmic_axes_say_so() -> None:
    curve = measurement(seconds=0, figures={"curve": [(1, 0.9), (2, 0.8)]})
    sizes = [measurement(work=n, seconds=n / 100) for n in (10.0, 200.0)]

    error, time = plots.over_time([curve], "RMSE"), plots.against_ratings(sizes)

    assert ">seconds of training (wall), logarithmic<" in error
    assert ">RMSE<" in error
    assert ">ratings, logarithmic<" in time
    assert ">seconds (wall), logarithmic<" in time
    assert "logarithmic" not in plots.against_factors(sizes)


def test_plots_read_well_on_a_phone() -> None:
    """On a screen of 360 pixels, which leaves a plot 338, letters are 9 pixels high or more."""
    names = ("fastmf", "pyarrow, read and dictionary_encode", "matrix-vector product alone")
    race = [measurement("topk", contestant=name, seconds=n) for name, n in zip(names, (0.5, 1, 400), strict=True)]
    curve = measurement(seconds=0, figures={"curve": [(1, 0.9), (2, 0.8)]})

    for svg in (plots.bars(race), plots.over_time([curve], "RMSE"), plots.against_factors(race)):
        width = float(re.search(r'viewBox="0 0 ([\d.]+) ', svg)[1])  # type: ignore[index]
        sizes = [float(size) for size in re.findall(r"font(?:-size)?: ([\d.]+)px", svg)]
        assert sizes
        assert min(sizes) * 338 / width >= 9


def test_a_disturbed_run_says_so() -> None:
    slow = measurement(contestant="slow <peer>")
    slow.wall[0] = 9.0

    text = report.make_page([made_run(measurement(), slow)])

    assert ">disturbed: 1 measurements</summary>" in text
    assert "<li>slow &lt;peer&gt; in epoch, ml-10m: laps took from 0.9 s to 9 s</li>" in text
    assert "disturbed" not in report.make_page([made_run(measurement())])


def test_the_page_is_the_same_each_time(page: str) -> None:
    assert report.make_page([full_run()]) == page


def test_nothing_measured_is_no_report() -> None:
    with pytest.raises(DataError, match="there are no measurements"):
        report.make_page([made_run()])


@pytest.mark.parametrize(
    ("peer", "words"),
    [(2.1, "1 lie within 10% of each other"), (3.0, "0 lie within 10% of each other")],
)
def test_several_runs_are_compared(peer: float, words: str) -> None:
    def run(seconds: float) -> Run:
        return made_run(measurement(), measurement(contestant="LIBMF", seconds=seconds))

    text = report.make_page([run(2), run(peer)])

    assert words in text
    assert ("50%" in text) == (peer == 3.0)


def test_the_readme_keeps_all_but_its_table() -> None:
    run = made_run(measurement(seconds=0.25), measurement(contestant="LIBMF", seconds=0.5))
    text = f"before\n{readme.BEGIN}\nold numbers\n{readme.END}\nafter\n"

    updated = readme.updated(text, [run])

    assert updated.startswith("before\n")
    assert updated.endswith("\nafter\n")
    assert "old numbers" not in updated
    assert "| SGD, one epoch | ml-10m, 64 factors | 0.25 s (400 ratings/s) | LIBMF 2.00 × |" in updated
    assert readme.updated(updated, [run]) == updated


def test_of_several_results_the_first_that_has_a_task_gives_its_rows() -> None:
    sgd = made_run(measurement(seconds=0.25), measurement(contestant="LIBMF", seconds=0.5))
    both = made_run(
        measurement(seconds=9),
        measurement(contestant="LIBMF", seconds=9),
        measurement("topk", "top-10", "small", seconds=1, settings={"n_threads": 2}),
        measurement("topk", "top-10", "small", "faiss", seconds=3, settings={"n_threads": 2}),
    )

    table = readme.performance([sgd, both])

    assert "| SGD, one epoch | ml-10m, 64 factors | 0.25 s" in table
    assert "faiss 3.00 ×" in table
    assert "9 s" not in table


def test_results_of_different_machines_make_no_table() -> None:
    other = made_run(measurement())
    other.machine["cpu"] = "another one"

    with pytest.raises(DataError, match="different machines"):
        readme.performance([made_run(measurement()), other])


def test_a_readme_without_the_marks_is_refused() -> None:
    with pytest.raises(DataError, match="lacks the lines"):
        readme.updated("before and after", [made_run()])


def test_the_readme_says_what_the_results_say() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    run = Run.read(ROOT / "bench" / "results" / "amd-family-26.json")
    assert readme.updated(text, [run]) == text
