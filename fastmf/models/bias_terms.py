"""Biases of users and items, and how much they are shrunk: variance components learned from the ratings.

With r_ui = μ + b_u + b_i + e, where b_u, b_i and e are independent with the variances σ_U², σ_I² and σ², the expected
biases given the ratings minimise Σ (r - μ - b_u - b_i)² + λ_U Σ b_u² + λ_I Σ b_i² with λ_U = σ²/σ_U² and
λ_I = σ²/σ_I². The variances are those under which the ratings are likeliest: "empirical Bayes" (Efron, Morris, "Stein's
Estimation Rule and Its Competitors", JASA 68(341), 1973; Searle, Casella, McCulloch, "Variance Components", 1992).
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fastmf.answering.fitted import Fitted
from fastmf.common.lazy import compute_once
from fastmf.measuring.baseline import ITEM_BASELINE, USER_BASELINE
from fastmf.models.starting import Known
from fastmf.models.training import TrainerState, finite_number
from fastmf.models.units import deviation_of
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import Float32Array, Float64Array, Int64Array
from fastmf_kernels.layout.arrays import CSR

# Ratings that are looked at in one go.
_CHUNK = 1 << 18
# Sweeps end when one has changed the error by no more than this share of it, and by no more than this the factor
# n/(n + λ) that shrinks a bias of a mean number n of ratings.
_ERROR_TOLERANCE, _FACTOR_TOLERANCE = 1e-4, 3e-3
MOST_SWEEPS = 20
"""Sweeps at most, unless a parameter says otherwise."""
# Strengths stay within these bounds: a bias that nothing speaks for is shrunk to nearly 0, and none is free.
_LEAST_STRENGTH, _LARGEST_STRENGTH = 1e-3, 1e6
# Biases that the ratings determine, at the least: where strengths are very large, nearly none.
_LEAST_FREE = 1e-9
# The noise of ratings that biases explain wholly, as a share of the ratings' variance.
_LEAST_NOISE = 1e-6
# Shares of the ratings' variance at first: that of the noise, and that of the biases of users and of items.
_FIRST_NOISE, _FIRST_BIASES = 0.6, 0.2


class Strengths(NamedTuple):
    """How much biases are shrunk.

    Attributes
    ----------
    user, item : float
        λ_U and λ_I: a bias of n ratings is n/(n + λ) times their mean residual.
    """

    user: float
    item: float


class BiasTerms(NamedTuple):
    """Fitted biases.

    Attributes
    ----------
    mean : float
        μ: the mean rating.
    user_biases, item_biases : float64 arrays, shape (n_users,) and (n_items,)
        0 for users and items without a rating.
    strengths : Strengths
    noise : float
        σ: the standard deviation of ratings about μ + b_u + b_i.
    """

    mean: float
    user_biases: Float64Array
    item_biases: Float64Array
    strengths: Strengths
    noise: float


def bias_terms(ratings: Interactions) -> BiasTerms:
    """Return the biases of ratings, shrunk as their variances say; computed once for the same ratings."""
    return compute_once(ratings, "bias_terms", lambda: _converged(ratings))


def _converged(ratings: Interactions) -> BiasTerms:
    sweeps = BiasSweeps(ratings)
    for _ in range(MOST_SWEEPS):
        sweeps.run()
        if sweeps.has_converged:
            break
    return sweeps.terms()


def baseline_state(ratings: Interactions) -> dict[str, Float32Array]:
    """Return what a fit to ratings keeps of its baseline, as part of `Trainer.state`."""
    terms = bias_terms(ratings)
    return {
        USER_BASELINE: terms.user_biases.astype(np.float32),
        ITEM_BASELINE: terms.item_biases.astype(np.float32),
    }


def biases_of_rows(rows: CSR, mean: float, biases: Float32Array, strength: float) -> Float64Array:
    """Return the biases of rows with those of the other side fixed: the equation of `BiasSweeps`.

    Parameters
    ----------
    rows : CSR
    mean : float
        μ.
    biases : float32 array
        Of the columns.
    strength : float
        λ of the rows.

    Returns
    -------
    float64 array, shape (n_rows,)
        0 in a row without ratings.
    """
    counts = np.diff(rows.indptr)
    residuals = rows.values.astype(np.float64) - mean - biases[rows.indices]
    return _shrunk(_sums_of_rows(residuals, counts), counts, strength)


class BiasSweeps:
    """Alternating least squares of two sets of scalars: a sweep solves for all b_u, then for all b_i.

    b_u = Σ_i (r_ui - μ - b_i)/(n_u + λ_U) over the n_u ratings of user u, and b_i likewise. Strengths that are not
    given follow from the variances, which are updated after each sweep (MacKay, "Bayesian Interpolation", Neural
    Computation 4(3), 1992): with γ_U = Σ_u n_u/(n_u + λ_U), the number of user biases that the ratings determine,
    σ_U² = Σ b_u²/γ_U, σ_I² likewise, and σ² = Σ (r - r̂)²/(N - γ_U - γ_I) for N ratings; where few ratings are left,
    (Σ (r - r̂)² + σ²(γ_U + γ_I))/N, the update of a mean-field approximation (Raiko, Ilin, Karhunen, "Principal
    Component Analysis for Large Scale Problems with Lots of Missing Values", ECML 2007).

    Parameters
    ----------
    ratings : Interactions
    user_strength, item_strength : float, optional
        λ_U and λ_I. None: learned from the ratings.
    """

    def __init__(
        self, ratings: Interactions, user_strength: float | None = None, item_strength: float | None = None
    ) -> None:
        self._rows, n_items = ratings.by_user, ratings.n_items
        self._given = user_strength, item_strength
        values = ratings.ratings
        self.mean = float(values.mean(dtype=np.float64))
        self._n_ratings = len(values)
        self._total = self._n_ratings * deviation_of(ratings) ** 2 if np.ptp(values) else 0.0
        self._user_counts = np.diff(self._rows.indptr)
        self._item_counts = np.zeros(n_items, np.int64)
        self._user_sums, self._item_sums = np.zeros(ratings.n_users), np.zeros(n_items)
        for users, entries in _chunks(self._rows):
            residuals = self._rows.values[entries].astype(np.float64) - self.mean
            items = self._rows.indices[entries].astype(np.int64)
            self._user_sums[users] = _sums_of_rows(residuals, self._user_counts[users])
            self._item_sums += np.bincount(items, residuals, n_items)
            self._item_counts += np.bincount(items, minlength=n_items)
        self.user_biases, self.item_biases = np.zeros(ratings.n_users), np.zeros(n_items)
        variance = self._total / self._n_ratings
        self._noise = _FIRST_NOISE * variance
        self.error, self.has_converged = math.sqrt(variance), False
        self.strengths = self._strengths_of(_FIRST_BIASES * variance, _FIRST_BIASES * variance)

    def run(self) -> None:
        """Solve for the biases of all users, then of all items, then for the variances."""
        before = self.error, *self.strengths
        offsets = self._solve_users()
        self.item_biases = _shrunk(self._item_sums - offsets, self._item_counts, self.strengths.item)
        self.error = math.sqrt(max(self._squared_error(offsets), 0.0) / self._n_ratings)
        self._shift()
        self._update()
        self.has_converged = self._is_close_to(*before)

    def begin(self, known: tuple[Known, Known], start: Fitted) -> None:
        """Begin at the biases of a fitted model, and at the strengths that it has chosen.

        Parameters
        ----------
        known : (users, items)
            The rows of the model that are known here.
        start : Fitted
        """
        users, items = known
        self.user_biases[users.here] = start.factors.user_biases[users.there]
        self.item_biases[items.here] = start.factors.item_biases[items.there]
        chosen = start.trained_with.get("chosen", {})
        learned = chosen.get("regularization"), chosen.get("item_regularization")
        self.strengths = Strengths(
            *(
                now if before is None or given is not None else float(before)
                for given, before, now in zip(self._given, learned, self.strengths, strict=True)
            )
        )

    def checkpoint(self) -> TrainerState:
        """Return what sweeps change."""
        numbers = {"noise": self._noise, "error": self.error, "has_converged": self.has_converged}
        arrays = {"user_biases": self.user_biases, "item_biases": self.item_biases}
        return TrainerState(arrays, numbers | self.strengths._asdict())

    def resume(self, numbers: dict[str, Any]) -> None:
        """Go on from the state in the arrays of `checkpoint`."""
        noise, error, *strengths = (finite_number(numbers[name]) for name in ("noise", "error", *Strengths._fields))
        if min(noise, error, *strengths) < 0:
            raise ValueError("a variance or a strength is below 0")
        self._noise, self.error, self.strengths = noise, error, Strengths(*strengths)
        self.has_converged = bool(numbers["has_converged"])

    def terms(self) -> BiasTerms:
        """Return the biases as they are now; the next sweep changes those of the users in place."""
        return BiasTerms(self.mean, self.user_biases, self.item_biases, self.strengths, math.sqrt(self._noise))

    def _shift(self) -> None:
        """Move what is common to all biases of users to those of items: the step on which plain sweeps are slow.

        b_u + δ and b_i - δ predict the same; δ = (λ_I Σ b_i - λ_U Σ b_u)/(λ_U·users + λ_I·items) has the least penalty.
        """
        users, items = self._user_counts > 0, self._item_counts > 0
        of_users, of_items = self.strengths
        total = of_users * np.count_nonzero(users) + of_items * np.count_nonzero(items)
        if total:
            delta = (of_items * self.item_biases.sum() - of_users * self.user_biases.sum()) / total
            self.user_biases[users] += delta
            self.item_biases[items] -= delta

    def _is_close_to(self, error: float, *strengths: float) -> bool:
        """Whether a further sweep would change little, given what was before this one."""
        if abs(self.error - error) > _ERROR_TOLERANCE * error:
            return False
        means = (self._n_ratings / np.count_nonzero(counts) for counts in (self._user_counts, self._item_counts))
        return all(
            abs(n / (n + now) - n / (n + before)) <= _FACTOR_TOLERANCE
            for n, now, before in zip(means, self.strengths, strengths, strict=True)
        )

    def _solve_users(self) -> Float64Array:
        """Solve for b_u, and return Σ_u b_u over the users of each item."""
        offsets, n_items = np.zeros(len(self.item_biases)), len(self.item_biases)
        for users, entries in _chunks(self._rows):
            counts = self._user_counts[users]
            items = self._rows.indices[entries].astype(np.int64)
            sums = self._user_sums[users] - _sums_of_rows(self.item_biases[items], counts)
            biases = _shrunk(sums, counts, self.strengths.user)
            self.user_biases[users] = biases
            offsets += np.bincount(items, np.repeat(biases, counts), n_items)
        return offsets

    def _squared_error(self, offsets: Float64Array) -> float:
        """Return Σ (r - r̂)², multiplied out: no further pass over the ratings."""
        users, items = self.user_biases, self.item_biases
        squares = self._user_counts @ users**2 + self._item_counts @ items**2 + 2 * (offsets @ items)
        return float(self._total + squares - 2 * (users @ self._user_sums + items @ self._item_sums))

    def _update(self) -> None:
        of_users, of_items = (
            max(float(_shrunk(counts, counts, strength).sum()), _LEAST_FREE)
            for counts, strength in zip((self._user_counts, self._item_counts), self.strengths, strict=True)
        )
        squared_error, n_free = self.error**2 * self._n_ratings, of_users + of_items
        if n_free < self._n_ratings / 2:
            noise = squared_error / (self._n_ratings - n_free)
        else:
            noise = (squared_error + self._noise * n_free) / self._n_ratings
        self._noise = max(noise, _LEAST_NOISE * self._total / self._n_ratings)
        user_variance = float(self.user_biases @ self.user_biases) / of_users
        item_variance = float(self.item_biases @ self.item_biases) / of_items
        self.strengths = self._strengths_of(user_variance, item_variance)

    def _strengths_of(self, *variances: float) -> Strengths:
        learned = (
            _LARGEST_STRENGTH
            if variance * _LARGEST_STRENGTH <= self._noise
            else max(self._noise / variance, _LEAST_STRENGTH)
            for variance in variances
        )
        return Strengths(*(b if a is None else a for a, b in zip(self._given, learned, strict=True)))


def _shrunk(sums: Float64Array, counts: Int64Array, strength: float) -> Float64Array:
    """Return sums/(counts + λ); 0 where there is nothing."""
    return np.asarray(np.divide(sums, counts + strength, out=np.zeros(len(counts)), where=counts > 0))


def _chunks(rows: CSR) -> Iterator[tuple[slice, slice]]:
    """Yield ranges of rows, and their ranges of entries, of about so many entries each."""
    cuts = np.unique(np.searchsorted(rows.indptr, np.arange(0, len(rows.indices), _CHUNK)))
    for first, last in zip(cuts, [*cuts[1:], len(rows.indptr) - 1], strict=True):
        yield slice(int(first), int(last)), slice(int(rows.indptr[first]), int(rows.indptr[last]))


def _sums_of_rows(values: Float64Array, counts: Int64Array) -> Float64Array:
    """Return the sum of each row, given how many values it has; 0 for an empty one."""
    sums, filled = np.zeros(len(counts)), counts > 0
    if len(values):
        sums[filled] = np.add.reduceat(values, (np.cumsum(counts) - counts)[filled])
    return sums
