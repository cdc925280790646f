"""Compile every kernel now, so that no later call has to.

example:
  fastmf warmup

Meant for container images and for the start of services. FASTMF_CACHE_DIR says where the machine code goes.
"""

import argparse
import itertools
import time

from fastmf.cli.options import add_output_options, note, positive_integer, print_result
from fastmf.errors import OutputError

_LONG_ROW = 5000
# So many lists are re-ranked on all threads, fewer on one.
_MANY_LISTS = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "--factors",
        type=positive_integer,
        nargs="+",
        default=[64],
        metavar="N",
        help="numbers of factors to compile for: the kernels of sgd, svdpp and bpr differ with them (default: 64)",
    )
    add_output_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Run every kernel once on a tiny problem, and make sure that all machine code was stored."""
    from fastmf_kernels import _cache, _jit

    _require_usable_cache()
    started, before = time.perf_counter(), _jit.compilations()
    _compile_everything(parsed)
    compiled, stored = (now - then for now, then in zip(_jit.compilations(), before, strict=True))
    _require_stored(compiled, stored)
    result = {"seconds": time.perf_counter() - started, "cache": str(_cache.cache_root()), "compiled": compiled}
    print_result(result, parsed.json)
    return 0


def _compile_everything(parsed: argparse.Namespace) -> None:
    import numpy as np

    import fastmf
    from fastmf.models import FACTOR_MODELS
    from fastmf.models.descent import DescentModel

    ratings = fastmf.testing.low_rank(n_users=20, n_items=15)
    # One user's row is so long that it is cut into parts.
    users, items = np.append(ratings.users, np.full(_LONG_ROW, 20)), np.append(ratings.items, np.arange(_LONG_ROW))
    clicks = fastmf.Interactions.from_arrays(users, items)
    newcomer = fastmf.Interactions.from_arrays([0, 0, 1], [0, 1, 0])
    for model in FACTOR_MODELS.values():
        for n_factors, settings in itertools.product(parsed.factors, model.kernel_variants):
            chosen = "".join(f", {name}={value}" for name, value in settings.items())
            note(f"compiling {model.__name__}, {n_factors} factors{chosen}", parsed)
            fitted = model(n_factors=n_factors, n_epochs=1, **settings).fit(clicks)
            if isinstance(fitted, DescentModel):
                for side in ("user", "item"):
                    fitted.fold_in(newcomer, side)
    note("compiling predictions, top-k and evaluation", parsed)
    implicit = fastmf.ImplicitALS(n_epochs=1).fit(clicks)
    implicit.predict(range(20), range(20))
    implicit.recommend(k=3)
    implicit.recommend(k=3, allow={0: [1, 2]})
    for n_users in (1, _MANY_LISTS):
        implicit.recommend([0] * n_users, k=3, rerank=fastmf.Reranking(diversify=0.5, n_candidates=5))
    fastmf.evaluate(implicit, clicks, k=3, exclude=None, metrics=["rmse", "ndcg", "auc"])
    for pruning in (True, False):
        fastmf.top_k(implicit.user_factors, fastmf.index_items(implicit.item_factors, pruning=pruning), 3)
    fastmf.top_k(implicit.user_factors[0], implicit.item_factors, 3)


def _require_usable_cache() -> None:
    """Make sure, before anything is compiled, that there is a cache to write to, or one that may be complete.

    Raises
    ------
    OutputError
        If there is neither.
    """
    from fastmf_kernels import _cache, _jit

    if not _jit.IS_COMPILING:
        raise OutputError("NUMBA_DISABLE_JIT is set: nothing would be compiled; unset it")
    obstacle = _cache.why_not_writable()
    if obstacle is not None and not _cache.count_stored(_jit.COMPILER):
        raise OutputError(
            f"what would be compiled cannot be kept: {obstacle}; set FASTMF_CACHE_DIR to a folder that can be written"
        )


def _require_stored(compiled: int, stored: int) -> None:
    """Make sure that no later process has to compile again.

    Raises
    ------
    OutputError
        If something was compiled, and could not be stored.
    """
    from fastmf_kernels import _cache

    if stored < compiled:
        raise OutputError(
            f"{compiled} kernels were compiled, and {stored} of them stored in {_cache.cache_root()}; make room or set "
            "FASTMF_CACHE_DIR to a folder that can be written, and run this again"
        )
