"""Models with features: what they minimise, what is known of those without ratings, and how fits go on."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastmf
from fastmf import ALS, SGD, Features, ImplicitALS, Interactions
from fastmf.errors import DataError, ParameterError
from tests.hybrid import (
    KINDS,
    N_ITEMS,
    N_USERS,
    PARTS,
    fit,
    item_table,
    items,
    means,
    place,
    ratings,
    user_table,
    users,
)

each_kind = pytest.mark.parametrize("kind", KINDS)
GIVEN = {"item_feature_regularization": 0.5, "user_feature_regularization": 1.5}
SOLVERS: list[dict[str, Any]] = [
    {},
    {"solver": "cg"},
    {"solver": "subspace"},
    {"nonnegative": True},
]


def require_equal(model: Any, other: Any) -> None:
    for part in PARTS:
        np.testing.assert_array_equal(getattr(model, part), getattr(other, part))
    for side, known in model.fitted.features.items():
        np.testing.assert_array_equal(known.weights, other.fitted.features[side].weights)


def dense(given: Interactions, model: Any) -> tuple[Any, Any]:
    """Ratings as a table of the users and items of a model, and which cells have one."""
    values = np.zeros((len(model.user_ids), len(model.item_ids)))
    rows = [place(model, id_, "user") for id_ in given.user_ids.to_pylist()]
    columns = [place(model, id_) for id_ in given.item_ids.to_pylist()]
    at = np.array(rows)[given.users], np.array(columns)[given.items]
    values[at] = given.ratings
    is_rated = np.zeros(values.shape, bool)
    is_rated[at] = True
    return values, is_rated


class InNumPy:
    """The objective of a model with features, and the equations of its users, written down in NumPy."""

    def __init__(self, model: Any, given: Interactions) -> None:
        self.values, self.is_rated = dense(given, model)
        chosen = {**model.get_params(), **model.chosen}
        p, q = (getattr(model, f"{side}_factors").astype(float) for side in ("user", "item"))
        n_users, n_items = (self.is_rated.any(axis=axis).sum() for axis in (1, 0))
        self.counts = {"user": self.is_rated.sum(axis=1), "item": self.is_rated.sum(axis=0)}
        if isinstance(model, ALS):
            assert not model.biases
            strength = chosen["regularization"] * given.ratings.std()
            self.strengths = {side: strength * counts for side, counts in self.counts.items()}
            self.weights, self.targets = self.is_rated.astype(float), self.values
        else:
            alpha, ones = chosen["unobserved_weight"], np.ones(self.is_rated.shape)
            exponent = chosen["regularization_exponent"]
            of_users = self.counts["user"] + alpha * n_items
            of_items = self.counts["item"] + alpha * n_users
            self.strengths = {
                "user": chosen["regularization"] * of_users**exponent,
                "item": chosen["regularization"] * of_items**exponent,
            }
            is_meant = np.outer(self.counts["user"] > 0, self.counts["item"] > 0)
            self.weights = alpha * ones * is_meant + self.is_rated
            self.targets = self.is_rated / np.maximum(self.weights, 1e-300)
        self.tables, self.regularization = {"user": p, "item": q}, chosen
        self.means = {side: means(model, side) for side in model.fitted.features}
        self.maps = {side: known.weights.astype(float) for side, known in model.fitted.features.items()}
        self.features = model.fitted.features
        for side in self.means:
            self.strengths[side] = self.strengths[side] * min(1, chosen[f"{side}_feature_regularization"] / 3)

    def objective(self) -> float:
        """The sum of the docstrings: that of the model, with the terms of features."""
        scores = self.tables["user"] @ self.tables["item"].T
        total = float((self.weights * (self.targets - scores) ** 2).sum())
        if self.weights.min() >= 0 and (self.targets != self.values).any():
            # Σ_S w(p - r̂)² + α₀ Σ_all r̂² differs from the sum over weights by a constant of each observed cell.
            total += float((1 - self.weights * self.targets**2)[self.is_rated].sum())
        for side, table in self.tables.items():
            is_rated = self.counts[side] > 0
            away = (table - self.means[side])[is_rated] if side in self.means else table[is_rated]
            total += float(self.strengths[side][is_rated] @ (away**2).sum(axis=1))
            if side in self.maps:
                total += self.ridge(side) * float((self.maps[side] ** 2).sum())
        return total

    def ridge(self, side: str) -> float:
        """ρ = r·mean(λ_i) over the rows that have ratings and features."""
        is_meant = (self.counts[side] > 0) & self.features[side].are_described
        return float(self.regularization[f"{side}_feature_regularization"] * self.strengths[side][is_meant].mean())

    def solved_users(self) -> Any:
        """(A + λI)p = b + λm, for each user with ratings."""
        q, found = self.tables["item"], np.zeros_like(self.tables["user"])
        for user in np.flatnonzero(self.counts["user"]):
            matrix = (q.T * self.weights[user]) @ q + self.strengths["user"][user] * np.eye(q.shape[1])
            right = q.T @ (self.weights[user] * self.targets[user])
            found[user] = np.linalg.solve(matrix, right + self.strengths["user"][user] * self.means["user"][user])
        return found

    def map_of(self, side: str) -> Any:
        """The ridge solution of W, with the factors as they are."""
        is_meant = self.counts[side] > 0
        indptr, indices, values = self.features[side].rows
        x = np.zeros((len(indptr) - 1, len(self.maps[side])))
        x[np.repeat(np.arange(len(x)), np.diff(indptr)), indices] = values
        x, strengths = x[is_meant], self.strengths[side][is_meant]
        matrix = (x.T * strengths) @ x + self.ridge(side) * np.eye(x.shape[1])
        return np.linalg.solve(matrix, x.T @ (strengths[:, None] * self.tables[side][is_meant]))


def plain(kind: Any, **params: Any) -> Any:
    """Without biases, and with a strength that grows with ratings: the sums are short to write down."""
    of_kind = {"biases": False, "regularization": 0.1, "regularization_scaling": "count"} if kind is ALS else {}
    return fit(kind, **GIVEN, **of_kind, **params)


@each_kind
def test_the_objective_is_that_of_the_docstring_and_falls(kind: Any) -> None:
    for n_epochs in (1, 4):
        model = plain(kind, n_epochs=n_epochs)
        assert model.history[-1]["objective"] == pytest.approx(InNumPy(model, ratings()).objective(), rel=1e-4)
    objectives = [record["objective"] for record in plain(kind, n_epochs=12).history]
    assert np.diff(objectives).max() <= 1e-5 * objectives[0]


@each_kind
def test_users_are_the_solution_of_their_equations(kind: Any) -> None:
    model = plain(kind)
    slow = InNumPy(model, ratings())
    is_rated = slow.counts["user"] > 0
    np.testing.assert_allclose(model.user_factors[is_rated], slow.solved_users()[is_rated], rtol=0, atol=1e-4)
    without = slow.solved_users() * 0
    slow.means["user"] = without
    assert np.abs(model.user_factors - slow.solved_users())[is_rated].max() > 1e-2


@each_kind
def test_the_maps_are_ridge_solutions_in_the_end(kind: Any) -> None:
    model = plain(kind, n_epochs=300)
    slow = InNumPy(model, ratings())
    for side in ("user", "item"):
        expected = slow.map_of(side)
        assert np.abs(slow.maps[side] - expected).max() < 0.02 * np.abs(expected).max()


@each_kind
def test_those_without_ratings_are_what_their_features_say(kind: Any) -> None:
    model = plain(kind)
    for side, first, n in (("item", N_ITEMS, 6), ("user", N_USERS, 4)):
        rows = [place(model, id_, side) for id_ in range(first, first + n)]
        factors = getattr(model, f"{side}_factors")[rows]
        assert factors.any(axis=1).all()
        np.testing.assert_allclose(factors, means(model, side)[rows], rtol=1e-4, atol=1e-6)


@each_kind
def test_a_planted_structure_is_found(kind: Any) -> None:
    """Of items without ratings, those of the genre that people like come first; for most who have rated by chance."""
    model, cold = fit(kind, n_epochs=8), list(range(N_ITEMS, N_ITEMS + 6))
    found = model.recommend(None, k=2, allow=cold).to_arrow()
    users_, items_ = (found.column(name).to_numpy() for name in ("user_id", "item_id"))
    is_right = users_ % 3 == items_ % 3
    assert len(is_right) == 2 * (N_USERS + 4)
    assert is_right.mean() > 0.9  # a third by chance
    assert is_right[users_ >= N_USERS].all()


@each_kind
def test_those_without_ratings_are_part_of_the_model(kind: Any) -> None:
    model = fit(kind)
    everything = model.recommend([0], k=len(model.item_ids), exclude=None).to_arrow().column("item_id").to_pylist()
    assert sorted(everything) == list(range(N_ITEMS + 6))
    denied = model.recommend([0], k=40, deny=[N_ITEMS], exclude=None).to_arrow().column("item_id").to_pylist()
    assert N_ITEMS not in denied
    assert N_ITEMS + 1 in denied
    similar = model.similar_items([N_ITEMS], k=5).to_arrow()
    assert similar.num_rows == 5
    test = Interactions.from_arrays([0, 1, N_USERS], [N_ITEMS + 2, N_ITEMS, N_ITEMS + 2], [5, 5, 5])
    result = fastmf.evaluate(model, test, k=10)
    assert result["n_users"] == 3


@each_kind
@pytest.mark.parametrize("params", SOLVERS, ids=str)
def test_threads_and_backends_agree(params: dict[str, Any], kind: Any) -> None:
    one, two, three = (fit(kind, n_epochs=2, n_threads=n, **params) for n in (1, 2, 3))
    require_equal(one, two)
    require_equal(one, three)
    slow = fit(kind, n_epochs=2, backend="reference", **params)
    for part in PARTS:
        np.testing.assert_allclose(getattr(one, part), getattr(slow, part), rtol=0, atol=2e-3)
    if "nonnegative" in params:
        assert min(one.item_factors.min(), one.user_factors.min()) == 0


@each_kind
@pytest.mark.parametrize("params", SOLVERS, ids=str)
def test_a_checkpoint_goes_on_with_the_same_bits(params: dict[str, Any], kind: Any, tmp_path: Path) -> None:
    whole = fit(kind, n_epochs=4, **params)

    def go_on(n_epochs: int, **features: Any) -> Any:
        model = kind(n_factors=4, n_epochs=n_epochs, n_threads=1, **params)
        return model.fit(ratings(), checkpoint=tmp_path / "c", **features)

    both = {"item_features": items(), "user_features": users()}
    go_on(2, **both)
    require_equal(go_on(4, **both), whole)
    with pytest.raises(DataError, match=r"made with other features of items: now item_features has 45 ids, not 46"):
        go_on(4, item_features=items().take(range(45)), user_features=users())
    with pytest.raises(DataError, match="made with features of users, and there is no user_features now"):
        go_on(4, item_features=items())


@each_kind
def test_training_users_fold_in_to_their_factors(kind: Any) -> None:
    model = fit(kind)
    folded = model.fold_in(ratings())
    rows = [place(model, id_, "user") for id_ in folded.ids.to_pylist()]
    np.testing.assert_allclose(folded.factors, model.user_factors[rows], rtol=0, atol=1e-5)
    np.testing.assert_allclose(folded.biases, model.user_biases[rows], rtol=0, atol=1e-5)
    given = model.fold_in(ratings(), features=users().take(range(N_USERS)))
    np.testing.assert_array_equal(given.factors, folded.factors)


@each_kind
def test_people_known_by_features_alone(kind: Any) -> None:
    model = fit(kind)
    table = pa.table({"user_id": [900, 901, 902], "age": ["a1", "never seen", "a2"]})
    folded = model.fold_in(None, features=table)
    assert folded.ids.to_pylist() == [900, 901, 902]
    assert not folded.factors[1].any()
    like = [place(model, N_USERS + 1, "user"), place(model, N_USERS + 2, "user")]
    np.testing.assert_allclose(folded.factors[[0, 2]], model.user_factors[like], rtol=1e-4, atol=1e-6)
    found = model.recommend_for(None, k=3, features=table).to_arrow()
    assert set(found.column("user_id").to_pylist()) == {900, 902}
    new_items = model.fold_in(None, "item", features=pa.table({"item_id": [700], "genre": ["g1"]}))
    assert new_items.factors.any()
    with_ratings = model.fold_in(Interactions.from_arrays([900], [2], [5]), features=table)
    assert with_ratings.ids.to_pylist() == [900, 901, 902]
    assert not np.allclose(with_ratings.factors[0], folded.factors[0])
    np.testing.assert_array_equal(with_ratings.factors[2], folded.factors[2])


@each_kind
def test_start_patience_and_callbacks(kind: Any) -> None:
    train, held_out = fastmf.split.random(ratings(), test_fraction=0.2, seed=1)
    seen: list[float] = []

    def watch(model: Any, record: Any) -> None:
        seen.append(float(np.abs(model.item_factors[place(model, N_ITEMS)]).sum()))

    model = kind(n_factors=4, n_epochs=12, patience=2)
    both = {"item_features": items(), "user_features": users()}
    model.fit(train, validation=held_out, callbacks=[watch], **both)
    assert all(seen)
    best = model.best_epoch
    again = kind(n_factors=4, n_epochs=best).fit(train, **both)
    require_equal(model, again)  # also the maps are those of the best epoch
    on = kind(n_factors=4, n_epochs=1).fit(train, start=again, **both)
    assert on.item_factors[place(on, N_ITEMS)].any()


def test_stored_zeros_are_no_ratings() -> None:
    """An item whose ratings are all 0 is what its features say."""
    given = ratings()
    zeros = Interactions.from_arrays([0, 1], [N_ITEMS, N_ITEMS], [0, 0])
    together = Interactions.from_arrow(
        pa.concat_tables([part.to_arrow().select(["user_id", "item_id", "rating"]) for part in (given, zeros)])
    )
    require_equal(fit(ImplicitALS, together), fit(ImplicitALS, given))


@each_kind
def test_features_as_arrow_tables(kind: Any) -> None:
    model = kind(n_factors=4, n_epochs=2).fit(ratings(), item_features=item_table(), user_features=user_table())
    require_equal(model, fit(kind, n_epochs=2))


def test_features_as_pandas_tables() -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    tables = {"item_features": item_table().to_pandas(), "user_features": user_table().to_pandas()}
    require_equal(ALS(n_factors=4, n_epochs=2).fit(ratings(), **tables), fit(ALS, n_epochs=2))


@each_kind
def test_features_without_news(kind: Any) -> None:
    """A column that is constant, and an id without any feature, do no harm."""
    model = fit(kind)
    assert all(np.isfinite(getattr(model, part)).all() for part in PARTS)
    assert not means(model, "item")[place(model, 3)].any()
    assert model.item_factors[place(model, 3)].any()
    alone = Features.from_arrow(pa.table({"item_id": range(50), "format": [7.0] * 50}))
    model = kind(n_factors=4, n_epochs=2).fit(ratings(), item_features=alone)
    assert np.isfinite(model.item_factors).all()
    np.testing.assert_array_equal(model.item_factors[45], model.item_factors[49])


@pytest.mark.parametrize(
    "column",
    [
        np.where(np.arange(N_ITEMS) < 3, 3.4e38, -3.4e38),
        np.arange(N_ITEMS) * 1e-40,
    ],
)
def test_numeric_features_at_the_ends_of_float32(column: Any) -> None:
    """Neither the differences from the mean nor the unit of a column need be float32 numbers."""
    table = pa.table({"item_id": range(N_ITEMS), "size": column.astype(np.float32)})
    model = ALS(n_factors=4, n_epochs=2).fit(ratings(), item_features=table)
    assert np.isfinite(model.item_factors).all()


def test_new_values_far_from_those_of_the_fit() -> None:
    table = pa.table({"item_id": range(N_ITEMS), "size": np.arange(N_ITEMS) * 1e-6})
    model = ALS(n_factors=4, n_epochs=2).fit(ratings(), item_features=table)
    new = pa.table({"item_id": [500, 501], "size": [3e38, -3e38]})
    factors = model.fold_in(None, "item", features=new).factors
    assert np.isfinite(factors).all()
    assert factors.any(axis=1).all()


@each_kind
def test_a_saved_model_answers_alike(kind: Any, tmp_path: Path) -> None:
    model = fit(kind)
    model.save(tmp_path / "model")
    loaded = fastmf.load(tmp_path / "model")
    require_equal(loaded, model)
    table = pa.table({"user_id": [900], "age": ["a1"]})
    np.testing.assert_array_equal(
        loaded.fold_in(None, features=table).factors, model.fold_in(None, features=table).factors
    )
    more = Interactions.from_arrays([0], [N_ITEMS], [5])
    require_equal(loaded.partial_fit(more), model.partial_fit(more))


def test_errors() -> None:
    with pytest.raises(ParameterError, match="SGD does not learn from item_features; expected ALS or ImplicitALS"):
        SGD().fit(ratings(), item_features=items())
    with pytest.raises(DataError, match="item_features"):
        ALS().fit(ratings(), item_features=pa.table({"item_id": ["a"], "genre": ["b"]}))
    with pytest.raises(DataError, match="none of the items with ratings has item_features; expected ids"):
        ALS().fit(ratings(), item_features=pa.table({"item_id": [1000], "genre": ["b"]}))
    with pytest.raises(DataError, match="expected ids of the ratings, such as 0, and got such as -5"):
        ALS().fit(ratings(), item_features=pa.table({"item_id": [-5], "genre": ["b"]}))
    with pytest.raises(DataError, match="expected ids of the ratings, such as 0, and got none"):
        ALS().fit(ratings(), item_features=items().take([]))
    with pytest.raises(ParameterError, match=r"item_feature_regularization is 0; expected"):
        ALS(item_feature_regularization=0)
    with pytest.raises(ParameterError, match="item_features is a int; expected Features"):
        ALS().fit(ratings(), item_features=3)
    plain_model = ALS(n_factors=2, n_epochs=1).fit(ratings())
    with pytest.raises(ParameterError, match="the model was trained without user_features"):
        plain_model.recommend_for(None, k=1, features=users())
    with pytest.raises(ParameterError, match="expected"):
        plain_model.fold_in(None)
