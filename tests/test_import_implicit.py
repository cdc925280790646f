"""Models of the library implicit: from its files to models that recommend the same."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

import fastmf
from fastmf.cli import main
from fastmf.errors import DataError, ModelError

N_USERS, N_ITEMS, N_FACTORS, K = 30, 20, 4, 5
KINDS = {"als": "ImplicitALS", "bpr": "BPR", "lmf": "SGD"}


def arrays_of(kind: str) -> dict[str, Any]:
    """Return the arrays that implicit 0.7 writes, as its `save` methods have them."""
    rng = np.random.default_rng(0)
    width = N_FACTORS + {"als": 0, "bpr": 1, "lmf": 2}[kind]
    users, items = (rng.normal(size=(n, width)).astype(np.float32) for n in (N_USERS, N_ITEMS))
    common = {"user_factors": users, "item_factors": items, "factors": N_FACTORS, "num_threads": 0, "iterations": 7}
    if kind == "als":
        own: dict[str, Any] = {"use_native": True, "use_cg": True, "cg_steps": 3, "calculate_training_loss": False}
        return {**common, **own, "regularization": 0.05, "dtype": "float32", "alpha": 2.5}
    if kind == "bpr":
        users[:, -1] = 1
        own = {"learning_rate": 0.02, "verify_negative_samples": True}
        return {**common, **own, "regularization": 0.01, "dtype": "float32"}
    users[:, -2], items[:, -1] = 1, 1
    return {**common, "learning_rate": 1.0, "neg_prop": 30, "regularization": 0.6, "dtype": "float32"}


def write(path: Path, kind: str, **changes: Any) -> Path:
    arrays = {name: value for name, value in (arrays_of(kind) | changes).items() if value is not ...}
    np.savez(path, **arrays)
    return path


def best(kind: str, rows: Any = slice(None)) -> tuple[Any, Any]:
    """Return what implicit recommends: the items with the largest products, and these."""
    arrays = arrays_of(kind)
    products = arrays["user_factors"][rows] @ arrays["item_factors"].T
    items = np.argsort(-products, axis=1)[:, :K]
    return items, np.take_along_axis(products, items, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_recommends_what_implicit_does(kind: str, tmp_path: Path) -> None:
    model = fastmf.import_implicit(write(tmp_path / "m.npz", kind))

    items, products = best(kind)
    expected = 1 / (1 + np.exp(-products)) if kind == "lmf" else products
    model.save(tmp_path / "model")
    for each in (model, fastmf.load(tmp_path / "model", verify=True)):
        assert type(each).__name__ == KINDS[kind]
        for exclude in (None, "seen"):
            found = each.recommend(k=K, exclude=exclude)
            assert found.items.tolist() == items.tolist()
            np.testing.assert_allclose(found.scores, expected, rtol=1e-5, atol=1e-6)
            assert found.n_cold_users == 0
        np.testing.assert_allclose(each.predict(np.arange(N_USERS), items[:, 0]), expected[:, 0], rtol=1e-5)
        assert each.user_ids.to_pylist() == list(range(N_USERS))
        assert each.history == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_parameters_are_those_of_the_file(kind: str, tmp_path: Path) -> None:
    found = fastmf.import_implicit(write(tmp_path / "m.npz", kind)).get_params()

    assert (found["n_factors"], found["n_epochs"]) == (N_FACTORS, 7)
    assert found["regularization"] == {"als": 0.05, "bpr": 0.01, "lmf": 0.6}[kind]
    own = {
        "als": {"weighting": "hu", "alpha": 2.5},
        "bpr": {"learning_rate": 0.02},
        "lmf": {"loss": "logistic", "n_negatives": 30},
    }[kind]
    assert {name: found[name] for name in own} == own


@pytest.mark.parametrize("where", ["lists", "arrow", "parquet", "columns"])
def test_ids_are_sorted_with_their_rows(where: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    users = [f"u{n:02}" for n in rng.permutation(N_USERS)]
    items = [int(n) * 7 - 50 for n in rng.permutation(N_ITEMS)]
    given: Any = (users, items)
    if where == "arrow":
        given = pa.array(users), pa.chunked_array([pa.array(items)])
    elif where != "lists":
        tables = ({"user_id": users}, {"item_id": items})
        if where == "columns":
            tables = ({"name": users}, {"item_id": items, "title": ["x"] * N_ITEMS})  # type: ignore[dict-item]
        given = tmp_path / "u.parquet", str(tmp_path / "i.parquet")
        for path, table in zip(given, tables, strict=True):
            pq.write_table(pa.table(table), path)

    model = fastmf.import_implicit(write(tmp_path / "m.npz", "bpr"), *given)

    assert model.user_ids.to_pylist() == sorted(users)
    assert model.item_ids.to_pylist() == sorted(items)
    found = model.recommend(users, k=K).to_arrow()
    assert found["user_id"].to_pylist() == [user for user in users for _ in range(K)]
    assert found["item_id"].to_pylist() == [items[n] for n in best("bpr")[0].reshape(-1)]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a"] * 3, r"item_ids has 3 ids, and the model 20 items; expected one for each, in the order of their rows"),
        (["a", *"abcdefghijklmnopqrs"], "item_ids has a twice; expected each id once"),
        ([None, *range(19)], "item_id"),
        ([1.5] * 20, "item_id"),
    ],
)
def test_ids_that_do_not_fit_are_refused(ids: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        fastmf.import_implicit(write(tmp_path / "m.npz", "als"), item_ids=ids)


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_imported_model_cannot_do_is_said(kind: str, tmp_path: Path) -> None:
    model: Any = fastmf.import_implicit(write(tmp_path / "m.npz", kind))
    model.save(tmp_path / "model")
    card = (tmp_path / "model" / "card.md").read_text()

    assert '`exclude="seen"` leaves nothing out, and the model cannot be trained further' in card
    assert "- Source: m.npz, a model of the library implicit" in card
    with pytest.raises(
        DataError, match=r"the model (does not know what it was trained on|was saved without its training)"
    ):
        fastmf.load(tmp_path / "model").partial_fit(fastmf.Interactions.from_arrays([1], [2], [1]))
    newcomer = fastmf.Interactions.from_arrays([900, 900], [2, 3])
    assert np.isfinite(model.fold_in(newcomer).factors).all()
    assert set(model.recommend_for(newcomer, k=3).items[0]).isdisjoint({2, 3})
    assert model.similar_items([3], k=2).to_arrow().num_rows == 2
    test = fastmf.Interactions.from_arrays([1, 2], [3, 4])
    assert fastmf.evaluate(model, test, k=3, metrics=["ndcg"])["n_users"] == 2


def test_double_precision_is_rounded(tmp_path: Path) -> None:
    users = arrays_of("als")["user_factors"].astype(np.float64)

    model = fastmf.import_implicit(write(tmp_path / "m.npz", "als", user_factors=users, dtype="float64"))

    assert model.user_factors.tobytes() == users.astype(np.float32).tobytes()


def test_users_without_ratings_have_zeros(tmp_path: Path) -> None:
    users = arrays_of("bpr")["user_factors"]
    users[3] = 0

    model = fastmf.import_implicit(write(tmp_path / "m.npz", "bpr", user_factors=users))

    assert model.user_factors[3].tolist() == [0] * N_FACTORS


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no users": ({"user_factors": ...}, r"it has no 'user_factors', but "),
    "no number of factors": ({"factors": ...}, "it has no 'factors'"),
    "another model": ({"verify_negative_samples": ...}, "it is none of the three models"),
    "another width": ({"factors": 3}, r"BPR has 3 \+ 1 columns, and this one 5"),
    "two widths": ({"item_factors": np.ones((20, 3), np.float32)}, r"its tables are of shape \(30, 5\) and \(20, 3\)"),
    "integers": ({"item_factors": np.ones((20, 5), np.int32)}, r"item_factors is int32 of shape \(20, 5\)"),
    "three axes": ({"item_factors": np.ones((20, 5, 1), np.float32)}, "expected a table of floats"),
    "no rows": ({"item_factors": np.ones((0, 5), np.float32)}, "expected a table of floats"),
    "NaN": ({"item_factors": np.full((20, 5), np.nan, np.float32)}, "item_factors has numbers that are not finite"),
    "beyond float32": ({"item_factors": np.full((20, 5), 1e300)}, "item_factors has numbers that are not finite"),
    "no ones": ({"user_factors": np.full((30, 5), 2, np.float32)}, "column -1 of user_factors is not 1"),
    "a rate of 0": ({"learning_rate": 0.0}, "learning_rate is 0"),
    "a rate in words": ({"learning_rate": "fast"}, "learning_rate is fast; expected a finite number"),
    "NaN strength": ({"regularization": np.nan}, "regularization is nan; expected a finite number"),
    "objects": ({"random_state": np.array([print], object)}, "random_state.npy is not as long as its header says, or"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_such_model_is_refused(case: str, tmp_path: Path) -> None:
    changes, message = BAD[case]

    with pytest.raises(ModelError, match=rf"m.npz is not what model.save of the library implicit writes \(.*{message}"):
        fastmf.import_implicit(write(tmp_path / "m.npz", "bpr", **changes))


def header(descr: str, shape: tuple[int, ...]) -> bytes:
    import io

    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": shape})
    return out.getvalue()


def test_a_header_does_not_make_the_reader_allocate(tmp_path: Path) -> None:
    write(tmp_path / "m.npz", "als", user_factors=...)
    with zipfile.ZipFile(tmp_path / "m.npz", "a") as archive:
        archive.writestr("user_factors.npy", header("<f4", (10**12, 4)) + bytes(64))

    with pytest.raises(ModelError, match=r"user_factors\.npy is not as long as its header says"):
        fastmf.import_implicit(tmp_path / "m.npz")


@pytest.mark.parametrize(
    "what", ["text", "nothing", "cut off", "compressed", "a pipe", "a directory", "absent", "a bomb"]
)
def test_other_files_are_refused(what: str, tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    if what == "text":
        path.write_text("user,item")
    elif what == "nothing":
        path.touch()
    elif what == "cut off":
        content = write(path, "als").read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif what in ("compressed", "a bomb"):
        np.savez_compressed(path, **arrays_of("als"), zeros=np.zeros(10**6 if what == "a bomb" else 1))
    elif what == "a pipe":
        os.mkfifo(path)
    elif what == "a directory":
        path.mkdir()

    with pytest.raises(ModelError, match=r"m\.npz"):
        fastmf.import_implicit(path)


def test_flipped_bits_are_refused_or_give_another_model(tmp_path: Path) -> None:
    content = write(tmp_path / "m.npz", "bpr").read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        (tmp_path / "m.npz").write_bytes(damaged)
        try:
            fastmf.import_implicit(tmp_path / "m.npz").recommend(k=2)
            outcomes.add("answered")
        except ModelError:
            outcomes.add("refused")

    assert outcomes == {"answered", "refused"}


def test_the_command_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "m.npz", "als")
    pq.write_table(pa.table({"item_id": [f"i{n:02}" for n in range(N_ITEMS)]}), "i.parquet")

    assert main(["import", "m.npz", "model", "--item-ids", "i.parquet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "output": "model",
        "model": "ImplicitALS",
        "n_users": N_USERS,
        "n_items": N_ITEMS,
        "n_factors": N_FACTORS,
    }
    assert main(["import", "m.npz", "model"]) == 1
    assert main(["import", "m.npz", "other", "--user-ids", "i.parquet"]) == 1
    assert "fastmf import: --user-ids has 20 ids, and the model 30 users" in capsys.readouterr().err
    assert main(["import", "model", "other"]) == 1
    assert "model is a fastmf model; expected a file that implicit's save wrote" in capsys.readouterr().err
    assert main(["import", ".", "other"]) == 1
    assert ". is a directory; expected a file" in capsys.readouterr().err
    assert main(["verify", "model"]) == 0
    assert main(["recommend", "model", "--output", "r.parquet", "-k", "3"]) == 0
    assert pq.read_table("r.parquet")["item_id"][0].as_py().startswith("i")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_a_model_that_implicit_has_trained(kind: str, tmp_path: Path) -> None:
    implicit = pytest.importorskip("implicit", reason="implicit is not installed")
    classes = {
        "als": implicit.cpu.als.AlternatingLeastSquares,
        "bpr": implicit.cpu.bpr.BayesianPersonalizedRanking,
        "lmf": implicit.cpu.lmf.LogisticMatrixFactorization,
    }
    ratings = sparse.random(N_USERS, N_ITEMS, 0.2, format="csr", dtype=np.float32, random_state=0)
    theirs = classes[kind](factors=N_FACTORS, iterations=3, num_threads=1, random_state=0)
    theirs.fit(ratings, show_progress=False)
    theirs.save(str(tmp_path / "m.npz"))
    rated = np.flatnonzero(np.diff(ratings.indptr)).astype(np.int32)

    items, _ = theirs.recommend(rated, ratings[rated], N=K, filter_already_liked_items=False)
    found = fastmf.import_implicit(tmp_path / "m.npz").recommend(rated, k=K)

    assert found.items.tolist() == items.tolist()
