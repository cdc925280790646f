"""Users and items without a training rating: they get no rows unless asked for, and they are counted."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf import Interactions
from fastmf.answering.asked import count_cold_users
from fastmf.errors import DataError, ParameterError
from fastmf.models import FactorModel

N_USERS, N_ITEMS = 30, 24
COLD_USERS, COLD_ITEMS = [0, 7, 29], [0, 5, 6, 23]
WARM_USERS = [user for user in range(N_USERS) if user not in COLD_USERS]
WARM_ITEMS = [item for item in range(N_ITEMS) if item not in COLD_ITEMS]
MODELS = {
    "SGD": lambda: fastmf.SGD(n_factors=4, n_epochs=5),
    "ALS": lambda: fastmf.ALS(n_factors=4, n_epochs=3),
    "ImplicitALS": lambda: fastmf.ImplicitALS(n_factors=4, n_epochs=3),
    "BPR": lambda: fastmf.BPR(n_factors=4, n_epochs=3),
    "reference": lambda: fastmf.ImplicitALS(n_factors=4, n_epochs=2, backend="reference"),
}


def train() -> Interactions:
    rng = np.random.default_rng(3)
    observed = rng.random((N_USERS, N_ITEMS)) < 0.3
    observed[np.arange(N_USERS), 1 + np.arange(N_USERS) % 4] = True
    observed[1, :] = True
    observed[COLD_USERS], observed[:, COLD_ITEMS] = False, False
    users, items = np.nonzero(observed)
    return fastmf.testing.from_indices(users, items, rng.integers(1, 6, len(users)), N_USERS, N_ITEMS)


def popularity() -> "np.typing.NDArray[np.int64]":
    return np.bincount(train().items, minlength=N_ITEMS)


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> FactorModel:
    return MODELS[request.param]().fit(train())


@pytest.fixture(scope="module")
def als() -> FactorModel:
    return MODELS["ImplicitALS"]().fit(train())


def test_cold_users_get_no_rows_and_cold_items_are_in_none(model: FactorModel) -> None:
    recommended = model.recommend(k=N_ITEMS, exclude=None)

    table = recommended.to_arrow()
    assert set(table["user_id"].to_pylist()) == set(WARM_USERS)
    assert set(table["item_id"].to_pylist()) == set(WARM_ITEMS)
    assert len(table) == len(WARM_USERS) * len(WARM_ITEMS)
    assert recommended.n_cold_users == len(COLD_USERS)
    assert (recommended.items[COLD_USERS] == -1).all()
    assert np.isneginf(recommended.scores[COLD_USERS]).all()


@pytest.mark.parametrize("users", [[7], [7, 0], [3, 7], [7] * 20])
def test_a_cold_user_who_is_named_gets_an_empty_list(users: list[int], model: FactorModel) -> None:
    recommended = model.recommend(users, k=3)

    assert recommended.user_ids.to_pylist() == users
    assert recommended.n_cold_users == sum(user in COLD_USERS for user in users)
    assert set(recommended.to_arrow()["user_id"].to_pylist()) == set(users) & set(WARM_USERS)


@pytest.mark.parametrize("filters", [{}, {"allow": [1, 2, 5, 9]}, {"deny": [1, 2]}, {"allow": {7: [0, 1, 3], 3: [5]}}])
def test_popular_items_fill_in_for_cold_users(filters: dict[str, Any], model: FactorModel) -> None:
    exclude = Interactions.from_arrays([7, 7, 29], [1, 4, 2])
    counts = popularity()

    recommended = model.recommend(k=4, exclude=exclude, cold="popular", **filters)

    without = model.recommend(k=4, exclude=exclude, **filters)
    np.testing.assert_array_equal(recommended.items[WARM_USERS], without.items[WARM_USERS])
    np.testing.assert_array_equal(recommended.scores[WARM_USERS], without.scores[WARM_USERS])
    for user in COLD_USERS:
        allow, deny = filters.get("allow", WARM_ITEMS), filters.get("deny", [])
        allowed = allow.get(user, []) if isinstance(allow, dict) else allow
        left_out = {7: {1, 4}, 29: {2}}.get(user, set()) | set(deny)
        candidates = [item for item in allowed if item in WARM_ITEMS and item not in left_out]
        expected = sorted(candidates, key=lambda item: (-counts[item], item))[:4]
        assert recommended.items[user].tolist() == expected + [-1] * (4 - len(expected))
        shares = [counts[item] / len(WARM_USERS) for item in expected]
        assert recommended.scores[user, : len(expected)].tolist() == pytest.approx(shares)
    assert recommended.n_cold_users == 3


def test_cold_users_can_be_counted_beforehand(als: FactorModel) -> None:
    assert count_cold_users(als.fitted) == 3
    assert count_cold_users(als.fitted, [7, 3, 7]) == 2
    assert count_cold_users(als.fitted, iter([1])) == 0


def test_included_they_are_like_any_other(model: FactorModel) -> None:
    recommended = model.recommend(k=N_ITEMS, exclude=None, cold="include")

    assert (recommended.items >= 0).all()
    table = recommended.to_arrow()
    np.testing.assert_allclose(table["score"], model.predict(table["user_id"], table["item_id"]), rtol=1e-4, atol=1e-5)
    assert recommended.n_cold_users == 3


@pytest.mark.parametrize("cold", ["skip", "popular", "include"])
@pytest.mark.parametrize("users", [None, [3, 7, 8]])
def test_parquet_has_the_same_rows(cold: str, users: Any, model: FactorModel, tmp_path: Path) -> None:
    out = tmp_path / "recs.parquet"

    n_rows = model.recommend_to_parquet(out, 3, users=users, cold=cold)

    assert pq.read_table(out) == model.recommend(users, k=3, cold=cold).to_arrow()
    assert n_rows == len(pq.read_table(out))


def test_only_cold_users_make_a_file_without_rows(als: FactorModel, tmp_path: Path) -> None:
    assert als.recommend_to_parquet(tmp_path / "recs.parquet", 3, users=COLD_USERS) == 0
    assert pq.read_table(tmp_path / "recs.parquet").schema == als.recommend(k=3).to_arrow().schema


def test_batches_of_users_do_not_show(als: FactorModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {cold: als.recommend(k=4, cold=cold) for cold in ("skip", "popular")}
    monkeypatch.setattr("fastmf.answering.scoring._BATCH", 4)

    for cold, expected in whole.items():
        found = als.recommend(k=4, cold=cold)
        assert found.n_cold_users == expected.n_cold_users
        np.testing.assert_array_equal(found.items, expected.items)


def test_an_interrupted_file_of_other_cold_users_is_not_gone_on_with(als: FactorModel) -> None:
    from fastmf.answering.scoring import Scorer

    scorer = Scorer(als.fitted, "cpu", None)
    prints = {scorer.recommend_in_batches(None, 3, exclude="seen", cold=c).fingerprint() for c in ("skip", "popular")}

    assert len(prints) == 2


@pytest.mark.parametrize("cold", ["all", None, 3, "", ["skip"], np.array(["skip", "popular"])], ids=str)
def test_another_answer_for_cold_users_is_refused(cold: Any, als: FactorModel, tmp_path: Path) -> None:
    for ask in (
        lambda: als.recommend(k=3, cold=cold),
        lambda: als.recommend_to_parquet(tmp_path / "recs.parquet", 3, cold=cold),
        lambda: fastmf.evaluate(als, train(), cold=cold),
    ):
        with pytest.raises(ParameterError, match=r"cold is .*; expected one of 'skip', 'popular', 'include'"):
            ask()
    assert list(tmp_path.iterdir()) == []


def test_cold_items_and_users_have_no_neighbours_and_are_none(model: FactorModel) -> None:
    for find, cold, warm, n in (
        (model.similar_items, COLD_ITEMS, WARM_ITEMS, N_ITEMS),
        (model.similar_users, COLD_USERS, WARM_USERS, N_USERS),
    ):
        similar = find(range(n), k=n - 1)

        assert similar.n_cold == len(cold)
        assert (similar.neighbours[cold] == -1).all()
        for one in warm:
            found = [other for other in similar.neighbours[one].tolist() if other >= 0]
            assert sorted([one, *found]) == warm
        names = similar.to_arrow().column_names
        assert set(similar.to_arrow()[names[0]].to_pylist()) == set(warm)
        assert find(cold[0], k=2).n_cold == 1
        assert len(find(cold[0], k=2).to_arrow()) == 0


class Compact(NamedTuple):
    """A model with the same factors whose ids are those with training ratings only, as if read from a file."""

    backend: str
    n_threads: int | None
    fitted: Any
    is_implicit: bool


def compact(model: FactorModel) -> Compact:
    from fastmf.answering.fitted import Fitted
    from fastmf_kernels.predict.arrays import Factors
    from fastmf_kernels.topk.arrays import Rows

    ours = model.fitted
    factors = Factors(
        ours.factors.user_factors[WARM_USERS],
        ours.factors.item_factors[WARM_ITEMS],
        ours.factors.user_biases[WARM_USERS],
        ours.factors.item_biases[WARM_ITEMS],
        ours.factors.global_mean,
    )
    indptr = np.append(0, ours.seen.indptr[np.array(WARM_USERS) + 1])
    seen = Rows(indptr, np.searchsorted(WARM_ITEMS, ours.seen.indices).astype(np.int32))
    fitted = Fitted(factors, ours.link, pa.array(WARM_USERS), pa.array(WARM_ITEMS), seen, {})
    return Compact(model.backend, model.n_threads, fitted, model.is_implicit)


def held_out(seed: int = 1) -> Interactions:
    rng = np.random.default_rng(seed)
    users, items = np.nonzero(rng.random((N_USERS, N_ITEMS)) < 0.2)
    return fastmf.testing.from_indices(users, items, rng.integers(1, 6, len(users)), N_USERS, N_ITEMS)


def from_file(ratings: Interactions, path: Path) -> Interactions:
    ratings.to_parquet(path)
    return fastmf.read_parquet(path)


ALL = tuple(fastmf.metrics.METRICS)


@pytest.mark.parametrize("cold", ["skip", "popular"])
@pytest.mark.parametrize("exclude", ["seen", None, "pairs"])
@pytest.mark.parametrize("threshold", [None, 4])
def test_ids_without_training_ratings_change_no_figure(
    cold: str, exclude: str | None, threshold: float | None, model: FactorModel, tmp_path: Path
) -> None:
    pairs: Any = exclude
    if exclude == "pairs":
        some = [*zip(held_out().users[::3].tolist(), held_out().items[::3].tolist(), strict=True), (7, 1), (7, 2)]
        pairs = Interactions.from_arrays(*zip(*dict.fromkeys(some), strict=True))
    asked = {"k": (3, 7), "metrics": ALL, "exclude": pairs, "min_relevant_rating": threshold, "cold": cold}

    in_memory = fastmf.evaluate(model, held_out(), **asked)

    assert fastmf.evaluate(model, from_file(held_out(), tmp_path / "test.parquet"), **asked) == in_memory
    from_two_files = fastmf.evaluate(compact(model), from_file(held_out(), tmp_path / "again.parquet"), **asked)
    assert from_two_files == pytest.approx(in_memory, rel=1e-6)
    relevant = held_out().ratings >= (threshold or 0)
    assert in_memory["n_cold_users"] == len(set(held_out().users[relevant].tolist()) & set(COLD_USERS))
    assert (
        in_memory["n_unknown"]
        == np.isin(held_out().users, COLD_USERS).sum()
        + (np.isin(held_out().items, COLD_ITEMS) & ~np.isin(held_out().users, COLD_USERS)).sum()
    )


def test_lists_are_those_that_are_recommended(model: FactorModel) -> None:
    test = held_out()
    users = sorted(set(test.users.tolist()) - set(COLD_USERS))
    items = model.recommend(users, k=5).items
    relevant = [test.items[test.users == user].tolist() for user in users]

    figures = fastmf.evaluate(model, test, k=5)

    expected = fastmf.metrics.ranking_metrics(items, relevant, 5)
    assert {name: figures[f"{name}@5"] for name in expected} == pytest.approx(expected)
    assert figures["n_users"] == len(users)
    assert figures["coverage@5"] == pytest.approx(len(set(items[items >= 0].tolist())) / len(WARM_ITEMS))
    assert fastmf.evaluate(model, test, k=5, cold="include")["n_users"] == len(set(test.users.tolist()))


def test_users_that_the_model_has_no_id_of_are_cold(als: FactorModel) -> None:
    test = Interactions.from_arrays([1, 1, 500, 501, 7], [2, 3, 2, 3, 2])

    figures = fastmf.evaluate(als, test, k=3, exclude=None)
    popular = fastmf.evaluate(als, test, k=N_ITEMS, exclude=None, metrics=["recall"], cold="popular")

    assert (figures["n_users"], figures["n_cold_users"], figures["n_unknown"]) == (1, 3, 3)
    assert (popular["n_users"], popular["n_cold_users"], popular["recall@24"]) == (4, 3, 1)
    with pytest.raises(DataError, match=r"no user of the test part .* has training ratings: nothing to rank"):
        fastmf.evaluate(als, Interactions.from_arrays([7, 500], [2, 3]), k=3)


@pytest.mark.parametrize("exclude", ["seen", "pairs", None])
def test_excluded_test_ratings_are_counted(exclude: str | None, als: FactorModel) -> None:
    test = held_out()
    some = [*zip(test.users[::9].tolist(), test.items[::9].tolist(), strict=True), (900, 1), (1, 900)]
    pairs = Interactions.from_arrays(*zip(*some, strict=True))
    left_out = {"seen": train(), "pairs": pairs, None: None}[exclude]

    figures = fastmf.evaluate(als, test, k=3, exclude=left_out if exclude == "pairs" else exclude)

    def listed(ratings: Interactions) -> set[tuple[int, int]]:
        table = ratings.to_arrow()
        return set(zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))

    expected = 0 if left_out is None else len(listed(test) & listed(left_out))
    assert figures["n_excluded"] == expected
    assert (expected > 0) == (exclude is not None)


def of_two_times() -> tuple[Interactions, Interactions]:
    """Return older and newer ratings: users and items arrive all the time, so that many have no older rating."""
    rng = np.random.default_rng(5)
    times = np.arange(1500)
    users, items = (np.floor(n * rng.random(1500) ** 0.7 * (0.4 + 0.6 * times / 1500)).astype(int) for n in (120, 80))
    ratings = Interactions.from_arrays(users, items, rng.integers(1, 6, 1500).astype(float), times, duplicates="last")
    return fastmf.split.temporal(ratings, 0.2)


SETTINGS: list[tuple[type[FactorModel], dict[str, Any]]] = [
    *((kind, {}) for kind in fastmf.models.FACTOR_MODELS.values()),
    (fastmf.ImplicitALS, {"weighting": "hu"}),
    (fastmf.SGD, {"loss": "logistic"}),
]


@pytest.mark.parametrize(("kind", "settings"), SETTINGS)
def test_a_split_in_memory_trains_the_model_of_its_files(
    kind: type[FactorModel], settings: dict[str, Any], tmp_path: Path
) -> None:
    train, test = of_two_times()
    train_read, test_read = (from_file(part, tmp_path / f"{n}.parquet") for n, part in enumerate((train, test)))
    assert train_read.n_users < train.n_users
    assert train_read.n_items < train.n_items

    in_memory, of_files = (
        kind(n_factors=8, n_epochs=3, **settings).fit(part, validation=held_out)
        for part, held_out in ((train, test), (train_read, test_read))
    )

    warm = np.isin(train.item_ids.to_numpy(), train_read.item_ids.to_numpy())
    np.testing.assert_array_equal(in_memory.item_factors[warm], of_files.item_factors)
    assert not in_memory.item_factors[~warm].any()
    assert not in_memory.item_biases[~warm].any()
    for cold in ("skip", "popular"):
        assert fastmf.evaluate(in_memory, test, cold=cold) == fastmf.evaluate(of_files, test_read, cold=cold)
    for a, b in zip(in_memory.history, of_files.history, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


CONTINUED: list[tuple[type[Any], dict[str, Any]]] = [
    (fastmf.SGD, {}),
    (fastmf.SGD, {"rating_range": (1, 5), "adaptive": False, "learning_rate": 0.01}),
    (fastmf.SGD, {"loss": "logistic"}),
    (fastmf.SVDpp, {}),
    (fastmf.BPR, {"regularization_scaling": "none"}),
]


@pytest.mark.parametrize(("kind", "settings"), CONTINUED)
def test_a_fit_that_goes_on_in_memory_is_that_of_the_files(
    kind: type[Any], settings: dict[str, Any], tmp_path: Path
) -> None:
    train, test = of_two_times()
    later, last = fastmf.split.temporal(test, 0.5)
    train_read, later_read, last_read = (
        from_file(part, tmp_path / f"{n}.parquet") for n, part in enumerate((train, later, last))
    )

    in_memory = kind(n_factors=4, n_epochs=2, **settings).fit(train).partial_fit(later, validation=last)
    in_memory.save(tmp_path / "model")
    in_memory = fastmf.load(tmp_path / "model")
    of_files = kind(n_factors=4, n_epochs=2, **settings).fit(train_read).partial_fit(later_read, validation=last_read)

    for all_ids, warm_ids, a, b in (
        (train.user_ids, of_files.user_ids, in_memory.user_factors, of_files.user_factors),
        (train.user_ids, of_files.user_ids, in_memory.user_biases, of_files.user_biases),
        (train.item_ids, of_files.item_ids, in_memory.item_factors, of_files.item_factors),
        (train.item_ids, of_files.item_ids, in_memory.item_biases, of_files.item_biases),
    ):
        is_warm = np.isin(all_ids.to_numpy(), warm_ids.to_numpy())
        assert len(warm_ids) < len(all_ids) == len(a)
        np.testing.assert_array_equal(a[is_warm], b)
        assert not a[~is_warm].any()
    assert in_memory.recommend(k=3).to_arrow().equals(of_files.recommend(k=3).to_arrow())
    assert fastmf.evaluate(in_memory, last) == fastmf.evaluate(of_files, last_read)
    for again in (in_memory, of_files):
        again.partial_fit(last if again is in_memory else last_read)
    assert in_memory.recommend(k=3).to_arrow().equals(of_files.recommend(k=3).to_arrow())


def test_a_cold_user_learns_from_a_cold_item() -> None:
    ratings = Interactions.from_arrays([1, 2, 3, 4], [1, 2, 3, 4], [5, 1, 4, 5])
    model = fastmf.SGD(n_factors=4, n_epochs=3).fit(ratings.take(np.arange(3)))
    assert not model.user_factors[3].any()

    model.partial_fit(ratings.take(np.array([3])))

    assert model.user_factors[3].any()
    assert model.item_factors[3].any()


def test_a_model_that_knew_cold_users_goes_on_with_their_first_ratings() -> None:
    train, test = of_two_times()
    model = fastmf.SGD(n_factors=4, n_epochs=2).fit(train)
    cold = ~np.isin(np.arange(train.n_users), train.users)

    model.partial_fit(test)

    assert np.isfinite(model.user_factors).all()
    assert model.user_biases[cold & np.isin(np.arange(train.n_users), test.users)].all()
