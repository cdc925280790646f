"""The score of a user and an item as a sum of terms that say where it comes from."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

MEAN, USER_BIAS, ITEM_BIAS = "mean", "user bias", "item bias"
RATING, FEATURE = "rating", "feature"
ITEM_RATINGS = "ratings of the item"
NOT_CHOSEN = "items not chosen"
REMAINDER = "remainder"

_CONSTANTS, _GROUPS = (MEAN, USER_BIAS, ITEM_BIAS), (RATING, FEATURE)
_PHRASES = {
    MEAN: "mean",
    USER_BIAS: "bias of the user",
    ITEM_BIAS: "bias of the item",
    ITEM_RATINGS: "all ratings of the item",
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
        "mean", "user bias", "item bias", "rating", "feature", "ratings of the item", "items not chosen" or
        "remainder".
    item_id : int, str or None
        The rated item, if the term is a rating.
    rating : float or None
        The rating that the user gave this item.
    contribution : float
    feature : str or None
        The name of the feature, such as "genre=Drama", if the term is one; all rows with features have "(intercept)".
    """

    kind: str
    item_id: int | str | None
    rating: float | None
    contribution: float
    feature: str | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Why a model gives a user and an item their score: terms that add up to it.

    Attributes
    ----------
    user_id, item_id : int or str
        Outside ids.
    terms : tuple of Term
        Constant terms, then past ratings and then features, those of the largest contribution, up or down, first; then
        what belongs to neither. Terms that a model does not have, and constants of 0, are left out.
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
        return self._of_kind(RATING)

    @property
    def features(self) -> tuple[Term, ...]:
        """The terms of features, largest first; none in a model without features."""
        return self._of_kind(FEATURE)

    @property
    def remainder(self) -> float:
        """What no other term explains; about 0 where the factors of a user are the solution of a linear equation."""
        return _total(self._of_kind(REMAINDER))

    def __repr__(self) -> str:
        """Return the prediction, and its terms with all ratings together."""
        parts = [f"{term.kind} {self._number(term.contribution)}" for term in self._alone(are_constants=True)]
        for kind in _GROUPS:
            terms = self._of_kind(kind)
            if terms:
                parts.append(f"{len(terms):,} {kind}{'s' * (len(terms) > 1)} {self._number(_total(terms))}")
        parts += [f"{term.kind} {self._number(term.contribution)}" for term in self._alone(are_constants=False)]
        of = ": " + ", ".join(parts) if parts else ""
        return f"Explanation(user {self.user_id!r}, item {self.item_id!r}, {self.prediction:.{self._decimals()}f}{of})"

    def to_arrow(self) -> pa.Table:
        """Return a row for each term, in order: ``kind, item_id, rating, contribution``, and ``feature`` if any is one.

        Entries that do not belong to a term are null.
        """
        id_type = pa.string() if isinstance(self.item_id, str) else pa.int64()
        types = pa.string(), id_type, pa.float32(), pa.float64(), pa.string()
        table = pa.table(
            {
                name: pa.array([getattr(term, name) for term in self.terms], kind)
                for name, kind in zip(Term._fields, types, strict=True)
            }
        )
        return table if self._of_kind(FEATURE) else table.drop_columns(["feature"])

    def to_text(self, titles: Mapping[Any, str] | None = None, k: int = 10) -> str:
        """Return the sum as lines of text for people.

        Parameters
        ----------
        titles : mapping of item id to str, optional
            What items are called; those without a title are shown by their ids.
        k : int
            So many ratings are shown, and the others in one line; features likewise.

        Returns
        -------
        str
        """
        titles = {} if titles is None else titles
        sums = [self.score, *(_total(self._of_kind(kind)) for kind in _GROUPS)]
        width = max(len(self._number(value)) for value in (*sums, *(term.contribution for term in self.terms)))
        rated = [(term, f"{_name(term.item_id, titles)}, rated {term.rating:g}") for term in self._of_kind(RATING)]
        features = [(term, str(term.feature)) for term in self._of_kind(FEATURE)]
        is_linear = math.isclose(self.score, self.prediction, rel_tol=1e-6, abs_tol=1e-9)
        through = "" if is_linear else f", through a sigmoid {self.prediction:.{self._decimals()}f}"
        lines = [
            f"user {self.user_id}, item {_name(self.item_id, titles)}: {self.prediction:.{self._decimals()}f}",
            *(self._line(term.contribution, _PHRASES[term.kind], width) for term in self._alone(are_constants=True)),
            *self._lines_of("past ratings", rated, k, width),
            *self._lines_of("features", features, k, width),
            *(self._line(term.contribution, _PHRASES[term.kind], width) for term in self._alone(are_constants=False)),
            self._line(self.score, f"score{through}", width),
        ]
        return "\n".join(lines)

    def _of_kind(self, kind: str) -> tuple[Term, ...]:
        return tuple(term for term in self.terms if term.kind == kind)

    def _alone(self, are_constants: bool) -> list[Term]:
        """Return the constant terms, or those after ratings and features but for a remainder too small to be seen."""
        kept = [term for term in self.terms if term.kind not in _GROUPS]
        kept = [term for term in kept if (term.kind in _CONSTANTS) == are_constants]
        return [term for term in kept if term.kind != REMAINDER or float(self._number(term.contribution)) != 0]

    def _lines_of(self, title: str, named_terms: list[tuple[Term, str]], k: int, width: int) -> list[str]:
        """Return the sum of a group of terms, and below it the first k of them."""
        if not named_terms:
            return []
        shown = [(term.contribution, name) for term, name in named_terms[:k]]
        others = [term for term, _ in named_terms[k:]]
        if others:
            shown.append((_total(others), f"{len(others):,} other{'s' * (len(others) > 1)}"))
        total = _total([term for term, _ in named_terms])
        inset = " " * (width + 2)
        return [
            self._line(total, f"{title} ({len(named_terms):,})", width),
            *(inset + self._line(contribution, name, width) for contribution, name in shown),
        ]

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


def _total(terms: Iterable[Term]) -> float:
    return math.fsum(term.contribution for term in terms)


def _name(item_id: int | str | None, titles: Mapping[Any, str]) -> str:
    title = titles.get(item_id)
    return str(item_id) if title is None else f"{title} ({item_id})"
