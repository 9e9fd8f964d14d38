"""Glow."""

from jflow.bijectors import (
    ActNorm,
    Bijector,
    Chain,
    Coupling,
    MultiScale,
    Repeat,
    Squeeze,
)
from jflow.bijectors.memory import Memory
from jflow.distributions import Flow, recipe
from jflow.flows.checks import Dequantization, mixer, noise_of, of_values, pixels
from jflow.nets import ConvNet, ZeroConvNet
from jflow.transformers import Affine


@recipe
def glow(
    image_shape: tuple[int, int, int],
    levels: int | None = None,
    steps: int | None = None,
    hidden: int | None = None,
    *,
    context_shape: int | tuple[int, ...] | None = None,
    values: int | None = 256,
    mixing: str = "plu",
    checkerboards: int | None = None,
    positions: bool | None = None,
    dropout: float = 0.0,
    dequantization: Dequantization = "uniform",
    memory: Memory = "store",
    dtype: str | None = None,
) -> Flow:
    """Glow: `levels` of `steps` of actnorm, 1x1 convolution and affine coupling.

    Each level squeezes 2x2 pixels into channels; all but the last then set half of the channels
    aside, with a learned normal prior given the other half. y is an image of grey levels, or, with
    `values=None`, of numbers in [0, 1].

    Differences from the paper: log-scales are bounded by 2 tanh(r / 2) in place of
    log sigmoid(r + 2); networks have biases in place of actnorm; a context, such as a one-hot
    class, enters every network, not the last prior alone.

    Args:
      image_shape: (height, width, channels); 2^levels must divide height and width.
      levels: L of the paper; None for 3, or fewer if 2^3 does not divide height and width.
      steps: K of the paper, at each level; None for 32, or 8 of small images, which are those of
        fewer pixels than 32x32.
      hidden: channels of the coupling networks; None for 512, or 64 of small images.
      context_shape: shape of the context, or its width; None for an unconditional flow.
      values: grey levels of the data, which are integers; None for numbers.
      mixing: what mixes channels: a 1x1 convolution of kind "plu", "dense", "qr" or another of
        `Linear`, or one followed by "emerging" or "periodic" 3x3 convolutions, or by "woodbury"
        updates over channels and pixels; or "permute" or "reverse".
      checkerboards: pairs of checkerboard couplings before each squeeze but the last, as in
        Real NVP and Flow++; none in the paper. None for 2 of small images, and none of others.
      positions: whether the coupling networks have a bias for each pixel; not in the paper. None
        for whether images are small: there, what is to be seen has its place.
      dropout: in the coupling networks, in training.
      dequantization: whether the noise of grey levels is uniform or learned, "variational", by
        networks like those of the couplings; see `Dequantize`.
      memory: what the backward pass stores; see `Repeat`.
      dtype: of the networks, such as "bfloat16".

    Reference: Kingma and Dhariwal, 2018, https://arxiv.org/abs/1807.03039
    """
    small = image_shape[0] * image_shape[1] < 32 * 32
    levels = _levels(image_shape) if levels is None else levels
    steps = (8 if small else 32) if steps is None else steps
    hidden = (64 if small else 512) if hidden is None else hidden
    checkerboards = (2 if small else 0) if checkerboards is None else checkerboards
    positions = small if positions is None else positions
    net = ConvNet(hidden, positions, dropout=dropout, dtype=dtype)

    def level(last: bool) -> Bijector:
        step = Chain((ActNorm(3), mixer("glow", mixing, 3), Coupling(Affine(), net, "channel")))
        parts = (Squeeze(), Repeat(step, steps, memory))
        if last:
            return Chain(parts)
        masks = ("checkerboard", "checkerboard_swapped")
        pair = [part for m in masks for part in (ActNorm(3), Coupling(Affine(), net, m))]
        first = (Repeat(Chain(tuple(pair)), checkerboards, memory),) if checkerboards else ()
        return Chain((*first, *parts, Coupling(Affine(), ZeroConvNet(dtype=dtype), "channel")))

    pyramid = MultiScale(tuple(level(i == levels - 1) for i in range(levels)), image_shape)
    noise = noise_of("glow", dequantization, values, net)
    bijector = of_values(values, Chain((pixels(None), pyramid)), 3, noise)
    return Flow(bijector, image_shape, context_shape=context_shape)


def _levels(image_shape: tuple[int, int, int]) -> int:
    """How often height and width can be halved: 3 times at most, and at least once."""
    fit = [n for n in (3, 2) if all(size % 2**n == 0 for size in image_shape[:2])]
    return fit[0] if fit else 1
