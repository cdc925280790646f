"""The SGD step for one rating, as plain functions that every variant compiles.

Minimises Σ (r - r̂)² + λ(‖p_u‖² + ‖q_i‖²) + λ_b(b_u² + b_i²) over observed ratings. With e = (r - r̂)·dr̂/ds, where s is
the score before the link (dr̂/ds = 1 without a rating range), one step of size γ is

    b_u ← b_u + γ_b(e - λ_b b_u)      b_i ← b_i + γ_b(e - λ_b b_i)
    p_u ← p_u + γ(e q_i - λ p_u)      q_i ← q_i + γ(e p_u - λ q_i)

(Koren, Bell, Volinsky, "Matrix Factorization Techniques for Recommender Systems", IEEE Computer 42(8), 2009.)

The adaptive step sizes γ/√G of a row, where G is 1 + the sum of the mean squares of the error's gradients, e²‖q_i‖²/k
for a user and e²‖p_u‖²/k for an item with k factors, are those of AdaGrad (Duchi, Hazan, Singer, JMLR 12, 2011) with
one G for a whole row, as in Chin, Zhuang, Juan, Lin, "A Learning-rate Schedule for Stochastic Gradient Methods to
Matrix Factorization", PAKDD 2015. Here a row's bias shares the G of its factors, and ‖q_i‖² is taken once a block.
"""

import numpy as np


def slope(sigmoid: np.float32, span: np.float32) -> np.float32:
    """Return dr̂/ds where r̂ = low + span·σ(s)."""
    return span * sigmoid * (np.float32(1) - sigmoid)


def move(x: np.float32, gradient: np.float32, rate: np.float32, regularization: np.float32) -> np.float32:
    """Return what a step adds to the number x: γ(g - λx), where ``gradient`` g is the error's, negated."""
    return rate * (gradient - regularization * x)


def weights(error: np.float32, rate: np.float32, regularization: np.float32) -> tuple[np.float32, np.float32]:
    """Return the same step for whole rows: weights of x and y in x + γ(e y - λx)."""
    return np.float32(1) - rate * regularization, rate * error
