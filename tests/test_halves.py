"""Models whose factors are stored as float16: what is kept, what is rounded, and what is refused."""

import copy
import json
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastmf
from fastmf.cli import main
from fastmf.errors import ModelError, ParameterError
from fastmf.keeping.halves import LARGEST_HALF, to_halves
from fastmf.keeping.manifest import MANIFEST
from fastmf.models import MODELS, FactorModel

MODEL_CLASSES = [kind for kind in MODELS.values() if issubclass(kind, FactorModel)]


@pytest.fixture(scope="module")
def ratings() -> fastmf.Interactions:
    return fastmf.testing.power_law(25, 20, 160, n_factors=2, seed=0)


@pytest.fixture
def model(ratings: fastmf.Interactions) -> FactorModel:
    return fastmf.SGD(n_factors=3, n_epochs=2).fit(ratings)


def rounded(array: Any) -> Any:
    return array.astype(np.float16).astype(np.float32)


@pytest.mark.parametrize("kind", MODEL_CLASSES)
def test_factors_are_rounded_and_all_else_is_as_it_was(
    kind: type[FactorModel], ratings: fastmf.Interactions, tmp_path: Path
) -> None:
    model = kind(n_factors=3, n_epochs=2).fit(ratings)
    model.save(tmp_path / "model", factor_dtype="float16")

    loaded = fastmf.load(tmp_path / "model", verify=True)

    for name in ("user_factors", "item_factors"):
        array = getattr(loaded, name)
        assert (array.dtype, array.flags.c_contiguous) == (np.float32, True)
        assert array.tobytes() == rounded(getattr(model, name)).tobytes()
        assert np.load(tmp_path / "model" / f"{name}.npy").dtype == np.float16
    for name in ("user_biases", "item_biases"):
        assert getattr(loaded, name).tobytes() == getattr(model, name).tobytes()
    for name, array in model.fitted.state.items():
        expected = rounded(array) if "factors" in name else array
        assert loaded.fitted.state[name].tobytes() == expected.tobytes()
    # The answers are those of a model with the rounded factors.
    model.fitted.factors.user_factors[:] = rounded(model.user_factors)
    model.fitted.factors.item_factors[:] = rounded(model.item_factors)
    twin = copy.copy(model)
    twin.restore(model.fitted.copy(), model.history)
    assert loaded.recommend(k=5).to_arrow() == twin.recommend(k=5).to_arrow()
    assert loaded.similar_items([3], k=4).to_arrow() == twin.similar_items([3], k=4).to_arrow()


def test_halves_stay_mapped_until_they_are_used(model: FactorModel, tmp_path: Path) -> None:
    model.save(tmp_path / "model", factor_dtype="float16")

    loaded = fastmf.load(tmp_path / "model")

    stored = object.__getattribute__(loaded.fitted, "factors")
    assert stored.user_factors.dtype == np.float16
    assert isinstance(stored.user_factors.base, np.memmap)
    assert loaded.user_factors is loaded.user_factors  # converted once


def test_threads_that_use_a_model_at_once_get_equal_answers(model: FactorModel, tmp_path: Path) -> None:
    model.save(tmp_path / "model", factor_dtype="float16")
    expected = fastmf.load(tmp_path / "model").recommend(k=5).to_arrow()
    loaded, found = fastmf.load(tmp_path / "model"), []
    barrier = threading.Barrier(4)

    def ask() -> None:
        barrier.wait()
        found.append(loaded.recommend(k=5).to_arrow())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [expected] * 4


@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_loaded_model_of_halves_can_be_copied_and_saved_again(duplicate: Any, model: Any, tmp_path: Path) -> None:
    model.save(tmp_path / "model", factor_dtype="float16")
    twin = duplicate(fastmf.load(tmp_path / "model"))

    twin.save(tmp_path / "wide")
    twin.save(tmp_path / "halves", factor_dtype="float16")

    wide, halves = fastmf.load(tmp_path / "wide"), fastmf.load(tmp_path / "halves")
    assert wide.user_factors.tobytes() == halves.user_factors.tobytes() == rounded(model.user_factors).tobytes()
    content = (tmp_path / "model" / "user_factors.npy").read_bytes()
    assert content == (tmp_path / "halves" / "user_factors.npy").read_bytes()


