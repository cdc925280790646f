"""Random draws as plain functions that every variant compiles, and the losses they are for.

Items that the user has not rated are drawn beside those that he has. The logistic loss -log σ(s) for what was chosen,
and -log σ(-s) for what was drawn, has e = 1 - σ(s) and e = -σ(s) in the steps of `fastmf_kernels.sgd.point` (Johnson,
"Logistic Matrix Factorization for Implicit Feedback Data", NIPS workshop 2014). BPR looks at one of each, i and j:
with x = s_i - s_j its loss is -log σ(x), and with e = σ(-x)

    p_u ← (p_u + γ e(q_i - q_j))/(1 + γλ)   q_i ← (q_i + γ e p_u)/(1 + γλ)   q_j ← (q_j - γ e p_u)/(1 + γλ)

and the biases of i and j likewise (Rendle, Freudenthaler, Gantner, Schmidt-Thieme, "BPR: Bayesian Personalized Ranking
from Implicit Feedback", UAI 2009); its G of a user grows by e²(‖q_i‖² + ‖q_j‖²)/k.
"""

import numpy as np


def hashed(key: np.uint64, counter: np.uint64) -> np.uint64:
    """Return number ``counter`` of the random sequence ``key``: SplitMix64.

    A draw depends on its place alone, not on which thread comes when (Steele, Lea, Flood, "Fast Splittable Pseudorandom
    Number Generators", OOPSLA 2014; Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011).
    """
    z = key + (counter + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def share(random: np.uint64) -> float:
    """Turn 64 random bits into a number from 0 to just below 1."""
    return np.float64(random >> np.uint64(11)) * 2.0**-53
