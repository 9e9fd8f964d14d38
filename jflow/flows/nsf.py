"""Neural spline flows."""

from typing import Any, Literal

from jflow.bijectors import ActNorm, Bijector, Chain, Coupling, MaskedAutoregressive, Repeat
from jflow.bijectors.memory import Memory
from jflow.distributions import Flow, recipe
from jflow.flows.checks import mixer, of_values
from jflow.nets import MADE, MLP
from jflow.transformers import RationalQuadraticSpline


@recipe
def nsf(
    features: int,
    layers: int = 5,
    bins: int = 8,
    hidden: tuple[int, ...] = (128, 128),
    *,
    autoregressive: bool = False,
    bound: float = 5.0,
    context_shape: int | tuple[int, ...] | None = None,
    values: int | None = None,
    mixing: str | None = None,
    residual: bool = False,
    direct: bool | None = None,
    activation: str = "silu",
    actnorm: Literal["each", "first"] = "each",
    dropout: float = 0.0,
    memory: Memory = "store",
    dtype: str | None = None,
) -> Flow:
    """Neural spline flow: rational-quadratic splines in couplings, or autoregressive.

    Splines act on [-bound, bound] and are the identity outside; actnorms, which the paper does not
    have, standardise the data and what each layer makes of them.

    Args:
      features: D of the data; 2 or more for couplings.
      layers: how many.
      bins: of each spline.
      hidden: widths of the networks.
      autoregressive: whether parameters come from all features before, by a masked network, in
        place of the other half of the features. Likelihoods then are better, and samples slower.
      bound: of the splines.
      context_shape: shape of the context, or its width; None for an unconditional flow.
      values: grey levels of the data, if they are integers.
      mixing: what stands between layers: "permute" (random; between couplings it exchanges the
        halves), "reverse" or "lu" (the paper). None for "permute" between couplings and "reverse"
        between autoregressive layers.
      residual: whether masked networks are residual (autoregressive only).
      direct: whether masked networks have direct connections (autoregressive only); see
        `jflow.nets.MADE`. None for yes, if there are any.
      activation: of the networks: "silu", "relu", "gelu", "elu", "tanh" or "softplus".
      actnorm: before "each" layer, or the "first" alone, the one nearest to the data.
      dropout: in the networks, in training.
      memory: what the backward pass stores; see `Repeat`.
      dtype: of the networks, such as "bfloat16".

    Raises:
      ValueError: `residual` or `direct` with couplings, an unknown name, or sizes that do not fit.

    Reference: Durkan et al., 2019, https://arxiv.org/abs/1906.04032
    """
    if (residual or direct) and not autoregressive:
        raise ValueError("nsf: residual and direct are of masked nets; give autoregressive=True")
    if actnorm not in ("each", "first"):
        raise ValueError(f"nsf: actnorm must be 'each' or 'first'; got {actnorm!r}")
    shared: Any = {"activation": activation, "dropout": dropout, "dtype": dtype}
    mixing = mixing or ("reverse" if autoregressive else "permute")
    spline = RationalQuadraticSpline(bins=bins, bound=bound)
    layer: Bijector = Coupling(spline, MLP(hidden, **shared))
    if autoregressive:
        masked = MADE(hidden, residual, direct is not False, **shared)
        layer = MaskedAutoregressive(spline, net=masked)
    parts = layer, mixer("nsf", mixing, halves=not autoregressive)
    if actnorm == "each":
        bijector: Bijector = Repeat(Chain((ActNorm(), *parts)), layers, memory)
    else:
        bijector = Chain((ActNorm(), Repeat(Chain(parts), layers, memory)))
    return Flow(of_values(values, bijector), (features,), context_shape=context_shape)
