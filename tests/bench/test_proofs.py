"""A kernel that is right is proven; one that is wrong, by however little, is refused by its suites and never timed."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastmf import backend
from fastmf.backend import Kernels
from fastmf_bench import cases
from fastmf_bench.cases import OPERATIONS, WrongKernelError, difference, prove
from fastmf_bench.session import Session
from fastmf_bench.suites import SUITES

Bench = Callable[..., tuple[str, str]]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_there_is_is_proven(operation: str) -> None:
    assert len(cases.cases(operation)) > 1
    prove(operation)


def test_every_suite_rests_on_kernels_that_are_proven() -> None:
    assert {operation for suite in SUITES.values() for operation in suite.operations} == set(OPERATIONS)
    assert all(suite.operations for suite in SUITES.values())


def swapped_neighbours(kernels: Kernels) -> Kernels:
    def top_k(*arguments: Any) -> Any:
        found = kernels.top_k(*arguments)
        found.top.indices[:, :2] = found.top.indices[:, 1::-1].copy()
        return found

    return kernels._replace(top_k=top_k)


def forgotten_regularization(kernels: Kernels) -> Kernels:
    def run_epoch(blocks: Any, strata: Any, factors: Any, link: Any, step: Any, rows: Any, n_threads: Any) -> float:
        step = step._replace(item_regularization=np.float32(0))
        return kernels.run_epoch(blocks, strata, factors, link, step, rows, n_threads)

    return kernels._replace(run_epoch=run_epoch)


def one_percent_off(kernels: Kernels) -> Kernels:
    def run_half_sweep(problem: Any, target: Any, n_threads: Any, solver: Any) -> Any:
        losses = kernels.run_half_sweep(problem, target, n_threads, solver)
        target[0] *= np.float32(1.01)
        return losses

    return kernels._replace(run_half_sweep=run_half_sweep)


def last_entry_lost(kernels: Kernels) -> Kernels:
    def coo_to_csr(*arguments: Any) -> Any:
        csr = kernels.coo_to_csr(*arguments)
        csr.values[-1] = 0
        return csr

    return kernels._replace(coo_to_csr=coo_to_csr)


def no_bias(kernels: Kernels) -> Kernels:
    def predict_pairs(users: Any, items: Any, factors: Any, link: Any, n_threads: Any) -> Any:
        factors = factors._replace(user_biases=np.zeros_like(factors.user_biases))
        return kernels.predict_pairs(users, items, factors, link, n_threads)

    return kernels._replace(predict_pairs=predict_pairs)


def one_bit_for_three_threads(kernels: Kernels) -> Kernels:
    def run_half_sweep(problem: Any, target: Any, n_threads: Any, solver: Any) -> Any:
        losses = kernels.run_half_sweep(problem, target, n_threads, solver)
        if n_threads == 3:
            target[0, 0] = np.nextafter(target[0, 0], np.float32(9))
        return losses

    return kernels._replace(run_half_sweep=run_half_sweep)


MISTAKES = {
    "topk": swapped_neighbours,
    "sgd": forgotten_regularization,
    "als": one_percent_off,
    "layout": last_entry_lost,
    "predict": no_bias,
}


def make_wrong(monkeypatch: pytest.MonkeyPatch, mistake: Callable[[Kernels], Kernels]) -> None:
    def get_backend(name: str) -> Kernels:
        kernels = backend.get_backend(name)
        return kernels if name == "reference" else mistake(kernels)

    monkeypatch.setattr(cases, "get_backend", get_backend)


@pytest.mark.parametrize("operation", MISTAKES)
def test_a_wrong_kernel_is_refused(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_wrong(monkeypatch, MISTAKES[operation])

    with pytest.raises(WrongKernelError, match=r"is not what its reference says: .* of .* elements are off by up to"):
        prove(operation)


def test_a_kernel_that_depends_on_threads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    make_wrong(monkeypatch, one_bit_for_three_threads)

    with pytest.raises(WrongKernelError, match="depends on the number of threads"):
        prove("als")


def test_the_suites_of_a_wrong_kernel_time_nothing_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, bench: Bench
) -> None:
    make_wrong(monkeypatch, MISTAKES["sgd"])
    monkeypatch.setattr(cases, "prove", prove)
    raced: list[str] = []
    monkeypatch.setattr(Session, "race", lambda self, suite, *rest, **more: raced.append(suite))

    small = ("--users", 30, "--items", 20, "--ratings", 200)
    output, errors = bench("sgd", "als", "--peers", "--json", *small, status=1)

    assert set(raced) == {"als"}
    assert "sgd: not timed, because a kernel is wrong: run_epoch" in errors
    run = json.loads(output)
    assert run["proofs"]["sgd"].startswith("run_epoch")
    assert (run["proofs"]["als"], run["proofs"]["layout"]) == ("", "")
    assert len(run["problems"]) == 1


@pytest.mark.parametrize(
    ("expected", "found", "tolerance", "complaint"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0, ""),
        ([1.0, 2.0], [1.0, 2.0002], 1e-3, ""),
        ([1.0, 2.0], [1.0, 2.01], 1e-3, "1 of 2 elements are off by up to 0.01 (0.002 allowed)"),
        ([1.0, 2.0], [1.0], 1, "float64 (1,) for float64 (2,)"),
        ([1.0, 2.0], [1, 2], 1, "int64 (2,) for float64 (2,)"),
        ([1.0, -np.inf], [1.0, -np.inf], 0, ""),
        ([1.0, -np.inf], [1.0, 0.0], 1, "other elements are infinite or not a number"),
        ([1.0, 2.0], [1.0, np.nan], 1, "other elements are infinite or not a number"),
        ([], [], 0, ""),
    ],
)
def test_difference_of_arrays(expected: Any, found: Any, tolerance: float, complaint: str) -> None:
    assert difference(np.array(expected), np.array(found), tolerance) == complaint
