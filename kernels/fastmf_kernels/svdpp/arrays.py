"""The factors that SVD++ has beside those of SGD."""

from typing import NamedTuple

import numpy as np

from fastmf_kernels._types import Float32Array


class Implicit(NamedTuple):
    """The implicit factors y of items: what having rated an item, whatever the rating, adds to a user.

    Attributes
    ----------
    item_factors : float32 array, shape (n_items, n_factors), C order
        y_j.
    item_accumulator : float32 array, shape (n_items,)
        G of AdaGrad: 1 + Σ of the mean squares of the gradients of y_j so far; step sizes are divided by its root.
    share : float32
        Step size of y_j as a share of `Step.learning_rate`.
    regularization : float32
        L2 strength on y_j.
    """

    item_factors: Float32Array
    item_accumulator: Float32Array
    share: np.float32
    regularization: np.float32
