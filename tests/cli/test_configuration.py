"""``--config``: a file of options does what the same options do, and is refused where it makes no sense."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

import fastmf
from fastmf.cli import make_parser
from fastmf.cli.configuration import COMMANDS, parse, to_toml
from fastmf.cli.options import resolved_options

Done = CompletedProcess[str]
TRAIN = """
ratings = ["a.parquet", "b/*.parquet"]
model = "sgd"
output = "model"
factors = 8
regularization = "auto"
learning-rate = 0.05
no_biases = true
overwrite = false
rating_range = [1, 5]
validation-by = "user"
"""


def parsed_from(text: str, *words: str, command: str = "train", folder: Path) -> Any:
    import argparse

    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    given = [command, "--config", str(path), *words]
    return parse(make_parser(command), command, given, argparse.Namespace(arguments=given, run_log=None))


def plainly(*words: str) -> dict[str, Any]:
    return resolved_options(make_parser(words[0]).parse_args(words))


def test_keys_are_options(tmp_path: Path) -> None:
    parsed = parsed_from(TRAIN, folder=tmp_path)

    words = "a.parquet b/*.parquet --model sgd --output model --factors 8 --regularization auto --learning-rate 0.05"
    more = "--no-biases --rating-range 1 5 --validation-by user"
    assert resolved_options(parsed) == plainly("train", *words.split(), *more.split())


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--factors", "3"], "factors", 3),
        (["--epo", "3"], "epochs", 3),
        (["other.parquet"], "ratings", ["other.parquet"]),
        (["--seed", "3", "x", "y", "--quiet"], "ratings", ["x", "y"]),
        (["--rating-range", "0", "1"], "rating-range", [0.0, 1.0]),
        (["--model", "als", "--output", "m"], "model", "als"),
        (["--no-rating-column"], "no-rating-column", True),
    ],
)
def test_the_command_line_overrides_the_file(words: list[str], name: str, value: object, tmp_path: Path) -> None:
    parsed = parsed_from(TRAIN, *words, folder=tmp_path)

    options = resolved_options(parsed)
    assert options[name] == value
    assert options.get("rating-column") == (None if name == "no-rating-column" else "rating")
    assert options["learning-rate"] == 0.05


def test_an_option_given_at_its_default_overrides_the_file(tmp_path: Path) -> None:
    text = TRAIN + 'seed = 5\ndevice = "cuda"\nno-rating-column = true\n'

    given = ["--seed", "0", "--device", "cpu", "--rating-column", "rating"]

    options = resolved_options(parsed_from(text, *given, folder=tmp_path))
    assert (options["seed"], options["device"], options["rating-column"]) == (0, "cpu", "rating")


def test_options_before_the_file_count_as_well(tmp_path: Path) -> None:
    import argparse

    (tmp_path / "run.toml").write_text(TRAIN + "seed = 5\n")
    given = ["train", "--seed", "0", "x.parquet", f"--conf={tmp_path / 'run.toml'}"]

    parsed = parse(make_parser("train"), "train", given, argparse.Namespace())

    assert (parsed.seed, parsed.ratings, parsed.n_factors) == (0, ["x.parquet"], 8)


def test_a_list_of_spaces_is_replaced_and_not_extended(tmp_path: Path) -> None:
    text = 'ratings = "r.parquet"\nmodel = "als"\noutput = "t"\nspace = ["factors=2,4", "regularization=0.1..1:log"]'

    assert parsed_from(text, command="tune", folder=tmp_path).space == ["factors=2,4", "regularization=0.1..1:log"]
    assert parsed_from(text, "--space", "x=1", command="tune", folder=tmp_path).space == ["x=1"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ("m", "t.parquet")),
        (["other"], ("other", "t.parquet")),
        (["other", "--quiet", "u.parquet"], ("other", "u.parquet")),
        (["--quiet", "other"], ("other", "t.parquet")),
    ],
)
def test_arguments_without_options_may_come_from_either(
    words: list[str], expected: tuple[str, str], tmp_path: Path
) -> None:
    text = 'model = "m"\ntest = "t.parquet"\nk = [10, 20]\nci = true\nmetrics = "rmse"'

    parsed = parsed_from(text, *words, command="evaluate", folder=tmp_path)

    assert (parsed.model, parsed.test) == expected
    assert (parsed.k, parsed.ci, parsed.metrics) == ([10, 20], 0.95, ["rmse"])


def test_a_table_of_the_command_is_closer_than_the_top(tmp_path: Path) -> None:
    text = 'device = "cuda"\nquiet = true\n[recommend]\nmodel = "m"\noutput = "o"\ndevice = "cpu"\n[train]\nx = 1'

    parsed = parsed_from(text, command="recommend", folder=tmp_path)

    assert (parsed.device, parsed.quiet, parsed.model) == ("cpu", True, "m")


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_printed_is_a_configuration_of_the_same_call(command: str, tmp_path: Path) -> None:
    words = {
        "train": ['ü\x7f\t"r\\.parquet', "--model", "als", "--output", "m", "--no-biases", "--regularization", "1e-7"],
        "tune": [
            "r",
            "s",
            "--model",
            "bpr",
            "--output",
            "m",
            "--space",
            "a=1",
            "--space",
            "b=x0.5..2",
            "--minutes",
            "3",
        ],
        "recommend": ["m", "--output", "r.parquet", "-k", "3", "--strict"],
        "evaluate": ["m", "t", "-k", "3", "5", "--ci", "--metrics", "rmse", "mae", "--no-rating-column"],
    }[command]
    expected = make_parser(command).parse_args([command, *words])

    printed = to_toml(expected)

    assert list(tomllib.loads(printed)) == [command]
    again = parsed_from(printed, command=command, folder=tmp_path)
    assert resolved_options(again) == resolved_options(expected)
    assert to_toml(again) == printed
    named_apart = ("config", "configuration", "parser", "warned", "arguments", "run_log", "run")
    given, read = ({n: v for n, v in vars(p).items() if n not in named_apart} for p in (expected, again))
    assert read == given


def test_training_with_a_file_gives_the_model_of_the_options(
    data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    (tmp_path / "run.toml").write_text(
        f'[train]\nratings = {json.dumps(str(data.ratings))}\nmodel = "als"\nfactors = 4\nepochs = 2\nlog = "r.jsonl"'
    )

    call_fastmf("train", "--config", "run.toml", "--output", "model")

    assert fastmf.load(tmp_path / "model").get_params() == fastmf.load(data.models["als"]).get_params()
    start = json.loads((tmp_path / "r.jsonl").read_text().splitlines()[0])
    assert (start["options"]["factors"], start["options"]["ratings"]) == (4, [str(data.ratings)])


def test_print_config_does_nothing_else(call_fastmf: Callable[..., Done], contents: Callable[[], Any]) -> None:
    done = call_fastmf("train", "absent.parquet", "--model", "als", "--output", "m", "--factors", 3, "--print-config")

    options = tomllib.loads(done.stdout)["train"]
    assert (options["factors"], options["ratings"], done.stderr) == (3, ["absent.parquet"], "")
    assert contents() == {}


REFUSED = {
    "factor = 8": "factor in run.toml is no option of train; expected factors, or another that `fastmf train --help`",
    "n_factors = 8": "n_factors in run.toml is no option of train; expected factors, or another",
    "zzz = 8": "zzz in run.toml is no option of train; expected one that `fastmf train --help` lists",
    "help = true": "help in run.toml is no option of train",
    "config = 'x'": "config in run.toml is no option of train",
    "[trian]\nfactors = 8": "[trian] in run.toml is no command that takes a configuration; expected train",
    "[train.model]\nname = 'als'": "model in run.toml is {'name': 'als'}; expected text",
    "factors = 0": "factors in run.toml: '0' is not an integer of at least 1",
    "factors = 2.5": "factors in run.toml: '2.5' is not an integer of at least 1",
    "factors = true": "factors in run.toml is true; expected a number or text",
    "factors = [1, 2]": "factors in run.toml is [1, 2]; expected a number or text",
    "seed = 'x'": "seed in run.toml is 'x'; expected a value of type int",
    "model = 'lda'": "model in run.toml is 'lda'; expected one of 'als', ",
    "user-column = 5": "user-column in run.toml is 5; expected text",
    "no-biases = 1": "no-biases in run.toml is 1; expected true or false",
    "rating-range = [1]": "rating-range in run.toml has 1 values; expected 2",
    "ratings = []": "ratings in run.toml has 0 values; expected at least one",
    "output = 1979-05-27": "output in run.toml is datetime.date(1979, 5, 27); expected text",
    "factors = 1\nfactors = 2": "run.toml is not TOML: ",
    "rating-column = 'r'\nno-rating-column = true": "rating-column and no-rating-column in run.toml exclude each other",
    "no_biases = true\nno-biases = true": "no_biases and no-biases in run.toml exclude each other",
    "factors =": "run.toml is not TOML: Invalid value (at end of document); expected lines such as epochs = 20",
    "regularization = -1": "regularization in run.toml is -1.0; expected a finite number of at least 0",
    "learning-rate = 0.1": "--learning-rate is not a hyper-parameter of --model als",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_makes_no_sense_is_refused(
    text: str, tmp_path: Path, call_fastmf: Callable[..., Done], contents: Callable[[], Any]
) -> None:
    (tmp_path / "run.toml").write_text(text)
    before = contents()

    done = call_fastmf("train", "r.parquet", "--model", "als", "--output", "m", "--config", "run.toml", status=2)

    assert done.stderr.startswith(f"fastmf train: {REFUSED[text]}")
    assert done.stderr.count("\n") == 1
    assert contents() == before


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "cannot read run.toml: No such file or directory"), (b"\xff\xfe", "run.toml is not TOML: 'utf-8' codec")],
)
def test_a_file_that_cannot_be_read(
    content: bytes | None, complaint: str, tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    if content is not None:
        (tmp_path / "run.toml").write_bytes(content)

    done = call_fastmf("train", "--config", "run.toml", status=2)

    assert done.stderr.startswith(f"fastmf train: {complaint}")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "the following arguments are required: --output"),
        (["--output", "m", "--factors", "x"], "argument --factors: 'x' is not an integer of at least 1"),
        (["--output", "m", "--absent"], "unrecognized arguments: --absent"),
        (["--config"], "argument --config: expected one argument"),
    ],
)
def test_a_wrong_call_is_told_as_without_a_file(
    words: list[str], complaint: str, tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    (tmp_path / "run.toml").write_text('ratings = "r.parquet"\nmodel = "als"\n')

    done = call_fastmf("train", "--config", "run.toml", *words, status=2)

    assert done.stderr.splitlines()[-1] == f"fastmf train: error: {complaint}"


def test_only_some_commands_have_a_configuration(call_fastmf: Callable[..., Done]) -> None:
    assert "unrecognized arguments: --config" in call_fastmf("info", "x", "--config", "run.toml", status=2).stderr


@pytest.mark.parametrize(
    ("text", "words", "status"),
    [
        ('timestamp-column = "time"\nno-rating-column = true\nduplicates = "sum"', [], 0),
        ('timestamp-column = "time"', ["--item-column", "film"], 2),
        ('timestamp-column = "time"', ["--timestamp-column", "when"], 2),
        ('[recommend]\ntimestamp-column = "time"', [], 2),
        ('timestamp-column = "time"\n[recommend]\ntimestamp-column = "when"', [], 2),
    ],
)
def test_what_stands_at_the_top_may_have_no_use_in_a_call(
    text: str, words: list[str], status: int, data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    (tmp_path / "run.toml").write_text(text)
    call = ("recommend", data.models["als"], "--config", "run.toml", "--output", "z", "--quiet")

    done = call_fastmf(*call, *words, status=status)

    assert (tmp_path / "z").exists() is (status == 0)
    assert ("is for the ratings that --for names; add --for" in done.stderr) is (status == 2)


def test_a_column_that_is_missing_is_named_by_its_key(
    data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    (tmp_path / "run.toml").write_text('timestamp-column = "time"')

    done = call_fastmf("train", data.ratings, "--model", "als", "--output", "m", "--config", "run.toml", status=1)

    assert done.stderr.endswith("; set timestamp-column in run.toml to another\n")
