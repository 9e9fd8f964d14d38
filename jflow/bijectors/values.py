"""Compositions of what parts give: values with their log-determinants, or values alone."""

from typing import Literal

import jax.numpy as jnp
from jax import Array

from jflow.bijectors.base import Bijector

Method = Literal["forward", "inverse", "forward_and_log_det", "inverse_and_log_det"]


def run(part: Bijector, method: Method, x: Array, context: Array | None) -> tuple[Array, Array]:
    """What that method of the part gives, and a scalar 0 beside values alone.

    Compilers leave out log-determinants that nobody uses, but not those that steps of a solver
    depend on: such layers have a `forward` and an `inverse` of their own, which this comes to.
    """
    found = getattr(part, method)(x, context)
    return found if isinstance(found, tuple) else (found, jnp.zeros((), x.dtype))


def with_log_det(method: Method) -> Method:
    """The method that also gives log-determinants."""
    return "forward_and_log_det" if method.startswith("forward") else "inverse_and_log_det"
