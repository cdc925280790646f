"""Explanations: terms that add up to the prediction, of ratings that really carry it."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastmf
from fastmf import ALS, BPR, SGD, Bias, ImplicitALS, Interactions, Popularity, SVDpp, testing
from fastmf.answering.explanation import Explanation, Term
from fastmf.errors import DataError, ModelError, NotFittedError, ParameterError, UnknownIdError
from fastmf_kernels.topk.arrays import Rows

TRAIN = testing.power_law(60, 40, 700, n_factors=3, seed=0)
SIZE = {"n_factors": 6, "n_epochs": 3}
SOLVED = {
    "als": ALS(regularization=0.05, **SIZE),
    "als without biases": ALS(biases=False, regularization=0.05, **SIZE),
    "als by root": ALS(regularization_scaling="root", regularization=0.3, **SIZE),
    "als by count": ALS(regularization_scaling="count", bias_regularization=0.2, regularization=0.02, **SIZE),
    "als unregularised": ALS(n_factors=30, n_epochs=2, regularization=0),
    "als nonnegative": ALS(nonnegative=True, regularization=0.05, **SIZE),
    "implicit als": ImplicitALS(**SIZE),
    "implicit als by size": ImplicitALS(alpha=2.0, regularization_exponent=0.5, **SIZE),
    "implicit als of hu": ImplicitALS(weighting="hu", alpha=3.0, **SIZE),
    "implicit als nonnegative": ImplicitALS(nonnegative=True, **SIZE),
}
"""Models whose user factors solve an equation: nothing remains."""
OTHERS = {
    "als by cg": ALS(solver="cg", cg_steps=1, regularization=0.05, n_factors=6, n_epochs=1),
    "als by blocks": ALS(solver="subspace", block_size=16, regularization=0.05, n_factors=20, n_epochs=1),
    "implicit als by cg": ImplicitALS(solver="cg", cg_steps=1, n_factors=6, n_epochs=1),
    "sgd": SGD(regularization=0.01, **SIZE),
    "sgd in a range": SGD(regularization=0.01, rating_range=(0, 6), **SIZE),
    "sgd of one step size": SGD(regularization=0.01, adaptive=False, learning_rate=0.05, biases=False, **SIZE),
    "logistic sgd": SGD(loss="logistic", **SIZE),
    "svd++": SVDpp(regularization=0.01, **SIZE),
    "svd++ in a range": SVDpp(regularization=0.01, rating_range=(0, 6), **SIZE),
    "bpr": BPR(**SIZE),
    "bias": Bias(),
    "popularity": Popularity(),
}
ALL = SOLVED | OTHERS
each_model = pytest.mark.parametrize("name", ALL)


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    return {}


@pytest.fixture
def model(name: str, fitted: dict[str, Any]) -> Any:
    if name not in fitted:
        kind, params = type(ALL[name]), ALL[name].get_params()
        fitted[name] = kind(**params).fit(TRAIN)
    return fitted[name]


def total(explanation: Explanation) -> float:
    return sum(term.contribution for term in explanation.terms)


def of_kind(explanation: Explanation, kind: str) -> float:
    return sum(term.contribution for term in explanation.terms if term.kind == kind)


def through(model: Any, score: float) -> float:
    link = model.fitted.link
    return score if link.span == 0 else float(link.low + link.span / (1 + np.exp(-score)))


def check_pairs(model: Any, n_pairs: int) -> None:
    rng = np.random.default_rng(1)
    users, items = rng.integers(0, 60, n_pairs), rng.integers(0, 40, n_pairs)
    predictions = model.predict(TRAIN.user_ids.take(pa.array(users)), TRAIN.item_ids.take(pa.array(items)))
    seen, values = model.fitted.seen, model.fitted.values
    for user, item, expected in zip(users.tolist(), items.tolist(), predictions.tolist(), strict=True):
        found = model.explain(TRAIN.user_ids[user], TRAIN.item_ids[item])
        assert (found.user_id, found.item_id) == (TRAIN.user_ids[user].as_py(), TRAIN.item_ids[item].as_py())
        assert abs(total(found) - found.score) < 1e-9
        assert abs(through(model, total(found)) - expected) < 1e-4
        assert abs(found.prediction - expected) < 1e-4
        assert of_kind(found, "user bias") == model.user_biases[user]
        assert of_kind(found, "item bias") == model.item_biases[item]
        if model.user_factors.shape[1]:
            row = slice(seen.indptr[user], seen.indptr[user + 1])
            rated = dict(zip(TRAIN.item_ids.take(pa.array(seen.indices[row])).to_pylist(), values[row], strict=True))
            assert {term.item_id: term.rating for term in found.ratings} == rated
            sizes = [abs(term.contribution) for term in found.ratings]
            assert sizes == sorted(sizes, reverse=True)


@each_model
def test_terms_add_up_to_the_prediction(name: str, model: Any) -> None:
    check_pairs(model, 25)


@pytest.mark.slow
@each_model
def test_terms_add_up_on_a_thousand_pairs(name: str, model: Any) -> None:
    check_pairs(model, 1000)


@pytest.mark.parametrize("name", SOLVED)
def test_nothing_remains_where_factors_solve_an_equation(name: str, model: Any) -> None:
    for user in TRAIN.user_ids[:20]:
        found = model.explain(user, TRAIN.item_ids[3])
        assert abs(found.remainder) < 2e-5 * max(1, sum(abs(term.contribution) for term in found.terms))


@pytest.mark.parametrize("name", ["als by cg", "als by blocks", "implicit als by cg", "sgd", "bpr"])
def test_what_ratings_do_not_explain_is_shown(name: str, model: Any) -> None:
    remainders = [model.explain(user, TRAIN.item_ids[3]).remainder for user in TRAIN.user_ids[:20]]

    assert max(map(abs, remainders)) > 1e-6


@pytest.mark.parametrize("name", [*SOLVED, "als by cg", "sgd", "sgd in a range", "logistic sgd", "svd++", "bpr"])
def test_a_newcomer_is_explained_by_the_ratings_that_were_brought(name: str, model: Any) -> None:
    """Without a remainder: factors of newcomers are made of nothing else."""
    rated = TRAIN.item_ids.take(pa.array([1, 5, 9, 30]))
    history = Interactions.from_arrays([*[5001] * 4, 5002], [*rated.to_pylist(), 10**6], [5, 1, 4, 3, 2])

    for item in range(0, 40, 3):
        found = model.explain(5001, TRAIN.item_ids[item], interactions=history)

        folded = model.fold_in(history)
        product = float(folded.factors[0] @ model.item_factors[item])
        expected = model.global_mean + folded.biases[0] + model.item_biases[item] + product
        assert abs(found.prediction - through(model, float(expected))) < 1e-4
        assert {term.item_id for term in found.ratings} == set(rated.to_pylist())
        assert abs(found.remainder) < 1e-4
        assert of_kind(found, "user bias") == folded.biases[0]
    assert model.explain(5002, TRAIN.item_ids[0], interactions=history).ratings == ()


def test_the_training_ratings_of_a_known_user_count_beside_new_ones() -> None:
    model, user = ALS(regularization=0.05, **SIZE).fit(TRAIN), TRAIN.user_ids[4].as_py()
    before = {term.item_id: term.rating for term in model.explain(user, TRAIN.item_ids[0]).ratings}
    changed, new = next(iter(before)), next(i for i in TRAIN.item_ids.to_pylist() if i not in before)
    more = Interactions.from_arrays([user, user], [changed, new], [1.25, 4.75])

    found = model.explain(user, TRAIN.item_ids[0], interactions=more)

    assert {term.item_id: term.rating for term in found.ratings} == before | {changed: 1.25, new: 4.75}
    assert abs(found.remainder) < 1e-5


def test_a_newcomer_to_a_model_of_biases_has_constants_alone() -> None:
    model, history = Bias().fit(TRAIN), Interactions.from_arrays([5001], TRAIN.item_ids[:1], [5])

    found = model.explain(5001, TRAIN.item_ids[1], interactions=history)

    assert {term.kind for term in found.terms} == {"mean", "user bias", "item bias"}
    assert of_kind(found, "user bias") == model.fold_in(history).biases[0] > 0


PLANTED = {
    **{name: SOLVED[name] for name in ("als", "implicit als", "implicit als of hu", "implicit als nonnegative")},
    "als without biases": SOLVED["als without biases"],
    "sgd": SGD(n_factors=8, n_epochs=60, regularization=0.002, learning_rate=0.3),
    "logistic sgd": SGD(n_factors=8, n_epochs=40, loss="logistic"),
    "svd++": SVDpp(n_factors=8, n_epochs=60, regularization=0.02, learning_rate=0.03),
    "bpr": BPR(n_factors=8, n_epochs=40),
}


@pytest.mark.parametrize("name", PLANTED)
def test_the_rating_of_the_same_group_carries_the_score(name: str) -> None:
    """Items come in four groups, and every user likes one of them; user 0 has rated an item of two groups each."""
    rng, model = np.random.default_rng(3), type(PLANTED[name])(**PLANTED[name].get_params())
    likes = rng.integers(4, size=200)[:, None] == np.arange(40) % 4
    if model.is_implicit:
        is_rated, values = likes & (rng.random((200, 40)) < 0.8), np.ones((200, 40))
    else:
        is_rated, values = rng.random((200, 40)) < 0.6, np.where(likes, 5.0, 1.0)
    is_rated[0] = False
    is_rated[0, [0, 1]] = True
    values[0, [0, 1]] = 5.0 if model.is_implicit else (5.0, 3.0)
    users, items = np.nonzero(is_rated)
    model.fit(Interactions.from_arrays(users, items, values[is_rated]))

    for item in (4, 8):
        first, second = model.explain(0, item).ratings
        assert first.item_id == 0
        assert first.contribution > 2 * abs(second.contribution)


@pytest.mark.parametrize("name", ["als", "implicit als", "sgd", "svd++", "logistic sgd", "bpr"])
def test_explanations_do_not_depend_on_threads(name: str, model: Any) -> None:
    found = {}
    for n_threads in (1, 2):
        again = type(model)(**model.get_params()).set_params(n_threads=n_threads).fit(TRAIN)
        found[n_threads] = again.explain(TRAIN.user_ids[0], TRAIN.item_ids[1]).to_arrow()

    assert found[1].equals(found[2])


@pytest.mark.parametrize("name", ["als", "implicit als of hu"])
def test_the_reference_explains_alike(name: str, model: Any) -> None:
    other = type(model)(**model.get_params()).set_params(backend="reference").fit(TRAIN)

    found, expected = (m.explain(TRAIN.user_ids[2], TRAIN.item_ids[7]) for m in (model, other))

    for mine, theirs in zip(sorted(found.terms), sorted(expected.terms), strict=True):
        assert mine[:3] == theirs[:3]
        assert abs(mine.contribution - theirs.contribution) < 1e-4


def test_parameters_set_after_the_fit_do_not_matter() -> None:
    model = ImplicitALS(**SIZE).fit(TRAIN)
    before = model.explain(TRAIN.user_ids[0], TRAIN.item_ids[1]).to_arrow()

    model.set_params(regularization=7.0, alpha=5.0, solver="cg", n_factors=11)

    assert model.explain(TRAIN.user_ids[0], TRAIN.item_ids[1]).to_arrow().equals(before)


def test_users_left_as_they_were_have_a_remainder() -> None:
    model = ALS(regularization=0.05, **SIZE).fit(TRAIN)
    more = Interactions.from_arrays([TRAIN.user_ids[0].as_py()] * 2, TRAIN.item_ids[:2], [1, 5])
    model.partial_fit(more)

    of_the_changed, *others = (model.explain(user, TRAIN.item_ids[1]).remainder for user in TRAIN.user_ids)

    assert abs(of_the_changed) < 1e-5
    assert max(map(abs, others)) > 1e-4


def test_ratings_of_0_carry_nothing_in_implicit_models() -> None:
    values = TRAIN.ratings.copy()
    values[::3] = 0
    model = ImplicitALS(**SIZE).fit(TRAIN.with_rows(TRAIN.users, TRAIN.items, values, None))

    terms = [term for user in TRAIN.user_ids for term in model.explain(user, TRAIN.item_ids[2]).ratings]

    assert {term.contribution for term in terms if term.rating == 0} == {0.0}
    assert len(terms) == TRAIN.n_ratings


def test_ids_without_training_ratings_have_constants_alone() -> None:
    train = TRAIN.take(np.flatnonzero((TRAIN.users != 3) & (TRAIN.items != 5)))
    model = ALS(regularization=0.05, **SIZE).fit(train)

    of_user = model.explain(TRAIN.user_ids[3], TRAIN.item_ids[0])
    of_item = model.explain(TRAIN.user_ids[0], TRAIN.item_ids[5])

    assert {term.kind for term in of_user.terms} == {"mean", "item bias"}
    assert {term.contribution for term in of_item.ratings} == {0.0}
    assert of_item.remainder == 0
    assert of_item.score == pytest.approx(model.global_mean + model.user_biases[0])


def test_names_as_ids() -> None:
    model = ImplicitALS(n_factors=2, n_epochs=2).fit(
        Interactions.from_arrays(["ann", "ann", "bob"], ["x", "y", "y"], [1, 2, 1])
    )

    table = model.explain("ann", "x").to_arrow()

    assert table.schema == pa.schema(
        {"kind": pa.string(), "item_id": pa.string(), "rating": pa.float32(), "contribution": pa.float64()}
    )
    assert sorted(table["item_id"].drop_null().to_pylist()) == ["x", "y"]


@pytest.mark.parametrize("name", ["als", "sgd", "bias"])
def test_ids_that_the_model_lacks_are_refused(name: str, model: Any) -> None:
    user, item = TRAIN.user_ids[0].as_py(), TRAIN.item_ids[0].as_py()

    with pytest.raises(UnknownIdError, match="user 4711 is unknown; expected one of the 60 of the model"):
        model.explain(4711, item)
    with pytest.raises(UnknownIdError, match="item 4711 is unknown; expected one of the 40 of the model"):
        model.explain(user, 4711)
    with pytest.raises(UnknownIdError, match="user 4711 is unknown; expected one of the 1 of interactions"):
        model.explain(4711, item, interactions=Interactions.from_arrays([9999], [item], [3]))
    with pytest.raises(ParameterError, match="user has 2 ids; expected one"):
        model.explain([user, user], item)
    with pytest.raises(DataError, match="string"):
        model.explain("ann", item)


def test_a_model_without_its_training_ratings_says_so() -> None:
    model = ALS(**SIZE).fit(TRAIN)
    model.restore(dataclasses.replace(model.fitted, values=None), model.history)
    user, item = TRAIN.user_ids[0], TRAIN.item_ids[0]

    with pytest.raises(ModelError, match="was saved without its training ratings"):
        model.explain(user, item)
    history = Interactions.from_arrays([5001], [item.as_py()], [4])
    assert len(model.explain(5001, item, interactions=history).ratings) == 1
    bias = Bias().fit(TRAIN)
    bias.restore(dataclasses.replace(bias.fitted, values=None), bias.history)
    assert len(bias.explain(user, item).terms) == 3


def test_a_model_that_never_had_ratings_says_so() -> None:
    model = ImplicitALS(**SIZE).fit(TRAIN)
    nothing = Rows(np.zeros(61, np.int64), np.empty(0, np.int32))
    model.restore(dataclasses.replace(model.fitted, seen=nothing, values=None), model.history)

    with pytest.raises(ModelError, match=r"the model has no training ratings.*; give the ratings .* as interactions"):
        model.explain(TRAIN.user_ids[0], TRAIN.item_ids[0])


def test_an_unfitted_model_is_refused() -> None:
    with pytest.raises(NotFittedError):
        ALS().explain(1, 2)


def test_a_loaded_model_explains_as_before(tmp_path: Path) -> None:
    model = SVDpp(**SIZE).fit(TRAIN)
    model.save(tmp_path / "model")

    found = fastmf.load(tmp_path / "model").explain(TRAIN.user_ids[0], TRAIN.item_ids[1])

    assert found.to_arrow().equals(model.explain(TRAIN.user_ids[0], TRAIN.item_ids[1]).to_arrow())


TERMS = (
    Term("mean", None, None, 3.5),
    Term("item bias", None, None, -0.25),
    Term("rating", 7, 5.0, 0.5),
    Term("rating", 8, 1.5, -0.125),
    Term("rating", 9, 3.0, 0.0625),
    Term("remainder", None, None, 1e-8),
)


def test_text_for_people() -> None:
    explanation = Explanation(1, 2, TERMS, 3.6875, 3.6875)

    assert explanation.to_text({2: "Alien", 7: "Aliens"}, k=1) == "\n".join(
        [
            "user 1, item Alien (2): 3.688",
            "  +3.500  mean",
            "  -0.250  bias of the item",
            "  +0.438  past ratings (3)",
            "          +0.500  Aliens (7), rated 5",
            "          -0.062  2 others",
            "  +3.688  score",
        ]
    )
    assert repr(explanation) == ("Explanation(user 1, item 2, 3.688: mean +3.500, item bias -0.250, 3 ratings +0.438)")


def test_text_of_a_score_behind_a_sigmoid_and_of_a_large_remainder() -> None:
    terms = (*TERMS[:1], Term("items not chosen", None, None, -1.5), Term("remainder", None, None, -0.75))
    text = Explanation("ann", "x", terms, 1.25, 0.7773).to_text()

    assert text.splitlines()[2:] == [
        "  -1.500  items that the user has not chosen",
        "  -0.750  remainder, which past ratings do not explain",
        "  +1.250  score, through a sigmoid 0.777",
    ]


def test_features_are_terms_of_their_own() -> None:
    terms = (*TERMS[:3], Term("feature", None, None, -0.75, "genre=Drama"), Term("feature", None, None, 0.25, "year"))
    explanation = Explanation(1, 2, terms, 3.25, 3.25)

    assert explanation.to_text(k=1).splitlines()[3:] == [
        "  +0.500  past ratings (1)",
        "          +0.500  7, rated 5",
        "  -0.500  features (2)",
        "          -0.750  genre=Drama",
        "          +0.250  1 other",
        "  +3.250  score",
    ]
    assert "1 rating +0.500, 2 features -0.500" in repr(explanation)
    assert explanation.to_arrow()["feature"].to_pylist() == [None, None, None, "genre=Drama", "year"]
    assert [term.feature for term in explanation.features] == ["genre=Drama", "year"]


def test_text_without_any_term() -> None:
    explanation = Explanation("ann", "x", (), 0.0, 0.0)

    assert explanation.to_text() == "user ann, item x: 0.00\n  +0.00  score"
    assert repr(explanation) == "Explanation(user 'ann', item 'x', 0.00)"
    assert explanation.to_arrow().num_rows == 0
