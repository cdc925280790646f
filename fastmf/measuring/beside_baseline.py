"""Metrics of a model beside those of its baseline, in words."""

from collections.abc import Collection, Mapping
from typing import Any

from fastmf.measuring.baseline import baseline_of, name_of_baseline
from fastmf.measuring.evaluation import Evaluation, evaluate
from fastmf.measuring.metrics import METRICS
from fastmf.measuring.setting import Measurable

_PREFIX = "baseline_"
# Metrics of which more is not better in itself.
_NOT_OF_QUALITY = ("coverage", "gini", "novelty", "diversity")
# Models whose metrics differ by no more than this share are as good as each other.
_TIE_OF_ERRORS, _TIE_OF_RANKINGS = 0.002, 0.01


def baseline_metrics(model: Measurable, test: Any, **options: Any) -> Evaluation:
    """Measure the baseline of a fitted model on test ratings.

    Parameters
    ----------
    model : FactorModel
        Fitted.
    test : Interactions, table or SciPy sparse matrix
    **options
        Those of `fastmf.evaluate` that say what is measured and how.

    Returns
    -------
    dict
        ``baseline_rmse``, ``baseline_ndcg@10``, ... as the metrics are named; empty if there is no baseline.
    """
    other = baseline_of(model)
    if other is None:
        return {}
    return {f"{_PREFIX}{name}": value for name, value in evaluate(other, test, **options).items() if name[:2] != "n_"}


def beside_baseline(results: Mapping[str, Any], is_implicit: bool) -> dict[str, Any]:
    """Return metrics by name, each as text with that of the baseline beside it where there is one.

    Examples
    --------
    >>> from fastmf.measuring.beside_baseline import beside_baseline
    >>> beside_baseline({"rmse": 0.843, "n_ratings": 9, "baseline_rmse": 0.907}, is_implicit=False)
    {'rmse': '0.8430, bias-only 0.9070', 'n_ratings': 9}
    """
    other = name_of_baseline(is_implicit)
    shown: dict[str, Any] = {}
    for name, value in results.items():
        if name.startswith(_PREFIX):
            continue
        shown[name] = value
        if f"{_PREFIX}{name}" in results:
            shown[name] = f"{_in_digits(value)}, {other} {_in_digits(results[_PREFIX + name])}"
    return shown


def has_baseline(results: Mapping[str, Any]) -> bool:
    """Whether the baseline was measured, too."""
    return any(name.startswith(_PREFIX) for name in results)


def verdict(results: Mapping[str, Any], is_implicit: bool, metrics: Collection[str] | None = None) -> str | None:
    """Say plainly that the baseline of a model is better, and by which metrics; None if it is by none.

    It is better by an error that is lower by more than 0.2 %, or by another metric that is higher by more than 1 %.
    Metrics that do not measure how good predictions are, such as coverage, do not count.

    Parameters
    ----------
    results : mapping of str to float or None
        As `fastmf.evaluate` returns them with ``baseline=True``.
    is_implicit : bool
        Whether the baseline is popularity.
    metrics : collection of str, optional
        The metrics that count, without cut-offs. None: all.

    Examples
    --------
    >>> from fastmf.measuring.beside_baseline import verdict
    >>> verdict({"rmse": 1.047, "baseline_rmse": 1.022}, is_implicit=False)
    'the model is no better than its baseline by rmse (1.0470, bias-only 1.0220)'
    """
    worse = [name for name in results if f"{_PREFIX}{name}" in results and _is_worse(name, results, metrics)]
    if not worse:
        return None
    shown = beside_baseline(results, is_implicit)
    return "the model is no better than its baseline by " + ", ".join(f"{name} ({shown[name]})" for name in worse)


def _is_worse(name: str, results: Mapping[str, Any], metrics: Collection[str] | None) -> bool:
    metric = METRICS[name.partition("@")[0]]
    ours, other = results[name], results[_PREFIX + name]
    if metric.name in _NOT_OF_QUALITY or (metrics is not None and metric.name not in metrics):
        return False
    if ours is None or other is None:
        return False
    if metric.higher_is_better:
        return bool(other - ours > _TIE_OF_RANKINGS * abs(ours))
    return bool(ours - other > _TIE_OF_ERRORS * abs(ours))


def _in_digits(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
