"""Scalar transforms as other libraries parameterise them: jflow's, with parameters read first."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jflow.functional.supports import Support
from jflow.transformers import (
    Affine,
    Inverted,
    RationalQuadraticSpline,
    Shift,
    SoftplusAffine,
    Transformer,
)

# The smallest bin and slope of splines that have none.
_NOTHING = 1e-12


@dataclass(frozen=True)
class Reread(Transformer):
    """A transformer whose parameters are made of others, as many.

    Attributes:
      transformer: the transformer.
      read: (..., num_params) to its parameters, a hashable function.
    """

    transformer: Transformer
    read: Callable[[Array], Array]

    @property
    def num_params(self) -> int:
        return self.transformer.num_params

    @property
    def domain(self) -> tuple[float, float]:
        return self.transformer.domain

    @property
    def codomain(self) -> tuple[float, float]:
        return self.transformer.codomain

    @property
    def closed(self) -> bool:
        return self.transformer.closed

    @property
    def supports(self) -> tuple[Support, Support]:
        return self.transformer.supports

    def _forward(self, x: Array, params: Array) -> tuple[Array, Array]:
        return self.transformer._forward(x, self.read(params))

    def _inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        return self.transformer._inverse(y, self.read(params))


def _softened(x: Array, bound: float) -> Array:
    return x / (1 + jnp.abs(x) / bound)


@dataclass(frozen=True)
class Softened:
    """(t, a) to (t, s), with s = a / (1 + |a| / log(1 / slope)): zuko's scales."""

    slope: float

    def __call__(self, params: Array) -> Array:
        scale = _softened(params[..., 1], -math.log(self.slope))
        return jnp.stack([params[..., 0], scale], axis=-1)


@dataclass(frozen=True)
class LogSigmoid:
    """(t, u) to (t, sign log(sigmoid(u + 2) + least)): scales of nflows and normflows."""

    sign: float
    least: float = 0.0

    def __call__(self, params: Array) -> Array:
        u = params[..., 1] + 2
        log_scale = jax.nn.log_sigmoid(u)
        if self.least:
            log_scale = jnp.log(jax.nn.sigmoid(u) + self.least)
        return jnp.stack([params[..., 0], self.sign * log_scale], axis=-1)


@dataclass(frozen=True)
class SoftenedSpline:
    """Logits of zuko's splines, whose bins have no smallest width, to those of jflow's."""

    bins: int
    slope: float

    def __call__(self, params: Array) -> Array:
        bound, k = -math.log(self.slope), 2 * self.bins
        slopes = jnp.exp(_softened(params[..., k:], bound)) - _NOTHING
        # softplus(r + c) = slope, where c is such that r = 0 is the slope 1.
        slopes = slopes + jnp.log(-jnp.expm1(-slopes)) - math.log(math.expm1(1 - _NOTHING))
        return jnp.concatenate([_softened(params[..., :k], bound / 2), slopes], axis=-1)


@dataclass(frozen=True)
class CentredSpline:
    """Logits of splines of nflows and normflows to those of jflow.

    Those of bins are moved to where the largest is 0, since jflow cuts large ones; and a logit of 0
    is a slope of 1 in jflow, of softplus(0) + least in the others.
    """

    bins: int
    least: float

    def __call__(self, params: Array) -> Array:
        widths, heights, slopes = jnp.split(params, [self.bins, 2 * self.bins], axis=-1)
        widths, heights = (a - a.max(axis=-1, keepdims=True) for a in (widths, heights))
        slopes = slopes - math.log(math.expm1(1 - self.least))
        return jnp.concatenate([widths, heights, slopes], axis=-1)


def _affine(read: Any) -> Transformer:
    return Reread(Affine(math.inf), read)


def _spline(bins: int, bound: float, minimum: float, least: float, read: Any) -> Transformer:
    spline = RationalQuadraticSpline(bound=bound, bins=bins, minimum=minimum, min_slope=least)
    return Inverted(Reread(spline, read))


# The direction is from base to data, but of those named `..._to_base`.
SCALARS: dict[str, Callable[..., Transformer]] = {
    "shift": Shift,
    "affine": lambda: Affine(math.inf),
    "softplus_to_base": lambda least: Inverted(SoftplusAffine(least)),
    "softened_to_base": lambda slope: Inverted(_affine(Softened(slope))),
    "shift_to_base": lambda: Inverted(Shift()),
    "sigmoid": lambda sign, least: _affine(LogSigmoid(sign, least)),
    "sigmoid_to_base": lambda least: Inverted(_affine(LogSigmoid(1.0, least))),
    "softened_spline_to_base": lambda bins, bound, slope: _spline(
        bins, bound, _NOTHING, _NOTHING, SoftenedSpline(bins, slope)
    ),
    "spline_to_base": lambda bins, bound, minimum, least: _spline(
        bins, bound, minimum, least, CentredSpline(bins, least)
    ),
}


def scalar(described: tuple[Any, ...]) -> Transformer:
    """The transformer that a name of `SCALARS` and its numbers describe."""
    name, *numbers = described
    return SCALARS[name](*numbers)
