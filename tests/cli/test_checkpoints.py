"""``fastmf train`` that is killed, interrupted or resumed: it goes on, or keeps what it has, and says which."""

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess, Popen
from typing import Any

import numpy as np
import pytest

import fastmf
from fastmf.keeping import checkpoints

Done = CompletedProcess[str]
Contents = Callable[[], dict[str, bytes | None]]

ALS = ("--model", "als", "--factors", 4, "--epochs", 6)
ENDLESS = ("--model", "als", "--factors", 4, "--epochs", 1_000_000)
REFIT = ("--validation-fraction", 0.2, "--patience", 6, "--regularization", 0.5, "--refit")
# A shell may have started the tests with Ctrl-C ignored, which children inherit.
HEED_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
# Progress has a line for every epoch, also of many.
EVERY_LINE = "from fastmf.common.progress import Progress; Progress._line_is_due = lambda self: True"
# A signal when the checkpoint of an epoch is about to take its place.
AT_EPOCH = """
import os, signal
from fastmf.keeping import checkpoints
write, n = checkpoints.write, 0
def write_or_end(directory, content, arrays):
    global n
    n += directory.name == {folder!r}
    if n == {epoch}:
        os.kill(os.getpid(), signal.{name})
    write(directory, content, arrays)
checkpoints.write = write_or_end
"""
unix = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")


def same_models(one: Path, other: Path) -> bool:
    first, second = fastmf.load(one), fastmf.load(other)
    histories = [
        [{k: value for k, value in record.items() if k not in ("seconds", "interrupted")} for record in model.history]
        for model in (first, second)
    ]
    pairs = zip(first.fitted.factors, second.fitted.factors, strict=True)
    return histories[0] == histories[1] and all(np.array_equal(a, b) for a, b in pairs)


def wait_for_line(process: "Popen[str]", beginning: str) -> None:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        if line.startswith(beginning):
            return
        said.append(line)
    raise AssertionError(f"ended before {beginning!r}: {said}")


def n_done(directory: Path) -> int:
    content = checkpoints.read_content(directory)
    return 0 if content is None else len(content["history"])


def test_a_checkpoint_is_gone_on_from_only_where_that_is_asked_for(
    data: Any, tmp_path: Path, call_fastmf: Callable[..., Done], contents: Contents
) -> None:
    def train(*words: object, **how: Any) -> Done:
        return call_fastmf("train", data.ratings, *ALS, *words, **how)

    first = train("--output", "first", "--checkpoint", "kept", "--resume", "--checkpoint-every", 2)
    assert "there is no checkpoint in kept yet: training starts afresh" in first.stderr.splitlines()
    before = contents()
    shutil.move(data.ratings, tmp_path / "away.parquet")
    try:  # it is refused before the ratings are looked for
        refused = train("--output", "second", "--checkpoint", "kept", status=1)
    finally:
        shutil.move(tmp_path / "away.parquet", data.ratings)
    assert refused.stderr == (
        f"fastmf train: {tmp_path / 'kept'} has a checkpoint already; add --resume to go on from it, or remove it to "
        "start afresh\n"
    )
    assert contents() == before

    again = train("--output", "second", "--checkpoint", "kept", "--resume")
    assert "all 6 epochs were done before" in again.stderr.splitlines()
    more = train("--output", "third", "--checkpoint", "kept", "--resume", "--epochs", 8)
    assert "going on after epoch 6 of 8" in more.stderr.splitlines()
    assert "ALS: 7/8 epochs" in more.stderr
    assert "ALS: 6/8 epochs" not in more.stderr
    train("--output", "whole", "--epochs", 8)
    assert same_models(tmp_path / "first", tmp_path / "second")
    assert same_models(tmp_path / "third", tmp_path / "whole")


