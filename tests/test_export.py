"""Vectors for other programs: the products of what is written are the scores of the model."""

import json
import os
import resource
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf.cli import main, make_parser
from fastmf.errors import BackendError, DataError, OutputExistsError, ParameterError
from fastmf.keeping.vector_files import FORMATS
from fastmf.models import MODELS

K = 10
# The users of the tests, and the items, are told apart by text, and some have no rating in training.
N_USERS, N_ITEMS = 60, 40


def imported(name: str) -> Any:
    """Import a library that may warn at its import, or skip the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} is not installed")


@pytest.fixture(scope="module")
def ratings() -> fastmf.Interactions:
    made = fastmf.testing.power_law(N_USERS, N_ITEMS, 900, n_factors=3, seed=1)
    users = pa.array([f"Zoë {n:02}" for n in range(N_USERS)])
    stars = 1 + made.ratings - made.ratings.min()
    return fastmf.Interactions(made.users, made.items, stars, None, users, made.item_ids)


SETTINGS: dict[str, dict[str, Any]] = {
    "ALS": {"n_factors": 5},
    "SGD": {"n_factors": 5, "rating_range": (0, 20)},
    "SVDpp": {"n_factors": 5},
    "BPR": {"n_factors": 5},
    "ImplicitALS": {"n_factors": 5},
    "Bias": {},
    "Popularity": {},
}


@pytest.fixture(scope="module", params=SETTINGS)
def model(request: pytest.FixtureRequest, ratings: fastmf.Interactions) -> Any:
    return MODELS[request.param](**SETTINGS[request.param]).fit(ratings)


@pytest.fixture(scope="module")
def als(ratings: fastmf.Interactions) -> Any:
    return fastmf.ALS(n_factors=5).fit(ratings)


class Read(NamedTuple):
    ids: list[Any]
    vectors: Any
    biases: Any


def read_parquet(folder: Path, side: str) -> Read:
    table = pq.read_table(folder / f"{side}s.parquet")
    assert table.schema.names == ["id", "vector", "bias"]
    return Read(table["id"].to_pylist(), np.array(table["vector"].to_pylist(), np.float32), table["bias"].to_numpy())


def read_npz(folder: Path, side: str) -> Read:
    with np.load(folder / f"{side}s.npz", allow_pickle=False) as arrays:
        return Read(arrays["ids"].tolist(), arrays["vectors"], arrays["biases"])


def read_safetensors(folder: Path, side: str) -> Read:
    from safetensors.numpy import load_file

    tensors = load_file(folder / "vectors.safetensors")
    ids = pq.read_table(folder / f"{side}_ids.parquet")["id"].to_pylist()
    return Read(ids, tensors[f"{side}_vectors"], tensors[f"{side}_biases"])


READERS: dict[str, Callable[[Path, str], Read]] = {
    "parquet": read_parquet,
    "npz": read_npz,
    "safetensors": read_safetensors,
}


def predictions(folder: Path, users: Read, scores: Any, rows: Any) -> Any:
    """Do what ``export.json`` says of products, for rows of users."""
    told = json.loads((folder / "export.json").read_text())
    scores = scores + users.biases[rows][:, None] + np.float32(told["global_mean"])
    low, span = told["link"]["low"], told["link"]["span"]
    return low + span / (1 + np.exp(-scores)) if span else scores


@pytest.mark.parametrize("format", READERS)
def test_products_of_vectors_are_the_scores_of_the_model(format: str, model: Any, tmp_path: Path) -> None:
    if format == "safetensors":
        imported("safetensors.numpy")
    done = fastmf.export(model, tmp_path / "out", format=format)

    users, items = (READERS[format](tmp_path / "out", side) for side in ("user", "item"))
    found = users.vectors @ items.vectors.T
    expected = model.recommend(k=K, exclude=None)
    assert (users.ids, items.ids) == (model.user_ids.to_pylist(), model.item_ids.to_pylist())
    assert (done.n_users, done.n_items, done.n_cold_users, done.n_cold_items) == (N_USERS, N_ITEMS, 0, 0)
    assert done.n_dimensions == users.vectors.shape[1] == items.vectors.shape[1]
    assert users.biases.tobytes() == model.user_biases.tobytes()
    assert items.biases.tobytes() == model.item_biases.tobytes()
    best = np.argsort(-found, axis=1, kind="stable")[:, :K]
    assert best.tolist() == expected.items.tolist()
    scores = predictions(tmp_path / "out", users, np.take_along_axis(found, best, 1), slice(None))
    np.testing.assert_allclose(scores, expected.scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("format", ["faiss", "hnswlib"])
@pytest.mark.parametrize("kind", ["ALS", "BPR", "ImplicitALS"])
def test_an_index_finds_what_the_model_recommends(
    format: str, kind: str, ratings: fastmf.Interactions, tmp_path: Path
) -> None:
    library: Any = imported(format)
    model = MODELS[kind](**SETTINGS[kind]).fit(ratings)
    folder = tmp_path / "out"
    fastmf.export(model, folder, format=format)

    users = read_parquet(folder, "user")
    item_ids = pq.read_table(folder / "item_ids.parquet")["id"]
    if format == "faiss":
        products, found = library.read_index(str(folder / "items.faiss")).search(users.vectors, K)
    else:
        told = json.loads((folder / "export.json").read_text())["index"]
        index = library.Index(space=told["space"], dim=told["dim"])
        index.load_index(str(folder / "items.hnsw"), max_elements=told["max_elements"])
        index.set_ef(told["ef"])
        found, distances = index.knn_query(users.vectors, K, num_threads=1)
        products = 1 - distances
    expected = model.recommend(k=K, exclude=None)

    assert found.tolist() == expected.items.tolist()
    assert item_ids.to_pylist() == model.item_ids.to_pylist()
    scores = predictions(folder, users, products, slice(None))
    np.testing.assert_allclose(scores, expected.scores, rtol=1e-4, atol=1e-5)


def test_an_index_of_hnswlib_has_the_same_bytes_each_time(als: Any, tmp_path: Path) -> None:
    imported("hnswlib")
    for name in "ab":
        fastmf.export(als, tmp_path / name, format="hnswlib")

    for file in os.listdir(tmp_path / "a"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_normalized_vectors_give_cosines(als: Any, tmp_path: Path) -> None:
    fastmf.export(als, tmp_path / "out", format="npz", normalize=True)

    items = read_npz(tmp_path / "out", "item")
    cosines = items.vectors @ items.vectors.T
    np.testing.assert_allclose(np.linalg.norm(items.vectors, axis=1), 1, rtol=1e-6)
    assert items.vectors.shape[1] == 5
    np.fill_diagonal(cosines, -2)
    similar = als.similar_items(als.item_ids, k=3).to_arrow()
    best = np.argsort(-cosines, axis=1)[:, :3]
    assert best.tolist() == np.array(similar.column(2).to_pylist()).reshape(-1, 3).tolist()
    assert "not the score" in json.loads((tmp_path / "out" / "export.json").read_text())["score"]


def test_biases_may_be_left_apart(als: Any, tmp_path: Path) -> None:
    fastmf.export(als, tmp_path / "out", format="npz", fold_biases=False)

    users, items = (read_npz(tmp_path / "out", side) for side in ("user", "item"))
    assert users.vectors.tobytes() == als.user_factors.tobytes()
    assert items.vectors.tobytes() == als.item_factors.tobytes()
    assert "+ item bias + user bias" in json.loads((tmp_path / "out" / "export.json").read_text())["score"]
    found = users.vectors @ items.vectors.T + items.biases
    assert np.argsort(-found, axis=1, kind="stable")[:, :K].tolist() == als.recommend(k=K, exclude=None).items.tolist()


def test_users_and_items_without_ratings_are_left_out_and_counted(
    ratings: fastmf.Interactions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, _ = fastmf.split.random(ratings, test_fraction=0.95, seed=0)
    model = fastmf.ALS(n_factors=2, n_epochs=1).fit(train)
    model.save(tmp_path / "model")
    cold_users, warm_items = model.fitted.counts.is_cold_user, np.flatnonzero(model.fitted.counts.of_items)
    assert cold_users.any()
    assert len(warm_items) < N_ITEMS

    assert main(["export", str(tmp_path / "model"), str(tmp_path / "out"), "--format", "npz", "--json"]) == 0
    printed = capsys.readouterr()
    told = json.loads(printed.out)

    assert (told["n_cold_users"], told["n_cold_items"]) == (cold_users.sum(), N_ITEMS - len(warm_items))
    assert f"left out {cold_users.sum()} users and {N_ITEMS - len(warm_items)} items without training" in printed.err
    assert read_npz(tmp_path / "out", "item").ids == model.item_ids.take(pa.array(warm_items)).to_pylist()
    users, items = (read_npz(tmp_path / "out", side) for side in ("user", "item"))
    best = np.argsort(-(users.vectors @ items.vectors.T), axis=1, kind="stable")[:, :3]
    expected = model.recommend(users.ids, k=3, exclude=None)
    assert warm_items[best].tolist() == expected.items.tolist()
    assert fastmf.export(model, tmp_path / "all", cold="include").n_users == N_USERS


def test_the_directory_of_a_model_may_be_given(als: Any, tmp_path: Path) -> None:
    als.save(tmp_path / "model", factor_dtype="float16")

    fastmf.export(tmp_path / "model", tmp_path / "out", format="npz")

    vectors = read_npz(tmp_path / "out", "user").vectors
    assert vectors.dtype == np.float32
    assert vectors[:, :5].tobytes() == als.user_factors.astype(np.float16).astype(np.float32).tobytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "onnx"}, "format is 'onnx'; expected one of 'parquet', 'npz'"),
        ({"cold": "popular"}, "cold is 'popular'; expected one of 'skip', 'include'"),
        ({"normalize": 1}, "normalize is 1; expected True or False"),
        ({"fold_biases": "yes"}, "fold_biases is 'yes'; expected True or False"),
        ({"normalize": True, "fold_biases": True}, "normalize=True and fold_biases=True exclude each other"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(
    settings: dict[str, Any], message: str, als: Any, tmp_path: Path
) -> None:
    with pytest.raises(ParameterError, match=message):
        fastmf.export(als, tmp_path / "out", **settings)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("model", [None, 3, fastmf.ALS])
def test_what_is_no_model_is_refused(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="expected a fitted model, or the path of a model directory"):
        fastmf.export(model, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_the_command_knows_all_formats() -> None:
    for format in FORMATS:
        assert make_parser("export").parse_args(["export", "model", "out", "--format", format]).format == format


def test_the_command_names_its_options(
    als: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    als.save("model")

    assert main(["export", "model", "out", "--normalize", "--fold-biases"]) == 2
    assert "--normalize and --fold-biases exclude each other" in capsys.readouterr().err
    assert main(["export", "model", "out"]) == 0
    assert main(["export", "model", "--output", "out"]) == 1
    assert "out exists already; choose another output, or allow overwriting (--overwrite)" in capsys.readouterr().err
    assert main(["export", "model", "out", "--overwrite", "--format", "npz", "--no-fold-biases"]) == 0
    assert sorted(os.listdir("out")) == ["export.json", "items.npz", "users.npz"]
    assert "files         users.npz, items.npz, export.json\n" in capsys.readouterr().out
    assert main(["export", "model", "--output", "again", "--format", "npz"]) == 0
    assert os.listdir("again") == os.listdir("out")
    for words, complaint in (
        ([], "one of the arguments OUT --output is required"),
        (["x", "--output", "y"], "argument --output: not allowed with argument OUT"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["export", "model", *words])
        assert end.value.code == 2
        assert complaint in capsys.readouterr().err


def test_a_model_without_factors_has_only_biases(ratings: fastmf.Interactions, tmp_path: Path) -> None:
    bias = fastmf.Bias().fit(ratings)

    with pytest.raises(ParameterError, match="this Bias has no factors: without fold_biases=True there is nothing"):
        fastmf.export(bias, tmp_path / "out", normalize=True)
    assert fastmf.export(bias, tmp_path / "out").n_dimensions == 1


@pytest.mark.parametrize("format", ["safetensors", "faiss", "hnswlib"])
def test_a_library_that_is_not_installed_is_named(
    format: str, als: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, format, None)
    monkeypatch.setitem(sys.modules, f"{format}.numpy", None)

    with pytest.raises(BackendError) as error:
        fastmf.export(als, tmp_path / "out", format=format)

    assert str(error.value).startswith(f"format {format} needs the library {format}, which is not installed (")
    assert 'run `pip install "fastmf[export]"`, or export to parquet or npz' in str(error.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("what", ["a model", "something", "an export and more"])
def test_only_exports_are_overwritten(what: str, als: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if what == "a model":
        als.save(out)
    elif what == "something":
        out.mkdir()
        (out / "export.json").write_text("[]")
    else:
        fastmf.export(als, out)
        (out / "notes.txt").write_text("mine")
    before = sorted(os.listdir(out))

    with pytest.raises(OutputExistsError) as error:
        fastmf.export(als, out, format="npz", overwrite=True)

    assert ("would delete them: notes.txt" if what == "an export and more" else "alone are overwritten") in str(
        error.value
    )
    assert sorted(os.listdir(out)) == before


def test_an_export_that_fails_leaves_nothing(als: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fastmf.export(als, tmp_path / "out", format="npz")
    before = (tmp_path / "out" / "users.npz").read_bytes()

    def fail(path: Path, **arrays: Any) -> None:
        Path(path).write_bytes(b"half")
        if "items" in str(path):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)

    with pytest.raises(fastmf.errors.OutputError, match="No space left on device; make room"):
        fastmf.export(als, tmp_path / "out", format="npz", overwrite=True)
    with pytest.raises(fastmf.errors.OutputError):
        fastmf.export(als, tmp_path / "new", format="npz")
    assert os.listdir(tmp_path) == ["out"]
    assert (tmp_path / "out" / "users.npz").read_bytes() == before


@pytest.mark.parametrize(
    ("format", "reason"),
    [("faiss", "File too large"), ("hnswlib", "less than the index takes"), ("safetensors", "serializing")],
)
def test_what_a_library_cannot_write_is_told(format: str, reason: str, als: Any, tmp_path: Path) -> None:
    pytest.importorskip(format)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, limits[1]))
    try:
        with pytest.raises(fastmf.errors.OutputError, match=rf"cannot write .*out: .*{reason}.*; make room"):
            fastmf.export(als, tmp_path / "out", format=format)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []


def test_ids_that_numpy_cannot_store_are_refused(tmp_path: Path) -> None:
    ratings = fastmf.Interactions.from_arrays(pa.array(["a", "a\0", "b"]), [1, 2, 3], [1, 2, 3])
    model = fastmf.ALS(n_factors=2, n_epochs=1).fit(ratings)

    with pytest.raises(DataError, match=r"cannot store these 3 ids .* choose parquet as the format"):
        fastmf.export(model, tmp_path / "out", format="npz")
    fastmf.export(model, tmp_path / "out")
    assert pq.read_table(tmp_path / "out" / "users.parquet")["id"].to_pylist() == ["a", "a\0", "b"]


def test_large_tables_are_written_in_parts(als: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fastmf.export(als, tmp_path / "whole")
    monkeypatch.setattr("fastmf.keeping.vector_files._ROWS", 7)

    fastmf.export(als, tmp_path / "parts")

    assert pq.ParquetFile(tmp_path / "parts" / "users.parquet").num_row_groups == 9
    assert pq.read_table(tmp_path / "parts" / "users.parquet") == pq.read_table(tmp_path / "whole" / "users.parquet")
