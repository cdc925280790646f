"""Matrix factorisation for recommenders: ratings in Parquet to recommendations in Parquet.

Names are loaded when they are first used, so ``import fastmf`` costs next to nothing and imports neither NumPy, Arrow
nor Numba.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastmf import errors, metrics, split, testing
    from fastmf._version import __version__
    from fastmf.answers import Recommendations, Similar
    from fastmf.evaluation import evaluate
    from fastmf.interactions import Interactions, read_parquet
    from fastmf.models import ALS, BPR, SGD, ImplicitALS, SVDpp
    from fastmf.output import load
    from fastmf.scoring import index_items, top_k

_MODULE_OF = {
    "ALS": "fastmf.models",
    "BPR": "fastmf.models",
    "SGD": "fastmf.models",
    "ImplicitALS": "fastmf.models",
    "Interactions": "fastmf.interactions",
    "Recommendations": "fastmf.answers",
    "SVDpp": "fastmf.models",
    "Similar": "fastmf.answers",
    "__version__": "fastmf._version",
    "evaluate": "fastmf.evaluation",
    "index_items": "fastmf.scoring",
    "load": "fastmf.output",
    "read_parquet": "fastmf.interactions",
    "top_k": "fastmf.scoring",
}
_SUBMODULES = ("errors", "metrics", "split", "testing")

__all__ = [
    "ALS",
    "BPR",
    "SGD",
    "ImplicitALS",
    "Interactions",
    "Recommendations",
    "SVDpp",
    "Similar",
    "__version__",
    "errors",
    "evaluate",
    "index_items",
    "load",
    "metrics",
    "read_parquet",
    "split",
    "testing",
    "top_k",
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
