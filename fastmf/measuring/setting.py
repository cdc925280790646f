"""The setting of an evaluation, and the measuring of a model in it."""

import math
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastmf.answering.asked import read_once
from fastmf.answering.fitted import Fitted
from fastmf.answering.scoring import COLD, Scorer
from fastmf.backend import get_backend
from fastmf.common.parameters import require_choice, require_integer, require_number
from fastmf.errors import DataError, ParameterError, named
from fastmf.measuring.matching import Candidates, Excluded, MatchedPairs, as_candidates
from fastmf.measuring.measurement import Measurement
from fastmf.measuring.metrics import METRICS, Inputs, Metric, Owners
from fastmf.measuring.ranked import ranked_among, rows_to_rank
from fastmf.measuring.rankings import Rankings
from fastmf.reading.interactions import Interactions, as_interactions
from fastmf_kernels._types import BoolArray, Int32Array


class Measurable(Protocol):
    """What an evaluation asks of a model."""

    @property
    def backend(self) -> str:
        """Which kernels run."""

    @property
    def n_threads(self) -> int | None:
        """Number of threads; None: all cores."""

    @property
    def fitted(self) -> Fitted:
        """The result of a fit."""

    @property
    def is_implicit(self) -> bool:
        """Whether ratings say only what was chosen."""


class Setting(NamedTuple):
    """What is measured, on what, and how: parameters of `fastmf.evaluate`, checked as far as they need no model.

    Attributes
    ----------
    metrics : list of Metric
    cut_offs : tuple of int
        Empty if no metric is one of rankings.
    test : Interactions
        With a rating.
    exclude : "seen", Interactions or None
    among : Interactions or None
    min_relevant_rating : float or None
    cold : str
    """

    metrics: list[Metric]
    cut_offs: tuple[int, ...]
    test: Interactions
    exclude: Any
    among: Interactions | None
    min_relevant_rating: float | None
    cold: str

    @classmethod
    def of(
        cls,
        test: Any,
        *,
        exclude: str | Interactions | None,
        among: Any,
        k: Any,
        metrics: list[Metric],
        min_relevant_rating: float | None,
        cold: str,
    ) -> "Setting":
        """Check parameters of `fastmf.evaluate`."""
        require_choice("cold", cold, COLD)
        if min_relevant_rating is not None:
            require_number("min_relevant_rating", min_relevant_rating, minimum=-math.inf)
        cut_offs = _checked_cut_offs(k) if any(is_of_rankings(metric) for metric in metrics) else ()
        held_out = as_interactions(test, "test")
        if held_out.n_ratings == 0:
            raise DataError("the test part has no ratings; expected at least one")
        candidates = None if among is None else as_candidates(among)
        return cls(metrics, cut_offs, held_out, exclude, candidates, min_relevant_rating, cold)

    def is_relevant(self, is_implicit: bool) -> BoolArray | None:
        """Tell which test ratings are relevant, shape (n_ratings,); None for all."""
        ratings = self.test.ratings
        if self.min_relevant_rating is not None:
            return np.asarray(ratings >= self.min_relevant_rating)
        if is_implicit and not (ratings > 0).all():
            return np.asarray(ratings > 0)
        return None


def is_of_rankings(metric: Metric) -> bool:
    """Whether a metric needs rankings; others need predictions."""
    return "predictions" not in metric.inputs


def checked_metrics(names: Iterable[str] | None, by_user: bool = False) -> list[Metric]:
    """Return the metrics of these names, or the default ones, in the order of `METRICS`.

    Parameters
    ----------
    names : iterable of str, optional
    by_user : bool
        Whether they need values for each user: those that have none are refused if they are named, else left out.
    """
    if names is None:
        return [metric for metric in METRICS.values() if metric.is_default and (metric.has_users or not by_user)]
    listed = (names,) if isinstance(names, str) or not isinstance(names, Iterable) else tuple(names)
    if not listed or any(name not in tuple(METRICS) for name in listed):
        raise ParameterError(f"{named('metrics')} are {list(listed)!r}; expected some of {', '.join(METRICS)}")
    chosen = [metric for metric in METRICS.values() if metric.name in listed]
    without = [metric.name for metric in chosen if not metric.has_users]
    if by_user and without:
        some = ", ".join(name for name, metric in METRICS.items() if metric.has_users)
        raise ParameterError(
            f"{named('metrics')} include {', '.join(without)}, without a value for each user; expected some of {some}"
        )
    return chosen


def _checked_cut_offs(k: Any) -> tuple[int, ...]:
    cut_offs = tuple(read_once(k)) if isinstance(k, Iterable) and not isinstance(k, (str, bytes)) else (k,)
    if not cut_offs:
        raise ParameterError(f"{named('k')} is empty; expected an integer of at least 1, or several")
    for cut_off in cut_offs:
        require_integer("k", cut_off, minimum=1)
    return tuple(int(cut_off) for cut_off in cut_offs)


def require_fitted(model: Any, name: str) -> Fitted:
    """Return what a model has learned; raise `ParameterError` if it is no model."""
    fitted = getattr(model, "fitted", None)
    if not isinstance(fitted, Fitted):
        raise ParameterError(f"{name} is of type {type(model).__name__}; expected a model of fastmf")
    return fitted


