"""How heavy the tail of importance weights is."""

import math

import numpy as np

# Fewer weights than these in the tail tell nothing.
_LEAST = 5


def pareto_k(log_weights: np.ndarray) -> float:
    """The shape k of a generalised Pareto distribution fitted to the largest weights.

    Weights have about 1/k moments: above .7, means of them are not to be trusted, whatever their
    standard error (Vehtari et al., 2024, https://arxiv.org/abs/1507.02646, sections 2 and 3). The
    fit is that of Zhang and Stephens (2009, https://doi.org/10.1198/tech.2009.08017), drawn towards
    .5 by as much as ten points are worth.

    Args:
      log_weights: (n,), up to a constant; -inf for weights of zero.

    Returns:
      k; -inf where the largest weights are equal, and NaN where they are too few, or not numbers.
    """
    n = len(log_weights)
    count = int(min(n / 5, 3 * math.sqrt(n)))
    if count < _LEAST or np.isnan(log_weights).any() or not np.isfinite(log_weights.max()):
        return math.nan
    weights = np.sort(np.exp(log_weights - log_weights.max()))
    tail = weights[-count:] - weights[-count - 1]
    if tail[-1] <= 1e-12:
        return -math.inf
    tail = np.maximum(tail, np.finfo(float).eps)
    trials = 30 + int(math.sqrt(count))
    quarter = tail[int(count / 4 + 0.5) - 1]
    j = np.arange(1, trials + 1)
    rates = 1 / tail[-1] + (1 - np.sqrt(trials / (j - 0.5))) / (3 * quarter)
    shapes = np.mean(np.log1p(-rates[:, None] * tail), axis=1)
    log_likelihoods = count * (np.log(-rates / shapes) - shapes - 1)
    shares = np.exp(log_likelihoods - log_likelihoods.max())
    rate = np.sum(rates * shares) / np.sum(shares)
    k = float(np.mean(np.log1p(-rate * tail)))
    return (count * k + 10 * 0.5) / (count + 10)
