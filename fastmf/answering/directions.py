"""Vectors of length 1 of all items, whose products say how similar items are."""

import numpy as np
import pyarrow as pa

from fastmf.answering.categories import rows_of
from fastmf.answering.fitted import Fitted
from fastmf.errors import ParameterError, named
from fastmf.reading.features import Features
from fastmf.reading.sparse_rows import lengths_of_rows
from fastmf_kernels._types import Float32Array
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.rerank.arrays import Directions, no_directions


def directions_of_factors(fitted: Fitted | None) -> Directions:
    """Return the item factors, scaled to length 1: their products are cosines. Factors of 0 stay 0.

    Raises
    ------
    ParameterError
        If there are no factors.
    """
    if fitted is None:
        raise ParameterError(
            f"{named('diversify')} compares items by their factors; expected the {named('model')} that the "
            "recommendations are from"
        )
    if fitted.factors.item_factors.shape[1] == 0:
        raise ParameterError(
            f"{named('diversify')} compares items by their factors, and this model has none; expected a model of "
            "factors"
        )
    return no_directions(fitted.n_items)._replace(
        dense=fitted.kept(("lengths of item factors are 1",), lambda: _of_length_1(fitted.factors.item_factors))
    )


def directions_of_features(features: Features, item_ids: pa.Array) -> Directions:
    """Return the categories of items, scaled to length 1: their products are cosines. Items without any stay 0.

    Numeric columns are left out: they have no common scale.

    Raises
    ------
    ParameterError
        If all columns are numeric.
    DataError
        If not one of the items has features.
    """
    if features.is_numeric.all():
        raise ParameterError(
            f"{named('item_features')} have numeric columns only, which no similarity is made of; expected categories "
            f'or tags, or {named("similarity")}="factors"'
        )
    rows = rows_of(features, item_ids)
    values = np.where(features.is_numeric[rows.indices], 0, rows.values).astype(np.float64)
    lengths = lengths_of_rows(CSR(rows.indptr, rows.indices, values.astype(np.float32)))
    scaled = values / np.maximum(lengths, np.finfo(np.float64).tiny)[rows.row_of_each_entry()]
    sparse = CSR(rows.indptr, rows.indices, scaled.astype(np.float32))
    return no_directions(len(item_ids))._replace(sparse=sparse, n_columns=features.n_features)


def _of_length_1(factors: Float32Array) -> Float32Array:
    # Squares of large factors are beyond float32.
    norms = np.sqrt(np.einsum("nf,nf->n", factors, factors, dtype=np.float64))[:, np.newaxis]
    return np.asarray(np.divide(factors, norms, out=np.zeros_like(factors), where=norms > 0, casting="same_kind"))
