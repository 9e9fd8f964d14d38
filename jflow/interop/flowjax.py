"""flowjax, both ways.

    distribution = to_distribution(density)     # trains by flowjax; then distribution.density
    bijection = to_bijection(density)           # a flowjax bijection, its arrays with it
    flow = jflow.Flow(from_bijection(bijection), event_shape=(4,))       # and the other way

What is made holds parameters as flowjax does; what jflow holds constant is `paramax.NonTrainable`.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

if find_spec("flowjax") is None:
    raise ImportError("jflow.interop.flowjax needs flowjax: pip install 'jflow[interop]'")

import equinox as eqx
import flax.linen as nn
import flowjax.bijections as fj
import jax
import jax.numpy as jnp
from flowjax.distributions import AbstractDistribution
from jax import Array
from paramax import non_trainable, unwrap

from jflow.bijectors import Bijector
from jflow.bijectors.base import Direction
from jflow.distributions import Density, Flow
from jflow.distributions.base import default_promotion
from jflow.functional.arrays import as_wide
from jflow.functional.supports import Interval
from jflow.interop.bound import Bound
from jflow.interop.foreign import (
    LINE,
    POSITIVE,
    UNIT,
    Foreign,
    Opaque,
    Sides,
    check_sides,
    settled,
    supports_in,
)

__all__ = ["from_bijection", "to_bijection", "to_distribution"]

# Where the bijections live that are not of the line onto the line.
_SUPPORTS: dict[type, Sides] = {
    fj.Exp: (LINE, POSITIVE),
    fj.SoftPlus: (LINE, POSITIVE),
    fj.Power: (POSITIVE, POSITIVE),
    fj.Tanh: (LINE, Interval(-1.0, 1.0)),
    fj.Sigmoid: (LINE, UNIT),
}


class _Held(eqx.Module):
    """A density in flowjax's pytrees: what `fit` of jflow holds constant is so here, too."""

    flow: Flow = eqx.field(static=True)
    params: Any
    constants: Any

    def __init__(self, density: Density) -> None:
        self.flow = density.flow
        self.params = density.variables.get("params", {})
        rest = {name: part for name, part in density.variables.items() if name != "params"}
        self.constants = non_trainable(rest)

    @property
    def density(self) -> Density:
        """With the variables that it has now."""
        return Density(self.flow, {"params": self.params, **unwrap(self.constants)})

    def bound(self, condition: Any) -> Bound:
        """With a condition, which flows without a context pay no heed to, as in flowjax."""
        return Bound(self.density, condition if self.flow.context_shape is not None else None)


class _Distribution(AbstractDistribution):
    """A density as flowjax has them."""

    shape: tuple[int, ...]
    cond_shape: tuple[int, ...] | None
    held: _Held

    @property
    def density(self) -> Density:
        """The density of jflow, with the variables of now."""
        return self.held.density

    def _log_prob(self, x: Array, condition: Array | None = None) -> Array:
        return self.held.bound(condition).log_prob(x)

    def _sample(self, key: Array, condition: Array | None = None) -> Array:
        return self.held.bound(condition).sample(key, ())

    def _sample_and_log_prob(
        self, key: Array, condition: Array | None = None
    ) -> tuple[Array, Array]:
        return self.held.bound(condition).sample(key, (), and_log_prob=True)


class _Bijection(fj.AbstractBijection):
    """A flow's bijector as flowjax has them."""

    shape: tuple[int, ...]
    cond_shape: tuple[int, ...] | None
    held: _Held

    @property
    def density(self) -> Density:
        """The density of jflow, with the variables of now."""
        return self.held.density

    def transform_and_log_det(self, x: Any, condition: Any = None) -> tuple[Array, Array]:
        return self.held.bound(condition).forward(x)

    def inverse_and_log_det(self, y: Any, condition: Any = None) -> tuple[Array, Array]:
        return self.held.bound(condition).inverse(y)


def to_distribution(density: Density) -> AbstractDistribution:
    """A density as a `flowjax` distribution, whose condition is the flow's context.

    `flowjax.train.fit_to_data` trains its parameters; the result's `density` is jflow's again.

    Raises:
      TypeError: that is no density.
      ValueError: its log_prob is a random draw, or its context is a dict.
    """
    check = Bound.of("to_distribution", density, _no_context(density), "inverse")
    return _Distribution(check.flow.event_shape, check.flow.context_shape, _Held(density))


def to_bijection(density: Density) -> fj.AbstractBijection:
    """The bijector of a density's flow, base to data, as a `flowjax` bijection.

    Raises:
      TypeError: that is no density.
      ValueError: a direction or log_dets are random draws, the bijector changes shapes, or its
        context is a dict.
    """
    check = Bound.of("to_bijection", density, _no_context(density), "forward", "inverse")
    flow = check.flow
    if flow.latent_shape != flow.event_shape:
        raise ValueError(
            f"to_bijection: flowjax's bijections keep shapes; this one has latents "
            f"{flow.latent_shape} of events {flow.event_shape}. Take to_distribution"
        )
    return _Bijection(flow.event_shape, flow.context_shape, _Held(density))


