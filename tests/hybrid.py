"""Ratings with a planted structure, and what is known of their users and items, for tests of models with features."""

from typing import Any

import numpy as np
import pyarrow as pa

from fastmf import ALS, Features, ImplicitALS, Interactions

N_USERS, N_ITEMS, N_COLD = 60, 40, 6
KINDS = (ALS, ImplicitALS)
PARTS = ("user_factors", "item_factors", "user_biases", "item_biases")


def item_table() -> pa.Table:
    """A genre, a year and tags of items 0 to 39 and of six more that nobody rates; item 3 has nothing at all."""
    rng, n = np.random.default_rng(1), N_ITEMS + N_COLD
    genres: list[str | None] = [f"g{item % 3}" for item in range(n)]
    years: list[float | None] = (1950 + 50 * rng.random(n)).tolist()
    tags: list[list[str] | None] = [[f"t{item % 3}", f"t{3 + item % 2}"] for item in range(n)]
    genres[3], years[3], tags[3] = None, None, None
    years[5] = None
    formats: list[float | None] = [7.0] * n
    formats[3] = None
    return pa.table({"item_id": range(n), "genre": genres, "year": years, "tags": tags, "format": formats})


def items() -> Features:
    return Features.from_arrow(item_table())


def user_table(n: int = N_USERS + 4) -> pa.Table:
    """An age group of users 0 to 59 and of four more without ratings."""
    return pa.table({"user_id": range(n), "age": [f"a{user % 3}" for user in range(n)]})


def users() -> Features:
    return Features.from_arrow(user_table(), "user_id")


def ratings() -> Interactions:
    """People like one genre, the one that their age group says; about a third of the cells is rated."""
    rng = np.random.default_rng(0)
    rows, columns = np.divmod(np.arange(N_USERS * N_ITEMS), N_ITEMS)
    alike = rows % 3 == columns % 3
    chosen = (rng.random(len(rows)) < np.where(alike, 0.6, 0.2)) | (rows % N_ITEMS == columns)
    values = np.where(alike, 4.5, 2) + 0.3 * rng.standard_normal(len(rows))
    return Interactions.from_arrays(rows[chosen], columns[chosen], values[chosen].astype(np.float32))


def fit(kind: Any, given: Interactions | None = None, **params: Any) -> Any:
    """Fit a small model with features of both sides."""
    model = kind(**{"n_factors": 4, "n_epochs": 5, "n_threads": 2, **params})
    return model.fit(ratings() if given is None else given, item_features=items(), user_features=users())


def place(model: Any, id_: int, side: str = "item") -> int:
    return int(np.flatnonzero(getattr(model, f"{side}_ids").to_numpy() == id_)[0])


def means(model: Any, side: str) -> Any:
    """Wᵀx of all users or items, in NumPy."""
    features = model.fitted.features[side]
    indptr, indices, values = features.rows
    dense = np.zeros((len(indptr) - 1, len(features.weights)))
    dense[np.repeat(np.arange(len(dense)), np.diff(indptr)), indices] = values
    return dense @ features.weights.astype(np.float64)
