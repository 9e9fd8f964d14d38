"""Planar, radial and Sylvester flows."""

from typing import Literal

from jflow.bijectors import ActNorm, Bijector, Chain, Planar, Radial, Repeat, Sylvester
from jflow.bijectors.memory import Memory
from jflow.distributions import Flow, recipe
from jflow.flows.checks import directed


@recipe
def planar(
    features: int,
    layers: int = 16,
    *,
    direction: Literal["forward", "inverse"] = "forward",
    context_shape: int | tuple[int, ...] | None = None,
    memory: Memory = "store",
) -> Flow:
    """Planar flow: `layers` bends, each along one direction.

    With direction="forward", as in the paper, samples and their log p are closed form, for
    variational inference by `jflow.fit_to_target`; log p of given points then takes one scalar
    iteration a layer. With "inverse" it is the other way round, for fits to data.

    An actnorm nearest to the data, not in the paper, gives the flow the data's place and scale.

    Args:
      features: D.
      layers: how many.
      direction: which direction is closed form.
      context_shape: shape of the context, or its width, of which every layer's numbers are linear
        functions (amortised inference); None for an unconditional flow.
      memory: what the backward pass stores; see `Repeat`.

    Reference: Rezende and Mohamed, 2015, https://arxiv.org/abs/1505.05770
    """
    return _stack(
        directed("planar", Planar(), "forward", direction), features, layers, memory, context_shape
    )


@recipe
def radial(
    features: int,
    layers: int = 16,
    *,
    direction: Literal["forward", "inverse"] = "forward",
    context_shape: int | tuple[int, ...] | None = None,
    memory: Memory = "store",
) -> Flow:
    """Radial flow: `layers` contractions or expansions around centres.

    Both directions are closed form. An actnorm nearest to the data, not in the paper, gives the
    flow the data's place and scale.

    Args:
      features: D.
      layers: how many.
      direction: which direction is the paper's formula.
      context_shape: shape of the context, or its width, of which every layer's numbers are linear
        functions; None for an unconditional flow.
      memory: what the backward pass stores; see `Repeat`.

    Reference: Rezende and Mohamed, 2015, https://arxiv.org/abs/1505.05770
    """
    return _stack(
        directed("radial", Radial(), "forward", direction), features, layers, memory, context_shape
    )


@recipe
def sylvester(
    features: int,
    layers: int = 8,
    rank: int | None = None,
    *,
    basis: Literal["qr", "householder"] = "qr",
    direction: Literal["forward", "inverse"] = "forward",
    context_shape: int | tuple[int, ...] | None = None,
    memory: Memory = "store",
) -> Flow:
    """Sylvester flow: `layers` bends, each along `rank` orthogonal directions.

    With direction="forward", as in the paper, samples and their log p are closed form; log p of
    given points then takes `rank` scalar iterations a layer. With "inverse" it is the other way
    round, for fits to data. An actnorm nearest to the data is not in the paper.

    Args:
      features: D.
      layers: how many.
      rank: M of the paper; None for the smaller of D and 16.
      basis: how directions are made orthogonal; see `Sylvester`.
      direction: which direction is closed form.
      context_shape: shape of the context, or its width, of which every layer's numbers are linear
        functions (amortised inference); None for an unconditional flow.
      memory: what the backward pass stores; see `Repeat`.

    Reference: van den Berg et al., 2018, https://arxiv.org/abs/1803.05649
    """
    layer = Sylvester(min(features, 16) if rank is None else rank, basis)
    return _stack(
        directed("sylvester", layer, "forward", direction), features, layers, memory, context_shape
    )


def _stack(
    layer: Bijector,
    features: int,
    layers: int,
    memory: Memory,
    context_shape: int | tuple[int, ...] | None,
) -> Flow:
    bijector = Chain((ActNorm(), Repeat(layer, layers, memory)))
    return Flow(bijector, (features,), context_shape=context_shape)
