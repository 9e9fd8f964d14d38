"""Fully connected networks."""

from dataclasses import dataclass

import flax.linen as nn
from jax import Array

from jflow.nets.layers import HIDDEN_GAIN, Dense, Net, aligned_context, checked_widths


@dataclass(frozen=True)
class MLP(Net):
    """Makes fully connected networks: (..., D) and context (..., C) to (..., features).

    The context is joined to the input. The last layer starts at zero.

    Attributes:
      hidden: the widths of the hidden layers.
      activation, dropout, dtype, param_dtype: see `Net`.

    Raises:
      ValueError: widths that are not positive.
    """

    hidden: tuple[int, ...] = (128, 128)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "hidden", checked_widths("MLP", self.hidden))

    def __call__(self, features: int) -> nn.Module:
        """The network with that many outputs."""
        return _MLP(features, self)


class _MLP(nn.Module):
    features: int
    config: MLP

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        config = self.config
        if context is not None:
            context = aligned_context(context, x.shape[:-1]).astype(x.dtype)
        for i, width in enumerate(config.hidden):
            layer = Dense(width, config, gain=HIDDEN_GAIN, name=f"hidden_{i}")
            x = layer(x, None if i else context)
            x = config.act(x)
            x = nn.Dropout(config.dropout, deterministic=not self.has_rng("dropout"))(x)
        return Dense(self.features, config, gain=0.0, name="last")(x)
