"""From points of one density to points of another, through those between them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jflow.functional.hmc import move

# Shares of the points that a change of temperature may cost, and below which they are drawn anew.
_EFFICIENCY, _RESAMPLE = 0.9, 0.5
# Of proposals, which moves aim at; and how fast the size of steps follows.
_ACCEPTED, _FOLLOW = 0.75, 0.5
_FIRST_STEP = 0.3
# A rise of the temperature is found by halving an exponent of 2 below 0.
_LOWEST, _BISECTIONS = -100.0, 20
# The largest share of the weight that one family may have: with more, the error says nothing.
_FAMILY = 0.5

# Of points (n, *event): the log-density that one starts from, (n,), and what is to be added to it.
Path = Callable[[Array], tuple[Array, Array]]


class Annealed(NamedTuple):
    """Weighted points of p, and its normaliser.

    Attributes:
      points: (n, *event).
      log_weights: (n,), normalised.
      log_normalizer: log of int p / int of what was started from, in nats.
      error: its standard error, by the families of points that descend from one (Chan & Lai, 2013,
        https://arxiv.org/abs/1202.4582): sqrt(sum of (weight of a family - 1/n)^2). Infinite where
        that says nothing: one family has most of the weight, or the last temperature is not 1.
      temperatures: how many there were.
      reached: the last of them.
    """

    points: Array
    log_weights: Array
    log_normalizer: Array
    error: Array
    temperatures: Array
    reached: Array


class _Carry(NamedTuple):
    x: Array
    log_weights: Array
    family: Array
    beta: Array
    log_normalizer: Array
    step: Array
    taken: Array


def anneal(
    path: Path, x: Array, key: Array, moves: int = 4, leapfrogs: int = 5, most: int = 1000
) -> Annealed:
    """Sequential Monte Carlo along start * exp(beta gain), with beta from 0 to 1.

    Each beta is the largest for which the conditional effective sample size of the incremental
    weights is nine tenths of all points (Zhou, Johansen and Aston, 2016,
    https://arxiv.org/abs/1303.3123, eq. 11). The points are weighted, drawn anew where their
    effective sample size is below a half, and moved (`hmc.move`) in units of their spread, by steps
    whose size follows the share that is accepted. The estimate of int p is unbiased but for that
    adaptation; so it is above c int p with probability 1/c at most, and of two estimates that are
    far apart, the lower one has missed something.

    Args:
      path: of points (n, *event), log start, (n,), which is normalised, and the gain, log p - log
        start, with log p up to a constant.
      x: points of `start`, (n, *event).
      key: a JAX random key.
      moves: at each temperature.
      leapfrogs: of each move; 0 for random walks, which need no gradients.
      most: temperatures there may be.
    """
    n = len(x)
    even = jnp.full((n,), -jnp.log(n), x.dtype)
    zero = jnp.zeros((), x.dtype)
    family, none = jnp.arange(n, dtype=jnp.int32), jnp.zeros((), jnp.int32)
    first = _Carry(x, even, family, zero, zero, zero + _FIRST_STEP, none)

    def goes_on(carry: _Carry) -> Array:
        return (carry.beta < 1) & (carry.taken < most) & jnp.isfinite(carry.log_normalizer)

    def next_temperature(carry: _Carry) -> _Carry:
        draw, walk = jax.random.split(jax.random.fold_in(key, carry.taken))
        gain = path(carry.x)[1]
        gain = jnp.where(jnp.isnan(gain), -jnp.inf, gain)
        rise = _rise(carry.log_weights, gain, 1 - carry.beta)
        higher = jnp.maximum(carry.beta + rise, jnp.nextafter(carry.beta, jnp.ones_like(rise)))
        beta = jnp.where(rise >= 1 - carry.beta, 1, higher)
        rise = beta - carry.beta  # as rounding leaves it, or weights would be of another beta
        raised = carry.log_weights + rise * gain
        total = jax.nn.logsumexp(raised)
        x, log_weights, family = _resampled(carry.x, raised - total, carry.family, draw)

        x, step = _moved(_at(path, beta), x, log_weights, walk, carry.step, moves, leapfrogs)
        log_normalizer = carry.log_normalizer + total
        return _Carry(x, log_weights, family, beta, log_normalizer, step, carry.taken + 1)

    last = lax.while_loop(goes_on, next_temperature, first)
    families = jax.ops.segment_sum(jnp.exp(last.log_weights), last.family, n)
    error = jnp.sqrt(jnp.sum((families - 1 / n) ** 2))
    error = jnp.where((jnp.max(families) > _FAMILY) | (last.beta < 1), jnp.inf, error)
    return Annealed(last.x, last.log_weights, last.log_normalizer, error, last.taken, last.beta)


def anneal_by_steps(
    path: Path, x: Array, key: Array, step: Array, *, temperatures: int, leapfrogs: int = 5
) -> tuple[Array, Array, Array]:
    """Annealed importance sampling along start * exp(beta gain), beta = 1/k, 2/k, ..., 1.

    Between one beta and the next, points are moved once, in units of 1 (Neal, 2001,
    https://arxiv.org/abs/physics/9803008, section 2). No point is drawn anew, so the weights are
    unbiased for any function of the points.

    Args:
      path: see `anneal`.
      x: points of `start`, (n, *event).
      key: a JAX random key.
      step: the size of moves to begin with.
      temperatures: k.
      leapfrogs: of each move.

    Returns:
      The points, their log-weights (n,), and the size of moves for the next time.
    """
    scale = jnp.ones(x.shape[1:], x.dtype)

    def rise(carry: tuple[Array, ...], i: Array) -> tuple[tuple[Array, ...], None]:
        x, log_weights, step = carry
        beta = i.astype(x.dtype) / temperatures
        x, accepted = move(_at(path, beta), x, jax.random.fold_in(key, i), step, scale, leapfrogs)
        step = step * jnp.exp(_FOLLOW / temperatures * (accepted - _ACCEPTED))
        return (x, log_weights + path(x)[1] / temperatures, step), None

    first = x, path(x)[1] / temperatures, step
    (x, log_weights, step), _ = lax.scan(rise, first, jnp.arange(1, temperatures))
    return x, log_weights, step


def resample(log_weights: Array, key: Array, count: int | None = None) -> Array:
    """Indices drawn by weights, by systematic resampling, (count,)."""
    n = len(log_weights) if count is None else count
    up_to = jnp.cumsum(jax.nn.softmax(log_weights))
    offset = jax.random.uniform(key, (), log_weights.dtype)
    at = (jnp.arange(n, dtype=log_weights.dtype) + offset) / n * up_to[-1]
    # Rounding must not bring the last one to a point of no weight.
    at = jnp.minimum(at, jnp.nextafter(up_to[-1], jnp.zeros_like(up_to[-1])))
    index = jnp.searchsorted(up_to, at, side="right").astype(jnp.int32)
    return jnp.minimum(index, len(log_weights) - 1)


def _at(path: Path, beta: Array) -> Callable[[Array], Array]:
    """The log-density at a temperature."""

    def log_prob(x: Array) -> Array:
        start, gain = path(x)
        return start + beta * gain

    return log_prob


def _rise(log_weights: Array, gain: Array, most: Array) -> Array:
    """By how much beta may rise, at most."""

    def efficient(rise: Array) -> Array:
        once = jax.nn.logsumexp(log_weights + rise * gain)
        twice = jax.nn.logsumexp(log_weights + 2 * rise * gain)
        return 2 * once - twice > jnp.log(_EFFICIENCY)

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        fits = efficient(most * 2**middle)
        return jnp.where(fits, middle, low), jnp.where(fits, high, middle)

    ends = jnp.full_like(most, _LOWEST), jnp.zeros_like(most)
    low, _ = lax.fori_loop(0, _BISECTIONS, halve, ends)
    return jnp.where(efficient(most), most, most * 2**low)


def _resampled(
    x: Array, log_weights: Array, family: Array, key: Array
) -> tuple[Array, Array, Array]:
    """The points drawn anew, with even weights, where the weights have become uneven."""
    n = len(x)
    uneven = -jax.nn.logsumexp(2 * log_weights) < jnp.log(_RESAMPLE * n)
    index = jnp.where(uneven, resample(log_weights, key), jnp.arange(n, dtype=jnp.int32))
    even = jnp.full_like(log_weights, -jnp.log(n))
    return x[index], jnp.where(uneven, even, log_weights), family[index]


def _moved(
    log_prob: Callable[[Array], Array], x: Array, log_weights: Array, key: Array, step: Array,
    moves: int, leapfrogs: int,
) -> tuple[Array, Array]:  # fmt: skip
    """The points after some moves, and the next size of steps."""
    weights = jnp.exp(log_weights).reshape(-1, *(1,) * (x.ndim - 1))
    mean = jnp.sum(weights * x, axis=0)
    spread = jnp.sqrt(jnp.sum(weights * (x - mean[None]) ** 2, axis=0))
    # Entries that all points share have nowhere to go.
    scale = jnp.maximum(spread, jnp.finfo(x.dtype).tiny)

    def one(carry: tuple[Array, Array], key: Array) -> tuple[tuple[Array, Array], None]:
        x, step = carry
        x, accepted = move(log_prob, x, key, step, scale, leapfrogs)
        return (x, step * jnp.exp(_FOLLOW * (accepted - _ACCEPTED))), None

    (x, step), _ = lax.scan(one, (x, step), jax.random.split(key, moves))
    return x, step
