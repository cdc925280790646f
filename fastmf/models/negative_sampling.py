"""Training on chosen items beside items drawn at random: shared by BPR and the logistic loss of SGD."""

from collections.abc import Callable

import numpy as np

from fastmf.answering.fitted import Fitted
from fastmf.answering.rows import difference, rows_of_pairs
from fastmf.backend import Kernels
from fastmf.models.descent import DescentModel, choose_learning_rate
from fastmf.models.descent_training import DescentTrainer
from fastmf.models.hyper_parameters import Chosen
from fastmf.models.training import Record, popularity_state, require_chosen
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import Int32Array
from fastmf_kernels.negative_sampling.arrays import Ranked, Sampling
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.sgd.arrays import RowSteps, Step
from fastmf_kernels.sgd.schedule import Blocks, make_grid
from fastmf_kernels.topk.arrays import Rows

# L2 strengths that are chosen: on 11 sets, 0.005 to 0.01 was best for factors, and 0.05 far from it
# (docs/decisions/0021-defaults-for-implicit-data.md).
_STRENGTHS = {"regularization": 0.01, "bias_regularization": 0.02, "item_bias_regularization": 0.02}
# γ that is chosen: large steps, which are worse on sparse ratings, are better for choices.
_RATE = 0.1

RunEpoch = Callable[[Blocks, Int32Array, Factors, Step, RowSteps, Sampling, int | None], Ranked]


def choose_for_ranking(model: DescentModel) -> Chosen:
    """Return the numbers for the parameters of a model that are ``"auto"``.

    They do not depend on the data: gradients of these losses have the same size on all data.
    """
    found = choose_learning_rate(model, _RATE, _RATE)
    return found | {name: _STRENGTHS[name] for name in model.auto_parameters() if name not in found}


class SampledTrainer(DescentTrainer):
    """Trains with the kernel ``run_epoch``. A task has two columns of blocks, and items are drawn from both.

    Ratings above 0 are choices. An item that a user has rated 0 or below may be drawn for this user.
    """

    def __init__(
        self,
        model: DescentModel,
        ratings: Interactions,
        kernels: Kernels,
        start: Fitted | None,
        link: Link,
        mean_score: float,
        run_epoch: RunEpoch,
        n_negatives: int,
    ) -> None:
        chosen, others = _parted(ratings, model.n_threads)
        grid = make_grid(chosen.n_users, chosen.n_items, chosen.n_ratings, width=2)
        super().__init__(model, chosen, kernels, start, link, mean_score, grid)
        self.state |= popularity_state(chosen, None if start is None else start.state)
        self._run_epoch, self._n_negatives = run_epoch, n_negatives
        self._not_drawn = Rows(*chosen.by_user[:2])
        if start is not None:
            self._not_drawn = start.seen if others is None else difference(start.seen, others, chosen.n_items)

    def run_epoch(self) -> Record:
        """Take the steps of an epoch; ``train_auc`` compares each rated item with those drawn, before their step."""
        step, strata = self._next_epoch()
        sampling = Sampling(*self._not_drawn, self._n_negatives, self._rng.integers(2**64, dtype=np.uint64))
        ranked = self._run_epoch(self._blocks, strata, self.factors, step, self._rows, sampling, self._model.n_threads)
        return {"train_auc": ranked.n_right / max(ranked.n_pairs, 1)}


def _parted(ratings: Interactions, n_threads: int | None) -> tuple[Interactions, Rows | None]:
    """Return the ratings above 0, and for each user the items of the other ratings; None if there are no others."""
    require_chosen(ratings)
    is_chosen = ratings.ratings > 0
    if is_chosen.all():
        return ratings, None
    chosen, others = ratings.take(np.flatnonzero(is_chosen)), ratings.take(np.flatnonzero(~is_chosen))
    chosen.lay_out(n_threads)
    return chosen, rows_of_pairs(others.users, others.items, ratings.n_users, ratings.n_items)