class Measured(NamedTuple):
    """A model, measured in a setting.

    Attributes
    ----------
    metrics : list of Measurement
        Values of users are those of the users of the test part.
    counts : dict of str to int
        See `fastmf.evaluate`.
    n_relevant, n_relevant_excluded : int
        Relevant test ratings, and those of them that are among the excluded pairs; 0 without rankings.
    """

    metrics: list[Measurement]
    counts: dict[str, int]
    n_relevant: int = 0
    n_relevant_excluded: int = 0


def measure(
    model: Measurable,
    setting: Setting,
    by_user: bool = False,
    is_implicit: bool | None = None,
    called: str | None = None,
) -> Measured:
    """Measure a fitted model.

    Parameters
    ----------
    model : FactorModel
    setting : Setting
    by_user : bool
        Whether metrics are computed for each user, too.
    is_implicit : bool, optional
        Whether only ratings above 0 are relevant. None: as the model says.
    called : str, optional
        The model in messages, if there are several.

    Returns
    -------
    Measured
    """
    # Taken once: another thread may fit the model again meanwhile.
    fitted = require_fitted(model, "model")
    for k in setting.cut_offs:
        if k > fitted.n_items:
            whose = f"the catalogue of {called}" if called else "the catalogue"
            raise ParameterError(
                f"{named('k')} is {k}, but {whose} has {fitted.n_items} items; expected at most as many"
            )
    if not fitted.is_finite():
        raise DataError(f"factors of {called or 'the model'} are infinite or NaN; expected finite ones: fit it again")
    pairs = MatchedPairs.of(setting.test, fitted, setting.cold)
    inputs = _rating_inputs(model, fitted, pairs, setting.test)
    of_ratings = [metric for metric in setting.metrics if not is_of_rankings(metric)]
    metrics = [Measurement.of(metric, metric.name, inputs, by_user) for metric in of_ratings]
    measured = Measured([], {})
    if len(of_ratings) < len(setting.metrics):
        is_relevant = setting.is_relevant(model.is_implicit if is_implicit is None else is_implicit)
        _require_ranked(pairs.taking(is_relevant).users, setting.cold, called or "the model")
        measured = _measure_rankings(model, fitted, pairs, setting, is_relevant, by_user)
    n_unknown = int(np.count_nonzero((pairs.users < 0) | (pairs.items < 0)))
    counts = {"n_ratings": setting.test.n_ratings, "n_unknown": n_unknown}
    return measured._replace(metrics=metrics + measured.metrics, counts=measured.counts | counts)


def _require_ranked(users: Int32Array, cold: str, called: str) -> None:
    """Raise `DataError` unless some of the users with relevant items are ranked; -1 stands for a cold one."""
    if not (len(users) and (cold == "popular" or (users >= 0).any())):
        known = f"is known to {called}" + ("" if cold == "include" else " and has training ratings")
        raise DataError(
            f"no user of the test part with a relevant item {known}: nothing to rank; test on users of the training "
            "ratings"
        )


def _rating_inputs(model: Measurable, fitted: Fitted, pairs: MatchedPairs, test: Interactions) -> Inputs:
    def predictions() -> Any:
        kernels = get_backend(model.backend)
        return kernels.predict_pairs(pairs.users, pairs.items, fitted.factors, fitted.link, model.n_threads)

    return {
        "ratings": cache(lambda: (test.ratings > 0).astype(np.float32) if model.is_implicit else test.ratings),
        "predictions": cache(predictions),
        "raw_ratings": lambda: test.ratings,
        "owners": lambda: Owners(test.users, test.n_users),
    }


def _measure_rankings(
    model: Measurable,
    fitted: Fitted,
    pairs: MatchedPairs,
    setting: Setting,
    is_relevant: BoolArray | None,
    by_user: bool,
) -> Measured:
    test, cold, among = setting.test, setting.cold, setting.among
    scorer = Scorer(fitted, model.backend, model.n_threads)
    exclude = None if among is not None and setting.exclude == "seen" else setting.exclude
    excluded = Excluded.of(exclude, scorer, test, pairs, is_relevant, cold)
    ranked = rows_to_rank(pairs, is_relevant, fitted, excluded, cold)
    of_candidates = {}
    if among is not None:
        candidates = Candidates.of(among, test, fitted, cold)
        ranked = ranked_among(ranked, candidates, test, fitted.n_items)
        of_candidates["n_unknown_candidates"] = candidates.n_unknown
    rankings = Rankings(scorer, model.backend, ranked, test, cold)
    metrics = rankings.measure([each for each in setting.metrics if is_of_rankings(each)], setting.cut_offs, by_user)
    counts = {"n_users": rankings.n_users, "n_cold_users": ranked.n_cold, "n_excluded": excluded.n_test_pairs}
    n_relevant = test.n_ratings if is_relevant is None else int(np.count_nonzero(is_relevant))
    return Measured(metrics, counts | of_candidates, n_relevant, excluded.n_relevant)
