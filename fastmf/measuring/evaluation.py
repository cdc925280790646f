"""How good a model is on ratings it has not seen."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, overload

import pyarrow as pa

from fastmf.common.parameters import require_truth
from fastmf.errors import ParameterError, named
from fastmf.measuring.baseline import baseline_of
from fastmf.measuring.bootstrap import intervals, require_level
from fastmf.measuring.setting import Measurable, Setting, checked_metrics, measure
from fastmf.measuring.user_table import as_table
from fastmf.reading.interactions import Interactions

Evaluation = dict[str, Any]
"""Metrics and counts by name; None is a metric that is undefined."""


@overload
def evaluate(
    model: Measurable,
    test: Any,
    *,
    exclude: str | Interactions | None = "seen",
    among: Any = None,
    k: int | Sequence[int] = 10,
    metrics: Iterable[str] | None = None,
    min_relevant_rating: float | None = None,
    cold: str = "skip",
    per_user: Literal[False] = False,
    ci: float | None = None,
    seed: int = 0,
    baseline: bool = False,
) -> Evaluation: ...


@overload
def evaluate(
    model: Measurable,
    test: Any,
    *,
    exclude: str | Interactions | None = "seen",
    among: Any = None,
    k: int | Sequence[int] = 10,
    metrics: Iterable[str] | None = None,
    min_relevant_rating: float | None = None,
    cold: str = "skip",
    per_user: Literal[True],
    ci: None = None,
    seed: int = 0,
    baseline: Literal[False] = False,
) -> pa.Table: ...


def evaluate(
    model: Measurable,
    test: Any,
    *,
    exclude: str | Interactions | None = "seen",
    among: Any = None,
    k: int | Sequence[int] = 10,
    metrics: Iterable[str] | None = None,
    min_relevant_rating: float | None = None,
    cold: str = "skip",
    per_user: bool = False,
    ci: float | None = None,
    seed: int = 0,
    baseline: bool = False,
) -> Any:
    """Measure a fitted model on test ratings.

    A user or item without a training rating is cold: nothing is known of it, whether or not the model has its id. The
    metrics are thus the same for a split in memory, which keeps all ids, and for the same two parts read from files.

    Parameters
    ----------
    model : FactorModel
        Fitted.
    test : Interactions, table or SciPy sparse matrix
        Matched to the model by outside ids.
    exclude : "seen", Interactions or None
        Items that are not ranked for a user: those of the training ratings, of these pairs, or none. With ``among``,
        "seen" excludes nothing.
    among : Interactions, table, or dict of user id to item ids, optional
        Candidates: for each user only these items and the relevant ones of the test part are ranked, as in evaluations
        with 1 relevant and 99 sampled items. A table has the columns ``user_id`` and ``item_id``. An item counts once,
        however often it is named and also if it is relevant, and it is ranked also if it is among the training ratings,
        as in published evaluations. Candidates that are unknown, or cold where these are not ranked, are left out.
    k : int or sequence of int
        Cut-offs of the ranking metrics.
    metrics : sequence of str, optional
        Names out of `fastmf.metrics.METRICS`, such as ``rmse``, ``ndcg`` or ``coverage``; those that are marked as
        default there if None. What they mean is said in `fastmf.metrics`; ``mean_percentile_rank`` is the share of the
        other candidates that score above a relevant item, 0 at best and about 0.5 by chance (Hu, Koren, Volinsky,
        "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008). For an implicit model, ``rmse`` and
        ``mae`` measure against the preference that it predicts: 1 for a rating above 0, and 0 for others. The gain of
        an item in ``graded_ndcg`` is its test rating, or 0 for a rating below. Only what the named metrics need is
        computed.
    min_relevant_rating : float, optional
        Test items count as relevant from this rating on. None: all of them, or for an implicit model those with a
        rating above 0.
    cold : {"skip", "popular", "include"}
        Cold users are not ranked, or are ranked by the number of training ratings of items. Neither ranks cold items:
        they can only be missed. "include" ranks cold users and items of the model by their factors, as any others.
    per_user : bool
        Whether to return a table of the metrics of each user.
    ci : float, optional
        Level of confidence intervals, such as 0.95, to be added to the metrics: those of the percentile bootstrap over
        users, with 1,000 samples of the users for whom a metric is defined (Efron, Tibshirani, "An Introduction to the
        Bootstrap", 1993). They tell how far a metric would vary with other test users, the model being the same.
    seed : int
        Of the samples.
    baseline : bool
        Whether to measure what the model has to beat, too: the biases of users and items (`fastmf.Bias`) for a model of
        ratings, popularity (`fastmf.Popularity`) for an implicit one, fitted to the same ratings.

    Returns
    -------
    dict
        ``rmse``, ``mae``, ``fcp``, ``auc``, ``mean_percentile_rank`` as named; the others with their cut-off, as
        ``ndcg@10``: means over the ranked users with a relevant item. A metric that is undefined is None. Where items
        of a user have the same score, metrics of relevance are expected values over the random order of these items;
        ``coverage``, ``gini``, ``novelty`` and ``diversity`` are those of the items that would be recommended.

        ``n_ratings`` counts the predicted ratings, and ``n_unknown`` those of them whose user or item is cold (they
        count in ``rmse``, ``mae`` and ``fcp``, without the factors of what is cold). With rankings there are
        ``n_users``, which counts the ranked users; ``n_cold_users``, the cold users with a relevant item; and
        ``n_excluded``, the test ratings that are among the excluded pairs, which can only be missed. With ``among``,
        ``n_unknown_candidates`` counts the candidates of users of the test part that were left out: those that are
        unknown, or cold where these are not ranked. ``auc``,
        ``mean_percentile_rank``, ``graded_ndcg`` and ``diversity`` are means over the users for whom they are defined;
        the first two leave out missed items that are not ranked.

        With ``ci``, ``ndcg@10_low`` and ``ndcg@10_high`` follow ``ndcg@10``, and so for each metric that has values for
        users: all but ``coverage`` and ``gini``. They are None where the metric is undefined, or defined for one user
        alone. With ``baseline``, its metrics are added as ``baseline_rmse``, ``baseline_ndcg@10`` and so on, without
        intervals. These keys are missing for a model that is a baseline itself, for a model of ratings that was saved
        by an earlier version, which kept nothing for it, and for one that has gone on with ``partial_fit``.
    pyarrow.Table
        With ``per_user``: a row for each user of the test part, by ascending id, with ``user_id``, a float64 column for
        each metric that has values for users, ``n_relevant`` (his relevant test items) and ``n_ratings`` (his test
        ratings). A value is null where it is undefined, and all values of rankings are for users who are not ranked.
        The mean of a column, nulls left out, is the metric, but for ``rmse``, which is the root of the mean of the
        squares weighted by ``n_ratings``; ``mae``, the mean weighted by ``n_ratings``; ``fcp``, the mean weighted by
        the number of his pairs of unequal ratings, ``n_pairs``, which is then a column, too; and ``novelty``, weighted
        by the number of recommended items, which is k unless the user has fewer candidates.

    Raises
    ------
    ParameterError
        If a metric is unknown, or k is larger than the catalogue; if ``per_user`` is asked for with a metric that has
        no values for users, with ``ci`` or with ``baseline``.
    DataError
        If there is nothing to measure, a ranked user has no candidates in ``among``, no candidate is known and not
        relevant, or a factor is not finite.

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.testing.low_rank(n_users=50, n_items=20, density=0.5, seed=0)
    >>> train, test = fastmf.split.random(ratings, test_fraction=0.2)
    >>> model = fastmf.ALS(n_factors=4).fit(train)
    >>> results = fastmf.evaluate(model, test, k=5, metrics=["rmse", "ndcg"])
    >>> sorted(results)
    ['n_cold_users', 'n_excluded', 'n_ratings', 'n_unknown', 'n_users', 'ndcg@5', 'rmse']
    >>> fastmf.evaluate(model, test, k=5, metrics=["rmse", "ndcg"], per_user=True).column_names
    ['user_id', 'rmse', 'ndcg@5', 'n_relevant', 'n_ratings']
    """
    require_truth("per_user", per_user)
    require_truth("baseline", baseline)
    if ci is not None:
        require_level(ci, seed)
    if per_user and ci is not None:
        raise ParameterError(
            f"{named('per_user=True')} and {named('ci')} are both given; expected one: intervals are those of all "
            "users together"
        )
    if per_user and baseline:
        raise ParameterError(
            f"{named('per_user=True')} and {named('baseline=True')} are both given; expected one: measure the baseline "
            "by a call of its own"
        )
    setting = Setting.of(
        test,
        exclude=exclude,
        among=among,
        k=k,
        metrics=checked_metrics(metrics, per_user),
        min_relevant_rating=min_relevant_rating,
        cold=cold,
    )
    measured = measure(model, setting, by_user=per_user or ci is not None)
    if per_user:
        return as_table(measured.metrics, setting.test, setting.is_relevant(model.is_implicit))
    bounds = {} if ci is None else intervals(measured.metrics, ci, seed)
    results: Evaluation = {}
    for metric in measured.metrics:
        results[metric.name] = metric.total
        if metric.name in bounds:
            results[f"{metric.name}_low"], results[f"{metric.name}_high"] = bounds[metric.name]
    other = baseline_of(model) if baseline else None
    if other is not None:
        results |= {f"baseline_{metric.name}": metric.total for metric in measure(other, setting).metrics}
    return results | measured.counts
