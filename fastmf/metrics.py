"""Quality of predictions and of rankings, on plain arrays.

Ranking metrics take ``recommended``, an int array of shape (n_users, at least k) with the best item first and -1 for
"none", and ``relevant``, the items that count as hits for each user: ``(indptr, indices)`` as in a CSR matrix, or a
sequence of sequences. Each returns the mean over the users that have at least one relevant item.
"""

from fastmf.measuring.metrics import (
    RANKING_METRICS,
    auc,
    coverage,
    diversity,
    hit_rate_at_k,
    mae,
    map_at_k,
    mean_figures,
    mrr_at_k,
    ndcg_at_k,
    novelty,
    precision_at_k,
    ranking_metrics,
    recall_at_k,
    rmse,
)

__all__ = [
    "RANKING_METRICS",
    "auc",
    "coverage",
    "diversity",
    "hit_rate_at_k",
    "mae",
    "map_at_k",
    "mean_figures",
    "mrr_at_k",
    "ndcg_at_k",
    "novelty",
    "precision_at_k",
    "ranking_metrics",
    "recall_at_k",
    "rmse",
]
