"""NumPy reference of folding in by gradient steps: the specification of `fastmf_kernels.fold_in.cpu`.

A row x with bias b starts at 0 and takes the steps of `fastmf_kernels.sgd.point` or
`fastmf_kernels.negative_sampling.point` for its entries, epoch after epoch, while the other side stays as it is:

    G ← G + e²‖y‖²/k      x ← (x + γ e y/√G)/(1 + γλ/√G)      b ← (b + γ_b e/√G)/(1 + γ_b λ_b/√G)

with the old G in both, k factors, and y and e as the loss has them: y = q_i and e = (r - r̂)·dr̂/ds for the rating r of
an item i; y = q_i and e = t - σ(s) for a choice, t = 1, or an item drawn, t = 0; y = q_i - q_j and e = σ(s_j - s_i) for
the pair of a choice i and an item j drawn. The result is the mean of x and of b after the steps of the later half of
the epochs: the noise of single steps is gone from it (Polyak, Juditsky, "Acceleration of Stochastic Approximation by
Averaging", SIAM Journal on Control and Optimization 30(4), 1992).

The d-th draw of a row is the fractional part of u + d·φ, with φ the golden ratio and u random: all columns are drawn
about equally often among however many draws, which makes the result depend less on them (Kuipers, Niederreiter,
"Uniform Distribution of Sequences", 1974, chapter 2).

The steps of a row do not depend on the other rows. A row without entries stays 0.
"""

from collections.abc import Iterator

import numpy as np

from fastmf_kernels._types import Float32Array, Float64Array, Int32Array
from fastmf_kernels.fold_in.arrays import GOLDEN_RATIO, TRIES, Descent, Draws, Fixed, Folded, Rivals, Weights
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Link

Made = list[tuple[Float64Array, float]]


def fix(factors: Float32Array, biases: Float32Array) -> Fixed:
    """Make the fixed side of factors, shape (n_fixed, n_factors), and biases, shape (n_fixed,)."""
    norms = (factors.astype(np.float64) ** 2).sum(axis=1)
    return Fixed(factors, biases, norms.astype(np.float32), factors.shape[1])


def fold_in_ratings(
    rows: CSR,
    fixed: Fixed,
    base: Float32Array,
    mean: float,
    link: Link,
    descent: Descent,
    scales: Float32Array,
    n_threads: int | None = None,
) -> Folded:
    """Fold rows in from ratings: one step for each rating in an epoch, in random order (squared loss).

    Parameters
    ----------
    rows : CSR
        Ratings; columns are rows of ``fixed``, ascending inside a row.
    fixed : Fixed
    base : float32 array, shape (n_rows, n_factors)
        Added to the factors of each row wherever they are multiplied, and in the result: z of SVD++, or 0.
    mean : float
        μ of the score.
    link : Link
    descent : Descent
    scales : float32 array, shape (n_rows,)
        Factor on both strengths of each row.
    n_threads : int, optional
        Not used here.

    Returns
    -------
    Folded
    """
    made: Made = []
    for start, stop, row in _rows(rows, fixed, descent, scales):
        z = base[len(made)].astype(np.float64)
        for j in _entries(row, stop - start):
            column, value = rows.indices[start + j], float(rows.values[start + j])
            score = fixed.factors[column].astype(np.float64) @ (row.x + z) + row.bias + float(fixed.biases[column])
            if link.span == 0:
                error = value - mean - score
            else:
                share = _sigmoid(mean + score)
                error = (value - float(link.low) - float(link.span) * share) * float(link.span) * share * (1 - share)
            row.step(fixed, column, error)
        made.append((row.mean + z * (stop > start), row.mean_bias))
    return _folded(made, fixed)


