"""What top-k leaves to the host on a GPU: items are laid out there at most once, and a user is told of it once."""

import weakref

from fastmf_kernels._cuda.notes import say_once
from fastmf_kernels.topk import cpu
from fastmf_kernels.topk.arrays import ItemIndex

# Queries of a call that the host may answer without a word, as a share and as a number: a few always tie.
_SHARE, _NUMBER = 0.01, 10
# An index is found by the identity of its ``places``, an array that each has to itself. When that is gone its finaliser
# takes the layout out, before its identity can be another array's.
_layouts: dict[tuple[int, bool], ItemIndex] = {}


def host_layout(index: ItemIndex, pruning: bool) -> ItemIndex:
    """Return the items of an index as the CPU wants them: made at the first call, and kept as long as the index."""
    key = id(index.places), pruning
    if key not in _layouts:  # two threads may both come here: they make the same
        _layouts[key] = cpu.index_items(index.factors, pruning)
        weakref.finalize(index.places, _layouts.pop, key, None)
    return _layouts[key]


def say_k_is_large(k: int, most: int) -> None:
    """Say that the host searches for so many items."""
    say_once(
        "top-k k", f"top-k with k={k} runs on the CPU: the CUDA kernels find up to {most} items; choose a smaller k"
    )


def say_if_many(n_left: int, n_queries: int) -> None:
    """Say how many queries of a call the host answers, if they are more than is usual."""
    if n_left >= _NUMBER and n_left > _SHARE * n_queries:
        say_once(
            "top-k left",
            f"{n_left} of {n_queries} queries of top-k are answered on the CPU: many items score the same, or scores "
            "are not finite, and the CUDA kernels cannot tell which are the best; look for items with the same factors",
        )


def say_counting() -> None:
    """Say that the host counts which items score higher."""
    say_once(
        "top-k counting",
        'ranks among all items (metrics "auc" and "mean_percentile_rank") are counted on the CPU: there are no CUDA '
        'kernels for it; where it takes too long, choose metrics of the best k, such as "ndcg"',
    )


def say_among() -> None:
    """Say that the host chooses among each query's own candidates."""
    say_once(
        "top-k among",
        "top-k among candidates of each user's own runs on the CPU: there are no CUDA kernels for it; where all users "
        "have the same candidates, pass them as one list",
    )
