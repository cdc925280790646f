"""What the command says about itself, and what it says of calls that are wrong."""

import argparse
import shlex
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

import fastmf
from fastmf.cli import make_parser

Done = CompletedProcess[str]
COMMANDS = (
    *("demo", "train", "tune", "recommend", "evaluate", "compare", "similar", "users", "explain", "onboarding"),
    *("convert", "info", "verify", "export", "import", "clean", "doctor", "warmup", "bench"),
)


def test_version_is_that_of_the_library(run_fastmf: Callable[..., Done]) -> None:
    done = run_fastmf("--version")

    assert (done.stdout, done.stderr) == (f"fastmf {fastmf.__version__}\n", "")


def test_help_names_every_command_and_nothing_else(run_fastmf: Callable[..., Done]) -> None:
    done = run_fastmf("--help")

    listed = done.stdout.partition("commands:\n")[2].splitlines()
    assert tuple(line.split()[0] for line in listed if line.startswith("    ") and line[4] != " ") == COMMANDS
    assert done.stderr == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_shows_an_example_that_parses(command: str, run_fastmf: Callable[..., Done]) -> None:
    done = run_fastmf(command, "--help")

    assert done.stderr == ""
    example = done.stdout.partition("\nexample:\n  fastmf ")[2].splitlines()[0]
    assert make_parser().parse_args(shlex.split(example)).command == command


def test_every_option_is_explained() -> None:
    subparsers = next(a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction))

    silent = [(name, a.dest) for name, p in subparsers.choices.items() for a in p._actions if not a.help]

    assert silent == []


def test_help_of_evaluate_lists_every_metric(run_fastmf: Callable[..., Done]) -> None:
    words = run_fastmf("evaluate", "--help").stdout.replace(",", " ").split()

    assert set(fastmf.metrics.METRICS) <= set(words)


TRAIN = ("train", "r.parquet", "--model", "als", "--output", "m")


WRONG_CALLS: dict[tuple[str, ...], str] = {
    (): "the following arguments are required: COMMAND",
    ("fit",): "invalid choice: 'fit'",
    ("train", "r.parquet", "--output", "m"): "the following arguments are required: --model",
    ("train", "r.parquet", "--model", "als"): "the following arguments are required: --output",
    ("train", "r.parquet", "--model", "lda", "--output", "m"): "invalid choice: 'lda'",
    (*TRAIN, "--factors", "0"): "--factors: '0' is not an integer of at least 1",
    (*TRAIN, "--factors", "many"): "--factors: 'many' is not an integer of at least 1",
    (*TRAIN, "--validation-fraction", "1"): "--validation-fraction: '1' is not a number between 0 and 1",
    (*TRAIN, "--validation-fraction", "some"): "'some' is not a number between 0 and 1",
    (*TRAIN, "--rating-column", "r", "--no-rating-column"): "not allowed with argument",
    (*TRAIN, "--device", "tpu"): "invalid choice: 'tpu'",
    (*TRAIN, "--threads", "0"): "--threads: '0' is not an integer of at least 1",
    (*TRAIN, "--duplicates", "drop"): "invalid choice: 'drop'",
    ("recommend", "m"): "the following arguments are required: --output",
    ("recommend", "m", "--output", "r.parquet", "-k", "0"): "-k: '0' is not an integer of at least 1",
    ("evaluate", "m"): "the following arguments are required: TEST.parquet",
    ("explain", "m", "--item", "1"): "the following arguments are required: --user",
    ("similar", "m"): "one of the arguments --item --user --vector --positive is required",
    ("similar", "m", "--item", "1", "--user", "1"): "not allowed with argument",
    ("convert", "a.csv"): "the following arguments are required: OUT.parquet",
    ("bench", "--laps", "0"): "--laps: '0' is not an integer of at least 1",
    ("bench", "--shape", "ml-100m"): "invalid choice: 'ml-100m'",
    ("bench", "report"): "the following arguments are required: RESULTS, -o/--output",
}


@pytest.mark.parametrize(
    ("arguments", "complaint"), WRONG_CALLS.items(), ids=[" ".join(call) or "nothing" for call in WRONG_CALLS]
)
def test_a_wrong_call_is_status_2(arguments: tuple[str, ...], complaint: str, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf(*arguments, status=2)

    assert done.stdout == ""
    assert complaint in done.stderr
    assert done.stderr.startswith("usage: fastmf")


def test_a_wrong_call_is_status_2_to_the_shell(run_fastmf: Callable[..., Done]) -> None:
    assert "error: the following arguments are required: RATINGS" in run_fastmf("train", status=2).stderr
