"""What the tests of checkpoints share: small data, a fit that is stopped, and what a fit has left."""

from collections.abc import Callable
from typing import Any

import numpy as np

import fastmf

WHOLE = fastmf.testing.film_club(n_users=60, n_items=30, mean_ratings=15)
# Both parts keep all ids, and some users and items have no rating in either.
TRAIN, VALIDATION = fastmf.split.random(WHOLE, test_fraction=0.4, seed=1)
N_EPOCHS = 6
SMALL = {"n_factors": 5, "n_epochs": N_EPOCHS}


class Stopped(Exception):  # noqa: N818 - it is no error
    """Stands for whatever ends a process."""


def stop_after(epoch: int) -> Callable[[Any, dict[str, Any]], None]:
    def callback(_: Any, record: dict[str, Any]) -> None:
        if record["epoch"] == epoch + 1:  # the checkpoint of this one is not written any more
            raise Stopped

    return callback


def bits(model: Any) -> list[Any]:
    """Everything that a fit has left, but for the time it took."""
    fitted = model.fitted
    arrays = [*fitted.factors, *fitted.seen, *(fitted.state[name] for name in sorted(fitted.state))]
    history = [{name: value for name, value in record.items() if name != "seconds"} for record in model.history]
    return [[np.asarray(array).tobytes() for array in arrays], history, model.chosen, model.best_epoch]
