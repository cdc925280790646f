"""A backend is a table of kernels. Models and scoring call kernels, and never ask where they run."""

import importlib
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, NamedTuple, NoReturn

import numpy as np

from fastmf.common.arrays import as_numbers
from fastmf.common.parameters import require_choice
from fastmf.errors import BackendError, ParameterError
from fastmf_kernels._types import BoolArray, Float32Array, Float64Array, Int32Array
from fastmf_kernels.als.arrays import HalfSweep, Solver, Table
from fastmf_kernels.fold_in.arrays import Descent, Draws, Fixed, Folded, Rivals
from fastmf_kernels.layout.arrays import CSR, Groups
from fastmf_kernels.negative_sampling.arrays import Ranked, Sampling
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.rerank.arrays import Caps, Directions, Exploration, Lists
from fastmf_kernels.sgd.arrays import RowSteps, Step, TrainingState
from fastmf_kernels.sgd.schedule import Blocks, Grid
from fastmf_kernels.svdpp.arrays import Implicit
from fastmf_kernels.topk.arrays import Counts, Found, ItemIndex, Pairs, Rows, TopK

BACKENDS = ("cpu", "reference", "cuda")
# Operations that the backend "cuda" runs on the host, and those that it lacks, with the models that need them.
_ON_THE_HOST = ("layout", "fold_in", "rerank")
_NOT_ON_CUDA = {"negative_sampling": "BPR and the logistic loss", "svdpp": "SVDpp"}


class Kernels(NamedTuple):
    """The kernels of one backend. Each stands beside its place: the operation, and the function of its variants.

    The contract of a kernel is in the ``reference.py`` of its operation. A new kernel is one line here.
    """

    name: str
    group_by: Annotated[Callable[[Int32Array, int, int | None], Groups], "layout.group_by"]
    coo_to_csr: Annotated[Callable[[Int32Array, Int32Array, Float32Array, int, int | None], CSR], "layout.coo_to_csr"]
    transpose: Annotated[Callable[[CSR, int, int | None], CSR], "layout.transpose"]
    predict_pairs: Annotated[
        Callable[[Int32Array, Int32Array, Factors, Link, int | None], Float32Array], "predict.predict_pairs"
    ]
    squared_error: Annotated[Callable[[CSR, Factors, Link, int | None], float], "predict.squared_error"]
    make_grid: Annotated[Callable[[int, int, int], Grid], "sgd.make_grid"]
    training_to_device: Annotated[Callable[[Blocks, Factors, RowSteps, str], TrainingState], "sgd.to_device"]
    training_to_host: Annotated[Callable[[TrainingState, Factors, RowSteps], None], "sgd.to_host"]
    run_epoch: Annotated[
        Callable[[Blocks, Int32Array, Factors, Link, Step, RowSteps, int | None], float], "sgd.run_epoch"
    ]
    run_bpr_epoch: Annotated[
        Callable[[Blocks, Int32Array, Factors, Step, RowSteps, Sampling, int | None], Ranked],
        "negative_sampling.run_bpr_epoch",
    ]
    run_logistic_epoch: Annotated[
        Callable[[Blocks, Int32Array, Factors, Step, RowSteps, Sampling, int | None], Ranked],
        "negative_sampling.run_logistic_epoch",
    ]
    run_svdpp_epoch: Annotated[
        Callable[[CSR, Blocks, Int32Array, Factors, Implicit, Link, Step, RowSteps, int | None], float],
        "svdpp.run_epoch",
    ]
    add_implicit: Annotated[
        Callable[[CSR, Float32Array, Float32Array, Float32Array, int | None], None], "svdpp.add_implicit"
    ]
    to_device: Annotated[Callable[[Float32Array, Solver], Table], "als.to_device"]
    to_host: Annotated[Callable[[Table, Float32Array], None], "als.to_host"]
    split_biases: Annotated[Callable[[Table, float], tuple[Table, Float32Array]], "als.split_biases"]
    squared_norms: Annotated[Callable[[Table, int | None], Float64Array], "als.squared_norms"]
    as_terms: Annotated[Callable[[Table, Table, Factors, float], Factors], "als.as_terms"]
    gram: Annotated[Callable[[Table, int | None], Float64Array], "als.gram"]
    run_half_sweep: Annotated[Callable[[HalfSweep, Table, int | None, Solver], Float64Array], "als.run_half_sweep"]
    fix: Annotated[Callable[[Float32Array, Float32Array], Fixed], "fold_in.fix"]
    fold_in_ratings: Annotated[
        Callable[[CSR, Fixed, Float32Array, float, Link, Descent, Float32Array, int | None], Folded],
        "fold_in.fold_in_ratings",
    ]
    fold_in_choices: Annotated[
        Callable[[CSR, Fixed, float, Descent, Float32Array, Draws, int | None], Folded], "fold_in.fold_in_choices"
    ]
    fold_in_user_pairs: Annotated[
        Callable[[CSR, Fixed, Descent, Float32Array, Draws, int | None], Folded], "fold_in.fold_in_user_pairs"
    ]
    fold_in_item_pairs: Annotated[
        Callable[[CSR, Fixed, Rivals, Descent, Float32Array, Draws, int | None], Folded], "fold_in.fold_in_item_pairs"
    ]
    index_items: Annotated[Callable[[Float32Array, bool, int | None], ItemIndex], "topk.index_items"]
    top_k: Annotated[Callable[[Float32Array, ItemIndex, int, Rows, int | None], Found], "topk.top_k"]
    count_better: Annotated[Callable[[Float32Array, ItemIndex, Rows, Rows, int | None], Counts], "topk.count_better"]
    mark_hits: Annotated[Callable[[Int32Array, int, Pairs, int | None], BoolArray], "topk.mark_hits"]
    top_k_among: Annotated[
        Callable[[Float32Array, Float32Array, int, Rows, Rows, int | None], TopK], "topk.top_k_among"
    ]
    rerank: Annotated[Callable[[Lists, float, Directions, Caps, Exploration, int | None], Int32Array], "rerank.rerank"]


