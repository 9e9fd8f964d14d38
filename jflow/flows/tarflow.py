"""Transformer autoregressive flows of images."""

import math
from typing import Any, Literal

from jflow.bijectors import (
    ActNorm,
    Bijector,
    Chain,
    Invert,
    MaskedAutoregressive,
    Patchify,
    Repeat,
    Reshape,
)
from jflow.distributions import Flow, recipe
from jflow.flows.checks import (
    Dequantization,
    Scalar,
    check_patch,
    entering,
    noise_of,
    of_values,
    pairs,
    pixels,
    scalar,
)
from jflow.functional.arguments import check_counts, check_numbers
from jflow.nets import MADE, CausalTransformer, ResidualConvNet, TwoLevel


@recipe
def tarflow(
    image_shape: tuple[int, int, int],
    blocks: int = 4,
    layers: int = 4,
    width: int = 128,
    *,
    patch: int = 2,
    within: int | None = 32,
    reach: int = 1,
    far: float | None = 3.0,
    heads: int = 4,
    transformer: Scalar = "logistic_mixture",
    components: int = 8,
    bound: float = 5.0,
    alpha: float | None = 1e-5,
    positions: Literal["learned", "rotary"] = "learned",
    activation: str = "gelu",
    dropout: float = 0.0,
    context_shape: int | tuple[int, ...] | None = None,
    guidance: float | None = None,
    values: int | Literal["auto"] | None = "auto",
    dequantization: Dequantization = "uniform",
    memory: Literal["auto", "store", "remat"] = "auto",
    dtype: str | None = None,
) -> Flow:
    """TarFlow: patches of an image one after the other, each given those before by a transformer.

    Blocks read the patches forwards and backwards in turn. Each transforms the numbers of a patch
    by scalar functions, whose parameters a causal transformer makes of all patches before: affine
    ones as in the paper; or mixtures of logistics, or splines, which say more of a number than its
    place and its scale, and have better likelihoods. So has a network that lets the numbers of a
    patch see those before them in it, and the patches before that are next to it. Log p is one
    pass; a sample takes a step for each number and block, which all together cost about one pass,
    since keys and values are kept.

    Differences from the paper: that network; a logit and an actnorm nearest to the data; norms by
    root mean squares; the first patch of a block is transformed, too. Noise in training, which the
    paper takes from samples again, is `jflow.data.add_noise` and `jflow.distributions.denoise`. The
    paper's density of ImageNet 64x64 is tarflow((64, 64, 3), 8, 8, 768, heads=12, within=None,
    transformer="affine", alpha=None).

    Args:
      image_shape: (height, width, channels); `patch` divides height and width.
      blocks: an even number.
      layers: of attention in each block.
      width: of tokens.
      patch: pixels along each side of a patch.
      within: hidden units, for each number of a patch, of a network that gives each those before it
        in its patch, too; see `jflow.nets.TwoLevel`. None for numbers of a patch that do not see
        each other within a block, as in the paper: samples then take fewer steps.
      reach: how many rows and columns of patches around one that network, if there is one, is
        given, of those before; 0 for none, which is better for the 8x8 digits. What is near tells
        the most of natural images, and attention would have to learn where it is.
      far: with that network, neither it nor the transformer sees a number further from zero than
        this, in standard deviations of the data, lest samples run away; see `jflow.nets.TwoLevel`.
        None for no such bound.
      heads: of attention; they divide the width.
      transformer: the scalar function.
      components: of mixtures; bins of splines; units of deep sigmoids.
      bound: of log-scales, or of the interval of splines.
      alpha: margin of the logit of pixels, which are numbers in [0, 1] without `values`; None for
        none, as in the paper.
      positions: see `jflow.nets.CausalTransformer`.
      activation: of the networks.
      dropout: in the networks, in training.
      context_shape: shape of the context, or its width: a vector is added to every token, to a
        sequence (S, C), as of patches or words, tokens attend. None for an unconditional flow.
      guidance: 1.0 for a flow that is also trained without its context, so that samples may follow
        it more than in the law that was learned, `density.with_guidance(2.0)`; None for one that is
        not. See `jflow.bijectors.MaskedAutoregressive`.
      values: grey levels of integer data; "auto" for 256, None for continuous data.
      dequantization: whether the noise of grey levels is uniform or learned, "variational"; see
        `Dequantize`.
      memory: whether the backward pass keeps what layers compute, "store", or computes it again,
        "remat"; "auto" for what is fast: "remat" on CPUs, "store" elsewhere.
      dtype: of the networks, such as "bfloat16".

    Raises:
      ValueError: an unknown name, or sizes that do not fit.

    Reference: Zhai et al., 2024, https://arxiv.org/abs/2412.06329
    """
    check_patch("tarflow", image_shape, patch)
    function = scalar("tarflow", transformer, components, bound)
    more: Any = {"activation": activation, "dropout": dropout, "dtype": dtype}
    net = CausalTransformer(
        width, layers, heads, positions=positions, remat=_remat(memory),
        context=entering("tarflow", context_shape, dequantization), **more,
    )  # fmt: skip
    maker = _within(net, within, (reach, far), patch, image_shape, more)
    layer = MaskedAutoregressive(function, net=maker, guidance=guidance)
    _check_guidance(guidance, context_shape, dequantization)
    few = ResidualConvNet(32, dropout=dropout, dtype=dtype)
    noise = noise_of("tarflow", dequantization, values, few)
    body = Chain((pixels(alpha), *_there_and_back(layer, blocks, image_shape, patch)))
    return Flow(of_values(values, body, 3, noise), image_shape, context_shape=context_shape)


