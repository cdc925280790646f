"""Every error says what was given, what was expected and what to do, and leaves everything as it was."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf

Done = CompletedProcess[str]
Contents = Callable[[], dict[str, bytes | None]]
NAN = float("nan")


def table(user_id: Any = (1, 1, 2), item_id: Any = (10, 20, 10), **others: Any) -> pa.Table:
    columns = {"user_id": user_id, "item_id": item_id, **({"rating": (5.0, 3.0, 4.0)} | others)}
    return pa.table({name: pa.array(values) for name, values in columns.items() if values is not None})


def write(path: Path, what: pa.Table | bytes | None) -> None:
    if isinstance(what, bytes):
        path.write_bytes(what)
    elif what is not None:
        pq.write_table(what, path)


def parquet_with_a_broken_page() -> bytes:
    """Make a file whose footer is whole and whose second row group cannot be read."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({name: np.arange(2000) for name in ("user_id", "item_id", "rating")}), sink, 1000)
    whole = bytearray(sink.getvalue().to_pybytes())
    column = pq.ParquetFile(pa.BufferReader(bytes(whole))).metadata.row_group(1).column(0)
    page = column.dictionary_page_offset or column.data_page_offset
    whole[page : page + 40] = b"\xff" * 40
    return bytes(whole)


# What bad.parquet holds (None: there is no such file), and how the message of `train` must read.
BAD_RATINGS: dict[str, tuple[pa.Table | bytes | None, tuple[str, ...]]] = {
    "missing column": (
        table(rating=None, stars=(1, 2, 3)),
        ("no column 'rating'; the columns are 'user_id', 'item_id', 'stars'", "set --rating-column to another"),
    ),
    "null": (
        table(user_id=(1, None, None)),
        ("column 'user_id' has 2 null values, the first in row 1 (from 0)", "drop or fill those rows first"),
    ),
    "NaN": (
        table(rating=(5.0, 3.0, NAN)),
        ("column 'rating' has 1 ratings that are not finite", "the first in row 2 (from 0): nan", "drop or repair"),
    ),
    "wrong id type": (
        table(item_id=(1.5, 2.5, 1.5)),
        ("column 'item_id' has type double; expected integers or strings as ids: cast the column",),
    ),
    "no rows": (table((), (), rating=()), ("there are no rows in", "bad.parquet", "expected at least one rating")),
    "no bytes": (b"", ("cannot read bad.parquet as Parquet", "file size is 0 bytes; copy or write it again")),
    "not Parquet": (b"user_id,item_id\n1,2\n", ("cannot read bad.parquet as Parquet", "copy or write it again")),
    "unreadable row group": (
        parquet_with_a_broken_page(),
        ("cannot read bad.parquet as Parquet", "copy or write it again"),
    ),
    "no such file": (None, ("no such file: bad.parquet; expected a Parquet file, a directory of them, or a pattern",)),
    "duplicates": (
        table(user_id=(1, 1, 1), item_id=(10, 20, 10)),
        ("1 ratings repeat a (user, item) pair, for example (1, 10)", 'choose --duplicates="first", "last"'),
    ),
    "nothing chosen": (
        table(rating=(0.0, -3.0, -4.0)),
        ("none of 3 ratings is above 0, the largest is 0; an implicit model learns from what was chosen", "ALS, SGD"),
    ),
}
MORE_BAD_RATINGS: dict[str, tuple[pa.Table | bytes | None, tuple[str, ...]]] = {
    "null rating": (
        table(rating=(None, 3.0, 4.0)),
        ("column 'rating' has 1 null value, the first in row 0 (from 0)",),
    ),
    "infinite rating": (
        table(rating=(5.0, -np.inf, 4.0)),
        ("column 'rating' has 1 ratings that are not finite in float32, the first in row 1 (from 0): -inf",),
    ),
    "rating too large": (table(rating=(5.0, 1e300, 4.0)), ("the first in row 1 (from 0): 1e+300",)),
    "ratings in words": (
        table(rating=("good", "bad", "good")),
        ("column 'rating' has type string; expected numbers as ratings: cast the column first",),
    ),
    "missing item column": (table(item_id=None), ("no column 'item_id'; the columns are 'user_id', 'rating'",)),
}


def train_over_an_earlier_model(run: Callable[..., Done], data: Any, tmp_path: Path, contents: Contents) -> Done:
    shutil.copytree(data.models["implicit-als"], tmp_path / "model")
    before = contents()

    done = run(
        "train", "bad.parquet", "--model", "implicit-als", "--output", "model", "--epochs", 1, "--overwrite", status=1
    )

    assert contents() == before
    assert done.stdout == ""
    return done


