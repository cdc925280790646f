"""Tables for a terminal: aligned, with what a reader compares side by side."""

from fastmf_bench import tables
from tests.bench.made import made_run, measurement


def test_columns_are_aligned_and_empty_ones_left_out() -> None:
    run = made_run(
        measurement(figures={"test RMSE": 0.81234}),
        measurement(contestant="NumPy", seconds=50, work=2, note="a part"),
        proofs={"sgd": "", "als": "wrong"},
        problems=["netflix: too large"],
    )

    *_, table, proofs, problem = tables.of_run(run).split("\n\n")

    title, header, *rows = table.splitlines()
    assert title == "sgd · epoch · ml-10m · n_threads 2, n_factors 64 · 5 laps"
    assert header.split() == ["wall", "s", "from–to", "CPU", "s", "CPU", "×", "rate", "peak", "test", "RMSE"]
    assert rows[0].split()[:4] == ["fastmf", "1", "0.9–1.1", "2"]
    assert rows[0].rstrip().endswith("0.8123")
    assert "2,500" in rows[1]  # per unit of work
    assert rows[1].endswith("a part")
    assert rows[0].index("1.00") + 4 == rows[1].index("2,500") + 5
    assert proofs == "proven against NumPy before timing: sgd"
    assert problem == "! netflix: too large"


def test_a_fraction_of_the_ceiling_stands_beside_the_rate() -> None:
    run = made_run(measurement(ceiling="copy", ceiling_rate=1000.0))

    table = tables.of_run(run)

    assert "(ceiling: copy)" in table
    assert "100 ratings/s" in table
    assert "10%" in table


def test_ceilings_have_a_line_each() -> None:
    run = made_run(*(measurement("ceilings", name, "", "numpy", work=3e9) for name in ("copy", "gather")))

    table = tables.of_run(run).split("\n\n")[1].splitlines()

    assert table[0] == "ceilings"
    assert [line.split()[:4] for line in table[2:]] == [
        ["copy", "2", "3", "Gratings/s"],
        ["gather", "2", "3", "Gratings/s"],
    ]


def test_curves_are_no_metrics_of_a_table() -> None:
    run = made_run(measurement(seconds=0, figures={"curve": [(1, 2)], "best RMSE": 0.5}))

    assert "curve" not in tables.of_run(run)
    assert "best RMSE" in tables.of_run(run)
