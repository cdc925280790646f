"""Recall@20 on items without training ratings, with few, and with many: models with features, baselines and peers.

For the suite cold, ``--data`` names a directory with some of these folders, whose ratings have columns ``user_id`` and
``item_id``: movielens-1m (ratings.parquet; items.parquet with title and genres), citeulike-a (interactions.parquet;
item_tags.parquet with tag_id), anime-5k (interactions.parquet; items.parquet with genre and type),
book-crossing-10core (interactions.parquet; items.parquet with author and publisher) and amazon-beauty-seq
(interactions.parquet; item_attributes.parquet with attribute_id). ``--sets`` names those that are wanted. A fifth of
the items is held out whole, a tenth keeps 1 to 4 of its ratings, and of the others a tenth of the ratings is held out.
"""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from fastmf_bench import cold_methods, cold_peers
from fastmf_bench.cold_methods import Given, Method
from fastmf_bench.cold_recall import Estimate, K, difference, estimates, questions_of, recalls
from fastmf_bench.cold_sets import ColdSet, find_sets, hold_out, load
from fastmf_bench.contest import Contestant
from fastmf_bench.pace import Pace, Task
from fastmf_bench.results import OURS, Measurement, Run
from fastmf_bench.session import Session

SUITE, TASK = "cold", f"Recall@{K}"
HYBRID, PLAIN = f"{OURS}, ImplicitALS with features", f"{OURS}, ImplicitALS"
POPULARITY, CONTENT = "popularity", "features alone"
METHODS: dict[str, Method] = {
    "random": cold_methods.at_random,
    POPULARITY: cold_methods.popularity,
    f"{CONTENT}, sum of cosines": cold_methods.summed_cosines,
    f"{CONTENT}, mean profile": cold_methods.mean_profile,
    f"{CONTENT}, near neighbours": cold_methods.near_neighbours,
    PLAIN: cold_methods.plain,
    HYBRID: cold_methods.hybrid,
}
# By the name of the peer on the command line. Their matrices of confidence are sparse: BLAS is called by their threads.
PEERS: dict[str, Method] = {
    "irspack": cold_peers.irspack,
    "lightfm": cold_peers.lightfm,
    "cmfrec": cold_peers.cmfrec,
}
# Metrics of which those of the model without features are taken away.
COMPARED = ("few", "few of few", "rest", "few of all", "rest of all")


def run(session: Session) -> None:
    """Measure every method on each data set; on the smallest one in a quick run."""
    options = session.options
    if options.data is None:
        session.leave_out(SUITE, "it needs real data, in the directory that --data names")
        return
    found: list[ColdSet] = []
    with session.noting(SUITE):
        found = find_sets(options.data, options.sets)
    if options.quick and found:
        found = [min(found, key=lambda one: one.n_bytes)]
    peers = [peer for peer in PEERS if session.has(peer)]
    for cold_set in found:
        shared = {"cold_set": cold_set, "seed": options.seeds[0], "n_threads": options.n_threads}
        contestants = [Contestant(name, "cold.method", {**shared, "method": name}) for name in (*METHODS, *peers)]
        session.race(SUITE, TASK, cold_set.name, {"seed": options.seeds[0]}, contestants, n_laps=0)


def of_method(_: Pace, cold_set: ColdSet, method: str, seed: int, n_threads: int) -> dict[str, Any]:
    """Measure a method: every metric with its interval, and the seconds until it can score.

    From the metrics of the model with features, those of the model without are also taken away, user by user.
    """
    whole, features = load(ColdSet(*cold_set))
    given = Given(hold_out(whole, seed), features, seed, n_threads)
    questions = questions_of(given.parts)
    started = time.perf_counter()
    scores = (METHODS | PEERS)[method](given)
    figures: dict[str, Any] = {"seconds": time.perf_counter() - started}
    values = recalls(scores, given.train, questions)
    found = estimates(values, seed)
    figures |= {name: estimate.value for name, estimate in found.items()}
    figures["intervals"] = [[name, estimate.low, estimate.high] for name, estimate in found.items()]
    if method == HYBRID:
        compared = {name: questions[name] for name in COMPARED}
        without = recalls(cold_methods.plain(given), given.train, compared)
        differences = {name: difference(values[name], without[name], seed) for name in COMPARED}
        figures["less plain"] = [[name, *found] for name, found in differences.items() if found is not None]
    return figures


class Result(NamedTuple):
    """What a method reaches on a data set.

    Attributes
    ----------
    name : str
        Of the data set.
    method : str
    recalls : dict of str to Estimate
        By the names of `fastmf_bench.cold_recall.questions_of`.
    less_plain : dict of str to Estimate
        Of the model with features: its metrics less those of the model without.
    seconds : float
        Until it could score.
    """

    name: str
    method: str
    recalls: dict[str, Estimate]
    less_plain: dict[str, Estimate]
    seconds: float


def results(run: Run) -> dict[str, list[Result]]:
    """Return what a run has measured, by data set. Of the methods of features alone, the best on cold items is shown.

    That is the best on the test part: no choice on training ratings could do better.
    """
    found: dict[str, list[Result]] = {}
    for race in run.races():
        if race[0].suite == SUITE:
            found[race[0].problem] = list(_with_best_content([_result(m) for m in race]))
    return found


def _result(m: Measurement) -> Result:
    recalls = {name: Estimate(m.figures[name], low, high) for name, low, high in m.figures["intervals"]}
    less_plain = {name: Estimate(*found) for name, *found in m.figures.get("less plain", [])}
    return Result(m.problem, m.contestant, recalls, less_plain, m.figures["seconds"])


def _with_best_content(found: list[Result]) -> Iterator[Result]:
    content = [result for result in found if _is_of(result, CONTENT)]
    best = max(content, key=_on_cold_items, default=None)
    return (result for result in found if result not in content or result is best)


def _on_cold_items(result: Result) -> float:
    return result.recalls["cold"].value if "cold" in result.recalls else 0.0


def clearance(found: list[Result], other: str) -> float | None:
    """Return the low end of the recall of cold items by the model with features, over the high end by others.

    Parameters
    ----------
    found : list of Result
        Of a data set.
    other : str
        How the names of the others begin.
    """
    own, others = (_recalls(found, name, "cold") for name in (HYBRID, other))
    return own[0].low / max(one.high for one in others) if own and others else None


def gain_on_few(found: list[Result]) -> float | None:
    """Return the low end of what features add to the recall of items with few ratings."""
    gains = [result.less_plain["few"].low for result in found if "few" in result.less_plain]
    return gains[0] if gains else None


def share_of_rest(found: list[Result]) -> float | None:
    """Return the recall of items with many ratings by the model with features, over that without."""
    own, plain = (_recalls(found, name, "rest") for name in (HYBRID, PLAIN))
    return own[0].value / plain[-1].value if own and plain and plain[-1].value else None


def _recalls(found: list[Result], method: str, name: str) -> list[Estimate]:
    return [r.recalls[name] for r in found if _is_of(r, method) and name in r.recalls]


def _is_of(result: Result, method: str) -> bool:
    return result.method == method or result.method.startswith(f"{method}, ")


TASKS: dict[str, Task] = {"cold.method": of_method}
