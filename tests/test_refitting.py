"""A model that is used while it is fitted again answers as the one fit or as the other, never as a mixture.

``python tests/test_refitting.py`` runs the stress test in a process of its own, on the threading layer of the
environment.
"""

import copy
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf.errors import NotFittedError, ParameterError
from fastmf.models import FACTOR_MODELS, FactorModel

Answer = Callable[[FactorModel, Path], Any]


class Fit(NamedTuple):
    """Ratings, and the parameters that the model has when it is fitted to them."""

    ratings: fastmf.Interactions
    params: dict[str, Any]


SMALL = Fit(fastmf.testing.power_law(60, 40, 700, n_factors=3, seed=0), {"n_factors": 4})
LARGE = Fit(fastmf.testing.power_law(90, 70, 1500, n_factors=3, seed=1), {"n_factors": 7})
FITS = (SMALL, LARGE)
TEST = fastmf.testing.power_law(100, 80, 900, n_factors=3, seed=2)
PAIRS = np.divmod(np.arange(90 * 70), 70)


def bits(*arrays: Any) -> tuple[bytes, ...]:
    return tuple(np.asarray(array).tobytes() for array in arrays)


def recommended(model: FactorModel, _: Path) -> Any:
    found = model.recommend(k=5)
    return bits(found.users, found.items, found.scores)


def recommended_to_some(model: FactorModel, _: Path) -> Any:
    found = model.recommend([3, 7, 11], k=5, exclude=None, deny=[1, 2], allow={3: [5, 6], 7: [8], 11: [9]})
    return bits(found.users, found.items, found.scores)


def written(model: FactorModel, folder: Path) -> Any:
    path = folder / f"{threading.get_ident()}.parquet"
    model.recommend_to_parquet(path, k=3, overwrite=True)
    return pq.read_table(path).to_pydict()


def saved(model: FactorModel, folder: Path) -> Any:
    path = folder / f"model-{threading.get_ident()}"
    model.save(path, overwrite=True)
    loaded = fastmf.load(path)
    return bits(loaded.user_factors, loaded.item_factors, loaded.item_ids), len(loaded.history)


def near_items(model: FactorModel, _: Path) -> Any:
    found = model.similar_items([1, 5], k=4)
    return bits(found.neighbours, found.scores)


def near_users(model: FactorModel, _: Path) -> Any:
    found = model.similar_users([2, 9], k=4)
    return bits(found.neighbours, found.scores)


def rows_of_copy(model: FactorModel, _: Path) -> Any:
    copied = copy.copy(model)
    return bits(copied.user_factors, copied.item_factors, copied.user_biases, copied.item_biases, copied.global_mean)


def measured(model: FactorModel, _: Path) -> Any:
    return fastmf.evaluate(model, TEST, k=5, metrics=["rmse", "ndcg", "auc", "coverage"])


ANSWERS: dict[str, Answer] = {
    "predict": lambda model, _: bits(model.predict(*PAIRS)),
    "predict_indices": lambda model, _: bits(model.predict_indices(*(side[:50] % 40 for side in PAIRS))),
    "recommend": recommended,
    "recommend to some": recommended_to_some,
    "recommend_to_parquet": written,
    "similar_items": near_items,
    "similar_users": near_users,
    "save": saved,
    "copy": rows_of_copy,
    "pickle": lambda model, _: bits(pickle.loads(pickle.dumps(model)).predict(*PAIRS)),
    "evaluate": measured,
}


def fit(model: FactorModel, fit: Fit) -> FactorModel:
    return model.set_params(**fit.params).fit(fit.ratings)


def stress(kind: type[FactorModel], folder: Path, n_fits: int) -> dict[str, int]:
    """Answer from many threads while one fits again and again; returns how often each method answered."""
    expected = {name: [answer(fit(kind(n_epochs=1), one), folder) for one in FITS] for name, answer in ANSWERS.items()}
    model, is_over = fit(kind(n_epochs=1), FITS[0]), threading.Event()

    def ask(name: str) -> int:
        n_answers = 0
        while not (is_over.is_set() and n_answers):
            found = ANSWERS[name](model, folder)
            assert found in expected[name], f"{kind.__name__}: {name} is of neither fit"
            n_answers += 1
        return n_answers

    with ThreadPoolExecutor(len(ANSWERS)) as pool:
        asking = {name: pool.submit(ask, name) for name in ANSWERS}
        try:
            for number in range(n_fits):
                fit(model, FITS[number % 2])
        finally:
            is_over.set()
    return {name: future.result() for name, future in asking.items()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FACTOR_MODELS.values(), ids=FACTOR_MODELS)
