"""Autoregressive flows of images, row by row."""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jflow.bijectors.autoregressive import Jacobi, PositionByPosition
from jflow.nets.rows import RowNet

_ORDERS = ("down", "up", "right", "left")


class RowAutoregressive(PositionByPosition):
    """Transforms each row of an image, with parameters made of the rows above (MaCow's structure).

        inverse   x[i] = f^-1(y[i]; net(y[i - rows], ..., y[i - 1], context))

    inverse (likelihoods) is one pass; forward goes row by row, with all pixels of a row at once:
    height steps, not height times width. With order="up", "right" or "left", rows are counted from
    the bottom, or columns from either side. Four of them, one of each order, make a unit of MaCow.

    The log_det is the sum of the transformer's. Each layer starts at the identity.

    Attributes:
      transformer: the scalar transform f.
      net: makes the network, a `jflow.nets.RowNet`: it says how many rows a row sees.
      order: "down", "up", "right" or "left".
      solver: how forward is computed: None for row by row, or `Jacobi`.

    Raises:
      ValueError: an unknown order, or a transformer without parameters.
      TypeError: `net` is no `RowNet`.

    Reference: Ma et al., MaCow, 2019, https://arxiv.org/abs/1902.04208, whose kernels also see the
    pixels before in the same row
    """

    net: RowNet = RowNet()
    order: Literal["down", "up", "right", "left"] = "down"
    solver: Jacobi | None = None

    def __post_init__(self) -> None:
        if self.order not in _ORDERS:
            raise ValueError(
                f"RowAutoregressive: order must be one of {_ORDERS}; got {self.order!r}"
            )
        if not isinstance(self.net, RowNet):
            raise TypeError(
                "RowAutoregressive: net must be a RowNet, such as nets.RowNet(64, rows=2); got "
                f"{self.net!r}"
            )
        super().__post_init__()

    @property
    def _maker(self) -> RowNet:
        return self.net

    @nn.nowrap
    def _arranged(self, x: Array) -> tuple[Array, Callable[[Array], Array]]:
        columns, flips = self.order in ("right", "left"), self.order in ("up", "left")

        def back(y: Array) -> Array:
            y = jnp.flip(y, axis=-3) if flips else y
            return jnp.swapaxes(y, -3, -2) if columns else y

        x = jnp.swapaxes(x, -3, -2) if columns else x
        return jnp.flip(x, axis=-3) if flips else x, back