@pytest.mark.parametrize("kind", MODEL_CLASSES)
def test_training_goes_on_from_halves(kind: Any, ratings: fastmf.Interactions, tmp_path: Path) -> None:
    more = fastmf.Interactions.from_arrays([1, 2, 900], [3, 4, 5], [4, 2, 5])
    kind(n_factors=3, n_epochs=2).fit(ratings).save(tmp_path / "model", factor_dtype="float16")
    before = (tmp_path / "model" / "user_factors.npy").read_bytes()

    loaded = fastmf.load(tmp_path / "model").partial_fit(more)

    assert loaded.fitted.factors.user_factors.dtype == np.float32
    assert loaded.fitted.n_users == 26
    assert all(array.dtype == np.float32 for array in loaded.fitted.state.values())
    assert (tmp_path / "model" / "user_factors.npy").read_bytes() == before
    wide = fastmf.load(tmp_path / "model")
    wide.save(tmp_path / "wide")
    assert fastmf.load(tmp_path / "wide").partial_fit(more).user_factors.tobytes() == loaded.user_factors.tobytes()


@pytest.mark.parametrize("value", [65_520.0, -1e6, 3e38])
def test_numbers_beyond_float16_are_refused_with_their_place(value: float, model: Any, tmp_path: Path) -> None:
    model.fitted.factors.item_factors[7, 1] = value

    with pytest.raises(ParameterError) as error:
        model.save(tmp_path / "model", factor_dtype="float16")

    assert str(error.value) == (
        f"factor_dtype is float16, whose largest number is 65,504, and item_factors[7, 1] is {value:g}; save as float32"
    )
    assert list(tmp_path.iterdir()) == []
    model.fitted.factors.item_factors[7, 1] = LARGEST_HALF
    model.save(tmp_path / "model", factor_dtype="float16")
    assert fastmf.load(tmp_path / "model").item_factors[7, 1] == LARGEST_HALF


def test_rows_beyond_the_first_part_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastmf.keeping.halves._ROWS", 2)
    table = np.arange(14, dtype=np.float32).reshape(7, 2) / 3

    assert to_halves("x", table).tobytes() == table.astype(np.float16).tobytes()
    table[6, 1] = 1e5
    with pytest.raises(ParameterError, match=r"x\[6, 1\] is 100000"):
        to_halves("x.npy", table)


def test_another_type_is_refused(model: FactorModel, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="factor_dtype is 'bfloat16'; expected one of 'float32', 'float16'"):
        model.save(tmp_path / "model", factor_dtype="bfloat16")


def test_a_manifest_that_claims_the_other_type_is_refused(model: FactorModel, tmp_path: Path) -> None:
    for kind, other in (("float32", "float16"), ("float16", "float32")):
        folder = tmp_path / kind
        model.save(folder, factor_dtype=kind)
        content = json.loads((folder / MANIFEST).read_text()) | {"factor_dtype": other}
        (folder / MANIFEST).write_text(json.dumps(content))

        with pytest.raises(ModelError, match=rf"user_factors.npy is {kind} of shape \(25, 3\); expected {other}"):
            fastmf.load(folder)


def test_infinite_halves_are_refused(model: FactorModel, tmp_path: Path) -> None:
    model.save(tmp_path / "model", factor_dtype="float16")
    array = np.load(tmp_path / "model" / "item_factors.npy")
    array[2, 1] = np.inf
    np.save(tmp_path / "model" / "item_factors.npy", array)

    with pytest.raises(ModelError, match=r"item_factors.npy is damaged \(number 7 \(from 0\) is inf"):
        fastmf.load(tmp_path / "model").recommend(k=3)


def test_the_command_stores_halves_and_says_so(
    ratings: fastmf.Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ratings.to_parquet("r.parquet")
    train = ["train", "r.parquet", "--model", "als", "--output", "m", "--factors", "3", "--epochs", "1", "--quiet"]

    assert main([*train, "--factor-dtype", "float16"]) == 0
    capsys.readouterr()
    assert main(["info", "m", "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["factor_dtype"] == "float16"
    assert "stored as float16" in Path("m/card.md").read_text()
