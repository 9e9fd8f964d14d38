"""NICE."""

from jflow.bijectors import ActNorm, Chain, Coupling, Elementwise, Repeat
from jflow.bijectors.memory import Memory
from jflow.distributions import Flow, StandardLogistic, recipe
from jflow.flows.checks import of_values, pairs
from jflow.nets import MLP
from jflow.transformers import Affine, Shift


@recipe
def nice(
    features: int,
    layers: int = 4,
    hidden: tuple[int, ...] = (128, 128),
    *,
    context_shape: int | tuple[int, ...] | None = None,
    values: int | None = None,
    activation: str = "silu",
    dropout: float = 0.0,
    memory: Memory = "store",
    dtype: str | None = None,
) -> Flow:
    """NICE: additive couplings of even and odd features in turn, then a diagonal scaling.

    The base is the standard logistic. Differences from the paper: an actnorm nearest to the
    data, so that the data may have any scale; and the final scaling also shifts.

    Args:
      features: D of the data, 2 or more.
      layers: couplings, an even number (4 in the paper).
      hidden: widths of the coupling networks (five of 1000 in the paper).
      context_shape: shape of the context, or its width; None for an unconditional flow.
      values: grey levels of the data, if they are integers.
      activation: of the networks: "silu", "relu", "gelu", "elu", "tanh" or "softplus".
      dropout: in the coupling networks, in training.
      memory: what the backward pass stores; see `Repeat`.
      dtype: of the networks, such as "bfloat16".

    Reference: Dinh, Krueger, Bengio, 2015, https://arxiv.org/abs/1410.8516
    """
    net = MLP(hidden, activation=activation, dropout=dropout, dtype=dtype)
    step = Chain(
        (Coupling(Shift(), net, "alternating"), Coupling(Shift(), net, "alternating_swapped"))
    )
    stack = Repeat(step, pairs("nice", layers), memory)
    bijector = Chain((ActNorm(), stack, Elementwise(Affine(bound=float("inf")))))
    bijector = of_values(values, bijector)
    return Flow(bijector, (features,), StandardLogistic(), context_shape=context_shape)
