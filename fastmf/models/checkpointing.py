"""Checkpoints of a fit: written after epochs, and gone on from with the bits of a fit that nothing interrupted.

`fastmf.keeping.checkpoints` knows the files; here is what they mean to a training: whether a checkpoint is of the same
ratings and parameters, and how a trainer gets back to where it was.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastmf.answering.fitted import Fitted
from fastmf.common.files import local_path, naming
from fastmf.common.json_text import to_json
from fastmf.common.leftovers import locked
from fastmf.common.parameters import require_integer
from fastmf.common.progress import show_line
from fastmf.errors import DataError, FastMFError, OutputError, ParameterError, named
from fastmf.keeping import checkpoints
from fastmf.keeping.checkpoints import CONTENT, Checkpoint, damaged
from fastmf.models.fingerprints import difference, fingerprint_of, fingerprint_of_features, fingerprint_of_start
from fastmf.models.hyper_parameters import Chosen
from fastmf.models.training import Callback, Record, Resumable, best_record
from fastmf.reading.features import Features
from fastmf.reading.interactions import Interactions

if TYPE_CHECKING:
    from fastmf.models.base import Model

PAUSE = "pause"
"""What a callback returns to end a fit in such a way that the same call goes on from its checkpoint."""
# These may differ: how to run, and how far to go.
_FREE_PARAMETERS = ("n_threads", "verbose", "n_epochs")
# Nothing more is learned by going on, however many epochs are asked for.
_FINAL = ("patience", "converged")
_BEST = "best_"
# What a fit is made of, in words, and which error it is if it differs.
_DATA: tuple[tuple[str, str, type[FastMFError]], ...] = (
    # The ratings of a fit have the ids of its features, too, so they differ where these do.
    ("item_features", "features of items", DataError),
    ("user_features", "features of users", DataError),
    ("ratings", "ratings", DataError),
    ("validation", "ratings to validate on", DataError),
    ("start", "factors to begin at", ParameterError),
)
_ADVICE = f"or use another directory for {named('checkpoint')}"


class Reached(NamedTuple):
    """How far a training has come.

    Attributes
    ----------
    history : list of dict
        A record for each epoch that was done.
    best : Fitted or None
        The model to keep, if that is not the one after the last epoch.
    ended : str
        Why no epoch follows, one of `fastmf.keeping.checkpoints.ENDINGS`; empty if one may follow.
    """

    history: list[Record]
    best: Fitted | None = None
    ended: str = ""


def ending(answers: list[object]) -> tuple[bool, str]:
    """Return whether callbacks end a training, and why, for its checkpoint: after a pause, the next call goes on."""
    ends = [answer for answer in answers if answer]
    is_pause = any(isinstance(answer, str) and answer == PAUSE for answer in ends)
    return bool(ends), "callback" if ends and not is_pause else ""


class Checkpoints:
    """The checkpoints of one fit.

    Parameters
    ----------
    directory : Path
    every : int
        After how many epochs each is written.
    identity : dict
        What a checkpoint must share with this fit.
    n_epochs : int
    found : Checkpoint, optional
        Where to go on.
    """

    def __init__(
        self, directory: Path, every: int, identity: dict[str, Any], n_epochs: int, found: Checkpoint | None = None
    ) -> None:
        self._directory, self._every, self._identity, self._n_epochs = directory, every, identity, n_epochs
        self._found = found

    @property
    def chosen(self) -> Chosen:
        """What was chosen before the checkpoint; empty where there is none."""
        return dict(self._found.content["chosen"]) if self._found else {}

    @property
    def n_restarts(self) -> int:
        """How often training had begun again."""
        return int(self._found.content["n_restarts"]) if self._found else 0

    def afresh(self) -> "Checkpoints":
        """Return the same without the checkpoint that was found."""
        return Checkpoints(self._directory, self._every, self._identity, self._n_epochs)

    def resume(self, trainer: Resumable) -> Reached:
        """Bring a trainer to the state of the checkpoint, if one was found.

        `Reached.best` is not filled in; see `best_of`.

        Raises
        ------
        ModelError
            If the checkpoint does not suit the trainer.
        """
        if self._found is None:
            return Reached([])
        folder, content, arrays = self._found
        own = trainer.checkpoint().arrays
        if set(own) != {name for name in arrays if not name.startswith(_BEST)}:
            raise damaged(folder / CONTENT, f"it has the arrays {', '.join(arrays)}; expected {', '.join(own)}")
        for name, array in own.items():
            self._fill(array, name)
        try:
            trainer.resume(content["numbers"])
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise damaged(folder / CONTENT, f"its numbers are not those of a training: {error}") from error
        ended = content["ended"]
        is_over = ended in _FINAL or (ended == "callback" and self._n_epochs <= content["n_epochs"])
        return Reached(list(content["history"]), ended=ended if is_over else "")

    def best_of(self, now: Fitted) -> Fitted:
        """Return a copy of ``now`` with the best factors so far, if the checkpoint has others than these."""
        best = now.copy()
        if self._found is not None and any(name.startswith(_BEST) for name in self._found.arrays):
            for name, array in _arrays_of(best).items():
                self._fill(array, _BEST + name)
        return best

    def save(self, trainer: Resumable, reached: Reached, chosen: Chosen, n_restarts: int, is_last: bool) -> None:
        """Write a checkpoint, if one is due after this epoch.

        Raises
        ------
        OutputError
            If there is no room or no permission; the checkpoint before is untouched.
        """
        if not is_last and len(reached.history) % self._every:
            return
        arrays, numbers = trainer.checkpoint()
        if reached.best is not None:
            arrays = arrays | {_BEST + name: array for name, array in _arrays_of(reached.best).items()}
        entries = {"chosen": chosen, "n_epochs": self._n_epochs, "n_restarts": n_restarts, "numbers": numbers}
        content = {**self._identity, **entries, "ended": reached.ended, "history": reached.history}
        checkpoints.write(self._directory, content, arrays)

    def _fill(self, target: npt.NDArray[Any], name: str) -> None:
        """Copy an array of the checkpoint, after a look at what it is."""
        assert self._found is not None
        path, array = self._found.folder / f"{name}.npy", self._found.arrays.get(name)
        if array is None:
            raise damaged(path, "it is missing")
        if array.dtype != target.dtype or array.shape != target.shape:
            raise damaged(
                path, f"it is {array.dtype} of shape {array.shape}; expected {target.dtype} of shape {target.shape}"
            )
        if not np.isfinite(array).all():
            raise damaged(path, "not all of its numbers are finite")
        target[:] = array


class Run(NamedTuple):
    """What a fit is given beside its ratings.

    Attributes
    ----------
    held_out : Interactions or None
        Ratings to validate on.
    callbacks : list of callable
    start : Fitted or None
        What it begins at.
    checkpoints : Checkpoints or None
    given : dict, optional
        What stands in the place of some of what is chosen.
    n_restarts : int
        How often training has begun again.
    features : dict of str to Features
        What is known of items and of users beside their ratings, by side.
    """

    held_out: Interactions | None
    callbacks: list[Callback]
    start: Fitted | None = None
    checkpoints: Checkpoints | None = None
    given: Chosen | None = None
    n_restarts: int = 0
    features: Mapping[str, Features] = MappingProxyType({})

    def again(self, given: Chosen) -> "Run":
        """Return the run that begins again, with other choices."""
        afresh = self.checkpoints.afresh() if self.checkpoints else None
        return self._replace(checkpoints=afresh, given=given, n_restarts=self.n_restarts + 1)

    def resume(self, trainer: Resumable, n_epochs: int, verbose: bool) -> Reached:
        """Bring a trainer to the state of the checkpoint, if there is one; ``verbose`` says so."""
        reached = self.checkpoints.resume(trainer) if self.checkpoints else Reached([])
        n_done = len(reached.history)
        if n_done:
            is_over = reached.ended or n_done == n_epochs
            how = f"all {n_done} epochs were done before" if is_over else f"going on after epoch {n_done} of {n_epochs}"
            show_line(how, verbose)
        return reached

    def save(self, trainer: Resumable, reached: Reached, chosen: Chosen, is_last: bool) -> None:
        """Write a checkpoint, if one is wanted after this epoch."""
        if self.checkpoints:
            self.checkpoints.save(trainer, reached, chosen, self.n_restarts, is_last)


@contextmanager
def checkpointed(model: "Model", ratings: Interactions, run: Run, directory: Any, every: int) -> Iterator[Run]:
    """Give a run with its checkpoints, from the one that is in the directory on; nobody else writes there meanwhile.

    Parameters
    ----------
    model : Model
    ratings : Interactions
        To train on.
    run : Run
    directory : path-like or None
        None: there are no checkpoints.
    every : int

    Raises
    ------
    ParameterError
        If ``every`` is less than 1, or the checkpoint is of another model, of other parameters or another start, or has
        done more epochs than are asked for.
    DataError
        If the checkpoint is of other ratings.
    ModelError, OutputExistsError
        If it is damaged; if something else is in its place, or the directory is a model.
    OutputError
        If the directory is a file, or cannot be written, or another process trains with it.
    """
    require_integer("checkpoint_every", every, minimum=1)
    if directory is None:
        yield run
        return
    if not isinstance(directory, (str, os.PathLike)):
        raise ParameterError(f"{named('checkpoint')} is {directory!r}; expected the path of a directory, or None")
    path = local_path(directory)
    with naming(directory):
        checkpoints.require_usable(directory)
        path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {directory}: Permission denied; choose another directory")
    with locked(path) as is_ours:
        if not is_ours:
            raise OutputError(f"another training writes its checkpoints to {directory}; wait for it, {_ADVICE}")
        found = checkpoints.read(path)
        identity = _identity_of(model, ratings, run)
        if found is not None:
            _require_same(found, identity, directory)
            _require_sound(found, model, run)
        n_epochs = getattr(model, "n_epochs", 1)
        ours = Checkpoints(path, every, identity, n_epochs, found)
        yield run._replace(checkpoints=ours, given=ours.chosen, n_restarts=ours.n_restarts)


def _identity_of(model: "Model", ratings: Interactions, run: Run) -> dict[str, Any]:
    params = {name: value for name, value in model.get_params().items() if name not in _FREE_PARAMETERS}
    return {
        "model": type(model).__name__,
        "parameters": json.loads(to_json(params)),
        "ratings": fingerprint_of(ratings),
        "validation": None if run.held_out is None else fingerprint_of(run.held_out),
        "start": None if run.start is None else fingerprint_of_start(run.start),
        **{f"{side}_features": fingerprint_of_features(features) for side, features in run.features.items()},
    }


def _require_same(found: Checkpoint, identity: dict[str, Any], directory: Any) -> None:
    """Check that a checkpoint is of this fit, and name the difference if it is not."""
    there, before = f"the checkpoint in {directory}", found.content
    if before["model"] != identity["model"]:
        raise ParameterError(
            f"{there} is of a model of class {before['model']}, and this one is of class {identity['model']}; train "
            f"that one, {_ADVICE}"
        )
    for name, value in identity["parameters"].items():
        if name not in before["parameters"] or before["parameters"][name] != value:
            made_with = before["parameters"].get(name)
            if isinstance(value, bool):  # an option of the command may stand for False
                raise ParameterError(
                    f"{there} was made with {name}={made_with!r}, and now it is {value!r}; set {named(name)} back, "
                    f"{_ADVICE}"
                )
            raise ParameterError(
                f"{named(name)} is {_in_words(value)}, and {there} was made with "
                f"{'it ' * (made_with is None)}{_in_words(made_with)}; set it back, {_ADVICE}"
            )
    if unknown := sorted(before["parameters"].keys() - identity["parameters"].keys()):
        raise ParameterError(
            f"{there} was made with a parameter {unknown[0]!r}, which this version of fastmf does not have; "
            f"{_ADVICE[3:]}"
        )
    for name, what, kind in _DATA:
        now = identity.get(name)
        if now is None and before.get(name) is not None:
            raise kind(f"{there} was made with {what}, and there is no {named(name)} now; give it, {_ADVICE}")
        if now is not None and before.get(name) is None:
            raise kind(f"{there} was made without {what}, and {named(name)} is given now; leave it out, {_ADVICE}")
    for name, what, kind in _DATA:  # now: ratings that lack what is held out differ, too, and tell less
        now = identity.get(name)
        other = None if now is None else difference(before[name], now)
        if other is not None:
            raise kind(f"{there} was made with other {what}: now {named(name)} has {other}; give the same, {_ADVICE}")


def _in_words(value: object) -> str:
    return "not set" if value is None else repr(value)


def _require_sound(found: Checkpoint, model: "Model", run: Run) -> None:
    """Check that a checkpoint can be gone on from: its epochs, and what was chosen."""
    n_epochs = getattr(model, "n_epochs", 1)
    if found.epoch > n_epochs:
        raise ParameterError(
            f"{named('n_epochs')} is {n_epochs}, and the checkpoint in {found.folder.parent} has done {found.epoch}; "
            f"expected as many at least: raise {named('n_epochs')}, {_ADVICE}"
        )
    params, chosen = model.get_params(), found.content["chosen"]
    try:
        if not chosen.keys() <= params.keys():
            raise ValueError(f"there is no parameter {min(chosen.keys() - params.keys())!r}")
        type(model)(**{**params, **chosen})
    except (TypeError, ValueError) as error:
        raise damaged(found.folder / CONTENT, f"chosen: {error}") from error
    if run.held_out is not None:
        try:
            best_record(found.content["history"], model.validation_metrics[0])
        except (LookupError, TypeError, StopIteration) as error:
            raise damaged(found.folder / CONTENT, "its history lacks validation metrics") from error


def _arrays_of(fitted: Fitted) -> dict[str, npt.NDArray[Any]]:
    """Return everything of a fitted model that training changes, by names for files."""
    p, q, user_biases, item_biases, _ = fitted.factors
    state = {f"state_{name}": array for name, array in fitted.state.items()}
    weights = {f"{side}_weights": known.weights for side, known in fitted.features.items()}
    factors = {"user_factors": p, "item_factors": q, "user_biases": user_biases, "item_biases": item_biases}
    return factors | state | weights
