"""Top-k on plain arrays: the scoring kernel for services."""

import operator

import numpy as np

from fastmf.answering.rows import sorted_rows
from fastmf.backend import Kernels, as_float32, get_backend, to_kind_of
from fastmf.common.arrays import as_plain_array
from fastmf.common.parameters import require_integer
from fastmf.errors import ParameterError, named
from fastmf_kernels._types import Float32Array, Int32Array, Int64Array
from fastmf_kernels.topk.arrays import ItemIndex, Rows, TopK, no_rows, without_layout

# Up to so many queries are answered sooner than items are laid out.
MOST_QUERIES_WITHOUT_INDEX = 8
# The largest k; with more items than this, k may be as large as their number.
_MOST_PLACES = 1 << 20


def index_items(
    items: Float32Array, *, pruning: bool = True, backend: str = "cpu", n_threads: int | None = None
) -> ItemIndex:
    """Lay items out once for many calls of `top_k`.

    Parameters
    ----------
    items : float32 array, shape (n_items, n_factors)
    pruning : bool
        Whether items that cannot be among the best may be left out before they are scored. The answers are the same.
    backend : {"cpu", "reference", "cuda"}
        That of the calls.
    n_threads : int, optional
        All cores if None.

    Returns
    -------
    ItemIndex
        What `top_k` takes in place of the items.

    Examples
    --------
    >>> import numpy as np, fastmf
    >>> index = fastmf.index_items(np.array([[1, 2], [3, 4]]))
    >>> fastmf.top_k(np.array([1, 0]), index, k=1).indices.tolist()
    [[1]]
    """
    factors = as_float32(items, "items", backend)
    if factors.ndim != 2:
        raise ParameterError(f"items have shape {factors.shape}; expected (n_items, n_factors)")
    require_threads(n_threads)
    return get_backend(backend).index_items(factors, _as_switch(pruning, "pruning"), n_threads)


def top_k(
    queries: Float32Array,
    items: Float32Array | ItemIndex,
    k: int,
    *,
    exclude: tuple[Int64Array, Int32Array] | None = None,
    pruning: bool = True,
    backend: str = "cpu",
    n_threads: int | None = None,
) -> TopK:
    """Find the k items with the largest dot product for every query, on plain arrays: the kernel for services.

    Safe to call from many threads; it releases the GIL, and a single query starts no parallel work.

    Parameters
    ----------
    queries : float32 array, shape (n_queries, n_factors) or (n_factors,)
        For "cuda" also on the GPU (``__cuda_array_interface__``, DLPack), as are the answers then; likewise items.
    items : float32 array, shape (n_items, n_factors), or ItemIndex
        What `index_items` has made of them is several times as fast for few queries.
    k : int
        At least 1; it may be larger than ``n_items``.
    exclude : (indptr, indices), optional
        Items not to return to query r: ``indices[indptr[r]:indptr[r + 1]]``.
    pruning : bool
        Whether items that cannot be among the best may be left out before they are scored. The answers are the same;
        with an `ItemIndex` it was settled there.
    backend : {"cpu", "reference", "cuda"}
    n_threads : int, optional
        All cores if None.

    Returns
    -------
    scores : float32 array, shape (n_queries, k)
        Summed in float64 and rounded once.
    indices : int32 array, shape (n_queries, k)
        Best first, of equal scores the lower index; -1, with score -inf, where there are no more candidates.

    Raises
    ------
    ParameterError
        If the widths differ, or an excluded index is not that of an item.

    Examples
    --------
    >>> import numpy as np, fastmf
    >>> scores, indices = fastmf.top_k(np.array([[1, 0]]), np.array([[1, 2], [3, 4]]), k=1)
    >>> int(indices[0, 0]), float(scores[0, 0])
    (1, 3.0)
    """
    given, kernels = queries, get_backend(backend)
    queries = np.atleast_2d(as_float32(queries, "queries", backend))
    factors = items.factors if isinstance(items, ItemIndex) else as_float32(items, "items", backend)
    if queries.ndim != 2 or factors.ndim != 2 or queries.shape[1] != factors.shape[1]:
        raise ParameterError(
            f"queries have shape {queries.shape} and items {factors.shape}; expected (n_queries, n_factors) and "
            "(n_items, n_factors), with the same n_factors"
        )
    _require_places(k, len(factors))
    require_threads(n_threads)
    pruning = _as_switch(pruning, "pruning")
    rows = no_rows(len(queries)) if exclude is None else _checked_rows(exclude, len(queries), len(factors))
    index = items if isinstance(items, ItemIndex) else index_for(len(queries), factors, kernels, n_threads, pruning)
    return to_kind_of(given, kernels.top_k(queries, index, int(k), rows, n_threads).top)


def index_for(
    n_queries: int, items: Float32Array, kernels: Kernels, n_threads: int | None, pruning: bool = True
) -> ItemIndex:
    """Lay items out, unless there are so few queries that answering them without takes less time."""
    if n_queries <= MOST_QUERIES_WITHOUT_INDEX:
        return without_layout(items)
    return kernels.index_items(items, pruning, n_threads)


def require_threads(n_threads: int | None) -> None:
    """Raise `ParameterError` unless this is a number of threads, or None."""
    if n_threads is not None:
        require_integer("n_threads", n_threads, minimum=1, otherwise="None for all cores")


def _as_switch(value: object, name: str) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise ParameterError(f"{name} is {value!r}; expected True or False")
    return bool(value)


def _require_places(k: object, n_items: int) -> None:
    require_integer("k", k, minimum=1)
    most = max(n_items, _MOST_PLACES)
    if operator.index(k) > most:  # type: ignore[arg-type]
        raise ParameterError(f"{named('k')} is {k}, but there are {n_items} items; expected at most {most}")


def _checked_rows(exclude: tuple[Int64Array, Int32Array], n_queries: int, n_items: int) -> Rows:
    if not (isinstance(exclude, (tuple, list)) and len(exclude) == 2):
        raise ParameterError(f"exclude is a {type(exclude).__name__}; expected (indptr, indices), as in a CSR matrix")
    given = [as_plain_array(part, "a part of exclude") for part in exclude]
    if any(part.ndim != 1 or (part.size and part.dtype.kind not in "iu") for part in given):
        raise ParameterError(
            f"exclude has an indptr of {given[0].dtype} {given[0].shape} and indices of {given[1].dtype} "
            f"{given[1].shape}; expected two integer arrays of one dimension"
        )
    indptr = given[0].astype(np.int64)
    indices = given[1].astype(np.int32 if given[1].dtype == np.int32 else np.int64, copy=False)
    valid_indptr = indptr.shape == (n_queries + 1,) and indptr[0] == 0 and indptr[-1] == len(indices)
    if not valid_indptr or np.any(np.diff(indptr) < 0):
        raise ParameterError(
            f"exclude has an indptr of shape {indptr.shape} for {n_queries} queries and {len(indices)} indices; "
            f"expected {n_queries + 1} offsets that rise from 0 to {len(indices)}"
        )
    if len(indices) and not (indices.min() >= 0 and indices.max() < n_items):
        raise ParameterError(
            f"exclude names items {indices.min()} to {indices.max()}; expected indices of the {n_items} items, from 0"
        )
    return sorted_rows(indptr, np.require(indices, requirements=["C", "A"]), n_items)
