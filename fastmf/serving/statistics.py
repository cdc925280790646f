"""Counts of requests, and how long they took."""

import math
from typing import Any

from fastmf.common.locks import ProcessLock

COUNTS = ("requests", "users", "by_popularity", "unknown_users", "errors", "swaps", "failed_swaps")
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
# A bucket of the histogram ends at 2^(1/16) times the seconds at which it begins: quantiles are exact to 4.4 %.
_BUCKETS_A_DOUBLING, _N_BUCKETS = 16, 512
_SHORTEST = 1e-6


class Statistics:
    """Counts and latencies since the start, or the last `reset`; many threads may add to them.

    A process that is forked goes on from the counts of its parent.
    """

    def __init__(self) -> None:
        self._lock = ProcessLock()
        self._clear()

    def _clear(self) -> None:
        self._counts = dict.fromkeys(COUNTS, 0)
        self._histogram = [0] * _N_BUCKETS
        self._seconds = self._longest = 0.0

    def add_request(self, seconds: float, **counts: int) -> None:
        """Count a request that took some seconds; other counts are given by their names."""
        place = int(_BUCKETS_A_DOUBLING * math.log2(max(seconds, _SHORTEST) / _SHORTEST))
        with self._lock.of_this_process:
            self._histogram[min(place, _N_BUCKETS - 1)] += 1
            self._seconds += seconds
            self._longest = max(self._longest, seconds)
            self._counts["requests"] += 1
            for name, count in counts.items():
                self._counts[name] += count

    def add(self, name: str) -> None:
        """Count something else than a request."""
        with self._lock.of_this_process:
            self._counts[name] += 1

    def reset(self) -> None:
        """Begin again at 0."""
        with self._lock.of_this_process:
            self._clear()

    def read(self) -> dict[str, Any]:
        """Return all counts, and ``latency``: seconds as quantiles, longest and mean, None before a request."""
        with self._lock.of_this_process:
            counts, histogram = dict(self._counts), list(self._histogram)
            seconds, longest = self._seconds, self._longest
        n_requests = counts["requests"]
        latency: dict[str, float | None] = {
            name: _quantile(histogram, n_requests, share, longest) for name, share in QUANTILES.items()
        }
        latency |= {"max": longest, "mean": seconds / n_requests} if n_requests else {"max": None, "mean": None}
        return {**counts, "latency": latency}


def _quantile(histogram: list[int], n_requests: int, share: float, longest: float) -> float | None:
    """Return where the bucket ends in which that share of the requests is reached; the last one has no end."""
    if not n_requests:
        return None
    missing = math.ceil(share * n_requests)
    for place, count in enumerate(histogram[:-1]):
        missing -= count
        if missing <= 0:
            return min(longest, _SHORTEST * 2 ** ((place + 1) / _BUCKETS_A_DOUBLING))
    return longest
