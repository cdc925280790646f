"""The result of a search."""

from typing import Any, NamedTuple

import pyarrow as pa

from fastmf.models import FactorModel

# How to run is a matter of the machine, not of the model.
_RUN_PARAMETERS = ("backend", "n_threads", "verbose")


class Tuned(NamedTuple):
    """The best model of a search, and what to compare it with.

    Attributes
    ----------
    model : FactorModel
        With the best parameters, trained on all ratings for as many epochs as were best; not fitted if ``refit`` was
        false.
    params : dict
        The parameters that are not at their defaults, ``n_epochs`` among them.
    metric : str
        What was compared, for example ``"ndcg@10"``.
    score : float
        The best value of the metric on the validation part. It is a little better than what to expect of new ratings:
        the best of many was chosen by it.
    default_score : float or None
        That of the model as given; None if it is undefined, or if ``max_epochs`` or the time ended before its epochs.
    baseline_score : float or None
        That of the model's baseline: user and item means, or popularity.
    trials : pyarrow.Table
        A row for each trial: ``trial``, ``state``, ``score``, ``best_epoch``, ``n_epochs``, ``seconds``, a column for
        each parameter, and ``scores`` (after every epoch). A trial's state is "stopped" where others were better,
        "finished", "diverged", or "open" where the time was up.
    """

    model: FactorModel
    params: dict[str, Any]
    metric: str
    score: float
    default_score: float | None
    baseline_score: float | None
    trials: pa.Table

    @property
    def python(self) -> str:
        """The line of Python that trains the model on ``ratings``: all of them, also those given for validation."""
        return self.python_on("ratings")

    def python_on(self, ratings: str) -> str:
        """Return the line of Python that trains the model on ratings, which are given in Python."""
        params = ", ".join(f"{name}={_plain(value)!r}" for name, value in self.params.items())
        return f"fastmf.{type(self.model).__name__}({params}).fit({ratings})"


def _plain(value: Any) -> Any:
    """Return a number of NumPy as one of Python."""
    return value.tolist() if hasattr(value, "tolist") else value


def changed_params(model: FactorModel) -> dict[str, Any]:
    """Return the parameters that are not at their defaults, but for those that say how to run."""
    defaults = type(model)().get_params()
    return {
        name: value
        for name, value in model.get_params().items()
        if name not in _RUN_PARAMETERS and value != defaults[name]
    }
