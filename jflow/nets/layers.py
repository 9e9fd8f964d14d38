"""The linear layers of all networks, and how they take their context."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jflow.functional.arrays import wide_dtype
from jflow.functional.convolution import conv2d, matmul_last
from jflow.nets.activations import ACTIVATIONS, as_activation

# Variance of what each hidden layer of a vector network computes at first, for inputs of variance
# 1. So small, networks begin as smooth functions, which generalise better than those of He (2) do.
HIDDEN_GAIN = 1 / 3


@dataclass(frozen=True, kw_only=True)
class Dtypes:
    """In which dtypes a network computes and keeps its parameters.

    Attributes:
      dtype: of the computation; None for that of the input, but float32 or wider.
      param_dtype: of the parameters; None for that of the input, but float32 or wider.
    """

    dtype: DTypeLike | None = None
    param_dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        for name in ("dtype", "param_dtype"):
            dtype = getattr(self, name)
            if dtype is not None and not _is_floating(dtype):
                raise ValueError(
                    f"{type(self).__name__}: {name} must be a floating dtype such as 'bfloat16', "
                    f"or None; got {dtype!r}"
                )

    def of(self, x: Array) -> tuple[DTypeLike, DTypeLike]:
        """The two dtypes, given an input."""
        wide = wide_dtype(x.dtype)
        return self.dtype or wide, self.param_dtype or wide


# Networks that return what a layer wants.
_EXAMPLES = {
    "arrays": "nets.MLP((64, 64)) and, of tokens, nets.Transformer()",
    "causal functions": "nets.MADE((64, 64)) and nets.CausalTransformer()",
}


def check_factory(
    owner: str,
    net: object,
    name: str = "net",
    event_ndim: int | None = None,
    *,
    sequences: bool = False,
    makes: tuple[str, ...] = ("arrays",),
) -> None:
    """Refuses a network where what makes networks is wanted, and makers of other networks.

    Args:
      owner: whose argument it is.
      net: the factory; where it has `event_ndim`, its networks are of events of so many axes.
      name: of the argument.
      event_ndim: how many axes the owner's events have; None if that does not matter.
      sequences: whether the owner gives its networks contexts that are sequences.
      makes: what the owner's networks may return. A factory says it by an attribute of that name;
        one that has none is called, and what comes is seen then.

    Raises:
      TypeError: `net` is a network, which two layers given the same one would share, cannot be
        called, or makes networks that return something else.
      ValueError: its networks would take axes of a batch for those of an event, or of a context, or
        the reverse.
    """
    if isinstance(net, nn.Module) or not callable(net):
        got = f"a network, {type(net).__name__}" if isinstance(net, nn.Module) else repr(net)
        raise TypeError(
            f"{owner}: {name} must be a factory of networks, called with the number of outputs, "
            f"such as nets.MLP((64, 64)) or lambda outputs: MyNet(outputs); got {got}"
        )
    made = getattr(net, "makes", makes[0])
    if made not in makes:
        raise TypeError(
            f"{owner}: {name} must make networks that return {makes[0]}, as {_EXAMPLES[makes[0]]} "
            f"do, and those of the one that is given return {made}; got {net!r}"
        )
    own = getattr(net, "event_ndim", event_ndim)
    if event_ndim is not None and own != event_ndim:
        raise ValueError(
            f"{owner}: {name} makes networks of events of {own} axes, and those of this layer have "
            f"{event_ndim}; got {net!r}"
        )
    if context_ndim(net) == 2 and not sequences:
        raise ValueError(
            f"{owner}: {name} makes networks that attend to a context, which are for Coupling and "
            f"MaskedAutoregressive alone; give it context='add' or 'film'; got {net!r}"
        )


@dataclass(frozen=True, kw_only=True)
class Net(Dtypes):
    """What all hidden layers share.

    Attributes:
      makes: (of the class) what its networks return, of which layers want one kind: "arrays",
        "causal functions", "contractions" or "velocities".
      activation: the nonlinearity: "silu", "relu", "gelu", "elu", "tanh", "softplus", or a
        function, elementwise.
      dropout: the share of hidden values dropped in training, that is when the RNG stream
        "dropout" is given.
    """

    makes: ClassVar[str] = "arrays"

    activation: str | Callable[[Array], Array] = "relu"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        name = as_activation(type(self).__name__, self.activation)
        object.__setattr__(self, "activation", name)
        if not (isinstance(self.dropout, Real) and 0 <= self.dropout < 1):
            raise ValueError(
                f"{type(self).__name__}: dropout must be in [0, 1); got {self.dropout}"
            )

    @property
    def act(self) -> Callable[[Array], Array]:
        """The nonlinearity, as a function."""
        name = self.activation
        return ACTIVATIONS[name] if isinstance(name, str) else name


def _is_floating(dtype: DTypeLike) -> bool:
    try:
        return jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        return False


def checked_widths(owner: str, hidden: Iterable[int]) -> tuple[int, ...]:
    """The widths of hidden layers, as a tuple.

    Raises:
      ValueError: `hidden` is not a sequence of whole numbers, each 1 or more.
    """
    widths = tuple(hidden) if isinstance(hidden, Iterable) else None
    if widths is None or not all(isinstance(n, Integral) and n >= 1 for n in widths):
        raise ValueError(
            f"{owner}: hidden must be the widths of the hidden layers, such as (128, 128), each 1 "
            f"or more; got {hidden!r}"
        )
    return tuple(int(n) for n in widths)


class Dense(nn.Module):
    """A dense layer or a convolution with bias: x (..., [H, W,] C) to (..., [H, W,] features).

    Attributes:
      features: how many outputs.
      dtypes: of the computation and the parameters.
      kernel_size: () for a dense layer; (h, w), both odd, for a convolution that keeps the size.
      gain: variance of the outputs for inputs of variance 1; 0 starts the layer at zero.
    """

    features: int
    dtypes: Dtypes
    kernel_size: tuple[int, ...] = ()
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: Array, more: Array | None = None) -> Array:
        """Of x, to which `more` is joined: (*batch, C), or (1, ..., 1, C) for all of a batch."""
        dtype, param_dtype = self.dtypes.of(x)
        if more is not None and more.shape[:-1] == x.shape[:-1]:
            x, more = jnp.concatenate([x, more], axis=-1), None  # one product, which is faster
        inputs = x.shape[-1]
        joined = inputs if more is None else inputs + more.shape[-1]
        shape = (*self.kernel_size, joined, self.features)
        init = nn.initializers.zeros
        if self.gain:
            init = nn.initializers.variance_scaling(self.gain, "fan_in", "truncated_normal")
        kernel = self.param("kernel", init, shape, param_dtype).astype(dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), param_dtype)
        if more is None:
            y = self._product(x.astype(dtype), kernel)
        else:
            y = matmul_last(x.astype(dtype), kernel[:inputs])
            y = y + matmul_last(more.astype(dtype), kernel[inputs:])
        return y + bias.astype(dtype).reshape((1,) * (y.ndim - 1) + (-1,))

    def _product(self, x: Array, kernel: Array) -> Array:
        if not self.kernel_size:
            return matmul_last(x, kernel)
        y = conv2d(x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:]), kernel)
        return y.reshape(*x.shape[:-1], self.features)


def context_ndim(net: Any) -> int:
    """How many axes a context has, to what makes networks: 2 for sequences (S, C), 1 for others."""
    return getattr(net, "context_ndim", 1)


def aligned_context(context: Array, batch: tuple[int, ...], ndim: int = 1) -> Array:
    """context, (C,) or (*batch, C), as (1, ..., 1, C) or (*batch, C); or sequences (S, C) likewise.

    What is made of the one context of a whole batch then is made once, and broadcasts.

    Args:
      context: the array.
      batch: the batch shape of what it is the context of.
      ndim: how many axes one context has: 1 for vectors, 2 for sequences.

    Raises:
      ValueError: any other shape.
    """
    if context.ndim < ndim or context.shape[: context.ndim - ndim] not in ((), batch):
        one, each = ("(C,)", "(*batch, C)") if ndim == 1 else ("(S, C)", "(*batch, S, C)")
        raise ValueError(
            f"context must be {one} or {each} with batch shape {batch}; got {context.shape}"
        )
    return context.reshape((1,) * (len(batch) + ndim - context.ndim) + context.shape)


def context_of_pixels(context: Array, x: Array) -> Array:
    """context as it is added to images x (*batch, H, W, F): one vector, or one for each pixel.

    Of an image that is larger, the pixels of each block become channels, as a squeeze does it; of a
    smaller one, each pixel is repeated.

    Raises:
      ValueError: another shape, or a size that does not divide.
    """
    batch, size = x.shape[:-3], x.shape[-3:-1]
    if context.ndim != x.ndim:
        return aligned_context(context, batch)[..., None, None, :]
    for axis, wanted in zip((-3, -2), size, strict=True):
        own = context.shape[axis]
        if context.shape[:-3] != batch or max(own, wanted) % min(own, wanted):
            raise ValueError(
                f"context must be (*batch, height, width, C) with batch shape {batch} and a size "
                f"that {size} divides or is divided by; got {context.shape}"
            )
        if own < wanted:
            context = jnp.repeat(context, wanted // own, axis=axis)
    (*_, height, width, channels), (rows, columns) = context.shape, size
    blocks = (rows, height // rows, columns, width // columns, channels)
    context = jnp.moveaxis(context.reshape(*batch, *blocks), -4, -3)
    return context.reshape(*batch, *size, blocks[1] * blocks[3] * channels)