def message_of(done: Done, command: str) -> str:
    """The one line that says what is wrong, after whatever was said of the progress."""
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"fastmf {command}: ")
    assert "Traceback" not in done.stderr
    return last.removeprefix(f"fastmf {command}: ")


@pytest.mark.parametrize("case", BAD_RATINGS)
def test_bad_ratings(case: str, data: Any, tmp_path: Path, run_fastmf: Callable[..., Done], contents: Contents) -> None:
    what, parts = BAD_RATINGS[case]
    write(tmp_path / "bad.parquet", what)

    message = message_of(train_over_an_earlier_model(run_fastmf, data, tmp_path, contents), "train")

    assert [part for part in parts if part not in message] == [], message


@pytest.mark.parametrize("case", MORE_BAD_RATINGS)
def test_more_bad_ratings(
    case: str, data: Any, tmp_path: Path, call_fastmf: Callable[..., Done], contents: Contents
) -> None:
    what, parts = MORE_BAD_RATINGS[case]
    write(tmp_path / "bad.parquet", what)

    message = message_of(train_over_an_earlier_model(call_fastmf, data, tmp_path, contents), "train")

    assert [part for part in parts if part not in message] == [], message


def test_bad_ratings_to_evaluate_on(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    for case, command in (("missing column", ()), ("NaN", ("--exclude", data.ratings))):
        what, parts = BAD_RATINGS[case]
        write(tmp_path / "bad.parquet", what)

        done = call_fastmf("evaluate", data.models["als"], "bad.parquet", *command, status=1)

        assert parts[0] in message_of(done, "evaluate")


def test_an_empty_directory_of_ratings(tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    (tmp_path / "ratings").mkdir()

    done = call_fastmf("train", "ratings", "--model", "als", "--output", "model", status=1)

    assert message_of(done, "train") == "directory ratings holds no *.parquet file; expected at least one"


def test_training_that_diverges(data: Any, call_fastmf: Callable[..., Done], contents: Contents) -> None:
    options = ("--learning-rate", 1e9, "--epochs", 2, "--quiet")

    done = call_fastmf("train", data.ratings, "--model", "sgd", "--output", "model", *options, status=1)

    assert message_of(done, "train").endswith("learning-rate=1e+09; lower it, for example to 0.1")
    assert contents() == {}


TRAIN_ALS = ("--model", "als", "--output", "out")

# The call, with {als} for a model; its exit status; the message.
BAD_REQUESTS: dict[str, tuple[tuple[object, ...], int, str]] = {
    "more items than there are": (
        ("recommend", "{als}", "--output", "out", "-k", 31),
        2,
        "-k is 31, but the catalogue has 30 items; expected at most as many",
    ),
    "unknown user": (
        ("recommend", "{als}", "--output", "out", "--users", "users.parquet", "--strict"),
        1,
        "2 of 3 ids in 'users' are unknown to the model: 'nobody', 'none'; expected ids that were in the training data",
    ),
    "users without their column": (
        ("recommend", "{als}", "--output", "out", "--users", "users.parquet", "--user-column", "who"),
        1,
        "no column 'who'; the columns are 'user_id', 'number'",
    ),
    "users of another type": (
        ("recommend", "{als}", "--output", "out", "--users", "users.parquet", "--user-column", "number"),
        1,
        "column 'number' has ids of type int64, the model's are string; cast them to that type",
    ),
    "unknown item": (
        ("similar", "{als}", "--item", "film-999"),
        1,
        "--item film-999 is unknown to the model; expected one of its training data",
    ),
    "an unknown item to explain": (
        ("explain", "{als}", "--user", "user-0001", "--item", "film-999"),
        1,
        "--item film-999 is unknown to the model; expected one of its training data",
    ),
    "an unknown user to explain": (
        ("explain", "{als}", "--user", "7", "--item", "film-001"),
        1,
        "--user 7 is unknown to the model; expected one of its training data",
    ),
    "titles without a column of titles": (
        ("explain", "{als}", "--user", "user-0001", "--item", "film-001", "--titles", "{test}"),
        1,
        "no column 'title'; the columns are",
    ),
    "more neighbours than there are": (
        ("similar", "{als}", "--item", "film-001", "-k", 30),
        2,
        "-k is 30, but there are 30 items; expected fewer than that",
    ),
    "more questions than items": (
        ("onboarding", "{als}", "-n", 31),
        2,
        "-n is 31, but there are 30 items to ask about",
    ),
    "a negative weight of popularity": (
        ("onboarding", "{als}", "--popularity-weight", -1),
        2,
        "--popularity-weight is -1.0; expected",
    ),
    "a cut-off beyond the catalogue": (
        ("evaluate", "{als}", "{test}", "-k", 31),
        2,
        "-k is 31, but the catalogue has 30 items; expected at most as many",
    ),
    "a metric that is none": (
        ("evaluate", "{als}", "{test}", "--metrics", "rsme"),
        2,
        "--metrics are ['rsme']; expected some of rmse, mae, precision,",
    ),
    "a parameter of another model": (
        ("train", "{ratings}", *TRAIN_ALS, "--learning-rate", 0.1),
        2,
        "--learning-rate is not a hyper-parameter of --model als; leave it out",
    ),
    "a parameter that makes no sense": (
        ("train", "{ratings}", *TRAIN_ALS, "--regularization", -1),
        2,
        '--regularization is -1.0; expected a finite number of at least 0, or "auto" to choose it from the data',
    ),
    "no biases in a model without": (
        ("train", "{ratings}", "--model", "implicit-als", "--output", "out", "--no-biases"),
        2,
        "--no-biases is not a hyper-parameter of --model implicit-als; leave it out",
    ),
    "a range upside down": (
        ("train", "{ratings}", "--model", "sgd", "--output", "out", "--rating-range", 5, 1),
        2,
        "--rating-range is (5.0, 1.0); expected None or (low, high) with low < high",
    ),
    "patience with nothing to be patient about": (
        ("train", "{ratings}", *TRAIN_ALS, "--patience", 3),
        2,
        "--patience is 3 but there is no validation set; add --validation-fraction, --validation-by",
    ),
    "validation from a file and by a share": (
        ("train", "nothing", *TRAIN_ALS, "--validation", "nothing", "--validation-fraction", 0.1),
        2,
        "--validation names the ratings to validate on, and --validation-fraction holds some out; give one",
    ),
    "validation from a file and by a rule": (
        ("train", "nothing", *TRAIN_ALS, "--validation", "nothing", "--validation-by", "user"),
        2,
        "--validation names the ratings to validate on, and --validation-by holds some out; give one",
    ),
    "a share of the last rating": (
        ("train", "nothing", *TRAIN_ALS, "--validation-by", "last", "--validation-fraction", 0.1),
        2,
        "--validation-by last holds out one rating of each user, and --validation-fraction a share; leave the share",
    ),
    "the newest ratings without times": (
        ("train", "nothing", *TRAIN_ALS, "--validation-by", "time"),
        2,
        "--validation-by time goes by the times of ratings; name their column with --timestamp-column",
    ),
    "refit without validation": (
        ("train", "nothing", *TRAIN_ALS, "--refit"),
        2,
        "--refit trains again for the epochs that were best in validation, but there is no validation set; add",
    ),
    "patience without validation, found before reading": (
        ("train", "nothing", *TRAIN_ALS, "--patience", 3),
        2,
        "--patience is 3 but there is no validation set; add --validation-fraction, --validation-by",
    ),
    "a parameter that not every model has": (
        ("train", "nothing", "--model", "auto", "--output", "out", "--alpha", 2),
        2,
        "--alpha is not a hyper-parameter of als, which --model auto may be; name the model, or leave it out",
    ),
    "no validation file": (
        ("train", "{ratings}", *TRAIN_ALS, "--validation", "nothing"),
        1,
        "no such file: nothing; expected a Parquet file",
    ),
    "a decay that grows": (
        ("train", "{ratings}", "--model", "sgd", "--output", "out", "--learning-rate-decay", 2),
        2,
        "--learning-rate-decay is 2.0; expected at most 1",
    ),
    "nonnegative factors of another solver": (
        ("train", "{ratings}", *TRAIN_ALS, "--nonnegative", "--solver", "cg"),
        2,
        "--solver is 'cg' and --nonnegative is True; expected \"cholesky\": only exact sweeps keep factors",
    ),
    "a seed below 0": (
        ("train", "{ratings}", *TRAIN_ALS, "--seed", -1),
        2,
        "--seed is -1; expected an integer of at least 0",
    ),
    "halves on the CPU": (
        ("train", "{ratings}", "--model", "sgd", "--output", "out", "--storage", "float16"),
        2,
        '--storage is "float16" with --device "cpu" and --loss "squared"; expected --device "cuda" and --loss',
    ),
    "ratings outside the range": (
        ("train", "{ratings}", "--model", "svdpp", "--output", "out", "--rating-range", 4, 5),
        1,
        " ratings lie outside --rating-range (4, 5), for example",
    ),
    "training on CUDA": (
        ("train", "{ratings}", *TRAIN_ALS, "--device", "cuda"),
        1,
        'backend "cuda" (--device cuda) cannot run here: ',
    ),
    "recommending on CUDA": (
        ("recommend", "{als}", "--output", "out", "--device", "cuda"),
        1,
        'backend "cuda" (--device cuda) cannot run here: ',
    ),
    "no model": (
        ("recommend", "nowhere", "--output", "out"),
        1,
        "no model at nowhere: expected a directory that `fastmf train` or model.save wrote",
    ),
    "nothing to describe": (("info", "nowhere"), 1, "no such file: nowhere; expected a model directory, a Parquet"),
}
IN_PROCESSES = (
    "more items than there are",
    "unknown user",
    "unknown item",
    "a parameter of another model",
    "training on CUDA",
)


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_bad_request(
    case: str,
    data: Any,
    tmp_path: Path,
    run_fastmf: Callable[..., Done],
    call_fastmf: Callable[..., Done],
    contents: Contents,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    arguments, status, message = BAD_REQUESTS[case]
    users = pa.table({"user_id": ["nobody", "user-0001", "none"], "number": [1, 2, 3]})
    pq.write_table(users, tmp_path / "users.parquet")
    paths = {"als": data.models["als"], "test": data.test, "ratings": data.ratings}
    before = contents()

    run = run_fastmf if case in IN_PROCESSES else call_fastmf
    done = run(*(str(argument).format(**paths) for argument in arguments), status=status)

    assert re.match(r"\d*" + re.escape(message), message_of(done, str(arguments[0])))
    assert done.stdout == ""
    assert contents() == before


@pytest.mark.parametrize("unknown", ["Heat", "1.5", "99", str(2**63), ""])
def test_an_id_that_is_no_integer_of_the_model(unknown: str, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    fastmf.ALS(n_factors=2, n_epochs=1).fit(fastmf.testing.low_rank(n_users=6, n_items=5)).save(tmp_path / "model")

    done = call_fastmf("similar", "model", "--user", unknown, status=1)

    expected = f"--user {unknown} is unknown to the model; expected an integer of its training data"
    assert message_of(done, "similar") == expected


def without_a_file(model: Path) -> str:
    (model / "item_factors.npy").unlink()
    return "lacks item_factors.npy: the model is incomplete; copy it again or train again"


def without_a_manifest(model: Path) -> str:
    (model / "manifest.json").unlink()
    return "has no manifest.json: it is not a model, or an incomplete one; train or copy it again"


def cut_short(model: Path) -> str:
    whole = (model / "user_factors.npy").read_bytes()
    (model / "user_factors.npy").write_bytes(whole[:-4])
    return f"user_factors.npy has {len(whole) - 4} bytes, expected {len(whole)}: copy the model again or train again"


def of_a_newer_version(model: Path) -> str:
    manifest = json.loads((model / "manifest.json").read_text())
    newer = manifest | {"format_version": 99, "fastmf_version": "9.1"}
    (model / "manifest.json").write_text(json.dumps(newer))
    return (
        f"has format version 99 and this fastmf ({fastmf.__version__}) reads up to 1.2, as a higher major "
        "version means files that it would misread; upgrade fastmf (the model was written by 9.1)"
    )


def of_another_program(model: Path) -> str:
    (model / "manifest.json").write_text('{"name": "my web page"}')
    return "manifest.json is not the manifest of a fastmf model; expected format 'fastmf-model'"


DAMAGE = (without_a_file, without_a_manifest, cut_short, of_a_newer_version, of_another_program)


@pytest.mark.parametrize("damage", [without_a_file, of_a_newer_version])
def test_a_model_that_is_not_whole(
    damage: Callable[[Path], str], data: Any, tmp_path: Path, run_fastmf: Callable[..., Done], contents: Contents
) -> None:
    message = damage(shutil.copytree(data.models["als"], tmp_path / "model"))
    before = contents()

    done = run_fastmf("recommend", "model", "--output", "recs.parquet", status=1)

    assert message_of(done, "recommend").endswith(message)
    assert contents() == before


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_command_refuses_a_model_that_is_not_whole(
    damage: Callable[[Path], str], data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    message = damage(shutil.copytree(data.models["als"], tmp_path / "model"))

    recommend, evaluate = ("recommend", "model", "--output", "recs.parquet"), ("evaluate", "model", data.test)
    for command in (recommend, evaluate, ("similar", "model", "--item", "film-001"), ("info", "model")):
        done = call_fastmf(*command, status=1)

        assert message_of(done, command[0]).endswith(message)
        assert done.stdout == ""


def test_a_changed_byte_is_found_when_asked_for(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    factors = shutil.copytree(data.models["als"], tmp_path / "model") / "user_factors.npy"
    factors.write_bytes(factors.read_bytes()[:-1] + b"?")

    call_fastmf("info", "model")
    done = call_fastmf("info", "model", "--verify", status=1)

    assert "user_factors.npy" in message_of(done, "info")
