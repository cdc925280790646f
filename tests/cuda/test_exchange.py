"""Arrays on a GPU are told from others without loading anything, and only the backend "cuda" takes them."""

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fastmf
from fastmf import backend
from fastmf.errors import DataError, ParameterError
from fastmf_kernels._cuda import exchange

ITEMS = np.array([[1, 2], [3, 4]], np.float32)


class OnGpu:
    """An array as other libraries have them: here it really is one of NumPy."""

    def __init__(self, host: npt.NDArray[Any]) -> None:
        self.host = host

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {}


class ByDlpack:
    """An array that DLPack alone can tell the place of."""

    def __init__(self, kind: int) -> None:
        self.kind = kind

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 0


def test_where_an_array_is() -> None:
    assert exchange.is_on_gpu(OnGpu(ITEMS))
    assert exchange.is_on_gpu(ByDlpack(2))
    assert not exchange.is_on_gpu(ByDlpack(1))
    assert not exchange.is_on_gpu(ITEMS)
    assert not exchange.is_on_gpu([[1, 2]])


@pytest.mark.parametrize("argument", ["queries", "items"])
def test_other_backends_do_not_take_them(argument: str) -> None:
    given: dict[str, Any] = {"queries": ITEMS, "items": ITEMS} | {argument: OnGpu(ITEMS)}
    message = 'got a OnGpu on a GPU with backend "cpu"; expected NumPy arrays, or backend="cuda"'
    with pytest.raises(ParameterError, match=re.escape(message)):
        fastmf.top_k(**given, k=1)


def test_answers_go_where_queries_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "get_backend", lambda name: None)
    monkeypatch.setattr("fastmf.answering.plain_arrays.get_backend", lambda name: REFERENCE)
    monkeypatch.setattr(exchange, "to_host", lambda array: array.host)
    monkeypatch.setattr(exchange, "to_kind_of", lambda given, host: type(given)(host))
    there = fastmf.top_k(OnGpu(ITEMS), OnGpu(ITEMS), k=1, backend="cuda")
    here = fastmf.top_k(ITEMS, ITEMS, k=1, backend="reference")

    assert isinstance(there.indices, OnGpu)
    np.testing.assert_array_equal(there.indices.host, here.indices)
    np.testing.assert_array_equal(there.scores.host, here.scores)
    assert isinstance(fastmf.top_k(ITEMS, OnGpu(ITEMS), k=1, backend="cuda").scores, np.ndarray)


def test_ratings_may_be_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "to_host", lambda array: array.host)
    users, items, ratings = np.array([3, 3, 5]), np.array([1, 2, 1]), np.array([4, 2, 5], np.float32)
    here = fastmf.Interactions.from_arrays(users, items, ratings)
    there = fastmf.Interactions.from_arrays(*(OnGpu(array) for array in (users, items, ratings)))

    assert there.to_arrow().equals(here.to_arrow())


def test_ratings_on_a_gpu_without_what_copies_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_cupy(array: OnGpu) -> None:
        raise ModuleNotFoundError("No module named 'cupy'")

    monkeypatch.setattr(exchange, "to_host", without_cupy)
    message = "column 'users' is on a GPU, but No module named 'cupy'; install CuPy, or copy it to the host"
    with pytest.raises(DataError, match=message):
        fastmf.Interactions.from_arrays(OnGpu(np.array([1])), [1])


REFERENCE = backend.get_backend("reference")
