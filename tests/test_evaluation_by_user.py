"""Metrics of single users, and confidence intervals over users."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastmf
from fastmf import Interactions, metrics
from fastmf.errors import ParameterError
from fastmf.measuring.bootstrap import N_RESAMPLES
from fastmf.models import FactorModel

OF_USERS = tuple(name for name, metric in metrics.METRICS.items() if metric.has_users)
N_USERS, N_ITEMS = 40, 30


def data() -> tuple[Interactions, Interactions]:
    return fastmf.split.random(fastmf.testing.power_law(N_USERS, N_ITEMS, 500, n_factors=3), 0.3, seed=0)


@pytest.fixture(scope="module", params=["ALS", "ImplicitALS"])
def model(request: pytest.FixtureRequest) -> FactorModel:
    return getattr(fastmf, request.param)(n_factors=4, n_epochs=4).fit(data()[0])


@pytest.fixture(scope="module")
def als() -> FactorModel:
    return fastmf.ALS(n_factors=4, n_epochs=4).fit(data()[0])


def with_unknown(test: Interactions) -> Interactions:
    """Add an unknown item to two users, and two unknown users."""
    table = test.to_arrow()
    more = pa.table({"user_id": [2, 7, 500, 501, 501], "item_id": [100, 100, 3, 3, 4], "rating": [4.0, 1, 5, 2, 3]})
    return Interactions.from_arrow(pa.concat_tables([table, more.cast(table.schema)]))


def mean(table: pa.Table, name: str, weights: str | None = None) -> float:
    values = table[name].to_numpy()
    defined = ~np.isnan(values)
    return float(np.average(values[defined], weights=None if weights is None else table[weights].to_numpy()[defined]))


def totals(table: pa.Table) -> dict[str, float]:
    """Put the metrics together from those of users, as the documentation says."""
    found = {}
    for name in table.column_names[1:-2]:
        if name == "rmse":
            squares = table.append_column("squares", pa.array(table["rmse"].to_numpy() ** 2))
            found[name] = math.sqrt(mean(squares, "squares", "n_ratings"))
        elif name == "mae":
            found[name] = mean(table, name, "n_ratings")
        elif name == "fcp":
            found[name] = mean(table, name, "n_pairs")
        elif name != "n_pairs":
            found[name] = mean(table, name)
    return found


@pytest.mark.parametrize("min_relevant_rating", [None, 3.5])
@pytest.mark.parametrize("cold", ["skip", "popular", "include"])
def test_the_metrics_are_means_of_those_of_users(
    model: FactorModel, cold: str, min_relevant_rating: float | None
) -> None:
    test = with_unknown(data()[1])
    asked = {"k": (3, 5), "metrics": OF_USERS, "cold": cold, "min_relevant_rating": min_relevant_rating}

    table = fastmf.evaluate(model, test, **asked, per_user=True)

    results = fastmf.evaluate(model, test, **asked)
    expected = {name: value for name, value in results.items() if not name.startswith("n_") and value is not None}
    found = {name: value for name, value in totals(table).items() if name in expected}
    assert found == pytest.approx(expected, rel=1e-12)
    assert len(table) == len(set(test.users.tolist()))
    assert sum(table["n_ratings"].to_pylist()) == results["n_ratings"]
    n_ranked = sum(value is not None for value in table["ndcg@3"].to_pylist())
    assert n_ranked == results["n_users"]


def test_a_row_is_the_evaluation_of_the_user_alone(model: FactorModel) -> None:
    test = with_unknown(data()[1])
    table = fastmf.evaluate(model, test, k=(1, 5), metrics=OF_USERS, per_user=True)

    for row in table.to_pylist():
        own = Interactions.from_arrow(test.to_arrow().filter(pa.array(row_of(test) == row["user_id"])))
        if row["user_id"] >= N_USERS:  # the model cannot rank this user
            assert all(value is None for name, value in row.items() if "@" in name or name == "auc")
            alone = fastmf.evaluate(model, own, metrics=["rmse", "mae", "fcp"])
        else:
            alone = fastmf.evaluate(model, own, k=(1, 5), metrics=OF_USERS)
        shown = {name: value for name, value in alone.items() if not name.startswith("n_")}
        defined = {name: value for name, value in shown.items() if value is not None}
        assert {name: row[name] for name in defined} == pytest.approx(defined, rel=1e-12), row["user_id"]
        assert all(row[name] is None for name in shown.keys() - defined.keys())
        assert row["n_ratings"] == len(own)


def row_of(test: Interactions) -> Any:
    return test.to_arrow()["user_id"].to_numpy()


def test_rows_and_columns(als: FactorModel) -> None:
    test = Interactions.from_arrays([5, 3, 3, 900], [1, 2, 3, 1], [5, 1, 4, 2])

    table = fastmf.evaluate(als, test, k=4, metrics=["ndcg", "rmse", "fcp"], min_relevant_rating=2, per_user=True)

    assert table.column_names == ["user_id", "rmse", "fcp", "n_pairs", "ndcg@4", "n_relevant", "n_ratings"]
    assert table.column("user_id").to_pylist() == [3, 5, 900]
    assert table["n_relevant"].to_pylist() == [1, 1, 1]
    assert table["n_ratings"].to_pylist() == [2, 1, 1]
    assert table["n_pairs"].to_pylist() == [1, 0, 0]
    assert [value is None for value in table["fcp"].to_pylist()] == [False, True, True]
    assert [value is None for value in table["ndcg@4"].to_pylist()] == [False, False, True]
    assert table["rmse"].null_count == 0
    assert {str(table.schema.field(name).type) for name in ("rmse", "fcp", "ndcg@4")} == {"double"}


def test_ids_of_strings_stay_strings() -> None:
    ratings = Interactions.from_arrays(["ann", "ann", "bob", "bob"], ["x", "y", "x", "z"], [1, 2, 3, 4])
    model = fastmf.ALS(n_factors=2, n_epochs=1).fit(ratings)

    table = fastmf.evaluate(model, ratings, k=1, exclude=None, per_user=True)

    assert table["user_id"].to_pylist() == ["ann", "bob"]


def test_by_default_there_is_every_default_metric_that_users_have(als: FactorModel) -> None:
    table = fastmf.evaluate(als, data()[1], per_user=True)

    usual = [name for name in fastmf.evaluate(als, data()[1]) if not name.startswith("n_") and name != "coverage@10"]
    assert table.column_names == ["user_id", *usual, "n_relevant", "n_ratings"]


@pytest.mark.parametrize("name", ["coverage", "gini"])
def test_metrics_that_users_do_not_have_are_refused(name: str, als: FactorModel) -> None:
    message = rf"metrics include {name}, without a value for each user; expected some of rmse, mae, precision"
    with pytest.raises(ParameterError, match=message):
        fastmf.evaluate(als, data()[1], metrics=["rmse", name], per_user=True)


def test_a_table_has_no_intervals(als: FactorModel) -> None:
    with pytest.raises(ParameterError, match="per_user=True and ci are both given; expected one"):
        fastmf.evaluate(als, data()[1], per_user=True, ci=0.95)  # type: ignore[call-overload]


def bootstrap(table: pa.Table, name: str, seed: int, level: float) -> tuple[float, float]:
    """Draw one sample of users after the other, and measure each from its rows."""
    table, generator = table.filter(table[name].is_valid()), np.random.default_rng(seed)
    found = []
    for _ in range(N_RESAMPLES):
        sample = table.take(pa.array(generator.integers(len(table), size=len(table))))
        found.append(totals(sample)[name])
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return low, high


@pytest.mark.parametrize("name", ["rmse", "mae", "fcp", "ndcg", "auc"])
def test_intervals_are_percentiles_of_samples_of_users(name: str, als: FactorModel) -> None:
    test = with_unknown(data()[1])
    table = fastmf.evaluate(als, test, k=5, metrics=[name], per_user=True)

    results = fastmf.evaluate(als, test, k=5, metrics=[name], ci=0.8, seed=3)

    key = f"{name}@5" if name == "ndcg" else name
    assert (results[f"{key}_low"], results[f"{key}_high"]) == pytest.approx(bootstrap(table, key, 3, 0.8), rel=1e-12)
    assert results[f"{key}_low"] < results[key] < results[f"{key}_high"]


def test_intervals_change_nothing_else(model: FactorModel) -> None:
    plain = fastmf.evaluate(model, data()[1], k=(2, 6), metrics=list(metrics.METRICS))

    results = fastmf.evaluate(model, data()[1], k=(2, 6), metrics=list(metrics.METRICS), ci=0.95)

    assert {name: results[name] for name in plain} == pytest.approx(plain, rel=1e-14)
    added = {name for name in results if name not in plain}
    with_users = {name for name in plain if not name.startswith(("n_", "coverage", "gini"))}
    assert added == {f"{name}_{end}" for name in with_users for end in ("low", "high")}
    names = list(results)
    assert names[names.index("ndcg@2") :][:3] == ["ndcg@2", "ndcg@2_low", "ndcg@2_high"]


def test_an_interval_depends_on_the_seed_and_on_nothing_else(als: FactorModel, monkeypatch: pytest.MonkeyPatch) -> None:
    test = with_unknown(data()[1])
    alone = fastmf.evaluate(als, test, k=5, metrics=["ndcg"], ci=0.95)

    assert fastmf.evaluate(als, test, k=5, metrics=["ndcg"], ci=0.95) == alone
    assert fastmf.evaluate(als, test, k=5, metrics=["ndcg"], ci=0.95, seed=1)["ndcg@5_low"] != alone["ndcg@5_low"]
    assert fastmf.evaluate(als, test, k=5, metrics=["ndcg"], ci=0.5)["ndcg@5_low"] > alone["ndcg@5_low"]
    together = fastmf.evaluate(als, test, k=5, metrics=OF_USERS, ci=0.95)
    monkeypatch.setattr("fastmf.measuring.bootstrap._DRAWN_AT_ONCE", 100)
    in_parts = fastmf.evaluate(als, test, k=5, metrics=["ndcg"], ci=0.95)
    for other in (together, in_parts):
        assert {name: other[name] for name in alone} == pytest.approx(alone, rel=1e-12)


def test_an_interval_of_shares_is_about_that_of_the_normal_distribution() -> None:
    from fastmf.measuring.bootstrap import interval, totals_of_samples
    from fastmf.measuring.user_values import UserValues

    values = np.zeros(2000)
    values[:600] = 1

    low, high = interval(totals_of_samples([UserValues.of(values)], seed=0)[:, 0], 0.95, len(values))

    half = 1.96 * math.sqrt(0.3 * 0.7 / 2000)
    assert (low, high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.002)


def test_what_is_undefined_has_an_undefined_interval(als: FactorModel) -> None:
    results = fastmf.evaluate(als, Interactions.from_arrays([1, 2], [100, 200]), k=5, metrics=["auc", "fcp"], ci=0.9)

    assert [results[f"{name}{end}"] for name in ("auc", "fcp") for end in ("", "_low", "_high")] == [None] * 6


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ci": 0}, "ci is 0; expected a finite number above 0"),
        ({"ci": 1.0}, "ci is 1.0; expected a number below 1, such as 0.95"),
        ({"ci": 95}, "ci is 95; expected a number below 1, such as 0.95"),
        ({"ci": True}, "ci is True; expected a finite number above 0"),
        ({"ci": "0.95"}, "ci is '0.95'; expected a finite number above 0"),
        ({"ci": 0.9, "seed": -1}, "seed is -1; expected an integer of at least 0"),
    ],
)
def test_levels_that_make_no_sense_are_refused(given: dict[str, Any], message: str, als: FactorModel) -> None:
    with pytest.raises(ParameterError) as raised:
        fastmf.evaluate(als, data()[1], **given)

    assert message in str(raised.value)