def fold_in_choices(
    rows: CSR,
    fixed: Fixed,
    mean: float,
    descent: Descent,
    scales: Float32Array,
    draws: Draws,
    n_threads: int | None = None,
) -> Folded:
    """Fold rows in from choices: a step for each, towards 1, and for columns drawn beside them, towards 0 (logistic).

    After the n-th of N choices of an epoch, n/N of all columns of the epoch have been drawn. The other parameters are
    those of `fold_in_ratings`.

    Parameters
    ----------
    rows : CSR
        What was chosen; values do not matter.
    draws : Draws

    Returns
    -------
    Folded
    """
    made: Made = []
    for start, stop, row in _rows(rows, fixed, descent, scales):
        own = rows.indices[start:stop]
        for chosen, n_draws in _choices(row, own, draws.counts[len(made)]):
            row.step(fixed, chosen, 1 - _sigmoid(mean + row.score(fixed, chosen)))
            for _ in range(n_draws):
                drawn, _position = row.draw(draws.weights, own)
                if drawn >= 0:
                    row.step(fixed, drawn, -_sigmoid(mean + row.score(fixed, drawn)))
        made.append((row.mean, row.mean_bias))
    return _folded(made, fixed)


def fold_in_user_pairs(
    rows: CSR, fixed: Fixed, descent: Descent, scales: Float32Array, draws: Draws, n_threads: int | None = None
) -> Folded:
    """Fold users in from choices: a step for each pair of a chosen item and one drawn beside it (BPR).

    The parameters are those of `fold_in_choices`. A user has no bias in this loss.

    Returns
    -------
    Folded
    """
    made: Made = []
    for start, stop, row in _rows(rows, fixed, descent, scales):
        own = rows.indices[start:stop]
        for chosen, n_draws in _choices(row, own, draws.counts[len(made)]):
            for _ in range(n_draws):
                drawn, _position = row.draw(draws.weights, own)
                if drawn >= 0:
                    error = _sigmoid(row.score(fixed, drawn) - row.score(fixed, chosen))
                    difference = fixed.factors[chosen].astype(np.float64) - fixed.factors[drawn]
                    square = float(fixed.squared_norms[chosen]) + float(fixed.squared_norms[drawn])
                    row.move(difference, 0.0, error, square)
        made.append((row.mean, 0.0))
    return _folded(made, fixed)


def fold_in_item_pairs(
    rows: CSR,
    fixed: Fixed,
    rivals: Rivals,
    descent: Descent,
    scales: Float32Array,
    draws: Draws,
    n_threads: int | None = None,
) -> Folded:
    """Fold items in from the users who have chosen them: a step for each pair of the item and another one (BPR).

    Each of these users compares the item with items that the user has not chosen. The other users that ``draws`` draws,
    one for each of their choices, compare it with the item that they have chosen there.

    Parameters
    ----------
    rows : CSR
        The users who have chosen each item.
    fixed : Fixed
        The users.
    rivals : Rivals
    draws : Draws
        Its ``weights`` are made of ``rivals.indptr``.
    descent, scales, n_threads
        As in `fold_in_ratings`.

    Returns
    -------
    Folded
    """
    made: Made = []
    for start, stop, row in _rows(rows, fixed, descent, scales):
        own = rows.indices[start:stop]
        for chosen, n_draws in _choices(row, own, draws.counts[len(made)]):
            theirs = rivals.indices[rivals.indptr[chosen] : rivals.indptr[chosen + 1]]
            for _ in range(rivals.n_negatives):
                drawn, _position = row.draw(rivals.weights, theirs)
                if drawn >= 0:
                    row.step(fixed, chosen, _sigmoid(_score(fixed, chosen, rivals, drawn) - row.alone(fixed, chosen)))
            for _ in range(n_draws):
                user, position = row.draw(draws.weights, own)
                if user >= 0:
                    preferred = rivals.indices[position]
                    row.step(fixed, user, -_sigmoid(row.alone(fixed, user) - _score(fixed, user, rivals, preferred)))
        made.append((row.mean, row.mean_bias))
    return _folded(made, fixed)


