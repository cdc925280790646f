"""Hyper-parameters of the quality protocols."""

from typing import Any

SETTINGS_100K: dict[str, dict[str, Any]] = {
    "SGD": {
        "n_factors": 100,
        "n_epochs": 13,
        "learning_rate": 0.05,
        "bias_learning_rate": 0.01,
        "regularization": 0.08,
        "bias_regularization": 0.03,
    },
    "SVDpp": {
        "n_factors": 100,
        "n_epochs": 50,
        "adaptive": False,
        "learning_rate": 0.015,
        "learning_rate_decay": 0.97,
        "implicit_learning_rate": 0.0015,
        "regularization": 0.075,
        "bias_regularization": 0.03,
    },
}
SETTINGS_1M: dict[str, dict[str, Any]] = {
    "SGD": {
        "n_factors": 100,
        "n_epochs": 60,
        "adaptive": False,
        "learning_rate": 0.015,
        "bias_learning_rate": 0.015,
        "learning_rate_decay": 0.97,
        "regularization": 0.05,
        "bias_regularization": 0.03,
    },
    "SVDpp": {
        "n_factors": 128,
        "n_epochs": 40,
        "adaptive": False,
        "learning_rate": 0.015,
        "learning_rate_decay": 0.96,
        "regularization": 0.05,
        "bias_regularization": 0.03,
    },
}


SETTINGS_TOPN: dict[str, dict[str, Any]] = {
    "ImplicitALS": {
        "n_factors": 128,
        "n_epochs": 15,
        "regularization": 0.07,
        "unobserved_weight": 0.2,
        "regularization_exponent": 0.75,
    },
    "BPR": {"n_factors": 128, "n_epochs": 60, "regularization": 0.01, "n_negatives": 4},
}