WRONG: dict[str, tuple[tuple[object, ...], str]] = {
    "--resume alone": (("--resume",), "--resume needs the directory of the checkpoint; add --checkpoint DIR"),
    "--checkpoint-every alone": (("--checkpoint-every", 2), "--checkpoint-every needs the directory of the checkpoint"),
    "the output": (("--checkpoint", "model"), "--output model and --checkpoint model are in each other's way; choose"),
    "in the output": (("--checkpoint", "model/kept"), "--output model and --checkpoint model/kept are in each other's"),
    "about the output": (("--checkpoint", "kept", "--output", "kept/state"), "are in each other's way"),
    "every 0th": (("--checkpoint", "kept", "--checkpoint-every", 0), "'0' is not an integer of at least 1"),
    "a start that an interruption replaces": (
        ("--start", "{als}", "--output", "{als}", "--overwrite", "--checkpoint", "kept", "--keep-on-interrupt"),
        "the checkpoint needs it to go on; choose another --output",
    ),
    "a start of another class": (("--start", "{sgd}"), "--start is of class SGD; expected a fitted model of class ALS"),
    "a start of another size": (
        ("--start", "{als}", "--factors", 5),
        "--factors is 5 and --start has 4 factors; expected as many: set --factors to 4, or leave --start out",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_options_that_do_not_go_together(
    name: str, data: Any, call_fastmf: Callable[..., Done], contents: Contents
) -> None:
    words, message = WRONG[name]
    given = [str(word).format(**data.models) for word in words]

    done = call_fastmf("train", "no-such-file.parquet", *ALS, "--output", "model", *given, status=2)

    assert message in done.stderr.splitlines()[-1]
    assert contents() == {}


def test_differences_are_named_by_their_options(data: Any, call_fastmf: Callable[..., Done]) -> None:
    call_fastmf("train", data.ratings, *ALS, "--output", "model", "--checkpoint", "kept")

    def train(*words: object, status: int, ratings: Path = data.ratings) -> str:
        how = ("--output", "other", "--checkpoint", "kept", "--resume")
        return call_fastmf("train", ratings, *ALS, *how, *words, status=status).stderr.splitlines()[-1]

    assert "--epochs is 5, and the checkpoint in " in train("--epochs", 5, status=2)
    assert "--factors is 5, and the checkpoint in " in train("--factors", 5, status=2)
    needs = ("--patience", 3, "--validation", data.test)
    assert re.match(
        r"fastmf train: --patience is 3, and the checkpoint in \S+ was made with it not set; set it back",
        train(*needs, status=2),
    )
    assert "use another directory for --checkpoint" in train("--seed", 1, status=2)
    assert "was made with biases=True, and now it is False; set --no-biases back" in train("--no-biases", status=2)
    assert "was made with other ratings: now ratings has " in train(ratings=data.test, status=1)
    assert "was made without ratings to validate on, and --validation-fraction is given now" in train(
        "--validation", data.test, status=1
    )


def test_a_model_is_no_directory_for_checkpoints(data: Any, call_fastmf: Callable[..., Done]) -> None:
    words = ("train", "no-such-file.parquet", *ALS, "--output", "model", "--checkpoint", data.models["als"])
    done = call_fastmf(*words, status=1)

    assert "is a model, which could not be replaced with a checkpoint in it" in done.stderr
    assert "use another directory for --checkpoint" in done.stderr


def test_start_begins_at_a_model(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    call_fastmf("train", data.ratings, *ALS, "--output", "model", "--start", data.models["als"], "--checkpoint", "kept")

    expected = fastmf.ALS(n_factors=4, n_epochs=6)
    expected.fit(fastmf.read_parquet(data.ratings), start=fastmf.load(data.models["als"])).save(tmp_path / "expected")
    assert same_models(tmp_path / "model", tmp_path / "expected")
    done = call_fastmf(
        "train",
        data.ratings,
        *ALS,
        "--output",
        "other",
        "--start",
        "model",
        "--checkpoint",
        "kept",
        "--resume",
        status=2,
    )
    assert "was made with other factors to begin at: now --start has other factors" in done.stderr
    done = call_fastmf("train", data.ratings, *ALS, "--output", "other", "--start", "none", status=1)
    assert "no model at none" in done.stderr


@unix
@pytest.mark.slow
@pytest.mark.parametrize("folder", ["kept", "refit"])
def test_killed_in_either_training_of_a_refit_and_resumed(
    folder: str, data: Any, tmp_path: Path, run_fastmf: Callable[..., Done], call_fastmf: Callable[..., Done]
) -> None:
    words = ("train", data.ratings, *ALS, *REFIT)
    call_fastmf(*words, "--output", "whole")
    prelude = AT_EPOCH.format(folder=folder, epoch=2, name="SIGKILL")
    run_fastmf(*words, "--output", "model", "--checkpoint", "kept", prelude=prelude, status=-9)
    assert not (tmp_path / "model").exists()
    assert n_done(tmp_path / "kept") == (1 if folder == "kept" else 6)
    assert n_done(tmp_path / "kept" / "refit") == (0 if folder == "kept" else 1)

    done = call_fastmf(*words, "--output", "model", "--checkpoint", "kept", "--resume", "--json")

    lines = done.stderr.splitlines()
    if folder == "kept":
        assert "going on after epoch 1 of 6" in lines
    else:
        place = lines.index("training again on all ratings, from a checkpoint on")
        assert "all 6 epochs were done before" in lines[:place]
        assert lines[place + 1].startswith("going on after epoch 1 of ")
    assert same_models(tmp_path / "model", tmp_path / "whole")
    result = json.loads(done.stdout)
    assert len(result["history"]) == 6
    assert result["refit"]["n_epochs"] == fastmf.load(tmp_path / "whole").n_epochs


@unix
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_with_a_checkpoint_it_says_how_to_go_on(
    number: signal.Signals, data: Any, tmp_path: Path, start_fastmf: Callable[..., Any], run_fastmf: Callable[..., Done]
) -> None:
    what = "interrupted" if number == signal.SIGINT else "terminated"
    beginning = f"fastmf train: {what}; nothing was left half-written; "
    prelude = f"{HEED_CTRL_C}\n{EVERY_LINE}"
    process = start_fastmf(
        "train", data.ratings, *ENDLESS, "--output", "model", "--checkpoint", "kept", prelude=prelude
    )
    wait_for_line(process, "ALS: 2/")
    process.send_signal(number)
    output, errors = process.communicate(timeout=120)

    assert (process.returncode, output) == (128 + number, "")
    epoch = n_done(tmp_path / "kept")
    assert epoch >= 1
    assert errors.splitlines()[-1] == f"{beginning}the same call with --resume goes on after epoch {epoch}"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["state"]

    prelude = f"{HEED_CTRL_C}\n{AT_EPOCH.format(folder='kept', epoch=3, name=number.name)}"
    words = ("train", data.ratings, *ENDLESS, "--output", "model", "--checkpoint", "kept", "--resume")
    done = run_fastmf(*words, prelude=prelude, status=128 + number)
    assert f"going on after epoch {epoch} of 1000000" in done.stderr.splitlines()
    assert done.stderr.splitlines()[-1] == f"{beginning}the same call goes on after epoch {epoch + 2}"


@unix
@pytest.mark.slow
def test_interrupted_in_the_first_epoch_there_is_nothing_to_go_on_from(
    data: Any, run_fastmf: Callable[..., Done]
) -> None:
    prelude = f"{HEED_CTRL_C}\n{AT_EPOCH.format(folder='kept', epoch=1, name='SIGINT')}"
    words = ("train", data.ratings, *ALS, "--output", "model", "--checkpoint", "kept")

    done = run_fastmf(*words, prelude=prelude, status=130)

    assert done.stderr.splitlines()[-1].endswith("; no epoch was finished: the same call starts afresh")


# Signals come when an epoch is about to be evaluated or called back for.
SIGNALS_IN_EPOCHS = """
import os, signal
from fastmf.models import factor_model
advance, n = factor_model.Progress.advance, 0
def advance_and_end(self, *given):
    global n
    advance(self, *given)
    n += 1
    if n == {epoch}:
        for number in {numbers}:
            os.kill(os.getpid(), number)
factor_model.Progress.advance = advance_and_end
"""


@unix
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("with_checkpoint", [False, True])
def test_what_is_done_is_kept_where_that_is_asked_for(
    number: signal.Signals,
    with_checkpoint: bool,
    data: Any,
    tmp_path: Path,
    run_fastmf: Callable[..., Done],
    call_fastmf: Callable[..., Done],
) -> None:
    prelude = f"{HEED_CTRL_C}\n{SIGNALS_IN_EPOCHS.format(epoch=3, numbers=[int(number)])}"
    words = ["train", data.ratings, *ALS, "--output", "model", "--keep-on-interrupt", "--json"]
    words += ["--log", "run.jsonl"]
    words += ["--checkpoint", "kept"] if with_checkpoint else []

    done = run_fastmf(*words, prelude=prelude, status=128 + number)

    goes_on = "; the same call with --resume and --overwrite goes on" if with_checkpoint else ""
    assert "ending after this epoch, with a model of the epochs that are done; once more ends at once" in done.stderr
    assert f"interrupted: the model that is saved has done 3 of 6 epochs{goes_on}" in done.stderr.splitlines()
    result = json.loads(done.stdout)
    assert (len(result["history"]), result["interrupted"]) == (3, True)
    end = json.loads((tmp_path / "run.jsonl").read_text().splitlines()[-1])
    assert (end["event"], end["status"], end["result"]["interrupted"]) == ("end", "interrupted", True)
    assert json.loads(call_fastmf("info", "model", "--json").stdout)["last epoch"]["interrupted"] is True
    assert "- Training was interrupted after 3 of 6 epochs" in (tmp_path / "model" / "card.md").read_text().splitlines()
    call_fastmf("train", data.ratings, "--model", "als", "--factors", 4, "--epochs", 3, "--output", "three")
    assert same_models(tmp_path / "model", tmp_path / "three")
    if with_checkpoint:
        call_fastmf("train", data.ratings, *ALS, "--output", "whole")
        whole = json.loads(call_fastmf(*words, "--resume", "--overwrite").stdout)
        assert same_models(tmp_path / "model", tmp_path / "whole")
        assert "interrupted" not in whole
        assert "interrupted" not in (tmp_path / "model" / "card.md").read_text()


@unix
@pytest.mark.slow
def test_the_second_signal_ends_at_once(data: Any, tmp_path: Path, run_fastmf: Callable[..., Done]) -> None:
    numbers = [int(signal.SIGTERM), int(signal.SIGINT)]
    prelude = f"{HEED_CTRL_C}\n{SIGNALS_IN_EPOCHS.format(epoch=2, numbers=numbers)}"

    done = run_fastmf(
        "train", data.ratings, *ALS, "--output", "model", "--keep-on-interrupt", prelude=prelude, status=130
    )

    assert "interrupted; nothing was left half-written; " in done.stderr.splitlines()[-1]
    assert done.stderr.endswith("; with --checkpoint DIR it could go on\n")
    assert list(tmp_path.iterdir()) == []


@unix
@pytest.mark.slow
@pytest.mark.parametrize("epoch", [2, 8], ids=["before", "in"])
def test_a_refit_is_left_out_or_ended_early(
    epoch: int, data: Any, tmp_path: Path, run_fastmf: Callable[..., Done]
) -> None:
    prelude = f"{HEED_CTRL_C}\n{SIGNALS_IN_EPOCHS.format(epoch=epoch, numbers=[int(signal.SIGINT)])}"

    done = run_fastmf(
        *("train", data.ratings, *ALS, *REFIT, "--output", "model", "--keep-on-interrupt", "--json"),
        prelude=prelude,
        status=130,
    )

    result, model = json.loads(done.stdout), fastmf.load(tmp_path / "model")
    assert "interrupted: the model that is saved has done 2 of " in done.stderr
    if epoch == 2:
        assert "refit" not in result
        assert len(model.history) == 2
    else:
        assert result["refit"]["n_epochs"] == 2
        assert len(model.history) == 6 + 2
        n_epochs = model.n_epochs
        card = (tmp_path / "model" / "card.md").read_text()
        assert f"- Training was interrupted after 2 of {n_epochs} epochs" in card.splitlines()
    assert result["interrupted"] is model.history[-1]["interrupted"] is True


@unix
@pytest.mark.slow
def test_signals_that_are_ignored_stay_ignored(data: Any, tmp_path: Path, run_fastmf: Callable[..., Done]) -> None:
    prelude = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    prelude += SIGNALS_IN_EPOCHS.format(epoch=2, numbers=[int(signal.SIGINT)])

    run_fastmf("train", data.ratings, *ALS, "--output", "model", "--keep-on-interrupt", prelude=prelude)

    assert len(fastmf.load(tmp_path / "model").history) == 6


@unix
@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before(
    data: Any, tmp_path: Path, run_fastmf: Callable[..., Done], call_fastmf: Callable[..., Done], contents: Contents
) -> None:
    call_fastmf("train", data.ratings, *ALS, "--output", "model", "--checkpoint", "kept")
    shutil.rmtree(tmp_path / "model")
    before = contents()
    full = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    full += "resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))"

    words = ("train", data.ratings, *ALS, "--epochs", 9, "--output", "model", "--checkpoint", "kept", "--resume")
    done = run_fastmf(*words, prelude=full, status=1)

    assert done.stderr.splitlines()[-1].startswith(f"fastmf train: cannot write {tmp_path / 'kept' / 'state'}: ")
    assert "; make room, or choose another output (" in done.stderr.splitlines()[-1]
    assert contents() == before
    assert os.fspath(tmp_path) in done.stderr
