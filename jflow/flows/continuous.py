"""Continuous flows: FFJORD, RNODE, augmented ones, OT-Flow."""

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

from jflow.bijectors import (
    ActNorm,
    Augment,
    Bijector,
    Chain,
    Continuous,
    MultiScale,
    Repeat,
    Squeeze,
)  # fmt: skip
from jflow.distributions import Flow, recipe
from jflow.flows.checks import check_one_size, checked_image, of_values, pixels
from jflow.functional import Adaptive, ExactTrace, FixedGrid, Hutchinson
from jflow.functional.arguments import check_counts
from jflow.nets import MLP, ConcatSquash, Potential, ResidualConvNet


@recipe
def ffjord(
    features: int | None = None,
    layers: int = 1,
    hidden: tuple[int, ...] | int | None = None,
    *,
    image_shape: tuple[int, int, int] | None = None,
    levels: int = 2,
    field: Literal["concat", "concat_squash"] = "concat",
    activation: str | None = None,
    exact_up_to: int = 16,
    steps: int = 24,
    method: str = "rk4",
    tolerance: float | None = None,
    max_steps: int = 256,
    alpha: float | None = 1e-5,
    context_shape: int | tuple[int, ...] | None = None,
    values: int | Literal["auto"] | None = "auto",
) -> Flow:
    """FFJORD: a continuous flow whose field is any network, and its trace exact or estimated.

    Training solves on a fixed grid; log p, latents and samples are solves to a tolerance. Unlike in
    the paper, an actnorm nearest to the data gives the flow the data's place and scale. Each level
    of an image flow squeezes 2x2 pixels into channels, and all but the last set half of these
    aside.

    Args:
      features: D of vectors. Give this or `image_shape`.
      layers: paths one after the other, each with a field of its own; of images, at each level.
      hidden: widths of the field's hidden layers, (64, 64, 64) by default; for images one number of
        channels, 32 by default.
      image_shape: (height, width, channels); 2^levels must divide height and width. Without
        `values`, images are in [0, 1].
      levels: scales of an image flow.
      field: "concat", an `MLP` of y, time and context, or a `ResidualConvNet` of two blocks, which
        train faster; or "concat_squash", `ConcatSquash`, of three layers for images.
      activation: of the field: a smooth one; None for "tanh", or "silu" of images.
      exact_up_to: traces of up to so many features are exact, by D products; otherwise
        Hutchinson's estimates of one probe, and log p draws: `density.log_prob(y, key=key)`, with
        its error `density.log_prob_estimate(y, key)`, exactly
        `density.with_estimator(ExactTrace())`.
      steps: of the grid of training. With fewer, it is faster, and its gradients are off by more;
        log p is not.
      method: of that grid; see `FixedGrid`.
      tolerance: of all other solves; None for 1e-6 in float32. See `Adaptive`.
      max_steps: of these.
      alpha: margin of the logit that image flows begin with; None for none.
      context_shape: shape of the context, or its width; None for an unconditional flow.
      values: grey levels of integer data; "auto" for 256 of images, None for continuous data.

    Reference: Grathwohl et al., 2019, https://arxiv.org/abs/1810.01367
    """
    size = features, image_shape, levels
    make = _Field("ffjord", size, hidden, field, activation, exact_up_to)
    path = make.path(FixedGrid(steps, method), Adaptive(tolerance, max_steps=max_steps))
    return make.flow(path, layers, alpha, values, context_shape)


@recipe
def rnode(
    features: int | None = None,
    layers: int = 1,
    hidden: tuple[int, ...] | int | None = None,
    *,
    image_shape: tuple[int, int, int] | None = None,
    levels: int = 2,
    kinetic: float = 0.03,
    jacobian: float = 0.03,
    field: Literal["concat", "concat_squash"] = "concat",
    activation: str | None = None,
    exact_up_to: int = 16,
    steps: int = 16,
    method: str = "rk4",
    tolerance: float | None = None,
    max_steps: int = 256,
    alpha: float | None = 1e-5,
    context_shape: int | tuple[int, ...] | None = None,
    values: int | Literal["auto"] | None = "auto",
) -> Flow:
    """RNODE: FFJORD with penalties that keep paths straight, so that few steps solve them.

    Args:
      features: see `ffjord`.
      layers: see `ffjord`.
      hidden: see `ffjord`.
      image_shape: see `ffjord`.
      levels: see `ffjord`.
      kinetic: weight of the mean of |f|^2 along paths.
      jacobian: weight of the mean of the squared norm of df/dy.
      field: see `ffjord`.
      activation: see `ffjord`.
      exact_up_to: see `ffjord`.
      steps: see `ffjord`.
      method: see `ffjord`.
      tolerance: see `ffjord`.
      max_steps: see `ffjord`.
      alpha: see `ffjord`.
      context_shape: see `ffjord`.
      values: see `ffjord`.

    Reference: Finlay et al., 2020, https://arxiv.org/abs/2002.02798
    """
    size = features, image_shape, levels
    make = _Field("rnode", size, hidden, field, activation, exact_up_to)
    path = make.path(
        FixedGrid(steps, method), Adaptive(tolerance, max_steps=max_steps),
        kinetic=kinetic, jacobian=jacobian,
    )  # fmt: skip
    return make.flow(path, layers, alpha, values, context_shape)


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
    check_counts("anode", features=features, extra=extra)
    make = _Field("anode", (features, None, 1), hidden, field, activation, exact_up_to, extra)
    path = make.path(FixedGrid(steps, method), Adaptive(tolerance, max_steps=max_steps))
    return make.flow(path, layers, None, None, context_shape)


