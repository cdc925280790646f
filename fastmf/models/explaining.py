"""Why a model gives a user and an item their score: by the ratings and features that factors were made of."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from fastmf.answering.explanation import FEATURE, ITEM_BIAS, MEAN, RATING, REMAINDER, USER_BIAS, Explanation, Term
from fastmf.answering.fitted import SIDES, Fitted
from fastmf.answering.rows import take_ratings
from fastmf.common.parameters import require_choice
from fastmf.errors import ModelError, ParameterError, UnknownIdError, named
from fastmf.models.folding import described_rows, described_too
from fastmf.models.newcomers import AnswersNewcomers
from fastmf.reading import ids
from fastmf_kernels._types import Float32Array, Float64Array
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Link

_NO_RATINGS = CSR(np.zeros(2, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))


class Person(NamedTuple):
    """The user whose score is explained.

    Attributes
    ----------
    row : CSR
        The ratings, as one row; columns are items of the model.
    factors : float32 array, shape (n_factors,)
        p.
    bias : float
        b_u.
    features : CSR or None
        The features, as one row in the columns of the model; None in a model without features of users.
    """

    row: CSR
    factors: Float32Array
    bias: float
    features: CSR | None = None


class Split(NamedTuple):
    """What p·q is made of, as far as ratings and features explain it.

    Attributes
    ----------
    of_ratings : float64 array, shape (n,)
        The contribution of each rating of the user.
    of_features : mapping of str to float
        The contribution of each feature.
    others : mapping of str to float
        Contributions of other kinds.
    """

    of_ratings: Float64Array
    of_features: Mapping[str, float] = MappingProxyType({})
    others: Mapping[str, float] = MappingProxyType({})


class Explains(AnswersNewcomers):
    """Base of models: what a prediction is made of."""

    def explain(
        self, user: Any, item: Any, *, by: str = "user", interactions: Any = None, features: Any = None
    ) -> Explanation:
        """Explain the prediction of a pair: which past ratings of the user carry it, and how much each.

        The score μ + b_u + b_i + p·q is written as a sum: of its constants, of a contribution of each rating of the
        user, and of a remainder, which is shown as such. With a ``rating_range``, and for the logistic loss, the
        prediction is a sigmoid of the score; terms add up to the score, and the explanation has both.

        - `ALS` and `ImplicitALS`: p = A⁻¹ Σ_j t_j q_j over the rated items j, so rating j contributes t_j q_jᵀA⁻¹q_i to
          the score of item i, with the equations that the fit has solved (Hu, Koren, Volinsky, "Collaborative Filtering
          for Implicit Feedback Datasets", ICDM 2008, section 5). With ``nonnegative``, A is that of the factors above
          0. There is a remainder if p is not the solution: after a fit by the solver "cg" or "subspace", after
          `partial_fit`, or where factors were saved as float16. In a model with ``user_features``, p is pulled to
          Σ_f x_f W_f, and feature f of the user contributes λ x_f W_fᵀA⁻¹q_i; x_f W_f·q_i for users without ratings.
        - `SGD`, `SVDpp` and `BPR`: every step of `fold_in` adds a multiple of an item's factors to p. What the steps of
          a rating add up to is its contribution; in `SVDpp` with |N|^-½ y_j·q_i. Items that were drawn against the
          choices of the user are one term, "items not chosen". The remainder is the score of the fit less that of
          `fold_in`; the user has moved with all others in the fit, and so it may be large.
        - `Bias` and `Popularity`: the constants alone.

        Parameters
        ----------
        user : id
            A user of the model, or of ``interactions``.
        item : id
            An item of the model.
        by : {"user", "item"}
            Whose factors are taken apart. "item", for `ALS` and `ImplicitALS`: p·q_i is made of the features of the
            item and of its ratings, which are one term together. The users have moved once more after a fit has solved
            for the items, and so there is a remainder; items without ratings are explained by their features wholly.
        interactions : Interactions, table or SciPy sparse matrix, optional
            Ratings of the user, who need not be known to the model, as in `recommend_for`: the prediction then is that
            of `fold_in`, and training ratings of a user whom the model knows count as well. None: the user is one of
            the model, and the prediction is that of `predict`.
        features : Features or table, optional
            What is known of the user, as in `recommend_for`, with or without ``interactions``.

        Returns
        -------
        Explanation

        Raises
        ------
        NotFittedError
            Before `fit`.
        UnknownIdError
            If the model does not know the item, or neither the model nor ``interactions`` have the user.
        ParameterError, DataError
            If ``user`` or ``item`` is not one id; if an id is of another type than those of the model; if ``by`` is
            something else, or "item" and the model has no equations of items; if features are given to a model without.
        ModelError
            If the model was saved without its training ratings, or has none, and the ratings of the user (or of the
            item) are needed.

        Examples
        --------
        >>> import fastmf
        >>> ratings = fastmf.testing.low_rank(n_users=50, n_items=20, density=0.5, seed=0)
        >>> model = fastmf.ALS(n_factors=4).fit(ratings)
        >>> user, item = model.user_ids[0], model.item_ids[0]
        >>> explanation = model.explain(user, item)
        >>> explanation.to_arrow().column_names
        ['kind', 'item_id', 'rating', 'contribution']
        """
        require_choice("by", by, SIDES)
        fitted = self.fitted
        place = _place_of(fitted.item_ids, item, "item", "the model")
        if interactions is None and features is None:
            person, user_id = self._person(fitted, user, by)
        else:
            person, user_id = self._newcomer(fitted, user, interactions, features)
        if by == "item":
            person = person._replace(row=_NO_RATINGS)
        split = self._split(fitted, person, place) if by == "user" else self._split_item(fitted, person, place)
        terms = _terms(fitted, person, place, split)
        score = math.fsum(term.contribution for term in terms)
        return Explanation(user_id, fitted.item_ids[place].as_py(), terms, score, _through(fitted.link, score))

    def _split(self, fitted: Fitted, person: Person, item: int) -> Split:
        """Return how p·q of a user and an item is made of the user's ratings; what is missing is the remainder.

        Without factors there is nothing to split.
        """
        return Split(np.zeros(len(person.row.indices)))

    def _split_item(self, fitted: Fitted, person: Person, item: int) -> Split:
        """Return how p·q is made of the features and the ratings of the item; what is missing is the remainder.

        Raises
        ------
        ParameterError
            If the model has no equations of items.
        """
        raise ParameterError(
            f"{named('by')} is 'item', which explains models of alternating least squares, and this one is of "
            f"{type(self).__name__}; expected 'user'"
        )

    def _person(self, fitted: Fitted, user: Any, by: str) -> tuple[Person, int | str]:
        """Return a user of the model, with the training ratings where these explain the score, and the id."""
        place = _place_of(fitted.user_ids, user, "user", "the model")
        factors, user_id = fitted.factors, fitted.user_ids[place].as_py()
        row = _training_row(fitted, place, user_id) if by == "user" else _NO_RATINGS
        features = described_rows(fitted, fitted.user_ids[place : place + 1], "user", None)
        return Person(row, factors.user_factors[place], float(factors.user_biases[place]), features), user_id

    def _newcomer(self, fitted: Fitted, user: Any, interactions: Any, features: Any) -> tuple[Person, int | str]:
        """Return a user of ratings or features, folded in, and the id."""
        ratings, given = described_too(interactions, features, "user", fitted)
        where = named("features") if interactions is None else named("interactions")
        place = _place_of(ratings.user_ids, user, "user", where)
        people, places = self._newcomers(fitted, ratings, given), np.array([place], np.int32)
        factors, biases = people.terms(places)
        row = take_ratings(people.rows, places) if factors.shape[1] else _NO_RATINGS
        described = described_rows(fitted, people.ids[place : place + 1], "user", given)
        return Person(row, factors[0], float(biases[0]), described), people.ids[place].as_py()


def _place_of(vocabulary: pa.Array, given: Any, name: str, where: str) -> int:
    """Return the index of one id.

    Raises
    ------
    ParameterError, DataError, UnknownIdError
        If it is not one id, is of another type, or is not there.
    """
    places = ids.look_up(vocabulary, given, name)
    if len(places) != 1:
        raise ParameterError(f"{named(name)} has {len(places)} ids; expected one: a prediction is explained by itself")
    if places[0] < 0:
        raise UnknownIdError(f"{named(name)} {given!r} is unknown; expected one of the {len(vocabulary):,} of {where}")
    return int(places[0])


def _training_row(fitted: Fitted, place: int, user_id: int | str) -> CSR:
    """Return the training ratings of a user; none where there are no factors, which they would explain.

    Raises
    ------
    ModelError
        If the model lacks them.
    """
    has_none = fitted.counts.are_known and fitted.seen.indptr[place] == fitted.seen.indptr[place + 1]
    if fitted.factors.user_factors.shape[1] == 0 or has_none:
        return _NO_RATINGS
    if fitted.values is None or not fitted.counts.are_known:
        lacks = "was saved without its training ratings" if fitted.counts.are_known else "has no training ratings"
        raise ModelError(
            f"the model {lacks}, by which the predictions of user {user_id!r} are explained; give the ratings of the "
            f"user as {named('interactions')}, or train again"
        )
    return take_ratings(CSR(*fitted.seen, fitted.values), np.array([place], np.int32))


def _terms(fitted: Fitted, person: Person, item: int, split: Split) -> tuple[Term, ...]:
    """Return the terms of a score, the remainder included."""
    factors = fitted.factors
    constants = {MEAN: float(factors.global_mean), USER_BIAS: person.bias, ITEM_BIAS: float(factors.item_biases[item])}
    product = float(person.factors.astype(np.float64) @ factors.item_factors[item].astype(np.float64))
    others = dict(split.others)
    explained = [*split.of_ratings.tolist(), *split.of_features.values(), *others.values()]
    others[REMAINDER] = product - math.fsum(explained)
    features = sorted(split.of_features.items(), key=lambda feature: -abs(feature[1]))
    order = np.argsort(-np.abs(split.of_ratings), kind="stable")
    rated = fitted.item_ids.take(pa.array(person.row.indices[order])).to_pylist()
    values, contributions = person.row.values[order].tolist(), split.of_ratings[order].tolist()
    return (
        *(Term(kind, None, None, value) for kind, value in constants.items() if value),
        *(Term(RATING, *rating) for rating in zip(rated, values, contributions, strict=True)),
        *(Term(FEATURE, None, None, value, feature) for feature, value in features),
        *(Term(kind, None, None, value) for kind, value in others.items() if value),
    )


def _through(link: Link, score: float) -> float:
    """Return the prediction of a score."""
    if link.span == 0:
        return score
    share = math.exp(-np.logaddexp(0, -score))
    return float(link.low) + float(link.span) * share
