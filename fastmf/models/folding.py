"""New users or items in the terms of a fitted model: their ratings as rows of what the model knows."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from fastmf.answering.fitted import Fitted
from fastmf.answering.rows import ratings_of_pairs
from fastmf.answering.side_features import Prior, SideFeatures
from fastmf.errors import DataError, ParameterError, named
from fastmf.reading import ids
from fastmf.reading.features import Features, as_features
from fastmf.reading.id_spaces import widened
from fastmf.reading.interactions import Interactions, as_interactions
from fastmf.reading.sparse_rows import stacked
from fastmf_kernels._types import Float32Array
from fastmf_kernels.layout.arrays import CSR

OBJECTIVE = "objective"
"""Name in `Fitted.trained_with` of the parameters that say what a fit has minimised, with the numbers that it chose."""


class FoldedIn(NamedTuple):
    """Users (or items) who were folded into a model.

    Attributes
    ----------
    ids : Arrow array, length n
        Their outside ids, ascending.
    factors : float32 array, shape (n, n_factors)
        0 for those of whom the model knows nothing.
    biases : float32 array, shape (n,)
    """

    ids: pa.Array
    factors: Float32Array
    biases: Float32Array


class Matched(NamedTuple):
    """The ratings of some users (or items), in the terms of a model.

    Attributes
    ----------
    ids : Arrow array, length n
        Outside ids of these users, ascending.
    rows : CSR
        The ratings of each, columns being items of the model that have training ratings, ascending.
    unknown : Arrow array
        Outside ids of the rated items that the model has no training ratings of, ascending.
    n_unknown_ratings : int
        How many ratings are of those.
    """

    ids: pa.Array
    rows: CSR
    unknown: pa.Array
    n_unknown_ratings: int


def objective(params: Mapping[str, Any], chosen: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return what a fit keeps of its parameters, so that rows that are folded in later are solved alike.

    Parameters
    ----------
    params : mapping of str to object
        All parameters of the model.
    chosen : mapping of str to object
        What the fit has chosen in their place.
    names : iterable of str
        The parameters that say what is minimised.
    """
    values = {**params, **chosen}
    return {OBJECTIVE: {name: values[name] for name in names}}


def objective_of(fitted: Fitted, params: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the parameters of the objective that a fit had, whatever was set since.

    Of a model that was saved before fits kept them, ``params`` are taken, with what its fit has chosen.
    """
    kept = fitted.trained_with.get(OBJECTIVE)
    values = {**params, **fitted.trained_with.get("chosen", {})}
    if isinstance(kept, Mapping):
        values |= kept
    return {name: values[name] for name in names}


def match(fitted: Fitted, ratings: Interactions, side: str) -> Matched:
    """Bring ratings of users (or of items, for the side "item") to the items (or users) of a model.

    Raises
    ------
    DataError
        If ids are integers on one side and strings on the other.
    """
    rows, columns, row_ids, column_ids = ratings.users, ratings.items, ratings.user_ids, ratings.item_ids
    known_ids, column, is_cold = fitted.item_ids, "item_ids", fitted.counts.is_cold_item
    if side == "item":
        rows, columns, row_ids, column_ids = columns, rows, column_ids, row_ids
        known_ids, column, is_cold = fitted.user_ids, "user_ids", fitted.counts.is_cold_user
    places = ids.look_up(known_ids, column_ids, column)
    places = np.where((places >= 0) & is_cold[places], -1, places)
    found = places[columns]
    kept = found >= 0
    made, values = ratings_of_pairs(rows[kept], found[kept], ratings.ratings[kept], len(row_ids), len(known_ids))
    unknown = column_ids.take(pa.array(np.unique(columns[~kept])))
    return Matched(row_ids, CSR(*made, values), unknown, int(np.count_nonzero(~kept)))


def described_too(interactions: Any, features: Any, side: str, fitted: Fitted) -> tuple[Interactions, Features | None]:
    """Return ratings whose users (or items) are also those of features, and the features.

    Parameters
    ----------
    interactions : Interactions, table, SciPy sparse matrix, or None
        None for no ratings, if there are features.
    features : Features, table, or None
    side : {"user", "item"}
        What the features are of.
    fitted : Fitted
        The model that they are for.

    Raises
    ------
    ParameterError, DataError
        If either is something else, or ids are of another type.
    """
    if features is None:
        return as_interactions(interactions, "interactions"), None
    given = as_features(features, "features", f"{side}_id")
    if interactions is None:
        nothing = np.zeros(0, np.int32)
        user_ids, item_ids = (given.ids, fitted.item_ids) if side == "user" else (fitted.user_ids, given.ids)
        return Interactions(nothing, nothing, np.zeros(0, np.float32), None, user_ids, item_ids), given
    ratings = as_interactions(interactions, "interactions")
    return widened(ratings, side, given.ids, named("features")), given


def prior_of(fitted: Fitted, row_ids: pa.Array, side: str, given: Features | None) -> Prior | None:
    """Return what users (or items) are pulled to; None in a model without features of this side.

    Parameters and errors are those of `features_of`.
    """
    known = features_of(fitted, row_ids, side, given)
    return None if known is None else known.prior(known.rows)


def features_of(
    fitted: Fitted, row_ids: pa.Array, side: str, given: Features | None, name: str = "features"
) -> SideFeatures | None:
    """Return the features of users (or items) for a model; None in a model without features of this side.

    Parameters
    ----------
    fitted : Fitted
    row_ids : Arrow array
        Their outside ids.
    side : {"user", "item"}
    given : Features or None
        What is known of some of them. The others have the features of the fit, if they were in it.
    name : str
        What ``given`` is called in errors.

    Raises
    ------
    ParameterError
        If features are given, and the model was trained without features of this side.
    """
    known = fitted.features.get(side)
    if known is None:
        if given is None:
            return None
        raise ParameterError(
            f"{named(name)} are given, but the model was trained without {side}_features; leave them out, or "
            f"train with fit(..., {side}_features=...)"
        )
    places = ids.look_up(fitted.user_ids if side == "user" else fitted.item_ids, row_ids, f"{side}_ids")
    if given is None:
        return known.take(places)
    rows, _ = known.columns.encode(given)
    both, new = stacked(known.rows, rows), given.positions(row_ids)
    return known._replace(rows=both).take(np.where(new >= 0, new + len(known.rows.indptr) - 1, places))


def described_rows(fitted: Fitted, row_ids: pa.Array, side: str, given: Features | None) -> CSR | None:
    """Return the features x of users (or items), as `SideFeatures.rows` has them.

    Parameters and errors are those of `features_of`.
    """
    known = features_of(fitted, row_ids, side, given)
    return None if known is None else known.rows


def finite(factors: Float32Array, biases: Float32Array, rows: CSR) -> tuple[Float32Array, Float32Array]:
    """Return the factors and biases of rows that were folded in.

    Raises
    ------
    DataError
        If the ratings of the rows, or their features, are so large that these are no float32 numbers.
    """
    if not (np.isfinite(factors).all() and np.isfinite(biases).all()):
        if not len(rows.values):
            raise DataError(
                f"the {named('features')} to fold in, without ratings, give factors that are no float32 numbers; "
                "expected features on the scale of those that the model was trained on"
            )
        largest = float(np.abs(rows.values).max())
        raise DataError(
            f"the largest of the ratings to fold in is {largest:g} in size, and gives factors that are no float32 "
            "numbers; expected ratings on the scale of those that the model was trained on"
        )
    return factors, biases
