"""Recursive couplings."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jflow.bijectors.base import Direction, OfTransformer
from jflow.functional.arguments import check_counts
from jflow.functional.arrays import as_wide, sum_event
from jflow.functional.supports import Support, Supports, entries, joined
from jflow.nets.layers import check_factory


class HINT(OfTransformer):
    """A coupling, applied again to each of its halves, and to their halves, and so forth.

    With R the whole, y = (a, b) two halves, and f the scalar transform:

        inverse   R(y) = (R(a), R(f^-1(b; net(a, context))))

    where R of a single feature, or below `depth`, does nothing. Each half has networks of its own.
    The Jacobian is block-triangular, so features depend on almost all others after one layer, and
    log_det is the sum of those of all couplings: exact, and closed form in both directions.

    Attributes:
      transformer: the scalar transform f.
      net: makes each network; see `Coupling`.
      depth: how many times halves are split, 1 for one coupling; None for down to single features.

    Raises:
      TypeError: `net` is a network, where what makes them is wanted, or makes other ones.
      ValueError: `depth` below 1, a transformer without parameters, or fewer than 2 features.

    Reference: Kruse et al., HINT, 2021, eqs. 8-11, https://arxiv.org/abs/1905.10687
    """

    net: Callable[[int], nn.Module]
    event_ndim = 1
    depth: int | None = None

    def __post_init__(self) -> None:
        check_factory("HINT", self.net, event_ndim=1)
        if self.depth is not None:
            check_counts("HINT", depth=self.depth)
        if self.transformer.num_params == 0:
            raise ValueError(
                f"HINT: {type(self.transformer).__name__} takes no parameters, so there is "
                "nothing to couple; use Elementwise"
            )
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._whole("forward", x, context)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._whole("inverse", y, context)

    @nn.compact
    def _whole(self, method: str, x: Array, context: Array | None) -> tuple[Array, Array]:
        x = as_wide(x)
        self.latent_shape(x.shape[-1:])
        depth = x.shape[-1] if self.depth is None else self.depth
        return self._recurse(method, x, context, depth, "")

    def _recurse(
        self, method: str, x: Array, context: Array | None, depth: int, place: str
    ) -> tuple[Array, Array]:
        size = x.shape[-1]
        if size < 2 or depth < 1:
            return x, jnp.zeros(x.shape[:-1], x.dtype)
        a, b = x[..., : size // 2], x[..., size // 2 :]
        coupled = jnp.zeros(x.shape[:-1], x.dtype)
        if method == "inverse":
            b, coupled = self._couple(method, a, b, context, place)
        moved_a, log_det_a = self._recurse(method, a, context, depth - 1, place + "a")
        b, log_det_b = self._recurse(method, b, context, depth - 1, place + "b")
        if method == "forward":
            b, coupled = self._couple(method, moved_a, b, context, place)
        return jnp.concatenate([moved_a, b], axis=-1), coupled + log_det_a + log_det_b

    def _couple(
        self, method: str, a: Array, b: Array, context: Array | None, place: str
    ) -> tuple[Array, Array]:
        count, num_params = b.shape[-1], self.transformer.num_params
        net = self.net(count * num_params).copy(name=f"conditioner_{place}".rstrip("_"))
        # Parameter by parameter, so that the transformer reads contiguous slices.
        params = net(a, context).astype(b.dtype).reshape(*b.shape[:-1], num_params, count)
        run = getattr(self.transformer, f"{method}_and_log_det")
        params = jnp.swapaxes(params, -1, -2)
        saturated = self.transformer.saturated(b, params)
        if saturated is not None:
            name = f"saturation_{place}".rstrip("_")
            self._report(**{name: lambda: jnp.mean(saturated, dtype=jnp.float32)})
        b, log_det = run(b, params)
        return b, sum_event(log_det, 1)

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        super().latent_shape(event_shape)
        if event_shape[0] < 2:
            raise ValueError(f"HINT: it takes 2 features or more; got {event_shape[0]}")
        return event_shape

    @nn.nowrap
    def _support(
        self, direction: Direction, support: Supports, event_shape: tuple[int, ...]
    ) -> Supports:
        size = event_shape[0]
        depth = size if self.depth is None else self.depth

        def whole(parts: tuple[Support, ...], depth: int) -> tuple[Support, ...]:
            half = len(parts) // 2
            if not half or depth < 1:
                return parts
            moved = tuple(self._transformed(direction, part) for part in parts[half:])
            return whole(parts[:half], depth - 1) + whole(moved, depth - 1)

        return joined(whole(entries(support, size), depth))
