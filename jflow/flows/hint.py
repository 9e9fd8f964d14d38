"""Recursive couplings."""

from jflow.bijectors import HINT, ActNorm, Chain, Repeat
from jflow.bijectors.memory import Memory
from jflow.distributions import Flow, recipe
from jflow.flows.checks import mixer, of_values
from jflow.nets import MLP
from jflow.transformers import Affine


@recipe
def hint(
    features: int,
    layers: int = 4,
    hidden: tuple[int, ...] = (128, 128),
    *,
    depth: int | None = 4,
    context_shape: int | tuple[int, ...] | None = None,
    values: int | None = None,
    mixing: str = "lu",
    activation: str = "silu",
    dropout: float = 0.0,
    memory: Memory = "store",
    dtype: str | None = None,
) -> Flow:
    """HINT: affine couplings, applied again to each half, and to their halves, and so forth.

    Differences from the paper: an actnorm before each layer; learned matrices in place of fixed
    rotations between layers; networks of one width at all depths.

    Args:
      features: D of the data, 2 or more.
      layers: recursive couplings.
      hidden: widths of each network, of which a layer has up to 2^depth - 1.
      depth: how many times halves are split; None for down to single features.
      context_shape: shape of the context, or its width; None for an unconditional flow.
      values: grey levels of the data, if they are integers.
      mixing: what stands between layers: "lu" (learned), "permute" (random) or "reverse".
      activation: of the networks: "silu", "relu", "gelu", "elu", "tanh" or "softplus".
      dropout: in the networks, in training.
      memory: what the backward pass stores; see `Repeat`.
      dtype: of the networks, such as "bfloat16".

    Reference: Kruse et al., 2021, https://arxiv.org/abs/1905.10687
    """
    net = MLP(hidden, activation=activation, dropout=dropout, dtype=dtype)
    layer = HINT(Affine(), net, depth)
    step = Chain((ActNorm(), layer, mixer("hint", mixing, halves=True)))
    bijector = Repeat(step, layers, memory)
    return Flow(of_values(values, bijector), (features,), context_shape=context_shape)
