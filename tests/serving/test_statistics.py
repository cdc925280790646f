"""Quantiles off a histogram, held against those of the numbers themselves."""

import numpy as np
import pytest

from fastmf.serving.statistics import Statistics


@pytest.mark.parametrize("seed", [0, 1])
def test_quantiles_are_exact_to_a_bucket(seed: int) -> None:
    seconds = np.exp(np.random.default_rng(seed).normal(-7, 2, 2000))
    statistics = Statistics()
    for number in seconds:
        statistics.add_request(float(number), users=2)

    latency = statistics.read()["latency"]
    ordered = np.sort(seconds)
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        exact = ordered[int(np.ceil(share * 2000)) - 1]
        assert exact <= latency[name] <= exact * 2 ** (1 / 16) * (1 + 1e-9) or exact < 1e-6
    assert latency["max"] == ordered[-1]
    assert latency["mean"] == pytest.approx(seconds.mean())


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 1e6, 1e12])
def test_no_time_is_too_short_or_too_long(seconds: float) -> None:
    statistics = Statistics()
    statistics.add_request(seconds)

    latency = statistics.read()["latency"]
    assert latency["p99"] == latency["max"] == seconds
