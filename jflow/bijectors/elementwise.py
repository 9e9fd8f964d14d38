"""Scalar transforms with free parameters."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jflow.bijectors.base import OfTransformer
from jflow.functional.arguments import check_counts
from jflow.functional.arrays import align, as_wide, sum_event


class Elementwise(OfTransformer):
    """Transforms each element of the event by itself, with parameters of its own.

    The parameters are free (not computed from anything), start at zero, and have the shape
    (*event, num_params). A transformer without parameters is simply applied.

    Attributes:
      transformer: the scalar transform.
      event_ndim: how many trailing axes are the event.
    """

    event_ndim: int = 1

    def __post_init__(self) -> None:
        check_counts("Elementwise", 0, event_ndim=self.event_ndim)
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        x = as_wide(x)
        params = self._params(x)
        self._tell_saturation(x, params)
        y, log_det = self.transformer.forward_and_log_det(x, params)
        return y, sum_event(log_det, self.event_ndim)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        y = as_wide(y)
        params = self._params(y)
        self._tell_saturation(y, params)
        x, log_det = self.transformer.inverse_and_log_det(y, params)
        return x, sum_event(log_det, self.event_ndim)

    @nn.compact
    def _params(self, x: Array) -> Array:
        shape = (*x.shape[x.ndim - self.event_ndim :], self.transformer.num_params)
        if self.transformer.num_params == 0:
            return jnp.zeros((*x.shape, 0), x.dtype)
        params = self.param("transformer", nn.initializers.zeros, shape, x.dtype)
        return jnp.broadcast_to(align(params, x[..., None]), (*x.shape, shape[-1]))

    @property
    def in_place(self) -> bool:
        return True
