"""Monotone networks: increasing functions with many parameters, and iterative inverses."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jflow.functional.arguments import check_counts
from jflow.functional.roots import invert_increasing
from jflow.transformers.base import DirectionKind, LogDetKind, Transformer
from jflow.transformers.smooth import LogisticMixture


@dataclass(frozen=True)
class DeepSigmoid(Transformer):
    """Deep sigmoidal flow of neural autoregressive flows (NAF): `layers` logistic mixtures.

        x_l+1 = e^a_l logit(sum_k w_lk sigmoid((x_l - m_lk) e^-s_lk)) + b_l

    with weights that sum to 1; each layer is a `LogisticMixture`, which maps the line onto the
    line. Each is inverted by itself, with exact derivatives.

    params: those of each layer in turn.

    Attributes:
      units: sigmoids of a layer.
      layers: how many.
      bound: the largest |s| and |a|, in nats. Slopes reach e^(2 bound) a layer; x comes back to a
        rounding error of y divided by the slope, so where several layers are steep, or flat, it
        comes back to few digits.

    Reference: Huang et al., Neural autoregressive flows, 2018, eq. 8, https://arxiv.org/abs/1804.00779
    """

    units: int = 8
    layers: int = 2
    bound: float = 5.0

    def __post_init__(self) -> None:
        check_counts("DeepSigmoid", units=self.units, layers=self.layers)
        if not 0 < self.bound < math.inf:
            raise ValueError(f"DeepSigmoid: bound must be positive; got {self.bound}")

    @property
    def num_params(self) -> int:
        return self.layers * self._layer.num_params

    @property
    def inverse_kind(self) -> DirectionKind:
        return "iterative"

    @property
    def _layer(self) -> LogisticMixture:
        return LogisticMixture(self.units, self.bound)

    def _forward(self, x: Array, params: Array) -> tuple[Array, Array]:
        total = jnp.zeros_like(x)
        for part in jnp.split(params, self.layers, axis=-1):
            x, log_det = self._layer.forward_and_log_det(x, part)
            total = total + log_det
        return x, total

    def _inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        total = jnp.zeros_like(y)
        for part in jnp.split(params, self.layers, axis=-1)[::-1]:
            y, log_det = self._layer.inverse_and_log_det(y, part)
            total = total + log_det
        return y, total


@dataclass(frozen=True, kw_only=True)
class Integral(Transformer):
    """The integral of a positive function g, continued by straight lines.

        y = b + int_0^x g(t) dt     for |x| <= bound;     log(dy/dx) = log g(x)

    Beyond, the slope stays g(+-bound), so the line is mapped onto the line. The integral is
    Gauss and Legendre's sum of positive terms, x sum_i w_i g(x t_i), which loses no digits.

    Subclasses define `_log_slope`, of params without b (which comes last), and `_nodes`.

    Attributes:
      bound: where the straight lines begin.
    """

    bound: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.bound < math.inf:
            name = type(self).__name__
            raise ValueError(f"{name}: bound must be positive and finite; got {self.bound}")

    @property
    def inverse_kind(self) -> DirectionKind:
        return "iterative"

    @property
    @abstractmethod
    def _nodes(self) -> int:
        """At how many points g is evaluated."""

    @abstractmethod
    def _log_slope(self, params: Array, x: Array) -> Array:
        """log g(x), for |x| <= bound."""

    def _forward(self, x: Array, params: Array) -> tuple[Array, Array]:
        end = jnp.clip(x, -self.bound, self.bound)
        y, log_slope = self._inside(params[..., :-1], end)
        return params[..., -1] + y + (x - end) * jnp.exp(log_slope), log_slope

    def _inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        y, params = y - params[..., -1], params[..., :-1]
        high = jnp.full_like(y, self.bound)
        end = jnp.clip(y, self._inside(params, -high)[0], self._inside(params, high)[0])
        x, log_det = invert_increasing(self._inside, params, end, -high, high)
        return x + (y - end) * jnp.exp(log_det), log_det

    def _inside(self, params: Array, x: Array) -> tuple[Array, Array]:
        def area(params: Array, x: Array) -> Array:
            # Nodes go last: XLA:CPU compiles the sum over a leading axis to wrong code.
            nodes, weights = (
                jnp.asarray(a, x.dtype).reshape((1,) * x.ndim + (-1,)) for a in _gauss(self._nodes)
            )
            heights = jnp.exp(self._log_slope(params[..., None, :], nodes * x[..., None]))
            return x * jnp.sum(weights * heights, axis=-1)

        # Its values at all nodes are cheaper computed again than kept for the backward pass.
        area = jax.checkpoint(area, prevent_cse=False)
        return area(params, x), self._log_slope(params, x)


@cache
def _gauss(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss-Legendre quadrature on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (nodes + 1) / 2, weights / 2


@dataclass(frozen=True)
class SumOfSquares(Integral):
    """The integral of a sum of squared polynomials (SOS flow).

        g(t) = m + (1 - m) ((1 + p_1(t / bound))^2 + p_2(t / bound)^2 + ...)

    Its degree is 2 `degree`, for which the quadrature is exact. Straight lines continue it
    beyond `bound`, where the paper's polynomial overflows float32.

    params: coefficients of p_1, those of p_2, ..., from the constant up, then b. Zero params are
    the identity.

    Attributes:
      terms: how many polynomials.
      degree: of each.
      minimum: m, the least slope; in (0, 1).
      bound: where the straight lines begin.

    Reference: Jaini et al., Sum-of-squares polynomial flow, 2019, eq. 8, https://arxiv.org/abs/1905.02325
    """

    terms: int = 3
    degree: int = 4
    minimum: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts("SumOfSquares", terms=self.terms, degree=self.degree)
        if not 0 < self.minimum < 1:
            raise ValueError(f"SumOfSquares: minimum must be in (0, 1); got {self.minimum}")

    @property
    def num_params(self) -> int:
        return self.terms * (self.degree + 1) + 1

    @property
    def _nodes(self) -> int:
        return self.degree + 1

    def _log_slope(self, params: Array, x: Array) -> Array:
        coefficients = params.reshape(*params.shape[:-1], self.terms, self.degree + 1)
        t = (x / self.bound)[..., None]
        value = jnp.zeros((*t.shape[:-1], self.terms), t.dtype)
        for i in range(self.degree, -1, -1):
            value = value * t + coefficients[..., i]
        value = jnp.concatenate([1 + value[..., :1], value[..., 1:]], axis=-1)
        squares = jnp.sum(jnp.square(value), axis=-1)
        return jnp.log(self.minimum + (1 - self.minimum) * squares)


@dataclass(frozen=True)
class UnconstrainedMonotonic(Integral):
    """The integral of a positive network (UMNN), here of one hidden layer.

        log g(t) = c + sum_k v_k tanh(r_k (t - m_k)),    0 < r_k < steepness, |v_k| < 1, |c| < 3

    The sum over nodes converges like rho^(-2 nodes), where rho belongs to the ellipse, around the
    longest interval of integration, that touches the nearest pole of a tanh. If that is below
    1e-14, `log_det_kind` is "exact", as with the defaults, and otherwise "biased": the map is then
    not quite the integral whose slope is reported. A larger `steepness` needs as many times more
    nodes.

    params: K raw v, K raw r, K shifts of m (which starts spread over the interval), raw c, b. Zero
    params are the identity.

    Attributes:
      units: K.
      nodes: of the quadrature.
      steepness: the largest r.
      bound: where straight lines begin.

    Reference: Wehenkel and Louppe, Unconstrained monotonic neural networks, 2019, eq. 1,
    https://arxiv.org/abs/1908.05164 (whose integrand is a deep network)
    """

    units: int = 8
    nodes: int = 64
    steepness: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts("UnconstrainedMonotonic", units=self.units, nodes=self.nodes)
        if not 0 < self.steepness < math.inf:
            raise ValueError(
                f"UnconstrainedMonotonic: steepness must be positive; got {self.steepness}"
            )

    @property
    def num_params(self) -> int:
        return 3 * self.units + 2

    @property
    def log_det_kind(self) -> LogDetKind:
        # The pole is pi / (2 r) above the interval, whose half is bound / 2.
        pole = math.pi / self.steepness / self.bound
        rho = pole + math.hypot(1, pole)
        return "exact" if rho ** (-2 * self.nodes) < 1e-14 else "biased"

    @property
    def _nodes(self) -> int:
        return self.nodes

    def _log_slope(self, params: Array, x: Array) -> Array:
        raw_heights, raw_rates, shifts = (
            params[..., i * self.units : (i + 1) * self.units] for i in range(3)
        )
        spread = np.linspace(-1, 1, self.units + 2)[1:-1] * self.bound
        centres = jnp.asarray(spread, x.dtype).reshape((1,) * (params.ndim - 1) + (-1,)) + shifts
        rates = self.steepness * jax.nn.sigmoid(raw_rates)
        bumps = jnp.tanh(raw_heights) * jnp.tanh(rates * (x[..., None] - centres))
        return 3 * jnp.tanh(params[..., -1] / 3) + jnp.sum(bumps, axis=-1)
