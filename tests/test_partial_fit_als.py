"""More ratings for a fitted ALS or ImplicitALS: which rows are solved again, from what, and what the record says."""

import dataclasses
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastmf
from fastmf import ALS, ImplicitALS, Interactions, testing
from fastmf.answering.rows import merged_ratings
from fastmf.errors import DataError, NotFittedError, ParameterError, QualityWarning
from fastmf.measuring.baseline import baseline_of
from fastmf.models import advice
from fastmf_kernels.layout.arrays import CSR

KINDS = (ALS, ImplicitALS)
each_kind = pytest.mark.parametrize("kind", KINDS)
NAMES = ("user_factors", "item_factors", "user_biases", "item_biases")


def old_ratings(n: int = 900) -> Interactions:
    return testing.power_law(80, 50, n, n_factors=3, seed=0)


def new_ratings() -> Interactions:
    """Ratings of two known users and a new one, on known items and a new one; one pair was rated before."""
    old = old_ratings()
    first = int(np.flatnonzero(old.users == 7)[0])
    again = old.item_ids[int(old.items[first])].as_py()
    other = next(item for item in old.item_ids.to_pylist() if item not in rated(old, 7))
    users = [*ids(old.user_ids, [7, 7, 11, 11]), 5000, 5000, 5000]
    items = [again, other, *ids(old.item_ids, [3]), 7000, other, 7000, *ids(old.item_ids, [20])]
    return Interactions.from_arrays(users, items, [1, 5, 2, 4, 5, 3, 1], duplicates="last")


def ids(vocabulary: pa.Array, places: list[int]) -> list[Any]:
    return list(vocabulary.take(pa.array(places)).to_pylist())


def rated(ratings: Interactions, user: int) -> list[Any]:
    return ids(ratings.item_ids, ratings.items[ratings.users == user].tolist())


def fit(kind: Any, ratings: Interactions | None = None, **params: Any) -> Any:
    return kind(**{"n_factors": 4, "n_epochs": 4, **params}).fit(old_ratings() if ratings is None else ratings)


def together(*parts: Interactions) -> Interactions:
    """All ratings; of a pair that is rated twice, the last."""
    tables = [part.to_arrow().select(["user_id", "item_id", "rating"]) for part in parts]
    return Interactions.from_arrow(pa.concat_tables(tables), duplicates="last")


def table_of(model: Any) -> dict[Any, float]:
    """The ratings that a model keeps, by pairs of outside ids."""
    fitted = model.fitted
    users = np.repeat(fitted.user_ids.to_numpy(), np.diff(fitted.seen.indptr))
    items = fitted.item_ids.to_numpy()[fitted.seen.indices]
    return dict(zip(zip(users.tolist(), items.tolist(), strict=True), np.asarray(fitted.values).tolist(), strict=True))


def rows_by_id(model: Any, side: str) -> dict[Any, tuple[bytes, bytes]]:
    found = getattr(model, f"{side}_ids").to_pylist()
    factors, biases = getattr(model, f"{side}_factors"), getattr(model, f"{side}_biases")
    return {id_: (factors[place].tobytes(), biases[place].tobytes()) for place, id_ in enumerate(found)}


@each_kind
def test_the_model_keeps_the_ratings_of_both(kind: Any) -> None:
    old, new = old_ratings(), new_ratings()

    model = fit(kind).partial_fit(new)

    expected = together(old, new)
    assert table_of(model) == table_of(fit(kind, expected, n_epochs=1))
    assert model.user_ids.equals(expected.user_ids)
    assert model.item_ids.equals(expected.item_ids)
    assert model.fitted.data["n_ratings"] == expected.n_ratings < old.n_ratings + new.n_ratings
    assert model.fitted.data["mean"] == pytest.approx(float(expected.ratings.mean(dtype=np.float64)))
    model.recommend(k=5)  # indices are those of the new id space


