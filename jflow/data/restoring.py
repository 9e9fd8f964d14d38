"""Images behind what is seen of them, without pixels, noisy or small: posteriors of flows.

Where a flow is the density p(x) of images x in (0, 1), and o is what is seen of one, x given o has
the density p(x) p(o | x) / p(o). Its draws are found in v = logit(x), or, of a pixel that is known
to be in a cell of width 1/k, in the logit of its place there, by annealed importance sampling and
Hamiltonian moves: from the posterior if v were normal, which is known, to that of the flow.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.linalg import cho_solve, solve_triangular

from jflow.bijectors import Chain, Dequantize
from jflow.distributions import Density, Flow
from jflow.functional.annealing import anneal_by_steps, resample
from jflow.functional.hmc import move

# Of a logistic variable: what the place in a cell has as a logit.
_LOGISTIC_VARIANCE = np.pi**2 / 3
# Steps of Newton's method to the middle of the normal posterior, and how far each may go.
_NEWTON, _FARTHEST = 8, 1.0
_FIRST_STEP, _LEAPFROGS = 0.2, 5
# The ridge that keeps covariances of few images invertible, as a share of their mean variance.
_RIDGE = 0.05
_NEVER = -1e30


class Normal(NamedTuple):
    """The logits of images as one normal variable.

    Attributes:
      mean: (D,).
      precision: (D, D).
    """

    mean: Array
    precision: Array


@dataclass(frozen=True, eq=False)
class Restored:
    """Images that may be behind what is seen.

    Attributes:
      mean: (N, height, width, channels), in levels, not whole: means of all draws, the estimates
        of least squared error.
      draws: (N, particles, height, width, channels), in whole levels: each looks like an image.
      accepted: (N,), the share of moves that were accepted, 1 of an ascent; where it is below 0.2,
        more steps are needed.
    """

    mean: np.ndarray
    draws: np.ndarray
    accepted: np.ndarray


def continuous(density: Density) -> tuple[Density, int]:
    """The density of levels divided by their number k, in (0, 1), without noise; and k.

    Raises:
      ValueError: the flow does not begin with `Dequantize`.
    """
    flow, outer = density.flow, density.flow.bijector
    if not (isinstance(outer, Chain) and isinstance(outer.bijectors[0], Dequantize)):
        raise ValueError(
            "the flow must begin with Dequantize, as flows.glow(values=...) does, and go on; it "
            f"begins with {type(outer).__name__}"
        )
    inner = Flow(Chain(outer.bijectors[1:]), flow.event_shape, flow.base)
    variables = {}
    for name, collection in density.variables.items():
        parts = dict(collection)
        own = parts.get("bijector", {})
        count = len(outer.bijectors)
        moved = {f"bijectors_{i - 1}": own[f"bijectors_{i}"]
                 for i in range(1, count) if f"bijectors_{i}" in own}  # fmt: skip
        variables[name] = {**parts, **({"bijector": moved} if moved else {})}
    return Density(inner, variables), outer.bijectors[0].values


def as_normal(x: np.ndarray) -> Normal:
    """The normal law of logits of images x in (0, 1), (n, ...), with a ridge on its covariance."""
    t = np.log(x) - np.log1p(-x)
    t = t.reshape(len(t), -1).astype(np.float64)
    mean = t.mean(axis=0)
    covariance = np.cov(t, rowvar=False)
    ridge = _RIDGE * np.trace(covariance) / len(covariance)
    precision = np.linalg.inv((1 - _RIDGE) * covariance + ridge * np.eye(len(covariance)))
    return Normal(jnp.asarray(mean, float), jnp.asarray(precision, float))


class Effort(NamedTuple):
    """How long to look for draws.

    Attributes:
      particles: draws of each image, side by side.
      warm: temperatures from the normal posterior to that of the flow.
      steps: moves after that.
      ascend: whether to climb to a mode in `steps` steps, in place of all that.
    """

    particles: int
    warm: int
    steps: int
    ascend: bool


@partial(jax.jit, static_argnames=("values", "effort"))
def of_seen_pixels(
    density: Density, law: Normal, y: Array, missing: Array, key: Array, values: int,
    effort: Effort,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Draws of x given the levels y (N, *image) of all pixels that are not missing."""

    def one(y: Array, missing: Array, key: Array) -> Any:
        gone, level = missing.reshape(-1), y.reshape(-1).astype(law.mean.dtype)
        seen = jnp.log(level + 0.5) - jnp.log(values - level - 0.5)
        # The normal law of the missing given the others; these, in their cells, are logistic.
        own = jnp.where(gone, 0, 1 / _LOGISTIC_VARIANCE).astype(law.mean.dtype)
        precision = jnp.where(gone[:, None] & gone[None], law.precision, 0) + jnp.diag(own)
        pull = law.precision @ jnp.where(gone, 0, seen - law.mean)
        root = jnp.linalg.cholesky(precision)
        centre = jnp.where(gone, law.mean, 0)
        centre = centre + cho_solve((root, True), jnp.where(gone, -pull, 0))

        def image(v: Array) -> Array:
            place = jax.nn.sigmoid(v)
            return jnp.where(gone[None], place, (level[None] + place) / values)

        posterior = _Posterior(density, image, lambda x: jnp.zeros(len(x)), centre, root, y.shape)
        return posterior.found(key, effort)

    return jax.vmap(one)(y, missing, jax.random.split(key, len(y)))


