"""A backend is a table of kernels; models and scoring call those and never ask where they run."""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import numpy as np

from fastmf.common.parameters import require_choice
from fastmf.errors import BackendError, ParameterError
from fastmf_kernels._types import BoolArray, Float32Array, Float64Array, Int32Array
from fastmf_kernels.als.arrays import HalfSweep, Solver, Table
from fastmf_kernels.layout.arrays import CSR, Groups
from fastmf_kernels.negative_sampling.arrays import Ranked, Sampling
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.sgd.arrays import RowSteps, Step, TrainingState
from fastmf_kernels.sgd.schedule import Blocks, Grid
from fastmf_kernels.svdpp.arrays import Implicit
from fastmf_kernels.topk.arrays import Counts, Found, ItemIndex, Pairs, Rows, TopK

BACKENDS = ("cpu", "reference", "cuda")
_OPERATIONS = ("layout", "predict", "sgd", "negative_sampling", "svdpp", "als", "topk")
# What the backend "cuda" does on the host, and the models that it has no kernels for.
_ON_THE_HOST = ("layout",)
_NOT_ON_CUDA = {"negative_sampling": "BPR and the logistic loss", "svdpp": "SVDpp"}


class Kernels(NamedTuple):
    """The operations of one backend; their contracts are in the ``reference.py`` of each operation."""

    name: str
    group_by: Callable[[Int32Array, int, int | None], Groups]
    coo_to_csr: Callable[[Int32Array, Int32Array, Float32Array, int, int | None], CSR]
    transpose: Callable[[CSR, int, int | None], CSR]
    predict_pairs: Callable[[Int32Array, Int32Array, Factors, Link, int | None], Float32Array]
    squared_error: Callable[[CSR, Factors, Link, int | None], float]
    make_grid: Callable[[int, int, int], Grid]
    training_to_device: Callable[[Blocks, Factors, RowSteps, str], TrainingState]
    training_to_host: Callable[[TrainingState, Factors, RowSteps], None]
    run_epoch: Callable[[Blocks, Int32Array, Factors, Link, Step, RowSteps, int | None], float]
    run_bpr_epoch: Callable[[Blocks, Int32Array, Factors, Step, RowSteps, Sampling, int | None], Ranked]
    run_logistic_epoch: Callable[[Blocks, Int32Array, Factors, Step, RowSteps, Sampling, int | None], Ranked]
    run_svdpp_epoch: Callable[[CSR, Blocks, Int32Array, Factors, Implicit, Link, Step, RowSteps, int | None], float]
    add_implicit: Callable[[CSR, Float32Array, Float32Array, Float32Array, int | None], None]
    to_device: Callable[[Float32Array, Solver], Table]
    to_host: Callable[[Table, Float32Array], None]
    split_biases: Callable[[Table, float], tuple[Table, Float32Array]]
    squared_norms: Callable[[Table, int | None], Float64Array]
    as_terms: Callable[[Table, Table, Factors, float], Factors]
    gram: Callable[[Table, int | None], Float64Array]
    run_half_sweep: Callable[[HalfSweep, Table, int | None, Solver], Float64Array]
    index_items: Callable[[Float32Array, bool, int | None], ItemIndex]
    top_k: Callable[[Float32Array, ItemIndex, int, Rows, int | None], Found]
    count_better: Callable[[Float32Array, ItemIndex, Rows, Rows, int | None], Counts]
    mark_hits: Callable[[Int32Array, int, Pairs, int | None], BoolArray]
    top_k_among: Callable[[Float32Array, Float32Array, int, Rows, Rows, int | None], TopK]


def get_backend(name: str) -> Kernels:
    """Look up a backend; this is when its kernels are imported.

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
    layout, predict, sgd, negative_sampling, svdpp, als, topk = (
        _variant(operation, name)
        for operation in ("layout", "predict", "sgd", "negative_sampling", "svdpp", "als", "topk")
    )
    return Kernels(
        name,
        layout.group_by,
        layout.coo_to_csr,
        layout.transpose,
        predict.predict_pairs,
        predict.squared_error,
        sgd.make_grid,
        sgd.to_device,
        sgd.to_host,
        sgd.run_epoch,
        negative_sampling.run_bpr_epoch,
        negative_sampling.run_logistic_epoch,
        svdpp.run_epoch,
        svdpp.add_implicit,
        als.to_device,
        als.to_host,
        als.split_biases,
        als.squared_norms,
        als.as_terms,
        als.gram,
        als.run_half_sweep,
        topk.index_items,
        topk.top_k,
        topk.count_better,
        topk.mark_hits,
        topk.top_k_among,
    )


def as_float32(array: Any, backend: str) -> Float32Array:
    """Return an array as kernels take it; one that is on a GPU as a copy, for the backend "cuda" only.

    Raises
    ------
    ParameterError
        If it is on a GPU, and the backend is another.
    """
    from fastmf_kernels._cuda import exchange

    if not exchange.is_on_gpu(array):
        return np.ascontiguousarray(array, np.float32)
    if backend != "cuda":
        raise ParameterError(
            f'got a {type(array).__name__} on a GPU with backend "{backend}"; expected NumPy arrays, or backend="cuda"'
        )
    get_backend(backend)
    return np.ascontiguousarray(exchange.to_host(array), np.float32)


def to_kind_of(given: Any, top: TopK) -> TopK:
    """Return an answer in arrays like the one that was given: on the GPU, of the same library, if that was."""
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
    """An operation that the backend "cuda" does not have: its kernels say so when they are called."""

    def __init__(self, models: str) -> None:
        self._models = models

    def __getattr__(self, kernel: str) -> Callable[..., NoReturn]:
        def refuse(*_: Any) -> NoReturn:
            raise BackendError(f'{self._models} cannot be trained with backend "cuda" yet; expected "cpu", the default')

        return refuse
