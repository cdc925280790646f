"""What contestants do between laps, without the processes: their work, and the quality of their answers."""

import stat
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.sparse

import fastmf
from fastmf.errors import FastMFError
from fastmf_bench import libmf, problems, quality
from fastmf_bench.pace import Lap
from fastmf_bench.problems import Problem, Shape
from fastmf_bench.suites import SUITES, TASKS, serve, topk
from fastmf_bench.suites import quality as quality_suite


class Laps:
    """A pace that ends after some laps and keeps the laps it was handed."""

    def __init__(self, n: int) -> None:
        self.calls, self._n, self.handed = 0, n, []  # type: ignore[var-annotated]

    def __call__(self, lap: Lap | None = None) -> bool:
        self.calls += 1
        if lap is not None:
            self.handed.append(lap)
        return self.calls <= self._n


@pytest.fixture
def problem(tmp_path: Path) -> Problem:
    return problems.generate(Shape("small", 80, 50, 1200), tmp_path, seed=0)


def run(task: str, problem: Problem, n_laps: int = 2, **arguments: Any) -> tuple[dict[str, Any], Laps]:
    laps = Laps(n_laps)
    return TASKS[task](laps, folder=str(problem.folder), **arguments), laps


def test_every_suite_has_tasks_of_its_own() -> None:
    assert {task.partition(".")[0] for task in TASKS} == {*SUITES, "cuda", "ceilings", "problems"}


def test_a_training_ends_with_the_last_lap(problem: Problem) -> None:
    metrics, laps = run("als.fastmf", problem, n_factors=4, n_threads=1, solver="cholesky")

    assert laps.calls == 3
    assert metrics["epochs"] == 3  # one of them warm-up
    assert 0 < metrics["NDCG@10"] < 1


