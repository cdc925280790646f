"""Re-ranking against the reference, and the reference against lists that are worked out by hand."""

import numpy as np
import pytest

from fastmf.backend import Kernels
from fastmf_bench.cases import prove
from fastmf_kernels._types import Int32Array
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.rerank.arrays import Caps, Directions, Exploration, Lists, no_caps, no_directions, no_exploration
from fastmf_kernels.topk.arrays import Rows

# Four items: 0 and 1 point the same way, 2 is at a right angle to them, 3 is their opposite.
PLANE = np.array([[1, 0], [1, 0], [0, 1], [-1, 0]], np.float32)


@pytest.fixture(params=["reference", "cpu"])
def both(request: pytest.FixtureRequest, kernels: Kernels, reference: Kernels) -> Kernels:
    return reference if request.param == "reference" else kernels


def one_list(items: list[int], relevance: list[float]) -> Lists:
    return Lists(np.array([items], np.int32), np.array([relevance], np.float64))


def dense(vectors: np.ndarray) -> Directions:  # type: ignore[type-arg]
    return no_directions(len(vectors))._replace(dense=vectors)


def sparse(vectors: np.ndarray) -> Directions:  # type: ignore[type-arg]
    rows, columns = np.nonzero(vectors)
    indptr = np.append(0, np.cumsum(np.bincount(rows, minlength=len(vectors))))
    csr = CSR(indptr, columns.astype(np.int32), vectors[rows, columns])
    return no_directions(len(vectors))._replace(sparse=csr, n_columns=vectors.shape[1])


def test_cpu_is_the_reference_on_any_number_of_threads() -> None:
    prove("rerank", threads=(1, 2))


@pytest.mark.parametrize("parts", [dense, sparse])
@pytest.mark.parametrize(
    ("diversify", "expected"),
    [
        (0.0, [0, 1, 2, 3]),
        # 0, then 1: .6·.9 - .4 = .14; 2: .6·.5 = .3; 3: .4. Then 1 has still .14, and 2 has .3 (max(0, 0) = 0).
        (0.4, [0, 3, 2, 1]),
        (0.2, [0, 1, 2, 3]),  # after 0, 1: .8·.9 - .2 = .52; 2: .4; 3: .2
        (1.0, [0, 3, 2, 1]),
    ],
)
def test_similar_items_give_way(both: Kernels, parts: object, diversify: float, expected: list[int]) -> None:
    directions = parts(PLANE)  # type: ignore[operator]
    lists = one_list([0, 1, 2, 3], [1, 0.9, 0.5, 0])
    found = both.rerank(lists, diversify, directions, no_caps(4), no_exploration(1, 4, 4), None)
    assert found.dtype == np.int32
    assert found.tolist() == [expected]


def test_places_are_those_of_the_list_and_not_items(both: Kernels) -> None:
    lists = one_list([3, -1, 0], [1, 0, 0.5])
    found = both.rerank(lists, 0.0, no_directions(4), no_caps(4), no_exploration(1, 4, 4), None)
    assert found.tolist() == [[0, 2, -1, -1]]


def caps(of_items: list[list[int]], limits: list[int]) -> Caps:
    indptr = np.cumsum([0, *map(len, of_items)])
    return Caps(Rows(indptr, np.array([c for of in of_items for c in of], np.int32)), np.array(limits, np.int32))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [([1, 1], [0, 3, -1, -1]), ([2, 1], [0, 1, 3, -1]), ([1, 2], [0, 2, 3, -1]), ([9, 9], [0, 1, 2, 3])],
)
def test_items_count_in_each_of_their_categories(both: Kernels, limits: list[int], expected: list[int]) -> None:
    # 0 and 1 have the first category, 0 and 2 the second one, and 3 has none.
    given = caps([[0, 1], [0], [1], []], limits)
    lists = one_list([0, 1, 2, 3], [1, 0.9, 0.8, 0])
    found = both.rerank(lists, 0.0, no_directions(4), given, no_exploration(1, 4, 4), None)
    assert found.tolist() == [expected]


def explored(both: Kernels, draws: list[float], is_new: list[bool], limits: Caps | None = None) -> Int32Array:
    lists = one_list([0, 1, 2, 3], [1, 0.9, 0.8, 0])
    exploration = Exploration(np.array([draws]), np.array(is_new))
    return both.rerank(lists, 0.0, no_directions(4), limits or no_caps(4), exploration, None)


def test_a_draw_gives_its_place_to_a_new_item(both: Kernels) -> None:
    is_new = [False, True, False, True]
    assert explored(both, [-1, 0.49, -1], is_new).tolist() == [[0, 1, 2]]
    assert explored(both, [-1, 0.51, -1], is_new).tolist() == [[0, 3, 1]]
    assert explored(both, [0.99, 0.0, 0.0], is_new).tolist() == [[3, 1, 0]]  # no new item is left: the best one


def test_a_new_item_keeps_to_the_caps(both: Kernels) -> None:
    given = caps([[0], [0], [], [0]], [1])
    assert explored(both, [-1, 0.0, -1], [False, True, False, True], given).tolist() == [[0, 2, -1]]


def test_users_do_not_know_each_other(both: Kernels) -> None:
    """Counts and vectors are shared by a chunk of users, one after the other."""
    rng = np.random.default_rng(3)
    n_users, vectors = 70, rng.integers(-2, 3, (40, 5)).astype(np.float32) / np.float32(4)
    items = np.argsort(rng.random((n_users, 40)), axis=1)[:, :15].astype(np.int32)
    lists = Lists(items, -np.sort(-rng.integers(0, 33, items.shape) / 32))
    limited = caps([[int(c)] for c in rng.integers(0, 6, 40)], [2] * 6)
    together = both.rerank(lists, 0.5, sparse(vectors), limited, no_exploration(n_users, 10, 40), None)
    for user in range(n_users):
        alone = Lists(*(part[user : user + 1] for part in lists))
        single = both.rerank(alone, 0.5, dense(vectors), limited, no_exploration(1, 10, 40), 1)
        assert single.tolist() == [together[user].tolist()]
