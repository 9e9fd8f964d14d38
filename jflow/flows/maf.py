"""Masked and inverse autoregressive flows."""

from typing import Literal

from jflow.bijectors import ActNorm, Chain, Invert, MaskedAutoregressive, Repeat
from jflow.bijectors.memory import Memory
from jflow.distributions import Flow, recipe
from jflow.flows.checks import mixer, of_values
from jflow.nets import MADE
from jflow.transformers import Affine, Inverted, SoftplusAffine


@recipe
def maf(
    features: int,
    layers: int = 5,
    hidden: tuple[int, ...] = (128, 128),
    *,
    context_shape: int | tuple[int, ...] | None = None,
    values: int | None = None,
    mixing: str = "reverse",
    residual: bool = False,
    direct: bool = False,
    activation: str = "silu",
    scale: Literal["softplus", "exp"] = "softplus",
    bound: float = 2.0,
    dropout: float = 0.0,
    memory: Memory = "store",
    dtype: str | None = None,
) -> Flow:
    """Masked autoregressive flow (MAF): affine, with likelihoods in one pass.

    Sampling goes feature by feature, at the cost of a few likelihoods: see
    `MaskedAutoregressive`. Differences from the paper: actnorm in place of batch normalisation,
    SiLU in place of ReLU, and x = y m + t with scales m that outliers cannot make explode, in place
    of x = (y - t) e^-s.

    Args:
      features: D of the data.
      layers: how many (5 or 10 in the paper).
      hidden: widths of the masked networks.
      context_shape: shape of the context, or its width; None for an unconditional flow.
      values: grey levels of the data, if they are integers.
      mixing: what stands between layers: "reverse" (the paper), "permute" (random) or "lu".
      residual: whether the masked networks are residual; see `jflow.nets.MADE`.
      direct: whether the masked networks have direct connections; see there. They help where
        features are nearly linear functions of each other, and may overfit small tables.
      activation: of the networks: "silu", "relu", "gelu", "elu", "tanh" or "softplus".
      scale: "softplus", or "exp" for the paper's; see `SoftplusAffine` and `Affine`.
      bound: the largest log-scale of a layer, in nats, for "exp".
      dropout: in the masked networks, in training.
      memory: what the backward pass stores; see `Repeat`.
      dtype: of the networks, such as "bfloat16".

    Raises:
      ValueError: an unknown name.

    Reference: Papamakarios et al., 2017, https://arxiv.org/abs/1705.07057
    """
    if scale not in ("softplus", "exp"):
        raise ValueError(f"maf: scale must be 'softplus' or 'exp'; got {scale!r}")
    net = MADE(
        hidden,
        residual,
        direct,
        activation=activation,
        dropout=dropout,
        dtype=dtype,
    )
    affine = Inverted(SoftplusAffine()) if scale == "softplus" else Affine(bound)
    layer = MaskedAutoregressive(affine, net=net)
    step = Chain((ActNorm(), layer, mixer("maf", mixing)))
    bijector = Repeat(step, layers, memory)
    return Flow(of_values(values, bijector), (features,), context_shape=context_shape)


@recipe
def iaf(
    features: int,
    layers: int = 5,
    hidden: tuple[int, ...] = (128, 128),
    *,
    context_shape: int | tuple[int, ...] | None = None,
    mixing: str = "permute",
    residual: bool = False,
    activation: str = "silu",
    bound: float = 2.0,
    memory: Memory = "store",
    dtype: str | None = None,
) -> Flow:
    """Inverse autoregressive flow (IAF): affine, with samples and their log p in one pass.

    It suits variational inference, by `jflow.fit_to_target`: fitting to data would go feature by
    feature. Differences from the paper: y = x e^s + t with bounded s, in place of a gated sum.

    Args:
      features: D.
      layers: how many.
      hidden: widths of the masked networks.
      context_shape: shape of the context, or its width; None for an unconditional flow.
      mixing: what stands between layers: "permute" (random), "reverse" (the paper) or "lu".
      residual: whether the masked networks are residual; see `jflow.nets.MADE`.
      activation: of the networks: "silu", "relu", "gelu", "elu", "tanh" or "softplus".
      bound: the largest log-scale of a layer, in nats.
      memory: what the backward pass stores; see `Repeat`.
      dtype: of the networks, such as "bfloat16".

    Reference: Kingma et al., 2016, https://arxiv.org/abs/1606.04934
    """
    net = MADE(hidden, residual, activation=activation, dtype=dtype)
    layer = Invert(MaskedAutoregressive(Inverted(Affine(bound)), net=net))
    bijector = Repeat(Chain((layer, mixer("iaf", mixing))), layers, memory)
    return Flow(bijector, (features,), context_shape=context_shape)
