"""The models. Those of factors are trained by the one `fit` of `fastmf.models.factor_model`, whatever the backend."""

from fastmf.models.als import ALS
from fastmf.models.base import Model
from fastmf.models.bpr import BPR
from fastmf.models.factor_model import FactorModel
from fastmf.models.implicit_als import ImplicitALS
from fastmf.models.sgd import SGD
from fastmf.models.svdpp import SVDpp

MODELS: dict[str, type[Model]] = {model.__name__: model for model in (SGD, SVDpp, BPR, ALS, ImplicitALS)}

__all__ = ["ALS", "BPR", "MODELS", "SGD", "FactorModel", "ImplicitALS", "Model", "SVDpp"]