_PLACES: dict[str, str] = {
    name: kind.__metadata__[0] for name, kind in Kernels.__annotations__.items() if hasattr(kind, "__metadata__")
}


def get_backend(name: str) -> Kernels:
    """Look up a backend, and import its kernels.

    Parameters
    ----------
    name : {"cpu", "reference", "cuda"}

    Returns
    -------
    Kernels

    Raises
    ------
    ParameterError
        If there is no backend of that name.
    BackendError
        If it cannot run here.
    """
    require_choice("backend", name, BACKENDS)
    if name == "cuda":
        _require_device()
    return _table_of(name)


@lru_cache
def _table_of(name: str) -> Kernels:
    variants: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for kernel, place in _PLACES.items():
        operation, _, function = place.partition(".")
        if operation not in variants:
            variants[operation] = _variant(operation, name)
        found[kernel] = getattr(variants[operation], function)
    return Kernels(name=name, **found)


def as_float32(array: Any, name: str, backend: str) -> Float32Array:
    """Return an array as kernels take it. An array on a GPU is copied to the host, for the backend "cuda" only.

    Raises
    ------
    ParameterError
        If it has other things than numbers, or some beyond float32; or if it is on a GPU, and the backend is another.
    """
    from fastmf_kernels._cuda import exchange

    if not exchange.is_on_gpu(array):
        return as_numbers(array, name)
    if backend != "cuda":
        raise ParameterError(
            f'got a {type(array).__name__} on a GPU with backend "{backend}"; expected NumPy arrays, or backend="cuda"'
        )
    get_backend(backend)
    return np.ascontiguousarray(exchange.to_host(array), np.float32)


def to_kind_of(given: Any, top: TopK) -> TopK:
    """Return an answer in arrays of the kind that was given: on the GPU and of the same library, or NumPy arrays."""
    from fastmf_kernels._cuda import exchange

    return TopK(*(exchange.to_kind_of(given, array) for array in top)) if exchange.is_on_gpu(given) else top


def _require_device() -> None:
    from fastmf_kernels._cuda import probe

    obstacle = probe.obstacle()
    if obstacle is not None:
        raise BackendError(
            f'backend "cuda" (--device cuda) cannot run here: {obstacle}; or use backend "cpu", which is the default'
        )


def _variant(operation: str, backend: str) -> Any:
    if backend == "cuda" and operation in _NOT_ON_CUDA:
        return _Missing(_NOT_ON_CUDA[operation])
    variant = "cpu" if backend == "cuda" and operation in _ON_THE_HOST else backend
    return importlib.import_module(f"fastmf_kernels.{operation}.{variant}")


class _Missing:
    """Stands for an operation that the backend "cuda" lacks; its kernels raise an error when they are called."""

    def __init__(self, models: str) -> None:
        self._models = models

    def __getattr__(self, kernel: str) -> Callable[..., NoReturn]:
        def refuse(*_: Any) -> NoReturn:
            raise BackendError(f'{self._models} cannot be trained with backend "cuda" yet; expected "cpu", the default')

        return refuse
