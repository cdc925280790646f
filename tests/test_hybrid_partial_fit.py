"""More ratings for a model with features: what new and known users and items are pulled to, and who stays."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fastmf import Features, Interactions
from fastmf.errors import DataError, ParameterError
from tests.hybrid import KINDS, N_ITEMS, PARTS, fit, means, place, ratings

each_kind = pytest.mark.parametrize("kind", KINDS)
COLD = N_ITEMS + 1


def more() -> Interactions:
    """A first rating of a described item, by a known user, by one who had only features, and by one nobody knows."""
    return Interactions.from_arrays([2, 61, 9000, 2], [COLD, 4, 4, -5], [5, 4, 5, 1])


def row(model: Any, id_: int, side: str) -> list[float]:
    at = place(model, id_, side)
    return [
        *getattr(model, f"{side}_factors")[at].tolist(),
        float(getattr(model, f"{side}_biases")[at]),
    ]


@each_kind
def test_items_and_users_of_features_alone_keep_their_factors(kind: Any) -> None:
    model = fit(kind)
    before = {id_: row(model, id_, "item") for id_ in (N_ITEMS, N_ITEMS + 5)}
    of_user, weights = row(model, 62, "user"), model.fitted.features["item"].weights.copy()

    model.partial_fit(more())

    assert before == {id_: row(model, id_, "item") for id_ in before}
    assert np.any(list(before.values()))
    assert row(model, 62, "user") == of_user
    np.testing.assert_array_equal(model.fitted.features["item"].weights, weights)
    assert place(model, -5) == 0  # a new id before all others: features are in the new order
    np.testing.assert_array_equal(means(model, "item")[0], 0)
    cold = model.fitted.counts
    assert not cold.is_cold_item[place(model, N_ITEMS)]
    assert not cold.is_cold_user[place(model, 62, "user")]


@each_kind
def test_rows_are_solved_with_their_prior(kind: Any) -> None:
    """Users who have rated are what fold_in gives for the new state: solved with prior means, known and new."""
    model = fit(kind).partial_fit(more())
    folded = model.fold_in(Interactions.from_arrays([61, 9000], [4, 4], [4, 5]).to_arrow())
    for id_, factors, bias in zip(folded.ids.to_pylist(), folded.factors, folded.biases, strict=True):
        np.testing.assert_allclose([*factors, bias], row(model, id_, "user"), rtol=0, atol=1e-5)
    without = fit(kind)
    without.fitted.features["user"].weights[:] = 0
    without.partial_fit(more())
    assert np.abs(np.subtract(row(without, 61, "user"), row(model, 61, "user"))).max() > 1e-3


@each_kind
def test_a_first_rating_moves_an_item_a_little_from_its_prior(kind: Any) -> None:
    model = fit(kind)
    before = np.array(row(model, COLD, "item"))
    after = np.array(row(model.partial_fit(more()), COLD, "item"))
    away = float(np.linalg.norm(after - before))
    assert 0 < away < np.linalg.norm(before)
    record = model.history[-1]
    assert (record["n_new_users"], record["n_new_items"]) == (2, 2)


@each_kind
def test_features_of_new_ids(kind: Any) -> None:
    table = pa.table({"item_id": [-5, 500], "genre": ["g1", "g2"], "never seen": ["x", "y"]})
    model, other = fit(kind).partial_fit(more(), item_features=table), fit(kind).partial_fit(more())

    assert means(model, "item")[place(model, -5)].any()
    assert row(model, -5, "item") != row(other, -5, "item")
    np.testing.assert_allclose(
        model.item_factors[place(model, 500)], means(model, "item")[place(model, 500)][:4], atol=1e-6
    )
    assert not model.fitted.counts.is_cold_item[place(model, 500)]
    assert row(model, N_ITEMS, "item") == row(other, N_ITEMS, "item")


@each_kind
def test_new_features_of_an_item_without_ratings(kind: Any) -> None:
    model = fit(kind)
    before = row(model, N_ITEMS, "item")
    model.partial_fit(more(), item_features=pa.table({"item_id": [N_ITEMS], "genre": ["g2"]}))
    assert row(model, N_ITEMS, "item") != before
    np.testing.assert_allclose(
        model.item_factors[place(model, N_ITEMS)], means(model, "item")[place(model, N_ITEMS)][:4], atol=1e-6
    )


@each_kind
def test_any_number_of_threads(kind: Any) -> None:
    one, three = (fit(kind, n_threads=n).partial_fit(more()) for n in (1, 3))
    for part in PARTS:
        np.testing.assert_array_equal(getattr(one, part), getattr(three, part))


@each_kind
def test_nonnegative_factors(kind: Any) -> None:
    model = fit(kind, nonnegative=True).partial_fit(more())
    assert model.item_factors.min() == 0
    assert model.item_factors[place(model, COLD)].any()


@each_kind
def test_twice(kind: Any) -> None:
    model = fit(kind)
    before = row(model, N_ITEMS, "item")
    model.partial_fit(more()).partial_fit(Interactions.from_arrays([3], [COLD], [1]))
    assert row(model, N_ITEMS, "item") == before


def test_errors() -> None:
    kind = KINDS[0]
    table = pa.table({"item_id": [1], "genre": ["g1"]})
    model = kind(n_factors=2, n_epochs=1).fit(ratings())
    with pytest.raises(ParameterError, match="item_features are given, but the model was trained without"):
        model.partial_fit(more(), item_features=table)
    with pytest.raises(DataError, match="item_features"):
        fit(kind).partial_fit(more(), item_features=pa.table({"item_id": ["a"], "genre": ["g1"]}))
    with pytest.raises(ParameterError, match="item_features is a int; expected Features"):
        fit(kind).partial_fit(more(), item_features=7)
    assert len(Features.from_arrow(table)) == 1
