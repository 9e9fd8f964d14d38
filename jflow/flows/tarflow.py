"""Transformer autoregressive flows of images."""

from typing import Any, Literal

from jflow.bijectors import ActNorm, Chain, Invert, MaskedAutoregressive, Patchify, Repeat
from jflow.distributions import Flow, recipe
from jflow.flows.checks import (
    Dequantization,
    Scalar,
    check_patch,
    check_vector_context,
    noise_of,
    of_values,
    pairs,
    pixels,
    scalar,
)
from jflow.nets import CausalTransformer, ResidualConvNet


@recipe
def tarflow(
    image_shape: tuple[int, int, int],
    blocks: int = 4,
    layers: int = 4,
    width: int = 128,
    *,
    patch: int = 2,
    heads: int = 4,
    transformer: Scalar = "logistic_mixture",
    components: int = 8,
    bound: float = 5.0,
    alpha: float | None = 1e-5,
    positions: Literal["learned", "rotary"] = "learned",
    activation: str = "gelu",
    dropout: float = 0.0,
    context_shape: int | tuple[int, ...] | None = None,
    values: int | Literal["auto"] | None = "auto",
    dequantization: Dequantization = "uniform",
    memory: Literal["store", "remat"] = "store",
    dtype: str | None = None,
) -> Flow:
    """TarFlow: patches of an image one after the other, each given those before by a transformer.

    Blocks read the patches forwards and backwards in turn. Each transforms the numbers of a patch
    by scalar functions, whose parameters a causal transformer makes of all patches before: affine
    ones as in the paper; or mixtures of logistics, or splines, which say more of a number than its
    place and its scale, and have better likelihoods. Log p is one pass; a sample takes a step for
    each patch and block, which all together cost about one pass, since keys and values are kept.

    Differences from the paper: a logit and an actnorm nearest to the data; norms by root mean
    squares; the first patch of a block is transformed, too; no noise is added to data in training,
    and none taken away from samples. The paper's density of ImageNet 64x64 is tarflow((64, 64, 3),
    8, 8, 768, heads=12, transformer="affine", alpha=None).

    Args:
      image_shape: (height, width, channels); `patch` divides height and width.
      blocks: an even number.
      layers: of attention in each block.
      width: of tokens.
      patch: pixels along each side of a patch.
      heads: of attention; they divide the width.
      transformer: the scalar function.
      components: of mixtures; bins of splines; units of deep sigmoids.
      bound: of log-scales, or of the interval of splines.
      alpha: margin of the logit of pixels, which are numbers in [0, 1] without `values`; None for
        none, as in the paper.
      positions: see `jflow.nets.CausalTransformer`.
      activation: of the networks.
      dropout: in the networks, in training.
      context_shape: shape of the context, or its width; None for an unconditional flow.
      values: grey levels of integer data; "auto" for 256, None for continuous data.
      dequantization: whether the noise of grey levels is uniform or learned, "variational"; see
        `Dequantize`.
      memory: whether the backward pass keeps what layers compute, "store", or computes it again.
      dtype: of the networks, such as "bfloat16".

    Raises:
      ValueError: an unknown name, or sizes that do not fit.

    Reference: Zhai et al., 2024, https://arxiv.org/abs/2412.06329
    """
    function = scalar("tarflow", transformer, components, bound)
    if memory not in ("store", "remat"):
        raise ValueError(f"tarflow: memory must be 'store' or 'remat'; got {memory!r}")
    options: Any = {"activation": activation, "dropout": dropout, "dtype": dtype}
    net = CausalTransformer(
        width, layers, heads, positions=positions, remat=memory == "remat", **options
    )
    there, back = (
        MaskedAutoregressive(function, net=net, order=o) for o in ("natural", "reversed")
    )
    both = Repeat(Chain((there, back)), pairs("tarflow", blocks, "blocks"))
    check_patch("tarflow", image_shape, patch)
    check_vector_context("tarflow", context_shape)
    few = ResidualConvNet(32, dropout=dropout, dtype=dtype)
    noise = noise_of("tarflow", dequantization, values, few)
    tokens, image = Patchify(image_shape, patch), Invert(Patchify(image_shape, patch))
    body = Chain((pixels(alpha), tokens, ActNorm(2), both, image))
    return Flow(of_values(values, body, 3, noise), image_shape, context_shape=context_shape)
