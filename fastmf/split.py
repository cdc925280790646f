"""Ratings into training and test parts. Both parts keep the id space and the row order of their source."""

from fastmf.reading.split import Split, hold_out, k_fold, leave_last_out, per_user, random, temporal

__all__ = ["Split", "hold_out", "k_fold", "leave_last_out", "per_user", "random", "temporal"]
