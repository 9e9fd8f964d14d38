"""Networks whose layers are scaled and shifted by their context: those of FFJORD."""

from dataclasses import dataclass

import flax.linen as nn
import jax
from jax import Array

from jflow.nets.layers import HIDDEN_GAIN, Dense, Net, aligned_context, checked_widths


@dataclass(frozen=True)
class ConcatSquash(Net):
    """Makes networks whose context c, such as time, gates each layer.

        h_l = act((W_l h_l-1 + b_l) * sigmoid(U_l c + g_l) + V_l c)

    The last layer has no activation and starts at zero. Without context, it is an MLP.

    Attributes:
      hidden: the widths of the hidden layers.
      activation, dropout, dtype, param_dtype: see `Net`.

    Raises:
      ValueError: widths that are not positive.

    Reference: Grathwohl et al., 2019, appendix B.1, https://arxiv.org/abs/1810.01367
    """

    hidden: tuple[int, ...] = (64, 64)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "hidden", checked_widths("ConcatSquash", self.hidden))

    def __call__(self, features: int) -> nn.Module:
        """The network with that many outputs."""
        return _ConcatSquash(features, self)


class _ConcatSquash(nn.Module):
    features: int
    config: ConcatSquash

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        if context is not None:
            context = aligned_context(context, x.shape[:-1]).astype(x.dtype)
        for i, width in enumerate(self.config.hidden):
            x = self.config.act(self._layer(f"hidden_{i}", width, HIDDEN_GAIN, x, context))
            x = nn.Dropout(self.config.dropout, deterministic=not self.has_rng("dropout"))(x)
        return self._layer("last", self.features, 0.0, x, context)

    @nn.nowrap
    def _layer(self, name: str, width: int, gain: float, x: Array, context: Array | None) -> Array:
        y = Dense(width, self.config, gain=gain, name=name)(x)
        if context is None:
            return y
        gate = Dense(width, self.config, gain=HIDDEN_GAIN, name=f"{name}_gate")(context)
        shift = Dense(width, self.config, gain=gain, name=f"{name}_shift")(context)
        return y * jax.nn.sigmoid(gate) + shift
