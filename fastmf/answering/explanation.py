"""The score of a user and an item as a sum of terms that say where it comes from."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

MEAN, USER_BIAS, ITEM_BIAS = "mean", "user bias", "item bias"
RATING = "rating"
NOT_CHOSEN = "items not chosen"
REMAINDER = "remainder"

_PHRASES = {
    MEAN: "mean",
    USER_BIAS: "bias of the user",
    ITEM_BIAS: "bias of the item",
    NOT_CHOSEN: "items that the user has not chosen",
    REMAINDER: "remainder, which past ratings do not explain",
}
# Digits of the largest number that is shown, and most decimals of any.
_DIGITS, _MOST_DECIMALS = 4, 9


class Term(NamedTuple):
    """One number in the sum.

    Attributes
    ----------
    kind : str
        "mean", "user bias", "item bias", "rating", "items not chosen" or "remainder".
    item_id : int, str or None
        The rated item, of a rating.
    rating : float or None
        What the user gave it.
    contribution : float
    """

    kind: str
    item_id: int | str | None
    rating: float | None
    contribution: float


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Why a model gives a user and an item their score: terms that add up to it.

    Attributes
    ----------
    user_id, item_id : int or str
        Outside ids.
    terms : tuple of Term
        Constant terms, then past ratings, those of the largest contribution, up or down, first; then what belongs to
        no rating. Terms that a model does not have, and constants of 0, are left out.
    score : float
        The sum of all contributions: μ + b_u + b_i + p·q.
    prediction : float
        What `predict` returns for the pair: the score, or in a model with a sigmoid (a ``rating_range``, the logistic
        loss) its place in the range.

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.Interactions.from_arrays(["ann", "ann", "bob"], ["x", "y", "x"], [5, 1, 4])
    >>> explanation = fastmf.ALS(n_factors=2).fit(ratings).explain("ann", "y")
    >>> sorted(term.item_id for term in explanation.ratings)
    ['x', 'y']
    >>> abs(sum(term.contribution for term in explanation.terms) - explanation.prediction) < 1e-4
    True
    """

    user_id: int | str
    item_id: int | str
    terms: tuple[Term, ...]
    score: float
    prediction: float

    @property
    def ratings(self) -> tuple[Term, ...]:
        """The terms of past ratings, largest first."""
        return tuple(term for term in self.terms if term.kind == RATING)

    @property
    def remainder(self) -> float:
        """What no other term explains; about 0 where the factors of a user are the solution of a linear equation."""
        return sum(term.contribution for term in self.terms if term.kind == REMAINDER)

    def __repr__(self) -> str:
        """Return the prediction, and its terms with all ratings together."""
        parts = [f"{term.kind} {self._number(term.contribution)}" for term in self._of_kinds(is_first=True)]
        n_ratings = len(self.ratings)
        if n_ratings:
            parts.append(f"{n_ratings:,} rating{'s' * (n_ratings > 1)} {self._number(self._of_ratings())}")
        parts += [f"{term.kind} {self._number(term.contribution)}" for term in self._of_kinds(is_first=False)]
        of = ": " + ", ".join(parts) if parts else ""
        return f"Explanation(user {self.user_id!r}, item {self.item_id!r}, {self.prediction:.{self._decimals()}f}{of})"

    def to_arrow(self) -> pa.Table:
        """Return a row for each term: ``kind, item_id, rating, contribution``, in the order of ``terms``."""
        kind = pa.string() if isinstance(self.item_id, str) else pa.int64()
        columns = zip(*self.terms, strict=True) if self.terms else ((), (), (), ())
        types = pa.string(), kind, pa.float32(), pa.float64()
        return pa.table(
            {name: pa.array(column, type) for name, column, type in zip(Term._fields, columns, types, strict=True)}
        )

    def to_text(self, titles: Mapping[Any, str] | None = None, k: int = 10) -> str:
        """Return the sum as lines of text for people.

        Parameters
        ----------
        titles : mapping of item id to str, optional
            What items are called; those without a title are shown by their ids.
        k : int
            So many ratings are shown, and the others in one line.

        Returns
        -------
        str
        """
        titles = {} if titles is None else titles
        width = max((len(self._number(term.contribution)) for term in self.terms), default=0)
        width = max(width, len(self._number(self.score)), len(self._number(self._of_ratings())))
        lines = [f"user {self.user_id}, item {_name(self.item_id, titles)}: {self.prediction:.{self._decimals()}f}"]
        lines += [self._line(term.contribution, _PHRASES[term.kind], width) for term in self._of_kinds(is_first=True)]
        lines += self._lines_of_ratings(titles, k, width)
        lines += [self._line(term.contribution, _PHRASES[term.kind], width) for term in self._of_kinds(is_first=False)]
        is_linear = math.isclose(self.score, self.prediction, rel_tol=1e-6, abs_tol=1e-9)
        through = "" if is_linear else f", through a sigmoid {self.prediction:.{self._decimals()}f}"
        return "\n".join([*lines, self._line(self.score, f"score{through}", width)])

    def _of_kinds(self, is_first: bool) -> list[Term]:
        """Return the constant terms, or those after the ratings but for a remainder too small to be seen."""
        constants = MEAN, USER_BIAS, ITEM_BIAS
        kept = [term for term in self.terms if term.kind != RATING and (term.kind in constants) == is_first]
        return [term for term in kept if term.kind != REMAINDER or float(self._number(term.contribution)) != 0]

    def _of_ratings(self) -> float:
        return sum(term.contribution for term in self.ratings)

    def _lines_of_ratings(self, titles: Mapping[Any, str], k: int, width: int) -> list[str]:
        ratings = self.ratings
        if not ratings:
            return []
        lines = [self._line(self._of_ratings(), f"past ratings ({len(ratings):,})", width)]
        for term in ratings[:k]:
            what = f"{term.rating:g}  {_name(term.item_id, titles)}"
            lines.append(" " * (width + 2) + self._line(term.contribution, what, width))
        others = ratings[k:]
        if others:
            total = sum(term.contribution for term in others)
            what = f"{len(others):,} other{'s' * (len(others) > 1)}"
            lines.append(" " * (width + 2) + self._line(total, what, width))
        return lines

    def _line(self, contribution: float, what: str, width: int) -> str:
        return f"  {self._number(contribution):>{width}}  {what}"

    def _number(self, contribution: float) -> str:
        return f"{contribution:+.{self._decimals()}f}"

    def _decimals(self) -> int:
        """Return the decimals with which the largest term has four digits."""
        sizes = (abs(term.contribution) for term in self.terms if math.isfinite(term.contribution))
        largest = max((*sizes, abs(self.score)))
        if not 0 < largest < math.inf:
            return 2
        return min(_MOST_DECIMALS, max(0, _DIGITS - 1 - math.floor(math.log10(largest))))


def _name(item_id: int | str | None, titles: Mapping[Any, str]) -> str:
    title = titles.get(item_id)
    return str(item_id) if title is None else f"{title} ({item_id})"
