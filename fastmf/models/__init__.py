"""The models: those of factors, which the one `fit` of `fastmf.models.factor_model` trains, and baselines without."""

from fastmf.models.als import ALS
from fastmf.models.base import Model
from fastmf.models.baselines import Bias, Popularity
from fastmf.models.bpr import BPR
from fastmf.models.factor_model import FactorModel
from fastmf.models.implicit_als import ImplicitALS
from fastmf.models.sgd import SGD
from fastmf.models.svdpp import SVDpp

MODELS: dict[str, type[Model]] = {
    model.__name__: model for model in (SGD, SVDpp, BPR, ALS, ImplicitALS, Bias, Popularity)
}
FACTOR_MODELS: dict[str, type[FactorModel]] = {
    name: model for name, model in MODELS.items() if issubclass(model, FactorModel)
}

__all__ = [
    "ALS",
    "BPR",
    "FACTOR_MODELS",
    "MODELS",
    "SGD",
    "Bias",
    "FactorModel",
    "ImplicitALS",
    "Model",
    "Popularity",
    "SVDpp",
]
