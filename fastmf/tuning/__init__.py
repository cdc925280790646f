"""Tuning: a search for good parameters of a model, and cross-validation.

`tune` tries models with parameters out of a space: for each parameter a list of values, or a range.

>>> from fastmf.tuning import Integers, LogUniform, Multiple, Uniform
>>> space = {
...     "n_factors": [32, 64, 128],
...     "regularization": LogUniform(0.001, 1),  # as many from 0.001 to 0.01 as from 0.1 to 1
...     "learning_rate_decay": Uniform(0.9, 1),
...     "n_negatives": Integers(1, 8),
...     "learning_rate": Multiple(0.25, 4),  # times the number that the model as given has
... }
"""

from fastmf.tuning.cross_validation import CrossValidation, cross_validate
from fastmf.tuning.outcome import Tuned
from fastmf.tuning.spaces import Choices, Integers, LogUniform, Multiple, Range, Space, Uniform, default_space
from fastmf.tuning.tuner import tune

__all__ = [
    "Choices",
    "CrossValidation",
    "Integers",
    "LogUniform",
    "Multiple",
    "Range",
    "Space",
    "Tuned",
    "Uniform",
    "cross_validate",
    "default_space",
    "tune",
]
