"""Hyper-parameters of the quality protocols."""

from typing import Any

SETTINGS_100K: dict[str, dict[str, Any]] = {
    "SGD": {
        "n_factors": 100,
        "n_epochs": 13,
        "learning_rate": 0.056,
        "bias_learning_rate": 0.0112,
        "regularization": 0.0714,
        "bias_regularization": 0.0268,
    },
    "SVDpp": {
        "n_factors": 100,
        "n_epochs": 50,
        "adaptive": False,
        "learning_rate": 0.0168,
        "learning_rate_decay": 0.97,
        "implicit_learning_rate": 0.00168,
        "regularization": 0.067,
        "bias_regularization": 0.0268,
    },
}
SETTINGS_1M: dict[str, dict[str, Any]] = {
    "SGD": {
        "n_factors": 100,
        "n_epochs": 60,
        "adaptive": False,
        "learning_rate": 0.0168,
        "bias_learning_rate": 0.0168,
        "learning_rate_decay": 0.97,
        "regularization": 0.0446,
        "bias_regularization": 0.0268,
    },
    "SVDpp": {
        "n_factors": 128,
        "n_epochs": 40,
        "adaptive": False,
        "learning_rate": 0.0168,
        "learning_rate_decay": 0.96,
        "regularization": 0.0446,
        "bias_regularization": 0.0268,
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
