"""Folding users or items into a model of gradient steps: its own steps, while the other side stays as it is.

The minimum of the loss over one row is another answer. It is no better for users of many ratings, and far worse for
those of few: the strengths that suit a fit, which ends after some epochs, are too weak where nothing ends it. On
MovieLens-100K, users who were not in training had a root mean squared error of 1.070 with the minimum for 3 ratings, of
1.001 with steps, and of 1.024 with item biases alone.
"""

from typing import NamedTuple, TypeVar

import numpy as np

from fastmf.answering.fitted import Fitted
from fastmf.answering.rows import rows_of_pairs
from fastmf.backend import Kernels, get_backend
from fastmf.errors import DataError, ParameterError, named
from fastmf.models.descent import DescentModel, make_step
from fastmf.models.explicit_strengths import SCALING, scales_of
from fastmf.models.fit_steps import epochs_to_fold_in, steps_of
from fastmf.models.folding import finite
from fastmf.models.units import trained_deviation
from fastmf_kernels._memory import in_huge_pages
from fastmf_kernels._types import Float32Array
from fastmf_kernels.fold_in.arrays import Descent, Draws, Fixed, Rivals, Weights, make_weights
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.topk.arrays import Rows

# Rows of 16·n numbers need no copy in a kernel.
_WIDTH = 16

M = TypeVar("M", bound=DescentModel)


class Folding(NamedTuple):
    """A side of a model that rows are folded into.

    Attributes
    ----------
    model : DescentModel
        The parameters of the fit, with numbers in the place of ``"auto"``.
    fitted : Fitted
    side : {"user", "item"}
        What the rows are.
    n_epochs : int
        How often a row goes over its ratings.
    """

    model: DescentModel
    fitted: Fitted
    side: str
    n_epochs: int

    @property
    def kernels(self) -> Kernels:
        """The kernels of the model's backend."""
        return get_backend(self.model.backend)

    def descent(self) -> Descent:
        """Return the steps of the rows."""
        model = self.model
        step = make_step(model, 0, model._units(trained_deviation(self.fitted.data)))
        strengths = step.user_regularization, step.user_bias_regularization
        if self.side == "item":
            strengths = step.item_regularization, step.item_bias_regularization
        return Descent(
            self.n_epochs,
            float(step.learning_rate),
            float(step.bias_learning_rate),
            float(model.learning_rate_decay),
            float(step.adaptive),
            float(strengths[0]),
            float(strengths[1]),
            np.random.default_rng(model.seed).integers(2**64, dtype=np.uint64),
        )

    def scales(self, rows: CSR) -> Float32Array:
        """Return the share of its strengths that each rating of a row pays."""
        counts = np.diff(rows.indptr)
        return (scales_of(counts, self.model._scaling()) / np.maximum(counts, 1)).astype(np.float32)

    def other_side(self) -> Fixed:
        """Return the side that stays."""
        return self.users() if self.side == "item" else self.items()

    def users(self) -> Fixed:
        """Return the users as kernels read them."""
        factors = self.fitted.factors
        return self._fixed("users", factors.user_factors, factors.user_biases)

    def items(self) -> Fixed:
        """Return the items as kernels read them."""
        factors = self.fitted.factors
        return self._fixed("items", factors.item_factors, factors.item_biases)

    def _fixed(self, of: str, factors: Float32Array, biases: Float32Array) -> Fixed:
        kernels = self.kernels
        return self.fitted.kept(("fold in", kernels.name, of), lambda: kernels.fix(factors, biases))


def folding_of(model: DescentModel, trained: DescentModel, fitted: Fitted, side: str) -> Folding:
    """Return what rows are folded into, given a model and what `as_trained` makes of it."""
    return Folding(trained, fitted, side, epochs_to_fold_in(fitted, model.get_params(), model.best_epoch))


def as_trained(model: M, fitted: Fitted) -> M:
    """Return an unfitted model with the parameters of the fit, and the numbers that it chose for ``"auto"``.

    Raises
    ------
    ParameterError
        If a parameter is ``"auto"`` and the model was saved before fits kept the numbers that they were given.
    """
    before, given = fitted.trained_with, model.get_params()
    given |= steps_of(fitted, given)
    fixed = {name: before[name] for name in (*model.fixed_parameters, SCALING) if name in before}
    trained = type(model)(**{**given, **fixed})
    for name in trained._open_parameters():
        raise ParameterError(
            f"{named(name)} is {given[name]!r}, and was a number in the fit; expected that number, to fold in with it"
        )
    return trained