def from_bijection(bijection: fj.AbstractBijection, *, supports: Sides | None = None) -> Bijector:
    """A `flowjax` bijection as a layer, whose parameters start at those of the bijection.

    Args:
      bijection: transform is from the base side to the data side. Its condition is the context.
      supports: of x and of y (see `jflow.functional.Support`). None for what is known of flowjax's
        own bijections and their chains.

    Raises:
      TypeError: that is no such bijection.
      ValueError: one that does not live on the line, or is not flowjax's own, is inside; give
        supports.
    """
    if not isinstance(bijection, fj.AbstractBijection):
        raise TypeError(f"from_bijection takes a flowjax bijection; got {type(bijection).__name__}")
    check_sides("from_bijection", supports)
    sides = supports or _supports(bijection)
    return _Layer(Opaque(bijection), sides, event_ndim=len(bijection.shape))


class _Layer(Foreign):
    """A flowjax bijection; its inexact arrays are parameters."""

    @nn.compact
    def _run(self, method: Direction, x: Array, context: Array | None) -> tuple[Array, Array]:
        given = self.opaque.held
        moving, fixed = eqx.partition(given, eqx.is_inexact_array)
        leaves, tree = jax.tree.flatten(moving)
        learned = [self.param(f"leaf_{i}", lambda _, a=a: a) for i, a in enumerate(leaves)]
        bijection = eqx.combine(tree.unflatten(learned), fixed)
        x, outside = self._guarded(method, as_wide(x))
        batch = x.shape[: x.ndim - self.event_ndim]
        flat, contexts = x.reshape(-1, *given.shape), None
        if given.cond_shape is not None:
            own = () if context is None else context.shape[context.ndim - len(given.cond_shape) :]
            if own != given.cond_shape:
                raise ValueError(
                    f"{self.opaque!r} needs a context {given.cond_shape}, and is given "
                    f"{None if context is None else own}; build the flow with that context_shape="
                )
            contexts = jnp.broadcast_to(jnp.asarray(context), (*batch, *given.cond_shape))
            contexts = contexts.reshape(-1, *given.cond_shape)
        with default_promotion():
            theirs = "transform_and_log_det" if method == "forward" else "inverse_and_log_det"
            run = jax.vmap(getattr(bijection, theirs), in_axes=(0, None if contexts is None else 0))
            y, log_det = run(flat, contexts)
        y, log_det = y.reshape(x.shape).astype(x.dtype), log_det.reshape(batch).astype(x.dtype)
        return settled(method, x, y, log_det, outside, self.event_ndim)

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        wanted = self.opaque.held.shape
        if event_shape != wanted:
            raise ValueError(
                f"{self.opaque!r}: the bijection is of events {wanted}; got {event_shape}"
            )
        return event_shape

    @property
    def forward_kind(self) -> Any:
        return _kind(self.opaque.held)

    @property
    def inverse_kind(self) -> Any:
        return _kind(self.opaque.held)


def _kind(bijection: Any) -> str:
    """Iterative if flowjax searches for a root in one of its directions."""
    nodes = jax.tree.leaves(bijection, is_leaf=lambda node: isinstance(node, fj.NumericalInverse))
    return "iterative" if any(isinstance(n, fj.NumericalInverse) for n in nodes) else "closed form"


def _no_context(density: Any) -> Any:
    """Zeros in the shape of a context, to check by."""
    shape = getattr(getattr(density, "flow", None), "context_shape", None)
    if isinstance(shape, Mapping):
        raise ValueError("a condition of flowjax is one array; this flow's context is a dict")
    return None if shape is None else jnp.zeros(shape)


def _supports(bijection: Any) -> Sides:
    if isinstance(bijection, fj.Invert):
        x, y = _supports(bijection.bijection)
        return y, x
    if isinstance(bijection, fj.Chain):
        return supports_in(_supports(part) for part in bijection.bijections)
    if type(bijection) in _SUPPORTS:
        return _SUPPORTS[type(bijection)]
    nodes = jax.tree.leaves(unwrap(bijection), is_leaf=_may_be_bounded)
    if inside := sorted({type(node).__name__ for node in nodes if _may_be_bounded(node)}):
        raise ValueError(
            f"from_bijection: {inside} in {type(bijection).__name__} may not live on the line; say "
            "where this one takes numbers from, and to, by supports=(of x, of y)"
        )
    return LINE, LINE


def _may_be_bounded(node: Any) -> bool:
    """Whether a bijection is a bounded one of flowjax, or not of flowjax."""
    own = type(node).__module__.startswith("flowjax.")
    return isinstance(node, fj.AbstractBijection) and (type(node) in _SUPPORTS or not own)