def _check_guidance(guidance: Any, context_shape: Any, dequantization: str) -> None:
    """Refuses guidance towards nothing, and of what has none."""
    if guidance is None:
        return
    if context_shape is None:
        raise ValueError("tarflow: guidance is towards a context: give context_shape, too")
    if dequantization != "uniform":
        raise ValueError(
            "tarflow: learned noise has no guidance: leave out one of them; got guidance="
            f"{guidance} and dequantization={dequantization!r}"
        )


def _remat(memory: str) -> bool | None:
    """What the network is told."""
    names = {"auto": None, "store": False, "remat": True}
    if memory not in names:
        raise ValueError(f"tarflow: memory must be 'auto', 'store' or 'remat'; got {memory!r}")
    return names[memory]


def _within(
    net: CausalTransformer,
    within: int | None,
    seen: tuple[int, float | None],
    patch: int,
    image_shape: Any,
    more: Any,
) -> CausalTransformer | TwoLevel:
    """The transformer, or that with a network of the numbers of a patch, where it has several."""
    check_counts("tarflow", within=1 if within is None else within)
    reach, far = seen
    check_counts("tarflow", 0, reach=reach)
    check_numbers("tarflow", above=0, far=1.0 if far is None else far)
    size = patch**2 * image_shape[2]
    if within is None or size == 1:
        return net
    grid = {"row": image_shape[1] // patch, "reach": reach} if reach else {}
    return TwoLevel(net, MADE((within * size,), direct=True, **more), size=size, far=far, **grid)


def _there_and_back(
    layer: MaskedAutoregressive, blocks: int, image_shape: tuple[int, int, int], patch: int
) -> tuple[Bijector, ...]:
    """Pairs of layers like that, in both orders of patches, between images and images."""
    shape = Patchify(image_shape, patch).latent_shape(tuple(image_shape))
    pair = (layer.clone(order=order) for order in ("natural", "reversed"))
    both: Bijector = Repeat(Chain(tuple(pair)), pairs("tarflow", blocks, "blocks"))
    if isinstance(layer.net, TwoLevel):
        flat = (math.prod(shape),)
        both = Chain((Reshape(shape, flat), both, Reshape(flat, shape)))
    return Patchify(image_shape, patch), ActNorm(2), both, Invert(Patchify(image_shape, patch))
