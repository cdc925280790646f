"""The SGD update for one rating, as a plain function that every variant compiles.

Minimises Σ (r - r̂)² + λ(‖p_u‖² + ‖q_i‖²) + λ_b(b_u² + b_i²) over observed ratings. With e = (r - r̂)·dr̂/ds, where s is
the score before the link (dr̂/ds = 1 without a rating range), one step of size γ is

    b_u ← b_u + γ_b(e - λ_b b_u)      b_i ← b_i + γ_b(e - λ_b b_i)
    p_u ← p_u + γ(e q_i - λ p_u)      q_i ← q_i + γ(e p_u - λ q_i)

(Koren, Bell, Volinsky, "Matrix Factorization Techniques for Recommender Systems", IEEE Computer 42(8), 2009.)
"""

import numpy as np

from fastmf_kernels._types import Float32Array
from fastmf_kernels.predict.arrays import Link
from fastmf_kernels.sgd.arrays import Step


def gradient_scale(prediction: np.float32, link: Link) -> np.float32:
    """Return dr̂/ds: 1 without a rating range, span·σ(1 - σ) with σ = (r̂ - low) / span otherwise."""
    if link.span == 0:
        return np.float32(1)
    above = prediction - link.low
    return above * (link.span - above) / link.span


def update_factors(p: Float32Array, q: Float32Array, error: np.float32, step: Step) -> None:
    """Move ``p`` and ``q``, both of shape (n_factors,), one step along the gradient, in place."""
    learning_rate, regularization = step.learning_rate, step.regularization
    for f in range(p.size):
        p_f, q_f = p[f], q[f]
        p[f] = p_f + learning_rate * (error * q_f - regularization * p_f)
        q[f] = q_f + learning_rate * (error * p_f - regularization * q_f)


def updated_bias(bias: np.float32, error: np.float32, step: Step) -> np.float32:
    """Return ``bias`` after one step along the gradient."""
    return bias + step.bias_learning_rate * (error - step.bias_regularization * bias)
