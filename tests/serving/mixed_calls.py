"""Calls of a recommender whose answers can be compared: run by threads, by forked and by started processes."""

from collections.abc import Callable
from typing import Any

import numpy as np

import fastmf

FILTERS = {"even": np.arange(900) % 2 == 0, "few": [7, 11, 20, 33, 50, 51, 88], "large": list(range(100, 800))}
# Arrow starts threads where interactions are made; requests start none.
NEWCOMERS = fastmf.Interactions.from_arrays([7000, 7000, 7001], [20, 31, 40], [5, 1, 3])
Answer = tuple[bytes, ...]


def of_lists(found: Any) -> Answer:
    return found.items.tobytes(), found.scores.tobytes(), found.users.tobytes(), found.by_popularity.tobytes()


def of_neighbours(found: Any) -> Answer:
    return found.neighbours.tobytes(), found.scores.tobytes()


CALLS: dict[str, Callable[[Any], Answer]] = {
    "one": lambda r: of_lists(r.recommend(17, 10)),
    "stranger": lambda r: of_lists(r.recommend(12345, 10)),
    "some": lambda r: of_lists(r.recommend([5, 999, 0, 58], 7)),
    "all": lambda r: of_lists(r.recommend(range(60), 20, exclude=None)),
    "lists": lambda r: of_lists(r.recommend([9, 17], 5, allow=range(0, 900, 3), deny={9: [30, 60]})),
    "a filter": lambda r: of_lists(r.recommend([9, 17], 5, filters="large")),
    "filters": lambda r: of_lists(r.recommend([9, 999], 5, filters=["large", "not even"])),
    "a few items": lambda r: of_lists(r.recommend([9, 999], 5, filters="few", cold="include")),
    "newcomers": lambda r: of_lists(r.recommend_for(NEWCOMERS, 5)),
    "newcomers, filtered": lambda r: of_lists(r.recommend_for(NEWCOMERS, 5, filters="large", deny=[300, 301])),
    "similar": lambda r: of_neighbours(r.similar_items([7, 9, 300], 6)),
    "pairs": lambda r: (r.predict([5, 17, 999], [7, 7, 7]).tobytes(),),
    "many pairs": lambda r: (r.predict([n % 60 for n in range(3000)], range(3000)).tobytes(),),
}


def answers(recommender: Any) -> dict[str, Answer]:
    return {name: call(recommender) for name, call in CALLS.items()}
