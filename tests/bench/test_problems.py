"""Problems on disk: as large as asked for, the same for the same seed, and refused where memory is short."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf.errors import DataError
from fastmf_bench import problems
from fastmf_bench.problems import SHAPES, Problem, Shape, TooLargeError

SHAPE = Shape("small", 60, 40, 700)


def pairs(ratings: fastmf.Interactions) -> set[tuple[int, int]]:
    return set(zip(ratings.users.tolist(), ratings.items.tolist(), strict=True))


def check(problem: Problem) -> None:
    train, test = problem.train(), problem.test()
    assert train.n_ratings == problem.n_train
    assert train.n_ratings + test.n_ratings == problem.shape.n_ratings
    assert not pairs(train) & pairs(test)
    assert (train.n_users, train.n_items) == (problem.shape.n_users, problem.shape.n_items)


def test_shapes_of_the_data_sets() -> None:
    assert {"ml-1m", "ml-10m", "ml-20m", "netflix"} <= set(SHAPES)
    assert all(
        shape.name == name and 2 * shape.n_ratings < shape.n_users * shape.n_items for name, shape in SHAPES.items()
    )


def test_a_generated_problem_has_just_its_size(tmp_path: Path) -> None:
    problem = problems.generate(SHAPE, tmp_path, seed=0)

    check(problem)
    assert problem.test().n_ratings == 70
    assert problems.open_problem(str(problem.folder)) == problem


def test_the_seed_makes_the_problem(tmp_path: Path) -> None:
    def values(folder: str, seed: int) -> list[float]:
        return problems.generate(SHAPE, tmp_path / folder, seed).train().ratings.tolist()

    assert values("a", 0) == values("b", 0) != values("b", 1)


def test_a_problem_that_was_kept_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problems.generate(SHAPE, tmp_path, seed=0)
    monkeypatch.delattr(problems, "power_law")

    check(problems.generate(SHAPE, tmp_path, seed=0))


def test_too_little_memory_is_said_with_both_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "available_memory", lambda: 3 * 2**30)

    with pytest.raises(TooLargeError, match=r"netflix .* needs about 9\.4 GiB of memory, and 3\.0 GiB are available"):
        problems.generate(SHAPES["netflix"], tmp_path, seed=0)
    assert not list(tmp_path.iterdir())


def test_memory_available_is_less_than_the_machine_has() -> None:
    assert 2**24 < problems.available_memory() < 2**50


def test_a_file_of_ratings_becomes_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    fastmf.testing.film_club(n_users=30, n_items=20, mean_ratings=8).to_parquet(path)

    problem = problems.from_file(path, tmp_path, seed=0)

    assert problem.name == "mine"
    check(problem)


def test_a_file_that_is_not_ratings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    pq.write_table(pa.table({"a": [1], "b": [2]}), path)

    with pytest.raises(DataError, match="user_id"):
        problems.from_file(path, tmp_path, seed=0)


@pytest.mark.parametrize("with_ratings", [True, False])
def test_a_given_split_stays_as_it_is(with_ratings: bool, tmp_path: Path) -> None:
    parts = {"train": ([3, 3, 5], [10, 20, 10]), "test": ([5, 9], [20, 30])}
    for name, (users, items) in parts.items():
        columns = {"user_id": users, "item_id": items, "rating": np.arange(len(users), dtype=np.float32)}
        pq.write_table(pa.table(columns if with_ratings else dict(list(columns.items())[:2])), tmp_path / name)

    problem = problems.from_split("given", tmp_path / "train", tmp_path / "test", tmp_path)

    assert (problem.train().users.tolist(), problem.train().items.tolist()) == ([0, 0, 1], [0, 1, 0])
    assert (problem.test().users.tolist(), problem.test().items.tolist()) == ([1, 2], [1, 2])
    assert problem.train().ratings.tolist() == ([0, 1, 2] if with_ratings else [1, 1, 1])
