"""Models as estimators of scikit-learn, on pairs of a user and an item: for its searches, pipelines and scorers.

A search of scikit-learn takes a model of fastmf as it is, too: ``GridSearchCV(fastmf.ALS(), ...).fit(table)`` splits a
table of ratings by its rows. The estimators here are for code that has pairs ``X`` apart from ratings ``y``. They need
scikit-learn: ``pip install "fastmf[sklearn]"``.
"""

from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastmf.common.arrays import as_plain_array
from fastmf.errors import DataError, ParameterError, named
from fastmf.models import Model
from fastmf.reading.interactions import Interactions
from fastmf.reading.tables import as_table, is_table
from fastmf_kernels._types import Float32Array

try:
    from sklearn.base import BaseEstimator, RegressorMixin, clone
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise ImportError(
        f'fastmf.sklearn needs scikit-learn: {error}; install it with pip install "fastmf[sklearn]"'
    ) from error

__all__ = ["ItemRanker", "RatingRegressor"]


class _Pairs(NamedTuple):
    """The columns of ``X``.

    Attributes
    ----------
    users, items : array-like of ids, shape (n,)
    times : array-like or None, shape (n,)
    """

    users: Any
    items: Any
    times: Any = None


class _PairEstimator(BaseEstimator):  # type: ignore[misc]
    """Base of the estimators: `fit` and `predict` of a model on pairs."""

    def __init__(self, model: Any, *, duplicates: str = "error") -> None:
        self.model = model
        self.duplicates = duplicates

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803
        """Train a copy of the model.

        Parameters
        ----------
        X : array-like or table, shape (n, 2) or (n, 3)
            A user id, an item id and, where there is a third column, a time in each row. A table, of pyarrow, pandas
            or polars, has these columns in this order, whatever their names.
        y : array-like of float, shape (n,), optional
            Ratings, counts or amounts. None: all 1.

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            If ``model`` is no model of fastmf.
        DataError
            If ``X`` has another number of columns, or the ratings do not suit the model.
        """
        if not isinstance(self.model, Model) or self.model.is_implicit is not self._is_implicit:
            raise ParameterError(f"{named('model')} is {_in_words(self.model)}; expected {self._expected}")
        ratings = self._ratings(X, y)
        self.model_ = clone(self.model).fit(ratings)
        self.n_features_in_ = sum(column is not None for column in _columns(X))
        return self

    def predict(self, X: Any) -> Float32Array:  # noqa: N803
        """Predict the rating, or the preference, of each pair.

        Parameters
        ----------
        X : array-like or table, shape (n, 2) or (n, 3)
            As in `fit`. Times are not used. Of an unknown user or item, the prediction has neither bias nor factors.

        Returns
        -------
        float32 array, shape (n,)
        """
        check_is_fitted(self)
        pairs = _columns(X)
        predicted: Float32Array = self.model_.predict(pairs.users, pairs.items)
        return predicted

    def _ratings(self, X: Any, y: Any) -> Interactions:  # noqa: N803
        pairs = _columns(X)
        ratings = None if y is None else as_plain_array(y, "y")
        return Interactions.from_arrays(pairs.users, pairs.items, ratings, pairs.times, duplicates=self.duplicates)

    _is_implicit = False
    _expected = ""


class RatingRegressor(RegressorMixin, _PairEstimator):  # type: ignore[misc]
    """A model of ratings as a regressor: ``X`` are pairs of a user and an item, ``y`` their ratings.

    `score` is R² on the ratings, as scikit-learn has it; its other scorers of regressors work as well, such as
    ``scoring="neg_root_mean_squared_error"``.

    Parameters
    ----------
    model : fastmf.ALS, SGD, SVDpp or Bias
        It stays as it is; `fit` trains a copy, ``model_``. Its parameters are those of the estimator that start with
        ``model__``: ``model__n_factors``.
    duplicates : {"error", "first", "last", "mean", "sum"}
        What to do with a pair that occurs more than once: resampling with replacement repeats pairs.

    Attributes
    ----------
    model_ : the fitted model
    n_features_in_ : int
        Columns of ``X``.

    Examples
    --------
    >>> import fastmf
    >>> from fastmf.sklearn import RatingRegressor
    >>> table = fastmf.testing.low_rank(n_users=50, n_items=20, density=0.5, seed=0).to_arrow()
    >>> X, y = table.select(["user_id", "item_id"]), table["rating"].to_numpy()
    >>> regressor = RatingRegressor(fastmf.ALS(n_factors=2)).set_params(model__n_factors=3).fit(X, y)
    >>> regressor.model_.n_factors, regressor.score(X, y) > 0.5
    (3, True)
    """

    _expected = "a model of ratings, such as fastmf.ALS() or fastmf.SGD(); for an implicit one take ItemRanker"


