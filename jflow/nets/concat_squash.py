"""Networks whose layers are scaled and shifted by their context: those of FFJORD."""

from dataclasses import dataclass

import flax.linen as nn
import jax
from jax import Array

from jflow.nets.layers import (
    HIDDEN_GAIN,
    Dense,
    Net,
    aligned_context,
    checked_widths,
    context_of_pixels,
)


@dataclass(frozen=True)
class ConcatSquash(Net):
    """Makes networks whose context c, such as time, gates each layer.

        h_l = act((W_l h_l-1 + b_l) * sigmoid(U_l c + g_l) + V_l c)

    The last layer has no activation and starts at zero. Without context, it is an MLP. With
    `kernel_size`, layers are convolutions that keep the size of images (..., H, W, C), and gates
    and shifts are of channels, or of pixels, if the context is an image, too.

    Attributes:
      hidden: the widths of the hidden layers.
      kernel_size: of convolutions, odd; None for layers of vectors.
      activation, dropout, dtype, param_dtype: see `Net`.

    Raises:
      ValueError: widths that are not positive, or a kernel of another size.

    Reference: Grathwohl et al., 2019, appendix B.1, https://arxiv.org/abs/1810.01367
    """

    hidden: tuple[int, ...] = (64, 64)
    kernel_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        size = self.kernel_size
        if size is not None and (isinstance(size, bool) or size not in range(1, 100, 2)):
            raise ValueError(
                f"ConcatSquash: kernel_size must be odd, such as 3, or None; got {size!r}"
            )
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
            if self.config.kernel_size is None:
                context = aligned_context(context, x.shape[:-1])
            else:
                context = context_of_pixels(context, x)
            context = context.astype(x.dtype)
        for i, width in enumerate(self.config.hidden):
            x = self.config.act(self._layer(f"hidden_{i}", width, HIDDEN_GAIN, x, context))
            x = nn.Dropout(self.config.dropout, deterministic=not self.has_rng("dropout"))(x)
        return self._layer("last", self.features, 0.0, x, context)

    @nn.nowrap
    def _layer(self, name: str, width: int, gain: float, x: Array, context: Array | None) -> Array:
        size = self.config.kernel_size
        kernel = () if size is None else (size, size)
        y = Dense(width, self.config, kernel, gain=gain, name=name)(x)
        if context is None:
            return y
        gate = Dense(width, self.config, gain=HIDDEN_GAIN, name=f"{name}_gate")(context)
        shift = Dense(width, self.config, gain=gain, name=f"{name}_shift")(context)
        return y * jax.nn.sigmoid(gate) + shift
