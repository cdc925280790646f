"""Quality on real data sets with official splits, beside published figures.

The data is not part of fastmf: ``--data`` names a directory with ``movielens-100k/splits/u{1..5}_{train,test}.parquet``
(the five official folds) and ``ncf-movielens-1m/{train,test,test_negatives}.parquet`` (the leave-one-out split of He et
al., "Neural Collaborative Filtering", WWW 2017), with columns ``user_id``, ``item_id`` and, in ratings, ``rating``.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

import fastmf
from fastmf_bench.machine import describe

IntArray = npt.NDArray[np.int64]


class Line(NamedTuple):
    """One measured figure beside its target."""

    data: str
    model: str
    metric: str
    figure: float
    spread: float
    target: float
    lower_is_better: bool
    seconds: float

    @property
    def met(self) -> bool:
        """Whether the figure reaches the target."""
        return self.figure <= self.target if self.lower_is_better else self.figure >= self.target


def add_suite(suites: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``fastmf bench quality``."""
    parser = suites.add_parser(
        "quality",
        help="quality on real data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="directory of the data sets")
    parser.add_argument("--only", choices=sorted(_SUITES), help="one data set only (default: all)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=list(range(5)), help="figures are means over these (default: 0 to 4)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Measure, print, and return 1 if a data set is missing."""
    lines: list[Line] = []
    status = 0
    for name, measure in _SUITES.items():
        if parsed.only not in (None, name):
            continue
        if not (parsed.data / name).is_dir():
            print(f"{name}: skipped, {parsed.data / name} is not there", file=sys.stderr)
            status = 1
            continue
        lines += measure(parsed.data / name, parsed.seeds)
    if parsed.json:
        figures = [{**line._asdict(), "met": line.met} for line in lines]
        print(
            json.dumps({"suite": "quality", "seeds": parsed.seeds, "machine": describe(), "lines": figures}, indent=2)
        )
    else:
        _print_table(lines)
    return status


def movielens_100k(folder: Path, seeds: Sequence[int]) -> list[Line]:
    """Measure biased SGD on the five official folds: mean RMSE over folds, and of u1 alone.

    The hyper-parameters were chosen by looking at these folds, as those of the published figures were.
    """
    started = time.perf_counter()
    by_seed = np.array([[_fold_rmse(folder / "splits", fold, seed) for fold in range(1, 6)] for seed in seeds])
    seconds = (time.perf_counter() - started) / len(seeds)
    mean, u1 = by_seed.mean(axis=1), by_seed[:, 0]
    return [
        _line("movielens-100k", "SGD", "mean RMSE of u1..u5", mean, 0.908, True, seconds),
        _line("movielens-100k", "SGD", "RMSE of u1", u1, 0.919, True, seconds / 5),
    ]


def _fold_rmse(splits: Path, fold: int, seed: int) -> float:
    train = fastmf.read_parquet(splits / f"u{fold}_train.parquet")
    test = fastmf.read_parquet(splits / f"u{fold}_test.parquet")
    model = fastmf.SGD(
        n_factors=100,
        n_epochs=80,
        learning_rate=0.015,
        learning_rate_decay=0.97,
        regularization=0.08,
        bias_regularization=0.03,
        seed=seed,
    ).fit(train)
    return fastmf.evaluate(model, test, metrics=["rmse"])["rmse"]


def ncf_movielens_1m(folder: Path, seeds: Sequence[int]) -> list[Line]:
    """Measure iALS on leave-one-out with 99 sampled negatives, settings of Rendle et al. (RecSys 2022)."""
    train = fastmf.read_parquet(folder / "train.parquet")
    test, negatives = (_pairs(folder / f"{name}.parquet") for name in ("test", "test_negatives"))
    figures = []
    started = time.perf_counter()
    for seed in seeds:
        model = fastmf.ImplicitALS(
            n_factors=192, n_epochs=12, regularization=0.007, unobserved_weight=0.3, init_scale=0.1, seed=seed
        ).fit(train)
        figures.append(leave_one_out(model.predict, test, negatives, k=10))
    seconds = (time.perf_counter() - started) / len(seeds)
    hit_rate, ndcg = np.array(figures).T
    return [
        _line("ncf-movielens-1m", "ImplicitALS", "HR@10", hit_rate, 0.729, False, seconds),
        _line("ncf-movielens-1m", "ImplicitALS", "NDCG@10", ndcg, 0.450, False, seconds),
    ]


def leave_one_out(
    predict: Callable[[IntArray, IntArray], npt.NDArray[np.float32]],
    test: tuple[IntArray, IntArray],
    negatives: tuple[IntArray, IntArray],
    k: int,
) -> tuple[float, float]:
    """Rank each user's test item among his sampled negatives: hit rate and NDCG at k.

    A negative listed twice counts once, and one that is the test item itself not at all, as in the original evaluation.
    Of equal scores the test item comes last.

    Parameters
    ----------
    predict : callable
        Scores of (user ids, item ids).
    test : (user ids, item ids)
        One row a user.
    negatives : (user ids, item ids)
        In long form.
    k : int

    Returns
    -------
    hit_rate, ndcg : float
    """
    order = np.argsort(test[0])
    users, items = test[0][order], test[1][order]
    scores = predict(users, items)
    pairs = np.unique(np.stack(negatives), axis=1)
    row = np.searchsorted(users, pairs[0])
    other = pairs[1] != items[row]
    at_least_as_good = predict(pairs[0][other], pairs[1][other]) >= scores[row[other]]
    rank = np.bincount(row[other][at_least_as_good], minlength=len(users))
    hit = rank < k
    return float(hit.mean()), float((hit / np.log2(rank + 2)).mean())


def _pairs(path: Path) -> tuple[IntArray, IntArray]:
    table = pq.read_table(path, columns=["user_id", "item_id"])
    return table["user_id"].to_numpy(), table["item_id"].to_numpy()


def _line(
    data: str, model: str, metric: str, figures: Any, target: float, lower_is_better: bool, seconds: float
) -> Line:
    spread = float(np.max(figures) - np.min(figures))
    return Line(data, model, metric, float(np.mean(figures)), spread, target, lower_is_better, seconds)


def _print_table(lines: Sequence[Line]) -> None:
    print(f"{'data':<18}{'model':<13}{'metric':<21}{'figure':>8}{'spread':>8}{'target':>9}{'':>8}{'seconds':>9}")
    for line in lines:
        bound = ("≤ " if line.lower_is_better else "≥ ") + f"{line.target:.3f}"
        verdict = "met" if line.met else "missed"
        print(
            f"{line.data:<18}{line.model:<13}{line.metric:<21}{line.figure:>8.4f}{line.spread:>8.4f}{bound:>9}"
            f"{verdict:>8}{line.seconds:>9.1f}"
        )


_SUITES: dict[str, Callable[[Path, Sequence[int]], list[Line]]] = {
    "movielens-100k": movielens_100k,
    "ncf-movielens-1m": ncf_movielens_1m,
}
