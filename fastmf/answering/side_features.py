"""What a fitted model knows of the features of its users or items, and the linear map to prior means of factors."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastmf.reading.features import Features
from fastmf.reading.sparse_rows import lengths_of_rows, moments_of_columns, rows_from_entries, take_rows
from fastmf_kernels._types import BoolArray, Float32Array, Int32Array
from fastmf_kernels.layout.arrays import CSR

# From this r on, rows keep the L2 strength that they have without features; for a smaller r it falls in proportion.
_PULLED_FULLY = 3.0
_LARGEST = float(np.finfo(np.float32).max)


class Columns(NamedTuple):
    """The columns that features are encoded in; a constant column of 1, the intercept, follows them.

    Attributes
    ----------
    names : Arrow array of string, length n_features
    centers, scales : float32 arrays, shape (n_features,)
        A numeric value v becomes (v - center)·scale, and the values of the described rows of a fit get mean 0 and
        variance 1; a missing one becomes 0. Other columns stay as they are: center 0, scale 1.
    """

    names: pa.Array
    centers: Float32Array
    scales: Float32Array

    @classmethod
    def of(cls, features: Features) -> "Columns":
        """Return the columns of features, standardised by their own means and deviations."""
        means, deviations = moments_of_columns(features.rows, features.n_features)
        scales = np.divide(1, deviations, out=np.ones(features.n_features), where=deviations > 1 / _LARGEST)
        return cls(
            pa.array(features.names, pa.large_string()),
            np.where(features.is_numeric, means, 0).astype(np.float32),
            np.where(features.is_numeric, scales, 1).astype(np.float32),
        )

    def encode(self, features: Features) -> tuple[CSR, int]:
        """Return features as rows x of length 1 in these columns and the intercept; of unknown ones alone, no row.

        Returns
        -------
        CSR
            A row for each id of ``features``.
        int
            How many entries were left out, because their feature is none of the columns.
        """
        matched, n_unknown = features.in_columns(self.names.to_pylist())
        columns = matched.indices
        # Differences of float32 numbers can be beyond float32, and so can new values in units of the deviation.
        values = (matched.values.astype(np.float64) - self.centers[columns]) * self.scales[columns]
        values = np.clip(values, -_LARGEST, _LARGEST)
        rows, n_rows = matched.row_of_each_entry(), len(features)
        described = np.flatnonzero(np.diff(matched.indptr))
        entries = rows_from_entries(
            np.concatenate([rows, described]).astype(np.int32),
            np.concatenate([columns, np.full(len(described), len(self.names))]).astype(np.int32),
            np.concatenate([values, np.ones(len(described))]).astype(np.float32),
            (n_rows, len(self.names) + 1),
        )
        lengths = lengths_of_rows(entries)[entries.row_of_each_entry()]
        return entries._replace(values=(entries.values / lengths).astype(np.float32)), n_unknown


class Prior(NamedTuple):
    """What some rows are pulled to.

    Attributes
    ----------
    means : float32 array, shape (n_rows, n_terms)
        m; 0 for a row without features.
    pull : float
        What the L2 strengths of the rows are multiplied by.
    """

    means: Float32Array
    pull: float

    def take(self, rows: Int32Array) -> "Prior":
        """Return the prior of some rows."""
        return Prior(self.means[rows], self.pull)


class SideFeatures(NamedTuple):
    """The features of the users, or of the items, of a model.

    Attributes
    ----------
    columns : Columns
    rows : CSR
        x of each user (or item), as `Columns.encode` gives it; empty for those without features.
    weights : float32 array, shape (n_features + 1, n_terms)
        W: prior means are Wᵀx. The last row is that of the intercept; terms are the factors, and the bias in the unit
        of the model if it has biases.
    pull : float
        What the L2 strength of all rows of the side is multiplied by: above 0, at most 1.
    """

    columns: Columns
    rows: CSR
    weights: Float32Array
    pull: float

    @property
    def are_described(self) -> BoolArray:
        """Whether a user (or item) has features."""
        return np.asarray(np.diff(self.rows.indptr) > 0)

    def take(self, positions: Int32Array | npt.NDArray[np.int64]) -> "SideFeatures":
        """Return the features of users (or items) in another order; -1 stands for one without features."""
        return self._replace(rows=take_rows(self.rows, np.asarray(positions, np.int32)))

    def pulled_by(self, regularization: float) -> "SideFeatures":
        """Return the same features, whose rows are pulled as the strength r of their map says: min(1, r/3)."""
        return self._replace(pull=min(1.0, regularization / _PULLED_FULLY))

    def prior(self, rows: CSR) -> Prior:
        """Return what rows of features are pulled to."""
        return Prior(multiply(rows, self.weights), self.pull)


def multiply(rows: CSR, table: Float32Array) -> Float32Array:
    """Return XT of sparse rows X and a dense table T, float32; a row does not depend on the others."""
    import scipy.sparse  # takes longer to import than all of fastmf

    indptr, indices, values = rows
    matrix = scipy.sparse.csr_array((values, indices, indptr), shape=(len(indptr) - 1, len(table)))
    return np.asarray(matrix @ table, np.float32)
