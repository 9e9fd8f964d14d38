"""Flow++, and VFlow, which gives it more room."""

from typing import Any, Literal

from jflow.bijectors import (
    ActNorm,
    Augment,
    Bijector,
    Chain,
    CheckerboardSqueeze,
    Coupling,
    Invert,
    Repeat,
    Reverse,
    Squeeze,
)
from jflow.bijectors.memory import Memory
from jflow.distributions import Flow, recipe
from jflow.flows.checks import (
    Dequantization,
    noise_of,
    of_values,
    pixels,
    scalar,
    sizes_of,
)
from jflow.functional.arguments import check_counts
from jflow.nets import GatedConvNet


@recipe
def flow_pp(
    image_shape: tuple[int, int, int],
    hidden: int | None = None,
    blocks: int | None = None,
    *,
    couplings: tuple[int, int, int] = (4, 2, 3),
    heads: int = 4,
    components: int | None = None,
    bound: float = 7.0,
    alpha: float | None = 0.05,
    dropout: float = 0.2,
    context_shape: int | tuple[int, ...] | None = None,
    values: int | Literal["auto"] | None = "auto",
    dequantization: Dequantization = "uniform",
    memory: Memory = "store",
    dtype: str | None = None,
) -> Flow:
    """Flow++: couplings by mixtures of logistics, with gated convolutions and self-attention.

    Couplings of a checkerboard, then, of half the resolution, couplings of channels and again of a
    checkerboard; each moves half of the numbers by the cdf of a mixture of logistics, a logit, and
    an affine map. Likelihoods are one pass; samples solve for the inverse of the cdf.

    Differences from the paper: norms of channels, not of pixels, and by root mean squares in
    networks; learned noise, with `dequantization="variational"`, is of splines, and its networks
    see the image itself. The paper's density of CIFAR-10 is flow_pp((32, 32, 3),
    dequantization="variational").

    Args:
      image_shape: (height, width, channels), height and width multiples of 2; 4 divides the width
        if there are checkerboards after the squeeze.
      hidden: channels of the coupling networks; None for 96, or 48 of small images, which are those
        of fewer pixels than 32x32.
      blocks: of each network; None for 10, or 2 of small images.
      couplings: how many of a checkerboard, of channels, and of a checkerboard.
      heads: of attention; 0 for none.
      components: of mixtures; None for 32, or 8 of small images.
      bound: of log-scales.
      alpha: margin of the logit of pixels, which are numbers in [0, 1] without `values`; None for
        none.
      dropout: in the networks, in training.
      context_shape: shape of the context, or its width; None for an unconditional flow.
      values: grey levels of integer data; "auto" for 256, None for continuous data.
      dequantization: whether the noise of grey levels is uniform or learned, "variational"; see
        `Dequantize`.
      memory: what the backward pass stores; see `Repeat`. Not "reversible", for which samples
        would have to be closed forms.
      dtype: of the networks, such as "bfloat16".

    Raises:
      ValueError: an unknown name, or sizes that do not fit.

    Reference: Ho et al., 2019, https://arxiv.org/abs/1902.00275
    """
    sizes = hidden, blocks, couplings, heads, components, bound, alpha, dropout
    noise = dequantization, values
    body, noise = _layers("flow_pp", image_shape, 0, sizes, noise, memory, dtype)
    return Flow(of_values(values, body, 3, noise), image_shape, context_shape=context_shape)


