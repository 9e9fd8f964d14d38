"""DenseFlow: multi-scale flows of images that get channels of noise on the way."""

from dataclasses import replace
from typing import Any, Literal

from jflow.bijectors import (
    ActNorm,
    Augment,
    Bijector,
    Chain,
    Coupling,
    MultiScale,
    Repeat,
    Squeeze,
)
from jflow.bijectors.memory import Memory
from jflow.distributions import Flow, recipe
from jflow.flows.checks import (
    Dequantization,
    mixer,
    noise_of,
    of_values,
    pixels,
    sizes_of,
)
from jflow.functional.arguments import check_counts
from jflow.nets import ConvNet, DenseConvNet
from jflow.transformers import Affine

# units, steps, growth, layers, width
_PAPER: Any = (6, 4, 1), (5, 6, 20), 10, 7, 64
_SMALL: Any = (2, 1), (4, 4), 4, 3, 32


@recipe
def dense_flow(
    image_shape: tuple[int, int, int],
    units: tuple[int, ...] | None = None,
    steps: tuple[int, ...] | None = None,
    growth: int | None = None,
    *,
    hidden: int = 48,
    layers: int | None = None,
    width: int | None = None,
    heads: int = 1,
    alpha: float | None = None,
    dropout: float = 0.0,
    context_shape: int | tuple[int, ...] | None = None,
    values: int | Literal["auto"] | None = "auto",
    dequantization: Dequantization = "uniform",
    memory: Memory = "store",
    dtype: str | None = None,
) -> Flow:
    """DenseFlow: units of Glow's steps, and more channels of noise between them.

    Each level squeezes 2x2 pixels into channels, and has some units of steps: actnorm, 1x1
    convolution, and an affine coupling whose network is densely connected, with attention. Between
    two units of a level, `growth` channels of normal noise are put beside the others, with means
    and scales that a network makes of these. All levels but the last then set half of the channels
    aside. Log p is a bound, which rises with draws (`log_prob_estimate`); a sample leaves the noise
    out.

    Differences from the paper: those of `jflow.nets.DenseConvNet`; noise is given the channels it
    comes beside, of which those of all units before are functions, and not those, too. The paper's
    DenseFlow-74-10 of 32x32 and 64x64 images has the defaults of images of that size, and
    dequantization="variational".

    Args:
      image_shape: (height, width, channels); 2^levels must divide height and width.
      units: how many, at each level; None for (6, 4, 1), or (2, 1) of small images, which are those
        of fewer pixels than 32x32.
      steps: in each unit, level by level; None for (5, 6, 20), or (4, 4) of small images.
      growth: channels of noise between two units, an even number; None for 10, or 4 of small
        images.
      hidden: channels of the coupling networks, before and after their dense layers.
      layers: how many of these; None for 7, or 3 of small images.
      width: channels that each of these adds; None for 64, or 32 of small images.
      heads: of attention, which divide half of `hidden`; 0 for none.
      alpha: margin of the logit of pixels, which are numbers in [0, 1] without `values`; None for
        none, as in the paper.
      dropout: in the networks, in training.
      context_shape: shape of the context, or its width; None for an unconditional flow.
      values: grey levels of integer data; "auto" for 256, None for continuous data.
      dequantization: whether the noise of grey levels is uniform or learned, "variational"; see
        `Dequantize`.
      memory: what the backward pass stores of the steps of a unit; see `Repeat`.
      dtype: of the networks, such as "bfloat16".

    Raises:
      ValueError: an unknown name, or sizes that do not fit.

    Reference: Grcic et al., 2021, https://arxiv.org/abs/2106.04627
    """
    sizes = _sizes("dense_flow", image_shape, (units, steps, growth, layers, width))
    own_units, own_steps, more, depth, wide = sizes
    options: Any = {"dropout": dropout, "dtype": dtype}
    net = DenseConvNet(hidden, depth, wide, heads, **options)
    noisy = ConvNet(2 * hidden, **options)

    def unit(count: int) -> Bijector:
        mix = mixer("dense_flow", "plu", 3)
        return Repeat(Chain((ActNorm(3), mix, Coupling(Affine(), net, "channel"))), count, memory)

    def level(units: int, count: int) -> Bijector:
        parts: list[Bijector] = [Squeeze(), unit(count)]
        for _ in range(units - 1):
            parts += [Augment(more, noisy, 3), unit(count)]
        return Chain(tuple(parts))

    pyramid = MultiScale(tuple(map(level, own_units, own_steps)), image_shape)
    noise = noise_of("dense_flow", dequantization, values, replace(net, heads=0))
    bijector = of_values(values, Chain((pixels(alpha), pyramid)), 3, noise)
    return Flow(bijector, image_shape, context_shape=context_shape)


def _sizes(recipe: str, image_shape: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """units, steps, growth, layers and width: those given, and where that is None, the defaults.

    Raises:
      ValueError: counts that are none, or of different numbers of levels, or do not fit.
    """
    height, columns, _ = sizes_of(recipe, image_shape)
    own = _SMALL if height * columns < 32 * 32 else _PAPER
    sizes = tuple(mine if it is None else it for it, mine in zip(given, own, strict=True))
    units, steps, growth, *_ = sizes
    for name, counts in (("units", units), ("steps", steps)):
        if not isinstance(counts, tuple | list) or not counts:
            raise ValueError(
                f"{recipe}: {name} must be a count for each level, such as (2, 1); got {counts!r}"
            )
        for count in counts:
            check_counts(recipe, **{f"each of {name}": count})
    if len(units) != len(steps):
        raise ValueError(
            f"{recipe}: units and steps must be of the same levels; got {units} and {steps}. Give "
            "both"
        )
    check_counts(recipe, growth=growth)
    if growth % 2:
        raise ValueError(
            f"{recipe}: growth must be even, so that levels can be halved; got {growth}"
        )
    if height % 2 ** len(units) or columns % 2 ** len(units):
        raise ValueError(
            f"{recipe}: image_shape must have a height and a width that 2^{len(units)} divides, "
            f"for units={units} are {len(units)} levels; got {image_shape}. Pad the images, or "
            "give units and steps of fewer levels"
        )
    return sizes