def test_answers_while_a_model_is_fitted_again_are_of_one_fit(kind: type[FactorModel], tmp_path: Path) -> None:
    answered = stress(kind, tmp_path, n_fits=20)

    assert min(answered.values()) > 0


@pytest.mark.stress
@pytest.mark.slow
@pytest.mark.parametrize("layer", ["omp", "tbb", "workqueue"])
def test_answers_are_of_one_fit_on_every_threading_layer(layer: str) -> None:
    environment = {
        **os.environ,
        "NUMBA_THREADING_LAYER": layer,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        # Where pip puts libtbb, and the loader does not look.
        "LD_LIBRARY_PATH": os.pathsep.join([f"{sys.prefix}/lib", *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]),
    }
    command = [sys.executable, "-W", "error", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)

    if "No threading layer could be loaded" in done.stderr:
        pytest.skip(f"{layer} is not installed")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == layer


@pytest.mark.parametrize("kind", [pytest.param(kind, id=name) for name, kind in FACTOR_MODELS.items()])
def test_other_threads_see_the_fit_before_until_one_is_done(kind: type[FactorModel]) -> None:
    model = kind(n_factors=8, n_epochs=2)
    seen: list[Any] = []

    def look(_: FactorModel, record: dict[str, Any]) -> None:
        assert model.history[-1] is record  # the thread that fits sees how far it has come
        with ThreadPoolExecutor(1) as pool:
            seen.append(pool.submit(lambda: (model.history, model.user_factors)).exception() or len(model.user_ids))
            if not isinstance(seen[-1], NotFittedError):
                seen[-1] = pool.submit(lambda: (len(model.user_ids), len(model.history))).result()

    model.fit(SMALL.ratings, callbacks=[look])
    assert [type(found) for found in seen] == [NotFittedError] * 2
    seen.clear()

    model.set_params(n_epochs=3).fit(LARGE.ratings, callbacks=[look])

    assert seen == [(60, 2)] * 3
    assert (len(model.user_ids), len(model.history)) == (90, 3)


def test_a_copy_made_in_a_callback_is_of_that_epoch_in_every_thread() -> None:
    copies: list[fastmf.SGD] = []
    model = fastmf.SGD(n_factors=3, n_epochs=2).fit(
        SMALL.ratings, callbacks=[lambda model, _: copies.append(copy.deepcopy(model))]
    )

    with ThreadPoolExecutor(1) as pool:
        lengths = [pool.submit(lambda copied: len(copied.history), copied).result() for copied in copies]
    assert lengths == [1, 2]
    first, last = (copied.predict(*PAIRS) for copied in copies)
    np.testing.assert_array_equal(last, model.predict(*PAIRS))
    assert not np.array_equal(first, last)


def test_a_fit_that_fails_leaves_what_was_there() -> None:
    model = fastmf.SGD(n_factors=3, n_epochs=2).fit(SMALL.ratings)
    before, history = model.user_factors, model.history

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(LARGE.ratings, callbacks=[fail])

    assert model.user_factors is before
    assert model.history is history


BAD_ROWS: list[tuple[Any, Any, str]] = [
    ([0, 60], [0, 0], "users run from 0 to 60; expected rows from 0 to 59, or -1"),
    ([0, 1], [-2, 0], "items run from -2 to 0; expected rows from 0 to 39, or -1"),
    (np.array([2**40]), [0], f"users run from {2**40} to {2**40}; expected rows"),
    ([0, 1], [0], "got 2 users and 1 items; expected as many of each"),
    ([0.5], [0], r"users are float64 of shape \(1,\); expected integers in one dimension"),
    ([[0]], [0], r"users are int64 of shape \(1, 1\); expected integers"),
    (3, [0], r"users are int64 of shape \(\); expected integers"),
    ([None], [0], r"users are object of shape \(1,\); expected integers"),
    (["1"], [0], "users are <U1 of shape"),
    ([True], [0], "users are bool of shape"),
]


@pytest.mark.parametrize(("users", "items", "message"), BAD_ROWS)
def test_rows_that_there_are_not_are_refused(users: Any, items: Any, message: str) -> None:
    model = fastmf.ALS(n_factors=2, n_epochs=1).fit(SMALL.ratings)

    with pytest.raises(ParameterError, match=message):
        model.predict_indices(users, items)
    assert model.predict_indices([], []).shape == (0,)
    assert model.predict_indices([0, -1], np.array([-1, 3])).shape == (2,)


if __name__ == "__main__":
    from fastmf_kernels import _jit

    with tempfile.TemporaryDirectory() as name:
        for model_class in FACTOR_MODELS.values():
            stress(model_class, Path(name), n_fits=20)
    print(_jit.threading_layer())
