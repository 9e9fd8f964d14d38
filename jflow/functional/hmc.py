"""Moves that leave a density as it is: Hamiltonian Monte Carlo, and random walks."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jflow.functional.arrays import sum_event

# The spread of step sizes (in their logarithm): one size alone could go round in circles.
_JITTER = 0.2


class Moved(NamedTuple):
    """Points after a move.

    Attributes:
      points: (n, *event).
      accepted: the mean probability with which proposals were taken, of points where p is not zero.
    """

    points: Array
    accepted: Array


def move(
    log_prob: Callable[[Array], Array], x: Array, key: Array, step: Array, scale: Array,
    leapfrogs: int,
) -> Moved:  # fmt: skip
    """One move of each point, after which points of p are points of p.

    With momenta m of covariance scale^-2, a leapfrog is m += g / 2, x += scale^2 m, m += g / 2 in
    steps of `step`, and what comes out is taken with probability exp(-change of energy); where it
    is not finite, never (Neal, 2011, https://arxiv.org/abs/1206.1901, sections 2 and 5.1).

    Args:
      log_prob: log p up to a constant, (n, *event) to (n,).
      x: (n, *event); p is above zero at each.
      key: a JAX random key.
      step: the size of a leapfrog; that of each point varies by a fifth.
      scale: the spread of p in each entry, (*event): steps are in units of it.
      leapfrogs: how many; with 0, a normal proposal of `step` (random-walk Metropolis), which needs
        no gradient.
    """
    momentum, chance, jitter = jax.random.split(key, 3)
    size = (len(x),) + (1,) * (x.ndim - 1)
    sizes = step * scale[None] * jnp.exp(_JITTER * jax.random.normal(jitter, size, x.dtype))
    m = jax.random.normal(momentum, x.shape, x.dtype)
    if leapfrogs:
        y, before, log_ratio = _trajectory(log_prob, x, m, sizes, leapfrogs)
    else:
        y, before = x + sizes * m, log_prob(x)
        log_ratio = log_prob(y) - before
    log_ratio = jnp.where(jnp.isfinite(log_ratio), jnp.minimum(log_ratio, 0), -jnp.inf)
    taken = jnp.log(jax.random.uniform(chance, log_ratio.shape, x.dtype)) < log_ratio
    points = jnp.where(taken.reshape(size), y, x)
    alive = jnp.isfinite(before).astype(x.dtype)
    accepted = jnp.sum(jnp.exp(log_ratio) * alive) / jnp.maximum(jnp.sum(alive), 1)
    return Moved(points, accepted)


def _trajectory(
    log_prob: Callable[[Array], Array], x: Array, m: Array, sizes: Array, leapfrogs: int
) -> tuple[Array, Array, Array]:
    """Where trajectories end, log p before, and what is taken off the energy on the way."""

    def look(x: Array) -> tuple[Array, Array]:
        value, pull = jax.vjp(log_prob, x)
        (slope,) = pull(jnp.ones_like(value))
        return value, jnp.where(jnp.isfinite(slope), sizes * slope, 0)

    def leap(carry: tuple[Array, ...], _: None) -> tuple[tuple[Array, ...], None]:
        x, m, _value, slope = carry
        m = m + slope / 2
        x = x + sizes * m
        value, slope = look(x)
        return (x, m + slope / 2, value, slope), None

    start, slope = look(x)
    (y, end, value, _), _ = lax.scan(leap, (x, m, start, slope), None, length=leapfrogs)
    kinetic = sum_event(m**2 - end**2, x.ndim - 1) / 2
    return y, start, value - start + kinetic
