"""The von Mises distribution: a base for angles."""

import math
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import i0e, i1e
from jax.typing import DTypeLike

from jflow.distributions.base import inverse_softplus
from jflow.functional.arrays import sum_event, wide_dtype
from jflow.functional.supports import Circle, Supports


class VonMises(nn.Module):
    """Independent von Mises angles around 0: the normal distribution of the circle.

        log p(x) = sum of k (cos(x) - 1) - log(2 pi e^-k I0(k))

    Samples are in [-pi, pi). x and x + 2 pi are the same point, so p integrates to 1 over any
    one turn. Without concentration, the uniform distribution on the circle.

    Attributes:
      concentration: k, for all angles; 0 or None for the uniform distribution.
      learned: whether k is learned, one for each entry of the event, as k = softplus(r). It
        then starts at `concentration`. Samples have a gradient with respect to it.

    Raises:
      ValueError: `concentration` is negative or not finite, or 0 and to be learned.

    Reference: Rezende et al., Normalizing Flows on Tori and Spheres, 2020, https://arxiv.org/abs/2002.02428
    """

    concentration: float | None = None
    learned: bool = False

    def __post_init__(self) -> None:
        k = self.concentration or 0.0
        if not (0 <= k < math.inf):
            raise ValueError(f"VonMises: concentration must be finite and not negative; got {k}")
        if self.learned and not k:
            raise ValueError(
                "VonMises: a learned concentration must start above 0; "
                f"got {self.concentration}. Try concentration=1.0"
            )
        super().__post_init__()

    @nn.nowrap
    def support(self, event_shape: tuple[int, ...]) -> Supports:
        """The circle."""
        return Circle(source="VonMises")

    @nn.compact
    def __call__(
        self, event_shape: tuple[int, ...], dtype: DTypeLike, context: Array | None = None
    ) -> Any:
        """The distribution of events of that shape."""
        k = self.concentration or 0.0
        if not self.learned:
            return _VonMises(jnp.full(event_shape, k, dtype))
        start = nn.initializers.constant(inverse_softplus(k))
        raw = self.param("concentration", start, event_shape, wide_dtype(dtype))
        return _VonMises(jax.nn.softplus(raw.astype(dtype)))


@dataclass(frozen=True)
class _VonMises:
    """Independent angles; the concentration is (*event)."""

    concentration: Array

    def sample(self, *, seed: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        k = jnp.broadcast_to(self.concentration, (*sample_shape, *self.concentration.shape))
        return _with_gradient(_draw(seed, lax.stop_gradient(k)), k)

    def log_prob(self, x: Array) -> Array:
        k = self.concentration
        infinite = jnp.isinf(x)
        x = jnp.where(infinite, 0, x)
        # cos(x) - 1 = -2 sin(x/2)^2, which does not cancel at small angles.
        each = -2 * k * jnp.square(jnp.sin(x / 2)) - jnp.log(2 * math.pi * i0e(k))
        return sum_event(jnp.where(infinite, -jnp.inf, each), k.ndim)

    def mean(self) -> Array:
        """The mean direction; 0 for the uniform distribution, too."""
        return jnp.zeros_like(self.concentration)


def _draw(key: Array, k: Array) -> Array:
    """Angles in [-pi, pi) of concentrations k >= 0, by rejection from wrapped Cauchy angles.

    Best and Fisher, 1979, https://doi.org/10.2307/2346732, with s = (1 + sqrt(1 + 4 k^2)) / 2k.
    Their cos(x) = (1 + s z) / (s + z) with z = cos(2 u) is here tan(x/2) = t tan(u) with
    t^2 = (s - 1) / (s + 1), which holds at k = 0, and at large k loses no digits of small x.
    """
    root = jnp.sqrt(1 + 4 * jnp.square(k))
    excess = 1 + 1 / (root + 2 * k)  # 2 k (s - 1)
    slope = jnp.sqrt(excess / (1 + root + 2 * k))

    def propose(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        key, x, done = state
        key, first, second = jax.random.split(key, 3)
        u = jax.random.uniform(first, k.shape, k.dtype, -math.pi / 2, math.pi / 2)
        v = jax.random.uniform(second, k.shape, k.dtype)
        up, along = slope * jnp.sin(u), jnp.cos(u)
        sine_squared = jnp.square(up) / (jnp.square(up) + jnp.square(along))  # of x/2
        y = excess / 2 + 2 * k * sine_squared  # k (s - cos(x))
        # Written so that NaN is accepted: a NaN concentration must not loop for ever.
        rejected = jnp.log(v) > 1 - y + jnp.log(y)
        return key, jnp.where(done, x, 2 * jnp.arctan2(up, along)), done | ~rejected

    start = (key, jnp.zeros_like(k), jnp.zeros(k.shape, bool))
    _, x, _ = lax.while_loop(lambda state: ~jnp.all(state[2]), propose, start)
    return jnp.where(x >= jnp.asarray(math.pi, x.dtype), -x, x)


@jax.custom_jvp
def _with_gradient(x: Array, k: Array) -> Array:
    """Samples x of concentrations k, with the gradient dx/dk that keeps their F(x; k).

        dx/dk = -(dF/dk) / p(x) = -int_0^x e^(k (cos(a) - cos(x))) (cos(a) - I1(k)/I0(k)) da

    Reference: Figurnov et al., Implicit Reparameterization Gradients, 2018, https://arxiv.org/abs/1805.08498
    """
    return x


@_with_gradient.defjvp
def _with_gradient_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    # Runs when differentiated, maybe with implicit promotion switched off: ranks are explicit.
    x, k = primals
    x = _with_gradient(x, k)
    nodes, weights = (jnp.asarray(a, x.dtype) for a in np.polynomial.legendre.leggauss(_NODES))
    shares = (nodes.reshape(-1, *(1,) * x.ndim) + 1) / 2
    a, end = shares * x[None], x[None]
    # cos(a) - cos(x) and cos(a) - 1, as products that do not cancel.
    fall = 2 * jnp.sin((end + a) / 2) * jnp.sin((end - a) / 2)
    below = -2 * jnp.square(jnp.sin(a / 2))
    integrand = jnp.exp(k[None] * fall) * (below + _circular_variance(k)[None])
    slope = -x / 2 * jnp.tensordot(weights, integrand, 1, precision="highest")
    return x, tangents[0] + slope * tangents[1]


def _circular_variance(k: Array) -> Array:
    """1 - I1(k) / I0(k); at large k by its asymptotic series, since the difference cancels."""
    inverse = 1 / jnp.maximum(k, 100)
    series = jnp.asarray([13 / 32, 25 / 128, 1 / 8, 1 / 8, 1 / 2, 0], k.dtype)
    return jnp.where(k > 100, jnp.polyval(series, inverse), 1 - i1e(k) / i0e(k))


_NODES = 32
