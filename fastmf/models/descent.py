"""What the models trained by stochastic gradient descent share."""

from dataclasses import dataclass

import numpy as np

from fastmf.errors import ParameterError
from fastmf.models.base import FactorModel
from fastmf.parameters import require_choice, require_number
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.sgd.arrays import RowSteps, Step, first_row_steps

# Biases are one number where factors are many, and see every error whole: of 0.01 to 0.1 with factors at 0.1, steps of
# 0.01 to 0.02 gave the lowest error on MovieLens-1M and on made-up ratings (docs/decisions/0011-steps-of-sgd.md).
_BIAS_SHARE = 0.2


@dataclass(kw_only=True, eq=False)
class DescentModel(FactorModel):
    """Base of the models that take gradient steps; its parameters are those that all of them have.

    Parameters
    ----------
    learning_rate : float
        Step size γ of the first epoch.
    bias_learning_rate : float, optional
        Step size for biases; a fifth of ``learning_rate`` if None.
    learning_rate_decay : float
        Step sizes are multiplied by this after every epoch; at most 1.
    adaptive : bool
        Divide the step sizes of a row by √(1 + Σ g²), the mean squares of its gradients so far (AdaGrad). Otherwise all
        rows take steps of one size, for which a ``learning_rate`` of about 0.01 is right.
    biases : bool
        Whether users and items have one.
    item_regularization : float, optional
        λ of item factors; as that of users if None.
    bias_regularization : float
        λ_b.
    item_bias_regularization : float, optional
        λ_b of items; as that of users if None.
    regularization_scaling : {"count", "none"}
        "count": λ is paid once for every rating that a row has. "none": once for the row.
    init_scale : float
        First factors are normal with standard deviation ``init_scale`` / √n_factors.
    """

    learning_rate: float = 0.1
    bias_learning_rate: float | None = None
    learning_rate_decay: float = 1.0
    adaptive: bool = True
    biases: bool = True
    item_regularization: float | None = None
    bias_regularization: float = 0.02
    item_bias_regularization: float | None = None
    regularization_scaling: str = "count"
    init_scale: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("learning_rate", self.learning_rate, minimum=0, exclusive=True)
        require_number("learning_rate_decay", self.learning_rate_decay, minimum=0, exclusive=True)
        if self.learning_rate_decay > 1:
            raise ParameterError(f"learning_rate_decay is {self.learning_rate_decay}; expected at most 1")
        require_number("bias_regularization", self.bias_regularization, minimum=0)
        for name in ("bias_learning_rate", "item_regularization", "item_bias_regularization"):
            if getattr(self, name) is not None:
                require_number(name, getattr(self, name), minimum=0)
        for name in ("adaptive", "biases"):
            if getattr(self, name) not in (True, False):
                raise ParameterError(f"{name} is {getattr(self, name)!r}; expected True or False")
        require_choice("regularization_scaling", self.regularization_scaling, ("count", "none"))
        require_number("init_scale", self.init_scale, minimum=0)

    def _blame_for_divergence(self) -> str:
        return f"learning_rate={self.learning_rate:g}; lower it"


def make_step(model: DescentModel, epoch: int) -> Step:
    """Return the steps of an epoch, numbered from 0."""
    decay = model.learning_rate_decay**epoch
    bias_learning_rate = model.bias_learning_rate
    if bias_learning_rate is None:
        bias_learning_rate = _BIAS_SHARE * model.learning_rate
    user_bias = model.bias_regularization
    terms = (
        model.learning_rate * decay,
        bias_learning_rate * decay if model.biases else 0.0,
        1.0 if model.adaptive else 0.0,
        model.regularization,
        model.regularization if model.item_regularization is None else model.item_regularization,
        user_bias,
        user_bias if model.item_bias_regularization is None else model.item_bias_regularization,
    )
    return Step(*(np.float32(term) for term in terms))


def make_row_steps(model: DescentModel, by_user: CSR, n_items: int) -> RowSteps:
    """Return what the steps of each row start with."""
    rows = first_row_steps(len(by_user.indptr) - 1, n_items)
    if model.regularization_scaling == "none":
        user_counts, item_counts = np.diff(by_user.indptr), np.bincount(by_user.indices, minlength=n_items)
        rows.user_scales[:] = 1 / np.maximum(user_counts, 1)
        rows.item_scales[:] = 1 / np.maximum(item_counts, 1)
    return rows