class ItemRanker(_PairEstimator):
    """An implicit model as an estimator: ``X`` are pairs of a user and an item that were chosen, ``y`` may be None.

    Parameters
    ----------
    model : fastmf.ImplicitALS, BPR or Popularity, or SGD with ``loss="logistic"``
        It stays as it is; `fit` trains a copy, ``model_``. Its parameters are those of the estimator that start with
        ``model__``: ``model__n_factors``.
    duplicates : {"error", "first", "last", "mean", "sum"}
        What to do with a pair that occurs more than once: "sum" counts clicks.

    Attributes
    ----------
    model_ : the fitted model
    n_features_in_ : int
        Columns of ``X``.

    Examples
    --------
    >>> import fastmf
    >>> from fastmf.sklearn import ItemRanker
    >>> clicks = [("ann", "tea"), ("ann", "milk"), ("bob", "tea"), ("bob", "milk"), ("eve", "rum")]
    >>> ranker = ItemRanker(fastmf.ImplicitALS(n_factors=2, n_epochs=5)).fit(clicks)
    >>> len(ranker.predict([("ann", "rum"), ("eve", "tea")]))
    2
    """

    _is_implicit = True
    _expected = "an implicit model, such as fastmf.ImplicitALS(); for a model of ratings take RatingRegressor"

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803
        """Return nDCG@10 of the pairs ``X``, the items of the training pairs being left out.

        Parameters
        ----------
        X : array-like or table, shape (n, 2) or (n, 3)
            As in `fit`.
        y : array-like of float, shape (n,), optional
            As in `fit`.

        Returns
        -------
        float
            NaN if the model knows none of the users.
        """
        check_is_fitted(self)
        return float(self.model_.score(self._ratings(X, y)))


def _columns(X: Any) -> _Pairs:  # noqa: N803
    """Take pairs apart.

    Raises
    ------
    DataError
        If there are not two or three columns.
    """
    columns = as_table(X, _names(X)).columns if is_table(X) else _columns_of_rows(X)
    if len(columns) not in (2, 3):
        raise DataError(f"X has {len(columns)} columns; expected two, a user id and an item id, or three with a time")
    return _Pairs(*columns)


def _names(table: Any) -> list[Any]:
    """Return the names of the columns of a table of any library, in their order."""
    if hasattr(table, "collect_schema"):  # polars
        return list(table.collect_schema().names())
    if hasattr(table, "iloc"):  # pandas
        return list(table.columns)
    return list(table.schema.names if hasattr(table, "schema") else pa.table(table).column_names)


def _columns_of_rows(X: Any) -> list[Any]:  # noqa: N803
    # A list that has numbers and text would become text as an array: its values stay as they are.
    rows = X if isinstance(X, np.ndarray) else _as_objects(X)
    if rows.ndim != 2:
        raise DataError(f"X has {rows.ndim} dimension{'s' * (rows.ndim != 1)}; expected rows of a user and an item id")
    return [column.tolist() if rows.dtype == object else column for column in rows.T]


def _as_objects(X: Any) -> npt.NDArray[Any]:  # noqa: N803
    try:
        return np.array([tuple(row) for row in X], dtype=object)
    except (TypeError, ValueError) as error:
        raise DataError(f"X is a {type(X).__name__}; expected rows of a user id and an item id ({error})") from error


def _in_words(model: Any) -> str:
    return f"{type(model).__name__}()" if isinstance(model, Model) else f"a {type(model).__name__}"
