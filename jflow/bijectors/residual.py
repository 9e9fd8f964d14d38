"""Residual flows: the identity plus a contraction; and coupled residual halves."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from jflow.bijectors.base import Direction, DirectionKind, LogDetKind
from jflow.bijectors.chain import Chain
from jflow.bijectors.coupling import Coupling
from jflow.bijectors.one_method import OneMethod
from jflow.functional.arguments import check_counts
from jflow.functional.arrays import as_wide, batch_shape
from jflow.functional.contractions import Solution, default_tolerance, invert_residual
from jflow.functional.convergence import failed_points
from jflow.functional.log_determinants import LogDetEstimator
from jflow.functional.series import RussianRoulette
from jflow.nets.contraction import Contraction
from jflow.nets.layers import check_factory
from jflow.transformers import Shift


class Residual(OneMethod):
    """Adds a contraction g, of Lipschitz constant L below 1 (i-ResNet, Residual Flow).

        inverse   x = y + g(y; context)        log|det dx/dy| = log|det(I + J_g)|

    forward is found by a fixed-point iteration, which stops on a bound of its error (see
    `functional.invert_residual`); its gradients are those of the implicit function theorem.
    `Invert(Residual(net))` has fast samples instead of fast likelihoods.
    `apply(..., mutable=["solver"])` reports, beside the result, the number of iterations, the
    largest bound on the error that was reached, and the norm of every layer.

    `log_det_kind` is that of the estimator: "exact", "unbiased" or "biased". All but exact ones
    draw from the RNG stream "noise": `density.log_prob(y, key=key)`.

    Attributes:
      net: makes g: `LipschitzMLP`, `LipschitzConvNet`, `LipschitzDenseNet`, or another
        `Contraction`.
      estimator: of log-determinants: `RussianRoulette`, `PowerSeries` or `ExactLogDet`.
      error: what the bound on the error of forward shall be at most; None for 1e-6 in float32 and
        1e-12 in float64. Rounding may keep it above; see the report.
      max_iterations: of forward; None for as many as L asks for.
      anderson: earlier iterates that Anderson's acceleration combines; 0 for none. It pays where g
        is costly.

    Raises:
      TypeError: `net` is not a `Contraction`, or `estimator` not an estimator.
      ValueError: the Lipschitz constant of `net` is not below 1, or another argument is out of
        range; (on call) there is no key.
      FloatingPointError: (on call, outside jit) the iteration did not converge. Inside jit, its
        result is NaN.

    References: Behrmann et al., 2019, https://arxiv.org/abs/1811.00995; Chen et al., 2019,
    https://arxiv.org/abs/1906.02735
    """

    net: Contraction
    estimator: LogDetEstimator = RussianRoulette()
    error: float | None = None
    max_iterations: int | None = None
    anderson: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.net, Contraction):
            raise TypeError(
                "Residual: net must be a Contraction, such as nets.LipschitzMLP((64, 64)); got "
                f"{type(self.net).__name__}. Other networks need not be invertible here"
            )
        if not 0 < self.net.lipschitz < 1:
            raise ValueError(
                "Residual: the Lipschitz constant of net must be below 1; got "
                f"{self.net.lipschitz:.6g}. Lower its coefficient"
            )
        if not isinstance(self.estimator, LogDetEstimator):
            raise TypeError(
                "Residual: estimator must be an estimator of log-determinants, such as "
                f"ExactLogDet() or RussianRoulette(); got {self.estimator!r}"
            )
        if self.error is not None and not self.error > 0:
            raise ValueError(f"Residual: error must be positive; got {self.error}")
        check_counts("Residual", 0, anderson=self.anderson)
        if self.max_iterations is not None:
            check_counts("Residual", max_iterations=self.max_iterations)
        super().__post_init__()

    @nn.compact
    def _run(self, method: Direction, x: Array, context: Array | None) -> tuple[Array, Array]:
        x, ndim = as_wide(x), self.net.event_ndim
        self.latent_shape(x.shape[x.ndim - ndim :])
        g = self.net(x.shape[-1]).copy(name="net")(x, context)
        if method == "inverse":
            moved, log_det = self._log_det(g, x, ndim)
            return x + moved, log_det
        start = self._solve(g, x, ndim)
        return start, -self._log_det(g, start, ndim)[1]

    def _log_det(self, g: Any, x: Array, ndim: int) -> tuple[Array, Array]:
        if self.is_initializing():
            return g(x), jnp.zeros(batch_shape(x, ndim), x.dtype)
        key = None
        if self.estimator.needs_key:
            if not self.has_rng("noise"):
                raise ValueError(
                    f"Residual: {type(self.estimator).__name__} estimates log-determinants at "
                    "random; give a key: density.log_prob(y, key=key), or "
                    "apply(..., rngs={'noise': key}). ExactLogDet() needs none"
                )
            key = self.make_rng("noise")
        return self.estimator.value_and_log_det(g, x, key, ndim)

    def _solve(self, g: Any, y: Array, ndim: int) -> Array:
        solution = invert_residual(
            _call,
            g,
            y,
            lipschitz=self.net.lipschitz,
            norm=self.net.norm,
            tolerance=self.error,
            max_iterations=self.max_iterations,
            anderson=self.anderson,
            event_ndim=ndim,
        )
        self._report(
            iterations=lambda: solution.iterations,
            bound=lambda: jnp.max(solution.bound, initial=0.0),
        )
        _check_converged(solution, y, ndim)
        return solution.x

    @property
    def event_ndim(self) -> int:
        return self.net.event_ndim

    @property
    def log_det_kind(self) -> LogDetKind:
        return self.estimator.kind

    @property
    def forward_kind(self) -> DirectionKind:
        return "iterative"

    @nn.nowrap
    def needs_key(self, direction: Direction) -> bool:
        return self.estimator.needs_key

    @property
    def may_fail(self) -> bool:
        return True

    @property
    def tolerance(self) -> float:
        return self.error or default_tolerance(jnp.float32)


def _call(g: Any, x: Array) -> Array:
    return g(x)


def _check_converged(solution: Solution, y: Array, event_ndim: int) -> None:
    if failed_points((solution.x, event_ndim), (y, event_ndim)).any():
        raise FloatingPointError(
            f"Residual: forward did not converge in {int(solution.iterations)} iterations: the "
            f"bound on its error is {float(np.max(solution.bound)):.3g}. The network's weights may "
            "not contract (`apply(..., mutable=['solver'])` reports their norms), or "
            "max_iterations is too small"
        )


def RevNet(net: Any, mask: Any = "half") -> Chain:
    """Two coupled residual halves (RevNet, i-RevNet): any networks, and log_det exactly 0.

        inverse   a = y_1 + F(y_2),   b = y_2 + G(a)      x = (a, b)
        forward   y_2 = b - G(a),     y_1 = a - F(y_2)

    Blocks of i-RevNet are these with a `Squeeze` between resolutions.

    Args:
      net: makes F and G, given their numbers of outputs: see `jflow.nets`.
      mask: which part is y_1; as in `Coupling`: "half", "alternating", and for images "channel" or
        "checkerboard".

    References: Gomez et al., 2017, eq. 1, https://arxiv.org/abs/1707.04585; Jacobsen et al., 2018,
    https://arxiv.org/abs/1802.07088
    """
    if not isinstance(mask, str):
        raise TypeError(f"RevNet: mask must be a name, such as 'half'; got {mask!r}")
    if isinstance(net, Contraction):
        raise TypeError(
            f"RevNet: {type(net).__name__} is for Residual; here any network will do, such as "
            "nets.MLP((64, 64))"
        )
    check_factory("RevNet", net)
    return Chain((Coupling(Shift(), net, mask + "_swapped"), Coupling(Shift(), net, mask)))
