"""Stochastic flows: the ends of paths that a stochastic differential equation leads along."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from jflow.bijectors.base import Direction, DirectionKind, LogDetKind
from jflow.bijectors.fields import with_time
from jflow.bijectors.one_method import OneMethod
from jflow.functional.arguments import check_counts, check_numbers
from jflow.functional.arrays import as_wide, batch_shape, sum_event
from jflow.nets.functions import as_function
from jflow.nets.layers import check_factory


class SDE(OneMethod):
    """The end of a path dx = f(x, t) dt + g(t) dW from t = 0, the base, to t = 1, the data.

    Of N steps of length h, by Euler and Maruyama, with noise e ~ N(0, 1) and g as below:

        forward   x(t + h) = x(t) + f(x(t), t) h + g h^(1/2) e
        inverse   x(t) = x(t + h) - (f - g^2 s)(x(t + h), t + h) h + g h^(1/2) e
        log_det   of inverse: sum over steps of log p(x(t + h) | x(t)) - log q(x(t) | x(t + h)),
                  of forward its negative

    p and q are the normal densities of these two steps. f is a network, and so is s, which is to
    come to the score d log p(x, t) / dx: paths then go back as they came, and weights are constant
    as h goes to 0 (Anderson, 1982). Whatever s is, log base(x(0)) + log_det is, in the mean over
    noise, at most log p(y) of the steps (of Girsanov's theorem a discrete form), and the mean of
    its exponential is p(y): `density.log_prob_estimate(y, key, probes=64)` weights so many paths.

    The noise is the same for all x, so that the scheme of Milstein is this one. Both directions
    draw from the RNG stream "noise"; latents are not unique.

    Attributes:
      net: makes f, given its number of outputs; time is the last part of its context. See
        `jflow.nets`.
      score: makes s; None for one like f.
      time_steps: N. More of them are another flow, which needs no new parameters.
      noise: g at the base and at the data; between, it changes in equal ratios. Densities are at
        least as wide as the last step's g h^(1/2).
      frequencies: how many sines and cosines of time networks are given besides.
      event_ndim: 1 for vectors, 3 for images.

    Raises:
      TypeError: `net` or `score` is a network, where what makes them is wanted, or makes other
        ones.
      ValueError: another argument is out of range; (on call) there is no stream "noise".

    References: Tzen and Raginsky, 2019, https://arxiv.org/abs/1905.09883; Peluchetti and Favaro,
    2019, https://arxiv.org/abs/1905.11065; both drifts learned: Zhang and Chen, 2021,
    https://arxiv.org/abs/2110.07579
    """

    net: Any
    score: Any = None
    time_steps: int = 32
    noise: tuple[float, float] = (1.0, 0.1)
    frequencies: int = 0
    event_ndim: int = 1

    def __post_init__(self) -> None:
        makes = ("arrays", "velocities")
        check_factory("SDE", self.net, event_ndim=self.event_ndim, makes=makes)
        if self.score is not None:
            check_factory("SDE", self.score, "score", self.event_ndim, makes=makes)
        check_counts("SDE", time_steps=self.time_steps)
        check_counts("SDE", 0, frequencies=self.frequencies)
        if not isinstance(self.noise, tuple) or len(self.noise) != 2:
            raise ValueError(
                f"SDE: noise must be two numbers, at the base and at the data; got {self.noise!r}"
            )
        first, last = self.noise
        check_numbers("SDE", above=0, **{"noise at the base": first, "noise at the data": last})
        super().__post_init__()

    @nn.compact
    def _functions(self, x: Array, context: Array | None) -> list[Any]:
        """F and s of x and of the context with time, bound to their variables."""
        start = with_time(jnp.zeros((), x.dtype), context, self.frequencies)
        nets = {"drift": self.net, "score": self.score or self.net}
        return [
            as_function(make(x.shape[-1]).copy(name=name), x, start) for name, make in nets.items()
        ]

    def _run(self, method: Direction, x: Array, context: Array | None) -> tuple[Array, Array]:
        x = as_wide(x)
        self.latent_shape(x.shape[x.ndim - self.event_ndim :])
        drift, score = self._functions(x, context)
        none = jnp.zeros(batch_shape(x, self.event_ndim), x.dtype)
        if self.is_initializing():
            return x, none
        if not self.has_rng("noise"):
            raise ValueError(
                "SDE: both directions draw noise; give a key: density.log_prob(y, key=key), or "
                "apply(..., rngs={'noise': key})"
            )
        h, ahead = 1 / self.time_steps, method == "forward"

        def at(f: Any, x: Array, t: Array) -> Array:
            return as_wide(f(x, with_time(t, context, self.frequencies)))

        @jax.checkpoint
        def step(state: Any, now: Any) -> tuple[Any, None]:
            (x, f, total), (t, g, key) = state, now
            e = jax.random.normal(key, x.shape, x.dtype)
            if ahead:
                y = x + f * h + g * math.sqrt(h) * e
                onward = at(drift, y, t + h)
                gap = x - y + (onward - jnp.square(g) * at(score, y, t + h)) * h
            else:
                y = x - (f - jnp.square(g) * at(score, x, t + h)) * h + g * math.sqrt(h) * e
                onward = at(drift, y, t)
                gap = x - y - onward * h
            unlike = jnp.square(e) - jnp.square(gap) / (jnp.square(g) * h)
            return (y, onward, total + sum_event(unlike, self.event_ndim) / 2), None

        times = jnp.arange(self.time_steps, dtype=x.dtype) * h
        first, last = self.noise
        scales = first * (last / first) ** (times + h / 2)
        keys = jax.random.split(self.make_rng("noise"), self.time_steps)
        begun = (x, at(drift, x, jnp.asarray(0.0 if ahead else 1.0, x.dtype)), none)
        (y, _, total), _ = lax.scan(step, begun, (times, scales, keys), reverse=not ahead)
        return y, total

    @property
    def log_det_kind(self) -> LogDetKind:
        return "bound"

    @property
    def forward_kind(self) -> DirectionKind:
        return "random"

    @property
    def inverse_kind(self) -> DirectionKind:
        return "random"

    @nn.nowrap
    def needs_key(self, direction: Direction) -> bool:
        return True
