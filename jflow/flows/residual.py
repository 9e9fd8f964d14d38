"""Residual flows: i-ResNet, Residual Flow, i-DenseNet."""

from copy import deepcopy
from typing import Any, Literal

from jflow.bijectors import (
    ActNorm,
    Bijector,
    Chain,
    MultiScale,
    Repeat,
    Residual,
    Squeeze,
)
from jflow.distributions import Flow, recipe
from jflow.flows.checks import check_one_size, directed, of_values, pixels
from jflow.functional import (
    ExactLogDet,
    Logarithmic,
    LogDetEstimator,
    PowerSeries,
    RussianRoulette,
)
from jflow.functional.arguments import check_counts
from jflow.nets import Contraction, LipschitzConvNet, LipschitzDenseNet, LipschitzMLP

_Memory = Literal["store", "remat"]
_Direction = Literal["inverse", "forward"]


@recipe
def i_resnet(
    features: int | None = None,
    layers: int = 16,
    hidden: tuple[int, ...] | int | None = None,
    *,
    image_shape: tuple[int, int, int] | None = None,
    levels: int = 3,
    coefficient: float = 0.9,
    activation: str = "elu",
    terms: int = 10,
    exact_up_to: int = 3,
    factor_out: bool = True,
    alpha: float | None = None,
    direction: _Direction = "inverse",
    context_shape: int | tuple[int, ...] | None = None,
    values: int | Literal["auto"] | None = "auto",
    memory: _Memory = "remat",
) -> Flow:
    """i-ResNet: residual blocks that contract, log-determinants by truncated power series.

    log p is biased, by up to `PowerSeries.bias_bound` a layer. Sampling is a fixed-point iteration.

    Args:
      features: D of vectors. Give this or `image_shape`.
      layers: residual blocks, each after an actnorm; of images, in each level.
      hidden: widths of the hidden layers, (128, 128) by default; for images one number of channels,
        64 by default, of the two layers between 3x3, 1x1 and 3x3 convolutions.
      image_shape: (height, width, channels); 2^levels (without `factor_out`, 2^(levels - 1)) must
        divide height and width. Without `values`, images are in [0, 1].
      levels: scales of an image flow.
      coefficient: what the norm of each layer is at most.
      activation: of the networks; see `LipschitzMLP`.
      terms: of the power series.
      exact_up_to: log-determinants of up to so many features are exact: for so few, that is cheaper
        than a series.
      factor_out: whether each level of an image flow begins with a squeeze and sets half of the
        channels aside, as in the paper.
      alpha: margin of the logit that image flows begin with; None for none, as in the paper, but
        for pixels moved to [-1/2, 1/2].
      direction: which direction needs no iteration: "inverse" for fits to data, "forward" for
        samples.
      context_shape: shape of the context, or its width; None for an unconditional flow.
      values: grey levels of data that are integers; None for continuous data; "auto" for 256 of
        images, and continuous vectors.
      memory: what the backward pass stores; see `Repeat`. Here "remat" is as fast as "store", or
        faster, and needs a small part of its memory.

    Raises:
      ValueError: not exactly one of `features` and `image_shape`, or sizes that do not fit.

    Reference: Behrmann et al., 2019, https://arxiv.org/abs/1811.00995
    """
    _check_sizes("i_resnet", features, image_shape, levels, factor_out)
    estimator = _estimator("i_resnet", PowerSeries(terms), features, exact_up_to)
    net = _net("i_resnet", features, image_shape, hidden, coefficient, activation)
    block = directed("i_resnet", Residual(net, estimator), "inverse", direction)
    bijector = _bijector(block, layers, memory, image_shape, levels, factor_out, alpha)
    return _flow(bijector, features, image_shape, context_shape, values)


@recipe
def residual_flow(  # noqa: D417
    features: int | None = None,
    layers: int = 16,
    hidden: tuple[int, ...] | int | None = None,
    *,
    image_shape: tuple[int, int, int] | None = None,
    levels: int = 3,
    coefficient: float = 0.98,
    activation: str = "lip_swish",
    exact_terms: int = 1,
    exact_up_to: int = 3,
    factor_out: bool = False,
    alpha: float | None = 1e-5,
    direction: _Direction = "inverse",
    context_shape: int | tuple[int, ...] | None = None,
    values: int | Literal["auto"] | None = "auto",
    memory: _Memory = "remat",
) -> Flow:
    """Residual Flow: residual blocks that contract, log-determinants without bias.

    log p is a random estimate: `density.log_prob(y, key=key)`, and with its error
    `density.log_prob_estimate(y, key)`. Sampling is a fixed-point iteration. Unlike in the paper,
    series stop by a law that keeps the variance finite: `Logarithmic(L)`, with L the Lipschitz
    constant of the networks.

    Args:
      features: D of vectors. Give this or `image_shape`.
      layers: residual blocks, each after an actnorm; of images, in each level.
      hidden: widths of the hidden layers, (128, 128, 128) by default; for images one number of
        channels, 64 by default (512 in the paper), of the two layers between 3x3, 1x1 and 3x3
        convolutions.
      image_shape: (height, width, channels); 2^(levels - 1) (with `factor_out`, 2^levels) must
        divide height and width. Without `values`, images are in [0, 1].
      levels: scales of an image flow.
      coefficient: what the norm of each layer is at most.
      activation: of the networks; see `LipschitzMLP`.
      exact_terms: of the series, which are always taken; 2 more follow on average, with the
        default coefficient.
      exact_up_to: log-determinants of up to so many features are exact: for so few, that is cheaper
        than a series.
      factor_out: whether each level of an image flow sets half of the channels aside.
      alpha: margin of the logit that image flows begin with; None for none.
      direction, context_shape, values, memory: see `i_resnet`.

    Raises:
      ValueError: not exactly one of `features` and `image_shape`, or sizes that do not fit.

    Reference: Chen et al., 2019, https://arxiv.org/abs/1906.02735
    """
    _check_sizes("residual_flow", features, image_shape, levels, factor_out)
    hidden = (128, 128, 128) if hidden is None and features is not None else hidden
    net = _net("residual_flow", features, image_shape, hidden, coefficient, activation)
    estimator = _estimator("residual_flow", _roulette(net, exact_terms), features, exact_up_to)
    block = directed("residual_flow", Residual(net, estimator), "inverse", direction)
    bijector = _bijector(block, layers, memory, image_shape, levels, factor_out, alpha)
    return _flow(bijector, features, image_shape, context_shape, values)


