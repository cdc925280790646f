"""Rating prediction with SVD++."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastmf.answering.fitted import Fitted
from fastmf.answering.side_features import Prior
from fastmf.backend import Kernels
from fastmf.common.parameters import AUTO, number, require_number
from fastmf.models.bias_terms import baseline_state
from fastmf.models.descent import DescentModel, choose_learning_rate, make_strength
from fastmf.models.descent_explaining import split_ratings
from fastmf.models.descent_folding import as_trained, fold_in_ratings, folding_of, implicit_sums
from fastmf.models.descent_training import DescentTrainer
from fastmf.models.explaining import Person, Split
from fastmf.models.explicit_strengths import choose_strengths, names_to_choose, scaling_of
from fastmf.models.hyper_parameters import Chosen
from fastmf.models.rating_range import mean_score, require_range, require_within, slope_of
from fastmf.models.training import Record, Trainer, TrainerState
from fastmf.models.units import Units, make_units
from fastmf.reading.interactions import Interactions
from fastmf_kernels._memory import in_huge_pages
from fastmf_kernels._types import Float32Array
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import make_link
from fastmf_kernels.sgd.schedule import make_waves, shuffled_waves
from fastmf_kernels.svdpp.arrays import Implicit

# y_j moves along a sum over all ratings of a user, and for all users of a wave before it is looked at again: steps as
# large as those of q_i overshoot. Of 1, 0.3, 0.1 and 0.03, 0.1 gave the lowest error on MovieLens-100K.
_IMPLICIT_SHARE = 0.1
# γ where it is to be chosen, for strengths that are chosen, and for such that are given.
_RATE, _RATE_WHERE_GIVEN = 0.07, 0.05


@dataclass(kw_only=True, eq=False)
class SVDpp(DescentModel):
    """SVD++: biased matrix factorisation whose user factors also depend on which items the user has rated.

    r̂_ui = μ + b_u + b_i + q_i·(p_u + |N(u)|^-½ Σ_j y_j) over the items j in N(u), those that user u has rated; with
    ``rating_range`` r̂ = low + (high - low)·sigmoid(...) of that. Minimises
    Σ (r - r̂)² + λ(‖p_u‖² + ‖q_i‖²) + λ_y‖y_i‖² + λ_b(b_u² + b_i²) over observed ratings only (Koren, "Factorization
    meets the neighborhood: a multifaceted collaborative filtering model", KDD 2008), by stochastic gradient descent;
    y_j takes one step for each user, along the sum of the gradients of all ratings of the user.

    `fold_in` takes the steps of a fit for the rows of newcomers alone, for as many epochs, while the other side stays
    as it is, and returns the mean over the later half of the epochs. A user's z = |N(u)|^-½ Σ_j y_j is known before the
    first step; a new item has no y_j, and adds nothing to the z of users.

    Parameters
    ----------
    regularization : float or "auto"
        L2 strength of the factors, at least 0: λ, for ratings in units of their standard deviation. "auto": chosen from
        the ratings, c·(σ_e/σ)(√n_u + √n_i + √log n)/(n_u·n_i)^(a/2) with c = 0.62, the deviation σ_e of ratings from
        mean and biases (`Bias`), the mean numbers n_u and n_i of ratings of the user and of the item of a rating, the
        number n of users and items, and the exponent a of ``regularization_scaling``: 1, ½ or 0.
    learning_rate : float or "auto"
        Step size of the first epoch, above 0: γ. Steps are taken on ratings in units of their standard deviation.
        "auto": 0.07 where λ is chosen, 0.05 where it is given, 0.01 with steps of one size.
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
    implicit_learning_rate : float, optional
        Step size of y_j, at least 0. None: a tenth of ``learning_rate``.
    biases : bool
        Whether users and items have a bias. Without biases the prediction is q_i·(p_u + |N(u)|^-½ Σ_j y_j) alone.
    implicit_regularization : float, optional
        L2 strength of y_j, at least 0: λ_y. None: λ.
    rating_range : (low, high), optional
        Least and largest rating: predictions never leave this range. None: they are not bounded.
    init_scale : float
        Size of the first p_u and q_i: they are normal with standard deviation ``init_scale`` / √n_factors. The first
        y_j are 0.

    Attributes
    ----------
    user_factors
        p_u + |N(u)|^-½ Σ_j y_j: what item factors are multiplied with.
    item_factors, user_biases, item_biases, global_mean
        The other terms of the prediction.
    history : list of dict
        A record for each epoch: ``epoch``, ``seconds``, ``train_rmse`` (each error taken just before its own step), and
        validation metrics.

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.Interactions.from_arrays([1, 1, 2, 2, 3], [1, 2, 1, 3, 2], [5, 4, 4, 2, 5])
    >>> model = fastmf.SVDpp(n_factors=2, n_epochs=20, rating_range=(1, 5)).fit(ratings)
    >>> bool(1 <= model.predict([3], [3])[0] <= 5)
    True
    """

    factor_copies: ClassVar[int] = 3
    fixed_parameters: ClassVar[tuple[str, ...]] = ("biases", "rating_range")

    n_factors: int = 64
    n_epochs: int = 15
    regularization: float | str = AUTO
    regularization_scaling: str | None = None
    bias_regularization: float | str | None = None
    learning_rate: float | str = AUTO
    implicit_learning_rate: float | None = None
    implicit_regularization: float | None = None
    rating_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range(self.rating_range)
        for name in ("implicit_learning_rate", "implicit_regularization"):
            if getattr(self, name) is not None:
                require_number(name, getattr(self, name), minimum=0)

    def choose_parameters(self, ratings: Interactions) -> Chosen:
        """Return γ, λ and the strengths of the biases where they are chosen from the data."""
        found = choose_learning_rate(self, _RATE, _RATE_WHERE_GIVEN)
        return found | choose_strengths(self, ratings, self._scaling(), slope_of(ratings, self.rating_range))

    def _open_parameters(self) -> list[str]:
        rate = ["learning_rate"] if self.learning_rate == AUTO else []
        return rate + names_to_choose(self)

    def _strengths_from_data(self) -> list[str]:
        return names_to_choose(self)

    def _scaling(self) -> str:
        return scaling_of(self, where_chosen="root")

    def _make_trainer(self, ratings: Interactions, kernels: Kernels, start: Fitted | None = None) -> Trainer:
        require_within(ratings.ratings, self.rating_range)
        return _SVDppTrainer(self, ratings, kernels, start)

    def _fold_in(
        self, fitted: Fitted, rows: CSR, side: str, prior: Prior | None = None
    ) -> tuple[Float32Array, Float32Array]:
        trained = as_trained(self, fitted)
        require_within(rows.values, trained.rating_range)
        folding = folding_of(self, trained, fitted, side)
        # An item meets the users as the prediction has them, p_u + z_u; only a user has a z of its own.
        return fold_in_ratings(folding, rows, implicit_sums(folding, rows) if side == "user" else None)

    def _split(self, fitted: Fitted, person: Person, item: int) -> Split:
        folding = folding_of(self, as_trained(self, fitted), fitted, "user")
        base = implicit_sums(folding, person.row)[0]
        of_steps = split_ratings(folding, person, item, base).of_ratings
        rated, size = person.row.indices, np.sqrt(max(1, len(person.row.indices)))
        y, q = fitted.state["item_implicit_factors"][rated], fitted.factors.item_factors[item]
        return Split(of_steps + y.astype(np.float64) @ q.astype(np.float64) / size)

    def _units(self, deviation: float) -> Units:
        return make_units(deviation, self.rating_range is not None)


class _SVDppTrainer(DescentTrainer):
    """Keeps p_u apart from ``factors``, whose user factors are p_u + |N(u)|^-½ Σ_j y_j."""

    def __init__(self, model: SVDpp, ratings: Interactions, kernels: Kernels, start: Fitted | None) -> None:
        grid = make_waves(ratings.n_users, ratings.n_items, ratings.n_ratings)
        mean = mean_score(ratings, model.rating_range) if model.biases else 0.0
        super().__init__(model, ratings, kernels, start, make_link(model.rating_range), mean, grid)
        self._kernels, n_items, k = kernels, ratings.n_items, model.n_factors
        state: dict[str, Float32Array] = {} if start is None else start.state
        apart = state.get("user_factors_alone", self.factors.user_factors)
        self._apart = self._centred._replace(user_factors=in_huge_pages(apart, k))
        rate, strength = model.implicit_learning_rate, model.implicit_regularization
        self._implicit = Implicit(
            in_huge_pages(state.get("item_implicit_factors", np.zeros((n_items, k), np.float32)), k),
            state.get("item_implicit_squares", np.ones(n_items, np.float32)),
            np.float32(_IMPLICIT_SHARE if rate is None else rate / number(model.learning_rate)),
            make_strength(number(model.regularization) if strength is None else strength, self._units),
        )
        self._rated = ratings.by_user if start is None else CSR(*start.seen, np.empty(0, np.float32))
        if start is None:
            self.state |= baseline_state(ratings)
        self.state |= {
            "user_factors_alone": self._apart.user_factors,
            "item_implicit_factors": self._implicit.item_factors,
            "item_implicit_squares": self._implicit.item_accumulator,
        }

    def run_epoch(self) -> Record:
        n_threads = self._model.n_threads
        step, waves = self._next_step(), shuffled_waves(self._grid, self._rng)
        blocks, implicit, link = self._blocks, self._implicit, self._centred_link
        squared_error = self._kernels.run_svdpp_epoch(
            self._rated, blocks, waves, self._apart, implicit, link, step, self._rows, n_threads
        )
        self._add_implicit()
        return self._error(squared_error)

    def checkpoint(self) -> TrainerState:
        """Return what moves, with p_u in the place of the user factors, and y_j."""
        arrays, numbers = super().checkpoint()
        arrays |= {
            "user_factors": self._apart.user_factors,
            "item_implicit_factors": self._implicit.item_factors,
            "item_implicit_squares": self._implicit.item_accumulator,
        }
        return TrainerState(arrays, numbers)

    def _reload(self) -> None:
        self._add_implicit()

    def _add_implicit(self) -> None:
        alone, implicit, both = self._apart.user_factors, self._implicit.item_factors, self.factors.user_factors
        self._kernels.add_implicit(self._rated, alone, implicit, both, self._model.n_threads)
