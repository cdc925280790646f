"""Matrix factorisation by stochastic gradient descent."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from fastmf.answering.fitted import Fitted
from fastmf.answering.side_features import Prior
from fastmf.backend import Kernels
from fastmf.common.parameters import AUTO, require_choice, require_integer
from fastmf.errors import ParameterError, named
from fastmf.models.bias_terms import baseline_state
from fastmf.models.descent import DescentModel, choose_learning_rate
from fastmf.models.descent_explaining import split_choices, split_ratings
from fastmf.models.descent_folding import as_trained, fold_in_choices, fold_in_ratings, folding_of
from fastmf.models.descent_training import DescentTrainer
from fastmf.models.explaining import Person, Split
from fastmf.models.explicit_strengths import choose_strengths, names_to_choose, scaling_of
from fastmf.models.hyper_parameters import Chosen
from fastmf.models.negative_sampling import SampledTrainer, choose_for_ranking
from fastmf.models.rating_range import mean_score, require_range, require_within, slope_of
from fastmf.models.training import Record, Trainer
from fastmf.models.units import Units, make_units
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import Float32Array
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Link, make_link

# γ where it is to be chosen. Of 0.05 to 0.14, large steps are worse on sparse ratings.
_RATE = 0.07
# γ as it was before strengths could be chosen.
_RATE_WHERE_GIVEN = 0.1


@dataclass(kw_only=True, eq=False)
class SGD(DescentModel):
    """Biased matrix factorisation, trained by stochastic gradient descent.

    r̂_ui = μ + b_u + b_i + p_u·q_i; with ``rating_range`` r̂ = low + (high - low)·sigmoid(μ + b_u + b_i + p_u·q_i).
    Minimises Σ (r - r̂)² + λσ(‖p_u‖² + ‖q_i‖²) + λ_b(b_u² + b_i²) over observed ratings only (Koren, Bell, Volinsky,
    "Matrix Factorization Techniques for Recommender Systems", IEEE Computer 42(8), 2009), σ being the ratings' standard
    deviation; with ``rating_range`` λσ² and λ_bσ² stand in the place of λσ and λ_b. So λ and γ mean the same on every
    scale: ratings a·r + b with a > 0 give the same ranking, and errors that are a times as large.

    With ``loss="logistic"`` ratings only say what was chosen, and r̂ = σ(μ + b_u + b_i + p_u·q_i) is a probability.
    Minimises Σ -log r̂ over what was chosen and -log(1 - r̂) over items drawn anew in every epoch, ``n_negatives`` beside
    each (Johnson, "Logistic Matrix Factorization for Implicit Feedback Data", NIPS workshop 2014). A rating above 0
    is a choice, whatever its size. A stored rating of 0 or below is none: the item may be drawn for this user like one
    that is not stored.

    `fold_in` takes the steps of a fit for the rows of newcomers alone, for as many epochs, while the other side stays
    as it is, and returns the mean over the later half of the epochs.

    Parameters
    ----------
    regularization : float or "auto"
        L2 strength of the factors, at least 0: λ, for ratings in units of their standard deviation. "auto": chosen from
        the ratings, c·(σ_e/σ)(√n_u + √n_i + √log n)/(n_u·n_i)^(a/2) with c = 0.62, the deviation σ_e of ratings from
        mean and biases (`Bias`), the mean numbers n_u and n_i of ratings of the user and of the item of a rating, the
        number n of users and items, and the exponent a of ``regularization_scaling``: 1, ½ or 0. For the
        logistic loss it is 0.01.
    learning_rate : float or "auto"
        Step size of the first epoch, above 0: γ. Steps are taken on ratings in units of their standard deviation.
        "auto": 0.07 where λ is chosen, 0.1 where it is given and for the logistic loss, 0.01 with steps of one size.
        A fit that diverges with it begins again with a quarter of it, three times at most; callbacks then see its first
        epoch again.
    bias_regularization : float or "auto", optional
        L2 strength of user biases, at least 0: λ_b. "auto": chosen from the ratings, the variance of noise over that of
        the biases (`Bias`). None: "auto" where ``regularization`` is, else 0.02.
    item_bias_regularization : float, optional
        L2 strength of item biases, at least 0. None: that of user biases, or its own where that is chosen.
    regularization_scaling : {"count", "root", "none"}, optional
        How often a row of n ratings pays its L2 strengths: n times ("count"), √n times ("root") or once ("none"). None:
        "root" where all strengths are chosen from the ratings and there are biases, else "count".
    biases : bool
        Whether users and items have a bias. Without biases the prediction is p_u·q_i alone.
    rating_range : (low, high), optional
        Least and largest rating: predictions never leave this range. None: they are not bounded.
    loss : {"squared", "logistic"}
        What is minimised: the error of ratings, or that of telling chosen items from drawn ones.
    n_negatives : int
        Items drawn beside each chosen one, at least 1, for the logistic loss.
    storage : {"float32", "float16"}
        How a GPU keeps factors while it trains with the squared loss. Halves take half as many bytes to read and write.

    Attributes
    ----------
    user_factors, item_factors, user_biases, item_biases, global_mean
        The terms of the prediction.
    history : list of dict
        A record for each epoch: ``epoch``, ``seconds``, ``train_rmse`` (each error taken just before its own step), and
        validation metrics. For "logistic", ``train_auc`` in place of ``train_rmse``: the share of drawn items that
        score below the chosen one.

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.Interactions.from_arrays([1, 1, 2, 2, 3], [1, 2, 1, 3, 2], [5, 4, 4, 2, 5])
    >>> model = fastmf.SGD(n_factors=2, n_epochs=20, rating_range=(1, 5)).fit(ratings)
    >>> bool(1 <= model.predict([3], [3])[0] <= 5)
    True
    """

    kernel_variants: ClassVar[tuple[dict[str, Any], ...]] = ({"loss": "squared"}, {"loss": "logistic"})
    fixed_parameters: ClassVar[tuple[str, ...]] = ("biases", "rating_range", "loss")

    n_factors: int = 64
    n_epochs: int = 15
    regularization: float | str = AUTO
    learning_rate: float | str = AUTO
    regularization_scaling: str | None = None
    bias_regularization: float | str | None = None
    rating_range: tuple[float, float] | None = None
    loss: str = "squared"
    n_negatives: int = 4
    storage: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("loss", self.loss, ("squared", "logistic"))
        require_integer("n_negatives", self.n_negatives, minimum=1)
        require_choice("storage", self.storage, ("float32", "float16"))
        require_range(self.rating_range)
        if self.rating_range is not None and self.loss == "logistic":
            raise ParameterError(
                f'{named("rating_range")} is {self.rating_range!r} and {named("loss")} is "logistic", which predicts '
                f"probabilities; leave {named('rating_range')} out"
            )

    @property
    def validation_metrics(self) -> tuple[str, ...]:
        """Metrics that are measured on a validation set after each epoch; the first one selects the best epoch."""
        return ("ndcg", "recall", "auc") if self.is_implicit else ("rmse",)

    @property
    def is_implicit(self) -> bool:
        """Whether ratings only say what was chosen: in the fit of a fitted model, whatever ``loss`` is by now."""
        learned = self._learned()
        loss = self.loss if learned is None else learned.fitted.trained_with.get("loss", self.loss)
        return bool(loss == "logistic")

    def choose_parameters(self, ratings: Interactions) -> Chosen:
        """Return γ, λ and the strengths of the biases where they are chosen from the data."""
        if self.loss == "logistic":
            return choose_for_ranking(self)
        found = choose_learning_rate(self, _RATE, _RATE_WHERE_GIVEN)
        return found | choose_strengths(self, ratings, self._scaling(), slope_of(ratings, self.rating_range))

    def _open_parameters(self) -> list[str]:
        rate = ["learning_rate"] if self.learning_rate == AUTO else []
        return self.auto_parameters() if self.loss == "logistic" else rate + names_to_choose(self)

    def _strengths_from_data(self) -> list[str]:
        return [] if self.loss == "logistic" else names_to_choose(self)

    def _scaling(self) -> str:
        return (
            self.regularization_scaling or "count" if self.loss == "logistic" else scaling_of(self, where_chosen="root")
        )

    def _make_trainer(self, ratings: Interactions, kernels: Kernels, start: Fitted | None = None) -> Trainer:
        require_within(ratings.ratings, self.rating_range)
        if self.storage == "float16" and (kernels.name == "cpu" or self.loss == "logistic"):
            raise ParameterError(
                f'{named("storage")} is "float16" with {named("backend")} "{kernels.name}" and {named("loss")} '
                f'"{self.loss}"; expected {named("backend")} "cuda" and {named("loss")} "squared", or '
                f'{named("storage")} "float32"'
            )
        if self.loss == "logistic":
            # A chosen item comes up once and drawn ones n times: μ is the score at which both pull alike.
            mean = -math.log(self.n_negatives) if self.biases else 0.0
            link = make_link((0.0, 1.0))
            return SampledTrainer(
                self, ratings, kernels, start, link, mean, kernels.run_logistic_epoch, self.n_negatives
            )
        mean = mean_score(ratings, self.rating_range) if self.biases else 0.0
        return _SquaredTrainer(self, ratings, kernels, start, make_link(self.rating_range), mean)

    def _fold_in(
        self, fitted: Fitted, rows: CSR, side: str, prior: Prior | None = None
    ) -> tuple[Float32Array, Float32Array]:
        trained = as_trained(self, fitted)
        folding = folding_of(self, trained, fitted, side)
        if trained.loss == "logistic":
            return fold_in_choices(folding, rows)
        require_within(rows.values, trained.rating_range)
        return fold_in_ratings(folding, rows)

    def _split(self, fitted: Fitted, person: Person, item: int) -> Split:
        trained = as_trained(self, fitted)
        split = split_choices if trained.loss == "logistic" else split_ratings
        return split(folding_of(self, trained, fitted, "user"), person, item)

    def _units(self, deviation: float) -> Units:
        return Units() if self.loss == "logistic" else make_units(deviation, self.rating_range is not None)


class _SquaredTrainer(DescentTrainer):
    def __init__(
        self,
        model: SGD,
        ratings: Interactions,
        kernels: Kernels,
        start: Fitted | None,
        link: Link,
        mean_score: float,
    ) -> None:
        grid = kernels.make_grid(ratings.n_users, ratings.n_items, ratings.n_ratings)
        super().__init__(model, ratings, kernels, start, link, mean_score, grid)
        if start is None:
            self.state |= baseline_state(ratings)
        self._kernels = kernels
        self._storage = model.storage
        self._state = kernels.training_to_device(self._blocks, self._centred, self._rows, model.storage)

    def _reload(self) -> None:
        del self._state  # its tables make room for the next
        self._state = self._kernels.training_to_device(self._blocks, self._centred, self._rows, self._storage)

    def run_epoch(self) -> Record:
        (blocks, factors, rows), (step, strata) = self._state, self._next_epoch()
        link, n_threads = self._centred_link, self._model.n_threads
        return self._error(self._kernels.run_epoch(blocks, strata, factors, link, step, rows, n_threads))

    def to_host(self) -> None:
        self._kernels.training_to_host(self._state, self._centred, self._rows)
