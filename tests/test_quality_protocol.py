"""The leave-one-out protocol of the quality benchmark against a loop that says what it means."""

import math

import numpy as np
import numpy.typing as npt
import pytest

from fastmf.models import MODELS
from fastmf_bench.suites import quality_settings
from fastmf_bench.suites.quality import leave_one_out

Pairs = list[tuple[int, int]]
Scores = dict[tuple[int, int], float]


def measured(scores: Scores, test: Pairs, negatives: Pairs, k: int) -> tuple[float, float]:
    def predict(users: npt.NDArray[np.int64], items: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return np.array([scores[pair] for pair in zip(users.tolist(), items.tolist(), strict=True)], np.float32)

    def columns(pairs: Pairs) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        users, items = np.array(pairs, np.int64).reshape(-1, 2).T
        return users, items

    return leave_one_out(predict, columns(test), columns(negatives), k)


def expected(scores: Scores, test: Pairs, negatives: Pairs, k: int) -> tuple[float, float]:
    hits, gains = 0, 0.0
    for user, item in test:
        others = {other for whose, other in negatives if whose == user} - {item}
        rank = sum(scores[user, other] >= scores[user, item] for other in others)
        if rank < k:
            hits += 1
            gains += 1 / math.log2(rank + 2)
    return hits / len(test), gains / len(test)


def scores_of(*items: float, user: int = 1) -> Scores:
    return {(user, item): score for item, score in enumerate(items)}


# The test item is 0; scores are those of items 0, 1, 2, ...
@pytest.mark.parametrize(
    ("scores", "negatives", "k", "hit", "rank"),
    [
        pytest.param((9, 1, 2), [1, 2], 1, 1, 0, id="best"),
        pytest.param((5, 9, 1), [1, 2], 2, 1, 1, id="second of two"),
        pytest.param((5, 9, 1), [1, 2], 1, 0, 1, id="second of one"),
        pytest.param((5, 9, 1), [1, 1, 1, 2], 2, 1, 1, id="a negative listed three times counts once"),
        pytest.param((5, 1, 2), [0, 1, 2], 1, 1, 0, id="the test item is no negative of its own"),
        pytest.param((5, 5, 1), [1, 2], 1, 0, 1, id="of equal scores the test item comes last"),
        pytest.param((5, 5, 5), [0, 0, 1, 1, 2], 3, 1, 2, id="all at once"),
    ],
)
def test_rank_of_one_user(scores: tuple[float, ...], negatives: list[int], k: int, hit: int, rank: int) -> None:
    pairs = [(1, item) for item in negatives]

    assert measured(scores_of(*scores), [(1, 0)], pairs, k) == (hit, hit / math.log2(rank + 2))


def test_users_in_any_order_are_matched_with_their_own_negatives() -> None:
    scores = scores_of(5, 9, 1, user=30) | scores_of(5, 9, 1, user=4)
    negatives = [(4, 1), (30, 2), (4, 2)]

    assert measured(scores, [(30, 0), (4, 0)], negatives, k=1) == (0.5, 0.5)


def test_a_user_without_negatives_is_a_hit() -> None:
    assert measured(scores_of(5) | scores_of(5, 9, user=2), [(1, 0), (2, 0)], [(2, 1)], k=1) == (0.5, 0.5)


@pytest.mark.parametrize("seed", range(20))
def test_random_problems_against_the_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_users, n_items = int(rng.integers(1, 12)), int(rng.integers(1, 15))
    # Few different scores and many draws: ties, repeated negatives, and negatives that are the test item.
    scores = {(u, i): float(rng.integers(4)) for u in range(n_users) for i in range(n_items)}
    test = [(int(u), int(rng.integers(n_items))) for u in rng.permutation(n_users)]
    negatives = [(int(u), int(rng.integers(n_items))) for u in rng.permutation(np.repeat(np.arange(n_users), 8))]
    k = int(rng.integers(1, 6))

    assert measured(scores, test, negatives, k) == pytest.approx(expected(scores, test, negatives, k), abs=1e-12)


@pytest.mark.parametrize("protocol", ["SETTINGS_100K", "SETTINGS_1M", "SETTINGS_TOPN"])
def test_settings_are_of_models_that_there_are(protocol: str) -> None:
    for name, settings in getattr(quality_settings, protocol).items():
        assert MODELS[name](**settings).get_params().items() >= settings.items()
