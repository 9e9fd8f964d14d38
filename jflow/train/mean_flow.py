"""Mean velocities of continuous flows: samples in one step."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jflow.distributions import Flow
from jflow.distributions.paths import parts_of
from jflow.functional.arguments import check_numbers
from jflow.functional.arrays import sum_event
from jflow.train.matching import FlowMatching


@dataclass(frozen=True)
class MeanFlow(FlowMatching):
    """Flow matching of mean velocities u over (s, t), of layers with `mean_velocities`.

        (t - s) u(x(s), s, t) = x(t) - x(s)  along the flow, whose derivative by s is

        u = v + (t - s) du/ds,    du/ds = (du/dx) v + the partial derivative by s

    The loss is |u - (v + (t - s) du/ds)|^2 / D, with the bracket held, dx/dt of the paths for its
    first v, and u over no time for that in du/ds, which is less noisy. For s = t it is that of
    flow matching, so that the same network is the field of the differential equation: its log p is
    that of `Adaptive` solvers, and `MeanSteps(1)` has samples in one evaluation. Paths near to
    straight lines (`semidiscrete_pairs`, `OptimalTransport`) are much easier.

    Attributes:
      apart: the share of examples with s < t.
      power: each example counts its loss^-power times, in (0, 1] so that noisy ones count less: for
        samples of images, at the price of a field that is off the law.

    Raises:
      ValueError: see `FlowMatching`; the layer has no `mean_velocities`, or a number is out of
        range.

    References: Geng et al., 2025, https://arxiv.org/abs/2505.13447; the v in du/ds: Geng et al.,
    2025, https://arxiv.org/abs/2512.02012
    """

    apart: float = 0.25
    power: float = 0.0
    of_means = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("apart", "power"):
            check_numbers("MeanFlow", **{name: getattr(self, name)})
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"MeanFlow: {name} must be from 0 to 1; got {getattr(self, name)!r}"
                )

    def _error(
        self, flow: Flow, ends: tuple[Array, Array], t: Array, context: Any, key: Array
    ) -> Array:
        own, of_noise, which = jax.random.split(key, 3)
        later = self.times.sample(own, len(t), t.dtype)
        apart = jax.random.bernoulli(which, self.apart, t.shape)
        start, stop = jnp.minimum(t, later), jnp.maximum(t, later)
        start, length = jnp.where(apart, start, t), jnp.where(apart, stop - start, 0)
        noise = jax.random.normal(of_noise, ends[1].shape, ends[1].dtype)
        x, velocity = self.path.point_and_velocity(start, *ends, noise)
        *_, layer = parts_of(flow.bijector)
        along = lax.stop_gradient(layer.velocity(x, start, context))
        u, change = layer.mean_velocity(x, start, length, along, context)
        over = length.reshape(length.shape + (1,) * (x.ndim - 1))
        target = lax.stop_gradient(velocity + over * change)
        error = sum_event(jnp.square(u - target), x.ndim - 1) / x[0].size
        return error * lax.stop_gradient(error + 1e-3) ** -self.power if self.power else error
