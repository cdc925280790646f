"""Recommendations, neighbours and the public top-k, against slow twins and against what may never be returned."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf import Interactions, testing
from fastmf.answering import scoring
from fastmf.errors import DataError, OutputExistsError, ParameterError, UnknownIdError
from fastmf.models import FactorModel

N_USERS, N_ITEMS = 30, 25
Ranking = list[tuple[str, float]]


def outside(kind: str, n: int) -> list[str]:
    return [f"{kind}{i:02}" for i in range(n)]


USERS, ITEMS = outside("u", N_USERS), outside("i", N_ITEMS)


@pytest.fixture(scope="module")
def train() -> Interactions:
    numbered = testing.power_law(N_USERS, N_ITEMS, 200, n_factors=3, seed=1)
    return Interactions(
        numbered.users,
        numbered.items,
        numbered.ratings,
        None,
        pa.array(USERS, pa.string()),
        pa.array(ITEMS, pa.string()),
    )


MAKERS: dict[str, Callable[[], FactorModel]] = {
    "SGD": lambda: fastmf.SGD(n_factors=4, n_epochs=20),
    "SGD with a range": lambda: fastmf.SGD(n_factors=4, n_epochs=20, rating_range=(0.5, 5)),
    "SGD of what was chosen": lambda: fastmf.SGD(n_factors=4, n_epochs=20, loss="logistic"),
    "BPR": lambda: fastmf.BPR(n_factors=4, n_epochs=20),
    "SVDpp": lambda: fastmf.SVDpp(n_factors=4, n_epochs=20),
    "ALS": lambda: fastmf.ALS(n_factors=4, n_epochs=5),
    "ImplicitALS": lambda: fastmf.ImplicitALS(n_factors=4, n_epochs=5),
    "ALS by the reference": lambda: fastmf.ALS(n_factors=4, n_epochs=2, backend="reference"),
}


@pytest.fixture(scope="module", params=MAKERS)
def model(request: pytest.FixtureRequest, train: Interactions) -> FactorModel:
    return MAKERS[request.param]().fit(train)


@pytest.fixture(scope="module")
def als(train: Interactions) -> FactorModel:
    return MAKERS["ALS"]().fit(train)


def pairs_of(ratings: Interactions) -> set[tuple[str, str]]:
    table = ratings.to_arrow()
    return set(zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))


def ranking(scores: dict[str, float], k: int, items: Collection[str]) -> Ranking:
    """Sort some items by what is predicted for one user."""
    return sorted(((item, scores[item]) for item in items), key=lambda pair: -pair[1])[:k]


def prediction_table(model: FactorModel) -> dict[str, dict[str, float]]:
    predictions = model.predict(np.repeat(USERS, N_ITEMS), ITEMS * N_USERS).reshape(N_USERS, N_ITEMS)
    return {user: dict(zip(ITEMS, row.tolist(), strict=True)) for user, row in zip(USERS, predictions, strict=True)}


def as_rankings(table: pa.Table, users: list[str]) -> dict[str, Ranking]:
    rankings: dict[str, Ranking] = {user: [] for user in users}
    for row in table.to_pylist():
        rankings[row["user_id"]].append((row["item_id"], row["score"]))
        assert row["rank"] == len(rankings[row["user_id"]])
    return rankings


def assert_rankings(
    model: FactorModel,
    recommended: fastmf.Recommendations,
    users: list[str],
    k: int,
    candidates: Callable[[str, str], bool],
) -> None:
    """Hold recommendations against the twin: the same items in the same order with the same scores, and no more."""
    table = prediction_table(model)
    for user, actual in as_rankings(recommended.to_arrow(), users).items():
        expected = ranking(table[user], k, [item for item in ITEMS if candidates(user, item)])
        items, scores = [item for item, _ in actual], [score for _, score in actual]
        assert all(candidates(user, item) for item in items)
        assert len(set(items)) == len(items) == len(expected)
        np.testing.assert_allclose(scores, [table[user][item] for item in items], rtol=1e-4, atol=1e-5)
        # Scores and not items are held against the twin: those that differ by rounding only may come in either order.
        np.testing.assert_allclose(scores, [score for _, score in expected], rtol=1e-4, atol=1e-5)


def test_everybody_gets_his_best_unseen_items(model: FactorModel, train: Interactions) -> None:
    seen = pairs_of(train)

    recommended = model.recommend(k=5)

    assert recommended.user_ids.to_pylist() == USERS
    assert recommended.users.tolist() == list(range(N_USERS))
    assert recommended.items.shape == recommended.scores.shape == (N_USERS, 5)
    assert (recommended.users.dtype, recommended.items.dtype, recommended.scores.dtype) == ("int32", "int32", "float32")
    assert_rankings(model, recommended, USERS, 5, lambda user, item: (user, item) not in seen)


def test_nothing_is_excluded_on_request(model: FactorModel) -> None:
    recommended = model.recommend(k=N_ITEMS, exclude=None)

    assert sorted(recommended.items[0]) == list(range(N_ITEMS))
    assert_rankings(model, recommended, USERS, N_ITEMS, lambda user, item: True)


def test_other_pairs_are_excluded_on_request(als: FactorModel) -> None:
    # The pairs come from another id space, with users and items that the model does not know.
    pairs = {("u03", "i07"), ("u03", "i00"), ("u20", "i24"), ("nobody", "i01"), ("u05", "nothing")}
    exclude = Interactions.from_arrays(*zip(*pairs, strict=True))

    recommended = als.recommend(k=N_ITEMS, exclude=exclude)

    assert_rankings(als, recommended, USERS, N_ITEMS, lambda user, item: (user, item) not in pairs)


def test_the_training_part_as_exclusion_is_what_seen_means(als: FactorModel, train: Interactions) -> None:
    assert als.recommend(exclude=train).to_arrow() == als.recommend(exclude="seen").to_arrow()


def test_pairs_of_other_users_of_the_same_catalogue_are_matched_by_id(als: FactorModel, train: Interactions) -> None:
    # Row 0 of these pairs is the model's user 7; only the ids say so.
    other_users = Interactions(
        np.array([0], np.int32),
        np.array([4], np.int32),
        np.ones(1, np.float32),
        None,
        pa.array(["u07"]),
        train.item_ids,
    )

    recommended = als.recommend(k=N_ITEMS, exclude=other_users)

    assert_rankings(als, recommended, USERS, N_ITEMS, lambda user, item: (user, item) != ("u07", "i04"))


PAIRS = {"u01": ["i03", "i04", "i05"], "u02": ["i03"], "u07": [], "nobody": ["i01"]}
SOME = ["i03", "i24", "i04", "i10", "i03", "nothing"]


def listed(filtered: Any, user: str, item: str) -> bool:
    """Whether a plain filter lists an item for a user."""
    return item in (filtered.get(user, ()) if isinstance(filtered, dict) else filtered)


def plain(filtered: Any) -> Any:
    """Turn a filter of any form into a list or a dict of lists."""
    if isinstance(filtered, Interactions):
        pairs = pairs_of(filtered)
        return {user: [item for other, item in pairs if other == user] for user, _ in pairs}
    return filtered.to_pylist() if isinstance(filtered, pa.Array) else filtered


FILTERS: dict[str, Any] = {
    "list": SOME,
    "tuple": tuple(SOME),
    "array": np.array(SOME),
    "arrow": pa.array(SOME),
    "empty list": [],
    "list of unknown items": ["nothing"],
    "dict": PAIRS,
    "dict of arrays": {user: np.array(items) for user, items in PAIRS.items()},
    "empty dict": {},
    "interactions": Interactions.from_arrays(["u01", "u01", "u02", "nobody"], ["i03", "i04", "i05", "i01"]),
}


@pytest.mark.parametrize("form", FILTERS)
def test_allow_lets_nothing_else_through(form: str, als: FactorModel, train: Interactions) -> None:
    seen, allow = pairs_of(train), plain(FILTERS[form])

    recommended = als.recommend(k=3, allow=FILTERS[form])

    assert_rankings(als, recommended, USERS, 3, lambda u, i: (u, i) not in seen and listed(allow, u, i))


@pytest.mark.parametrize("form", FILTERS)
def test_deny_lets_everything_else_through(form: str, als: FactorModel, train: Interactions) -> None:
    seen, deny = pairs_of(train), plain(FILTERS[form])

    recommended = als.recommend(k=N_ITEMS, deny=FILTERS[form])

    assert_rankings(als, recommended, USERS, N_ITEMS, lambda u, i: (u, i) not in seen and not listed(deny, u, i))


@pytest.mark.parametrize("deny_form", ["list", "dict", "interactions"])
@pytest.mark.parametrize("allow_form", ["list", "dict", "interactions"])
def test_filters_combine(allow_form: str, deny_form: str, model: FactorModel, train: Interactions) -> None:
    seen = pairs_of(train)
    everywhere = dict.fromkeys(USERS, ITEMS[:12])
    allow = {
        "list": ITEMS[:12],
        "dict": everywhere,
        "interactions": Interactions.from_arrays(np.repeat(USERS, 12), ITEMS[:12] * N_USERS),
    }[allow_form]
    deny, allowed, denied = FILTERS[deny_form], plain(allow), plain(FILTERS[deny_form])

    recommended = model.recommend(k=6, allow=allow, deny=deny)

    assert_rankings(
        model,
        recommended,
        USERS,
        6,
        lambda u, i: (u, i) not in seen and listed(allowed, u, i) and not listed(denied, u, i),
    )


def test_some_users_in_the_order_asked_for(model: FactorModel) -> None:
    everybody = model.recommend(k=4)

    some = model.recommend(["u07", "u02", "u07"], k=4)

    assert some.user_ids.to_pylist() == ["u07", "u02", "u07"]
    np.testing.assert_array_equal(some.items, everybody.items[[7, 2, 7]])
    np.testing.assert_allclose(some.scores, everybody.scores[[7, 2, 7]], rtol=1e-5)


@pytest.mark.parametrize("users", ["u05", ("u05",), np.array(["u05"]), pa.array(["u05"])])
def test_one_user_or_any_array_of_them(users: Any, als: FactorModel) -> None:
    assert als.recommend(users, k=3).user_ids.to_pylist() == ["u05"]


def test_no_users_get_no_recommendations(als: FactorModel) -> None:
    recommended = als.recommend([], k=3)

    assert recommended.items.shape == recommended.scores.shape == (0, 3)
    assert recommended.to_arrow().schema.equals(als.recommend(["u00"], k=3).to_arrow().schema)
    assert len(recommended.to_arrow()) == 0


def test_a_user_with_fewer_candidates_gets_fewer_rows(als: FactorModel, train: Interactions) -> None:
    unseen = [item for item in ITEMS if ("u04", item) not in pairs_of(train)]

    recommended = als.recommend(["u04", "u01"], k=4, allow={"u04": unseen[:2], "u01": []})

    assert (recommended.items >= 0).sum(axis=1).tolist() == [2, 0]
    assert np.all(recommended.items[recommended.scores == -np.inf] == -1)
    assert np.all(recommended.scores[recommended.items == -1] == -np.inf)
    table = recommended.to_arrow()
    assert table["user_id"].to_pylist() == ["u04", "u04"]
    assert table["rank"].to_pylist() == [1, 2]
    assert np.isfinite(table["score"].to_numpy()).all()


def test_a_user_who_has_seen_everything_gets_nothing() -> None:
    ratings = Interactions.from_arrays([1, 1, 2], ["a", "b", "a"])
    model = fastmf.ImplicitALS(n_factors=2, n_epochs=2).fit(ratings)

    assert model.recommend(k=2).to_arrow().select(["user_id", "rank", "item_id"]).to_pylist() == [
        {"user_id": 2, "rank": 1, "item_id": "b"}
    ]


def test_the_long_form_has_a_row_a_recommendation(als: FactorModel) -> None:
    recommended = als.recommend(["u03", "u01"], k=2)

    table = recommended.to_arrow()

    assert table.schema == pa.schema(
        [("user_id", pa.string()), ("rank", pa.int32()), ("item_id", pa.string()), ("score", pa.float32())]
    )
    assert table["user_id"].to_pylist() == ["u03", "u03", "u01", "u01"]
    assert table["rank"].to_pylist() == [1, 2, 1, 2]
    assert table["item_id"].to_pylist() == [ITEMS[i] for i in recommended.items.ravel()]
    assert table["score"].to_pylist() == recommended.scores.ravel().tolist()


def test_scores_are_the_predictions_of_the_pairs(model: FactorModel) -> None:
    table = model.recommend(k=6).to_arrow()

    np.testing.assert_allclose(table["score"], model.predict(table["user_id"], table["item_id"]), rtol=1e-4, atol=1e-5)


def test_equal_scores_go_to_the_lower_index() -> None:
    model = fastmf.ALS(n_factors=2, n_epochs=1).fit(
        testing.from_indices(np.zeros(3, int), np.arange(3), np.ones(3), 2, 9)
    )  # items 3 to 8 have no ratings: all alike

    assert model.recommend([1], k=9, allow=[8, 4, 6, 3], cold="include").items[0, :4].tolist() == [3, 4, 6, 8]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"k": 26}, ParameterError, "k is 26, but the catalogue has 25 items; expected at most as many"),
        ({"k": 0}, ParameterError, "k is 0; expected an integer of at least 1"),
        ({"k": 2.5}, ParameterError, "k is 2.5; expected an integer of at least 1"),
        ({"users": ["u01", "x", "y"]}, UnknownIdError, "2 of 3 ids in 'users' are unknown to the model: 'x', 'y'"),
        ({"users": [1]}, DataError, "column 'users' has ids of type int64, the model's are string"),
        ({"users": [None, "u01"]}, DataError, "column 'users' has 1 null value, the first in row 0"),
        ({"exclude": "sen"}, ParameterError, "exclude is 'sen'; expected \"seen\", Interactions, or None"),
        ({"exclude": ["i01"]}, ParameterError, "exclude is ['i01']; expected \"seen\", Interactions, or None"),
        ({"allow": "i01"}, ParameterError, "allow is 'i01'; expected a list of item ids, a dict or Interactions"),
        ({"deny": [1, 2]}, DataError, "column 'deny' has ids of type int64, the model's are string"),
        ({"deny": {1: ["i01"]}}, DataError, "column 'deny' has ids of type int64, the model's are string"),
        ({"allow": {"u01": "i01"}}, ParameterError, "allow['u01'] is 'i01'; expected a list of item ids"),
        ({"deny": {"u01": 5}}, ParameterError, "deny['u01'] is 5; expected a list of item ids"),
    ],
    ids=str,
)
def test_a_request_that_makes_no_sense_is_refused(
    arguments: dict[str, Any], error: type[Exception], message: str, als: FactorModel, tmp_path: Path
) -> None:
    for ask in (als.recommend, lambda **kwargs: als.recommend_to_parquet(tmp_path / "recs.parquet", **kwargs)):
        with pytest.raises(error) as raised:
            ask(**arguments)
        assert message in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_user_is_told_who_answers_newcomers(als: FactorModel) -> None:
    with pytest.raises(UnknownIdError) as raised:
        als.recommend(["nobody"])

    ending = "; for people whom the model does not know use recommend_for or fastmf.Recommender"
    assert str(raised.value).endswith(f"expected ids that were in the training data{ending}")


def test_answers_are_short_where_they_are_shown(als: FactorModel) -> None:
    user = als.user_ids[0].as_py()
    answer = als.recommend([user], k=4)

    first = ", ".join(repr(als.item_ids[int(place)].as_py()) for place in answer.items[0, :3])
    assert repr(answer) == f"Recommendations(1 user, k=4; {user!r}: {first}, ...)"
    assert repr(als.recommend([user, user], k=2)).startswith("Recommendations(2 users, k=2; ")
    assert repr(als.recommend([], k=2)) == "Recommendations(0 users, k=2)"
    assert repr(als.recommend([user], k=2, allow=[])) == f"Recommendations(1 user, k=2; {user!r}: nothing)"
    item = als.item_ids[0].as_py()
    assert repr(als.similar_items(item, k=2)).startswith(f"Similar(1 item, k=2; {item!r}: 'i")


def test_to_parquet_writes_the_long_form_and_refuses_to_overwrite(als: FactorModel, tmp_path: Path) -> None:
    out = tmp_path / "recs.parquet"
    recommended = als.recommend(k=3)
    recommended.to_parquet(out)

    with pytest.raises(OutputExistsError, match=r"recs\.parquet exists already; choose another output"):
        als.recommend(k=2).to_parquet(out)
    assert pq.read_table(out) == recommended.to_arrow()

    als.recommend(k=2).to_parquet(out, overwrite=True)
    assert pq.read_table(out) == als.recommend(k=2).to_arrow()


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"users": ["u09", "u01", "u08", "u03"], "exclude": None},
        {"allow": ITEMS[:9], "deny": ITEMS[5:7]},
        {"deny": dict.fromkeys(USERS[::2], ITEMS[:3])},
    ],
    ids=["everybody", "some", "allow and deny", "deny for each"],
)
def test_recommend_to_parquet_is_recommend_in_batches(
    request_: dict[str, Any], model: FactorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model.recommend(k=4, **request_)
    monkeypatch.setattr(scoring, "_BATCH", 3)  # many batches, the last of them not full

    n_rows = model.recommend_to_parquet(tmp_path / "recs.parquet", k=4, **request_)

    table = pq.read_table(tmp_path / "recs.parquet")
    assert n_rows == len(table)
    assert table.drop_columns("score") == whole.to_arrow().drop_columns("score")
    np.testing.assert_allclose(table["score"], whole.to_arrow()["score"], rtol=1e-5)
    in_batches = model.recommend(k=4, **request_)
    np.testing.assert_array_equal(in_batches.items, whole.items)
    assert in_batches.user_ids == whole.user_ids


def test_recommend_to_parquet_refuses_to_overwrite(als: FactorModel, tmp_path: Path) -> None:
    out = tmp_path / "recs.parquet"
    out.write_text("precious")

    with pytest.raises(OutputExistsError, match="exists already"):
        als.recommend_to_parquet(out, k=3)
    assert out.read_text() == "precious"

    als.recommend_to_parquet(out, k=3, overwrite=True)
    assert pq.read_table(out) == als.recommend(k=3).to_arrow()


def test_recommend_to_parquet_that_fails_half_way_keeps_the_old_file(
    als: FactorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "recs.parquet"
    out.write_text("precious")
    monkeypatch.setattr(scoring, "_BATCH", 10)
    write, calls = pq.ParquetWriter.write_table, []

    def full(self: pq.ParquetWriter, table: pa.Table) -> None:
        calls.append(len(table))
        if len(calls) == 2:
            raise OSError("No space left on device")
        write(self, table)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        als.recommend_to_parquet(out, k=3, overwrite=True)

    assert len(calls) == 2
    assert out.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["recs.parquet"]


def test_recommend_to_a_directory_of_parts(als: FactorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "_BATCH", 2)
    out = tmp_path / "recs"

    n_rows = als.recommend_to_parquet(out, k=3, partitioned=True)

    assert [file.name for file in sorted(out.iterdir())] == ["part-00000.parquet", "part-00001.parquet"]
    assert pq.read_table(out).select(["user_id", "rank", "item_id"]) == als.recommend(k=3).to_arrow().drop_columns(
        "score"
    )
    assert n_rows == 3 * N_USERS
    als.recommend_to_parquet(out, k=2, partitioned=True, overwrite=True)
    assert len(pq.read_table(out)) == 2 * N_USERS
    with pytest.raises(OutputExistsError, match="recs is a directory; expected the name of a file"):
        als.recommend_to_parquet(out, k=2, overwrite=True)
    (out / "thesis.txt").write_text("precious")
    with pytest.raises(OutputExistsError, match="recs holds more than parts of recommendations"):
        als.recommend_to_parquet(out, k=2, partitioned=True, overwrite=True)
    assert (out / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(
    "changed",
    [
        {"k": 3},
        {"exclude": None},
        {"users": USERS[1:]},
        {"users": USERS[::-1]},
        {"deny": ITEMS[:1]},
        {"deny": ITEMS[1:2]},
        {"allow": ITEMS[1:]},
        {"allow": dict.fromkeys(USERS, ITEMS)},
        {"deny": {USERS[0]: ITEMS[:2]}},
    ],
)
def test_only_the_same_request_has_the_same_fingerprint(als: FactorModel, changed: dict[str, Any]) -> None:
    def fingerprint(model: FactorModel, **request: Any) -> str:
        full = {"users": None, "k": 4, "exclude": "seen", "allow": None, "deny": None, **request}
        return scoring.Scorer(model.fitted, "cpu", None).recommend_in_batches(**full).fingerprint()

    first = fingerprint(als)
    assert fingerprint(als) == first
    assert fingerprint(als, **changed) != first
    other = fastmf.ALS(n_factors=4, n_epochs=4).fit(testing.power_law(N_USERS, N_ITEMS, 200, n_factors=3, seed=1))
    assert fingerprint(other) != first


def test_the_scan_is_reported(als: FactorModel) -> None:
    scan = als.recommend(k=3).scan
    assert (scan.n_screened, scan.n_skipped) == (4, 0)  # 30 users are four tiles, 25 items are one
    assert 3 * N_USERS <= scan.n_scored <= N_USERS * N_ITEMS


def test_recommend_to_parquet_for_nobody_is_an_error(als: FactorModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no users to recommend to"):
        als.recommend_to_parquet(tmp_path / "recs.parquet", users=[], k=3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["item", "user"])
def test_neighbours_are_ranked_by_cosine_without_the_one_himself(kind: str, model: FactorModel) -> None:
    factors = (model.item_factors if kind == "item" else model.user_factors).astype(np.float64)
    names = ITEMS if kind == "item" else USERS
    find = model.similar_items if kind == "item" else model.similar_users
    asked = [names[9], names[2]]

    table = find(asked, k=6).to_arrow()

    assert table.column_names == [f"{kind}_id", "rank", f"similar_{kind}_id", "score"]
    assert table[f"{kind}_id"].to_pylist() == [asked[0]] * 6 + [asked[1]] * 6
    assert table["rank"].to_pylist() == [1, 2, 3, 4, 5, 6] * 2
    directions = factors / np.linalg.norm(factors, axis=1, keepdims=True)
    for start, name in ((0, names[9]), (6, names[2])):
        cosines = directions @ directions[names.index(name)]
        expected = [other for other in np.argsort(-cosines) if names[other] != name][:6]
        assert table[f"similar_{kind}_id"].to_pylist()[start : start + 6] == [names[other] for other in expected]
        np.testing.assert_allclose(table["score"].to_numpy()[start : start + 6], cosines[expected], atol=1e-5)


def test_all_neighbours_but_the_item_itself(als: FactorModel) -> None:
    similar = als.similar_items("i03", k=N_ITEMS - 1)

    assert sorted([3, *similar.neighbours[0].tolist()]) == list(range(N_ITEMS))
    assert np.all(similar.scores <= 1 + 1e-6)


def test_factors_of_length_0_have_no_direction_and_no_nan() -> None:
    ratings = testing.from_indices(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2]), np.ones(4), 2, 3)
    model = fastmf.ImplicitALS(n_factors=2, n_epochs=2).fit(ratings)
    model.item_factors[2] = 0

    similar = model.similar_items([2, 0], k=2)

    assert similar.scores[0].tolist() == [0, 0]
    assert np.isfinite(similar.scores).all()
    assert similar.scores[similar.neighbours == 2].tolist() == [0]


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda m: m.similar_items("i01", 25), ParameterError, "k is 25, but there are 25 items; expected fewer"),
        (lambda m: m.similar_users("u01", 30), ParameterError, "k is 30, but there are 30 users; expected fewer"),
        (lambda m: m.similar_items("i01", 0), ParameterError, "k is 0; expected an integer of at least 1"),
        (lambda m: m.similar_items("x"), UnknownIdError, "1 of 1 ids in 'item_ids' are unknown to the model: 'x'"),
        (lambda m: m.similar_users(["u01", "x"]), UnknownIdError, "1 of 2 ids in 'user_ids' are unknown"),
        (lambda m: m.similar_items(3), DataError, "column 'item_ids' has ids of type int64, the model's are string"),
    ],
)
def test_neighbours_that_cannot_be_found(
    ask: Callable[[FactorModel], Any], error: type[Exception], message: str, als: FactorModel
) -> None:
    with pytest.raises(error) as raised:
        ask(als)
    assert message in str(raised.value)


BACKENDS = ("cpu", "reference")
QUERIES = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
CATALOGUE = np.random.default_rng(1).standard_normal((40, 3)).astype(np.float32)


def rows(*lists: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Make (indptr, indices) of lists."""
    return np.cumsum([0, *map(len, lists)]), np.array([item for row in lists for item in row], np.int32)


