"""What a model has learned: read and replaced as one, so that other threads may use a model that is fitted again."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from fastmf.answering.fitted import Fitted
from fastmf.errors import NotFittedError
from fastmf.models.training import Record
from fastmf_kernels._types import Float32Array


class Learned(NamedTuple):
    """The result of a fit, or the state of one in progress.

    Attributes
    ----------
    fitted : Fitted
    history : list of dict
        A record for each epoch.
    """

    fitted: Fitted
    history: list[Record]


@dataclass(kw_only=True, eq=False)
class LearnedState:
    """Base of a dataclass that learns.

    Every method of a model reads `fitted` once: between two reads another thread may finish a fit. A thread that is
    fitting the model sees how far that fit has come; other threads see the fit before, until this one is done.
    """

    # The result of the last fit, and the state of the fits in progress, by the number of their thread.
    _kept: Learned | None = field(default=None, init=False, repr=False)
    _in_training: dict[int, Learned] = field(default_factory=dict, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made of: it keeps what the model has learned, as this thread sees it."""
        return {**self.__dict__, "_kept": self._learned(), "_in_training": {}}

    def _keep(self, learned: Learned) -> None:
        self._kept = learned

    @contextmanager
    def _in_progress(self) -> Iterator[Callable[[Learned], None]]:
        """Give a function that shows a state to this thread alone, until the block ends."""
        me = threading.get_ident()

        def show(learned: Learned) -> None:
            self._in_training[me] = learned

        try:
            yield show
        finally:
            self._in_training.pop(me, None)

    def _learned(self) -> Learned | None:
        """Return what the model has learned; a thread that is fitting it sees the state of that fit."""
        return self._in_training.get(threading.get_ident(), self._kept)

    @property
    def history(self) -> list[Record]:
        """A record for each epoch of the last fit; empty before `fit`. The class says what is in a record."""
        learned = self._learned()
        return [] if learned is None else learned.history

    @property
    def fitted(self) -> Fitted:
        """The result of `fit`: factors, ids, and what each user has seen.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """
        learned = self._learned()
        if learned is None:
            raise NotFittedError(f"this {type(self).__name__} is not fitted; call fit(ratings) first")
        return learned.fitted

    @property
    def user_factors(self) -> Float32Array:
        """User factors p, float32, shape (n_users, n_factors), C order."""
        return self.fitted.factors.user_factors

    @property
    def item_factors(self) -> Float32Array:
        """Item factors q, float32, shape (n_items, n_factors), C order."""
        return self.fitted.factors.item_factors

    @property
    def user_biases(self) -> Float32Array:
        """User biases b_u, float32, shape (n_users,); zeros in a model without biases."""
        return self.fitted.factors.user_biases

    @property
    def item_biases(self) -> Float32Array:
        """Item biases b_i, float32, shape (n_items,); zeros in a model without biases."""
        return self.fitted.factors.item_biases

    @property
    def global_mean(self) -> float:
        """μ of the prediction; with a rating range it stands inside the sigmoid. 0 in a model without biases."""
        return float(self.fitted.factors.global_mean)

    @property
    def user_ids(self) -> pa.Array:
        """Outside id of each row of `user_factors`."""
        return self.fitted.user_ids

    @property
    def item_ids(self) -> pa.Array:
        """Outside id of each row of `item_factors`."""
        return self.fitted.item_ids

    def restore(self, fitted: Fitted, history: list[Record]) -> None:
        """Take over the result of an earlier fit, as `fastmf.load` does."""
        self._keep(Learned(fitted, history))
