"""Neighbours by features, against dense arithmetic."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastmf
from fastmf import Features
from fastmf.answering import content
from fastmf.errors import DataError, ParameterError, UnknownIdError

N_IDS = 40


def films(seed: int = 0) -> Features:
    """Make films with genres, a year that some lack, a constant, and two films without any genre."""
    rng = np.random.default_rng(seed)
    genres = ["|".join(sorted({f"g{g}" for g in rng.geometric(0.3, 3).clip(1, 8)})) for _ in range(N_IDS)]
    genres[5] = genres[6] = ""
    years: list[Any] = rng.integers(1950, 2000, N_IDS).tolist()
    years[5] = years[8] = None
    table = {"item_id": [10 * i for i in range(N_IDS)], "genres": genres, "year": years, "same": [3.3] * N_IDS}
    return Features.from_arrow(pa.table(table))


def cosines(features: Features, idf: bool) -> np.ndarray:
    """Return the cosines of all pairs, NaN where one has no direction, and -2 where they have nothing in common."""
    table = np.full((len(features), features.n_features), np.nan)
    rows = features.rows
    for row in range(len(features)):
        entries = slice(rows.indptr[row], rows.indptr[row + 1])
        table[row, rows.indices[entries]] = rows.values[entries]
    weighted = np.zeros_like(table)
    for column in range(features.n_features):
        there = ~np.isnan(table[:, column])
        values = table[there, column]
        if features.is_numeric[column]:
            spread = values.std()
            weighted[there, column] = (values - values.mean()) / spread if spread > 1e-6 else 0
        else:
            weighted[there, column] = values * (np.log(len(features) / len(values)) if idf else 1)
    norms = np.linalg.norm(weighted, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        directions = weighted / norms
    in_common = (weighted != 0).astype(int) @ (weighted != 0).T.astype(int) > 0
    return np.where(in_common, directions @ directions.T, -2)


@pytest.mark.parametrize("idf", [False, True])
@pytest.mark.parametrize("lists", [{}, {"allow": range(0, 200, 10)}, {"deny": range(0, 200, 10)}], ids=str)
def test_neighbours_have_the_largest_cosines(idf: bool, lists: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "_CELLS", 3 * N_IDS)  # several batches
    features, asked = films(), [30, 0, 80, 390, 60, 100, 110]
    candidates = [i for i in range(N_IDS) if 10 * i in lists.get("allow", range(0, 400, 10))]
    candidates = [i for i in candidates if 10 * i not in lists.get("deny", ())]

    before = [part.copy() for part in features.rows]

    found = fastmf.similar_by_features(features, asked, 8, idf=idf, **lists)

    assert all(np.array_equal(part, earlier) for part, earlier in zip(features.rows, before, strict=True))
    assert found.ids.to_pylist() == asked
    for row, one in enumerate(asked):
        close = np.round(cosines(features, idf)[one // 10], 10)
        expected = sorted((i for i in candidates if i != one // 10 and close[i] > -2), key=lambda i: (-close[i], i))[:8]
        neighbours = found.neighbours[row]
        assert neighbours[neighbours >= 0].tolist() == expected
        np.testing.assert_allclose(found.scores[row][: len(expected)], close[expected], atol=1e-6)


def test_what_shares_no_feature_is_no_neighbour() -> None:
    tags = pa.table({"item_id": ["a", "a", "b", "c", "d"], "tag": ["x", "y", "y", "z", "x"]})
    features = Features.from_arrow(tags, feature="tag")

    found = fastmf.similar_by_features(features, ["a", "c"], k=3)

    table = found.to_arrow()
    assert table["item_id"].to_pylist() == ["a", "a"]
    assert table["similar_item_id"].to_pylist() == ["b", "d"]
    np.testing.assert_allclose(table["score"].to_numpy(), np.sqrt([0.5, 0.5]), rtol=1e-6)
    assert found.n_cold == 0
    assert fastmf.similar_by_features(features, "a", 1, side="user").to_arrow().column_names[0] == "user_id"


def test_a_rare_tag_counts_more_by_idf() -> None:
    rows = {"a": "common|rare", "b": "common", "c": "rare|other", "d": "common", "e": "common"}
    features = Features.from_arrow(pa.table({"item_id": list(rows), "tags": list(rows.values())}))

    plain, weighted = (fastmf.similar_by_features(features, "a", 1, idf=idf).to_arrow() for idf in (False, True))

    assert (plain.column(2).to_pylist(), weighted.column(2).to_pylist()) == (["b"], ["c"])


def test_items_that_nothing_tells_from_others_are_counted() -> None:
    features = Features.from_arrow(pa.table({"item_id": [1, 2, 3], "year": [1990, 2000, 1995], "tag": ["t"] * 3}))

    found = fastmf.similar_by_features(features, [3, 1], 2, idf=True)

    assert found.n_cold == 1
    assert found.neighbours[0].tolist() == [-1, -1]
    assert found.to_arrow()["similar_item_id"].to_pylist() == [2]
    assert found.to_arrow()["score"].to_pylist() == [-1]


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"ids": 5}, UnknownIdError, "unknown to the features: 5; expected ids that have a row in them"),
        ({"ids": "x"}, DataError, "column 'ids' has ids of type string"),
        ({"ids": 10, "k": 40}, ParameterError, "k is 40, but 40 ids have features; expected fewer than that"),
        ({"ids": 10, "k": 0}, ParameterError, "k is 0; expected an integer of at least 1"),
        ({"ids": 10, "idf": "yes"}, ParameterError, "idf is 'yes'; expected True or False"),
        ({"ids": 10, "side": "film"}, ParameterError, "side is 'film'; expected one of 'item', 'user'"),
        ({"ids": 10, "allow": 3}, ParameterError, "allow is 3; expected a list of item ids"),
        (
            {"ids": 10, "features": "f.parquet"},
            ParameterError,
            "features is a str; expected Features, as Features.from",
        ),
    ],
)
def test_what_cannot_be_compared_by_features(asked: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        fastmf.similar_by_features(**{"features": films(), **asked})
    assert message in str(raised.value)
