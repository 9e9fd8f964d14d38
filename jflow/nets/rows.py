"""A network of the rows above each row of an image."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jflow.functional.arguments import check_counts
from jflow.functional.autoregressive import Causal, Step
from jflow.nets.functions import as_function, without_dropout
from jflow.nets.layers import Dense, Net, aligned_context


@dataclass(frozen=True)
class RowNet(Net):
    """Makes networks of the rows above: a (1 x width) convolution of their channels, and two 1x1.

    For `MaskedAutoregressive` on images, whose positions then are rows.

    Attributes:
      hidden: channels of both hidden layers.
      rows: how many rows above a row sees.
      width: of the kernel along a row, odd.
      activation, dropout, dtype, param_dtype: see `Net`.

    Raises:
      ValueError: sizes that do not fit.
    """

    makes: ClassVar[str] = "causal functions"

    hidden: int = 64
    rows: int = 2
    width: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts("RowNet", hidden=self.hidden, rows=self.rows, width=self.width)
        if self.width % 2 == 0:
            raise ValueError(f"RowNet: width must be odd; got {self.width}")

    @property
    def event_ndim(self) -> int:
        """How many axes an event has: those of an image."""
        return 3

    def __call__(self, outputs: int) -> nn.Module:
        """The network with that many outputs for each number of a row."""
        return _RowNet(outputs, self)


class _RowNet(nn.Module):
    outputs: int
    config: RowNet

    def __call__(self, x: Array, context: Array | None) -> "RowFunction":
        if context is not None:
            context = aligned_context(context, x.shape[:-3])
        above = jnp.concatenate([x] * self.config.rows, axis=-1)
        function = as_function(self, above, context, method="evaluate")
        return RowFunction(function, context, self.config.rows, self.outputs)

    @nn.compact
    def evaluate(self, above: Array, context: Array | None) -> Array:
        """What rows above make of a row: (*batch, height, width, channels, outputs)."""
        config = self.config
        h = Dense(config.hidden, config, (1, config.width), gain=2.0, name="first")(above)
        if context is not None:
            shift = Dense(config.hidden, config, gain=0.1, name="context")(context.astype(h.dtype))
            h = h + shift[..., None, None, :]
        drop = nn.Dropout(config.dropout, deterministic=not self.has_rng("dropout"))
        h = Dense(config.hidden, config, gain=2.0, name="middle")(drop(config.act(h)))
        channels = above.shape[-1] // config.rows
        h = Dense(channels * self.outputs, config, gain=0.0, name="last")(drop(config.act(h)))
        h = h.reshape(*h.shape[:-1], self.outputs, channels)
        return jnp.swapaxes(h, -1, -2).astype(above.dtype)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RowFunction(Causal):
    """A `RowNet` bound to its weights and its context; positions are rows.

    Attributes:
      function: of (*batch, height, width, rows * channels) and the context.
      context: (*batch, C), or (1, ..., 1, C) for all of a batch; or None.
      rows: how many above a row sees.
      outputs: numbers for each number of a row.
    """

    function: Partial
    context: Array | None
    rows: int = field(metadata={"static": True})
    outputs: int = field(metadata={"static": True})
    event_ndim = 3
    remembers = False

    def __call__(self, u: Array) -> Array:
        height = u.shape[-3]
        padded = jnp.pad(u, ((0, 0),) * (u.ndim - 3) + ((self.rows, 0), (0, 0), (0, 0)))
        above = [padded[..., i : i + height, :, :] for i in range(self.rows)]
        return self.function(jnp.concatenate(above, axis=-1), self.context)

    def without_dropout(self) -> "RowFunction":
        return replace(self, function=without_dropout(self.function))

    def start(self, like: Array) -> tuple[Any, Step]:
        def step(above: tuple[Array, ...], i: Array, before: Array) -> Any:
            above = (*above[1:], before)
            seen = jnp.concatenate(above, axis=-1)[..., None, :, :]
            return above, self.function(seen, self.context)[..., 0, :, :, :]

        return (jnp.zeros_like(like[..., 0, :, :]),) * self.rows, step