@each_kind
def test_rows_without_new_ratings_stay_bit_for_bit(kind: Any) -> None:
    model, new = fit(kind), new_ratings()
    before = {side: rows_by_id(model, side) for side in ("user", "item")}

    model.partial_fit(new)

    for side, touched in (("user", new.user_ids), ("item", new.item_ids)):
        after, is_touched = rows_by_id(model, side), set(touched.to_pylist())
        assert {id_ for id_, row in before[side].items() if after[id_] != row} == is_touched & set(before[side])
        assert set(after) == set(before[side]) | is_touched
        assert len(is_touched & set(before[side])) >= 2


@each_kind
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_users_with_new_ratings_are_solved_last(kind: Any, backend: str) -> None:
    model, new = fit(kind, backend=backend).partial_fit(new_ratings()), new_ratings()

    everything = together(old_ratings(), new)
    folded = model.fold_in(everything)

    for id_ in new.user_ids.to_pylist():
        place = model.user_ids.to_pylist().index(id_)
        np.testing.assert_allclose(folded.factors[place], model.user_factors[place], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(folded.biases[place], model.user_biases[place], rtol=1e-5, atol=1e-6)
        assert model.user_factors[place].any()


@each_kind
def test_the_backends_agree(kind: Any) -> None:
    models = [fit(kind, backend=backend, n_epochs=2).partial_fit(new_ratings()) for backend in ("cpu", "reference")]

    for name in NAMES:
        np.testing.assert_allclose(*(getattr(model, name) for model in models), rtol=1e-3, atol=1e-4)


@each_kind
def test_the_number_of_threads_changes_nothing(kind: Any) -> None:
    found = [fit(kind, n_threads=n).partial_fit(new_ratings()) for n in (1, 3)]

    for name in NAMES:
        np.testing.assert_array_equal(*(getattr(model, name) for model in found))


@pytest.mark.parametrize(("kind", "values"), [(ALS, "stars"), (ImplicitALS, "stars"), (ImplicitALS, "ones")])
def test_old_ratings_of_an_item_count_beside_the_new_one(kind: Any, values: str) -> None:
    old = old_ratings()
    if values == "ones":
        old = old.with_rows(old.users, old.items, np.broadcast_to(np.float32(1), old.ratings.shape), None)
    item = int(np.argmax(np.bincount(old.items)))
    newcomer = Interactions.from_arrays([5000], ids(old.item_ids, [item]), [5.0 if values == "stars" else 1.0])
    model = fit(kind, old)
    before = model.item_factors[item].copy()

    model.partial_fit(newcomer)

    # One of some 50 ratings moves an item a little; alone it would move it far.
    move = np.linalg.norm(model.item_factors[item] - before) / np.linalg.norm(before)
    assert 0 < move < 0.5


@each_kind
def test_users_and_items_without_ratings_stay_without_a_row(kind: Any) -> None:
    whole = old_ratings()
    old = whole.take((whole.users < 70) & (whole.items < 45))
    more = whole.take(((whole.users == 72) | (whole.users == 3)) & (whole.items < 47))
    model = fit(kind, old).partial_fit(more)

    assert model.user_ids.equals(whole.user_ids)
    assert table_of(model) == {
        pair: rating
        for part in (old, more)
        for pair, rating in zip(
            zip(ids(part.user_ids, part.users.tolist()), ids(part.item_ids, part.items.tolist()), strict=True),
            part.ratings.tolist(),
            strict=True,
        )
    }
    is_warm = ~model.fitted.counts.is_cold_user
    assert is_warm[72]
    assert model.user_factors[72].any()
    assert not model.user_factors[~is_warm].any()
    assert not model.item_factors[47:].any()
    small = fit(kind, Interactions.from_arrow(old.to_arrow())).partial_fit(Interactions.from_arrow(more.to_arrow()))
    np.testing.assert_array_equal(small.user_factors, model.user_factors[is_warm])


@each_kind
def test_the_record_says_what_was_refitted_and_how_far_it_moved(kind: Any) -> None:
    model, new, told = fit(kind), new_ratings(), []
    old_ids = set(model.user_ids.to_pylist()), set(model.item_ids.to_pylist())
    known = np.isin(model.user_ids.to_numpy(), new.user_ids.to_numpy())
    before = model.user_factors[known].astype(np.float64)

    model.partial_fit(new, validation=new, callbacks=[lambda *given: told.append(given)])

    (record,) = model.history
    after = model.user_factors[np.isin(model.user_ids.to_numpy(), [*ids(old_ratings().user_ids, [7, 11])])]
    assert (record["epoch"], record["partial"]) == (1, True)
    assert (record["n_users_refitted"], record["n_items_refitted"]) == (new.n_users, new.n_items)
    assert record["n_new_users"] == len(set(new.user_ids.to_pylist()) - old_ids[0]) == 1
    assert record["n_new_items"] == len(set(new.item_ids.to_pylist()) - old_ids[1]) == 1
    assert record["user_drift"] == pytest.approx(np.linalg.norm(after - before) / np.linalg.norm(before), rel=1e-5)
    assert record["item_drift"] > 0
    assert record["prediction_drift"] > 0
    assert record["rmse_after"] < record["rmse_before"]
    assert record["share_since_fit"] == new.n_ratings / model.fitted.data["n_ratings"]
    name = "validation_ndcg@10" if kind is ImplicitALS else "validation_rmse"
    metric = name.removeprefix("validation_")
    assert record[name] == fastmf.evaluate(model, new, k=10, metrics=[metric.partition("@")[0]])[metric]
    assert told == [(model, record)]


@each_kind
def test_what_has_come_since_the_fit_adds_up_until_the_next(kind: Any, tmp_path: Path) -> None:
    model, new = fit(kind), new_ratings()
    assert "n_ratings_since_fit" not in model.fitted.data

    model.partial_fit(new).save(tmp_path / "model")
    again = fastmf.load(tmp_path / "model").partial_fit(new)

    assert again.fitted.data["n_ratings_since_fit"] == 2 * new.n_ratings
    assert again.history[0]["share_since_fit"] == 2 * new.n_ratings / again.fitted.data["n_ratings"]
    assert "n_ratings_since_fit" not in again.fit(old_ratings()).fitted.data


@each_kind
def test_a_stored_model_goes_on_like_the_one_in_memory(kind: Any, tmp_path: Path) -> None:
    model = fit(kind)
    model.save(tmp_path / "model")
    before = (tmp_path / "model" / "user_factors.npy").read_bytes()

    loaded = fastmf.load(tmp_path / "model").partial_fit(new_ratings())

    model.partial_fit(new_ratings())
    for name in NAMES:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(model, name))
    assert (tmp_path / "model" / "user_factors.npy").read_bytes() == before


