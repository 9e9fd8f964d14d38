"""Stochastic flows."""

from jflow.bijectors import SDE, ActNorm, Chain
from jflow.distributions import Flow, recipe
from jflow.functional.arguments import check_counts
from jflow.nets import MLP


@recipe
def sde(
    features: int,
    hidden: tuple[int, ...] = (64, 64, 64),
    *,
    steps: int = 32,
    noise: tuple[float, float] = (2.0, 0.05),
    frequencies: int = 2,
    activation: str = "silu",
    context_shape: int | tuple[int, ...] | None = None,
) -> Flow:
    """A stochastic flow: steps of a neural stochastic differential equation, both ways learned.

    `density.log_prob(y, key=key)` is a bound in the mean, which training raises;
    `density.log_prob_estimate(y, key, probes=64)` a tighter one. Latents are draws.

    Args:
      features: D.
      hidden: widths of both networks, of the drift and of the score.
      steps: of paths; see `jflow.bijectors.SDE`.
      noise: how strong it is at the base and at the data, whose standard deviations are 1 there.
      frequencies: how many sines and cosines of time networks are given.
      activation: of both networks.
      context_shape: shape of the context, or its width; None for an unconditional flow.

    Reference: Zhang and Chen, 2021, https://arxiv.org/abs/2110.07579
    """
    check_counts("sde", features=features)
    path = SDE(
        MLP(hidden, activation=activation), time_steps=steps, noise=noise, frequencies=frequencies
    )
    return Flow(Chain((ActNorm(), path)), (features,), context_shape=context_shape)
