"""Which of two models is better, by how much, and whether that could be chance."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from fastmf.answering.fitted import Fitted
from fastmf.errors import DataError, ParameterError, QualityWarning, named
from fastmf.measuring.bootstrap import groups_of_users, interval, require_level, totals_of_samples
from fastmf.measuring.measurement import Measurement
from fastmf.measuring.metrics import Metric
from fastmf.measuring.randomisation import p_value
from fastmf.measuring.setting import Measurable, Measured, Setting, checked_metrics, measure, require_fitted
from fastmf.measuring.user_values import UserValues
from fastmf.reading.interactions import Interactions
from fastmf_kernels._notes import level_of_user

# So large a share of the relevant test ratings may be excluded.
_MOST_EXCLUDED = 0.5


class Difference(NamedTuple):
    """A metric of two models, on the same users.

    Attributes
    ----------
    a, b : float or None
        The metric of each model; None if no user has a value with both of them, and so for the next four.
    difference : float or None
        b - a.
    low, high : float or None
        Its confidence interval; None for a single user.
    p_value : float or None
        Two-sided; small if the difference is unlikely to be chance. It is 1 for a single user.
    n_users : int
        Users who have a value with both models.
    n_won, n_tied, n_lost : int
        For how many of them model b is better, equal, or worse.
    n_excluded : int
        Test ratings that are among the excluded pairs, which a ranking can only miss.
    """

    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    n_users: int
    n_won: int
    n_tied: int
    n_lost: int
    n_excluded: int = 0


_UNDEFINED = Difference(None, None, None, None, None, None, 0, 0, 0, 0)


def compare(
    model_a: Measurable,
    model_b: Measurable,
    test: Any,
    *,
    exclude: str | Interactions | None = "seen",
    among: Any = None,
    k: int | Sequence[int] = 10,
    metrics: Iterable[str] | None = None,
    min_relevant_rating: float | None = None,
    cold: str = "skip",
    ci: float = 0.95,
    seed: int = 0,
) -> dict[str, Difference]:
    """Compare two fitted models on the same test ratings, user by user.

    Each metric is measured as by `fastmf.evaluate`, for the users for whom it is defined with both models. Metrics of
    rankings leave out a user whom one of the models cannot rank, because he is cold to it, unless ``cold`` says
    otherwise; ``rmse``, ``mae`` and ``fcp`` measure all test ratings of both models.

    The interval is that of the paired bootstrap: users are drawn with replacement 1,000 times, and both models are
    measured on the same samples (Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). Of a few
    users it is too narrow.

    The p-value is that of the paired randomisation test: the values of the two models are exchanged for some users, and
    p is the share of choices of users after which the models differ by as much as they do, or more. All choices count
    where the models differ for 14 users or fewer, else 10,000 random ones and the one that was observed. With n such
    users p is at least 2 ** (1 - n): five users or fewer never give a p below 0.05 (Smucker, Allan, Carterette, "A
    comparison of statistical significance tests for information retrieval evaluation", CIKM 2007). It tells of chance
    in who was tested: models that were trained with other seeds, or on other ratings, vary beyond that.

    Parameters
    ----------
    model_a, model_b : FactorModel
        Fitted.
    test : Interactions, table or SciPy sparse matrix
    exclude : "seen", Interactions or None
        Items that are not ranked for a user, the same for both models: those of the training ratings of either, of
        these pairs, or none.
    among, k, min_relevant_rating, cold
        See `fastmf.evaluate`. If one of the models is implicit, only ratings above 0 are relevant for both, unless
        ``min_relevant_rating`` is given.
    metrics : sequence of str, optional
        Those that are measured by default, but for ``coverage``; without ``rmse`` and ``mae`` if one model predicts
        ratings and the other preferences.
    ci : float
        Level of the intervals.
    seed : int
        Of the samples and of the exchanges.

    Returns
    -------
    dict of str to Difference
        By the names of `fastmf.evaluate`, such as ``ndcg@10``.

    Raises
    ------
    ParameterError
        If a metric is unknown, has no value for each user, or means something else for each of the models.
    DataError
        If there is nothing to measure, or there is no user whom both models can rank.

    Warns
    -----
    QualityWarning
        If more than half of the relevant test ratings are among the excluded pairs, as where one of the models was
        trained on them.

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.testing.low_rank(n_users=50, n_items=20, density=0.5, seed=0)
    >>> train, test = fastmf.split.random(ratings, test_fraction=0.2)
    >>> small, large = (fastmf.ALS(n_factors=n).fit(train) for n in (1, 4))
    >>> found = fastmf.compare(small, large, test, metrics=["rmse"])["rmse"]
    >>> found.difference < 0
    True
    """
    require_level(ci, seed)
    fitted_a, fitted_b = require_fitted(model_a, "model_a"), require_fitted(model_b, "model_b")
    setting = Setting.of(
        test,
        exclude=_same_exclusion(exclude, fitted_a, fitted_b) if among is None else exclude,
        among=among,
        k=k,
        metrics=_comparable(metrics, model_a, model_b),
        min_relevant_rating=min_relevant_rating,
        cold=cold,
    )
    is_implicit = model_a.is_implicit or model_b.is_implicit
    a, b = (
        measure(model, setting, by_user=True, is_implicit=is_implicit, called=called)
        for called, model in (("model_a", model_a), ("model_b", model_b))
    )
    _warn_of_excluded(a, b)
    found = _differences(a.metrics, b.metrics, ci, seed)
    n_excluded = max(each.counts.get("n_excluded", 0) for each in (a, b))
    return {name: difference._replace(n_excluded=n_excluded) for name, difference in found.items()}


def _warn_of_excluded(a: Measured, b: Measured) -> None:
    """Say that most of what is to be found cannot be found."""
    n_excluded, n_relevant = max(a.n_relevant_excluded, b.n_relevant_excluded), a.n_relevant
    if n_excluded <= _MOST_EXCLUDED * n_relevant:
        return
    message = (
        f"{n_excluded:,} of {n_relevant:,} relevant test ratings are among the excluded pairs, and both models can "
        f"only miss them: the rankings say little. Test on ratings that neither model was trained on, or set "
        f"{named('exclude')}"
    )
    warnings.warn(QualityWarning(message), stacklevel=level_of_user())


def _comparable(names: Iterable[str] | None, model_a: Measurable, model_b: Measurable) -> list[Metric]:
    """Return metrics that mean the same for both models."""
    chosen = checked_metrics(names, by_user=True)
    if model_a.is_implicit == model_b.is_implicit:
        return chosen
    of_kind = [metric.name for metric in chosen if "ratings" in metric.inputs]
    if names is not None and of_kind:
        raise ParameterError(
            f"{named('metrics')} include {', '.join(of_kind)}, but one model predicts ratings and the other "
            "preferences; expected metrics of rankings"
        )
    return [metric for metric in chosen if metric.name not in of_kind]


def _same_exclusion(exclude: Any, a: Fitted, b: Fitted) -> Any:
    """Return what is excluded for both models: with "seen", the training pairs of either."""
    if exclude != "seen":
        return exclude
    same_ids = a.user_ids.equals(b.user_ids) and a.item_ids.equals(b.item_ids)
    same_rows = np.array_equal(a.seen.indptr, b.seen.indptr) and np.array_equal(a.seen.indices, b.seen.indices)
    if same_ids and same_rows:
        return exclude
    users, items = zip(*(_training_pairs(fitted) for fitted in (a, b)), strict=True)
    return Interactions.from_arrays(_joined(users), _joined(items), duplicates="first")


def _training_pairs(fitted: Fitted) -> tuple[pa.Array, pa.Array]:
    users = np.repeat(np.arange(fitted.n_users), np.diff(fitted.seen.indptr))
    return fitted.user_ids.take(pa.array(users)), fitted.item_ids.take(pa.array(fitted.seen.indices))


def _joined(parts: Sequence[pa.Array]) -> pa.ChunkedArray:
    if len({pa.types.is_integer(part.type) for part in parts}) > 1:
        raise DataError("the ids of one model are integers, and those of the other strings; expected the same ids")
    kind = pa.int64() if pa.types.is_integer(parts[0].type) else pa.large_string()
    return pa.chunked_array([part.cast(kind) for part in parts])


def _differences(a: Sequence[Measurement], b: Sequence[Measurement], ci: float, seed: int) -> dict[str, Difference]:
    metrics = {each.name: each.metric for each in a}
    values_a, values_b = ({each.name: each.of_users for each in found if each.of_users} for found in (a, b))
    common = {name: values_a[name].is_defined & values_b[name].is_defined for name in metrics}
    if not any(users.any() for users in common.values()):
        raise DataError("no user of the test part can be ranked by both models; expected users whom both know")
    found: dict[str, Difference] = {}
    for users, names in groups_of_users(common):
        if not users.any():
            found |= dict.fromkeys(names, _UNDEFINED)
            continue
        pairs = [(values_a[name].take(users), values_b[name].take(users)) for name in names]
        totals = totals_of_samples([values for pair in pairs for values in pair], seed)
        differences = totals[:, 1::2] - totals[:, ::2]
        n_users = int(np.count_nonzero(users))
        for name, pair, column in zip(names, pairs, differences.T, strict=True):
            found[name] = _difference(metrics[name], *pair, interval(column, ci, n_users), seed)
    return {name: found[name] for name in metrics}


def _difference(
    metric: Metric, a: UserValues, b: UserValues, bounds: tuple[float | None, float | None], seed: int
) -> Difference:
    gains = b.values - a.values if metric.higher_is_better else a.values - b.values
    signs = (int(np.count_nonzero(is_so)) for is_so in (gains > 0, gains == 0, gains < 0))
    return Difference(a.total, b.total, b.total - a.total, *bounds, p_value(a, b, seed), len(gains), *signs)
