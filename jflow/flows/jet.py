"""Jet: couplings of patches of images by vision transformers."""

from typing import Any, Literal

import numpy as np

from jflow.bijectors import (
    ActNorm,
    Bijector,
    Chain,
    Coupling,
    Invert,
    PairTokens,
    Patchify,
    Permute,
    Repeat,
)
from jflow.bijectors.memory import Memory
from jflow.distributions import Flow, recipe
from jflow.flows.checks import (
    Dequantization,
    Scalar,
    check_patch,
    entering,
    noise_of,
    of_values,
    pixels,
    scalar,
)
from jflow.functional.arguments import check_counts
from jflow.nets import ResidualConvNet, Transformer


@recipe
def jet(
    image_shape: tuple[int, int, int],
    couplings: int = 32,
    depth: int = 2,
    width: int = 512,
    *,
    patch: int = 4,
    heads: int = 8,
    channel_couplings: int = 4,
    transformer: Scalar = "affine",
    components: int = 8,
    bound: float = 2.0,
    alpha: float | None = None,
    activation: str = "gelu",
    dropout: float = 0.0,
    context_shape: int | tuple[int, ...] | None = None,
    values: int | Literal["auto"] | None = "auto",
    dequantization: Dequantization = "uniform",
    memory: Memory = "store",
    dtype: str | None = None,
) -> Flow:
    """Jet: couplings of the patches of an image, whose networks are vision transformers.

    After every `channel_couplings` couplings of half of the numbers of each patch, in a random
    order, given the other half, comes one of half of the patches, at random, given the others.
    Both directions are one pass. All couplings are in two loops, one in the other, so that compile
    time does not grow with their number. Patches change places at random on the way to the base.

    Differences from the paper: log-scales are bounded, as `Affine` does it, in place of
    2 sigmoid(s); an actnorm nearest to the data; norms by root mean squares. The paper's densities
    of ImageNet 64x64 are jet((64, 64, 3)), with couplings=64 and depth=5 for the better one.

    Args:
      image_shape: (height, width, channels); `patch` divides height and width, and there is an even
        number of patches.
      couplings: how many, of both kinds.
      depth: layers of attention of each network.
      width: of their tokens.
      patch: pixels along each side of a patch; each has two numbers or more.
      heads: of attention; they divide the width.
      channel_couplings: how many between two couplings of patches.
      transformer: the scalar function.
      components: of mixtures; bins of splines; units of deep sigmoids.
      bound: of log-scales, or of the interval of splines.
      alpha: margin of the logit of pixels, which are numbers in [0, 1] without `values`; None for
        none, as in the paper.
      activation: of the networks.
      dropout: in the networks, in training.
      context_shape: shape of the context, or its width: a vector is added to every token, to a
        sequence (S, C), as of patches or words, tokens attend. None for an unconditional flow.
      values: grey levels of integer data; "auto" for 256, None for continuous data.
      dequantization: whether the noise of grey levels is uniform or learned, "variational"; see
        `Dequantize`.
      memory: what the backward pass stores; see `Repeat`.
      dtype: of the networks, such as "bfloat16".

    Raises:
      ValueError: an unknown name, or sizes that do not fit.

    Reference: Kolesnikov, Pinto, Tschannen, 2024, https://arxiv.org/abs/2412.15129
    """
    counts = {"channel_couplings": channel_couplings, "depth": depth}
    check_counts("jet", couplings=couplings, **counts)
    features = _checked_features(image_shape, patch)
    options: Any = {"activation": activation, "dropout": dropout, "dtype": dtype}
    context = entering("jet", context_shape, dequantization)
    net = Transformer(width, depth, heads, context=context, **options)
    function = scalar("jet", transformer, components, bound)
    layers = _couplings(
        lambda size: Coupling(function, net, np.arange(size)[None] < size // 2),
        features, couplings, channel_couplings, memory,
    )  # fmt: skip
    body = (pixels(alpha), Patchify(image_shape, patch), ActNorm(2), *layers)
    few = ResidualConvNet(32, dropout=dropout, dtype=dtype)
    noise = noise_of("jet", dequantization, values, few)
    bijector = of_values(values, Chain((*body, Invert(Patchify(image_shape, patch)))), 3, noise)
    return Flow(bijector, image_shape, context_shape=context_shape)


def _checked_features(image_shape: Any, patch: int) -> int:
    """How many numbers a patch has."""
    check_patch("jet", image_shape, patch)
    count, features = Patchify(image_shape, patch).latent_shape(tuple(image_shape))
    if count % 2 or features < 2:
        raise ValueError(
            "jet: image_shape and patch must make an even number of patches, of two numbers or "
            f"more; got {count} of {features}. Pad the images, or take another patch"
        )
    return features


def _couplings(
    coupling: Any, features: int, count: int, between: int, memory: Memory
) -> list[Bijector]:
    """So many couplings, those of patches after each `between` of channels."""

    def channels(length: int) -> Bijector:
        return Repeat(Chain((Permute(event_ndim=2), coupling(features))), length, memory)

    times, rest = divmod(count, between + 1)
    found: list[Bijector] = []
    if times:
        patches = (PairTokens(), coupling(2 * features), Invert(PairTokens()))
        found.append(Repeat(Chain((channels(between), *patches)), times, memory))
    return [*found, channels(rest)] if rest else found
