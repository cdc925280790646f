"""The ``fastmf`` command: it turns arguments into library calls, and does nothing else.

Results go to standard output, everything else to standard error. Exit status: 0 done, 1 the work failed, 2 the call was
wrong, 130 it was interrupted (128 and the number of the signal).
"""

import argparse
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from fastmf.cli import (
    bench,
    clean,
    compare,
    convert,
    demo,
    doctor,
    evaluate,
    explain,
    export,
    import_,
    info,
    onboarding,
    recommend,
    similar,
    train,
    tune,
    users,
    verify,
    warmup,
)
from fastmf.cli.configuration import parse, to_toml
from fastmf.cli.interruptions import as_interruptions, in_words, status_of
from fastmf.cli.options import destination_of, option_of
from fastmf.cli.run_log import logged_run
from fastmf.errors import FastMFError, OutputError, ParameterError, QualityWarning

_COMMANDS = (
    *(demo, train, tune, recommend, evaluate, compare, similar, users, explain, onboarding),
    *(convert, info, verify, export, import_, clean, doctor, warmup, bench),
)

_DESCRIPTION = """\
Matrix factorisation for recommenders: ratings in Parquet to recommendations in Parquet.

Start with `fastmf demo`; `fastmf COMMAND --help` shows an example of each command.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["bench"]:
        return bench.run_with(given[1:])
    command = next((word for word in given if not word.startswith("-")), "")
    try:
        parsed = parse(make_parser(command), command, given, argparse.Namespace(arguments=given, run_log=None))
    except KeyboardInterrupt as error:  # it has to import the models
        print(f"fastmf: {in_words(error)}", file=sys.stderr)
        return status_of(error)
    except ParameterError as error:  # of its configuration
        print(f"fastmf {command}: {error}", file=sys.stderr)
        return 2
    _print_every_letter()
    try:
        with as_interruptions(), _notes_in_one_line(parsed), _telling_of_compiling(parsed), logged_run(parsed):
            status = _print_config(parsed) if getattr(parsed, "print_config", False) else int(parsed.run(parsed))
            _flush_results()
        return status
    except (FastMFError, OSError, MemoryError, KeyboardInterrupt) as error:
        _drop_unwritten_results()
        if parsed.debug:
            raise
        print(f"fastmf {parsed.command}: {_message(error, parsed)}", file=sys.stderr)
        if isinstance(error, KeyboardInterrupt):
            return status_of(error)
        return 2 if isinstance(error, ParameterError) else 1


@contextmanager
def _notes_in_one_line(parsed: argparse.Namespace) -> Iterator[None]:
    """Print what the library says of the GPU, of its kernels or of a model as one line, other warnings as Python does.

    What it says of a model is in ``parsed.warned``, too, and is not printed with --quiet.
    """
    from fastmf_kernels._notes import Note

    def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        if isinstance(message, QualityWarning):
            _warn_of_quality(message, parsed)
        elif issubclass(category, Note):
            print(f"fastmf: note: {message}", file=sys.stderr)
        else:
            show_as_before(message, category, *rest, **named)

    with warnings.catch_warnings():
        show_as_before = warnings.showwarning
        warnings.simplefilter("always", Note)
        warnings.simplefilter("always", QualityWarning)
        warnings.showwarning = show
        yield


@contextmanager
def _telling_of_compiling(parsed: argparse.Namespace) -> Iterator[None]:
    """Say that kernels are compiled, for which a first call waits; `warmup` does nothing else, and says so."""
    from fastmf_kernels._notes import telling_of_compiling

    def tell(text: str) -> None:
        from fastmf.common.progress import show_above_bars

        show_above_bars(text)

    is_silent = getattr(parsed, "quiet", True) or parsed.command == "warmup"
    with telling_of_compiling(None if is_silent else tell):
        yield


def _warn_of_quality(warning: QualityWarning, parsed: argparse.Namespace) -> None:
    text = warning.in_words_of(partial(_name_of, parsed))
    if text not in parsed.warned:
        parsed.warned.append(text)
        if not getattr(parsed, "quiet", False):
            print(f"fastmf: note: {text}", file=sys.stderr)


def _print_every_letter() -> None:
    """Let standard output escape letters that its encoding lacks, as standard error does: ids may have any."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _flush_results() -> None:
    """Write results out: what fails here would otherwise fail at exit, too late for a message and a status."""
    if sys.stdout is None:  # it was closed before the process started, and takes nothing
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        raise OutputError(f"cannot write to standard output: {error.strerror}; send it elsewhere") from error


def _drop_unwritten_results() -> None:
    """Forget what a full disk or a closed pipe did not take; Python would stumble over it again at exit."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_config(parsed: argparse.Namespace) -> int:
    print(to_toml(parsed))
    return 0


def _name_of(parsed: argparse.Namespace, parameter: str) -> str | None:
    """Return what the caller has set a parameter with: an option, or a key of the configuration."""
    configured, destination = parsed.configuration, destination_of(parameter)
    if configured is not None and destination in configured.keys:
        return f"{configured.keys[destination]} in {configured.path}"
    return option_of(parsed.parser, parameter)


def _message(error: BaseException, parsed: argparse.Namespace) -> str:
    """Word an error for people who have called the command."""
    if isinstance(error, FastMFError):
        return "; ".join([error.in_words_of(partial(_name_of, parsed)), *getattr(error, "__notes__", ())])
    if isinstance(error, KeyboardInterrupt):
        return in_words(error)
    if isinstance(error, MemoryError):
        return f"out of memory ({error}); use fewer factors, or a machine with more"
    return str(error)


def make_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Build the parser of the command line: with the arguments of one command, or of all of them.

    The arguments of `train` are those of the models, whose import takes longer than many a command.
    """
    parser = argparse.ArgumentParser(
        prog="fastmf", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        name = command.__name__.rpartition(".")[2].rstrip("_")  # `import` is a word of Python
        help_text, _, rest = (command.__doc__ or "").partition("\n\n")
        subparser = commands.add_parser(
            name,
            help=help_text[:1].lower() + help_text[1:].strip().rstrip("."),
            description=f"{help_text.strip()}\n\n{rest.strip()}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if only in (None, name):
            command.add_arguments(subparser)
        subparser.add_argument("--debug", action="store_true", help="show the traceback of an error")
        subparser.set_defaults(run=command.run, parser=subparser, warned=[])
    return parser


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from fastmf._version import __version__

        print(f"fastmf {__version__}")
        parser.exit()
