"""A metric that was measured, for all users together and for each."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastmf.measuring.metrics import Inputs, Metric
from fastmf.measuring.user_values import UserValues


class Measurement(NamedTuple):
    """A metric that was measured.

    Attributes
    ----------
    name : str
        With the cut-off, as ``ndcg@10``.
    metric : Metric
    total : float or None
        None if it is undefined.
    of_users : UserValues or None
        None if there are none, or they were not asked for.
    """

    name: str
    metric: Metric
    total: float | None
    of_users: UserValues | None

    @classmethod
    def of(cls, metric: Metric, name: str, inputs: Inputs, by_user: bool) -> "Measurement":
        """Compute a metric, and with ``by_user`` its values for users."""
        if by_user:
            return cls(name, metric, *metric.measure_users(inputs))
        return cls(name, metric, metric.measure(inputs), None)

    def placed(self, users: npt.NDArray[np.integer[Any]], n_users: int) -> "Measurement":
        """Give users other numbers, among ``n_users``."""
        return self if self.of_users is None else self._replace(of_users=self.of_users.placed(users, n_users))
