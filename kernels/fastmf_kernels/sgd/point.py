"""The SGD step for one rating, as plain functions that every variant compiles.

Minimises Σ (r - r̂)² + λ(‖p_u‖² + ‖q_i‖²) + λ_b(b_u² + b_i²) over observed ratings. With e = (r - r̂)·dr̂/ds, where s is
the score before the link (dr̂/ds = 1 without a rating range), one step of size γ is

    b_u ← (b_u + γ_b e)/(1 + γ_b λ_b)     b_i ← (b_i + γ_b e)/(1 + γ_b λ_b)
    p_u ← (p_u + γ e q_i)/(1 + γ λ)       q_i ← (q_i + γ e p_u)/(1 + γ λ)

The penalty is taken where the step ends, not where it starts (an implicit, or proximal, step: Parikh, Boyd, "Proximal
Algorithms", Foundations and Trends in Optimization 1(3), 2014, section 4.2), so that no λ, however large, makes a row
change its sign and grow. It is the usual step x ← x + η(e y - λ x) with the rate η = γ/(1 + γλ).
(Koren, Bell, Volinsky, "Matrix Factorization Techniques for Recommender Systems", IEEE Computer 42(8), 2009.)

The adaptive step sizes γ/√G of a row, where G is 1 + the sum of the mean squares of the error's gradients, e²‖q_i‖²/k
for a user and e²‖p_u‖²/k for an item with k factors, are those of AdaGrad (Duchi, Hazan, Singer, JMLR 12, 2011) with
one G for a whole row, as in Chin, Zhuang, Juan, Lin, "A Learning-rate Schedule for Stochastic Gradient Methods to
Matrix Factorization", PAKDD 2015; with them η = γ/(√G + γλ). Here a row's bias shares the G of its factors, and ‖q_i‖²
is taken once a block.
"""

import numpy as np


def slope(sigmoid: np.float32, span: np.float32) -> np.float32:
    """Return dr̂/ds where r̂ = low + span·σ(s)."""
    return span * sigmoid * (np.float32(1) - sigmoid)


def move(x: np.float32, gradient: np.float32, rate: np.float32, regularization: np.float32) -> np.float32:
    """Return what a step adds to the number x: η(g - λx), where ``rate`` is η and ``gradient`` g is -∂loss/∂x."""
    return rate * (gradient - regularization * x)


def damped_rate(
    accumulator: np.float32, learning_rate: np.float32, damping: np.float32
) -> tuple[np.float32, np.float32]:
    """Return 1 - ηλ and η, given G, γ, and γλ: ``damping``. A step is x ← (1 - ηλ)x + η e y."""
    inverse = np.float32(1) / (np.sqrt(accumulator) + damping)
    return np.float32(1) - inverse * damping, inverse * learning_rate