@recipe
def ot_flow(
    features: int,
    width: int = 64,
    *,
    potential_layers: int = 2,
    rank: int = 10,
    kinetic: float = 0.01,
    hjb: float = 0.02,
    steps: int = 10,
    method: str = "rk4",
    tolerance: float | None = None,
    max_steps: int = 256,
    context_shape: int | tuple[int, ...] | None = None,
) -> Flow:
    """OT-Flow: a continuous flow along the gradient of a potential, on nearly straight paths.

    Traces are exact and in closed form whatever the number of features, and few steps do.

    Args:
      features: D.
      width: of the potential's network; see `jflow.nets.Potential`.
      potential_layers: of that network.
      rank: of its quadratic part.
      kinetic: weight of the mean of |f|^2 along paths; see `jflow.bijectors.Continuous`.
      hjb: weight of what the potential is off the equation of Hamilton, Jacobi and Bellman.
      steps: of the grid of training; see `ffjord`.
      method: see `ffjord`.
      tolerance: see `ffjord`.
      max_steps: see `ffjord`.
      context_shape: see `ffjord`.

    Reference: Onken et al., 2021, https://arxiv.org/abs/2006.00104
    """
    check_counts("ot_flow", features=features)
    path = Continuous(
        Potential(width, potential_layers, rank), solver=FixedGrid(steps, method),
        evaluation=Adaptive(tolerance, max_steps=max_steps), kinetic=kinetic, hjb=hjb,
    )  # fmt: skip
    return Flow(Chain((ActNorm(), path)), (features,), context_shape=context_shape)


@dataclass(frozen=True)
class _Field:
    """The fields that FFJORD and its kin share: of vectors, or of an image's levels.

    Attributes:
      name: of the recipe.
      size: features, image_shape and levels.
      hidden, field, activation, exact_up_to: see `ffjord`.
      extra: dimensions besides.
    """

    name: str
    size: tuple[int | None, Any, int]
    hidden: tuple[int, ...] | int | None
    field: str
    activation: str | None
    exact_up_to: int
    extra: int = 0

    def __post_init__(self) -> None:
        name, (features, image_shape, levels) = self.name, self.size
        if self.field not in ("concat", "concat_squash"):
            raise ValueError(
                f"{name}: field must be 'concat' or 'concat_squash'; got {self.field!r}"
            )
        check_counts(name, 0, exact_up_to=self.exact_up_to)
        check_one_size(name, features, image_shape)
        if image_shape is None:
            check_counts(name, features=features)
            return
        checked_image(name, image_shape, levels, first=True)
        if self.hidden is not None:
            check_counts(f"{name}, for images", hidden=self.hidden)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the data."""
        features, image_shape, _ = self.size
        return (int(features),) if features is not None else tuple(image_shape)

    def path(self, solver: FixedGrid, evaluation: Adaptive, **weights: Any) -> Continuous:
        """One of its paths."""
        exact = math.prod(self.shape) + self.extra <= self.exact_up_to
        trace = ExactTrace() if exact else Hutchinson()
        ndim = len(self.shape)
        return Continuous(self._net(), trace, solver, evaluation, event_ndim=ndim, **weights)

    def _net(self) -> Any:
        hidden: Any = self.hidden
        if self.size[1] is None:
            options: Any = {"activation": self.activation or "tanh"}
            hidden = (64, 64, 64) if hidden is None else hidden
            return {"concat": MLP, "concat_squash": ConcatSquash}[self.field](hidden, **options)
        options = {"activation": self.activation or "silu"}
        hidden = 32 if hidden is None else hidden
        if self.field == "concat":
            return ResidualConvNet(hidden, **options)
        return ConcatSquash((hidden,) * 3, 3, **options)

    def flow(
        self, path: Continuous, layers: int, alpha: float | None, values: Any, context_shape: Any
    ) -> Flow:
        """The flow of such paths."""
        check_counts(self.name, layers=layers)
        *_, levels = self.size
        if self.size[1] is None:
            paths: Bijector = path if layers == 1 else Repeat(path, layers)
            wider = (Augment(self.extra),) if self.extra else ()
            bijector: Bijector = Chain((ActNorm(), *wider, paths))
        else:
            block = Repeat(Chain((ActNorm(3), path)), layers)
            scales = tuple(Chain((Squeeze(), deepcopy(block))) for _ in range(levels))
            bijector = Chain((pixels(alpha), MultiScale(scales, self.shape)))
        bijector = of_values(values, bijector, len(self.shape))
        return Flow(bijector, self.shape, context_shape=context_shape)
