"""Shifts and scales."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from jflow.transformers.base import Transformer


@dataclass(frozen=True)
class Shift(Transformer):
    """y = x + t, with log-derivative 0 (the additive coupling of NICE).

    params: (t,).

    Reference: Dinh, Krueger, Bengio, NICE, 2015, eq. 9, https://arxiv.org/abs/1410.8516
    """

    @property
    def num_params(self) -> int:
        return 1

    def _forward(self, x: Array, params: Array) -> tuple[Array, Array]:
        return x + params[..., 0], jnp.zeros_like(x)

    def _inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        return y - params[..., 0], jnp.zeros_like(y)


@dataclass(frozen=True)
class Affine(Transformer):
    """y = x e^s + t (Real NVP, Glow), with s = bound * tanh(r / bound).

        forward   log|dy/dx| = s
        inverse   x = (y - t) e^-s,  log|dx/dy| = -s

    params: (t, r). The bound keeps every scale within e^(+-bound), so that no network output
    can overflow; Real NVP bounds its s in the same way, with a learned factor.

    Attributes:
      bound: the largest |s|, in nats; `math.inf` for s = r.

    Reference: Dinh, Sohl-Dickstein, Bengio, Real NVP, 2017, eqs. 4-8, https://arxiv.org/abs/1605.08803
    """

    bound: float = 2.0

    def __post_init__(self) -> None:
        if not self.bound > 0:
            raise ValueError(f"Affine: bound must be positive; got {self.bound}")

    @property
    def num_params(self) -> int:
        return 2

    def _forward(self, x: Array, params: Array) -> tuple[Array, Array]:
        shift, log_scale = self._shift_and_log_scale(params)
        return x * jnp.exp(log_scale) + shift, log_scale

    def _inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        shift, log_scale = self._shift_and_log_scale(params)
        return (y - shift) * jnp.exp(-log_scale), -log_scale

    def saturated(self, x: Array, params: Array) -> Array | None:
        if math.isinf(self.bound):
            return None
        return jnp.abs(self._shift_and_log_scale(params)[1]) > 0.95 * self.bound

    def _shift_and_log_scale(self, params: Array) -> tuple[Array, Array]:
        shift, raw = params[..., 0], params[..., 1]
        if math.isinf(self.bound):
            return shift, raw
        return shift, self.bound * jnp.tanh(raw / self.bound)


@dataclass(frozen=True)
class SoftplusAffine(Transformer):
    """y = x m + t, with m = log(1 + e^(r + c)) + least: a scale that grows linearly in r.

        forward   log|dy/dx| = log m
        inverse   x = (y - t) / m,  log|dx/dy| = -log m

    params: (t, r); c is such that m = 1 at r = 0. Where a network extrapolates to large r, the
    scale does not grow exponentially as that of `Affine`, and nothing bounds it from above.
    `MaskedAutoregressive(Inverted(SoftplusAffine()))` takes data to the base by x = y m + t, so
    that the shift of one layer is not scaled by the same layer.

    Attributes:
      least: the smallest scale.

    Reference: Durkan et al., nflows, 2020, https://doi.org/10.5281/zenodo.4296287
    """

    least: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.least < 1:
            raise ValueError(f"SoftplusAffine: least must be in (0, 1); got {self.least}")

    @property
    def num_params(self) -> int:
        return 2

    def _forward(self, x: Array, params: Array) -> tuple[Array, Array]:
        scale = self._scale(params)
        return x * scale + params[..., 0], jnp.log(scale)

    def _inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        scale = self._scale(params)
        return (y - params[..., 0]) / scale, -jnp.log(scale)

    def _scale(self, params: Array) -> Array:
        at_zero = math.log(math.expm1(1 - self.least))
        return jax.nn.softplus(params[..., 1] + at_zero) + self.least


@dataclass(frozen=True)
class FixedAffine(Transformer):
    """y = scale * x + shift with two given numbers: changes units, for example of pixels.

    `FixedAffine(shift=0.5)` maps a zero-centred x to pixels y in [0, 1]. No params.

    Attributes:
      shift: added last.
      scale: multiplied first; not zero.
    """

    shift: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.scale == 0 or not math.isfinite(self.scale):
            raise ValueError(f"FixedAffine: scale must be finite and not 0; got {self.scale}")

    @property
    def num_params(self) -> int:
        return 0

    def _forward(self, x: Array, params: Array) -> tuple[Array, Array]:
        return self.scale * x + self.shift, jnp.full_like(x, math.log(abs(self.scale)))

    def _inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        return (y - self.shift) / self.scale, jnp.full_like(y, -math.log(abs(self.scale)))
