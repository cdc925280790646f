"""The first questions to somebody whom a model does not know."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from fastmf.answering.asked import read_once
from fastmf.answering.design import History, choose, directions, shares_beside
from fastmf.answering.fitted import Fitted
from fastmf.common.parameters import require_integer, require_number
from fastmf.errors import ParameterError, named
from fastmf.models.base import Model
from fastmf.reading import ids
from fastmf.reading.interactions import Interactions, as_interactions
from fastmf.reading.parquet import PathLike, write_table
from fastmf.reading.tables import is_table
from fastmf_kernels._types import BoolArray, Float64Array, Int32Array

# So many items are in a representation.
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Onboarding:
    """The items to ask a new user about, in the order in which they are best asked.

    Attributes
    ----------
    items : int32 array, shape (n,)
        Positions in ``item_ids``.
    shares : float64 array, shape (n,)
        The share of the training users who have rated each: the chance that somebody can answer, given his answers. 1
        where the training ratings are not known.
    gains : float64 array, shape (n,)
        By how much each is expected to raise log det M; see `onboarding`.
    item_ids : Arrow array
        The outside ids of the catalogue.
    n_unknown_answered : int
        How many of the answers are on items that have no training rating; they were left out.
    """

    items: Int32Array
    shares: Float64Array
    gains: Float64Array
    item_ids: pa.Array
    n_unknown_answered: int = 0

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.items)

    def __repr__(self) -> str:
        """Return the number of items and the first of them."""
        shown = [*map(repr, self.ids[:_SHOWN].to_pylist()), *(["..."] if len(self) > _SHOWN else [])]
        return f"Onboarding({len(self)} {'item' if len(self) == 1 else 'items'}: {', '.join(shown)})"

    @property
    def ids(self) -> pa.Array:
        """The outside ids of the items, an Arrow array of length n."""
        return self.item_ids.take(pa.array(self.items))

    def to_arrow(self) -> pa.Table:
        """Return the table ``rank, item_id, share, gain``, a row an item, rank from 1."""
        ranks = pa.array(np.arange(1, len(self) + 1, dtype=np.int32))
        columns = {"rank": ranks, "item_id": self.ids, "share": self.shares, "gain": self.gains}
        return pa.table(columns)

    def to_parquet(self, path: PathLike, *, overwrite: bool = False) -> None:
        """Write the table of `to_arrow` to a Parquet file, whole or not at all.

        Raises
        ------
        OutputExistsError
            If ``path`` exists and ``overwrite`` is false.
        """
        write_table(self.to_arrow(), path, overwrite)


def onboarding(
    model: Model,
    n: int = 10,
    *,
    popularity_weight: float = 0.5,
    allow: Iterable[Any] | None = None,
    deny: Iterable[Any] | None = None,
    answered: Any = None,
    asked: Iterable[Any] | None = None,
) -> Onboarding:
    """Choose the items to ask a new user about: items that many people know, and that between them tell most.

    The items are a greedy D-optimal design for the factors of the user. With w_j = π_j^a, where π_j is the share of
    the users who have rated item j and a is ``popularity_weight``, each step takes the item that adds most to

        log det M,  M = λI + Σ_j w_j z_j z_jᵀ,

    which is the item with the largest w_j z_jᵀ M⁻¹ z_j, and M⁻¹ follows from the step before by the formula of Sherman
    and Morrison. z_j are the factors of the item (with a 1 for the bias of the user) in coordinates in which the users
    of the model vary alike in all directions: so λI is the precision of what is known of a user before he answers, the
    design is Bayesian, and M is the precision after it. λ is 10 times the mean of ‖z_j‖² over ratings.

    Questions can go on one by one. Answers that are there already count with weight 1, questions that were asked in
    vain with w_j, and neither are asked again. π_j is then the share among users who know what the new one knows: a
    user weighs as much as he has rated items of the answers.

    A model whose predictions order items alike for all users, such as `Popularity`, asks about the most popular items.
    A model that comes from another library does not know its training ratings: all items are equally popular then.
    Items without training ratings are never asked about.

    The design: Chaloner, Verdinelli, "Bayesian Experimental Design: A Review", Statistical Science 10(3), 1995. The
    balance of what people know and what it tells: Rashid et al., "Getting to Know You: Learning New User Preferences in
    Recommender Systems", IUI 2002, with popularity × entropy; Golbandi, Koren, Lempel, "Adaptive Bootstrapping of
    Recommender Systems Using Decision Trees", WSDM 2011.

    Parameters
    ----------
    model : Model
        Fitted.
    n : int
        How many items, at least 1.
    popularity_weight : float
        a, at least 0. 0: only what an answer tells matters, as where people are asked until they have given some number
        of answers; 1: the chance of an answer counts in full. Large values ask about the most popular items.
    allow, deny : list of item ids, optional
        Items that alone may, or may not, be asked about; ids that the model does not know match nothing.
    answered : list of item ids, Interactions, table or SciPy sparse matrix, optional
        The items of answers that are there already; of ratings, those of one user.
    asked : list of item ids, optional
        Items that were asked about. Those without an answer were asked in vain; ids that the model does not know match
        nothing.

    Returns
    -------
    Onboarding

    Raises
    ------
    NotFittedError
        Before `fit`.
    ParameterError
        If a parameter is wrong; if fewer than ``n`` items may be asked about.
    DataError
        If ids are of another type than those of the model.

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.testing.low_rank(n_users=50, n_items=20, density=0.5, seed=0)
    >>> model = fastmf.ALS(n_factors=4).fit(ratings)
    >>> questions = fastmf.onboarding(model, n=3)
    >>> answers = fastmf.Interactions.from_arrays([1234] * 3, questions.ids, [5, 1, 4])
    >>> model.recommend_for(answers, k=2).items.shape
    (1, 2)
    >>> len(fastmf.onboarding(model, n=1, answered=answers))
    1
    """
    if not isinstance(model, Model):
        raise ParameterError(f"{named('model')} is a {type(model).__name__}; expected a model of fastmf")
    require_integer("n", n, minimum=1)
    require_number("popularity_weight", popularity_weight, minimum=0)
    fitted = model.fitted
    answers, n_unknown = _answered_items(fitted, answered)
    history = History(answers, np.setdiff1d(_found(fitted, "asked", () if asked is None else asked), answers))
    candidates = np.flatnonzero(_may_be_asked(fitted, allow, deny, history)).astype(np.int32)
    if n > len(candidates):
        raise ParameterError(
            f"{named('n')} is {n}, but there are {len(candidates)} items to ask about: those that have training "
            "ratings, are allowed, and were not asked about; expected at most as many"
        )
    shares = shares_beside(fitted, answers)
    candidates = candidates[np.argsort(-shares[candidates], kind="stable")]
    rows = fitted.kept(("onboarding",), partial(directions, fitted))
    design = choose(rows, shares**popularity_weight, int(n), history, candidates)
    return Onboarding(design.items, shares[design.items], design.gains, fitted.item_ids, n_unknown)


def _answered_items(fitted: Fitted, answered: Any) -> tuple[Int32Array, int]:
    """Return the items of answers, ascending, and how many others there are that the model has no ratings of."""
    if answered is None:
        return np.empty(0, np.int32), 0
    if isinstance(answered, Interactions) or is_table(answered) or hasattr(answered, "tocoo"):
        ratings = as_interactions(answered, "answered")
        n_users = len(np.unique(ratings.users))
        if n_users > 1:
            raise ParameterError(f"{named('answered')} has ratings of {n_users} users; expected those of one")
        given = ratings.item_ids.take(pa.array(np.unique(ratings.items)))
    else:
        given = _list_of_ids("answered", answered)
    found = np.unique(ids.look_up(fitted.item_ids, given, "answered"), return_counts=True)
    is_known = (found[0] >= 0) & (fitted.counts.of_items[found[0]] > 0)
    return found[0][is_known].astype(np.int32), int(found[1][~is_known].sum())


def _may_be_asked(
    fitted: Fitted, allow: Iterable[Any] | None, deny: Iterable[Any] | None, history: History
) -> BoolArray:
    """Tell which items have training ratings, are allowed and not denied, and were not asked about."""
    result = fitted.counts.of_items > 0
    if allow is not None:
        result &= np.isin(np.arange(fitted.n_items), _found(fitted, "allow", allow))
    if deny is not None:
        result[_found(fitted, "deny", deny)] = False
    result[np.concatenate(history)] = False
    return result


def _found(fitted: Fitted, name: str, item_ids: Iterable[Any]) -> Int32Array:
    """Return the indices of those ids of a list that the model knows."""
    found = ids.look_up(fitted.item_ids, _list_of_ids(name, item_ids), name)
    return found[found >= 0]


def _list_of_ids(name: str, given: Any) -> Any:
    """Return a list of ids so that it can be read again; refuse what is none."""
    if isinstance(given, (str, bytes, Mapping, Interactions)) or not isinstance(given, Iterable):
        raise ParameterError(f"{named(name)} is {given!r}; expected a list of item ids")
    return read_once(given)
