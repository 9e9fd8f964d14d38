"""Real NVP, for vectors and for images."""

from numbers import Integral
from typing import Any, Literal

from jflow.bijectors import (
    ActNorm,
    Bijector,
    Chain,
    Coupling,
    Elementwise,
    MultiScale,
    Repeat,
    Squeeze,
)
from jflow.bijectors.memory import Memory
from jflow.distributions import Flow, recipe
from jflow.flows.checks import mixer, of_values, pairs
from jflow.nets import MLP, ResidualConvNet
from jflow.transformers import Affine, Sigmoid


@recipe
def real_nvp(
    features: int | None = None,
    layers: int = 8,
    hidden: tuple[int, ...] | int | None = None,
    *,
    image_shape: tuple[int, int, int] | None = None,
    levels: int = 2,
    blocks: int | None = None,
    alpha: float = 0.05,
    context_shape: int | tuple[int, ...] | None = None,
    values: int | Literal["auto"] | None = "auto",
    mixing: str | None = None,
    split: Literal["half", "likelihood"] = "half",
    activation: str | None = None,
    dropout: float = 0.0,
    memory: Memory = "store",
    dtype: str | None = None,
) -> Flow:
    """Real NVP: affine couplings, of vectors (`features`) or of images (`image_shape`).

    Vectors: `layers` couplings of even and odd features in turn.

    Images: pixels, grey levels or numbers in [0, 1], pass the logit with margin alpha. Each level
    but the last has three checkerboard couplings, a squeeze and three channel couplings, then sets
    half of the channels aside; the last has four checkerboard couplings. As in the paper, a
    checkerboard network sees the whole image with the other colour set to zero (not a packed half).

    Differences from the paper: actnorm before each coupling in place of batch normalisation
    after it; no weight normalisation; log-scales bounded by 2 in place of a learned bound.

    Args:
      features: D of vectors, 2 or more. Give this or `image_shape`.
      layers: couplings of a vector flow, an even number.
      hidden: widths of the hidden layers, (128, 128) by default; for images, one number of
        channels, by default 64, or 32 of small images, which are those of fewer pixels than 32x32.
      image_shape: (height, width, channels); 2^(levels - 1) must divide height and width.
      levels: scales of an image flow.
      blocks: residual blocks of each image network (8 in the paper for 32x32 images); None for 4,
        or 2 of small images.
      alpha: margin of the logit of an image flow.
      context_shape: shape of the context, or its width; None for an unconditional flow.
      values: grey levels of data that are integers; None for continuous data; "auto" for 256 of
        images, and continuous vectors.
      mixing: what mixes features, or an image's channels, before each coupling, by the names of
        `flows.glow`; None for nothing, as in the paper.
      split: which half of an image's channels a level sets aside; see `MultiScale`.
      activation: of the networks: "silu", "relu", "gelu", "elu", "tanh" or "softplus"; None for
        "silu" of vectors and "relu" of images.
      dropout: in the coupling networks, in training.
      memory: what the backward pass of a vector flow stores; see `Repeat`.
      dtype: of the networks, such as "bfloat16".

    Raises:
      ValueError: not exactly one of `features` and `image_shape`, or sizes that do not fit.

    Reference: Dinh, Sohl-Dickstein, Bengio, 2017, https://arxiv.org/abs/1605.08803
    """
    usual = "silu" if image_shape is None else "relu"
    options: Any = {"activation": activation or usual, "dropout": dropout, "dtype": dtype}
    if isinstance(features, Integral) and image_shape is None:
        widths = (128, 128) if hidden is None else hidden
        if isinstance(widths, int):
            raise ValueError(f"real_nvp: hidden must be a tuple of widths; got {hidden}")
        net = MLP(widths, **options)
        bijector = _of_vectors(net, pairs("real_nvp", layers), mixing, memory)
        return Flow(of_values(values, bijector), (features,), context_shape=context_shape)
    if image_shape is None or features is not None:
        raise ValueError(
            f"real_nvp: give features, one number, or image_shape; got {features=}, {image_shape=}"
        )
    if not isinstance(hidden, int | None):
        raise ValueError(f"real_nvp: for images, hidden must be one number; got {hidden}")
    net = ResidualConvNet(*_size(image_shape, hidden, blocks), **options)
    bijector = _of_images(net, image_shape, levels, alpha, mixing, split)
    return Flow(of_values(values, bijector, 3), image_shape, context_shape=context_shape)


def _size(
    image_shape: tuple[int, int, int], hidden: int | None, blocks: int | None
) -> tuple[int, int]:
    """Channels and blocks of the networks, smaller where images are."""
    small = image_shape[0] * image_shape[1] < 32 * 32
    channels = (32 if small else 64) if hidden is None else hidden
    return channels, (2 if small else 4) if blocks is None else blocks


def _mixers(mixing: str | None, event_ndim: int) -> tuple[Bijector, ...]:
    return () if mixing is None else (mixer("real_nvp", mixing, event_ndim),)


def _of_vectors(net: MLP, pairs: int, mixing: str | None, memory: Memory) -> Bijector:
    step: list[Bijector] = []
    for mask in ("alternating", "alternating_swapped"):
        step += [ActNorm(), *_mixers(mixing, 1), Coupling(Affine(), net, mask)]
    return Repeat(Chain(tuple(step)), pairs, memory)


def _of_images(
    net: ResidualConvNet,
    image_shape: tuple[int, int, int],
    levels: int,
    alpha: float,
    mixing: str | None,
    split: Literal["half", "likelihood"],
) -> Bijector:
    def couplings(mask: str, count: int) -> list[Bijector]:
        parts: list[Bijector] = []
        for i in range(count):
            coupling = Coupling(Affine(), net, mask + ("_swapped" if i % 2 else ""))
            parts += [ActNorm(3), *_mixers(mixing, 3), coupling]
        return parts

    level = [
        Chain((*couplings("checkerboard", 3), Squeeze(), *couplings("channel", 3)))
        for _ in range(levels - 1)
    ]
    last = Chain(tuple(couplings("checkerboard", 4)))
    logit = Elementwise(Sigmoid(alpha), event_ndim=3)
    return Chain((logit, MultiScale((*level, last), image_shape, split)))
