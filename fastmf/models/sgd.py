"""Rating prediction by stochastic gradient descent."""

import math
from dataclasses import dataclass

import numpy as np

from fastmf.backend import Kernels
from fastmf.errors import DataError, ParameterError
from fastmf.interactions import Interactions
from fastmf.models.descent import DescentModel, make_row_steps, make_step
from fastmf.models.training import Record, Trainer, first_factors
from fastmf.parameters import require_number
from fastmf_kernels.predict.arrays import Factors, Link, make_link
from fastmf_kernels.sgd.schedule import Blocks, make_blocks, make_grid, shuffled_strata

# A mean at the very end of the rating range has no logit; it is moved inwards by this share of the range.
_MEAN_MARGIN = 1e-3


@dataclass(kw_only=True, eq=False)
class SGD(DescentModel):
    """Biased matrix factorisation of explicit ratings, trained by stochastic gradient descent.

    r̂_ui = μ + b_u + b_i + p_u·q_i; with ``rating_range`` r̂ = low + (high - low)·sigmoid(μ + b_u + b_i + p_u·q_i).
    Minimises Σ (r - r̂)² + λ(‖p_u‖² + ‖q_i‖²) + λ_b(b_u² + b_i²) over observed ratings only (Koren, Bell, Volinsky,
    "Matrix Factorization Techniques for Recommender Systems", IEEE Computer 42(8), 2009).

    Parameters
    ----------
    n_factors, n_epochs, regularization, patience, seed, backend, n_threads, verbose
        As in every model. ``regularization`` is λ.
    learning_rate, bias_learning_rate, learning_rate_decay, adaptive
        Sizes of the gradient steps; as in `DescentModel`.
    biases : bool
        Without them the prediction is p_u·q_i alone.
    item_regularization, bias_regularization, item_bias_regularization, regularization_scaling
        λ and λ_b of each side, paid for every rating as above, or once for a row; as in `DescentModel`.
    rating_range : (low, high), optional
        Bounds of a rating: predictions never leave them.
    init_scale : float
        First factors are normal with standard deviation ``init_scale`` / √n_factors.

    Attributes
    ----------
    user_factors, item_factors, user_biases, item_biases, global_mean
        The terms of the prediction.
    history : list of dict
        One an epoch: ``epoch``, ``seconds``, ``train_rmse`` (each error taken just before its own step), and
        validation figures.

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.Interactions.from_arrays([1, 1, 2, 2, 3], [1, 2, 1, 3, 2], [5, 4, 4, 2, 5])
    >>> model = fastmf.SGD(n_factors=2, n_epochs=20, rating_range=(1, 5)).fit(ratings)
    >>> bool(1 <= model.predict([3], [3])[0] <= 5)
    True
    """

    n_factors: int = 64
    n_epochs: int = 15
    regularization: float = 0.05
    rating_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rating_range is not None:
            _require_range(self.rating_range)

    def _make_trainer(self, ratings: Interactions, kernels: Kernels) -> Trainer:
        if self.rating_range is not None:
            _require_within(ratings, self.rating_range)
        return _SGDTrainer(self, ratings, kernels)


class _SGDTrainer:
    def __init__(self, model: SGD, ratings: Interactions, kernels: Kernels) -> None:
        self._model, self._kernels = model, kernels
        self._rng = np.random.default_rng(model.seed)
        n_users, n_items, by_user = ratings.n_users, ratings.n_items, ratings.by_user
        self._grid = make_grid(n_users, n_items, ratings.n_ratings)
        self._blocks: Blocks = make_blocks(by_user, n_items, self._grid, kernels.group_by, model.n_threads)
        self._rows = make_row_steps(model, by_user, n_items)
        self._epoch = 0
        self.link: Link = make_link(model.rating_range)
        mean = float(ratings.ratings.mean(dtype=np.float64))
        self.factors = Factors(
            first_factors((ratings.n_users, model.n_factors), model.init_scale, self._rng),
            first_factors((ratings.n_items, model.n_factors), model.init_scale, self._rng),
            np.zeros(ratings.n_users, np.float32),
            np.zeros(ratings.n_items, np.float32),
            np.float32(_score_of(mean, model.rating_range) if model.biases else 0),
        )

    def run_epoch(self) -> Record:
        model = self._model
        step, strata = make_step(model, self._epoch), shuffled_strata(self._grid, self._rng)
        squared_error = self._kernels.run_epoch(
            self._blocks, strata, self.factors, self.link, step, self._rows, model.n_threads
        )
        self._epoch += 1
        return {"train_rmse": math.sqrt(squared_error / len(self._blocks.ratings))}


def _score_of(mean: float, rating_range: tuple[float, float] | None) -> float:
    """Return the score whose prediction is the mean rating: the mean, or its logit within the range."""
    if rating_range is None:
        return mean
    low, high = rating_range
    share = min(max((mean - low) / (high - low), _MEAN_MARGIN), 1 - _MEAN_MARGIN)
    return math.log(share / (1 - share))


def _require_range(rating_range: object) -> None:
    if isinstance(rating_range, (tuple, list)) and len(rating_range) == 2:
        for end in rating_range:
            require_number("each end of rating_range", end, minimum=-math.inf)
    if not (isinstance(rating_range, (tuple, list)) and len(rating_range) == 2 and rating_range[0] < rating_range[1]):
        raise ParameterError(f"rating_range is {rating_range!r}; expected None or (low, high) with low < high")


def _require_within(ratings: Interactions, rating_range: tuple[float, float]) -> None:
    low, high = rating_range
    outside = np.flatnonzero((ratings.ratings < low) | (ratings.ratings > high))
    if len(outside):
        raise DataError(
            f"{len(outside)} ratings lie outside rating_range ({low:g}, {high:g}), for example "
            f"{ratings.ratings[outside[0]]:g}; widen the range or repair the ratings"
        )
