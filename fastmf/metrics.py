"""Quality of predictions and of rankings, on plain arrays.

`METRICS` declares every metric that `fastmf.evaluate` and the command ``fastmf evaluate`` know, by name:

>>> from fastmf import metrics
>>> print(*metrics.METRICS)
rmse mae precision recall hit_rate ndcg map mrr graded_ndcg coverage gini novelty diversity auc mean_percentile_rank fcp

Ranking metrics take ``recommended``, an int array of shape (n_users, at least k) with the best item first and -1 for
"none", and ``relevant``, the items that count as hits for each user: ``(indptr, indices)`` as in a CSR matrix, or a
sequence of sequences. Each returns the mean over the users that have at least one relevant item. Their time grows with
the number of recommended items plus that of relevant ones.
"""

from fastmf.measuring.metrics import METRICS, RANKING_METRICS, Metric
from fastmf.measuring.of_lists import coverage, diversity, gini, novelty
from fastmf.measuring.of_rankings import (
    auc,
    graded_ndcg_at_k,
    hit_rate_at_k,
    map_at_k,
    mrr_at_k,
    ndcg_at_k,
    precision_at_k,
    ranking_metrics,
    recall_at_k,
)
from fastmf.measuring.of_ratings import fcp, mae, rmse

__all__ = [
    "METRICS",
    "RANKING_METRICS",
    "Metric",
    "auc",
    "coverage",
    "diversity",
    "fcp",
    "gini",
    "graded_ndcg_at_k",
    "hit_rate_at_k",
    "mae",
    "map_at_k",
    "mrr_at_k",
    "ndcg_at_k",
    "novelty",
    "precision_at_k",
    "ranking_metrics",
    "recall_at_k",
    "rmse",
]
