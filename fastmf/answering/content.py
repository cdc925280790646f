"""Neighbours by features: what is alike by its genres or tags, without any model."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from fastmf.answering.answers import Similar, empty_top
from fastmf.answering.asked import listed, read_once
from fastmf.common.parameters import require_choice, require_integer, require_truth
from fastmf.errors import ParameterError, named
from fastmf.reading import ids as vocabularies
from fastmf.reading.features import Features
from fastmf.reading.sparse_rows import moments_of_columns
from fastmf_kernels._types import BoolArray, Float64Array, Int32Array
from fastmf_kernels.topk.arrays import TopK

if TYPE_CHECKING:
    import scipy.sparse

# Cosines that are in memory at once.
_CELLS = 1 << 22


class _Asked(NamedTuple):
    """Whose neighbours are wanted, how many, and who they may be.

    Attributes
    ----------
    rows : int32 array
        Rows of the features.
    k : int
    is_candidate : bool array, shape (n_ids,)
    """

    rows: Int32Array
    k: int
    is_candidate: BoolArray


def similar_by_features(
    features: Features,
    ids: Any,
    k: int = 10,
    *,
    side: str = "item",
    idf: bool = False,
    allow: Iterable[Any] | None = None,
    deny: Iterable[Any] | None = None,
) -> Similar:
    """Find the k items (or users) whose features have the largest cosine with those of an item, itself left out.

    It needs no ratings: an item that nobody has rated yet has neighbours by its genres, tags or year. Numeric columns
    are standardised, (x - mean)/deviation over the ids that have a value, and a missing value counts as the mean.

    Parameters
    ----------
    features : Features
    ids : id or array-like of ids
    k : int
        Less than the number of ids with features.
    side : {"item", "user"}
        What the ids are of.
    idf : bool
        Whether the other columns are weighted by ln(n/n_f) for n ids, n_f of which have the feature f: what few items
        share says more (inverse document frequency: Spärck Jones, "A Statistical Interpretation of Term Specificity and
        its Application in Retrieval", Journal of Documentation 28(1), 1972). A feature that all have counts nothing.
    allow, deny : iterable of ids, optional
        Items that alone may, or may not, be returned. Ids without features cannot match.

    Returns
    -------
    Similar
        Nearest first; of equally near ones the one with the lower id. Only items that have a feature in common are
        neighbours. ``n_cold`` counts the items whose features all weigh 0, so that they have no neighbours.

    Raises
    ------
    UnknownIdError, DataError
        If there are no features of an id; if ids are of another type than those of the features.
    ParameterError
        If a parameter is not valid.

    Examples
    --------
    >>> import fastmf, pyarrow
    >>> table = pyarrow.table({"item_id": [1, 2, 3], "genres": ["Drama|War", "Comedy", "War"]})
    >>> fastmf.similar_by_features(fastmf.Features.from_arrow(table), 1, k=2).to_arrow()["similar_item_id"].to_pylist()
    [3]
    """
    if not isinstance(features, Features):
        raise ParameterError(
            f"{named('features')} is a {type(features).__name__}; expected Features, as Features.from_parquet and "
            "Features.from_arrow return them"
        )
    require_integer("k", k, minimum=1)
    require_choice("side", side, ("item", "user"))
    require_truth("idf", idf)
    if k >= len(features):
        raise ParameterError(f"{named('k')} is {k}, but {len(features)} ids have features; expected fewer than that")
    rows = vocabularies.require_known(
        features.ids, read_once(ids), "ids", "the features", "ids that have a row in them"
    )
    is_candidate = np.ones(len(features), np.bool_)
    allowed = listed(features.ids, allow, "allow", f"a list of {side} ids")
    if allowed is not None:
        is_candidate[:] = False
        is_candidate[allowed] = True
    denied = listed(features.ids, deny, "deny", f"a list of {side} ids")
    if denied is not None:
        is_candidate[denied] = False
    directions = _directions(features, bool(idf))
    n_cold = int(np.count_nonzero(np.diff(directions.indptr)[rows] == 0))
    top = _nearest(directions, _Asked(rows, int(k), is_candidate))
    return Similar(features.ids.take(pa.array(rows)), top.indices, top.scores, features.ids, side, n_cold)


def _directions(features: Features, idf: bool) -> "scipy.sparse.csr_array":
    """Return the features of each id, weighted, as rows of length 1; without entries where all weights are 0."""
    import scipy.sparse

    indptr, columns, values = features.rows
    weights, n = values.astype(np.float64), features.n_features
    is_number = features.is_numeric[columns]
    means, deviations = moments_of_columns(features.rows, n)
    scales = np.where(deviations > 0, deviations, np.inf)[columns]
    weights = np.where(is_number, (weights - means[columns]) / scales, weights)
    if idf:
        n_with = np.bincount(columns[values != 0], minlength=n)
        weights[~is_number] *= np.log(len(features) / np.maximum(n_with, 1))[columns[~is_number]]
    rows = np.repeat(np.arange(len(features)), np.diff(indptr))
    norms = np.sqrt(np.bincount(rows, weights**2, minlength=len(features)))
    weights /= np.where(norms > 0, norms, 1)[rows]
    counted = weights != 0
    return scipy.sparse.csr_array((weights[counted], (rows[counted], columns[counted])), shape=(len(features), n))


def _nearest(directions: "scipy.sparse.csr_array", asked: _Asked) -> TopK:
    """Return the candidates with the largest cosines, among those that have an entry in a column in common."""
    import scipy.sparse

    top = empty_top(len(asked.rows), asked.k)
    n = directions.shape[0]
    kept = np.flatnonzero(asked.is_candidate)
    others = scipy.sparse.csr_array(directions[kept].T)
    step = max(1, _CELLS // max(1, n))
    for start in range(0, len(asked.rows), step):
        products = scipy.sparse.csr_array(directions[asked.rows[start : start + step]] @ others)
        products.sort_indices()
        for row in range(products.shape[0]):
            entries = slice(products.indptr[row], products.indptr[row + 1])
            found, cosines = kept[products.indices[entries]], products.data[entries]
            is_other = found != asked.rows[start + row]
            best = _largest(cosines[is_other], asked.k)
            top.indices[start + row, : len(best)] = found[is_other][best]
            top.scores[start + row, : len(best)] = np.clip(cosines[is_other][best], -1, 1)
    return top


def _largest(values: Float64Array, k: int) -> Any:
    """Return the places of the k largest values, the largest first; of equal ones the first, up to rounding."""
    rounded = np.round(values, 12)
    if len(rounded) > k:
        last = np.partition(rounded, len(rounded) - k)[len(rounded) - k]
        near = np.flatnonzero(rounded >= last)
    else:
        near = np.arange(len(rounded))
    return near[np.argsort(-rounded[near], kind="stable")][:k]