@recipe
def vflow(
    image_shape: tuple[int, int, int],
    extra: int | None = None,
    hidden: int | None = None,
    blocks: int | None = None,
    *,
    couplings: tuple[int, int, int] = (4, 2, 3),
    heads: int = 4,
    components: int | None = None,
    bound: float = 7.0,
    alpha: float | None = 0.05,
    dropout: float = 0.2,
    context_shape: int | tuple[int, ...] | None = None,
    values: int | Literal["auto"] | None = "auto",
    dequantization: Dequantization = "uniform",
    memory: Memory = "store",
    dtype: str | None = None,
) -> Flow:
    """VFlow: Flow++ of an image and channels of noise beside it, so that layers have more room.

    The noise is normal, with means and scales by a network of the image; log p is a bound, which
    rises with draws (`log_prob_estimate`). A sample leaves it out.

    Differences from the paper: those of `flow_pp`; the noise is normal given the image, and not a
    flow of its own.

    Args:
      image_shape: (height, width, channels); see `flow_pp`.
      extra: channels of noise; None for as many as the image has.
      hidden: channels of the coupling networks; None for 96, or 48 of small images, which are those
        of fewer pixels than 32x32.
      blocks: of each network; None for 10, or 2 of small images.
      couplings: how many of a checkerboard, of channels, and of a checkerboard.
      heads: of attention; 0 for none.
      components: of mixtures; None for 32, or 8 of small images.
      bound: of log-scales.
      alpha: margin of the logit of pixels, which are numbers in [0, 1] without `values`; None for
        none.
      dropout: in the networks, in training.
      context_shape: shape of the context, or its width; None for an unconditional flow.
      values: grey levels of integer data; "auto" for 256, None for continuous data.
      dequantization: whether the noise of grey levels is uniform or learned, "variational"; see
        `Dequantize`.
      memory: what the backward pass stores; see `Repeat`. Not "reversible", for which samples
        would have to be closed forms.
      dtype: of the networks, such as "bfloat16".

    Raises:
      ValueError: an unknown name, or sizes that do not fit.

    Reference: Chen et al., 2020, https://arxiv.org/abs/2002.09741
    """
    channels = sizes_of("vflow", image_shape)[2] if extra is None else extra
    check_counts("vflow", extra=channels)
    sizes = hidden, blocks, couplings, heads, components, bound, alpha, dropout
    noise = dequantization, values
    body, noise = _layers("vflow", image_shape, channels, sizes, noise, memory, dtype)
    return Flow(of_values(values, body, 3, noise), image_shape, context_shape=context_shape)


def _layers(
    recipe: str,
    image_shape: Any,
    extra: int,
    sizes: tuple[Any, ...],
    noise: tuple[str, Any],
    memory: Memory,
    dtype: str | None,
) -> tuple[Bijector, Bijector | None]:
    """Those of pixels in [0, 1], with so many channels of noise; and the noise of grey levels."""
    hidden, blocks, couplings, heads, components, bound, alpha, dropout = sizes
    small = _checked(recipe, image_shape, couplings)
    options: Any = {"dropout": dropout, "dtype": dtype}
    hidden = (48 if small else 96) if hidden is None else hidden
    blocks = (2 if small else 10) if blocks is None else blocks
    net = GatedConvNet(hidden, blocks, heads, **options)
    count = (8 if small else 32) if components is None else components
    mixture = scalar(recipe, "logistic_mixture", count, bound)

    def layers(count: int) -> tuple[Bijector, ...]:
        step = Chain((ActNorm(3), Coupling(mixture, net, "channel"), Reverse(3)))
        return (Repeat(step, count, memory),) if count else ()

    few = GatedConvNet(hidden, 2, heads, **options)
    augment = (Augment(extra, few, 3),) if extra else ()
    fine, channels, coarse = map(layers, couplings)
    body = (pixels(alpha), *augment, *_coloured(fine), Squeeze(), *channels, *_coloured(coarse))
    return Chain((*body, Invert(Squeeze()))), noise_of(recipe, *noise, few)


def _checked(recipe: str, image_shape: Any, couplings: Any) -> bool:
    """Whether images are small; refuses what does not fit."""
    height, width, _ = sizes_of(recipe, image_shape)
    if not isinstance(couplings, tuple) or len(couplings) != 3:
        raise ValueError(
            f"{recipe}: couplings must be three counts, of a checkerboard, of channels and again "
            f"of a checkerboard; got {couplings!r}"
        )
    for count in couplings:
        check_counts(recipe, 0, **{"each of couplings": count})
    if not any(couplings):
        raise ValueError(f"{recipe}: one of couplings must be 1 or more; got {couplings}")
    if height % 2 or width % (4 if couplings[2] else 2):
        raise ValueError(
            f"{recipe}: image_shape must have an even height and a width that 4 divides, or 2 "
            f"without couplings of the second checkerboard; got {image_shape}. Pad the images, or "
            "give couplings such as (4, 2, 0)"
        )
    return height * width < 32 * 32


def _coloured(layers: tuple[Bijector, ...]) -> tuple[Bijector, ...]:
    """Layers that see the two colours of a checkerboard as two halves of the channels."""
    if not layers:
        return ()
    return (CheckerboardSqueeze(), *layers, Invert(CheckerboardSqueeze()))
