"""Lists with few items of each category, and lists whose items differ in their features."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastmf
from fastmf.answering.answers import Recommendations
from fastmf.errors import DataError, ParameterError
from fastmf.models import FactorModel

N_ITEMS = 60
GENRES = ("Crime", "Drama", "Horror", "War")
OF_ITEMS: list[list[str]] = [
    [genre for genre, has in zip(GENRES, row, strict=True) if has]
    for row in np.random.default_rng(0).random((N_ITEMS, len(GENRES))) < 0.3
]
MAKERS = np.random.default_rng(1).integers(0, 5, N_ITEMS).tolist()


@pytest.fixture(scope="module")
def model() -> FactorModel:
    return fastmf.ImplicitALS(n_factors=6, n_epochs=2).fit(fastmf.testing.power_law(40, N_ITEMS, 500, n_factors=3))


@pytest.fixture(scope="module")
def longer(model: FactorModel) -> Recommendations:
    return model.recommend(k=30)


def table() -> pa.Table:
    return pa.table(
        {
            "item_id": range(N_ITEMS),
            "genre": ["|".join(genres) or None for genres in OF_ITEMS],
            "maker": MAKERS,
            "year": np.arange(N_ITEMS) + 1950.0,
        }
    )


def in_lists() -> pa.Table:
    return table().set_column(1, "genre", pa.array([genres or None for genres in OF_ITEMS]))


def in_pandas() -> Any:
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame({**table().drop_columns(["genre"]).to_pydict(), "genre": table()["genre"].to_pylist()})


def in_a_stream() -> Any:
    return table().to_reader()  # can be read once


def as_features() -> fastmf.Features:
    return fastmf.Features.from_arrow(table(), categories=["maker"])


def with_others() -> fastmf.Features:
    """Also of items that the model does not know."""
    others = pa.table({"item_id": [900, 901], "genre": ["Drama", "Opera"], "maker": [3, 9], "year": [1.0, None]})
    return fastmf.Features.from_arrow(pa.concat_tables([others, table()]), categories=["maker"])


def twin(items: list[int], k: int, limit_of: dict[str, int], columns: dict[str, list[list[Any]]]) -> list[int]:
    """Take items in their order, unless a category of theirs is used up."""
    chosen: list[int] = []
    counts: dict[tuple[str, Any], int] = {}
    for item in items:
        of_item = [(column, category) for column, lists in columns.items() for category in lists[item]]
        if len(chosen) < k and all(counts.get(pair, 0) < limit_of[pair[0]] for pair in of_item):
            chosen.append(item)
            counts.update({pair: counts.get(pair, 0) + 1 for pair in of_item})
    return chosen


@pytest.mark.parametrize("given", [table, in_lists, in_pandas, in_a_stream, as_features, with_others])
@pytest.mark.parametrize("limit_of", [{"genre": 1}, {"genre": 3}, {"genre": 2, "maker": 1}, {"maker": 100}])
def test_caps_hold_and_no_more_is_left_out(longer: Recommendations, given: Any, limit_of: dict[str, int]) -> None:
    columns = {"genre": OF_ITEMS, "maker": [[maker] for maker in MAKERS]}
    columns = {name: columns[name] for name in limit_of}
    found = fastmf.rerank(longer, 12, at_most=limit_of, item_features=given())
    for row, items in zip(longer.items, found.items, strict=True):
        expected = twin(row.tolist(), 12, limit_of, columns)
        assert items.tolist() == expected + [-1] * (12 - len(expected))
    assert np.all((found.items < 0) == (found.scores == -np.inf))
    assert (found.items[:, -1] < 0).all() == (limit_of.get("maker") == 1)  # there are five makers


def test_one_category_may_have_a_limit_of_its_own(longer: Recommendations) -> None:
    is_horror = np.array(["Horror" in genres for genres in OF_ITEMS])
    found = fastmf.rerank(longer, 12, at_most={"genre=Horror": 1}, item_features=table())
    assert (is_horror[longer.items[:, :12]].sum(axis=1) > 1).any()
    assert is_horror[found.items].sum(axis=1).max() == 1
    both = fastmf.rerank(longer, 6, at_most={"genre=Horror": 1, "genre": 3}, item_features=table())
    assert np.where(both.items >= 0, is_horror[both.items], False).sum(axis=1).max() == 1


def test_the_long_form_has_categories_too(longer: Recommendations) -> None:
    pairs = pa.table(
        {
            "item_id": [item for item, genres in enumerate(OF_ITEMS) for _ in genres],
            "tag": [genre for genres in OF_ITEMS for genre in genres],
        }
    )
    tags = fastmf.Features.from_arrow(pairs, feature="tag")
    found = fastmf.rerank(longer, 12, at_most={"Horror": 1, "War": 2}, item_features=tags)
    expected = fastmf.rerank(longer, 12, at_most={"genre=Horror": 1, "genre=War": 2}, item_features=table())
    assert np.array_equal(found.items, expected.items)


def test_caps_hold_while_lists_are_diversified_and_explored(model: FactorModel, longer: Recommendations) -> None:
    settings: dict[str, Any] = {"at_most": {"genre": 2}, "item_features": as_features()}
    settings |= {"diversify": 0.5, "explore": 0.4}
    found = fastmf.rerank(longer, 8, model=model, **settings)
    again = model.recommend(k=8, rerank=fastmf.Reranking(n_candidates=30, **settings))
    assert found.to_arrow().equals(again.to_arrow())
    for items in found.items:
        genres = [genre for item in items[items >= 0] for genre in OF_ITEMS[item]]
        assert max(map(genres.count, GENRES)) <= 2


def test_similarity_of_features(longer: Recommendations) -> None:
    tags = np.array([[genre in genres for genre in GENRES] for genres in OF_ITEMS], float)
    lengths = np.linalg.norm(tags, axis=1, keepdims=True)
    cosines = (tags / np.maximum(lengths, 1)) @ (tags / np.maximum(lengths, 1)).T
    given = fastmf.Features.from_arrow(table(), columns=["genre", "year"])
    found = fastmf.rerank(longer, 6, diversify=0.6, similarity="features", item_features=given)
    for row, scores, items in zip(longer.items, longer.scores.astype(float), found.items, strict=True):
        row, scores = row[row >= 0], scores[row >= 0]
        relevance = dict(zip(row.tolist(), (scores - scores.min()) / (scores.max() - scores.min()), strict=True))
        chosen: list[int] = []
        for item in items.tolist():
            value = {
                i: 0.4 * r - 0.6 * max((cosines[i, j] for j in chosen), default=0)
                for i, r in relevance.items()
                if i not in chosen
            }
            assert value[item] > max(value.values()) - 1e-6
            chosen.append(item)
    assert (found.items != longer.items[:, :6]).any()


def test_features_are_part_of_the_fingerprint(model: FactorModel) -> None:
    other = table().set_column(1, "genre", pa.array(["Drama"] * N_ITEMS))

    def fingerprint(**settings: Any) -> str:
        rerank = fastmf.Reranking(**settings)
        return model._scorer().recommend_in_batches(None, 5, exclude="seen", rerank=rerank).fingerprint()

    asked: list[dict[str, Any]] = [
        {"at_most": {"genre": 3}, "item_features": table()},
        {"at_most": {"genre": 2}, "item_features": table()},
        {"at_most": {"genre": 3}, "item_features": other},
        {"similarity": "features", "item_features": table(), "diversify": 0.2},
        {"similarity": "features", "item_features": other, "diversify": 0.2},
    ]
    found = [fingerprint(**settings) for settings in asked]
    assert len(set(found)) == len(found)
    assert found == [fingerprint(**settings) for settings in asked]


GENRES_ONLY = table().select(["genre"])


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"at_most": {"genre": 2}}, ParameterError, "item_features is missing; expected it with at_most, similarity="),
        ({"similarity": "features"}, ParameterError, "item_features is missing"),
        ({"item_features": table()}, ParameterError, "item_features has no use"),
        ({"similarity": "tags"}, ParameterError, "similarity is 'tags'; expected one of 'factors', 'features'"),
        ({"at_most": 3, "item_features": table()}, ParameterError, "at_most is 3; expected columns with their limits"),
        ({"at_most": {"genre": 0}, "item_features": table()}, ParameterError, r"at_most\['genre'\] is 0; expected"),
        ({"at_most": {"genre": 1.5}, "item_features": table()}, ParameterError, r"at_most\['genre'\] is 1.5"),
        ({"at_most": {"genre": 2}, "item_features": 7}, ParameterError, "item_features is a int; expected Features"),
        ({"at_most": {"style": 2}, "item_features": table()}, DataError, "item_features: no column 'style'"),
        (
            {"at_most": {"genre": 2}, "item_features": GENRES_ONLY},
            DataError,
            "no column 'item_id'",
        ),
    ],
)
def test_what_does_not_go_together(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fastmf.Reranking(**settings)


def test_what_features_lack(longer: Recommendations) -> None:
    far = fastmf.Features.from_arrow(pa.table({"item_id": [900], "genre": ["Drama"]}))
    texts = fastmf.Features.from_arrow(pa.table({"item_id": ["a"], "genre": ["Drama"]}))
    years = fastmf.Features.from_arrow(table().select(["item_id", "year"]))
    for features, settings, error, message in (
        (
            as_features(),
            {"at_most": {"style": 2}},
            ParameterError,
            "'style', which is not in item_features; expected",
        ),
        (as_features(), {"at_most": {"year": 2}}, ParameterError, "'year', which is numeric in item_features"),
        (far, {"at_most": {"genre": 2}}, DataError, "item_features have none of the 60 items, for example 0"),
        (texts, {"at_most": {"genre": 2}}, DataError, "the ids are of type int64, those of the features of type"),
        (
            years,
            {"similarity": "features", "diversify": 0.2},
            ParameterError,
            "item_features have numeric columns",
        ),
    ):
        with pytest.raises(error, match=message):
            fastmf.rerank(longer, 5, item_features=features, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [2**31 - 1, 2**31, 10**12, 10**30])
def test_a_limit_beyond_any_list_is_none(longer: Recommendations, limit: int) -> None:
    found = fastmf.rerank(longer, 5, at_most={"genre": limit}, item_features=as_features())
    assert np.array_equal(found.items, longer.items[:, :5])


def test_a_limit_of_one_category_leaves_those_that_begin_alike(longer: Recommendations) -> None:
    features = pa.table({"item_id": range(N_ITEMS), "genre": ["War", *["War=Cold"] * (N_ITEMS - 1)]})
    found = fastmf.rerank(longer, 5, at_most={"genre=War": 1}, item_features=features)
    assert np.array_equal(found.items, longer.items[:, :5])
