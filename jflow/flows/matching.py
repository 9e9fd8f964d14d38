"""Continuous flows for flow matching."""

import math
from typing import Any, Literal

from jflow.bijectors import ActNorm, Chain, Continuous
from jflow.distributions import Flow, recipe
from jflow.flows.checks import check_one_size, checked_image, of_values, pixels
from jflow.functional import Adaptive, ExactTrace, Hutchinson
from jflow.functional.arguments import check_counts
from jflow.nets import MLP, UNet


@recipe
def flow_matching(
    features: int | None = None,
    hidden: tuple[int, ...] | int | None = None,
    *,
    image_shape: tuple[int, int, int] | None = None,
    levels: int = 2,
    blocks: int = 1,
    heads: int = 0,
    frequencies: int | None = None,
    activation: str = "gelu",
    dropout: float = 0.0,
    guidance: float | None = None,
    mean_velocities: bool = False,
    exact_up_to: int = 16,
    tolerance: float | None = None,
    max_steps: int = 256,
    alpha: float | None = 1e-5,
    context_shape: int | tuple[int, ...] | None = None,
    values: int | Literal["auto"] | None = "auto",
) -> Flow:
    """A continuous flow of vectors or images, for flow matching, which `jflow.fit` then takes.

    Training is a regression without solves, so large fields and images are cheap. Samples and log p
    are solves to a tolerance, as of any continuous flow.

    Args:
      features: D, for vectors.
      hidden: widths of the field's hidden layers, (128, 128, 128) by default; for images, channels
        of the first level of a `UNet`, 32 by default.
      image_shape: (height, width, channels), for images.
      levels: of the U-Net: resolutions.
      blocks: of the U-Net: residual blocks of a level.
      heads: of the U-Net: of attention at the last level.
      frequencies: how many sines and cosines of time the field is given; None for 4, or 1 with
        `mean_velocities`, which learn from derivatives by time.
      activation: of the field: a smooth one.
      dropout: of the field.
      guidance: how much more samples are to follow their context than they would; it may be changed
        later, `density.with_guidance(3.0)`, if it is a number here. 1 for the law that was learned;
        None for fields that always have the context.
      mean_velocities: whether the field also learns velocities over any length of time, by
        `train.MeanFlow`: `density.with_solver(MeanSteps(1))` then samples in one step.
      exact_up_to: see `ffjord`.
      tolerance: see `ffjord`.
      max_steps: see `ffjord`.
      alpha: see `ffjord`.
      context_shape: see `ffjord`.
      values: grey levels of integer data; "auto" for 256 of images, None for continuous data.

    References: Lipman et al., 2023, https://arxiv.org/abs/2210.02747; Tong et al., 2024,
    https://arxiv.org/abs/2302.00482
    """
    check_one_size("flow_matching", features, image_shape)
    options: Any = {"activation": activation, "dropout": dropout}
    if image_shape is None:
        check_counts("flow_matching", features=features)
        shape: tuple[int, ...] = (int(features or 1),)
        field: Any = MLP((128, 128, 128) if hidden is None else hidden, **options)  # type: ignore[arg-type]
    else:
        shape = checked_image("flow_matching", image_shape, levels)
        field = UNet(32 if hidden is None else hidden, levels, blocks, heads, **options)  # type: ignore[arg-type]
    check_counts("flow_matching", 0, exact_up_to=exact_up_to)
    ndim, exact = len(shape), math.prod(shape) <= exact_up_to
    path = Continuous(
        field, ExactTrace() if exact else Hutchinson(),
        evaluation=Adaptive(tolerance, max_steps=max_steps), event_ndim=ndim,
        frequencies=(1 if mean_velocities else 4) if frequencies is None else frequencies,
        guidance=guidance, mean_velocities=mean_velocities)  # fmt: skip
    first = () if image_shape is None or alpha is None else (pixels(alpha),)
    layers = Chain((*first, ActNorm(ndim), path))
    return Flow(of_values(values, layers, ndim), shape, context_shape=context_shape)
