"""Continuous flows: FFJORD, RNODE, flow matching, stochastic ones."""

import math
from typing import Any, Literal

from jflow.bijectors import SDE, ActNorm, Augment, Bijector, Chain, Continuous, Repeat
from jflow.distributions import Flow, recipe
from jflow.flows.checks import of_values
from jflow.functional import Adaptive, ExactTrace, FixedGrid, Hutchinson
from jflow.functional.arguments import check_counts
from jflow.nets import MLP, ConcatSquash, UNet


@recipe
def ffjord(
    features: int,
    layers: int = 1,
    hidden: tuple[int, ...] = (64, 64, 64),
    *,
    field: Literal["concat", "concat_squash"] = "concat",
    activation: str = "tanh",
    exact_up_to: int = 16,
    steps: int = 24,
    method: str = "rk4",
    tolerance: float | None = None,
    max_steps: int = 256,
    context_shape: int | tuple[int, ...] | None = None,
) -> Flow:
    """FFJORD: a continuous flow whose field is any network, and its trace exact or estimated.

    Training solves on a fixed grid; log p, latents and samples are solves to a tolerance. Unlike in
    the paper, an actnorm nearest to the data gives the flow the data's place and scale.

    Args:
      features: D.
      layers: paths one after the other, each with a field of its own.
      hidden: widths of the field's hidden layers.
      field: "concat", an `MLP` of y, time and context, which trains faster; or "concat_squash",
        `ConcatSquash`.
      activation: of the field: a smooth one.
      exact_up_to: traces of up to so many features are exact, by D products; otherwise
        Hutchinson's estimates of one probe, and log p draws: `density.log_prob(y, key=key)`, with
        its error `density.log_prob_estimate(y, key)`, exactly
        `density.with_estimator(ExactTrace())`.
      steps: of the grid of training. With fewer, it is faster, and its gradients are off by more;
        log p is not.
      method: of that grid; see `FixedGrid`.
      tolerance: of all other solves; None for 1e-6 in float32. See `Adaptive`.
      max_steps: of these.
      context_shape: shape of the context, or its width; None for an unconditional flow.

    Reference: Grathwohl et al., 2019, https://arxiv.org/abs/1810.01367
    """
    return _flow(
        "ffjord", features, layers, hidden, field, activation, exact_up_to,
        FixedGrid(steps, method), Adaptive(tolerance, max_steps=max_steps), context_shape,
    )  # fmt: skip


@recipe
def rnode(
    features: int,
    layers: int = 1,
    hidden: tuple[int, ...] = (64, 64, 64),
    *,
    kinetic: float = 0.01,
    jacobian: float = 0.01,
    field: Literal["concat", "concat_squash"] = "concat",
    activation: str = "tanh",
    exact_up_to: int = 16,
    steps: int = 16,
    method: str = "rk4",
    tolerance: float | None = None,
    max_steps: int = 256,
    context_shape: int | tuple[int, ...] | None = None,
) -> Flow:
    """RNODE: FFJORD with penalties that keep paths straight, so that few steps solve them.

    Args:
      features: D.
      layers: see `ffjord`.
      hidden: see `ffjord`.
      kinetic: weight of the mean of |f|^2 along paths.
      jacobian: weight of the mean of the squared norm of df/dy.
      field: see `ffjord`.
      activation: see `ffjord`.
      exact_up_to: see `ffjord`.
      steps: see `ffjord`.
      method: see `ffjord`.
      tolerance: see `ffjord`.
      max_steps: see `ffjord`.
      context_shape: see `ffjord`.

    Reference: Finlay et al., 2020, https://arxiv.org/abs/2002.02798
    """
    return _flow(
        "rnode", features, layers, hidden, field, activation, exact_up_to,
        FixedGrid(steps, method), Adaptive(tolerance, max_steps=max_steps), context_shape,
        kinetic, jacobian,
    )  # fmt: skip


@recipe
def anode(
    features: int,
    layers: int = 1,
    hidden: tuple[int, ...] = (64, 64, 64),
    *,
    extra: int = 2,
    field: Literal["concat", "concat_squash"] = "concat",
    activation: str = "tanh",
    exact_up_to: int = 16,
    steps: int = 24,
    method: str = "rk4",
    tolerance: float | None = None,
    max_steps: int = 256,
    context_shape: int | tuple[int, ...] | None = None,
) -> Flow:
    """Augmented FFJORD: paths pass each other in `extra` dimensions more, which begin as noise.

    `density.log_prob(y, key=key)` is a bound in the mean, and `density.log_prob_estimate(y, key)` a
    tighter one; see `jflow.bijectors.Augment`.

    Args:
      features: D.
      layers: see `ffjord`.
      hidden: see `ffjord`.
      extra: dimensions besides.
      field: see `ffjord`.
      activation: see `ffjord`.
      exact_up_to: see `ffjord`; of features and extra dimensions together.
      steps: see `ffjord`.
      method: see `ffjord`.
      tolerance: see `ffjord`.
      max_steps: see `ffjord`.
      context_shape: see `ffjord`.

    Reference: Dupont et al., 2019, https://arxiv.org/abs/1904.01681
    """
    check_counts("anode", extra=extra)
    return _flow(
        "anode", features, layers, hidden, field, activation, exact_up_to,
        FixedGrid(steps, method), Adaptive(tolerance, max_steps=max_steps), context_shape,
        extra=extra,
    )  # fmt: skip


