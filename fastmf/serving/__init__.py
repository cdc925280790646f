"""What a service holds: a model that answers many threads, and can be replaced while it does."""

from fastmf.serving.recommender import Recommender

__all__ = ["Recommender"]
