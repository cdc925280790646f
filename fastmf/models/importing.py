"""Models of the library implicit to models of fastmf."""

import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastmf.answering.fitted import Fitted
from fastmf.common.files import expanded_path
from fastmf.errors import DataError, ModelError, OutputError, ParameterError, named
from fastmf.keeping.manifest import MANIFEST
from fastmf.keeping.regular_files import open_regular
from fastmf.models.base import Model
from fastmf.models.bpr import BPR
from fastmf.models.factor_model import FactorModel
from fastmf.models.implicit_als import ImplicitALS
from fastmf.models.sgd import SGD
from fastmf.reading import ids
from fastmf.reading.parquet import PathLike, open_dataset, read_column
from fastmf_kernels._types import Float32Array, Int32Array
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.topk.arrays import Rows

Arrays = dict[str, npt.NDArray[Any]]
_TABLES = ("user_factors", "item_factors")


class _Terms(NamedTuple):
    """A model of implicit in the terms of fastmf; biases are None where it has none."""

    model: FactorModel
    link: Link
    user_factors: Float32Array
    item_factors: Float32Array
    user_biases: Float32Array | None
    item_biases: Float32Array | None


def import_implicit(path: PathLike, user_ids: Any = None, item_ids: Any = None) -> Model:
    """Read a model that the library implicit has saved: its factors become a model that recommends the same.

    ``AlternatingLeastSquares`` becomes `ImplicitALS`, ``BayesianPersonalizedRanking`` becomes `BPR`, and
    ``LogisticMatrixFactorization`` becomes `SGD` with ``loss="logistic"``, whose scores are the sigmoid of those of
    implicit. (implicit 0.7; https://github.com/benfred/implicit)

    The file has no training ratings. So ``exclude="seen"`` leaves nothing out, nobody is cold, and the model cannot be
    trained further. A user without ratings, whose row of BPR or of the logistic model is 0, gets the items with the
    largest biases, where implicit gives any. `fold_in` and `recommend_for` take people that the model does not know,
    and minimise what the model of fastmf minimises: in `ImplicitALS` an observed cell weighs 1 + alpha·r, in implicit
    alpha·r; and L2 strengths of logistic models are counted by rating here, and by row there.

    Parameters
    ----------
    path : path-like
        What ``model.save(path)`` of implicit wrote, ``.npz``. Nothing in it can run code: pickled arrays are refused.
    user_ids, item_ids : array-like or path-like, optional
        The outside id of each row of the factors: integers or text, or a Parquet file with them in the column
        ``user_id`` (``item_id``), or in its only column. None: 0, 1, 2, ...

    Returns
    -------
    Model

    Raises
    ------
    ModelError
        If the file is not such a model, or is damaged.
    DataError
        If there are not as many ids as rows, or one comes up twice.

    Examples
    --------
    >>> import fastmf
    >>> import numpy as np
    >>> np.savez("als.npz", user_factors=np.eye(2, dtype="f4"), item_factors=np.eye(2, dtype="f4"), factors=2,
    ...     regularization=0.01, iterations=15, use_cg=True, dtype="float32", alpha=1.0)
    >>> model = fastmf.import_implicit("als.npz", item_ids=["tea", "cake"])
    >>> model.recommend([1], k=1).to_arrow()["item_id"].to_pylist()
    ['cake']
    """
    try:
        file = expanded_path(path)
    except OutputError as error:
        raise ModelError(f"no model at {path}: {error}") from None
    arrays = _read_npz(file)
    terms = _terms_of(file, arrays)
    users = _read_ids(user_ids, "user", len(terms.user_factors))
    items = _read_ids(item_ids, "item", len(terms.item_factors))
    factors = Factors(
        _sorted(terms.user_factors, users.places),
        _sorted(terms.item_factors, items.places),
        _sorted(_or_zeros(terms.user_biases, len(users.ids)), users.places),
        _sorted(_or_zeros(terms.item_biases, len(items.ids)), items.places),
        np.float32(0),
    )
    seen = Rows(np.zeros(len(users.ids) + 1, np.int64), np.empty(0, np.int32))
    data = {
        "n_users": len(users.ids),
        "n_items": len(items.ids),
        "n_ratings": 0,
        "source": f"{file.name}, a model of the library implicit",
    }
    trained_with = terms.model._trained_with({})
    fitted = Fitted(factors, terms.link, users.ids, items.ids, seen, data, {}, trained_with)
    terms.model.restore(fitted, [])
    return terms.model


