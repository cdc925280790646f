"""Every operation at several sizes, reference beside variants; time them with ``pytest bench --benchmark-enable``."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastmf.backend import get_backend
from fastmf.testing import VARIANTS
from fastmf_bench.cases import OPERATIONS, Case, cases

CASES = [case for operation in OPERATIONS for case in cases(operation)]


@pytest.mark.benchmark(max_time=0.3, warmup=True, warmup_iterations=1)
@pytest.mark.parametrize("variant", ["reference", *VARIANTS])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_kernel(benchmark: BenchmarkFixture, case: Case, variant: str) -> None:
    kernels = get_backend(variant)
    benchmark.group = case.name

    found = benchmark(case.answer, kernels, None)

    assert case.compare(found) == ""