class _Row:
    """A row on its way: x and b, the accumulator G, and the means so far."""

    def __init__(self, descent: Descent, scale: float, n_factors: int) -> None:
        self.descent, self.scale, self.n_factors = descent, scale, n_factors
        self.x, self.bias, self.accumulator = np.zeros(n_factors), 0.0, 1.0
        self.mean, self.mean_bias, self.n_averaged = np.zeros(n_factors), 0.0, 0
        self.epoch = self.counter = self.n_drawn = 0
        self.offset = self.random()

    def random(self) -> float:
        """Return the next number from 0 to just below 1: SplitMix64."""
        bits = 2**64 - 1
        self.counter += 1
        z = (int(self.descent.key) + self.counter * 0x9E3779B97F4A7C15) & bits
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & bits
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & bits
        return float(((z ^ (z >> 31)) >> 11) * 2.0**-53)

    def draw(self, weights: Weights, excluded: Int32Array) -> tuple[int, int]:
        """Draw a column that is not among some, and return it with the position that was drawn; -1 if none is found."""
        cumulative = weights.cumulative
        for _ in range(TRIES):
            self.n_drawn += 1
            place = self.offset + self.n_drawn * GOLDEN_RATIO
            position = min(int((place - np.floor(place)) * cumulative[-1]), int(cumulative[-1]) - 1)
            column = int(np.searchsorted(cumulative, position, side="right")) - 1
            if column not in excluded:
                return column, position
        return -1, -1

    def score(self, fixed: Fixed, column: int) -> float:
        """Return x·y + b and the bias of the column."""
        return self.alone(fixed, column) + float(fixed.biases[column])

    def alone(self, fixed: Fixed, column: int) -> float:
        """Return x·y + b."""
        return float(fixed.factors[column].astype(np.float64) @ self.x + self.bias)

    def step(self, fixed: Fixed, column: int, error: float) -> None:
        """Take a step along the factors of a column."""
        y = fixed.factors[column].astype(np.float64)
        self.move(y, error, error, float(fixed.squared_norms[column]))

    def move(self, y: Float64Array, bias_error: float, error: float, square: float) -> None:
        """Take a step along y, where ``square`` is the ‖y‖² that G grows by."""
        descent, root = self.descent, np.sqrt(self.accumulator)
        decay = descent.decay**self.epoch / root
        rate, bias_rate = decay * descent.learning_rate, decay * descent.bias_learning_rate
        self.x = (self.x + rate * error * y) / (1 + rate * self.scale * descent.regularization)
        self.bias = (self.bias + bias_rate * bias_error) / (1 + bias_rate * self.scale * descent.bias_regularization)
        self.accumulator += descent.adaptive * error**2 * square / self.n_factors
        if self.epoch >= descent.n_epochs // 2:
            self.n_averaged += 1
            self.mean += (self.x - self.mean) / self.n_averaged
            self.mean_bias += (self.bias - self.mean_bias) / self.n_averaged


def _rows(rows: CSR, fixed: Fixed, descent: Descent, scales: Float32Array) -> Iterator[tuple[int, int, _Row]]:
    """Return where the entries of each row start and stop, and the row before its first step."""
    for start, stop, scale in zip(rows.indptr[:-1], rows.indptr[1:], scales, strict=True):
        yield int(start), int(stop), _Row(descent, float(scale), fixed.n_factors)


def _entries(row: _Row, n_entries: int) -> Iterator[int]:
    """Go over the numbers of the entries of a row in every epoch, each time in another order (Fisher, Yates)."""
    order = np.arange(n_entries)
    for epoch in range(row.descent.n_epochs):
        row.epoch = epoch
        for last in range(n_entries - 1, 0, -1):
            other = int(row.random() * (last + 1))
            order[[last, other]] = order[[other, last]]
        yield from order.tolist()


def _choices(row: _Row, own: Int32Array, n_draws: int) -> Iterator[tuple[int, int]]:
    """Go over the choices of a row in every epoch, each with how many columns are drawn after it."""
    for n, entry in enumerate(_entries(row, len(own))):
        place = n % len(own)
        yield int(own[entry]), int((place + 1) * n_draws // len(own) - place * n_draws // len(own))


def _score(users: Fixed, user: int, rivals: Rivals, item: int) -> float:
    """Return p·q + b of a rival."""
    product = users.factors[user].astype(np.float64) @ rivals.items.factors[item]
    return float(product + rivals.items.biases[item])


def _sigmoid(score: float) -> float:
    """Return 1/(1 + e^-s), also where e^-s is too large for a number."""
    return float(np.exp(-np.logaddexp(0, -score)))


def _folded(made: Made, fixed: Fixed) -> Folded:
    factors = np.array([x for x, _ in made], np.float64).reshape(len(made), fixed.n_factors)
    return Folded(factors.astype(np.float32), np.array([bias for _, bias in made], np.float32))
