"""Equal bijectors in depth, as one loop."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jflow.bijectors.base import Bijector, Direction, image
from jflow.bijectors.chain import Chain
from jflow.bijectors.memory import Memory, check_memory, kept
from jflow.bijectors.reversible import run_reversible
from jflow.bijectors.values import Method, run, with_log_det
from jflow.functional.arrays import as_wide
from jflow.functional.sharding import gathered, in_parts
from jflow.functional.supports import Supports


class Repeat(Bijector):
    """`length` layers of one bijector, each with its own parameters, run by `lax.scan`.

    The parameters of all layers, and what layers keep in other collections or sow, are stacked
    along a leading axis of size `length`; layer 0 is the nearest to the data. Every stream of
    random numbers is split. Compile time does not grow with `length`. Data-dependent layers are
    initialised one after the other, each from what the layers before it give.

    Attributes:
      bijector: one layer; its event shape must be equal on both sides.
      length: how many layers.
      memory: what the backward pass needs of each layer is kept ("store"), or computed a second
        time from the layer's input ("remat": far less memory, the forward pass twice), or from its
        output, which only the last layer keeps ("reversible": memory does not grow with `length`).
        The latter is for layers whose both directions are closed forms; it has no forward mode.
        "remat:dots_saveable" keeps matrix products, too, and computes what is cheap a second time;
        "remat:dots_with_no_batch_dims_saveable" keeps those without batch dimensions.
      unroll: whether the layers are a `Chain`, each with parameters of its own names, in place of a
        loop over stacked ones. Compile time then grows with `length`. It is for per-example
        gradients, `jax.vmap` of `jax.grad`: of stacked parameters those of all examples and layers
        are in memory at once, and the norms of those of 8 spline couplings take 3 times as long.

    Raises:
      ValueError: `length` below 1, an unknown `memory`, `unroll` not True or False, or a layer that
        changes the event shape.
    """

    bijector: Bijector
    length: int
    memory: Memory = "store"
    unroll: bool = False

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"Repeat: length must be 1 or more; got {self.length}")
        if not isinstance(self.unroll, bool):
            raise ValueError(f"Repeat: unroll must be True or False; got {self.unroll!r}")
        check_memory("Repeat", self.memory, self.bijector)
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._scan("forward_and_log_det", x, context, reverse=True)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._scan("inverse_and_log_det", y, context, reverse=False)

    def forward(self, x: Array, context: Array | None = None) -> Array:
        return self._scan("forward", x, context, reverse=True)[0]

    def inverse(self, y: Array, context: Array | None = None) -> Array:
        return self._scan("inverse", y, context, reverse=False)[0]

    def _scan(
        self, method: Method, x: Array, context: Array | None, *, reverse: bool
    ) -> tuple[Array, Array]:
        if self.unroll:
            return run(self._chain(), method, x, context)
        if self.memory == "reversible" and not self.is_initializing():
            layers = self.length, reverse
            own = with_log_det(method)
            return run_reversible(self, self.bijector, own, as_wide(x), context, layers)

        def layer(bijector: Bijector, x: Array, context: Array | None) -> Any:
            return run(bijector, method, x, context)

        if in_parts() and not self.is_initializing():
            layer = nn.map_variables(layer, "params", trans_in_fn=gathered)
        loop = nn.scan(
            kept(self.memory, layer, prevent_cse=False),
            # All of them: what layers sow, and streams of their own, too.
            variable_axes={True: 0},
            split_rngs={True: True},
            in_axes=nn.broadcast,  # type: ignore[arg-type]  # flax declares ints only
            length=self.length,
            reverse=reverse,
        )
        x, log_dets = loop(self.bijector, as_wide(x), context)
        return x, jnp.sum(log_dets, axis=0)

    @nn.compact
    def _chain(self) -> Chain:
        layer = self.bijector.clone(parent=None, _deep_clone=True, _reset_names=True)
        layers = [layer, *(layer.clone(_deep_clone=True) for _ in range(self.length - 1))]
        return Chain(tuple(layers), self.memory, name="layers")

    @property
    def parts(self) -> tuple[Bijector, ...]:
        return (self.bijector,)

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        latent = self.bijector.latent_shape(event_shape)
        if latent != event_shape:
            raise ValueError(
                f"Repeat: a layer must keep the event shape; {type(self.bijector).__name__} "
                f"turns {event_shape} into {latent}"
            )
        return event_shape

    @nn.nowrap
    def _support(
        self, direction: Direction, support: Supports, event_shape: tuple[int, ...]
    ) -> Supports:
        for _ in range(self.length):
            before, support = support, image(self.bijector, direction, support, event_shape)
            if support == before:
                break
        return support