def _read_npz(path: Path) -> Arrays:
    """Read the arrays of an .npz file, whose sizes are those of the file, whatever their headers claim."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            n_bytes = os.fstat(file.fileno()).st_size
            return {
                member.filename.removesuffix(".npy"): _read_array(path, archive, member, n_bytes)
                for member in archive.infolist()
            }
    except (ModelError, IsADirectoryError, PermissionError):  # Windows has no other error for a directory
        if path.is_dir():
            what = "fastmf model" if (path / MANIFEST).exists() else "directory"
            raise ModelError(f"{path} is a {what}; expected a file that implicit's save wrote") from None
        raise
    except FileNotFoundError:
        raise ModelError(f"no such file: {path}; expected what model.save of the library implicit wrote") from None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise _no_model(path, error) from error


def _read_array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, n_bytes: int) -> npt.NDArray[Any]:
    """Read an array, unless its header claims more bytes than there are: NumPy would allocate them."""
    if member.compress_type != zipfile.ZIP_STORED:
        raise _no_model(path, f"{member.filename} is compressed, and implicit does not compress")
    if member.file_size > n_bytes:
        raise _no_model(path, f"{member.filename} claims {member.file_size:,} bytes of {n_bytes:,}")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise _no_model(path, f"{member.filename} is of format {version}")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        n_elements = 1
        for length in shape:
            n_elements *= int(length)
        if dtype.hasobject or file.tell() + n_elements * dtype.itemsize != member.file_size:
            raise _no_model(path, f"{member.filename} is not as long as its header says, or holds objects")
    with archive.open(member) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def _no_model(path: Path, reason: object) -> ModelError:
    return ModelError(
        f"{path} is not what model.save of the library implicit writes ({reason}); expected its .npz of "
        "AlternatingLeastSquares, BayesianPersonalizedRanking or LogisticMatrixFactorization"
    )


def _terms_of(path: Path, arrays: Arrays) -> _Terms:
    """Tell the kind of model by what only it has, and take its arrays apart."""
    for name in (*_TABLES, "factors"):
        if name not in arrays:
            raise _no_model(path, f"it has no {name!r}, but {', '.join(sorted(arrays)[:12]) or 'nothing'}")
    users, items = (_table(path, name, arrays[name]) for name in _TABLES)
    n_factors = int(_scalar(path, arrays, "factors", 0))
    n_extra = users.shape[1] - n_factors
    if users.shape[1] != items.shape[1] or n_factors < 1:
        shapes = f"{users.shape} and {items.shape}, with {n_factors} factors"
        raise _no_model(path, f"its tables are of shape {shapes}")
    if "neg_prop" in arrays:
        kind, expected, make = "a logistic model", 2, _logistic_terms
    elif "verify_negative_samples" in arrays:
        kind, expected, make = "BPR", 1, _bpr_terms
    elif "use_cg" in arrays or "alpha" in arrays:
        kind, expected, make = "ALS", 0, _als_terms
    else:
        raise _no_model(path, f"it is none of the three models: {', '.join(sorted(arrays)[:12])}")
    if n_extra != expected:
        raise _no_model(path, f"{kind} has {n_factors} + {expected} columns, and this one {users.shape[1]}")
    try:
        return make(path, arrays, users, items)
    except ParameterError as error:
        raise _no_model(path, error) from error


def _als_terms(path: Path, arrays: Arrays, users: Float32Array, items: Float32Array) -> _Terms:
    # implicit weighs observed cells by alpha·r, and fastmf by 1 + alpha·r, where both weigh others by 1.
    model = ImplicitALS(weighting="hu", alpha=_scalar(path, arrays, "alpha", 1.0), **_common(path, arrays))
    return _Terms(model, _no_link(), users, items, None, None)


def _bpr_terms(path: Path, arrays: Arrays, users: Float32Array, items: Float32Array) -> _Terms:
    _require_ones(path, "user_factors", users, -1)
    model = BPR(learning_rate=_scalar(path, arrays, "learning_rate", 0.01), **_common(path, arrays))
    return _Terms(model, _no_link(), users[:, :-1], items[:, :-1], None, items[:, -1])


def _logistic_terms(path: Path, arrays: Arrays, users: Float32Array, items: Float32Array) -> _Terms:
    _require_ones(path, "user_factors", users, -2)
    _require_ones(path, "item_factors", items, -1)
    n_negatives = max(1, int(_scalar(path, arrays, "neg_prop", 30)))
    rate = _scalar(path, arrays, "learning_rate", 1.0)
    model = SGD(loss="logistic", n_negatives=n_negatives, learning_rate=rate, **_common(path, arrays))
    link = Link(np.float32(0), np.float32(1))
    return _Terms(model, link, users[:, :-2], items[:, :-2], users[:, -1], items[:, -2])


def _no_link() -> Link:
    return Link(np.float32(0), np.float32(0))


def _common(path: Path, arrays: Arrays) -> dict[str, Any]:
    """Return the parameters that all models have."""
    return {
        "n_factors": int(_scalar(path, arrays, "factors", 0)),
        "n_epochs": max(1, int(_scalar(path, arrays, "iterations", 1))),
        "regularization": _scalar(path, arrays, "regularization", 0.01),
    }


def _scalar(path: Path, arrays: Arrays, name: str, default: float) -> float:
    value = arrays.get(name, np.float64(default))
    if value.shape != () or value.dtype.kind not in "fiub" or not np.isfinite(value):
        raise _no_model(path, f"{name} is {str(value)[:80]}; expected a finite number")
    return float(value)


def _table(path: Path, name: str, array: npt.NDArray[Any]) -> Float32Array:
    if array.ndim != 2 or array.dtype.kind != "f" or not len(array):
        raise _no_model(path, f"{name} is {array.dtype} of shape {array.shape}; expected a table of floats")
    with np.errstate(over="ignore"):
        table = array.astype(np.float32)
    if not np.isfinite(table).all():
        raise _no_model(path, f"{name} has numbers that are not finite in float32")
    return table


def _require_ones(path: Path, name: str, table: Float32Array, column: int) -> None:
    """Check that a column multiplies biases; implicit sets rows of users and items without ratings to 0."""
    factor = table[:, column]
    if not ((factor == 1) | ~table.any(axis=1)).all():
        raise _no_model(path, f"column {column} of {name} is not 1, as it is beside a bias")


class _Order(NamedTuple):
    """Ids in ascending order, and the place of each row among them; None if they are in order as they come."""

    ids: pa.Array
    places: Int32Array | None


def _read_ids(given: Any, side: str, n_rows: int) -> _Order:
    if given is None:
        return _Order(pa.array(np.arange(n_rows, dtype=np.int64)), None)
    column = f"{side}_id"
    values = (
        _ids_in_parquet(given, column) if isinstance(given, (str, os.PathLike)) else ids.to_arrow(given, f"{side}_ids")
    )
    if len(values) != n_rows:
        raise DataError(
            f"{named(f'{side}_ids')} has {len(values):,} ids, and the model {n_rows:,} {side}s; expected one for each, "
            "in the order of their rows"
        )
    places, vocabulary = ids.encode(values, column)
    if len(vocabulary) != n_rows:
        double = vocabulary[int(np.argmax(np.bincount(places)))]
        raise DataError(f"{named(f'{side}_ids')} has {double} twice; expected each id once")
    return _Order(vocabulary, places)


def _ids_in_parquet(path: PathLike, column: str) -> pa.ChunkedArray:
    dataset = open_dataset(path)
    names = dataset.schema.names
    return read_column(dataset, names[0] if len(names) == 1 else column)


def _sorted(array: Float32Array, places: Int32Array | None) -> Float32Array:
    if places is None:
        return np.ascontiguousarray(array)
    target = np.empty(array.shape, np.float32)
    target[places] = array
    return target


def _or_zeros(biases: Float32Array | None, n: int) -> Float32Array:
    return np.zeros(n, np.float32) if biases is None else biases
