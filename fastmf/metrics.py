"""Quality of predictions and of rankings, on plain arrays.

`METRICS` declares every metric that `fastmf.evaluate` and the command ``fastmf evaluate`` know, by name:

>>> from fastmf import metrics
>>> metrics.METRICS["rmse"].higher_is_better
False

Ranking metrics take ``recommended``, an int array of shape (n_users, at least k) with the best item first and -1 for
"none", and ``relevant``, the items that count as hits for each user: ``(indptr, indices)`` as in a CSR matrix, or a
sequence of sequences. Each returns the mean over the users that have at least one relevant item. Their time grows with
the number of recommended items plus that of relevant ones.
"""

from fastmf.measuring import of_lists, of_rankings, of_ratings
from fastmf.measuring.metrics import METRICS, RANKING_METRICS, Metric
from fastmf.measuring.of_lists import *  # noqa: F403
from fastmf.measuring.of_rankings import *  # noqa: F403
from fastmf.measuring.of_ratings import *  # noqa: F403

__all__ = ["METRICS", "RANKING_METRICS", "Metric"]
__all__ += of_lists.__all__
__all__ += of_rankings.__all__
__all__ += of_ratings.__all__
