"""Training on the users and items that have ratings.

Both parts of a split keep all ids, so some users and items of the training part may have no rating. They take no part
in training: a model learns the same from a split in memory as from the same part that was written to a file and read
back, where such ids are gone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastmf.common.lazy import compute_once
from fastmf.models.training import Record, Trainer, TrainerState, first_state
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import Float32Array, Int32Array, Int64Array
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Factors


class WarmPart(NamedTuple):
    """Ratings without the users and items that have none.

    Attributes
    ----------
    ratings : Interactions
        Of the others, numbered anew.
    users, items : int64 arrays, shape (n_warm_users,) and (n_warm_items,)
        Their indices among all users and items, ascending.
    """

    ratings: Interactions
    users: Int64Array
    items: Int64Array


def warm_part(ratings: Interactions) -> WarmPart | None:
    """Return the part of users and items that have ratings; None if that is all of them."""
    indptr, indices, values = ratings.by_user
    users = np.flatnonzero(np.diff(indptr))
    items = np.flatnonzero(np.bincount(indices, minlength=ratings.n_items))
    if len(users) == ratings.n_users and len(items) == ratings.n_items:
        return None
    new_users, new_items = _numbers(users, ratings.n_users), _numbers(items, ratings.n_items)
    part = Interactions(
        new_users[ratings.users],
        new_items[ratings.items],
        ratings.ratings,
        ratings.timestamps,
        ratings.user_ids.take(users),
        ratings.item_ids.take(items),
        ratings.timestamp_type,
    )
    compute_once(part, "by_user", lambda: CSR(np.append(indptr[users], indptr[-1]), new_items[indices], values))
    return WarmPart(part, users, items)


def _numbers(rows: Int64Array, n_rows: int) -> Int32Array:
    """Return the number of each row among the chosen ones, -1 for the others."""
    numbers = np.full(n_rows, -1, np.int32)
    numbers[rows] = np.arange(len(rows), dtype=np.int32)
    return numbers


class WarmTrainer:
    """A trainer of the warm part, whose factors and state have a row for every user and item.

    Factors and biases of users and items without ratings are 0, unless ``fill`` sets them; their accumulators 1; see
    `fastmf.models.training.first_state`.

    Parameters
    ----------
    trainer : Trainer
        Of ``part.ratings``.
    part : WarmPart
    n_users, n_items : int
        How many there are in all.
    fill : callable, optional
        Computes factors and biases of users and items without ratings whose features are known, in place.
    """

    def __init__(
        self,
        trainer: Trainer,
        part: WarmPart,
        n_users: int,
        n_items: int,
        fill: Callable[[Factors], None] = lambda _: None,
    ) -> None:
        self._trainer, self._users, self._items, self._fill = trainer, part.users, part.items, fill
        learned = trainer.factors
        n_factors = learned.user_factors.shape[1]
        self.factors = Factors(
            np.zeros((n_users, n_factors), np.float32),
            np.zeros((n_items, n_factors), np.float32),
            np.zeros(n_users, np.float32),
            np.zeros(n_items, np.float32),
            learned.global_mean,
        )
        self.link = trainer.link
        self.state: dict[str, Float32Array] = {}
        for name, array in trainer.state.items():
            n_rows = n_users if name.startswith("user_") else n_items
            self.state[name] = first_state(name, (n_rows, *array.shape[1:]))
        self._spread()

    def run_epoch(self) -> Record:
        """Go over the ratings once."""
        record = self._trainer.run_epoch()
        self._spread()
        return record

    def to_host(self) -> None:
        """Copy factors and state from the device to the rows of all users and items."""
        self._trainer.to_host()
        self._spread()

    def from_host(self) -> None:
        """Let the trainer begin at the rows of the users and items that have ratings."""
        learned, (p, q, user_biases, item_biases, _) = self._trainer.factors, self.factors
        learned.user_factors[:], learned.item_factors[:] = p[self._users], q[self._items]
        learned.user_biases[:], learned.item_biases[:] = user_biases[self._users], item_biases[self._items]
        for name, array in self._trainer.state.items():
            array[:] = self.state[name][self._users if name.startswith("user_") else self._items]
        self._trainer.from_host()
        self._spread()

    def checkpoint(self) -> TrainerState:
        """Return the state of the trainer."""
        return self._trainer.checkpoint()

    def resume(self, numbers: dict[str, Any]) -> None:
        """Let the trainer go on from the state in the arrays of `checkpoint`."""
        self._trainer.resume(numbers)
        self.to_host()

    def _spread(self) -> None:
        """Copy what the trainer has learned to the rows of all users and items."""
        p, q, user_biases, item_biases, _ = self.factors
        learned = self._trainer.factors
        p[self._users], q[self._items] = learned.user_factors, learned.item_factors
        user_biases[self._users], item_biases[self._items] = learned.user_biases, learned.item_biases
        for name, array in self._trainer.state.items():
            rows = self._users if name.startswith("user_") else self._items
            self.state[name][rows] = array
        self._fill(self.factors)
