"""Compile every kernel now, so that no later call has to.

example:
  fastmf warmup

Meant for container images and for the start of services. FASTMF_CACHE_DIR says where the machine code goes.
"""

import argparse
import time

from fastmf.cli.options import add_output_options, note, print_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add_output_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Run every kernel once on a tiny problem."""
    import fastmf
    from fastmf_kernels import _jit

    ratings = fastmf.testing.low_rank(n_users=20, n_items=15)
    clicks = fastmf.Interactions.from_arrays(ratings.users, ratings.items)
    started = time.perf_counter()
    for model, data in ((fastmf.SGD(n_epochs=1), ratings), (fastmf.ALS(n_epochs=1), ratings)):
        note(f"compiling {type(model).__name__}", parsed)
        model.fit(data)
    note("compiling ImplicitALS and top-k", parsed)
    implicit = fastmf.ImplicitALS(n_epochs=1).fit(clicks)
    implicit.recommend(k=3)
    implicit.recommend([0], k=3)
    implicit.recommend(k=3, allow={0: [1, 2]})
    directory = _jit.cache_directory()
    result = {"seconds": time.perf_counter() - started, "cache": "none" if directory is None else str(directory)}
    print_result(result, parsed.json)
    return 0
