"""Autoregressive flows of monotone networks: NAF, BNAF, SOS and UMNN."""

from jflow.bijectors import (
    ActNorm,
    Bijector,
    BlockAutoregressive,
    Chain,
    MaskedAutoregressive,
    Repeat,
)
from jflow.bijectors.memory import Memory
from jflow.distributions import Flow, recipe
from jflow.flows.checks import mixer, of_values
from jflow.nets import MADE
from jflow.transformers import (
    DeepSigmoid,
    Inverted,
    SumOfSquares,
    Transformer,
    UnconstrainedMonotonic,
)


@recipe
def naf(
    features: int,
    layers: int = 3,
    hidden: tuple[int, ...] = (128, 128),
    *,
    units: int = 8,
    depth: int = 2,
    context_shape: int | tuple[int, ...] | None = None,
    values: int | None = None,
    mixing: str = "reverse",
    activation: str = "silu",
    dropout: float = 0.0,
    memory: Memory = "store",
    dtype: str | None = None,
) -> Flow:
    """Neural autoregressive flow (NAF): deep sigmoidal transforms of each feature.

    Likelihoods are closed form; samples go feature by feature, with an iteration for each. An
    actnorm stands nearest to the data and before each layer; the paper has none.

    Args:
      features: D of the data.
      layers: how many.
      hidden: widths of the masked networks.
      units: sigmoids of each transform.
      depth: layers of each transform; see `DeepSigmoid`.
      context_shape: shape of the context, or its width; None for an unconditional flow.
      values: grey levels of the data, if they are integers.
      mixing: what stands between layers: "reverse" (the paper), "permute" (random) or "lu".
      activation: of the networks: "silu", "relu", "gelu", "elu", "tanh" or "softplus".
      dropout: in the masked networks, in training.
      memory: what the backward pass stores; see `Repeat`.
      dtype: of the networks, such as "bfloat16".

    Reference: Huang et al., 2018, https://arxiv.org/abs/1804.00779
    """
    net = MADE(hidden, activation=activation, dropout=dropout, dtype=dtype)
    layer = _layer(DeepSigmoid(units, depth), net)
    return _stack("naf", layer, features, layers, mixing, memory, context_shape, values)


@recipe
def sos(
    features: int,
    layers: int = 3,
    hidden: tuple[int, ...] = (128, 128),
    *,
    terms: int = 3,
    degree: int = 4,
    bound: float = 5.0,
    context_shape: int | tuple[int, ...] | None = None,
    values: int | None = None,
    mixing: str = "reverse",
    activation: str = "silu",
    dropout: float = 0.0,
    memory: Memory = "store",
    dtype: str | None = None,
) -> Flow:
    """Sum-of-squares polynomial flow (SOS): integrals of squared polynomials, autoregressive.

    Likelihoods are closed form; samples go feature by feature, with an iteration for each. The
    polynomials are continued by straight lines outside of [-bound, bound], so give it
    standardised data; an actnorm before each layer, not in the paper, standardises once more.

    Args:
      features: D of the data.
      layers: how many.
      hidden: widths of the masked networks.
      terms: squared polynomials of each transform.
      degree: of each before it is squared; see `SumOfSquares`.
      bound: where straight lines begin.
      context_shape: shape of the context, or its width; None for an unconditional flow.
      values: grey levels of the data, if they are integers.
      mixing: what stands between layers: "reverse", "permute" (random) or "lu".
      activation: of the networks: "silu", "relu", "gelu", "elu", "tanh" or "softplus".
      dropout: in the masked networks, in training.
      memory: what the backward pass stores; see `Repeat`.
      dtype: of the networks, such as "bfloat16".

    Reference: Jaini et al., 2019, https://arxiv.org/abs/1905.02325
    """
    net = MADE(hidden, activation=activation, dropout=dropout, dtype=dtype)
    layer = _layer(SumOfSquares(terms, degree, bound=bound), net)
    return _stack("sos", layer, features, layers, mixing, memory, context_shape, values)


