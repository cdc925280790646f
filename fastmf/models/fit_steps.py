"""What a fit keeps of its gradient steps: rows that are folded in later take the same ones, whatever was set since."""

from collections.abc import Mapping
from typing import Any

from fastmf.answering.fitted import Fitted
from fastmf.models.folding import objective, objective_of

_NAMES = (
    "n_epochs",
    "learning_rate",
    "bias_learning_rate",
    "learning_rate_decay",
    "adaptive",
    "regularization",
    "item_regularization",
    "bias_regularization",
    "item_bias_regularization",
    "n_negatives",
)
_MOST_EPOCHS = 10_000
EPOCHS_BEFORE = "epochs_before"
"""Name in `Fitted.trained_with`, after a continued fit, of how many epochs a row of the fit before took."""


def kept_steps(params: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a fit keeps of its steps, given all parameters of the model and the numbers chosen for some."""
    return objective(params, chosen, [name for name in _NAMES if name in params])


def steps_of(fitted: Fitted, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of the steps that a fit took, given all parameters that the model has by now."""
    return objective_of(fitted, params, [name for name in _NAMES if name in params])


def epochs_to_fold_in(fitted: Fitted, params: Mapping[str, Any], best_epoch: int | None) -> int:
    """Return how often a row that is folded in goes over its ratings: as often as a row of the fit has.

    With ``patience`` that is up to the best epoch. A continued fit, whose rows have gone over other ratings before,
    leaves the number as it was. After very many epochs nothing changes any more, and a model directory from a stranger
    may claim any number of them.
    """
    before = fitted.trained_with.get(EPOCHS_BEFORE)
    if not (isinstance(before, int) and before >= 1):
        before = int(best_epoch or steps_of(fitted, params)["n_epochs"])
    return min(before, _MOST_EPOCHS)
