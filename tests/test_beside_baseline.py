"""When a baseline counts as better than a model."""

from typing import Any

import pytest

from fastmf.measuring.beside_baseline import verdict


@pytest.mark.parametrize(
    ("results", "is_said"),
    [
        ({"rmse": 1.0, "baseline_rmse": 0.9985}, False),
        ({"rmse": 1.0, "baseline_rmse": 0.9975}, True),
        ({"rmse": 0.9, "baseline_rmse": 1.0}, False),
        ({"ndcg@10": 0.1, "baseline_ndcg@10": 0.1009}, False),
        ({"ndcg@10": 0.1, "baseline_ndcg@10": 0.1011}, True),
        ({"precision@10": 0.076, "baseline_precision@10": 0.078}, True),
        ({"coverage@10": 0.1, "baseline_coverage@10": 0.9}, False),
        ({"rmse": None, "baseline_rmse": 0.9}, False),
        ({"rmse": 1.0}, False),
    ],
)
def test_a_baseline_is_better_by_more_than_a_tie(results: dict[str, Any], is_said: bool) -> None:
    found = verdict(results, is_implicit=False)

    assert (found is not None) == is_said
    assert found is None or "no better than its baseline by " in found


def test_only_metrics_that_count_are_judged() -> None:
    results = {"rmse": 1.1, "baseline_rmse": 1, "recall@5": 0.1, "baseline_recall@5": 0.2}

    assert (
        verdict(results, False, {"rmse"})
        == "the model is no better than its baseline by rmse (1.1000, bias-only 1.0000)"
    )
    assert verdict(results, False, {"recall"}) == (
        "the model is no better than its baseline by recall@5 (0.1000, bias-only 0.2000)"
    )
    assert verdict(results, False, {"ndcg"}) is None