@recipe
def umnn(
    features: int,
    layers: int = 3,
    hidden: tuple[int, ...] = (128, 128),
    *,
    units: int = 8,
    nodes: int = 64,
    steepness: float = 2.0,
    bound: float = 5.0,
    context_shape: int | tuple[int, ...] | None = None,
    values: int | None = None,
    mixing: str = "reverse",
    activation: str = "silu",
    dropout: float = 0.0,
    memory: Memory = "store",
    dtype: str | None = None,
) -> Flow:
    """Unconstrained monotonic neural network flow (UMNN): integrals of positive networks.

    Likelihoods are closed form; samples go feature by feature, with an iteration for each. The
    integrand is a network of one hidden layer whose weights, all of them, come from the masked
    network. Straight lines continue it outside of [-bound, bound], so give it standardised data; an
    actnorm before each layer, not in the paper, standardises once more.

    Args:
      features: D of the data.
      layers: how many.
      hidden: widths of the masked networks.
      units: hidden units of each integrand.
      nodes: of the quadrature. With too few, the flow's `log_det_kind` is "biased".
      steepness: the largest rate of a unit; see `UnconstrainedMonotonic`.
      bound: where straight lines begin.
      context_shape: shape of the context, or its width; None for an unconditional flow.
      values: grey levels of the data, if they are integers.
      mixing: what stands between layers: "reverse", "permute" (random) or "lu".
      activation: of the networks: "silu", "relu", "gelu", "elu", "tanh" or "softplus".
      dropout: in the masked networks, in training.
      memory: what the backward pass stores; see `Repeat`.
      dtype: of the networks, such as "bfloat16".

    Reference: Wehenkel and Louppe, 2019, https://arxiv.org/abs/1908.05164
    """
    net = MADE(hidden, activation=activation, dropout=dropout, dtype=dtype)
    layer = _layer(UnconstrainedMonotonic(units, nodes, steepness, bound=bound), net)
    return _stack("umnn", layer, features, layers, mixing, memory, context_shape, values)


@recipe
def bnaf(
    features: int,
    layers: int = 2,
    units: int = 16,
    *,
    depth: int = 2,
    context_shape: int | tuple[int, ...] | None = None,
    values: int | None = None,
    mixing: str = "reverse",
    memory: Memory = "store",
) -> Flow:
    """Block neural autoregressive flow (BNAF): networks increasing in each feature.

    Likelihoods are one pass of each network; samples go feature by feature, with an iteration for
    each. Differences from the paper: a gate in every network, so that the density is normalised;
    an actnorm before each.

    Args:
      features: D of the data.
      layers: networks (the paper calls these flows).
      units: hidden units for each feature.
      depth: hidden layers of each network.
      context_shape: shape of the context, or its width; None for an unconditional flow.
      values: grey levels of the data, if they are integers.
      mixing: what stands between networks: "reverse" (the paper), "permute" (random) or "lu".
      memory: what the backward pass stores; see `Repeat`.

    Reference: De Cao, Titov, Aziz, 2019, https://arxiv.org/abs/1904.04676
    """
    layer = BlockAutoregressive(units, depth)
    return _stack("bnaf", layer, features, layers, mixing, memory, context_shape, values)


def _layer(transformer: Transformer, net: MADE) -> Bijector:
    """Closed form from data to base, which fits to data run."""
    return MaskedAutoregressive(Inverted(transformer), net=net)


def _stack(
    name: str,
    layer: Bijector,
    features: int,
    layers: int,
    mixing: str,
    memory: Memory,
    context_shape: int | tuple[int, ...] | None,
    values: int | None,
) -> Flow:
    step = Chain((ActNorm(), layer, mixer(name, mixing)))
    bijector = of_values(values, Repeat(step, layers, memory))
    return Flow(bijector, (features,), context_shape=context_shape)