def test_a_warning_says_when_a_fit_is_due() -> None:
    whole = testing.power_law(100, 80, 3000, n_factors=3, seed=0)
    cut = np.arange(whole.n_ratings)
    model = fit(ALS, whole.take(cut < 2200))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.partial_fit(whole.take((cut >= 2200) & (cut < 2700)))
    with pytest.warns(QualityWarning, match=r"50% of the ratings have come since the last fit.*call fit"):
        model.partial_fit(whole.take(cut >= 2000))
    with warnings.catch_warnings(), advice.silent():
        warnings.simplefilter("error")
        model.partial_fit(whole.take(cut >= 2700))


def test_the_baseline_of_ratings_is_gone_and_popularity_counts_all() -> None:
    assert baseline_of(fit(ALS)) is not None
    assert baseline_of(fit(ALS).partial_fit(new_ratings())) is None
    model = fit(ImplicitALS).partial_fit(new_ratings())

    whole = fit(ImplicitALS, together(old_ratings(), new_ratings()), n_epochs=1)
    np.testing.assert_array_equal(model.fitted.state["item_baseline"], whole.fitted.state["item_baseline"])


@each_kind
def test_what_the_fit_has_chosen_and_measured_in_stays(kind: Any) -> None:
    model = fit(kind)
    chosen, deviation, mean = model.chosen, model.fitted.data["deviation"], model.global_mean
    assert chosen

    model.partial_fit(new_ratings())

    assert (model.chosen, model.fitted.data["deviation"], model.global_mean) == (chosen, deviation, mean)


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        (ALS(), {"n_factors": 9}, "n_factors is 9 but the model was trained with 4"),
        (ALS(), {"regularization": 0.5}, "regularization is 0.5 but the model was trained with"),
        (ALS(), {"biases": False}, "biases is False but the model was trained with True"),
        (ALS(), {"regularization_scaling": "root"}, "regularization_scaling is 'root' but .* 'none'"),
        (ImplicitALS(), {"alpha": 3.0}, "alpha is 3.0 but the model was trained with None"),
        (ImplicitALS(unobserved_weight=0.1), {"unobserved_weight": "auto"}, "unobserved_weight is 'auto' but .* 0.1"),
    ],
)
def test_another_objective_is_refused(model: Any, change: dict[str, Any], message: str) -> None:
    fitted = type(model)(**{**model.get_params(), "n_factors": 4, "n_epochs": 2}).fit(old_ratings())
    before = fitted.fitted

    with pytest.raises(ParameterError, match=f"{message}.*; set it back, or call fit"):
        fitted.set_params(**change).partial_fit(new_ratings())
    assert fitted.fitted is before


