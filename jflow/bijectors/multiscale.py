"""The multi-scale architecture of Real NVP and Glow."""

import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jflow.bijectors.base import Bijector, Direction, check_distinct, image
from jflow.bijectors.values import Method, run
from jflow.functional.arrays import as_wide, permute
from jflow.functional.supports import Supports, mixed


class MultiScale(Bijector):
    """Runs levels of bijectors, and after each sets half of the channels aside.

    From the data: the first level acts on the image, the second half of the channels of its
    result becomes latent, and the first half goes on to the next level, and so forth; the last
    level's result is latent whole. The latents of all levels are joined into one flat vector, as
    long as the image where no level adds numbers (`Augment`), the finest level first.

    This bijector only splits. A learned prior for the half set aside is the last coupling of
    its level, with mask "channel": it transforms that half, given the half that goes on.

    With split="likelihood", the channels set aside are those that contribute least to the
    log-likelihood, and those that contribute most go on to be transformed further. The contribution
    of channel c of a level's result x is the mean, over pixels and a batch of data, of

        -x_c^2 / 2 + log|(J e)_c|,     e standard normal, J the Jacobian of the level,

    whose second term is, up to a constant, an estimate of the logarithm of the length of row c of J
    (so their sum bounds log|det J| from above, and is equal to it for orthogonal rows). Channels
    are ranked at `init`, and again by every `apply(..., mutable=["constants"])` of inverse, which
    returns the new order in "constants": the paper ranks after a pre-training, then trains anew.

    Attributes:
      levels: one bijector each, the nearest to the data first. Each usually begins with
        `Squeeze`.
      image_shape: (height, width, channels) on the data side.
      split: which half is set aside: "half", the second, or "likelihood". A prior as above, which
        transforms the second half, fits "half" only.

    Raises:
      ValueError: no levels, an instance in two of them, or a level that cannot act on what the one
        before leaves it.

    References: Real NVP, section 3.6, https://arxiv.org/abs/1605.08803; "likelihood", Das, Abbeel
    and Spanos, 2019, https://arxiv.org/abs/1908.01686
    """

    levels: tuple[Bijector, ...]
    image_shape: tuple[int, ...]
    split: Literal["half", "likelihood"] = "half"

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))
        object.__setattr__(self, "image_shape", tuple(self.image_shape))
        if not self.levels:
            raise ValueError("MultiScale: levels must hold one bijector or more; got none")
        check_distinct("MultiScale", self.levels)
        if self.split not in ("half", "likelihood"):
            raise ValueError(
                f"MultiScale: split must be 'half' or 'likelihood'; got {self.split!r}"
            )
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._forward("forward_and_log_det", x, context)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._inverse("inverse_and_log_det", y, context)

    def forward(self, x: Array, context: Array | None = None) -> Array:
        return self._forward("forward", x, context)[0]

    def inverse(self, y: Array, context: Array | None = None) -> Array:
        return self._inverse("inverse", y, context)[0]

    def _forward(self, method: Method, x: Array, context: Array | None) -> tuple[Array, Array]:
        self.data_shape(x.shape[-1:])
        latents = self.latent_levels(as_wide(x))
        y, log_det = run(self.levels[-1], method, latents[-1], context)
        for i in range(len(self.levels) - 2, -1, -1):
            joined = jnp.concatenate([y, latents[i]], axis=-1)
            if self.split == "likelihood":
                joined = permute(joined, jnp.argsort(self._order(i, joined.shape[-1])))
            y, level_log_det = run(self.levels[i], method, joined, context)
            log_det = log_det + level_log_det
        return y, log_det

    def _inverse(self, method: Method, y: Array, context: Array | None) -> tuple[Array, Array]:
        self.latent_shape(y.shape[-3:])
        given = as_wide(y)
        kept, log_det = run(self.levels[0], method, given, context)
        latents = []
        for i, level in enumerate(self.levels[1:]):
            if self.split == "likelihood":
                kept = permute(kept, self._order(i, kept.shape[-1], given, context))
            kept, latent = jnp.split(kept, 2, axis=-1)
            given = kept
            latents.append(latent)
            kept, level_log_det = run(level, method, kept, context)
            log_det = log_det + level_log_det
        flat = [a.reshape(*y.shape[:-3], math.prod(a.shape[-3:])) for a in (*latents, kept)]
        return jnp.concatenate(flat, axis=-1), log_det

    @nn.compact
    def _order(
        self, i: int, channels: int, y: Array | None = None, context: Array | None = None
    ) -> Array:
        """The channels after level i, those that go on first; ranked on y where they may change."""
        ranks = self.is_mutable_collection("constants") and y is not None

        def order() -> Array:
            if y is None:
                return jnp.arange(channels, dtype=jnp.int32)
            return jnp.argsort(-_contributions(self.levels[i], y, context)).astype(jnp.int32)

        stored = self.variable("constants", f"order_{i}", order)
        if ranks and not self.is_initializing():
            stored.value = order()
        return stored.value

    @property
    def parts(self) -> tuple[Bijector, ...]:
        return self.levels

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        if tuple(event_shape) != self.image_shape:
            raise ValueError(
                f"MultiScale: built for images of {self.image_shape}; got {tuple(event_shape)}"
            )
        return (sum(math.prod(shape) for shape in self.level_shapes()),)

    @nn.nowrap
    def data_shape(self, latent_shape: tuple[int, ...]) -> tuple[int, ...]:
        own = self.latent_shape(self.image_shape)
        if tuple(latent_shape) != own:
            raise ValueError(f"MultiScale: latents have shape {own}; got {latent_shape}")
        return self.image_shape

    @nn.nowrap
    def level_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each level's latent, the finest first."""
        shapes, shape = [], self.image_shape
        for i, level in enumerate(self.levels, start=1):
            shape = level.latent_shape(shape)
            if i < len(self.levels):
                if shape[-1] % 2:
                    raise ValueError(
                        f"MultiScale: level {i} of {len(self.levels)} must leave an even number "
                        f"of channels to halve; got {shape}"
                    )
                shape = (*shape[:-1], shape[-1] // 2)
            shapes.append(shape)
        return tuple(shapes)

    @nn.nowrap
    def _support(
        self, direction: Direction, support: Supports, event_shape: tuple[int, ...]
    ) -> Supports:
        steps, shape = [], self.image_shape
        for level, latent in zip(self.levels, self.level_shapes(), strict=True):
            steps.append((level, shape))
            shape = latent
        here = start = mixed("MultiScale", support)
        if direction == "inverse":
            results = []
            for level, shape in steps:
                here = mixed("MultiScale", image(level, direction, here, shape))
                results.append(here)
            return mixed("MultiScale", tuple(results))
        for level, shape in reversed(steps):
            # Beside what comes from the level below, channels come from the base.
            joint = mixed("MultiScale", (here, start))
            here = mixed("MultiScale", image(level, direction, joint, shape))
        return here

    @nn.nowrap
    def latent_levels(self, x: Array) -> tuple[Array, ...]:
        latents, start = [], 0
        for shape in self.level_shapes():
            stop = start + math.prod(shape)
            latents.append(x[..., start:stop].reshape(*x.shape[:-1], *shape))
            start = stop
        return tuple(latents)


def _contributions(level: Bijector, y: Array, context: Array | None) -> Array:
    """Of each channel of level's result to the log-likelihood, (channels,), up to a constant."""
    module, variables = level.unbind()
    key = jax.random.key(0)
    rngs = {"noise": key}  # for estimates of log_det, which are not used here
    inverse = lambda y: module.apply(variables, y, context, method="inverse", rngs=rngs)  # noqa: E731
    noise = jax.random.normal(key, y.shape, y.dtype)
    x, moved = jax.jvp(inverse, (y,), (noise,))
    moved = jnp.maximum(jnp.abs(moved), jnp.finfo(x.dtype).tiny)
    return jnp.mean(jnp.log(moved) - jnp.square(x) / 2, axis=tuple(range(x.ndim - 1)))
