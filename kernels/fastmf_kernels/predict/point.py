"""The prediction for one rating, as plain functions that every variant of every kernel compiles.

r̂_ui = μ + b_u + b_i + p_u·q_i   (Koren, Bell, Volinsky, "Matrix Factorization Techniques for Recommender Systems",
IEEE Computer 42(8), 2009, equation 4), and with a rating range r̂ = low + span·sigmoid(μ + b_u + b_i + p_u·q_i)
(Salakhutdinov, Mnih, "Probabilistic Matrix Factorization", NIPS 2007, section 2).
"""

import math

import numpy as np


def apply_link(score: np.float32, low: np.float32, span: np.float32) -> np.float32:
    """Turn a linear score into a rating: low + span·sigmoid(score), or the score itself where span is 0."""
    if span == 0:
        return score
    return low + span / (np.float32(1) + np.float32(math.exp(-score)))
