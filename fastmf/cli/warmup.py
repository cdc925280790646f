"""Compile every kernel now, so that no later call has to.

example:
  fastmf warmup

Meant for container images and for the start of services. FASTMF_CACHE_DIR says where the machine code goes.
"""

import argparse
import time

from fastmf.cli.options import add_output_options, note, positive_integer, print_result

_LONG_ROW = 5000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "--factors",
        type=positive_integer,
        nargs="+",
        default=[64],
        metavar="N",
        help="numbers of factors to compile sgd, svdpp and bpr for; each has machine code of its own (default: 64)",
    )
    add_output_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Run every kernel once on a tiny problem."""
    import numpy as np

    import fastmf
    from fastmf_kernels import _jit

    ratings = fastmf.testing.low_rank(n_users=20, n_items=15)
    # One user's row is so long that it is cut into parts.
    users, items = np.append(ratings.users, np.full(_LONG_ROW, 20)), np.append(ratings.items, np.arange(_LONG_ROW))
    clicks = fastmf.Interactions.from_arrays(users, items)
    started = time.perf_counter()
    for n_factors in parsed.factors:
        note(f"compiling SGD, SVD++ and BPR, {n_factors} factors", parsed)
        fastmf.SGD(n_factors=n_factors, n_epochs=1).fit(ratings)
        fastmf.SGD(n_factors=n_factors, n_epochs=1, loss="logistic").fit(ratings)
        fastmf.SVDpp(n_factors=n_factors, n_epochs=1).fit(ratings)
        fastmf.BPR(n_factors=n_factors, n_epochs=1).fit(ratings)
    for solver, nonnegative in (("cg", False), ("subspace", False), ("cholesky", True), ("cholesky", False)):
        note(f"compiling ALS, {'nonnegative' if nonnegative else solver}", parsed)
        fastmf.ImplicitALS(n_epochs=1, n_factors=16, solver=solver, nonnegative=nonnegative).fit(clicks)
    note("compiling predictions, top-k and evaluation", parsed)
    fastmf.ALS(n_epochs=1).fit(ratings)
    implicit = fastmf.ImplicitALS(n_epochs=1).fit(clicks)
    implicit.recommend(k=3)
    implicit.recommend(k=3, allow={0: [1, 2]})
    fastmf.evaluate(implicit, clicks, k=3, exclude=None, metrics=["ndcg", "auc"])
    for pruning in (True, False):
        fastmf.top_k(implicit.user_factors, fastmf.index_items(implicit.item_factors, pruning=pruning), 3)
    fastmf.top_k(implicit.user_factors[0], implicit.item_factors, 3)
    directory = _jit.cache_directory()
    result = {"seconds": time.perf_counter() - started, "cache": "none" if directory is None else str(directory)}
    print_result(result, parsed.json)
    return 0
