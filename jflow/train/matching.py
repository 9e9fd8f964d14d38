"""Flow matching: velocities of continuous flows by regression, without a solve."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jflow.bijectors import Continuous
from jflow.bijectors.base import Bijector
from jflow.distributions import Flow
from jflow.distributions.events import checked
from jflow.distributions.paths import parts_of
from jflow.functional.arguments import check_counts, check_numbers
from jflow.functional.arrays import sum_event
from jflow.functional.paths import LinearPath, Path, Times, UniformTimes
from jflow.train.couplings import IndependentCoupling, PathCoupling
from jflow.train.objectives import Moving, OfExamples


@dataclass(frozen=True)
class FlowMatching(OfExamples):
    """The squared error of a continuous flow's velocity, given paths between noise and data.

        |f(x(t), t; context) - dx/dt|^2 / D,    x(0) ~ base, x(1) = y

    The f of least mean leads the base to the data, so the density is that of any continuous flow,
    log p by its ODE; training takes an evaluation of f for an example, and no solve. The loss is
    not a likelihood: it has the variance of dx/dt at a point as its least value.

    The flow's layer nearest to the base is a `Continuous`; paths are of what the layers before it
    make of y (an `ActNorm`, `Dequantize`), which stay as they are; so does the base. Paths with
    noise at their ends lead from the base to the data up to that.

    Attributes:
      path: from noise to data; see `jflow.functional.Path`.
      coupling: which noise goes with which example, if those are not given (`Pairs`).
      times: the law of t.
      samples: draws of noise and time for each example in validation.
      drop_context: the share of examples whose context is kept from the field, where the layer has
        `guidance`.

    Raises:
      ValueError: the flow has no such layer; `samples` is no count, or `drop_context` no share.
      TypeError: another argument is none of its kind.

    References: Lipman et al., 2023, https://arxiv.org/abs/2210.02747; Albergo and Vanden-Eijnden,
    2023, https://arxiv.org/abs/2209.15571; Liu et al., 2023, https://arxiv.org/abs/2209.03003
    """

    path: Path = LinearPath()  # noqa: RUF009  # frozen
    coupling: PathCoupling = IndependentCoupling()  # noqa: RUF009
    times: Times = UniformTimes()  # noqa: RUF009
    samples: int = 1
    drop_context: float = 0.1
    unit = "matching"
    of_means = False  # it is for layers with mean velocities

    def __post_init__(self) -> None:
        layer = continuous_layer(type(self).__name__, self.flow)
        if layer.mean_velocities != self.of_means:
            raise ValueError(
                f"{type(self).__name__}: MeanFlow is of layers with mean_velocities=True, and "
                f"FlowMatching of others; got mean_velocities={layer.mean_velocities}"
            )
        check_counts("FlowMatching", samples=self.samples)
        check_numbers("FlowMatching", least=0, below=1, drop_context=self.drop_context)
        if layer.guidance is not None:
            check_numbers("FlowMatching, with guidance", above=0, drop_context=self.drop_context)
        for name, kind in (("path", Path), ("coupling", PathCoupling), ("times", Times)):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(
                    f"FlowMatching: {name} must be a {kind.__name__}, such as "
                    f"{type(self).__dataclass_fields__[name].default!r}; got "
                    f"{getattr(self, name)!r}"
                )

    def losses(
        self, variables: Mapping[str, Any], batch: Any, key: Array, *, training: bool
    ) -> tuple[Array, Moving]:
        """See `Objective.losses`; the batch is (y, context), or `Pairs`."""
        y, context, *latents = self.seen(batch, key, training=training)[:3]

        def once(key: Array) -> tuple[Array, Moving]:
            noise, dropout, own = jax.random.split(key, 3)
            values, penalty, moved = self.apply(
                variables, y, context, own, *latents, noise=noise, dropout=dropout,
                training=training, method=self._errors,
            )  # fmt: skip
            return penalty + values, moved

        if training or self.samples == 1:
            return once(key)
        return jnp.mean(lax.map(lambda k: once(k)[0], jax.random.split(key, self.samples)), 0), {}

    def _errors(
        self, flow: Flow, y: Array, context: Any, key: Array, latents: Array | None = None
    ) -> Array:
        x0, x1, context = ends_of_paths(flow, y, context, key)
        paired, of_time, of_noise = jax.random.split(jax.random.fold_in(key, 1), 3)
        each = context if context is not None and context.ndim > 1 else None
        if latents is None:
            x0 = x0[self.coupling.partners(x0, x1, each, paired)]
        else:
            x0 = latents.astype(x1.dtype)
        *_, layer = parts_of(flow.bijector)
        if latents is not None and layer.guidance not in (None, 1):
            raise ValueError(
                "FlowMatching: pairs of guided samples would be guided once more; fit "
                "density.with_guidance(1.0).flow to them"
            )
        t = self.times.sample(of_time, len(x1), x1.dtype)
        return self._error(flow, (x0, x1), t, context, of_noise)

    def _error(
        self, flow: Flow, ends: tuple[Array, Array], t: Array, context: Any, key: Array
    ) -> Array:
        """Of the velocity at times t of paths between these ends."""
        *_, layer = parts_of(flow.bijector)
        noise = jax.random.normal(key, ends[1].shape, ends[1].dtype)
        x, velocity = self.path.point_and_velocity(t, *ends, noise)
        known: Array | float = 1.0
        if layer.guidance is not None and context is not None:
            one_each = (*context.shape[: context.ndim > 1], *(1,) * (context.ndim - 1))
            own = jax.random.fold_in(key, 2)
            known = jax.random.bernoulli(own, 1 - self.drop_context, one_each).astype(x.dtype)
        error = layer.velocity(x, t, context, known) - velocity
        return sum_event(jnp.square(error), x.ndim - 1) / x[0].size


def ends_of_paths(flow: Flow, y: Array, context: Any, key: Array) -> tuple[Array, Array, Any]:
    """Draws of the base, y as the continuous layer sees it, and the context of layers.

    No derivative goes through the first two: the layers that y passes would make it small.
    """
    x1, batch = checked("y", y, flow.event_shape, flow.support)
    own = context
    context = flow.given(context, batch)
    *outer, _ = parts_of(flow.bijector)
    for part in outer:
        x1 = part.inverse(x1, context)
    x0 = flow.sample_latents(key, batch, own).astype(x1.dtype)
    return lax.stop_gradient(x0), lax.stop_gradient(x1), context


def last_layer(flow: Flow) -> Bijector:
    """The flow's layer nearest to the base."""
    return parts_of(flow.bijector)[-1]


def has_means(flow: Flow) -> bool:
    """Whether the layer nearest to the base tells mean velocities."""
    layer = last_layer(flow)
    return isinstance(layer, Continuous) and layer.mean_velocities


def continuous_layer(owner: str, flow: Flow) -> Continuous:
    """The flow's layer nearest to the base.

    Raises:
      ValueError: it is no `Continuous`.
    """
    last = last_layer(flow)
    if not isinstance(last, Continuous):
        raise ValueError(
            f"{owner}: the flow must end, nearest to the base, in one Continuous layer, as "
            f"flows.ffjord(features) does; it ends in {type(last).__name__}"
        )
    return last
