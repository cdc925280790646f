"""Ranking of items from implicit feedback: BPR."""

from dataclasses import dataclass

from fastmf.answering.fitted import Fitted
from fastmf.answering.side_features import Prior
from fastmf.backend import Kernels
from fastmf.common.parameters import AUTO, require_integer
from fastmf.models.descent import DescentModel
from fastmf.models.descent_explaining import split_pairs
from fastmf.models.descent_folding import as_trained, fold_in_pairs, folding_of
from fastmf.models.explaining import Person, Split
from fastmf.models.hyper_parameters import Chosen
from fastmf.models.negative_sampling import SampledTrainer, choose_for_ranking
from fastmf.models.training import Trainer
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import Float32Array
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import make_link


@dataclass(kw_only=True, eq=False)
class BPR(DescentModel):
    """Matrix factorisation that ranks chosen items above others (Bayesian Personalized Ranking).

    The score of an item is s_ui = b_i + p_u·q_i. Minimises Σ -log σ(s_ui - s_uj) + ½λ(‖p_u‖² + ‖q_i‖² + ‖q_j‖²) +
    ½λ_b(b_i² + b_j²) over pairs of an item i that user u has chosen and an item j, drawn anew in each epoch, that the
    user has not chosen (Rendle, Freudenthaler, Gantner, Schmidt-Thieme, "BPR: Bayesian Personalized Ranking from
    Implicit Feedback", UAI 2009).

    A rating above 0 is a choice, whatever its size. A stored rating of 0 or below is none: the item may be drawn for
    this user like one that is not stored. The user has seen it all the same; like all items of the training ratings, it
    is not recommended.

    `fold_in` takes the steps of a fit for the rows of newcomers alone, for as many epochs, while the other side stays
    as it is, and returns the mean over the later half of the epochs. A new item is compared with items that the users
    who have chosen it have not chosen, and with those that other users have chosen.

    Parameters
    ----------
    regularization : float or "auto"
        L2 strength of the factors, at least 0: λ. "auto": 0.01.
    n_negatives : int
        Items drawn beside each chosen one in an epoch, at least 1. All items are drawn about equally often, popular
        ones a little more often.
    biases : bool
        Whether items have a bias.

    Attributes
    ----------
    user_factors, item_factors, item_biases
        The terms of the score.
    history : list of dict
        A record for each epoch: ``epoch``, ``seconds``, ``train_auc`` (the share of pairs in the right order, each
        compared just before its own step), and validation metrics.

    Examples
    --------
    >>> import fastmf
    >>> clicks = fastmf.Interactions.from_arrays([1, 1, 2, 2, 3], [1, 2, 1, 3, 2])
    >>> model = fastmf.BPR(n_factors=2, n_epochs=3).fit(clicks)
    >>> model.recommend([3], k=1).items.shape
    (1, 1)
    """

    n_factors: int = 64
    n_epochs: int = 20
    regularization: float | str = AUTO
    n_negatives: int = 4
    init_scale: float = 0.4

    @property
    def validation_metrics(self) -> tuple[str, ...]:
        """Metrics that are measured on a validation set after each epoch; the first one selects the best epoch."""
        return ("ndcg", "recall", "auc")

    @property
    def is_implicit(self) -> bool:
        """Whether ratings only say what was chosen."""
        return True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("n_negatives", self.n_negatives, minimum=1)

    def choose_parameters(self, ratings: Interactions) -> Chosen:
        """Return γ and λ where they are ``"auto"``."""
        return choose_for_ranking(self)

    def _fold_in(
        self, fitted: Fitted, rows: CSR, side: str, prior: Prior | None = None
    ) -> tuple[Float32Array, Float32Array]:
        return fold_in_pairs(folding_of(self, as_trained(self, fitted), fitted, side), rows)

    def _split(self, fitted: Fitted, person: Person, item: int) -> Split:
        return split_pairs(folding_of(self, as_trained(self, fitted), fitted, "user"), person, item)

    def _make_trainer(self, ratings: Interactions, kernels: Kernels, start: Fitted | None = None) -> Trainer:
        return SampledTrainer(
            self, ratings, kernels, start, make_link(None), 0.0, kernels.run_bpr_epoch, self.n_negatives
        )
