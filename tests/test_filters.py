"""Filters in every form that a caller may have them in: what can be read only once is read once, for all users."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf.errors import ParameterError, UnknownIdError
from fastmf.models import FactorModel

N_USERS, N_ITEMS = 40, 20
SOME = [3, 7, 11]


@pytest.fixture(scope="module")
def model() -> FactorModel:
    return fastmf.ALS(n_factors=3, n_epochs=3).fit(fastmf.testing.low_rank(N_USERS, N_ITEMS))


def generated(values: Any) -> Iterator[Any]:
    yield from values


ONCE: dict[str, Callable[[Any], Any]] = {
    "iterator": iter,
    "generator": generated,
    "map": lambda values: map(int, values),
    "filter": lambda values: filter(lambda item: item >= 0, values),
    "zip": lambda values: (item for (item,) in zip(values, strict=True)),
}
AGAIN: dict[str, Callable[[Any], Any]] = {
    "set": set,
    "frozenset": frozenset,
    "keys": lambda values: dict.fromkeys(values).keys(),
    "values": lambda values: dict(enumerate(values)).values(),
    "range": lambda values: range(values[0], values[-1] + 1, 4),
}
FORMS = {**ONCE, **AGAIN}


def answers(model: FactorModel, folder: Path, **request: Any) -> pa.Table:
    """Ask for all users at once, user by user, and through a file; all answers must be the same."""
    table = model.recommend(k=10, exclude=None, **{name: make() for name, make in request.items()}).to_arrow()
    model.recommend_to_parquet(
        folder / "recs.parquet", 10, exclude=None, overwrite=True, **{name: make() for name, make in request.items()}
    )
    assert pq.read_table(folder / "recs.parquet") == table
    for user in (0, 1, 30):
        alone = model.recommend(
            [user], k=10, exclude=None, **{name: make() for name, make in request.items()}
        ).to_arrow()
        expected = [row["item_id"] for row in table.to_pylist() if row["user_id"] == user]
        assert alone["item_id"].to_pylist() == expected
    return table


@pytest.mark.parametrize("name", ["allow", "deny"])
@pytest.mark.parametrize("form", FORMS)
def test_a_list_for_all_users(form: str, name: str, model: FactorModel, tmp_path: Path) -> None:
    table = answers(model, tmp_path, **{name: lambda: FORMS[form](SOME)})

    assert table.equals(answers(model, tmp_path, **{name: lambda: SOME}))
    assert (set(table["item_id"].to_pylist()) <= set(SOME)) == (name == "allow")


@pytest.mark.parametrize("name", ["allow", "deny"])
@pytest.mark.parametrize("form", FORMS)
def test_a_list_for_each_user(form: str, name: str, model: FactorModel, tmp_path: Path) -> None:
    lists = {0: SOME, 1: [5, 9], 2: [], 99: [1, 5]} if form != "range" else {0: SOME, 1: [5, 9]}

    table = answers(model, tmp_path, **{name: lambda: {user: FORMS[form](row) for user, row in lists.items() if row}})

    assert table.equals(answers(model, tmp_path, **{name: lambda: lists}))


def test_deny_and_allow_read_once_at_a_time(model: FactorModel) -> None:
    items = model.recommend(k=10, exclude=None, allow=iter(range(8)), deny={1: iter([3]), 2: iter([4, 5])}).items

    assert 3 not in items[1]
    assert not {4, 5} & set(items[2].tolist())
    assert {3, 4, 5} <= set(items[0].tolist())


@pytest.mark.parametrize("once", ONCE)
def test_users_may_share_a_list_that_can_be_read_once(once: str, model: FactorModel) -> None:
    def shared(items: list[int]) -> dict[int, Any]:
        return dict.fromkeys(range(N_USERS), ONCE[once](items))

    assert not np.isin(model.recommend(k=10, exclude=None, deny=shared([3, 7])).items, [3, 7]).any()
    allowed = model.recommend(k=2, exclude=None, allow=shared([3, 7])).items
    np.testing.assert_array_equal(np.sort(allowed), np.tile([3, 7], (N_USERS, 1)))


def test_users_that_can_be_read_once(model: FactorModel) -> None:
    assert model.recommend(iter([5, 2]), k=3).user_ids.to_pylist() == [5, 2]
    assert model.similar_items(iter([5, 2]), k=3).ids.to_pylist() == [5, 2]
    assert model.similar_users((user for user in [5]), k=3).ids.to_pylist() == [5]
    assert len(model.predict(iter([1, 2]), iter([3, 4]))) == 2
    for ask in (model.recommend, model.similar_items, model.similar_users):
        with pytest.raises(UnknownIdError, match=r"1 of 2 ids in '.*' are unknown to the model: 1000"):
            ask(iter([5, 1000]), k=3)


@pytest.mark.parametrize("name", ["allow", "deny"])
@pytest.mark.parametrize("value", [5, 2.5, object()])
def test_what_lists_no_items_is_refused(value: Any, name: str, model: FactorModel) -> None:
    with pytest.raises(ParameterError, match=f"{name} is .*; expected a list of item ids, a dict or Interactions"):
        model.recommend(k=3, **{name: value})


def test_names_of_metrics_and_cut_offs_may_be_read_once(model: FactorModel) -> None:
    test = fastmf.testing.low_rank(N_USERS, N_ITEMS, seed=1)

    once = fastmf.evaluate(model, test, k=iter([3, 5]), metrics=iter(["ndcg", "recall"]))  # type: ignore[arg-type]

    assert once == fastmf.evaluate(model, test, k=(3, 5), metrics=["ndcg", "recall"])
    assert once == fastmf.evaluate(model, test, k=np.array([3, 5]), metrics=["ndcg", "recall"])  # type: ignore[arg-type]
