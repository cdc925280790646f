"""Errors over all ratings on a GPU against their reference."""

import numpy as np
import pytest

from fastmf.backend import Kernels
from tests.kernels.made import LINKS, RATINGS, make_factors, make_ratings


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("n_factors", [1, 20])
def test_squared_error(n_factors: int, link: str, kernels: Kernels, reference: Kernels) -> None:
    from fastmf_kernels._cuda import observed

    rows, factors = make_ratings(20, 9, 60), make_factors(20, 9, n_factors)
    on_host = kernels.squared_error(rows, factors, LINKS[link], None)
    held = observed.rows_on_device(rows)
    expected = reference.squared_error(rows, factors, LINKS[link], None)

    assert len(held.counts) == 20
    np.testing.assert_allclose(kernels.squared_error(rows, factors, LINKS[link], None), expected, rtol=1e-5)
    np.testing.assert_allclose(on_host, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["one user", "one item", "one rating", "no ratings"])
def test_few_ratings(name: str, kernels: Kernels, reference: Kernels) -> None:
    from fastmf_kernels._cuda import observed

    rows, (n_users, n_items, _) = make_ratings(*RATINGS[name]), RATINGS[name]
    factors, link = make_factors(n_users, n_items, 8), LINKS["identity"]
    held = observed.rows_on_device(rows)

    found, expected = (variant.squared_error(rows, factors, link, None) for variant in (kernels, reference))
    assert len(held.counts) == n_users
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=0)