def test_sgd_walks_enough_ratings_and_reports_one_epoch(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastmf_bench.suites.sgd._RATINGS_A_LAP", 3 * problem.n_train)

    metrics, laps = run("sgd.fastmf", problem, n_factors=4, n_threads=1)

    assert (laps.calls, metrics["epochs"]) == (3, 9)
    assert len(laps.handed) == 2
    assert 0.5 < metrics["test RMSE"] < 2


def test_explicit_training_reports_its_error(problem: Problem) -> None:
    metrics, _ = run("als.fastmf_explicit", problem, n_factors=4, n_threads=1)

    assert 0.5 < metrics["test RMSE"] < 2


def test_curves_rise_in_time_and_have_every_epoch(problem: Problem) -> None:
    metrics, _ = run("sgd.fastmf_curve", problem, n_factors=4, n_threads=1)

    seconds, errors = np.array(metrics["curve"]).T
    assert len(seconds) == 30
    assert (np.diff(seconds) > 0).all()
    assert errors.min() == metrics["best RMSE"]


@pytest.mark.parametrize("task", ["sgd.numpy", "als.numpy"])
def test_numpy_says_what_part_it_did(task: str, problem: Problem) -> None:
    metrics, laps = run(task, problem, n_factors=4)

    assert laps.calls == 3
    assert metrics["work"] > 0
    assert metrics["note"].startswith(("on 1,080 of", "the rows of 80 users"))


class FakeALS:
    """Stands for implicit's class: keeps the confidences that it is given, and reports three epochs."""

    given: ClassVar[list[scipy.sparse.csr_matrix]] = []

    def __init__(self, factors: int, iterations: int = 3, **settings: Any) -> None:
        self._n_factors, self._n_epochs = factors, min(iterations, 3)

    def fit(
        self, confidences: scipy.sparse.csr_matrix, show_progress: bool = False, callback: Any = lambda *_: None
    ) -> None:
        self.given.append(confidences)
        self.user_factors, self.item_factors = (np.ones((n, self._n_factors), np.float32) for n in confidences.shape)
        for epoch in range(self._n_epochs):
            callback(epoch, 0.1, None)


@pytest.fixture
def fake_als(monkeypatch: pytest.MonkeyPatch) -> type[FakeALS]:
    for name in ("implicit", "implicit.cpu", "implicit.cpu.als"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["implicit.cpu.als"].AlternatingLeastSquares = FakeALS  # type: ignore[attr-defined]
    monkeypatch.setattr(FakeALS, "given", [])
    return FakeALS


IMPLICIT_TASKS = {
    "als.implicit": {"n_factors": 4, "n_threads": 1, "use_cg": False},
    "memory.implicit": {"n_factors": 4, "n_threads": 1},
    "quality.implicit_curve": {"n_threads": 1, "use_cg": False},
}


@pytest.mark.parametrize("task", IMPLICIT_TASKS)
def test_implicit_is_given_no_cell_that_it_skips(task: str, problem: Problem, fake_als: type[FakeALS]) -> None:
    run(task, problem, **IMPLICIT_TASKS[task])

    (given,) = fake_als.given
    assert given.nnz == problem.n_train
    assert given.data.min() > 1


@pytest.mark.parametrize("rating", [0.0, -0.5, -2.0, 1e-9])
def test_ratings_on_which_implicit_skips_work_are_refused(
    rating: float, problem: Problem, fake_als: type[FakeALS]
) -> None:
    path = problem.folder / "train-ratings.npy"
    ratings = np.load(path)
    ratings[:3] = rating
    np.save(path, ratings)

    for task in ("als.implicit", "memory.implicit"):
        with pytest.raises(FastMFError, match=r"^3 of 1,080 confidences are not above 1, where implicit does less"):
            run(task, problem, **IMPLICIT_TASKS[task])
    assert fake_als.given == []


def scores(arrays: topk.Arrays, seen: bool) -> np.ndarray[Any, np.dtype[np.float64]]:
    table = arrays.users.astype(np.float64) @ arrays.items.astype(np.float64).T
    if seen:
        for user in range(len(table)):
            table[user, arrays.seen[arrays.indptr[user] : arrays.indptr[user + 1]]] = -np.inf
    return table


@pytest.mark.parametrize("seen", [False, True])
def test_scans_agree_with_exact_scores(seen: bool, tmp_path: Path) -> None:
    arrays = topk.random_arrays(30, 400, seed=0)
    arrays.save(tmp_path)
    assert all(len(set(row)) == 100 and max(row) < 400 for row in arrays.seen.reshape(30, 100).tolist())

    metrics = topk.scan_fastmf(Laps(1), str(tmp_path), k=5, seen=seen, n_threads=1, pruning=seen)

    assert metrics == {"agreement": 1.0}
    best = np.argsort(-scores(arrays, seen), axis=1)[:, :5]
    assert topk.agreement(arrays, best.astype(np.int32), 5, seen) == 1
    assert topk.agreement(arrays, best.astype(np.int32)[::-1], 5, seen) < 0.2
    if not seen:
        assert topk.scan_numpy(Laps(1), str(tmp_path), k=5) == {"agreement": 1.0}


SERVED: dict[str, tuple[str, dict[str, Any]]] = {
    "fastmf": ("fastmf", {}),
    "seen left out": ("fastmf", {"seen": True}),
    "a named filter": ("fastmf", {"filtered": True}),
    "numpy": ("numpy", {}),
}


@pytest.mark.parametrize("case", SERVED)
@pytest.mark.parametrize("callers", [1, 3])
def test_what_is_served_agrees_with_exact_scores(
    callers: int, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "_REQUESTS_A_LAP", 20)
    folder = topk.random_arrays(30, 1500, seed=0).save(tmp_path)
    task, arguments = SERVED[case]

    metrics = TASKS[f"serve.{task}"](Laps(2), folder=folder, callers=callers, **arguments)

    assert metrics["agreement"] == 1
    assert 0 < metrics[serve.MEDIAN] <= metrics[serve.P99]


def test_each_request_of_a_lap_is_timed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_REQUESTS_A_LAP", 50)
    asked: list[int] = []

    metrics = serve._timed(Laps(2), asked.append, callers=4, n_users=7)

    assert len(asked) == 150  # a lap of warm-up, too
    assert set(asked) == set(range(7))
    assert metrics.keys() == {serve.MEDIAN, serve.P99}


def test_rmse_of_factors_and_biases(problem: Problem) -> None:
    rng = np.random.default_rng(0)
    p, q = rng.random((80, 3), np.float32), rng.random((50, 3), np.float32)
    user_biases, item_biases = rng.random(80, np.float32), rng.random(50, np.float32)
    test = problem.test()

    exact = 3 + user_biases[test.users] + item_biases[test.items] + (p @ q.T)[test.users, test.items]

    found = quality.rmse(problem, p, q, user_biases, item_biases, mean=3.0)
    assert found == pytest.approx(np.sqrt(np.mean((test.ratings - exact) ** 2)), rel=1e-5)


def test_ndcg_leaves_out_the_training_items(problem: Problem) -> None:
    rng = np.random.default_rng(0)
    p, q = rng.random((80, 3), np.float32), rng.random((50, 3), np.float32)
    train, test = problem.train(), problem.test()
    table = p @ q.T
    table[train.users, train.items] = -np.inf
    best = np.argsort(-table, axis=1)[:, :10]
    users = np.unique(test.users)

    expected = fastmf.metrics.ndcg_at_k(best[users], [test.items[test.users == u].tolist() for u in users], 10)

    assert quality.ndcg(problem, p, q) == pytest.approx(expected)


LIBMF = """#!{python}
import sys, time
epochs = int(sys.argv[sys.argv.index("-t") + 1])
if "--quiet" in sys.argv:
    end = time.perf_counter() + 0.01 + 1e-6 * epochs
    while time.perf_counter() < end:
        pass
else:
    assert open(sys.argv[sys.argv.index("-p") + 1]).readline().split()[2]
    print("iter      tr_rmse      va_rmse          obj")
    for epoch in range(epochs):
        print(f"{{epoch:4}} 1.0 {{1 / (epoch + 1):.4f}} 1e3")
    print("real tr_rmse = 0.5")
"""


@pytest.fixture
def mf_train(tmp_path: Path) -> str:
    program = tmp_path / "mf-train"
    program.write_text(LIBMF.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


@pytest.mark.skipif(sys.platform == "win32", reason="a script with a shebang")
def test_errors_of_libmf_are_those_that_it_prints(mf_train: str, problem: Problem) -> None:
    metrics = TASKS["sgd.libmf_curve"](Laps(0), str(problem.folder), 4, 1, mf_train)

    seconds, errors = np.array(metrics["curve"]).T
    assert errors.tolist() == [round(1 / (epoch + 1), 4) for epoch in range(30)]
    assert np.allclose(np.diff(seconds), seconds[0])


def test_libmf_reads_what_we_write(problem: Problem) -> None:
    train, test = libmf.write_text(problem)

    for path, ratings in ((train, problem.train()), (test, problem.test())):
        users, items, values = np.loadtxt(path).T
        assert (users == ratings.users).all()
        assert (items == ratings.items).all()
        assert (values == ratings.ratings).all()


def test_metrics_over_seeds_are_means_with_their_spread() -> None:
    metrics = quality_suite._over_seeds([1, 2, 6], lambda seed: {"error": float(seed)})

    assert (metrics["error"], metrics["error, spread"]) == (3, 5)
    assert metrics["seconds"] >= 0


def test_time_to_a_goal_is_that_of_the_first_to_reach_it() -> None:
    curve = [(1.0, 0.9), (2.0, 0.85), (3.0, 0.8)]

    assert quality.of_errors(curve, 0.85) == {"best RMSE": 0.8, "seconds to goal": 2, "curve": curve}
    assert quality.of_errors(curve, 0.7)["seconds to goal"] is None
    assert quality.of_errors(curve)["seconds to goal"] is None
    assert quality.of_rankings(curve, 0.85) == {"best NDCG@10": 0.9, "seconds to goal": 1, "curve": curve}
