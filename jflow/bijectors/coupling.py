"""Scalar transforms with parameters from the other part of the event."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jax import Array

from jflow.bijectors.base import Direction, OfTransformer
from jflow.bijectors.masks import freeze_mask, mask_event_ndim, partition
from jflow.functional.arrays import as_wide, sum_event
from jflow.functional.supports import Supports
from jflow.nets.layers import check_factory


class Coupling(OfTransformer):
    """Transforms one part of the event, with parameters that a network makes of the other.

    With x = (a, b), where the mask keeps a, and params = net(a, context):

        forward   y = (a, f(b; params))       log_det = sum log|df/db|
        inverse   x = (a, f^-1(b; params))    log_det = sum log|df^-1/db|

    `Coupling(Shift(), ...)` is NICE's additive coupling, `Coupling(Affine(), ...)` Real NVP's.
    Only b is transformed. For a mask along the last axis (vectors, channels) the network sees
    a alone, at each position; for a mask over positions (checkerboard) it sees the whole event with
    b set to zero, as in Real NVP.

    Attributes:
      transformer: the scalar transform f.
      net: makes the network, given how many features it must return at each position: see
        `jflow.nets`. Ending it in zeros makes this layer start at the identity.
      mask: "half" (keeps the first features // 2), "alternating" (keeps features 0, 2, ...),
        for images "channel" (keeps the first half of the channels) and "checkerboard"; each
        also with "_swapped". Or the mask itself, 1 where kept, as an array or nested tuple with
        the axes of the event, where those of size 1 broadcast: of 10 particles in space, (10, 1)
        keeps some particles, and (1, 3) some coordinates of each.

    Raises:
      TypeError: `net` is a network, where what makes them is wanted, or makes other ones.
      ValueError: an unknown mask, one that does not fit the event, or a transformer that takes
        no parameters.

    References: NICE, https://arxiv.org/abs/1410.8516; Real NVP, https://arxiv.org/abs/1605.08803
    """

    net: Callable[[int], nn.Module]
    mask: Any = "half"

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", freeze_mask(self.mask))
        check_factory("Coupling", self.net, event_ndim=mask_event_ndim(self.mask), sequences=True)
        if self.transformer.num_params == 0:
            raise ValueError(
                f"Coupling: {type(self.transformer).__name__} takes no parameters, so there is "
                "nothing to couple; use Elementwise"
            )
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._couple("forward_and_log_det", x, context)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._couple("inverse_and_log_det", y, context)

    @nn.compact
    def _couple(self, method: str, x: Array, context: Array | None) -> tuple[Array, Array]:
        x = as_wide(x)
        parts = partition(self.mask, x.shape[x.ndim - mask_event_ndim(self.mask) :])
        seen, moved = parts.split(x)
        num_params = self.transformer.num_params
        net = self.net(parts.outputs * num_params).copy(name="conditioner")
        params = parts.params(net(seen, context), num_params).astype(x.dtype)
        self._tell_saturation(moved, params)
        moved, log_det = getattr(self.transformer, method)(moved, params)
        return parts.merge(x, moved), sum_event(log_det, moved.ndim - (x.ndim - parts.event_ndim))

    @property
    def in_place(self) -> bool:
        return True

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        partition(self.mask, tuple(event_shape))
        return event_shape

    @nn.nowrap
    def _support(
        self, direction: Direction, support: Supports, event_shape: tuple[int, ...]
    ) -> Supports:
        parts = partition(self.mask, tuple(event_shape))
        return parts.support(support, lambda part: self._transformed(direction, part))
