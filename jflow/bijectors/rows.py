"""Autoregressive flows of images, row by row."""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jflow.bijectors.base import OfTransformer
from jflow.functional.arguments import check_counts
from jflow.functional.arrays import as_wide, sum_event
from jflow.nets.layers import Linear, Net, aligned_context

_ORDERS = ("down", "up", "right", "left")


class RowAutoregressive(OfTransformer):
    """Transforms each row of an image, with parameters made of the rows above (MaCow's structure).

        inverse   x[i] = f^-1(y[i]; net(y[i - rows], ..., y[i - 1], context))

    where the network is a (1 x width) convolution over the channels of those rows, and two 1x1
    convolutions. inverse (likelihoods) is one pass; forward goes row by row, with all pixels of a
    row at once: height steps, not height times width. With order="up", "right" or "left", rows
    are counted from the bottom, or columns from either side. Four of them, one of each order, make
    a unit of MaCow.

    The log_det is the sum of the transformer's. Each layer starts at the identity.

    Attributes:
      transformer: the scalar transform f.
      hidden: channels of both hidden layers.
      rows: how many rows above a row sees.
      width: of the kernel along a row, odd.
      order: "down", "up", "right" or "left".
      net: activation and dtypes of the network; see `jflow.nets.layers.Net`.

    Raises:
      ValueError: sizes that do not fit, an unknown order, or a transformer without parameters.

    Reference: Ma et al., MaCow, 2019, https://arxiv.org/abs/1902.04208, whose kernels also see the
    pixels before in the same row
    """

    hidden: int = 64
    rows: int = 2
    width: int = 5
    order: Literal["down", "up", "right", "left"] = "down"
    net: Net = Net()

    def __post_init__(self) -> None:
        check_counts("RowAutoregressive", hidden=self.hidden, rows=self.rows, width=self.width)
        if self.width % 2 == 0:
            raise ValueError(f"RowAutoregressive: width must be odd; got {self.width}")
        if self.order not in _ORDERS:
            raise ValueError(
                f"RowAutoregressive: order must be one of {_ORDERS}; got {self.order!r}"
            )
        if self.transformer.num_params == 0:
            raise ValueError(
                f"RowAutoregressive: {type(self.transformer).__name__} takes no parameters, so "
                "there is nothing to make of other rows; use Elementwise"
            )
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._run("forward", x, context)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._run("inverse", y, context)

    @nn.compact
    def _run(self, method: str, x: Array, context: Array | None) -> tuple[Array, Array]:
        x = self._turned(as_wide(x))
        self.latent_shape(x.shape[x.ndim - 3 :])
        if context is not None:
            context = aligned_context(context, x.shape[:-3])
        net = _RowNet(x.shape[-1] * self.transformer.num_params, self, name="conditioner")
        run = self._inverse if method == "inverse" else self._forward
        y, log_det = run(net, x, context)
        return self._turned(y, back=True), log_det

    @nn.nowrap
    def _inverse(self, net: nn.Module, y: Array, context: Array | None) -> tuple[Array, Array]:
        height = y.shape[-3]
        padding = ((0, 0),) * (y.ndim - 3) + ((self.rows, 0), (0, 0), (0, 0))
        padded = jnp.pad(y, padding)
        above = [padded[..., i : i + height, :, :] for i in range(self.rows)]
        params = self._params(net, jnp.concatenate(above, axis=-1), context)
        self._tell_saturation(y, params)
        x, log_det = self.transformer.inverse_and_log_det(y, params)
        return x, sum_event(log_det, 3)

    @nn.nowrap
    def _forward(self, net: nn.Module, x: Array, context: Array | None) -> tuple[Array, Array]:
        def row(net: nn.Module, above: tuple[Array, ...], x: Array) -> Any:
            params = self._params(net, jnp.concatenate(above, axis=-1), context)
            y, log_det = self.transformer.forward_and_log_det(x, params)
            return (*above[1:], y), (y, sum_event(log_det, 3))

        rows = jnp.moveaxis(x[..., None, :, :], -4, 0)
        loop = nn.scan(row, variable_broadcast="params", split_rngs={"params": False})
        _, (y, log_dets) = loop(net, (jnp.zeros_like(rows[0]),) * self.rows, rows)
        return jnp.moveaxis(y[..., 0, :, :], 0, -3), jnp.sum(log_dets, axis=0)

    @nn.nowrap
    def _params(self, net: nn.Module, above: Array, context: Array | None) -> Array:
        outputs = net(above, context)
        count = self.transformer.num_params
        shape = (*outputs.shape[:-1], count, outputs.shape[-1] // count)
        return jnp.swapaxes(outputs.reshape(shape), -1, -2).astype(above.dtype)

    @nn.nowrap
    def _turned(self, x: Array, back: bool = False) -> Array:
        """x with its rows, or columns, from first to last downward."""
        columns, flips = self.order in ("right", "left"), self.order in ("up", "left")
        if flips and back:
            x = jnp.flip(x, axis=-3)
        if columns:
            x = jnp.swapaxes(x, -3, -2)
        return jnp.flip(x, axis=-3) if flips and not back else x

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        self._expect_event_ndim(event_shape, 3)
        return event_shape


class _RowNet(nn.Module):
    features: int
    config: RowAutoregressive

    @nn.compact
    def __call__(self, above: Array, context: Array | None) -> Array:
        config, net = self.config, self.config.net
        h = Linear(config.hidden, net, (1, config.width), gain=2.0, name="first")(above)
        if context is not None:
            shift = Linear(config.hidden, net, gain=0.1, name="context")(context.astype(h.dtype))
            h = h + shift[..., None, None, :]
        h = Linear(config.hidden, net, gain=2.0, name="middle")(net.act(h))
        return Linear(self.features, net, gain=0.0, name="last")(net.act(h))
