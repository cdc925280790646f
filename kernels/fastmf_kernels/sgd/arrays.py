"""What one epoch of SGD needs besides ratings and factors."""

from typing import NamedTuple

import numpy as np


class Step(NamedTuple):
    """Size and damping of one gradient step.

    Attributes
    ----------
    learning_rate : float32
    bias_learning_rate : float32
        0 where a model has no biases.
    regularization : float32
        L2 strength on the factors.
    bias_regularization : float32
        L2 strength on the biases.
    """

    learning_rate: np.float32
    bias_learning_rate: np.float32
    regularization: np.float32
    bias_regularization: np.float32
