"""Checkpoints of `train`: their options, what must hold before anything is read, and how an interrupted run goes on."""

import argparse
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fastmf.cli.options import note, positive_integer
from fastmf.errors import FastMFError, OutputExistsError, ParameterError

if TYPE_CHECKING:
    from pathlib import Path

    from fastmf.models import Model

REFIT = "refit"
"""Where the training of --refit has its checkpoints, below the directory of the others."""


INTERRUPTED = "interrupted"
"""What marks a result, and the last epoch of a model, where a signal has ended the training."""


def add_checkpoint_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a training goes on, and from what it begins."""
    group = parser.add_argument_group("interruptions")
    group.add_argument(
        "--checkpoint", metavar="DIR", help="write to this directory, after each epoch, what training needs to go on"
    )
    group.add_argument(
        "--checkpoint-every", type=positive_integer, metavar="N", help="write it after every Nth epoch (default: 1)"
    )
    group.add_argument(
        "--resume", action="store_true", help="go on from the checkpoint in --checkpoint DIR, if there is one"
    )
    group.add_argument(
        "--keep-on-interrupt",
        action="store_true",
        help="at Ctrl-C or SIGTERM let the epoch end, and save the model of the epochs that are done",
    )
    group.add_argument("--start", metavar="MODEL", help="begin at what this model, of the same kind, has learned")


def require_free(parsed: argparse.Namespace) -> None:
    """Check the options against each other and against what is there, before anything is read.

    Raises
    ------
    ParameterError
        If ``--resume`` or ``--checkpoint-every`` lacks ``--checkpoint``, or the output, the checkpoint and the model to
        start from are in each other's way.
    OutputExistsError
        If there is a checkpoint that nobody has asked to go on from, or a file or a model in its place.
    """
    if parsed.checkpoint is None:
        for option, given in (("--resume", parsed.resume), ("--checkpoint-every", parsed.checkpoint_every)):
            if given:
                raise ParameterError(f"{option} needs the directory of the checkpoint; add --checkpoint DIR")
        return
    from fastmf.keeping import checkpoints

    _require_apart(parsed)
    checkpoints.require_usable(parsed.checkpoint)
    there = [str(folder) for folder in _folders(parsed) if checkpoints.exists(folder)]
    if there and not parsed.resume:
        raise OutputExistsError(
            f"{there[0]} has a checkpoint already; add --resume to go on from it, or remove it to start afresh"
        )
    if parsed.resume and not there:
        note(f"there is no checkpoint in {parsed.checkpoint} yet: training starts afresh", parsed)


def _require_apart(parsed: argparse.Namespace) -> None:
    from fastmf.common.files import local_path

    output, directory = local_path(parsed.output), local_path(parsed.checkpoint)
    below = [folder / name for folder in _folders(parsed) for name in ("state", REFIT)]
    if directory.is_relative_to(output) or any(output.is_relative_to(folder) for folder in below):
        raise ParameterError(
            f"--output {parsed.output} and --checkpoint {parsed.checkpoint} are in each other's way; choose another "
            "directory for one of them"
        )
    if parsed.keep_on_interrupt and parsed.start is not None and local_path(parsed.start) == output:
        raise ParameterError(
            f"with --keep-on-interrupt, an interruption would replace --start {parsed.start} by --output, and the "
            "checkpoint needs it to go on; choose another --output"
        )


def _folders(parsed: argparse.Namespace) -> "list[Path]":
    """Return the directories that have checkpoints: that of the training, and that of --refit."""
    from fastmf.common.files import local_path

    directory = local_path(parsed.checkpoint)
    return [directory, directory / REFIT] if parsed.refit else [directory]


def checkpointing(parsed: argparse.Namespace, below: str = "") -> dict[str, Any]:
    """Return the arguments of `fit` on checkpoints; ``below`` is a folder of the directory."""
    if parsed.checkpoint is None:
        return {}
    from fastmf.common.files import local_path

    return {"checkpoint": local_path(parsed.checkpoint) / below, "checkpoint_every": parsed.checkpoint_every or 1}


def note_refit_goes_on(parsed: argparse.Namespace) -> None:
    """Say that the training that goes on is the second one."""
    if _reached(parsed, REFIT) is not None:
        note("training again on all ratings, from a checkpoint on", parsed)


def note_saved_early(model: "Model", n_done: int, parsed: argparse.Namespace) -> None:
    """Say what was saved after a signal has asked for an end."""
    ending = "" if parsed.checkpoint is None else "; the same call with --resume and --overwrite goes on"
    n_epochs = getattr(model, "n_epochs", 1)
    note(f"interrupted: the model that is saved has done {n_done} of {n_epochs} epochs{ending}", parsed)


def how_to_go_on(parsed: argparse.Namespace) -> str:
    """Say what an interrupted call has left, and what would go on from there."""
    if parsed.checkpoint is None:
        saves = ", and with --keep-on-interrupt it would save the epochs that are done"
        return (
            "the same call starts afresh; with --checkpoint DIR it could go on"
            f"{'' if parsed.keep_on_interrupt else saves}"
        )
    call = "the same call" if parsed.resume else "the same call with --resume"
    for below, what in ((REFIT, " of the training on all ratings"), ("", "")):
        reached = _reached(parsed, below) if parsed.refit or not below else None
        if reached is not None:
            return f"{call} goes on after epoch {len(reached['history'])}{what}"
    return "no epoch was finished: the same call starts afresh"


def _reached(parsed: argparse.Namespace, below: str) -> dict[str, Any] | None:
    """Return what the checkpoint says; None if there is none, or none that can be read, which `fit` explains."""
    if parsed.checkpoint is None:
        return None
    from fastmf.common.files import local_path
    from fastmf.keeping import checkpoints

    with suppress(FastMFError):
        return checkpoints.read_content(local_path(parsed.checkpoint) / below)
    return None


def load_start(candidates: "dict[str, Model]", parsed: argparse.Namespace) -> "Model | None":
    """Load the model to begin at, and check what can be checked before ratings are read.

    Raises
    ------
    ModelError
        If it is none.
    ParameterError
        If it is of another kind than the one to train.
    """
    if parsed.start is None:
        return None
    import fastmf
    from fastmf.models.starting import as_start

    start = fastmf.load(parsed.start)
    if len(candidates) == 1:
        as_start(next(iter(candidates.values())), start)
    return start
