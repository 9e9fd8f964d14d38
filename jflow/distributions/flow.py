"""A flow: a base distribution seen through a bijector."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jflow.bijectors.base import Bijector
from jflow.bijectors.walk import layers
from jflow.distributions.base import (
    Base,
    as_temperature,
    build,
    check_base,
    default_promotion,
    draw,
    of_wrong_shape,
    support_of,
    tempered,
)
from jflow.distributions.contexts import (
    Standardize,
    as_shapes,
    check_batch_of,
    check_encoder,
    context_ndims,
    each,
    encoded,
)
from jflow.distributions.events import checked, finite, whole
from jflow.distributions.recipe import Recipe
from jflow.distributions.standard import StandardNormal
from jflow.functional.arguments import check_counts
from jflow.functional.arrays import as_wide
from jflow.functional.supports import Integers, Supports, beyond_a_turn, integers_of


class Flow(nn.Module):
    """The distribution of y = f(x), where x follows the base distribution.

        log p(y) = log base(f^-1(y)) + log|det df^-1/dy|      nats

    A flow has no parameters inside; they are created by `jflow.init(flow, key, y)` and passed
    to `flow.apply(variables, ..., method="log_prob")`. A `Density` holds both together.

    Attributes:
      bijector: f.
      event_shape: the shape of one y.
      base: makes the base distribution: a callable `(event_shape, dtype)` like
        `jflow.StandardNormal()`, or a Flax module, called with `(event_shape, dtype, context)`,
        if it has parameters or depends on the context.
      context_shape: the shape of one context: (C,) or C for vectors, (H, W, C) for images, (S, C)
        for sequences to which networks attend, a dict of shapes for a dict of arrays; None for a
        flow without context.
      encoder: a Flax module that is called once with the contexts, floating arrays (N, *shape) or a
        dict of them, standardised, and returns what layers are given: vectors (N, E), or, for
        events that are images, (N, H, W, E), which layers see at their own resolution, or (N, S, E)
        for networks that attend to sequences. None for contexts that are such arrays themselves.
      standardize_context: whether contexts, before the encoder, are taken in units of those given
        to `jflow.init`: minus the mean, over the standard deviation, of each channel (the last
        axis). Channels that hold only 0 and 1 there (classes, masks) stay as they are, and all of
        one context for all points.
      recipe: how a recipe of `jflow.flows` built this flow, so that it can be saved.

    Raises:
      TypeError: the base cannot be called, or is not hashable.
      ValueError: the bijector cannot act on events of that shape, or does not take all of where
        the base lives: the density would not integrate to one. Or the base is not of latents of
        that shape, with one log_prob for each; or contexts need an encoder.
    """

    bijector: Bijector
    event_shape: tuple[int, ...]
    base: Base = StandardNormal()
    context_shape: Any = None
    recipe: Recipe | None = None
    encoder: nn.Module | None = None
    standardize_context: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "event_shape", tuple(self.event_shape))
        for size in self.event_shape:
            check_counts("Flow", **{"every axis of event_shape": size})
        object.__setattr__(self, "context_shape", as_shapes(self.context_shape))
        check_encoder(self.context_shape, self.encoder, self._context_ndims)
        check_base(self.base, self.latent_shape)
        self.support  # noqa: B018, raises where base and bijector do not meet
        super().__post_init__()

    def setup(self) -> None:
        """The one part that is not given."""
        self.context_scale = Standardize()

    @property
    def _context_ndims(self) -> tuple[int, ...]:
        return context_ndims(self.event_shape, self.bijector)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one latent x."""
        return self.bijector.latent_shape(self.event_shape)

    @property
    def support(self) -> Supports:
        """Where y lives: the image of where the base does, or more, as far as the parts tell."""
        return self.bijector.data_support(self.latent_support, self.event_shape)

    @property
    def latent_support(self) -> Supports:
        """Where x lives: where the base does."""
        return support_of(self.base, self.latent_shape)

    @property
    def integers(self) -> Integers | None:
        """The whole numbers that y is an array of, as of grey levels; None if it is continuous."""
        return integers_of(self.support)

    def __call__(self, y: Array, context: Any = None) -> Array:
        """`log_prob`, so that plain `flow.init(key, y, context)` works."""
        return self.log_prob(y, context)

    def log_prob(self, y: Array, context: Any = None) -> Array:
        """log p(y) in nats: y (*batch, *event) to (*batch). -inf outside the support.

        Raises:
          TypeError: y is not floating; or, for flows of whole numbers, not integer.
          ValueError: y or context has the wrong shape.
        """
        x, log_det, context = self._to_base(y, context)
        x, infinite = finite(x, len(self.latent_shape))
        with default_promotion():
            log_prob = self._base(x.dtype, context).log_prob(x)
        if log_prob.shape != log_det.shape:
            raise ValueError(of_wrong_shape(self.latent_shape, log_det.shape, log_prob.shape))
        # Outside the support x is a stand-in; this also drops all gradients there.
        outside = (
            infinite
            | jnp.isneginf(log_det)
            | jnp.isneginf(log_prob)
            | beyond_a_turn(self.support, y, self.event_shape)
        )
        return jnp.where(outside, -jnp.inf, log_prob + log_det)

    def latents(self, y: Array, context: Any = None) -> Array:
        """x = f^-1(y): (*batch, *event) to (*batch, *latent); int32 where x is whole numbers."""
        y, batch = checked("y", y, self.event_shape, self.support)
        y, _ = finite(y, len(self.event_shape))
        x = self.bijector.inverse(y, self.given(context, batch))
        return whole(x, self.latent_support)

    def latents_and_log_det(self, y: Array, context: Any = None) -> tuple[Array, Array]:
        """The same, and log|det dx/dy|, (*batch)."""
        x, log_det, _ = self._to_base(y, context)
        return whole(x, self.latent_support), log_det

    def from_latents(self, z: Array, context: Any = None) -> Array:
        """y = f(z): (*batch, *latent) to (*batch, *event); int32 where y is whole numbers."""
        z, batch = checked("z", z, self.latent_shape, self.latent_support)
        y = self.bijector.forward(z, self.given(context, batch))
        return whole(y, self.support)

    def from_latents_and_log_det(self, z: Array, context: Any = None) -> tuple[Array, Array]:
        """The same, and log|det dy/dz|, (*batch)."""
        y, log_det, _ = self.pulled_back(z, context)
        return whole(y, self.support), log_det

    def trajectory(self, y: Array, context: Any = None) -> tuple[list[Array], list[Array]]:
        """y and what each layer makes of it on the way to the base; and what log_det each adds."""
        y, batch = checked("y", y, self.event_shape, self.support)
        context = self.given(context, batch)
        start, infinite = finite(y, len(self.event_shape))
        found = [(start, jnp.where(infinite, -jnp.inf, jnp.zeros(batch, y.dtype)))]
        for layer in layers(*self.bijector.unbind()):
            rngs = {"noise": self.make_rng("noise")} if self.has_rng("noise") else None
            given: Any = layer.variables, found[-1][0], context
            step = layer.bijector.apply(*given, method="inverse_and_log_det", rngs=rngs)
            found.append(step)  # type: ignore[arg-type]
        values, log_dets = zip(*found, strict=True)
        return [y, *values[1:]], list(log_dets)

    def pulled_back(self, z: Array, context: Any = None) -> tuple[Array, Array, Array]:
        """f(z), log|det df/dz| and log base(z): what densities of y are as densities of z."""
        z, batch = checked("z", z, self.latent_shape, self.latent_support)
        context = self.given(context, batch)
        with default_promotion():
            log_base = self._base(z.dtype, context).log_prob(z)
        y, log_det = self.bijector.forward_and_log_det(z, context)
        outside = beyond_a_turn(self.latent_support, z, self.latent_shape)
        return y, log_det, jnp.where(outside, -jnp.inf, log_base)

    def sample_latents(self, key: Array, shape: tuple[int, ...] = (), context: Any = None) -> Array:
        """Draws of the base, (*shape, *latent)."""
        with default_promotion():
            return self._base_sample(key, shape, self.given(context, shape))[1]

    def sample(
        self,
        key: Array,
        shape: tuple[int, ...] = (),
        context: Any = None,
        temperature: float | Array | None = 1.0,
    ) -> Array:
        """Draws (*shape, *event) given context (C,), (*shape, C), or (N, C) for shape (..., N).

        Contexts of other shapes likewise. `temperature` scales the spread of the base: of a
        mixture, that of each component. Below 1, samples are more typical and less diverse, and no
        longer follow p.

        Raises:
          ValueError: a temperature other than 1 for a base that has no narrower distribution.
        """
        context = self.given(context, shape)
        with default_promotion():
            _, x = self._base_sample(key, shape, context, as_temperature(temperature))
        return whole(self.bijector.forward(x, context), self.support)

    def sample_and_log_prob(
        self, key: Array, shape: tuple[int, ...] = (), context: Any = None
    ) -> tuple[Array, Array]:
        """Draws (*shape, *event) and their log p in one pass, (*shape).

        Where the inverse is random, that of `log_prob`, which takes another pass.
        """
        y, log_prob = self.sample_jointly(key, shape, context)
        if self.bijector.inverse_kind == "random":
            log_prob = self.log_prob(y, context)
        return y, log_prob

    def sample_jointly(
        self, key: Array, shape: tuple[int, ...] = (), context: Any = None
    ) -> tuple[Array, Array]:
        """Draws y and e, what a random inverse r(e | y) draws, with log p(y, e) - log r(e | y).

        That is log p(y) where nothing is drawn, and otherwise above it in the mean, so that what
        `fit_to_target` minimises is above KL(p || target).
        """
        context = self.given(context, shape)
        with default_promotion():
            base, x = self._base_sample(key, shape, context)
            log_prob = base.log_prob(x)
        y, log_det = self.bijector.forward_and_log_det(x, context)
        log_prob = jnp.where(jnp.isneginf(log_det), -jnp.inf, log_prob - log_det)
        return whole(y, self.support), log_prob

    def _to_base(self, y: Array, context: Any) -> tuple[Array, Array, Array | None]:
        y, batch = checked("y", y, self.event_shape, self.support)
        context = self.given(context, batch)
        y, infinite = finite(y, len(self.event_shape))
        x, log_det = self.bijector.inverse_and_log_det(y, context)
        return x, jnp.where(infinite, -jnp.inf, log_det), context

    def _base(self, dtype: DTypeLike, context: Array | None) -> Any:
        return build(self.base, self.latent_shape, dtype, context)

    def _base_sample(
        self,
        key: Array,
        shape: tuple[int, ...],
        context: Array | None,
        temperature: float | Array | None = None,
    ) -> tuple[Any, Array]:
        dtype = jax.dtypes.canonicalize_dtype(float)
        base = self._base(dtype, context)
        if temperature is not None:
            base = tempered(base, temperature)
        return base, draw(base, key, shape, self.latent_shape).astype(dtype)

    def given(self, context: Any, batch: tuple[int, ...]) -> Array | None:
        """What layers are given: a context standardised, encoded, and one for all or for each."""
        shapes = self.context_shape
        own = check_batch_of(shapes, context, batch)
        if shapes is None:
            return None
        context = each(lambda _, array: as_wide(array), shapes, context)
        if self.standardize_context:
            context = self.context_scale(context, own)
        return encoded(context, own, batch, self._context_ndims, self.encoder)


def zeros(flow: Flow, batch: tuple[int, ...] = (), dtype: DTypeLike = float) -> Array:
    """Zeros in the shape of events, and in a dtype that the flow takes: that, or int32."""
    dtype = jax.dtypes.canonicalize_dtype(dtype) if flow.integers is None else jnp.int32
    return jnp.zeros((*batch, *flow.event_shape), dtype)
