"""Fields of continuous flows from networks that tell noise, data or scores apart."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jflow.functional.paths import Path, VariancePreserving
from jflow.nets.layers import check_factory

_KINDS = ("noise", "data", "score")


@dataclass(frozen=True)
class Denoiser:
    """Makes the field of a diffusion's probability flow from a network that takes noise away.

    On a path x(t) = a x1 + b x0, from noise x0 to data x1, the velocity is

        dx/dt = a' x1 + b' x0,    x0 = (x - a x1) / b = -b d log p(x, t) / dx  in the mean

    so that the mean of one of x0 ("noise"), x1 ("data") and the score, given x(t), is all that is
    needed. As the `net` of a `Continuous` it makes log p and samples of a model that was trained to
    denoise; `train.FlowMatching` with the same path trains it.

    Attributes:
      net: makes the network, given its number of outputs. Its context is the flow's own, then time
        t from 0, the noise, to 1, the data.
      path: on which it denoises.
      predicts: "noise", "data" or "score".

    Raises:
      TypeError: `net` is a network or makes other ones, or `path` no `functional.Path`.
      ValueError: another kind; or the velocity would be infinite at an end: of "noise" and "score"
        a must be above 0 at t = 0, of "data" b at t = 1. Or the path has noise besides.

    Reference: Song et al., 2021, https://arxiv.org/abs/2011.13456, section 4.3
    """

    makes: ClassVar[str] = "velocities"

    net: Callable[[int], nn.Module]
    path: Path = VariancePreserving()  # noqa: RUF009  # frozen
    predicts: Literal["noise", "data", "score"] = "noise"

    def __post_init__(self) -> None:
        check_factory("Denoiser", self.net)
        if not isinstance(self.path, Path):
            raise TypeError(f"Denoiser: path must be a functional.Path; got {self.path!r}")
        if self.predicts not in _KINDS:
            raise ValueError(f"Denoiser: predicts must be one of {_KINDS}; got {self.predicts!r}")
        with jax.ensure_compile_time_eval():
            first, last = (self.path.coefficients(jnp.asarray(t)) for t in (0.0, 1.0))
            finite = float(last.base) > 1e-6 if self.predicts == "data" else float(first.data) > 0
            noisy = float(self.path.coefficients(jnp.asarray(0.5)).noise) > 0
        if noisy or not finite:
            raise ValueError(
                f"Denoiser: of {self.path!r} a velocity from {self.predicts} would be "
                + ("unknown, for it has noise besides" if noisy else "infinite at an end")
                + "; take functional.VariancePreserving() or VarianceExploding()"
            )

    @property
    def event_ndim(self) -> int:
        """That of `net`, where it has one."""
        return self.net.event_ndim  # type: ignore[attr-defined]

    def __call__(self, features: int) -> nn.Module:
        """The field with that many outputs."""
        return _Denoiser(features, self)


class _Denoiser(nn.Module):
    features: int
    config: Denoiser

    @nn.compact
    def __call__(self, x: Array, context: Array) -> Array:
        config = self.config
        told = config.net(self.features).copy(name="net")(x, context)
        t = _over(context[..., -1:].astype(x.dtype), x)
        at = lambda t: config.path.coefficients(t)[:2]  # noqa: E731
        (a, b), (da, db) = jax.jvp(at, (t,), (jnp.ones_like(t),))
        if config.predicts == "data":
            return da * told + db * (x - a * told) / b
        noise = told if config.predicts == "noise" else -b * told
        return da * (x - b * noise) / a + db * noise


def _over(t: Array, x: Array) -> Array:
    """Times (1,), (*batch, 1) or (*batch, H, W, 1), over all of x."""
    if t.ndim in (1, x.ndim):
        return t.reshape((1,) * (x.ndim - t.ndim) + t.shape)
    return t.reshape(t.shape[:-1] + (1,) * (x.ndim - t.ndim + 1))
