"""Transformer autoregressive flows of vectors and tables."""

from typing import Any

from jflow.bijectors import ActNorm, Chain, MaskedAutoregressive, Repeat
from jflow.bijectors.memory import Memory
from jflow.distributions import Flow, recipe
from jflow.flows.checks import Scalar, entering, mixer, of_values, scalar
from jflow.nets import CausalTransformer


@recipe
def transformer_af(
    features: int,
    layers: int = 3,
    depth: int = 2,
    width: int = 32,
    *,
    heads: int = 4,
    expansion: int = 2,
    transformer: Scalar = "rational_quadratic",
    components: int = 8,
    bound: float = 5.0,
    context_shape: int | tuple[int, ...] | None = None,
    values: int | None = None,
    mixing: str = "reverse",
    activation: str = "gelu",
    dropout: float = 0.0,
    memory: Memory = "store",
    dtype: str | None = None,
) -> Flow:
    """Transformer autoregressive flow: features are tokens, each given those before by attention.

    All features share the weights of a network, which so has few of them, as in T-NAF, whose
    functions are "deep_sigmoid". Likelihoods are one pass; samples go feature by feature, with the
    keys and values of those before kept. An actnorm stands before each layer.

    Args:
      features: D of the data.
      layers: how many.
      depth: layers of attention of each network.
      width: of its tokens.
      heads: of attention; they divide the width.
      expansion: the network of a token is so many times as wide.
      transformer: the scalar function.
      components: of mixtures; bins of splines; units of deep sigmoids.
      bound: of log-scales, or of the interval of splines.
      context_shape: shape of the context, or its width: a vector is added to every token, to a
        sequence (S, C), as of patches or words, tokens attend. None for an unconditional flow.
      values: grey levels of the data, if they are integers.
      mixing: what stands between layers: "reverse", "permute" (random) or "lu".
      activation: of the networks.
      dropout: in the networks, in training.
      memory: what the backward pass stores; see `Repeat`.
      dtype: of the networks, such as "bfloat16".

    Raises:
      ValueError: an unknown name, or a size out of range.

    Reference: Patacchiola et al., T-NAF, 2024, https://arxiv.org/abs/2401.01855
    """
    options: Any = {"activation": activation, "dropout": dropout, "dtype": dtype}
    context = entering("transformer_af", context_shape)
    net = CausalTransformer(
        width, depth, heads, expansion=expansion, event_ndim=1, context=context, **options
    )
    function = scalar("transformer_af", transformer, components, bound)
    layer = MaskedAutoregressive(function, net=net)
    step = Chain((ActNorm(), layer, mixer("transformer_af", mixing)))
    bijector = of_values(values, Repeat(step, layers, memory))
    return Flow(bijector, (features,), context_shape=context_shape)