@each_kind
def test_parameters_that_say_how_to_train_may_change(kind: Any) -> None:
    expected = fit(kind).partial_fit(new_ratings())
    changed = fit(kind).set_params(n_epochs=9, solver="cg", init_scale=7.0, patience=3, seed=5)

    changed.partial_fit(new_ratings())

    for name in NAMES:
        np.testing.assert_array_equal(getattr(changed, name), getattr(expected, name))
    assert changed.best_epoch is None


@each_kind
def test_ratings_that_cannot_be_joined_are_refused(kind: Any) -> None:
    with pytest.raises(NotFittedError):
        kind().partial_fit(new_ratings())
    model = fit(kind)
    before = model.fitted
    with pytest.raises(DataError, match="user_ids of the new ratings are"):
        model.partial_fit(Interactions.from_arrays(["eve"], [1], [5]))
    with pytest.raises(DataError, match="there are no ratings to train on"):
        model.partial_fit(new_ratings().take(np.zeros(0, np.int64)))
    assert model.fitted is before
    model.restore(dataclasses.replace(model.fitted, values=None), model.history)
    with pytest.raises(DataError, match=r"saved without its training ratings.*call fit with all ratings"):
        model.partial_fit(new_ratings())


@each_kind
def test_a_callback_that_fails_leaves_the_model_as_it_was(kind: Any) -> None:
    model = fit(kind)
    before, history = model.fitted, model.history

    def fail(*_: Any) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        model.partial_fit(new_ratings(), callbacks=[fail])
    assert (model.fitted, model.history) == (before, history)
    assert model.user_factors.shape[0] == 80


def test_a_refit_does_not_take_the_one_epoch_of_a_partial_fit() -> None:
    train, test = fastmf.split.random(old_ratings(), test_fraction=0.2, seed=0)
    model = ALS(n_factors=4, n_epochs=6).fit(train).partial_fit(new_ratings(), validation=test)

    assert fastmf.refit(model, old_ratings()).n_epochs == 6


