"""The small solver against its reference, and the reference against NumPy's least squares."""

import numpy as np
import pytest

from fastmf_kernels._types import Float32Array
from fastmf_kernels.linalg.cpu import cholesky, fill_lower_half, from_panels, rotate, substitute, to_panels
from fastmf_kernels.linalg.reference import cutoff, solve_symmetric

# The CPU solver works on panels of 16 columns: sizes on both sides of their borders.
SIZES = (1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 64, 128, 200)


def cholesky_solve(matrix: Float32Array, x: Float32Array) -> bool:
    """Solve in place; NaN in what must not be read."""
    n = len(x)
    panels = to_panels(np.triu(np.pad(matrix, (0, -n % 16))))
    blocks = np.arange(panels.shape[1])[None, :, None] // 16
    panels[np.broadcast_to(blocks > np.arange(len(panels))[:, None, None], panels.shape)] = np.nan
    if not cholesky(panels, n):
        return False
    solution = np.pad(x, (0, -n % 16))
    substitute(panels, solution, np.full_like(solution, np.nan))
    x[:] = solution[:n]
    return True


def make_system(n: int, n_vectors: int, ridge: float, seed: int = 0) -> tuple[Float32Array, Float32Array]:
    """Σ q qᵀ over ``n_vectors`` random vectors, plus ridge·I; and a right side in the span of the vectors."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n_vectors, n))
    matrix = vectors.T @ vectors + ridge * np.eye(n)
    return matrix.astype(np.float32), (vectors.T @ rng.standard_normal(n_vectors)).astype(np.float32)


@pytest.mark.parametrize("n", SIZES)
def test_cholesky_solve(n: int) -> None:
    matrix, right_side = make_system(n, 4 * n, 1.0)
    expected = solve_symmetric(matrix, right_side)
    x = right_side.copy()
    assert cholesky_solve(matrix, x)
    assert np.linalg.norm(x - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("n", SIZES)
def test_scale_does_not_matter(n: int) -> None:
    matrix, right_side = make_system(n, 4 * n, 1.0)
    x, scaled = right_side.copy(), right_side.copy()
    assert cholesky_solve(matrix.copy(), x)
    assert cholesky_solve(matrix * np.float32(2.0**-60), scaled)
    np.testing.assert_allclose(scaled, x * np.float32(2.0**60), rtol=1e-4)


SINGULAR = {
    "zero": np.zeros((5, 5)),
    "ones": np.ones((20, 20)),
    "zero in the last place": np.diag([1.0] * 16 + [0.0]),
    "zero in the first place": np.diag([0.0] + [1.0] * 16),
    "twin columns": np.kron(np.eye(4), np.ones((2, 2))),
    "negative": -np.eye(9),
    "indefinite": np.diag([1.0] * 11 + [-1.0]),
    "too small a pivot": np.diag([1.0, 1e-7]),
    "NaN": np.full((3, 3), np.nan),
    "NaN at the end": np.diag([1.0] * 9 + [np.nan]),
}


@pytest.mark.parametrize("name", SINGULAR)
def test_singular_matrices_are_refused(name: str) -> None:
    matrix = SINGULAR[name].astype(np.float32)
    assert not cholesky_solve(matrix.copy(), np.ones(len(matrix), np.float32))


def test_ill_conditioned_is_not_singular() -> None:
    matrix = np.diag([1.0, 1e-5]).astype(np.float32)
    x = np.ones(2, np.float32)
    assert cholesky_solve(matrix, x)
    np.testing.assert_allclose(x, [1, 1e5], rtol=1e-5)


@pytest.mark.parametrize("n", SIZES)
def test_reference_solves_regular_systems(n: int) -> None:
    matrix, right_side = (part.astype(np.float64) for part in make_system(n, 4 * n, 1.0))
    np.testing.assert_allclose(solve_symmetric(matrix, right_side), np.linalg.solve(matrix, right_side), rtol=1e-9)


@pytest.mark.parametrize("n", [n for n in SIZES if n > 1])
def test_reference_gives_the_solution_of_minimum_norm(n: int) -> None:
    matrix, right_side = make_system(n, max(1, n // 2), 0.0)
    expected, _, rank, _ = np.linalg.lstsq(matrix.astype(np.float64), right_side.astype(np.float64), rcond=cutoff(n))
    assert rank == max(1, n // 2)
    np.testing.assert_allclose(solve_symmetric(matrix.astype(np.float64), right_side), expected, atol=1e-9)


def test_reference_solves_nothing_with_zero() -> None:
    assert solve_symmetric(np.zeros((3, 3)), np.zeros(3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("n", SIZES)
def test_panels_and_back(n: int) -> None:
    matrix = np.random.default_rng(n).standard_normal((7, n), np.float32)
    back = from_panels(to_panels(matrix))
    np.testing.assert_array_equal(back[:, :n], matrix)
    assert not back[:, n:].any()


@pytest.mark.parametrize("n", SIZES)
def test_fill_lower_half(n: int) -> None:
    matrix = np.pad(make_system(n, 4 * n, 1.0)[0], (0, -n % 16))
    panels = to_panels(np.triu(matrix) + np.tril(matrix, -1) * (np.arange(len(matrix)) // 16 == 0))
    fill_lower_half(panels)
    full = from_panels(panels)
    blocks = np.arange(len(matrix)) // 16
    assert (np.where(blocks[:, None] != blocks, full - matrix, 0) == 0).all()


@pytest.mark.parametrize("n_rows", [0, 1, 16, 33])
@pytest.mark.parametrize("n", SIZES)
def test_rotate(n: int, n_rows: int) -> None:
    rng = np.random.default_rng(n)
    rows, basis = rng.standard_normal((n_rows, n), np.float32), rng.standard_normal((n, n), np.float32)
    expected = rows.astype(np.float64) @ basis
    rotate(rows, 0, n_rows, to_panels(basis), rows)
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-5 * n)
