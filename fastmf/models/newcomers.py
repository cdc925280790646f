"""People who bring their ratings are folded in, and recommended to; some of them may be users of the model."""

from abc import abstractmethod
from typing import Any

import numpy as np
import pyarrow as pa

from fastmf.answering.answers import Recommendations
from fastmf.answering.audience import Fold, Newcomers
from fastmf.answering.fitted import SIDES, Fitted
from fastmf.answering.reranking import Reranking
from fastmf.answering.rows import ratings_of_pairs, take_ratings
from fastmf.answering.scoring import ItemFilter, Scorer
from fastmf.answering.side_features import Prior
from fastmf.common.parameters import require_choice
from fastmf.errors import ModelError
from fastmf.models.folding import FoldedIn, described_too, match, prior_of
from fastmf.models.learned import LearnedState
from fastmf.reading import ids
from fastmf.reading.features import Features
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import BoolArray, Float32Array, Int32Array
from fastmf_kernels.layout.arrays import CSR

RUN_PARAMETERS = ("backend", "n_threads", "verbose")
"""How to run is a matter of the machine: these change nothing of what is learned."""
# So many users are shown in a message.
_SHOWN = 3


class AnswersNewcomers(LearnedState):
    """Base of models: what a fitted model answers to people who bring their ratings."""

    backend: str
    n_threads: int | None

    @property
    @abstractmethod
    def is_implicit(self) -> bool:
        """Whether ratings only say what was chosen."""

    @abstractmethod
    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the hyper-parameters by name."""

    def fold_in(self, interactions: Any, side: str = "user", *, features: Any = None) -> FoldedIn:
        """Compute factors and biases of users (or items) from their ratings alone, the other side being fixed.

        The model stays as it is. A user who was in training gets what his ratings give here. `ALS`, `ImplicitALS` and
        `Bias` solve for a row exactly, with the strengths that the fit had: parameters that were set since do not
        matter. In `ALS` and `ImplicitALS` with the solver "cholesky", the training ratings of a user give his factors
        as the fit has left them, bit for bit; those of an item do not, as users are what a fit solves for last.

        Parameters
        ----------
        interactions : Interactions, table or SciPy sparse matrix
            Ratings of users, new or known, on items of the model; those on other items are left out. None, if features
            are all that is known.
        side : {"user", "item"}
            "item" folds items in, from ratings of users of the model.
        features : Features or table, optional
            What is known of these users (or items), where the model was trained with features of this side. Ids that
            only the features know get a row, too. Users of the model have the features of `fit` otherwise. Features
            that the model does not know are left out.

        Returns
        -------
        FoldedIn
            ``(ids, factors, biases)``: a row for each user (or item) of ``interactions``, in the order of their ids;
            zeros where there is no rating that the model can use.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ParameterError, DataError
            If ``side`` is neither; if ids are of another type than those of the model; if ratings are so large that
            factors are no float32 numbers.

        Examples
        --------
        >>> import fastmf
        >>> ratings = fastmf.testing.low_rank(n_users=50, n_items=20, density=0.5, seed=0)
        >>> model = fastmf.ALS(n_factors=4).fit(ratings)
        >>> newcomer = fastmf.Interactions.from_arrays(["eve", "eve"], ratings.item_ids[:2], [5, 1])
        >>> model.fold_in(newcomer).factors.shape
        (1, 4)
        """
        require_choice("side", side, SIDES)
        fitted = self.fitted
        ratings, given = described_too(interactions, features, side, fitted)
        matched = match(fitted, ratings, side)
        prior = prior_of(fitted, matched.ids, side, given)
        return FoldedIn(matched.ids, *self._fold_in(fitted, matched.rows, side, prior))

    @abstractmethod
    def _fold_in(
        self, fitted: Fitted, rows: CSR, side: str, prior: Prior | None = None
    ) -> tuple[Float32Array, Float32Array]:
        """Solve rows of users (or items) with the other side fixed.

        Parameters
        ----------
        fitted : Fitted
        rows : CSR
            Ratings; columns are rows of the factors of the other side, all of which have training ratings.
        side : {"user", "item"}
            What the rows are.
        prior : Prior, optional
            What they are pulled to, in a model with features.

        Returns
        -------
        factors : float32 array, shape (n_rows, n_factors)
        biases : float32 array, shape (n_rows,)
            Both 0 in a row without ratings.
        """

    def recommend_for(
        self,
        interactions: Any,
        k: int = 10,
        *,
        exclude: str | Interactions | None = "seen",
        allow: ItemFilter = None,
        deny: ItemFilter = None,
        cold: str = "skip",
        rerank: Reranking | None = None,
        features: Any = None,
    ) -> Recommendations:
        """Find the k best items of people from their ratings, whether or not the model knows these people.

        Factors are those of `fold_in`. For a user whom the model knows, his training ratings count as well, unless
        there is a new one of the same item. A model that comes from another library has none of these.

        Parameters
        ----------
        interactions : Interactions, table or SciPy sparse matrix
            Ratings of the people to recommend to. None, if features are all that is known of them.
        k : int
            At most the size of the catalogue.
        exclude : "seen", Interactions or None
            What is never returned to somebody: the items of all these ratings, the pairs given, or nothing.
        allow, deny : list of item ids, dict of user id to list of item ids, or Interactions; optional
            As in `recommend`.
        features : Features or table, optional
            What is known of these people, as in `fold_in`.
        cold : {"skip", "popular"}
            People of whom nothing is known get nothing, or popular items: those without a rating of an item that the
            model knows; for a model of implicit feedback, without one above 0.
        rerank : Reranking, optional
            As in `recommend`.

        Returns
        -------
        Recommendations
            A row for each user of ``interactions``, in the order of their ids. ``users`` is -1 for people whom the
            model does not know; ``unknown_items`` and ``n_unknown_ratings`` tell of the items that it does not know.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ParameterError, DataError
            If a parameter is wrong; if ids are of another type than those of the model.
        ModelError
            If the model knows some of these users, and was saved without its training ratings.

        Examples
        --------
        >>> import fastmf
        >>> ratings = fastmf.testing.low_rank(n_users=50, n_items=20, density=0.5, seed=0)
        >>> model = fastmf.ALS(n_factors=4).fit(ratings)
        >>> newcomer = fastmf.Interactions.from_arrays([1234, 1234], ratings.item_ids[:2], [5, 1])
        >>> found = model.recommend_for(newcomer, k=3)
        >>> found.items.shape, found.users.tolist()
        ((1, 3), [-1])
        """
        scorer = self._scorer_for(interactions, cold, features)
        return scorer.recommend(None, k, exclude=exclude, allow=allow, deny=deny, cold=cold, rerank=rerank)

    def newcomers(self, interactions: Any, features: Any = None) -> Newcomers:
        """Return the users of ratings as `recommend_for` sees them.

        Parameters
        ----------
        interactions : Interactions, table or SciPy sparse matrix
        features : Features or table, optional
            As in `recommend_for`.

        Returns
        -------
        Newcomers
            Their ratings on items of the model, with their training ratings; who of them is known or cold; and how many
            ratings are of items that the model does not know.

        Raises
        ------
        NotFittedError, DataError, ModelError
            As `recommend_for`.
        """
        return self._newcomers(self.fitted, interactions, features)

    def _scorer_for(self, interactions: Any, cold: str, features: Any = None) -> Scorer:
        """Return what answers the users of ratings."""
        require_choice("cold", cold, ("skip", "popular"))
        fitted = self.fitted
        return Scorer(fitted, self.backend, self.n_threads, self._newcomers(fitted, interactions, features))

    def _newcomers(self, fitted: Fitted, interactions: Any, features: Any = None) -> Newcomers:
        """Return the users of ratings as people to answer."""
        ratings, given = described_too(interactions, features, "user", fitted)

        def fold(rows: CSR, prior: Prior | None) -> tuple[Float32Array, Float32Array]:
            return self._fold_in(fitted, rows, "user", prior)

        parameters = {name: value for name, value in self.get_params().items() if name not in RUN_PARAMETERS}
        words = repr((type(self).__name__, parameters, fitted.trained_with))
        return newcomers_of(fitted, ratings, self.is_implicit, fold, words, given)


def newcomers_of(
    fitted: Fitted,
    ratings: Interactions,
    is_implicit: bool,
    fold: Fold,
    parameters: str,
    features: Features | None = None,
) -> Newcomers:
    """Return the users of ratings as people to answer, with the training ratings of those that the model knows.

    Parameters
    ----------
    fitted : Fitted
    ratings : Interactions
        A rating here takes the place of a training rating of the same pair.
    is_implicit : bool
        Whether ratings of 0 and below say nothing of what somebody likes.
    fold : callable
        Takes rows of ratings and the prior of these rows, and returns factors and biases.
    parameters : str
        What ``fold`` depends on beside the model, in words.
    features : Features, optional
        What is known of these users.

    Raises
    ------
    DataError
        If ids are of another type than those of the model.
    ModelError
        If the model knows some of these users, and was saved without its training ratings.
    """
    matched, prior = match(fitted, ratings, "user"), prior_of(fitted, ratings.user_ids, "user", features)
    places = ids.look_up(fitted.user_ids, ratings.user_ids, "user_ids")
    rows = _with_training_ratings(fitted, matched.rows, places, ratings.user_ids)
    is_cold = ~_has_any(rows, rows.values > 0 if is_implicit else np.ones(len(rows.values), np.bool_))
    return Newcomers(
        ratings.user_ids,
        rows,
        is_cold if prior is None else is_cold & ~prior.means.any(axis=1),
        places,
        fold,
        matched.unknown,
        matched.n_unknown_ratings,
        parameters,
        prior,
    )


def _has_any(rows: CSR, is_meant: BoolArray) -> BoolArray:
    """Tell which rows have an entry that is meant."""
    return np.diff(np.concatenate([[0], np.cumsum(is_meant)])[rows.indptr]) > 0


def _with_training_ratings(fitted: Fitted, rows: CSR, places: Int32Array, user_ids: pa.Array) -> CSR:
    """Return rows with the training ratings of the users that the model knows, where the rows have no newer ones."""
    known = np.flatnonzero(places >= 0)
    known = known[~fitted.counts.are_cold(places[known])]
    if not len(known) or not fitted.counts.are_known:
        return rows
    if fitted.values is None:
        shown = ", ".join(map(repr, user_ids.take(pa.array(known[:_SHOWN])).to_pylist()))
        raise ModelError(
            f"the model was saved without its training ratings, and knows {len(known):,} of these users ({shown}); "
            "their ratings of then cannot be counted: leave these users out, call recommend for them, or train again"
        )
    trained = take_ratings(CSR(*fitted.seen, fitted.values), places[known])
    n_users = len(places)
    of_trained = np.repeat(known, np.diff(trained.indptr))
    of_rows = np.repeat(np.arange(n_users), np.diff(rows.indptr))
    made, values = ratings_of_pairs(
        np.concatenate([of_trained, of_rows]),
        np.concatenate([trained.indices, rows.indices]),
        np.concatenate([trained.values, rows.values]),
        n_users,
        fitted.n_items,
    )
    return CSR(*made, values)