@each_kind
def test_newcomers_are_known_better_than_by_the_mean(kind: Any) -> None:
    """A partial fit is as good for new users as a fit to all ratings, within some percent."""
    whole = testing.power_law(300, 60, 7000, n_factors=3, seed=0)
    train, test = fastmf.split.random(whole, test_fraction=0.2, seed=0)
    old, more = train.take(train.users < 270), train.take(train.users >= 270)
    of_newcomers = test.take(test.users >= 270)
    metric = "rmse" if kind is ALS else "auc"

    with advice.silent():
        partial = fit(kind, old, n_epochs=8).partial_fit(more)
        full = fit(kind, train, n_epochs=8)

    figures = [fastmf.evaluate(model, of_newcomers, metrics=[metric])[metric] for model in (partial, full)]
    assert figures[0] == pytest.approx(figures[1], rel=0.05)


def test_merging_is_what_a_dictionary_says() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        dense = [np.where(rng.random((5, 7)) < share, rng.integers(1, 9, (5, 7)), 0) for share in (0.4, 0.3)]
        rows = []
        for part in dense:
            row, column = np.nonzero(part)
            indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=5))])
            rows.append(CSR(indptr, column.astype(np.int32), part[row, column].astype(np.float32)))

        merged = merged_ratings(*rows, 7)

        expected = np.where(dense[1] != 0, dense[1], dense[0])
        row, column = np.nonzero(expected)
        np.testing.assert_array_equal(np.repeat(np.arange(5), np.diff(merged.indptr)), row)
        np.testing.assert_array_equal(merged.indices, column)
        np.testing.assert_array_equal(merged.values, expected[row, column])
        assert (merged.indices.dtype, merged.values.dtype) == (np.int32, np.float32)


@pytest.mark.slow
@each_kind
def test_threads_get_answers_of_before_or_after(kind: Any) -> None:
    people = Interactions.from_arrays([9000, 9000], ids(old_ratings().item_ids, [3, 9]), [5, 1])
    first = fit(kind).fitted
    model = kind(n_factors=4, n_epochs=4)
    model.restore(first, [])

    def answer(model: Any) -> bytes:
        return bytes(model.recommend_for(people, k=5).scores.tobytes())

    before = answer(model)
    after = answer(fit(kind).partial_fit(new_ratings()))
    assert before != after
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(answer, model) for _ in range(150)]
        for _ in range(10):
            model.restore(first, [])
            model.partial_fit(new_ratings())
        assert {future.result() for future in asked} <= {before, after}


@pytest.mark.parametrize("kind", [ALS, ImplicitALS])
def test_rows_keep_what_their_features_say(kind: Any) -> None:
    ratings, numbers = testing.low_rank(n_users=60, n_items=30, density=0.3, seed=0), np.arange(35)
    films = pa.table({"item_id": numbers, "year": 1950 + numbers**2 % 50, "genre": [f"g{n % 4}" for n in numbers]})
    people = pa.table({"user_id": np.arange(64), "age": 10 + np.arange(64) ** 2 % 70})
    model = kind(n_factors=4, n_epochs=4).fit(ratings, item_features=films, user_features=people)
    before = dict(zip(model.item_ids.to_pylist(), model.item_factors.copy(), strict=True))
    more = Interactions.from_arrays([3, 60, 99, 5], [31, 2, 2, 77], [4, 3, 2, 5])
    model.partial_fit(more)
    after = dict(zip(model.item_ids.to_pylist(), model.item_factors, strict=True))
    np.testing.assert_array_equal(after[34], before[34])  # features alone
    assert after[34].any()
    assert (after[31] != before[31]).any()  # features, and the first rating
    of_users = dict(zip(model.user_ids.to_pylist(), model.user_factors, strict=True))
    of_60 = model.fold_in(Interactions.from_arrays([60], [2], [3])).factors[0]
    np.testing.assert_array_equal(of_60, of_users[60])
    assert int(model.fitted.features["item"].are_described.sum()) == 35
    assert 34 in model.recommend([3], k=len(model.item_ids), cold="include").to_arrow()["item_id"].to_pylist()
