"""Recommendations for people who bring their ratings: newcomers, users of the model, and those who say nothing."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf import ALS, ImplicitALS, Interactions, testing
from fastmf.answering import scoring
from fastmf.cli import main
from fastmf.errors import DataError, ModelError, NotFittedError, OutputExistsError, ParameterError
from fastmf.models import MODELS

KINDS = list(MODELS.values())
each_kind = pytest.mark.parametrize("kind", KINDS)
TRAIN = testing.power_law(60, 40, 700, n_factors=3, seed=0)
NEW = 1000
"""Users from this id on are not in the model."""


def fit(kind: Any, **params: Any) -> Any:
    given = {"n_factors": 4, "n_epochs": 2, **params}
    return kind(**{name: value for name, value in given.items() if name in kind().get_params()}).fit(TRAIN)


def item_ids(places: list[int]) -> list[Any]:
    return list(TRAIN.item_ids.take(pa.array(places)).to_pylist())


def asking(seed: int = 1, n: int = 7) -> Interactions:
    """Ratings of people who are not in the model."""
    rng = np.random.default_rng(seed)
    users, items = np.nonzero(rng.random((n, 40)) < 0.2)
    return Interactions.from_arrays(NEW + users, item_ids(items.tolist()), rng.integers(1, 6, len(users)))


def listed(found: fastmf.Recommendations | Any, user: Any) -> list[Any]:
    """Items of a user by their outside ids, best first."""
    row = found.items[found.user_ids.to_pylist().index(user)]
    return list(found.item_ids.take(pa.array(row[row >= 0])).to_pylist())


@each_kind
def test_newcomers_get_what_their_folded_factors_say(kind: Any) -> None:
    model, people = fit(kind), asking()

    found = model.recommend_for(people, k=5)

    folded, terms = model.fold_in(people), model.fitted.factors
    scores = folded.factors @ terms.item_factors.T + terms.item_biases
    scores[people.users, np.searchsorted(TRAIN.item_ids.to_numpy(), people.item_ids.to_numpy())[people.items]] = -np.inf
    assert found.user_ids.equals(people.user_ids)
    assert found.users.tolist() == [-1] * people.n_users
    assert found.unknown_items.to_pylist() == []
    assert (found.n_cold_users, found.n_unknown_ratings) == (0, 0)
    assert not found.by_popularity.any()
    best = np.take_along_axis(scores, found.items, axis=1)
    np.testing.assert_allclose(best, -np.sort(-scores, axis=1)[:, :5], rtol=1e-5, atol=1e-6)
    want = best + (terms.global_mean + folded.biases)[:, None]
    if model.fitted.link.span == 0:
        np.testing.assert_allclose(found.scores, want, rtol=1e-5, atol=1e-5)


@each_kind
def test_a_known_user_is_asked_with_all_his_ratings(kind: Any) -> None:
    """As a newcomer with the same ratings would be: those of training, of which a new one takes the place."""
    model, known = fit(kind), int(TRAIN.user_ids[4].as_py())
    mine = TRAIN.users == 4
    trained = dict(zip(item_ids(TRAIN.items[mine].tolist()), TRAIN.ratings[mine].tolist(), strict=True))
    unseen = [item for item in item_ids(list(range(40))) if item not in trained][:2]
    given = {unseen[0]: 5.0, unseen[1]: 2.0, next(iter(trained)): 1.0}
    assert trained[next(iter(trained))] != 1.0

    found = model.recommend_for(Interactions.from_arrays([known] * 3, list(given), list(given.values())), k=6)

    together = trained | given
    alike = Interactions.from_arrays([NEW] * len(together), list(together), list(together.values()))
    other = model.recommend_for(alike, k=6)
    assert found.users.tolist() == [4]
    np.testing.assert_array_equal(found.items, other.items)
    np.testing.assert_array_equal(found.scores, other.scores)
    assert not set(listed(found, known)) & set(together)


def test_training_ratings_count_where_nothing_new_is_said() -> None:
    model = ALS(n_factors=4, n_epochs=3).fit(TRAIN)

    found, trained = model.recommend_for(TRAIN, k=8), model.recommend(k=8)

    np.testing.assert_array_equal(found.items, trained.items)
    np.testing.assert_array_equal(found.scores, trained.scores)
    np.testing.assert_array_equal(found.users, trained.users)


@each_kind
def test_exclude_none_keeps_what_was_rated(kind: Any) -> None:
    model, people = fit(kind), asking()

    found = model.recommend_for(people, k=40, exclude=None)

    assert (found.items >= 0).all()
    left_out = model.recommend_for(people, k=40)
    n_rated = np.bincount(people.users)
    np.testing.assert_array_equal((left_out.items >= 0).sum(axis=1), 40 - n_rated)
    pair = Interactions.from_arrays([NEW], item_ids([int(found.items[0, 0])]))
    other = model.recommend_for(people, k=40, exclude=pair)
    assert int((other.items[0] >= 0).sum()) == 39
    assert int((other.items[1] >= 0).sum()) == 40


@each_kind
def test_unknown_items_are_counted_and_named(kind: Any) -> None:
    model = fit(kind)
    known = item_ids([3, 9])
    people = Interactions.from_arrays(
        [NEW, NEW, NEW, NEW + 1, NEW + 1, NEW + 2], [known[0], 10**6, 10**6 + 5, known[1], 10**6, 10**6 + 9], [5] * 6
    )

    found = model.recommend_for(people, k=3)

    assert found.unknown_items.to_pylist() == [10**6, 10**6 + 5, 10**6 + 9]
    assert found.n_unknown_ratings == 4
    assert found.n_cold_users == 1
    assert found.items[2].tolist() == [-1, -1, -1]
    assert not found.by_popularity.any()
    without = Interactions.from_arrays([NEW, NEW + 1], known, [5, 5])
    np.testing.assert_array_equal(found.items[:2], model.recommend_for(without, k=3).items)


@each_kind
def test_those_of_whom_nothing_is_known_get_popular_items_on_request(kind: Any) -> None:
    model = fit(kind)
    people = Interactions.from_arrays([NEW, NEW + 1], [item_ids([3])[0], 10**6], [5, 5])

    found = model.recommend_for(people, k=4, cold="popular")

    counts = np.bincount(TRAIN.items, minlength=40)
    assert found.by_popularity.tolist() == [False, True]
    assert found.n_cold_users == 1
    assert found.items[1].tolist() == np.argsort(-counts, kind="stable")[:4].tolist()
    np.testing.assert_allclose(found.scores[1], np.sort(counts)[::-1][:4] / 60, rtol=1e-6)
    assert (found.items[0] >= 0).all()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind().is_implicit])
def test_dislikes_and_zeros_alone_say_nothing_of_what_somebody_likes(kind: Any) -> None:
    model = fit(kind)
    people = Interactions.from_arrays([NEW, NEW, NEW + 1], item_ids([3, 9, 4]), [-1, 0, 2])

    found = model.recommend_for(people, k=4, cold="popular")

    assert found.by_popularity.tolist() == [True, False]
    assert not set(found.items[0].tolist()) & {3, 9}  # also from popular items, what was rated is left out


def test_recommend_says_who_got_popular_items() -> None:
    train, _ = fastmf.split.random(TRAIN, test_fraction=0.2, seed=0)
    cold = train.take(train.users != 5)
    model = ALS(n_factors=4, n_epochs=1).fit(cold)

    assert np.flatnonzero(model.recommend(k=3, cold="popular").by_popularity).tolist() == [5]
    assert not model.recommend(k=3).by_popularity.any()
    assert model.recommend([], k=3).by_popularity.tolist() == []
    assert model.recommend(k=3).unknown_items is None


@each_kind
def test_filters_are_those_of_recommend(kind: Any) -> None:
    model, people = fit(kind), asking()
    some, ids = item_ids([1, 4, 11, 17, 23, 30]), people.user_ids.to_pylist()
    everything = model.recommend_for(people, k=40)

    def kept(user: Any, are_kept: Any) -> list[Any]:
        return [item for item in listed(everything, user) if are_kept(item)]

    allowed = model.recommend_for(people, k=6, allow=some)
    denied = model.recommend_for(people, k=40, deny=some)
    lists = {ids[0]: some[:3], ids[2]: some[3:], 77: some}
    each = model.recommend_for(people, k=6, allow=lists)
    pairs = Interactions.from_arrays([ids[1]] * 3, some[:3])
    of_pairs = model.recommend_for(people, k=40, deny=pairs)
    for user in ids:
        assert listed(allowed, user) == kept(user, lambda item: item in some)
        assert listed(denied, user) == kept(user, lambda item: item not in some)
        assert listed(each, user) == kept(user, lambda item, user=user: item in lists.get(user, []))
        assert listed(of_pairs, user) == kept(user, lambda item, user=user: user != ids[1] or item not in some[:3])


@pytest.mark.parametrize("kind", [ALS, ImplicitALS])
def test_batches_and_threads_change_nothing(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fit(kind)
    people = Interactions.from_arrays(
        np.concatenate([NEW + asking(n=20).users, [3, 7]]),
        np.concatenate([asking(n=20).item_ids.to_numpy()[asking(n=20).items], [10**6, 10**6]]),
        np.append(asking(n=20).ratings, [1, 1]),
    )
    at_once = model.recommend_for(people, k=5, cold="popular")

    monkeypatch.setattr(scoring, "_BATCH", 3)
    in_parts = model.set_params(n_threads=1).recommend_for(people, k=5, cold="popular")

    for name in ("users", "items", "scores", "by_popularity"):
        np.testing.assert_array_equal(getattr(in_parts, name), getattr(at_once, name))
    assert in_parts.user_ids.equals(at_once.user_ids)
    assert in_parts.unknown_items.to_pylist() == at_once.unknown_items.to_pylist() == [10**6]
    assert in_parts.n_unknown_ratings == at_once.n_unknown_ratings == 2
    assert at_once.users.tolist()[:2] == [3, 7]
    assert at_once.n_cold_users == in_parts.n_cold_users == 0


def test_nobody_gets_nothing() -> None:
    no_ids, none = pa.array([], pa.int64()), np.zeros(0, np.int32)
    nobody = Interactions(none, none, none.astype(np.float32), None, no_ids, no_ids)

    found = fit(ALS).recommend_for(nobody, k=5)

    assert found.items.shape == (0, 5)
    assert found.unknown_items.to_pylist() == []
    assert len(found.by_popularity) == 0


def test_wrong_calls_are_refused() -> None:
    people = asking()
    with pytest.raises(NotFittedError):
        ALS().recommend_for(people)
    model = fit(ALS)
    with pytest.raises(ParameterError, match="cold is 'include'; expected one of 'skip', 'popular'"):
        model.recommend_for(people, cold="include")
    with pytest.raises(ParameterError, match="k is 41, but the catalogue has 40 items"):
        model.recommend_for(people, k=41)
    with pytest.raises(DataError, match="'user_ids' has ids of type"):
        model.recommend_for(Interactions.from_arrays(["eve"], item_ids([1]), [5]))
    with pytest.raises(DataError, match="'item_ids' has ids of type"):
        model.recommend_for(Interactions.from_arrays([NEW], ["x"], [5]))
    with pytest.raises(ParameterError, match="got users and interactions; expected one of them"):
        model.recommend_to_parquet("nowhere.parquet", 3, users=[1], interactions=people)
    assert not Path("nowhere.parquet").exists()


def test_a_model_without_its_ratings_answers_newcomers_alone() -> None:
    model = fit(ALS)
    expected = model.recommend_for(asking(), k=3).items
    model.restore(dataclasses.replace(model.fitted, values=None), model.history)

    np.testing.assert_array_equal(model.recommend_for(asking(), k=3).items, expected)
    mixed = Interactions.from_arrays([NEW, 3, 5], item_ids([1, 2, 3]), [5, 4, 3])
    with pytest.raises(ModelError, match=r"saved without its training ratings, and knows 2 of these users \(3, 5\)"):
        model.recommend_for(mixed)


def test_a_model_of_another_library_knows_what_people_bring_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((n, 3)).astype(np.float32) for n in (9, 40))
    figures = {"factors": 3, "regularization": 0.1, "iterations": 5, "use_cg": False, "dtype": "float32", "alpha": 2.0}
    np.savez(tmp_path / "als.npz", user_factors=users, item_factors=items, **figures)
    model = fastmf.import_implicit(tmp_path / "als.npz")
    people = Interactions.from_arrays([3, 3, 77], [5, 6, 5], [1, 2, 1])

    found = model.recommend_for(people, k=4)

    assert found.users.tolist() == [3, -1]
    assert not set(found.items[0].tolist()) & {5, 6}
    # Hu, Koren and Volinsky: c = 1 + 2r on the two items, 1 on all others.
    wide, confidence = items.astype(np.float64), np.array([2.0, 4.0])
    matrix = wide.T @ wide + (wide[[5, 6]].T * confidence) @ wide[[5, 6]] + model.regularization * np.eye(3)
    expected = np.linalg.solve(matrix, wide[[5, 6]].T @ (1 + confidence))
    np.testing.assert_allclose(model.fold_in(people).factors[0], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(DataError, match="comes from another library"):
        model.partial_fit(people)


def test_the_model_stays_as_it_was() -> None:
    model = fit(ImplicitALS)
    before = model.recommend(k=5)

    model.recommend_for(asking(), k=5, cold="popular", deny=item_ids([1]))

    after = model.recommend(k=5)
    np.testing.assert_array_equal(after.items, before.items)
    np.testing.assert_array_equal(after.scores, before.scores)


@each_kind
def test_the_file_holds_what_recommend_for_returns(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "_BATCH", 3)
    model, people = fit(kind), asking()

    n_rows = model.recommend_to_parquet(tmp_path / "recs.parquet", 4, interactions=people, deny=item_ids([2]))

    expected = model.recommend_for(people, k=4, deny=item_ids([2])).to_arrow()
    assert n_rows == len(expected)
    assert pq.read_table(tmp_path / "recs.parquet").equals(expected)
    with pytest.raises(OutputExistsError):
        model.recommend_to_parquet(tmp_path / "recs.parquet", 4, interactions=people)


def test_requests_that_differ_have_different_fingerprints() -> None:
    model, people = fit(ALS), asking()
    other = people.with_rows(people.users, people.items, people.ratings + 1, None)

    def fingerprint(ratings: Interactions, model: Any = model) -> str:
        parts = model._scorer_for(ratings, "skip").recommend_in_batches(None, 5, exclude="seen")
        return str(parts.fingerprint())

    assert fingerprint(people) == fingerprint(asking())
    assert fingerprint(people) == fingerprint(people, model.set_params(n_threads=1, verbose=False))
    assert len({fingerprint(people), fingerprint(other), fingerprint(people, fit(ALS, regularization=0.5))}) == 3


def written_files(folder: Path) -> tuple[str, str]:
    fit(ALS).save(folder / "model")
    known = Interactions.from_arrays([NEW, NEW, 3, NEW + 1], [*item_ids([1, 4, 2]), 10**6], [5, 2, 4, 1])
    known.to_parquet(folder / "new.parquet")
    return str(folder / "model"), str(folder / "new.parquet")


def test_the_command_recommends_for_a_file_of_ratings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, ratings = written_files(tmp_path)
    output = str(tmp_path / "recs.parquet")

    assert main(["recommend", model, "--for", ratings, "--output", output, "-k", "3", "--json"]) == 0

    told = capsys.readouterr()
    result = json.loads(told.out)
    assert result == {
        "output": output,
        "n_users": 3,
        "n_known_users": 1,
        "n_cold_users": 1,
        "n_rows": 6,
        "n_unknown_items": 1,
        "n_unknown_ratings": 1,
    }
    assert "leaving out 1 of 4 ratings, of 1 items that the model does not know: 1000000" in told.err
    expected = fastmf.load(model).recommend_for(fastmf.read_parquet(ratings), k=3).to_arrow()
    assert pq.read_table(output).equals(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--for", "new.parquet", "--cold", "include"], "--cold is 'include'; expected one of 'skip', 'popular'"),
        (["--item-column", "film"], "--item-column is for the ratings that --for names; add --for"),
        (["--no-rating-column"], "--no-rating-column is for the ratings that --for names"),
        (["--for", "new.parquet", "--item-column", "film"], "no column 'film'"),
        (["--for", "new.parquet", "--strict"], "leave --strict out"),
    ],
)
def test_the_command_names_its_options(
    options: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written_files(tmp_path)
    monkeypatch.chdir(tmp_path)

    status = main(["recommend", "model", "--output", "recs.parquet", "--quiet", *options])

    assert status != 0
    assert message in capsys.readouterr().err
    assert not (tmp_path / "recs.parquet").exists()
