"""What fastmf set out to reach, and whether the results of a run reach it.

Ratios are of CPU seconds (user + system) in one run, both sides with the same number of threads, unless a line says
wall.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastmf.models import FACTOR_MODELS
from fastmf_bench.results import OURS, Measurement, Run, ratio
from fastmf_bench.suites import als, cold, cuda, defaults, ingest, memory, quality, serve, topk


class Verdict(NamedTuple):
    """Whether a target is met.

    Attributes
    ----------
    what, shape, target : str
        As it was set.
    found : str
        What was measured, or why nothing was.
    verdict : {"met", "missed", "-"}
    """

    what: str
    shape: str
    target: str
    found: str
    verdict: str

    @property
    def was_measured(self) -> bool:
        """Whether the results have it."""
        return self.verdict != "-"


class _Unmeasured(Exception):  # noqa: N818
    """A metric is not in the results; says why."""


class _Bound(NamedTuple):
    """A target as a number: at most, or at least."""

    value: float
    unit: str = ""
    at_least: bool = False

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.value:g}{self.unit}"

    def holds(self, value: float) -> bool:
        return value >= self.value if self.at_least else value <= self.value


# Reads a number off the results of a run; raises `_Unmeasured` where they lack it.
Metric = Callable[[Run], float]


class _Target(NamedTuple):
    """What fastmf set out to reach, and where in the results it is found."""

    what: str
    shape: str
    bound: _Bound
    metric: Metric


def check(runs: Sequence[Run]) -> list[Verdict]:
    """Return the verdict on every target, from the first of the runs that measured it."""
    return [_check(runs, target) for target in _targets()]


def _check(runs: Sequence[Run], target: _Target) -> Verdict:
    what, shape, bound, metric = target
    reason = ""
    for run in runs:
        try:
            value = metric(run)
        except _Unmeasured as error:
            reason = reason or str(error)
            continue
        return Verdict(what, shape, str(bound), f"{value:.4g}{bound.unit}", "met" if bound.holds(value) else "missed")
    return Verdict(what, shape, str(bound), reason, "-")


def _targets() -> Iterator[_Target]:
    yield from _sgd_targets()
    yield from _als_targets()
    yield from _topk_targets()
    yield from _serve_targets()
    yield from _memory_targets()
    yield from _startup_targets()
    yield from _gpu_targets()
    yield from _quality_targets()
    yield from _default_targets()
    yield from _cold_targets()


def _sgd_targets() -> Iterator[_Target]:
    for n_factors in (32, 64, 128):
        shape = f"10M shape, {n_factors} factors"
        race = {"suite": "sgd", "task": "epoch", "problem": "ml-10m", "n_factors": n_factors}
        yield _Target("SGD epoch, CPU of LIBMF's AVX build", shape, _at_most(0.5, " ×"), _ratio(race, OURS, "LIBMF"))
        yield _Target("SGD test RMSE less LIBMF's at equal time", shape, _at_most(0), _error_at_equal_time(n_factors))
    faster = _faster_on_two_threads({"suite": "sgd", "task": "epoch", "problem": "ml-10m", "n_factors": 64})
    yield _Target("SGD updates a second, 2 threads over 1", "10M shape, 64 factors", _at_least(1.8, " ×"), faster)
    descents = ("sgd", "negative_sampling", "svdpp")
    yield _Target("SGD kernels unlike their reference", "small", _at_most(0, " wrong"), _is_proven(*descents))
    same = _is_proven(*descents, "als")
    yield _Target("factors on 1, 2, 3 and 8 threads", "small", _at_most(0, " different"), same)


def _als_targets() -> Iterator[_Target]:
    for n_factors in (64, 128):
        shape = f"10M shape, {n_factors} factors"
        race = {"suite": "als", "task": "implicit sweep", "problem": "ml-10m", "n_factors": n_factors}
        for name, solver, bound in (("exact iALS", "cholesky", 0.2), ("iALS CG", "cg", 0.33)):
            ratio_of_peer = _ratio(race, f"{OURS}, {solver}", f"implicit, {solver}")
            yield _Target(f"{name} sweep, CPU of implicit's", shape, _at_most(bound, " ×"), ratio_of_peer)
    ndcg = {"suite": "quality", "task": quality.OF_SOLVERS, "problem": quality.TOPN}
    objective = {"suite": "als", "task": als.TO_OBJECTIVE, "problem": "ml-10m"}
    for n_factors in als.CURVE_FACTORS:
        for what, shape, curves in (("NDCG@10", quality.TOPN, ndcg), ("objective", "10M shape", objective)):
            time_to_exact = _time_to_exact({**curves, "n_factors": n_factors}, upwards=what == "NDCG@10")
            name = f"iALS subspace to exact {what}, wall of exact"
            yield _Target(name, f"{shape}, {n_factors} factors", _at_most(0.5, " ×"), time_to_exact)
    for n_factors in als.FACTORS:
        race = {"suite": "als", "task": als.WITH_FEATURES, "problem": "ml-1m", "n_factors": n_factors}
        ratio = _ratio(race, als.name_with(["item"]), als.name_with([]), "wall")
        what = "iALS sweep with 10,000 item features, wall of one without"
        yield _Target(what, f"1M shape, {n_factors} factors", _at_most(1.3, " ×"), ratio)
    race = {"suite": "als", "task": "implicit sweep", "problem": "ml-10m", "n_factors": 128}
    rate = _one(race, f"{OURS}, cholesky", lambda m: _known(m.ceiling_fraction, "the ceiling was not measured"))
    yield _Target("exact ALS, share of sgemm's rate", "10M shape, 128 factors", _at_least(0.45), rate)


def _topk_targets() -> Iterator[_Target]:
    for problem, shape in ((topk.RANDOM, "20k × 27k, 64 factors"), (topk.LARGE, "5k × 1M, 128 factors")):
        for k, bound in ((10, 1.15), (100, 1.4)):
            scan = _ratio({"suite": "topk", "task": f"top-{k}", "problem": problem}, OURS, "matmul alone")
            yield _Target(f"full-scan top-{k}, CPU of the matmul alone", shape, _at_most(bound, " ×"), scan)
    race = {"suite": "topk", "task": topk.PRUNED, "problem": topk.RANDOM}
    shape = "20k × 27k, 64 factors"
    yield _Target("top-10 less seen, CPU of implicit's", shape, _at_most(0.5, " ×"), _ratio(race, OURS, "implicit"))
    for name, bound in ((topk.REAL, 0.6), ("ml-1m", 0.6), ("ml-20m", 0.4), ("many-items", 0.4)):
        race = {"suite": "topk", "task": topk.PRUNED, "problem": f"factors trained on {name}"}
        scan = _ratio(race, OURS, "matmul alone")
        yield _Target("top-10 on trained factors, CPU of the matmul", name, _at_most(bound, " ×"), scan)
    query = _ratio({"suite": "topk", "task": topk.QUERIES}, OURS, topk.MATVEC)
    yield _Target("one query, CPU of the matrix-vector product", "100k × 64", _at_most(1.2, " ×"), query)
    evaluation = _ratio({"suite": "topk", "task": topk.EVALUATE, "problem": "ml-20m"}, OURS, topk.RECOMMEND_ALL)
    yield _Target("evaluation, CPU of recommend-all", "20M shape, all users", _at_most(1.2, " ×"), evaluation)


def _serve_targets() -> Iterator[_Target]:
    race = {"suite": "serve", "task": serve.ONE_USER, "problem": serve.RANDOM, "callers": 4}
    for figure, what, bound in ((serve.MEDIAN, "median", 1.0), (serve.P99, "99th percentile", 3.0)):
        found = _ratio_of_figures(race, figure, OURS, topk.MATVEC)
        name = f"one user by Recommender, {what} of the matrix-vector product's"
        yield _Target(name, "100k × 64, 4 threads", _at_most(bound, " ×"), found)
    first = _wall({"suite": "serve", "task": serve.FIRST}, OURS)
    yield _Target("first request in a fresh process, kernels cached", "100k × 64", _at_most(1, " s"), first)


def _memory_targets() -> Iterator[_Target]:
    race = {"suite": "memory", "task": memory.RECOMMEND, "problem": "138k-users"}
    beyond = _one(race, OURS, lambda m: float(m.figures["MB beyond the model"]))
    yield _Target("recommend-all to Parquet, beyond the model", "138k × 27k, 64 factors", _at_most(300, " MB"), beyond)
    for ids, other, bound in ((ingest.KINDS[0], ingest.READ, 2.0), (ingest.KINDS[1], ingest.ENCODE, 1.2)):
        race = {"suite": "ingest", "task": "Parquet to dense ids", "problem": "ml-20m", "ids": ids}
        name = f"Parquet to dense ids, wall of {other.removeprefix('pyarrow, ')}"
        yield _Target(name, f"20 M rows, {ids}", _at_most(bound, " ×"), _ratio(race, OURS, other, "wall"))
    for model in ("SGD", "ImplicitALS"):
        race = {"suite": "memory", "task": memory.TRAIN, "problem": "netflix"}
        peak = _one(race, f"{OURS}, {model}", lambda m: float(m.figures["bytes a rating"]))
        yield _Target(f"peak of training {model}, less factors", "100 M ratings", _at_most(40, " B/rating"), peak)
    absent = _absent("fastmf keeps no blocks on disk yet")
    yield _Target("peak of training with blocks on disk", "100 M ratings", _at_most(0, " B/rating"), absent)


def _startup_targets() -> Iterator[_Target]:
    yield _Target("import fastmf", "", _at_most(0.25, " s"), _wall({"suite": "startup", "task": "import"}, OURS))
    for model in FACTOR_MODELS:
        for kernels, bound in (("cached", 1.0), ("compiled", 10.0)):
            race = {"suite": "startup", "task": f"first fit over the steady one, kernels {kernels}"}
            first = _wall(race, f"{OURS}, {model}")
            yield _Target(f"first fit, kernels {kernels}", model, _at_most(bound, " s"), first)
    load = _wall({"suite": "startup", "task": "load a model"}, OURS)
    yield _Target("fastmf.load", "1 M users × 64", _at_most(0.02, " s"), load)


def _gpu_targets() -> Iterator[_Target]:
    def over_the_floor(race: dict[str, Any]) -> Metric:
        return _one(race, OURS, lambda m: 1 / _known(m.ceiling_fraction, "the ceiling was not measured"))

    for n_factors, shape in itertools.product(cuda.N_FACTORS, cuda.SHAPE_NAMES):
        common = {"suite": "cuda", "problem": shape, "n_factors": n_factors}
        what, bound = f"{shape}, {n_factors} factors", _at_most(2, " ×")
        epoch = over_the_floor({**common, "task": cuda.SGD})
        yield _Target("CUDA, SGD, time over the floor", what, bound, epoch)
        for solver in cuda.SOLVERS:
            sweep = over_the_floor({**common, "task": cuda.SWEEP, "solver": solver})
            yield _Target(f"CUDA, iALS by {solver}, time over the floor", what, bound, sweep)
    for scan in cuda.SCANS:
        search = over_the_floor({"suite": "cuda", "task": f"top-{scan.k}", "problem": str(scan)})
        yield _Target("CUDA, top-100, time over the floor", f"{scan}, 128 factors", _at_most(2, " ×"), search)


def _quality_targets() -> Iterator[_Target]:
    for data, model, metric, bound in (
        (quality.NCF_MOVIELENS_1M, "ImplicitALS", "HR@10", _at_least(0.729)),
        (quality.NCF_MOVIELENS_1M, "ImplicitALS", "NDCG@10", _at_least(0.450)),
        (quality.CITEULIKE, "ImplicitALS", "HR@10", _at_least(0.9006)),
        (quality.CITEULIKE, "ImplicitALS", "NDCG@10", _at_least(0.7313)),
        (quality.MOVIELENS_100K, "SGD", "mean RMSE of u1..u5", _at_most(0.908)),
        (quality.MOVIELENS_100K, "SGD", "RMSE of u1", _at_most(0.919)),
        (quality.MOVIELENS_1M, "SGD", "mean RMSE of 5 folds", _at_most(0.855)),
        (quality.MOVIELENS_100K, "SVDpp", "mean RMSE of u1..u5", _at_most(0.906)),
        (quality.MOVIELENS_1M, "SVDpp", "mean RMSE of 5 folds", _at_most(0.85)),
    ):
        race = {"suite": "quality", "task": "protocol", "problem": data}
        found = _one(race, f"{OURS}, {model}", lambda m, metric=metric: float(m.figures[metric]))  # type: ignore[misc]
        yield _Target(f"{model}: {metric}", data, bound, found)


def _default_targets() -> Iterator[_Target]:
    for name, kind in defaults.KINDS.items():
        shape, bounded = f"worst measured set of {name}", _at_most if kind.is_error else _at_least
        for model in kind.models:
            over = _worst_default(name, model, lambda result: result.over_baseline)
            what = f"{model} by default, {kind.metric} less that of {kind.baseline}"
            yield _Target(what, shape, bounded(kind.to_baseline), over)
        for model in kind.searched:
            of_best = _worst_default(name, model, lambda result: result.of_best)
            what = f"{model} by default, {kind.metric} over the best of a grid"
            yield _Target(what, shape, bounded(kind.to_best), of_best)


def _cold_targets() -> Iterator[_Target]:
    shape = "worst measured set"
    for other in (cold.POPULARITY, cold.CONTENT):
        what = f"cold items: low end of {cold.TASK} over the high end by {other}"
        over = _worst_cold(lambda found, other=other: cold.clearance(found, other))  # type: ignore[misc]
        yield _Target(what, shape, _at_least(1, " ×"), over)
    what = f"items with few ratings: low end of what features add to {cold.TASK}"
    yield _Target(what, shape, _at_least(0), _worst_cold(cold.gain_on_few))
    what = f"items with many ratings: {cold.TASK} with features over that without"
    yield _Target(what, shape, _at_least(0.99, " ×"), _worst_cold(cold.share_of_rest))


def _at_most(value: float, unit: str = "") -> _Bound:
    return _Bound(value, unit)


def _at_least(value: float, unit: str = "") -> _Bound:
    return _Bound(value, unit, at_least=True)


def _find(run: Run, race: dict[str, Any], contestant: str) -> Measurement:
    found = run.select(**race, contestant=contestant)
    # Fewer threads than the run's are there for the plots only; single queries run on one.
    found = [m for m in found if m.settings["n_threads"] == run.n_threads] or found
    if not found:
        where = ", ".join(str(value) for value in race.values())
        raise _Unmeasured(f"not in the results: {contestant} in {where}")
    return found[0]


def _ratio(race: dict[str, Any], first: str, second: str, clock: str = "cpu") -> Metric:
    return lambda run: ratio(_find(run, race, first), _find(run, race, second), clock)


def _ratio_of_figures(race: dict[str, Any], figure: str, first: str, second: str) -> Metric:
    def of(contestant: str) -> Metric:
        return _one(race, contestant, lambda m: float(m.figures[figure]))

    return lambda run: of(first)(run) / of(second)(run)


def _faster_on_two_threads(race: dict[str, Any]) -> Metric:
    def metric(run: Run) -> float:
        found = {m.settings["n_threads"]: m.seconds("wall") for m in run.select(**race, contestant=OURS)}
        if not {1, 2} <= found.keys():
            raise _Unmeasured("not measured on 1 and 2 threads")
        return found[1] / found[2]

    return metric


def _one(race: dict[str, Any], contestant: str, read: Callable[[Measurement], float]) -> Metric:
    def found(run: Run) -> float:
        measurement = _find(run, race, contestant)
        try:
            return read(measurement)
        except KeyError as error:
            raise _Unmeasured(f"{contestant} has no metric {error}") from error

    return found


def _wall(race: dict[str, Any], contestant: str) -> Metric:
    return _one(race, contestant, lambda m: m.seconds("wall"))


def _time_to_exact(race: dict[str, Any], upwards: bool) -> Metric:
    """Return when the subspace solver first is as good as the exact one at its end, by when that first was."""

    def metric(run: Run) -> float:
        exact, subspace = (
            np.array(_find(run, race, f"{OURS}, {solver}").figures["curve"]) for solver in ("cholesky", "subspace")
        )
        goal = exact[-1, 1]
        first, second = (
            curve[curve[:, 1] >= goal if upwards else curve[:, 1] <= goal, 0] for curve in (exact, subspace)
        )
        if not len(second):
            raise _Unmeasured("the subspace solver did not get there")
        return float(second[0] / first[0])

    return metric


def _worst_default(kind: str, model: str, read: Callable[[defaults.Result], float | None]) -> Metric:
    """Return the figure of the data set on which the default settings of a model do worst."""

    def metric(run: Run) -> float:
        if "--quick" in run.command.split():
            raise _Unmeasured("a quick run has two data sets and a few cells of the grid")
        found = [read(result) for result in defaults.results(run) if (result.kind, result.model) == (kind, model)]
        values = [value for value in found if value is not None]
        if not values:
            raise _Unmeasured(f"not in the results: defaults, {model}, {kind}")
        return max(values) if defaults.KINDS[kind].is_error else min(values)

    return metric


def _worst_cold(read: Callable[[list[cold.Result]], float | None]) -> Metric:
    """Return the lowest figure of all data sets with features of items."""

    def metric(run: Run) -> float:
        if "--quick" in run.command.split():
            raise _Unmeasured("a quick run has one data set")
        values = [value for found in cold.results(run).values() if (value := read(found)) is not None]
        if not values:
            raise _Unmeasured("not in the results: cold, with both models and features alone")
        return min(values)

    return metric


def _absent(reason: str) -> Metric:
    def metric(_: Run) -> float:
        raise _Unmeasured(reason)

    return metric


def _known(value: float | None, reason: str) -> float:
    if value is None:
        raise _Unmeasured(reason)
    return value


def _is_proven(*operations: str) -> Metric:
    def metric(run: Run) -> float:
        missing = [operation for operation in operations if operation not in run.proofs]
        if missing:
            raise _Unmeasured(f"{missing[0]} was not proven in this run")
        return float(sum(bool(run.proofs[operation]) for operation in operations))

    return metric


def _error_at_equal_time(n_factors: int) -> Metric:
    """Return fastmf's test error less LIBMF's, the best of each up to the time at which the first of them ends."""

    def metric(run: Run) -> float:
        race = {"suite": "sgd", "task": "error over time", "problem": "ml-10m", "n_factors": n_factors}
        own, other = (np.array(_find(run, race, name).figures["curve"]) for name in (OURS, "LIBMF"))
        end = min(own[-1, 0], other[-1, 0])
        own_best, other_best = (curve[curve[:, 0] <= end, 1].min(initial=np.inf) for curve in (own, other))
        return float(own_best - other_best)

    return metric