def fold_in_ratings(folding: Folding, rows: CSR, base: Float32Array | None = None) -> tuple[Float32Array, Float32Array]:
    """Fold rows in from ratings (squared loss).

    Parameters
    ----------
    folding : Folding
    rows : CSR
        Columns are rows of the other side.
    base : float32 array, shape (n_rows, n_factors), optional
        Added to the factors of each row: z of SVD++.

    Returns
    -------
    factors : float32 array, shape (n_rows, n_factors)
    biases : float32 array, shape (n_rows,)

    Raises
    ------
    DataError
        If ratings are so large that the factors are no float32 numbers.
    """
    fixed, fitted = folding.other_side(), folding.fitted
    if base is None:
        base = np.zeros((len(rows.indptr) - 1, fixed.n_factors), np.float32)
    mean, n_threads = float(fitted.factors.global_mean), folding.model.n_threads
    terms = folding.descent(), folding.scales(rows)
    with np.errstate(over="ignore", invalid="ignore"):
        folded = folding.kernels.fold_in_ratings(rows, fixed, base, mean, fitted.link, *terms, n_threads)
    return finite(*folded, rows)


def fold_in_choices(folding: Folding, rows: CSR) -> tuple[Float32Array, Float32Array]:
    """Fold rows in from what was chosen, beside what is drawn (logistic loss); ratings of 0 and below do not count.

    The parameters and results are those of `fold_in_ratings`.
    """
    rows, mean = chosen_of(rows), float(folding.fitted.factors.global_mean)
    terms = folding.other_side(), mean, folding.descent(), folding.scales(rows)
    return folding.kernels.fold_in_choices(rows, *terms, draws_of(folding, rows), folding.model.n_threads)


def fold_in_pairs(folding: Folding, rows: CSR) -> tuple[Float32Array, Float32Array]:
    """Fold rows in from pairs of what was chosen and what is drawn (BPR); ratings of 0 and below do not count.

    The parameters and results are those of `fold_in_ratings`.
    """
    rows, kernels, n_threads = chosen_of(rows), folding.kernels, folding.model.n_threads
    terms = folding.descent(), folding.scales(rows), draws_of(folding, rows)
    if folding.side == "user":
        return kernels.fold_in_user_pairs(rows, folding.items(), *terms, n_threads)
    rivals = Rivals(
        folding.items(), *_choices_of(folding.fitted), _warm_items(folding.fitted), _n_negatives(folding.model)
    )
    return kernels.fold_in_item_pairs(rows, folding.users(), rivals, *terms, n_threads)


def implicit_sums(folding: Folding, rows: CSR) -> Float32Array:
    """Return z of SVD++ of users: |N|^-½ Σ y_j over the items j that they have rated, shape (n_users, n_factors).

    Raises
    ------
    DataError
        If the model was saved without y.
    """
    y, kernels = folding.fitted.state.get("item_implicit_factors"), folding.kernels
    if y is None:
        raise DataError(
            "this model was saved without the implicit factors of items, and users cannot be folded in without them; "
            "train it again"
        )
    width = -(-y.shape[1] // _WIDTH) * _WIDTH
    padded = folding.fitted.kept(("fold in", "implicit"), lambda: in_huge_pages(y, width))
    zeros = np.zeros((len(rows.indptr) - 1, width), np.float32)
    sums = np.zeros_like(zeros)
    kernels.add_implicit(rows, zeros, padded, sums, folding.model.n_threads)
    return sums[:, : y.shape[1]]


def chosen_of(rows: CSR) -> CSR:
    """Return the entries above 0."""
    kept = rows.values > 0
    if kept.all():
        return rows
    before = np.concatenate([[0], np.cumsum(kept)])
    return CSR(before[rows.indptr], rows.indices[kept], rows.values[kept])


def draws_of(folding: Folding, rows: CSR) -> Draws:
    """Return what is drawn beside the choices of rows, as often as in a fit.

    Of a user, so many items for each choice, and all with training ratings alike. An item is drawn for a user once for
    each of the user's choices, in all as often as any other item.
    """
    fitted, n_negatives = folding.fitted, _n_negatives(folding.model)
    if folding.side == "user":
        return Draws(_warm_items(fitted), n_negatives * np.diff(rows.indptr))
    choices = _choices_of(fitted)
    n_drawn = round(n_negatives * len(choices.indices) / int(_warm_items(fitted).cumulative[-1]))
    weights = fitted.kept(("fold in", "choices drawn"), lambda: make_weights(choices.indptr))
    return Draws(weights, np.full(len(rows.indptr) - 1, n_drawn, np.int64))


def _n_negatives(model: DescentModel) -> int:
    return int(model.get_params()["n_negatives"])


def _warm_items(fitted: Fitted) -> Weights:
    """Return weights of 1 for items with training ratings, and of 0 for others."""
    return fitted.kept(
        ("fold in", "warm items"),
        lambda: make_weights(np.append(0, np.cumsum(fitted.counts.of_items > 0)).astype(np.int64)),
    )


def _choices_of(fitted: Fitted) -> Rows:
    """Return the items that each user has chosen: those with a training rating above 0."""
    return fitted.kept(("fold in", "choices"), lambda: _count_choices(fitted))


def _count_choices(fitted: Fitted) -> Rows:
    seen, values = fitted.seen, fitted.values
    if values is None or (values > 0).all():
        return seen
    users = np.repeat(np.arange(fitted.n_users), np.diff(seen.indptr))
    kept = values > 0
    return rows_of_pairs(users[kept], seen.indices[kept], fitted.n_users, fitted.n_items)