@recipe
def i_densenet(  # noqa: D417
    features: int | None = None,
    layers: int = 10,
    growth: int = 64,
    depth: int = 3,
    *,
    image_shape: tuple[int, int, int] | None = None,
    levels: int = 3,
    coefficient: float = 0.98,
    activation: str = "clip_swish",
    exact_terms: int = 1,
    exact_up_to: int = 3,
    factor_out: bool = False,
    alpha: float | None = 1e-5,
    direction: _Direction = "inverse",
    context_shape: int | tuple[int, ...] | None = None,
    values: int | Literal["auto"] | None = "auto",
    memory: _Memory = "remat",
) -> Flow:
    """i-DenseNet: a residual flow whose networks join the outputs of each layer to its inputs.

    Args:
      features: D of vectors. Give this or `image_shape`.
      layers: residual blocks, each after an actnorm; of images, in each level.
      growth: outputs of each layer of a network (172 in the paper, for images).
      depth: layers of a network, before the last.
      image_shape, levels, coefficient, activation: see `residual_flow`. Convolutions are 3x3.
      exact_terms, exact_up_to, factor_out, alpha: see `residual_flow`.
      direction, context_shape, values, memory: see `i_resnet`.

    Raises:
      ValueError: not exactly one of `features` and `image_shape`, or sizes that do not fit.

    Reference: Perugachi-Diaz, Tomczak, Bhulai, 2021, https://arxiv.org/abs/2102.02694
    """
    _check_sizes("i_densenet", features, image_shape, levels, factor_out)
    size = None if image_shape is None else 3
    net = LipschitzDenseNet(growth, depth, size, coefficient=coefficient, activation=activation)
    estimator = _estimator("i_densenet", _roulette(net, exact_terms), features, exact_up_to)
    block = directed("i_densenet", Residual(net, estimator), "inverse", direction)
    bijector = _bijector(block, layers, memory, image_shape, levels, factor_out, alpha)
    return _flow(bijector, features, image_shape, context_shape, values)


def _check_sizes(
    name: str, features: int | None, image_shape: Any, levels: int, factor_out: bool
) -> None:
    check_one_size(name, features, image_shape)
    if features is not None:
        check_counts(name, features=features)
        return
    check_counts(name, levels=levels)
    factor = 2 ** (levels if factor_out else levels - 1)
    if len(image_shape) != 3 or any(size % factor for size in image_shape[:2]):
        raise ValueError(
            f"{name}: image_shape must be (height, width, channels), height and width multiples of "
            f"{factor} for {levels=}, {factor_out=}; got {image_shape}. Use fewer levels, or pad"
        )


def _estimator(
    name: str, estimator: LogDetEstimator, features: int | None, exact_up_to: int
) -> LogDetEstimator:
    check_counts(name, 0, exact_up_to=exact_up_to)
    few = features is not None and features <= exact_up_to
    return ExactLogDet() if few else estimator


def _roulette(net: Contraction, exact_terms: int) -> LogDetEstimator:
    # The variance is finite up to a spectral radius of sqrt(L), which leaves a margin, and the
    # fewer terms, the better: `python -m benchmarks.residual variance`.
    return RussianRoulette(Logarithmic(net.lipschitz), exact_terms)


def _net(
    name: str,
    features: int | None,
    image_shape: Any,
    hidden: Any,
    coefficient: float,
    activation: str,
) -> Contraction:
    options: Any = {"coefficient": coefficient, "activation": activation}
    if image_shape is None:
        return LipschitzMLP((128, 128) if hidden is None else hidden, **options)
    channels = 64 if hidden is None else hidden
    if not isinstance(channels, int):
        raise ValueError(f"{name}: for images, hidden must be one number; got {hidden}")
    check_counts(name, hidden=channels)
    return LipschitzConvNet((channels, channels), **options)


def _bijector(
    block: Bijector,
    layers: int,
    memory: _Memory,
    image_shape: Any,
    levels: int,
    factor_out: bool,
    alpha: float | None,
) -> Bijector:
    def blocks(event_ndim: int) -> Bijector:
        return Repeat(Chain((ActNorm(event_ndim), deepcopy(block))), layers, memory)

    if image_shape is None:
        return Chain((blocks(1), ActNorm()))
    first = pixels(alpha)
    if factor_out:
        scales = tuple(Chain((Squeeze(), blocks(3))) for _ in range(levels))
        return Chain((first, MultiScale(scales, image_shape)))
    parts = [blocks(3)]
    for _ in range(levels - 1):
        parts += [Squeeze(), blocks(3)]
    return Chain((first, *parts, ActNorm(3)))


def _flow(
    bijector: Bijector,
    features: int | None,
    image_shape: Any,
    context_shape: int | tuple[int, ...] | None,
    values: int | Literal["auto"] | None,
) -> Flow:
    shape = image_shape if features is None else (features,)
    return Flow(of_values(values, bijector, len(shape)), shape, context_shape=context_shape)
