"""Explaining models of gradient steps: what each rating adds to the factors that folding its user in gives."""

import numpy as np

from fastmf.answering.explanation import NOT_CHOSEN
from fastmf.models.descent_folding import Folding, chosen_of, draws_of
from fastmf.models.explaining import Person, Split
from fastmf_kernels._types import Float32Array, Float64Array, Int32Array, Int64Array
from fastmf_kernels.fold_in.arrays import Fixed
from fastmf_kernels.fold_in.shares import (
    Drawing,
    Row,
    Shares,
    shares_of_choices,
    shares_of_ratings,
    shares_of_user_pairs,
)
from fastmf_kernels.layout.arrays import CSR

# So many items at once are multiplied with another one.
_CHUNK = 1 << 14


def split_ratings(folding: Folding, person: Person, item: int, base: Float32Array | None = None) -> Split:
    """Return what the steps of each rating add to p·q (squared loss).

    Parameters
    ----------
    folding : Folding
        Of users.
    person : Person
    item : int
    base : float32 array, shape (n_factors,), optional
        z of SVD++, whose p is beside it; it is in no contribution.
    """
    row, fitted, fixed = person.row, folding.fitted, folding.items()
    z = np.zeros(fixed.n_factors) if base is None else base.astype(np.float64)
    shares = shares_of_ratings(_row(folding, row), row.values, z, float(fitted.factors.global_mean), fitted.link)
    return Split(shares.own * _products(fixed, row.indices, item))


def split_choices(folding: Folding, person: Person, item: int) -> Split:
    """Return what the steps of each choice, and of all items drawn, add to p·q (logistic loss)."""
    chosen = chosen_of(person.row)
    mean = float(folding.fitted.factors.global_mean)
    return _split(folding, person, item, shares_of_choices(_row(folding, chosen), mean, _drawing(folding, chosen)))


def split_pairs(folding: Folding, person: Person, item: int) -> Split:
    """Return what each choice, and all items drawn, add to p·q in the steps of pairs (BPR)."""
    chosen = chosen_of(person.row)
    return _split(folding, person, item, shares_of_user_pairs(_row(folding, chosen), _drawing(folding, chosen)))


def _split(folding: Folding, person: Person, item: int, shares: Shares) -> Split:
    fixed, is_chosen = folding.items(), person.row.values > 0
    of_ratings = np.zeros(len(is_chosen))
    of_ratings[is_chosen] = shares.own * _products(fixed, person.row.indices[is_chosen], item)
    drawn = float(shares.drawn_weights @ _products(fixed, shares.drawn, item))
    return Split(of_ratings, others={NOT_CHOSEN: drawn})


def _row(folding: Folding, row: CSR) -> Row:
    return Row(row.indices, folding.items(), folding.descent(), float(folding.scales(row)[0]))


def _drawing(folding: Folding, row: CSR) -> Drawing:
    weights, counts = draws_of(folding, row)
    return Drawing(weights, int(counts[0]))


def _products(fixed: Fixed, columns: Int32Array | Int64Array, item: int) -> Float64Array:
    """Return y·q of some items with another one, in float64."""
    q, made = fixed.factors[item].astype(np.float64), np.zeros(len(columns))
    for start in range(0, len(columns), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        made[chunk] = fixed.factors[columns[chunk]] @ q
    return made
