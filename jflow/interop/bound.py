"""What all bridges share: a density whose context is given, as functions other libraries call."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jflow.bijectors.base import Direction
from jflow.distributions import Density, Flow
from jflow.distributions.base import default_promotion
from jflow.distributions.contexts import batch_of, check_batch_of, converted
from jflow.distributions.targets import check_deterministic
from jflow.functional.arrays import as_wide
from jflow.functional.supports import Interval, Supports


def check_density(owner: str, density: Any) -> None:
    """Refuses what is no density, such as a flow without variables.

    Raises:
      TypeError: naming the owner, and what came.
    """
    if not isinstance(density, Density):
        hint = ""
        if isinstance(density, Flow):
            hint = ". A flow and its variables are jflow.Density(flow, variables)"
        elif isinstance(getattr(density, "density", None), Density):
            hint = ". Its flow's is its attribute `density`"
        raise TypeError(
            f"{owner}: density must be a jflow.Density; got {type(density).__name__}{hint}"
        )


@partial(jax.tree_util.register_dataclass, data_fields=["density", "context"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Bound:
    """A density and its context: a pytree of the variables and the context.

    Attributes:
      density: with its variables.
      context: (*context_shape), or (*batch, *context_shape) for a batch of distributions; None for
        a flow without.
    """

    density: Density
    context: Any = None

    @classmethod
    def of(cls, owner: str, density: Density, context: Any, *directions: Direction) -> "Bound":
        """Checked: what is called can be.

        Raises:
          TypeError, ValueError: the density, its context, or what is random in it does not do.
        """
        check_density(owner, density)
        check_deterministic(owner, density.flow, *directions)
        context = converted(context, as_wide)
        own = batch_of(density.flow.context_shape, context) or ()
        check_batch_of(density.flow.context_shape, context, own)
        return cls(density, context)

    @property
    def flow(self) -> Flow:
        """The density's."""
        return self.density.flow

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """That of the context."""
        return batch_of(self.flow.context_shape, self.context) or ()

    def forward(self, z: Array) -> tuple[Array, Array]:
        """y and log|det dy/dz| of latents (*batch, *latent)."""
        z = self._broadcast(as_wide(jnp.asarray(z)), len(self.flow.latent_shape))
        return self.call("from_latents_and_log_det", z, self.context)

    def inverse(self, y: Array) -> tuple[Array, Array]:
        """z and log|det dz/dy| of y (*batch, *event)."""
        y = self._broadcast(as_wide(jnp.asarray(y)), len(self.flow.event_shape))
        return self.call("latents_and_log_det", y, self.context)

    def log_prob(self, y: Array) -> Array:
        """log p of y (*batch, *event)."""
        y = self._broadcast(as_wide(jnp.asarray(y)), len(self.flow.event_shape))
        return self.call("log_prob", y, self.context)

    def _broadcast(self, x: Array, ndim: int) -> Array:
        """x (*batch, *event) with the batch of the context, as other libraries do."""
        batch, event = x.shape[: x.ndim - ndim], x.shape[x.ndim - ndim :]
        if not self.batch_shape:
            return x
        return jnp.broadcast_to(x, (*jnp.broadcast_shapes(batch, self.batch_shape), *event))

    def sample(self, key: Array, shape: tuple[int, ...], *, and_log_prob: bool = False) -> Any:
        """Draws (*shape, *batch, *event), and log p of each."""
        method = "sample_and_log_prob" if and_log_prob else "sample"
        shape = (*shape, *self.batch_shape)
        return self.call(method, key, shape, self.context)

    def call(self, method: str, *given: Any) -> Any:
        """A method of the flow."""
        # Other libraries mix dtypes of JAX's weak and strong types.
        with default_promotion():
            return self.flow.apply(self.density.variables, *given, method=method)


def is_line(supports: Supports) -> bool:
    """Whether all entries live on the whole line."""
    parts = supports if isinstance(supports, tuple) else (supports,)
    return all(part == Interval() for part in parts)


def check_latents_on_line(owner: str, flow: Flow) -> None:
    """Refuses flows whose latents do not live on the line, where samplers move freely.

    Raises:
      ValueError: naming the owner and where they live.
    """
    if not is_line(found := flow.latent_support):
        raise ValueError(
            f"{owner}: latents must live on the line; those of this flow live on {found}. Take a "
            "base such as StandardNormal"
        )