@partial(jax.jit, static_argnames=("values", "effort"))
def of_measured(
    density: Density, law: Normal, told: Array, measure: Array, noise: Array, key: Array,
    values: int, effort: Effort,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Draws of x given numbers (N, M) = measure (M, D) levels + normal noise of that deviation."""

    def one(told: Array, key: Array) -> Any:
        def far(x: Array) -> Array:
            return (measure @ (values * x - 0.5) - told) / noise

        def closer(v: Array, _: None) -> tuple[Array, Array]:
            x = jax.nn.sigmoid(v)
            slope = measure * (values * x * (1 - x) / noise)[None]
            precision = law.precision + slope.T @ slope
            uphill = -slope.T @ far(x) - law.precision @ (v - law.mean)
            step = cho_solve((jnp.linalg.cholesky(precision), True), uphill)
            return v + jnp.clip(step, -_FARTHEST, _FARTHEST), precision

        centre, precisions = lax.scan(closer, law.mean, None, length=_NEWTON)
        root = jnp.linalg.cholesky(precisions[-1])

        def likelihood(x: Array) -> Array:
            return -jnp.sum(jax.vmap(far)(x) ** 2, axis=-1) / 2

        posterior = _Posterior(
            density, jax.nn.sigmoid, likelihood, centre, root, density.flow.event_shape
        )
        return posterior.found(key, effort)

    return jax.vmap(one)(told, jax.random.split(key, len(told)))


class _Posterior(NamedTuple):
    """The posterior of x = image(v), v = centre + root^-T w, in w, which is about standard normal.

    Attributes:
      density: of x, (*shape).
      image: of v (n, D) to x (n, D).
      likelihood: of x (n, D) to log p(o | x), (n,).
      centre, root: (D,) and (D, D), lower triangular.
      shape: of an image.
    """

    density: Density
    image: Callable[[Array], Array]
    likelihood: Callable[[Array], Array]
    centre: Array
    root: Array
    shape: tuple[int, ...]

    def path(self, w: Array) -> tuple[Array, Array]:
        """log of the standard normal, and what is to be added for the posterior, (n,)."""
        v = self._v(w)
        log_slope = jnp.sum(jax.nn.log_sigmoid(v) + jax.nn.log_sigmoid(-v), axis=-1)
        x = self.image(v)
        log_p = self.density.log_prob(x.reshape(-1, *self.shape)) + log_slope + self.likelihood(x)
        start = -jnp.sum(w**2, axis=-1) / 2
        return start, log_p - start

    def found(self, key: Array, effort: Effort) -> tuple[Array, Array, Array]:
        """The mean of x over particles and steps, the last x of each, and the share accepted."""
        first, rest = jax.random.split(key)
        w = jax.random.normal(first, (effort.particles, len(self.centre)))
        find = self._mode if effort.ascend else self._draws
        total, w, accepted = find(w, rest, effort)
        x = self.image(self._v(w)).reshape(-1, *self.shape)
        return total.reshape(self.shape), x, accepted

    def _draws(self, w: Array, key: Array, effort: Effort) -> tuple[Array, Array, Array]:
        walk, draw, on = jax.random.split(key, 3)
        w, log_weights, size = anneal_by_steps(
            self.path, w, walk, jnp.asarray(_FIRST_STEP, w.dtype), temperatures=effort.warm,
            leapfrogs=_LEAPFROGS,
        )  # fmt: skip
        log_weights = jnp.where(jnp.isfinite(log_weights), log_weights, _NEVER)
        w = w[resample(log_weights, draw)]

        def again(carry: tuple[Array, Array], key: Array) -> tuple[Any, Array]:
            w, total = carry
            w, accepted = move(self._log_p, w, key, size, jnp.ones_like(self.centre), _LEAPFROGS)
            return (w, total + jnp.mean(self.image(self._v(w)), axis=0)), accepted

        start = w, jnp.zeros_like(self.centre)
        (w, total), accepted = lax.scan(again, start, jax.random.split(on, effort.steps))
        return total / effort.steps, w, jnp.mean(accepted)

    def _mode(self, w: Array, key: Array, effort: Effort) -> tuple[Array, Array, Array]:
        """Up the gradient, with a little noise, by steps 10 / (100 + i)."""
        # Far from the mode a slope could lead beyond it: about sqrt(D) is usual near it.
        most = 3 * math.sqrt(len(self.centre))

        def up(w: Array, given: tuple[Array, Array]) -> tuple[Array, None]:
            i, key = given
            slope = jax.grad(lambda w: jnp.sum(self._log_p(w)))(w)
            slope = jnp.where(jnp.isfinite(slope), slope, 0)
            length = jnp.linalg.norm(slope, axis=-1, keepdims=True)
            slope = slope * (most / jnp.maximum(length, most))
            size = 10 / (100 + i.astype(w.dtype))
            return w + size * (slope + jax.random.normal(key, w.shape)), None

        keys = jax.random.split(key, effort.steps)
        w, _ = lax.scan(up, w, (jnp.arange(effort.steps), keys))
        return jnp.mean(self.image(self._v(w)), axis=0), w, jnp.ones(())

    def _log_p(self, w: Array) -> Array:
        start, gain = self.path(w)
        return start + gain

    def _v(self, w: Array) -> Array:
        return self.centre[None] + solve_triangular(self.root, w.T, lower=True, trans=1).T