def _flow(
    name: str,
    features: int,
    layers: int,
    hidden: tuple[int, ...],
    field: str,
    activation: str,
    exact_up_to: int,
    solver: FixedGrid,
    evaluation: Adaptive,
    context_shape: int | tuple[int, ...] | None,
    kinetic: float = 0.0,
    jacobian: float = 0.0,
    extra: int = 0,
) -> Flow:
    nets = {"concat": MLP, "concat_squash": ConcatSquash}
    if field not in nets:
        raise ValueError(f"{name}: field must be 'concat' or 'concat_squash'; got {field!r}")
    check_counts(name, features=features, layers=layers)
    check_counts(name, 0, exact_up_to=exact_up_to)
    path = Continuous(
        nets[field](hidden, activation=activation),
        ExactTrace() if features + extra <= exact_up_to else Hutchinson(),
        solver,
        evaluation,
        kinetic=kinetic,
        jacobian=jacobian,
    )
    paths: Bijector = path if layers == 1 else Repeat(path, layers)
    wider = (Augment(extra),) if extra else ()
    return Flow(Chain((ActNorm(), *wider, paths)), (features,), context_shape=context_shape)


@recipe
def flow_matching(
    features: int | None = None,
    hidden: tuple[int, ...] | int | None = None,
    *,
    image_shape: tuple[int, int, int] | None = None,
    levels: int = 2,
    blocks: int = 1,
    heads: int = 0,
    frequencies: int = 4,
    activation: str = "gelu",
    dropout: float = 0.0,
    exact_up_to: int = 16,
    tolerance: float | None = None,
    max_steps: int = 256,
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
      frequencies: how many sines and cosines of time the field is given.
      activation: of the field: a smooth one.
      dropout: of the field.
      exact_up_to: see `ffjord`.
      tolerance: see `ffjord`.
      max_steps: see `ffjord`.
      context_shape: see `ffjord`.
      values: grey levels of integer data; "auto" for 256 of images, None for continuous data.

    References: Lipman et al., 2023, https://arxiv.org/abs/2210.02747; Tong et al., 2024,
    https://arxiv.org/abs/2302.00482
    """
    if (features is None) == (image_shape is None):
        raise ValueError(
            "flow_matching: give features, one number, or image_shape; got "
            f"{features=}, {image_shape=}"
        )
    check_counts("flow_matching", 0, exact_up_to=exact_up_to)
    options: Any = {"activation": activation, "dropout": dropout}
    if image_shape is None:
        check_counts("flow_matching", features=features)
        shape: tuple[int, ...] = (int(features or 1),)
        field: Any = MLP((128, 128, 128) if hidden is None else hidden, **options)  # type: ignore[arg-type]
    else:
        shape = tuple(image_shape)
        field = UNet(32 if hidden is None else hidden, levels, blocks, heads, **options)  # type: ignore[arg-type]
    ndim = len(shape)
    path = Continuous(
        field, ExactTrace() if math.prod(shape) <= exact_up_to else Hutchinson(),
        evaluation=Adaptive(tolerance, max_steps=max_steps), frequencies=frequencies,
        event_ndim=ndim,
    )  # fmt: skip
    bijector = of_values(values, Chain((ActNorm(ndim), path)), ndim)
    return Flow(bijector, shape, context_shape=context_shape)


@recipe
def sde(
    features: int,
    hidden: tuple[int, ...] = (64, 64, 64),
    *,
    steps: int = 32,
    noise: tuple[float, float] = (2.0, 0.05),
    frequencies: int = 2,
    activation: str = "silu",
    context_shape: int | tuple[int, ...] | None = None,
) -> Flow:
    """A stochastic flow: steps of a neural stochastic differential equation, both ways learned.

    `density.log_prob(y, key=key)` is a bound in the mean, which training raises;
    `density.log_prob_estimate(y, key, probes=64)` a tighter one. Latents are draws.

    Args:
      features: D.
      hidden: widths of both networks, of the drift and of the score.
      steps: of paths; see `jflow.bijectors.SDE`.
      noise: how strong it is at the base and at the data, whose standard deviations are 1 there.
      frequencies: how many sines and cosines of time networks are given.
      activation: of both networks.
      context_shape: shape of the context, or its width; None for an unconditional flow.

    Reference: Zhang and Chen, 2021, https://arxiv.org/abs/2110.07579
    """
    check_counts("sde", features=features)
    path = SDE(
        MLP(hidden, activation=activation), time_steps=steps, noise=noise, frequencies=frequencies
    )
    return Flow(Chain((ActNorm(), path)), (features,), context_shape=context_shape)
