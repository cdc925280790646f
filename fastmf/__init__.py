"""Matrix factorisation for recommenders: ratings in Parquet to recommendations in Parquet.

Names are loaded when they are first used, so ``import fastmf`` costs next to nothing and imports neither NumPy, Arrow
nor Numba.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastmf import errors, metrics, split, testing, tuning
    from fastmf._version import __version__
    from fastmf.answering.answers import Recommendations, Similar, UsersForItems
    from fastmf.answering.content import similar_by_features
    from fastmf.answering.plain_arrays import index_items, top_k
    from fastmf.answering.reranking import Reranking, rerank
    from fastmf.keeping.run_log import log_to
    from fastmf.measuring.comparison import compare
    from fastmf.measuring.evaluation import evaluate
    from fastmf.models import ALS, BPR, SGD, Bias, ImplicitALS, Popularity, SVDpp
    from fastmf.models.analogies import analogy
    from fastmf.models.exporting import export
    from fastmf.models.importing import import_implicit
    from fastmf.models.linear_map import LinearMap
    from fastmf.models.loading import load
    from fastmf.models.onboarding import Onboarding, onboarding
    from fastmf.models.refitting import refit
    from fastmf.models.suggestion import suggest_model
    from fastmf.reading.features import Features
    from fastmf.reading.interactions import Interactions, read_parquet
    from fastmf.serving import Recommender
    from fastmf.tuning import cross_validate, tune

_MODULE_OF = {
    "ALS": "fastmf.models",
    "BPR": "fastmf.models",
    "SGD": "fastmf.models",
    "Bias": "fastmf.models",
    "Features": "fastmf.reading.features",
    "ImplicitALS": "fastmf.models",
    "Interactions": "fastmf.reading.interactions",
    "LinearMap": "fastmf.models.linear_map",
    "Onboarding": "fastmf.models.onboarding",
    "Popularity": "fastmf.models",
    "Recommendations": "fastmf.answering.answers",
    "Recommender": "fastmf.serving",
    "Reranking": "fastmf.answering.reranking",
    "SVDpp": "fastmf.models",
    "Similar": "fastmf.answering.answers",
    "UsersForItems": "fastmf.answering.answers",
    "__version__": "fastmf._version",
    "analogy": "fastmf.models.analogies",
    "compare": "fastmf.measuring.comparison",
    "cross_validate": "fastmf.tuning",
    "evaluate": "fastmf.measuring.evaluation",
    "export": "fastmf.models.exporting",
    "import_implicit": "fastmf.models.importing",
    "index_items": "fastmf.answering.plain_arrays",
    "load": "fastmf.models.loading",
    "log_to": "fastmf.keeping.run_log",
    "onboarding": "fastmf.models.onboarding",
    "read_parquet": "fastmf.reading.interactions",
    "refit": "fastmf.models.refitting",
    "similar_by_features": "fastmf.answering.content",
    "rerank": "fastmf.answering.reranking",
    "suggest_model": "fastmf.models.suggestion",
    "top_k": "fastmf.answering.plain_arrays",
    "tune": "fastmf.tuning",
}
_SUBMODULES = ("errors", "metrics", "split", "testing", "tuning")

__all__ = [
    "ALS",
    "BPR",
    "SGD",
    "Bias",
    "Features",
    "ImplicitALS",
    "Interactions",
    "LinearMap",
    "Onboarding",
    "Popularity",
    "Recommendations",
    "Recommender",
    "Reranking",
    "SVDpp",
    "Similar",
    "UsersForItems",
    "__version__",
    "analogy",
    "compare",
    "cross_validate",
    "errors",
    "evaluate",
    "export",
    "import_implicit",
    "index_items",
    "load",
    "log_to",
    "metrics",
    "onboarding",
    "read_parquet",
    "refit",
    "rerank",
    "similar_by_features",
    "split",
    "suggest_model",
    "testing",
    "top_k",
    "tune",
    "tuning",
]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"fastmf.{name}")
    if name in _MODULE_OF:
        value = getattr(importlib.import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'fastmf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
