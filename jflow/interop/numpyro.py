"""NumPyro: distributions, transforms, and guides.

    numpyro.sample("x", to_distribution(density))      # in any model, for NUTS or SVI
    guide = AutoFlow(model)                            # for SVI, a flow over all latents
    neutra = NeuTraReparam(guide, result.params)       # and NUTS in the latents of the flow

What is made holds the variables as leaves of a pytree.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

if find_spec("numpyro") is None:
    raise ImportError("jflow.interop.numpyro needs numpyro: pip install 'jflow[interop]'")

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform, biject_to
from numpyro.infer.autoguide import AutoContinuous

from jflow.distributions import Density, Flow, StandardNormal, init
from jflow.distributions.targets import check_deterministic
from jflow.flows import iaf
from jflow.functional.supports import Supports, back, entries, onto
from jflow.interop.bound import Bound, check_latents_on_line, is_line

__all__ = ["AutoFlow", "to_distribution", "to_transform"]


class _Where(constraints.Constraint):
    """Where the events of a flow live, if not on the line."""

    def __init__(self, supports: Supports, event_shape: tuple[int, ...]) -> None:
        self.supports, self.event_shape = supports, event_shape
        self.event_dim = len(event_shape)

    @property
    def parts(self) -> tuple[Any, ...]:
        """The support of each entry of the last axis."""
        return entries(self.supports, self.event_shape[-1] if self.event_shape else 1)

    def __call__(self, x: Any) -> Array:
        ends = [(getattr(p, "low", -jnp.pi), getattr(p, "high", jnp.pi)) for p in self.parts]
        low, high = (jnp.asarray(end, x.dtype) for end in zip(*ends, strict=True))
        inside = (x > low) & (x < high)
        return jnp.all(inside, axis=tuple(range(-self.event_dim, 0)))

    def feasible_like(self, prototype: Any) -> Array:
        return biject_to(self)(jnp.zeros_like(prototype))

    def tree_flatten(self) -> Any:
        return (), ((), {"supports": self.supports, "event_shape": self.event_shape,
                         "event_dim": self.event_dim})  # fmt: skip

    def eq(self, other: object, static: bool = False) -> bool:
        if not isinstance(other, _Where):
            return False
        return (self.supports, self.event_shape) == (other.supports, other.event_shape)


class _Onto(Transform):
    """The line onto where events live, entry by entry."""

    def __init__(self, where: _Where) -> None:
        self.where = where

    @property
    def domain(self) -> Any:
        return constraints.independent(constraints.real, self.where.event_dim)

    @property
    def codomain(self) -> Any:
        return self.where

    def __call__(self, x: Any) -> Array:
        return self._each(x)[0]

    def _inverse(self, y: Any) -> Array:
        parts = self.where.parts
        if len(set(parts)) == 1:
            return back(parts[0])(y)
        return jnp.stack([back(part)(y[..., i]) for i, part in enumerate(parts)], axis=-1)

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Array:
        return jnp.sum(self._each(x)[1], axis=tuple(range(-self.where.event_dim, 0)))

    def tree_flatten(self) -> Any:
        return (), ((), {"where": self.where})

    def _each(self, x: Any) -> tuple[Array, Array]:
        parts = self.where.parts
        if len(set(parts)) == 1:
            return onto(parts[0])(x)
        found = [onto(part)(x[..., i]) for i, part in enumerate(parts)]
        y, slopes = zip(*found, strict=True)
        return jnp.stack(y, axis=-1), jnp.stack(slopes, axis=-1)


biject_to.register(_Where)(_Onto)


def _where(flow: Flow) -> Any:
    """Where its events live, as NumPyro says it."""
    if is_line(flow.support):
        return constraints.independent(constraints.real, len(flow.event_shape))
    return _Where(flow.support, flow.event_shape)


class _Distribution(dist.Distribution):
    """A density as NumPyro has them."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    pytree_data_fields = ("bound",)

    def __init__(self, bound: Bound, *, validate_args: bool | None = None) -> None:
        self.bound = bound
        super().__init__(bound.batch_shape, bound.flow.event_shape, validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> Any:
        return _where(self.bound.flow)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        return self.bound.sample(key, sample_shape)

    def log_prob(self, value: Any, intermediates: Any = None) -> Array:
        return self.bound.log_prob(value)


class _Transform(Transform):
    """A flow's bijector as NumPyro has them."""

    def __init__(self, bound: Bound) -> None:
        self.bound = bound

    @property
    def domain(self) -> Any:
        return constraints.independent(constraints.real, len(self.bound.flow.latent_shape))

    @property
    def codomain(self) -> Any:
        return _where(self.bound.flow)

    def __call__(self, x: Any) -> Array:
        return self.bound.forward(x)[0]

    def call_with_intermediates(self, x: Any) -> tuple[Array, Array]:
        return self.bound.forward(x)

    def _inverse(self, y: Any) -> Array:
        return self.bound.inverse(y)[0]

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Array:
        return self.bound.forward(x)[1] if intermediates is None else intermediates

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        flow = self.bound.flow
        return (*shape[: len(shape) - len(flow.latent_shape)], *flow.event_shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        flow = self.bound.flow
        return (*shape[: len(shape) - len(flow.event_shape)], *flow.latent_shape)

    def tree_flatten(self) -> Any:
        return (self.bound,), (("bound",), {})


def to_distribution(density: Density, context: Any = None) -> dist.Distribution:
    """A density as a NumPyro distribution: a prior, or a likelihood, of a model.

    Its support is that of the flow, so that NUTS moves where the flow has mass.

    Args:
      density: the density.
      context: (*batch, *context_shape), for conditional flows; its batch is the distribution's. It
        may be made of other latent variables.

    Raises:
      TypeError: that is no density.
      ValueError: its log_prob is a random draw, or the context is not that of the flow.
    """
    return _Distribution(Bound.of("to_distribution", density, context, "inverse"))


def to_transform(density: Density, context: Any = None) -> Transform:
    """The bijector of a density's flow, base to data, as a NumPyro transform.

    Args:
      density: the density, whose latents live on the line.
      context: (*context_shape), for conditional flows.

    Raises:
      TypeError: that is no density.
      ValueError: a direction or log_dets are random draws, or latents do not live on the line.
    """
    bound = Bound.of("to_transform", density, context, "forward", "inverse")
    check_latents_on_line("to_transform", density.flow)
    return _Transform(bound)


_NO_MAKER = (
    "AutoFlow: flow must make a flow, given the number of latent variables, such as "
    "lambda size: flows.iaf(size); {}"
)


class AutoFlow(AutoContinuous):
    """A guide for SVI: a flow over all latent variables of a model, on the line.

        guide = AutoFlow(model)
        result = SVI(model, guide, optax.adam(1e-3), Trace_ELBO(16)).run(key, 2_000)
        posterior = guide.sample_posterior(key, result.params, sample_shape=(1_000,))
        neutra = NeuTraReparam(guide, result.params)     # then NUTS(neutra.reparam(model))

    Args:
      model: a NumPyro model.
      flow: makes the flow, given the number of latent variables; its base must be the standard
        normal. None for four inverse autoregressive layers, whose samples are fast.
      key: a whole number, from which parameters are drawn.
      options: further ones of NumPyro's `AutoContinuous`, such as `prefix`. (The flow starts where
        its parameters do, whatever `init_loc_fn` says.)

    Raises:
      TypeError: `flow` is a flow, or gives something else than one.
      ValueError: (when it is first called) a flow of other events, with a context, another base, or
        random values.

    Reference: Hoffman et al., NeuTra-lizing bad geometry, 2019, https://arxiv.org/abs/1903.03704
    """

    def __init__(
        self, model: Callable[..., Any], flow: Callable[[int], Flow] | None = None, *,
        key: int = 0, **options: Any,
    ) -> None:  # fmt: skip
        if isinstance(flow, Flow):
            raise TypeError(_NO_MAKER.format("a flow was given"))
        self._make_flow = flow or partial(iaf, layers=4, hidden=(64, 64))
        self._key = key
        super().__init__(model, **options)

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        flow = self._make_flow(self.latent_dim)
        if not isinstance(flow, Flow):
            raise TypeError(_NO_MAKER.format(f"it gave {type(flow).__name__}"))
        self._check(flow)
        first, second = jax.random.split(jax.random.key(self._key))
        # Values, also where the guide is first called in a program that is compiled.
        with jax.ensure_compile_time_eval():
            like = jax.random.normal(first, (256, self.latent_dim))
            variables = init(flow, second, like)
        self._flow, self._variables = flow, variables

    def _check(self, flow: Flow) -> None:
        wanted = (self.latent_dim,)
        if flow.event_shape != wanted or flow.context_shape is not None:
            raise ValueError(
                f"AutoFlow: the flow must be of events {wanted} without a context; got events "
                f"{flow.event_shape} and context_shape {flow.context_shape}"
            )
        if not isinstance(flow.base, StandardNormal) or not is_line(flow.support):
            raise ValueError(
                "AutoFlow: the flow must bring a StandardNormal onto the line; its base is "
                f"{type(flow.base).__name__}, its support {flow.support}"
            )
        check_deterministic("AutoFlow", flow)

    def density(self, params: dict[str, Any]) -> Density:
        """The flow over the latent variables, unconstrained, in NumPyro's order."""
        return Density(self._flow, {**self._variables, "params": params[self._name]})

    @property
    def _name(self) -> str:
        return f"{self.prefix}_flow$params"

    def _get_posterior(self) -> dist.TransformedDistribution:
        params = numpyro.param(self._name, self._variables["params"])
        transform = _Transform(Bound(self.density({self._name: params})))
        return dist.TransformedDistribution(self.get_base_dist(), [transform])

    def get_base_dist(self) -> dist.Distribution:
        """The standard normal."""
        return dist.Normal(jnp.zeros(self.latent_dim), 1).to_event(1)
