"""The models. Each is trained by the one `fit` of `fastmf.models.base`, whatever the backend."""

from fastmf.models.als import ALS
from fastmf.models.base import FactorModel
from fastmf.models.bpr import BPR
from fastmf.models.implicit_als import ImplicitALS
from fastmf.models.sgd import SGD
from fastmf.models.svdpp import SVDpp

MODELS: dict[str, type[FactorModel]] = {model.__name__: model for model in (SGD, SVDpp, BPR, ALS, ImplicitALS)}

__all__ = ["ALS", "BPR", "MODELS", "SGD", "FactorModel", "ImplicitALS", "SVDpp"]