@pytest.mark.parametrize("backend", BACKENDS)
def test_top_k_is_the_largest_dot_products_best_first(backend: str) -> None:
    scores, indices = fastmf.top_k(QUERIES, CATALOGUE, 7, backend=backend)

    table = QUERIES.astype(np.float64) @ CATALOGUE.T.astype(np.float64)
    expected = np.argsort(-table, axis=1)[:, :7]
    assert (scores.dtype, indices.dtype) == ("float32", "int32")
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(scores, np.take_along_axis(table, expected, axis=1), rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_top_k_takes_a_single_query(backend: str) -> None:
    scores, indices = fastmf.top_k(QUERIES[2], CATALOGUE, 3, backend=backend)

    assert scores.shape == indices.shape == (1, 3)
    np.testing.assert_array_equal(indices[0], fastmf.top_k(QUERIES, CATALOGUE, 3, backend=backend).indices[2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_top_k_leaves_out_what_is_excluded(backend: str) -> None:
    lists = [[], [3, 1, 1], list(range(40)), [39], list(range(38))]  # in any order, with repetition, all of them

    scores, indices = fastmf.top_k(QUERIES, CATALOGUE, 5, exclude=rows(*lists), backend=backend)

    for query, listed_items in enumerate(lists):
        order = np.argsort(-(CATALOGUE @ QUERIES[query]))
        expected = [int(i) for i in order if i not in listed_items][:5]
        assert indices[query].tolist() == expected + [-1] * (5 - len(expected))
        assert np.isneginf(scores[query, len(expected) :]).all()
        assert np.isfinite(scores[query, : len(expected)]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_top_k_pads_where_k_is_larger_than_the_catalogue(backend: str) -> None:
    scores, indices = fastmf.top_k(QUERIES, CATALOGUE[:2], 4, backend=backend)

    assert sorted(indices[0].tolist()) == [-1, -1, 0, 1]
    assert indices[:, 2:].tolist() == [[-1, -1]] * 5
    assert np.isneginf(scores[:, 2:]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_top_k_gives_ties_to_the_lower_index(backend: str) -> None:
    scores, indices = fastmf.top_k(np.ones((1, 2)), np.ones((50, 2)), 4, backend=backend)

    assert indices.tolist() == [[0, 1, 2, 3]]
    assert scores.tolist() == [[2, 2, 2, 2]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("n_queries", "n_items"), [(0, 4), (3, 0)])
def test_top_k_of_nothing_is_nothing(n_queries: int, n_items: int, backend: str) -> None:
    scores, indices = fastmf.top_k(QUERIES[:n_queries], CATALOGUE[:n_items], 2, backend=backend)

    assert indices.tolist() == [[-1, -1]] * n_queries
    assert scores.shape == (n_queries, 2)


@pytest.mark.parametrize("n_threads", [1, 2, None])
def test_top_k_does_not_depend_on_threads(n_threads: int | None) -> None:
    many = np.random.default_rng(2).standard_normal((300, 3)).astype(np.float32)

    scores, indices = fastmf.top_k(many, CATALOGUE, 5, n_threads=n_threads)

    expected = fastmf.top_k(many, CATALOGUE, 5, backend="reference")
    np.testing.assert_array_equal(indices, expected.indices)
    np.testing.assert_allclose(scores, expected.scores, rtol=1e-5)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("pruning", [True, False])
@pytest.mark.parametrize("n_queries", [1, 20])
def test_top_k_in_an_index(n_queries: int, pruning: bool, backend: str) -> None:
    queries = np.tile(QUERIES, (20, 1))[:n_queries]
    index = fastmf.index_items(CATALOGUE, pruning=pruning, backend=backend)
    expected = fastmf.top_k(queries, CATALOGUE, 4, backend="reference")

    scores, indices = fastmf.top_k(queries, index, 4, backend=backend)

    np.testing.assert_array_equal(indices, expected.indices)
    np.testing.assert_array_equal(scores, expected.scores)
    found = fastmf.top_k(queries, CATALOGUE, 4, pruning=pruning, backend=backend)
    np.testing.assert_array_equal(found.indices, expected.indices)


def test_an_index_of_no_table_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"items have shape \(3,\); expected \(n_items, n_factors\)"):
        fastmf.index_items(np.ones(3))


def test_top_k_takes_any_layout_and_float_type() -> None:
    expected = fastmf.top_k(QUERIES, CATALOGUE, 3).indices.tolist()

    assert fastmf.top_k(np.asfortranarray(QUERIES), CATALOGUE.astype(np.float64), 3).indices.tolist() == expected
    assert fastmf.top_k(QUERIES.tolist(), CATALOGUE.tolist(), 3).indices.tolist() == expected


def test_top_k_takes_an_exclusion_of_plain_lists() -> None:
    assert fastmf.top_k([1, 0], [[1, 2], [3, 4]], 2, exclude=([0, 0], [])).indices.tolist() == [[1, 0]]
    assert fastmf.top_k([1, 0], [[1, 2], [3, 4]], 2, exclude=([0, 1], [1])).indices.tolist() == [[0, -1]]


@pytest.mark.parametrize(
    ("queries", "items", "message"),
    [
        (np.ones((5, 3)), np.ones((40, 4)), "queries have shape (5, 3) and items (40, 4); expected (n_queries,"),
        (np.ones(2), np.ones((40, 3)), "queries have shape (1, 2) and items (40, 3); expected"),
        (np.ones((2, 3, 4)), np.ones((40, 4)), "queries have shape (2, 3, 4) and items (40, 4); expected"),
        (np.ones((2, 3)), np.ones(3), "queries have shape (2, 3) and items (3,); expected"),
    ],
)
def test_shapes_that_do_not_fit_are_both_named(queries: np.ndarray, items: np.ndarray, message: str) -> None:
    with pytest.raises(ParameterError) as error:
        fastmf.top_k(queries, items, 1)

    assert message in str(error.value)


@pytest.mark.parametrize(
    ("exclude", "message"),
    [
        (
            ([0, 1], [0]),
            "exclude has an indptr of shape (2,) for 5 queries and 1 indices; expected 6 offsets that rise",
        ),
        (([0, 1, 1, 1, 1, 2], [0]), "expected 6 offsets that rise from 0 to 1"),
        (([1, 1, 1, 1, 1, 1], [0]), "expected 6 offsets that rise from 0 to 1"),
        (([0, 2, 1, 1, 1, 2], [0, 1]), "expected 6 offsets that rise from 0 to 2"),
        (([0, 1, 1, 1, 1, 1], [40]), "exclude names items 40 to 40; expected indices of the 40 items, from 0"),
        (([0, 2, 2, 2, 2, 2], [-1, 5]), "exclude names items -1 to 5; expected indices of the 40 items, from 0"),
        (([0, 1, 1, 1, 1, 1], [0.5]), "indices of float64 (1,); expected two integer arrays of one dimension"),
        (([[0, 1, 1, 1, 1, 1]], [0]), "an indptr of int64 (1, 6) and indices of int64 (1,); expected two integer"),
        ("seen", "exclude is a str; expected (indptr, indices), as in a CSR matrix"),
        (5, "exclude is a int; expected (indptr, indices), as in a CSR matrix"),
    ],
    ids=str,
)
def test_an_exclusion_that_does_not_fit_is_refused(exclude: Any, message: str) -> None:
    with pytest.raises(ParameterError) as error:
        fastmf.top_k(QUERIES, CATALOGUE, 1, exclude=exclude)

    assert message in str(error.value)


@pytest.mark.parametrize("k", [0, -1, 1.5, None])
def test_k_must_be_a_count(k: Any) -> None:
    with pytest.raises(ParameterError, match=r"k is .*; expected an integer of at least 1"):
        fastmf.top_k(QUERIES, CATALOGUE, k)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ParameterError, match="backend is 'gpu'; expected one of 'cpu', 'reference', 'cuda'"):
        fastmf.top_k(QUERIES, CATALOGUE, 1, backend="gpu")
