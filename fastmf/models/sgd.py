"""Rating prediction by stochastic gradient descent."""

import math
from dataclasses import dataclass

import numpy as np

from fastmf.backend import Kernels
from fastmf.interactions import Interactions
from fastmf.models.descent import DescentModel, make_row_steps, make_step
from fastmf.models.rating_range import first_terms, require_range, require_within
from fastmf.models.training import Record, Trainer
from fastmf_kernels.predict.arrays import Link, make_link
from fastmf_kernels.sgd.schedule import Blocks, make_blocks, make_grid, shuffled_strata


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
        require_range(self.rating_range)

    def _make_trainer(self, ratings: Interactions, kernels: Kernels) -> Trainer:
        require_within(ratings, self.rating_range)
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
        self.factors = first_terms(model, ratings, model.rating_range, self._rng)

    def run_epoch(self) -> Record:
        model = self._model
        step, strata = make_step(model, self._epoch), shuffled_strata(self._grid, self._rng)
        squared_error = self._kernels.run_epoch(
            self._blocks, strata, self.factors, self.link, step, self._rows, model.n_threads
        )
        self._epoch += 1
        return {"train_rmse": math.sqrt(squared_error / len(self._blocks.ratings))}
