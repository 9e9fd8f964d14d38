"""Contractions: networks whose Lipschitz constant is below 1, for residual flows."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jflow.functional.arguments import check_counts
from jflow.functional.arrays import as_wide
from jflow.functional.convolution import conv2d, matmul_last
from jflow.nets.layers import Linear, Precision, broadcast_context, checked_widths
from jflow.nets.lipschitz_activations import ACTIVATIONS, LipschitzActivation
from jflow.nets.lipschitz_layers import LipschitzLinear, Norms


@dataclass(frozen=True, kw_only=True)
class Contraction:
    """Makes networks g with |g(x) - g(y)|_p <= lipschitz |x - y|_p, lipschitz below 1.

    Called with the number of outputs it gives a Flax module, which is called with x and context,
    for their shapes, and returns g: a function of x alone, and a pytree that holds its weights.
    Norms are bounded there, once, however often g is evaluated.

    Attributes:
      coefficient: what each layer's norm is at most, in (0, 1).
      activation: "lip_swish", "clip_swish" (twice as many weights), "sine", "elu" or "group_sort".
      iterations: of the power method in a training step, at most.

    Raises:
      ValueError: a coefficient outside of (0, 1), or an unknown activation.
    """

    coefficient: float = 0.98
    activation: str = "lip_swish"
    iterations: int = 5

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not 0 < self.coefficient < 1:
            raise ValueError(
                f"{name}: coefficient, the norm of a layer, must be in (0, 1), or the network does "
                f"not contract; got {self.coefficient}"
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"{name}: activation must be one of {', '.join(ACTIVATIONS)}; "
                f"got {self.activation!r}"
            )
        check_counts(name, iterations=self.iterations)

    @property
    @abstractmethod
    def lipschitz(self) -> float:
        """A bound on the Lipschitz constant of g."""

    @property
    def norm(self) -> float:
        """The p of the norm in which g contracts."""
        return 2.0

    @property
    def event_ndim(self) -> int:
        """How many trailing axes g acts on: 1 for vectors, 3 for images."""
        return 1

    @abstractmethod
    def __call__(self, features: int) -> nn.Module:
        """The network with that many outputs."""

    @property
    def act(self) -> LipschitzActivation:
        """The activation."""
        return ACTIVATIONS[self.activation]


@dataclass(frozen=True)
class LipschitzMLP(Contraction):
    """Makes contracting multilayer perceptrons of (..., D), given a context (..., C).

        g(x) = W_n a(... a(W_1 x + b_1 + context) ...) + b_n,     |W_i| <= coefficient

    Its Lipschitz constant is at most coefficient^n. With `norms` (p_0, ..., p_n), the norm of W_i
    is the one induced by |.|_p_i-1 and |.|_p_i, and p_0 = p_n. Norms with p_i-1 = 1 or p_i = inf
    have closed forms, and with both 2 power iterations converge; for others they may stop at a
    local maximum, below the norm, and the contraction is not certified.

    Attributes:
      hidden: the widths of the hidden layers.
      norms: see above; None for all 2.
      coefficient, activation, iterations: see `Contraction`.

    Raises:
      ValueError: norms that do not fit.

    Reference: Chen et al., 2019, sections 3.3 and D, https://arxiv.org/abs/1906.02735
    """

    hidden: tuple[int, ...] = (128, 128)
    norms: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "hidden", checked_widths("LipschitzMLP", self.hidden))
        if self.norms is not None:
            norms = tuple(float(p) for p in self.norms)
            object.__setattr__(self, "norms", norms)
            _check_norms("LipschitzMLP", norms, len(self.hidden) + 1)

    @property
    def lipschitz(self) -> float:
        return self.coefficient ** (len(self.hidden) + 1)

    @property
    def norm(self) -> float:
        return 2.0 if self.norms is None else self.norms[0]

    @property
    def certified(self) -> bool:
        """Whether every norm is found with certainty."""
        known = lambda p, q: p == 1 or math.isinf(q) or p == q == 2  # noqa: E731
        return self.norms is None or all(known(p, q) for p, q in pairwise(self.norms))

    def __call__(self, features: int) -> nn.Module:
        kernels = ((),) * (len(self.hidden) + 1)
        norms = self.norms or (2.0,) * (len(self.hidden) + 2)
        return _Stack(self, (*self.hidden, features), kernels, norms)


@dataclass(frozen=True)
class LipschitzConvNet(Contraction):
    """Makes contracting convolutional networks of images (..., H, W, C), given a context (..., C').

    Like `LipschitzMLP`, in norm 2, with convolutions that keep the size. Their norms are those of
    the operators on images of the size met at `init`, zeros outside included.

    Attributes:
      hidden: channels of the hidden layers.
      kernels: sizes of the convolutions, odd: one more than `hidden`.
      coefficient, activation, iterations: see `Contraction`.

    Raises:
      ValueError: sizes that do not fit.

    Reference: Behrmann et al., 2019, https://arxiv.org/abs/1811.00995
    """

    hidden: tuple[int, ...] = (64, 64)
    kernels: tuple[int, ...] = (3, 1, 3)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "hidden", checked_widths("LipschitzConvNet", self.hidden))
        object.__setattr__(self, "kernels", checked_widths("LipschitzConvNet", self.kernels))
        if len(self.kernels) != len(self.hidden) + 1 or any(k % 2 == 0 for k in self.kernels):
            raise ValueError(
                "LipschitzConvNet: kernels must be odd sizes, one more than hidden; got "
                f"{self.kernels} with hidden {self.hidden}"
            )

    @property
    def lipschitz(self) -> float:
        return self.coefficient ** len(self.kernels)

    @property
    def event_ndim(self) -> int:
        return 3

    def __call__(self, features: int) -> nn.Module:
        kernels = tuple((k, k) for k in self.kernels)
        return _Stack(self, (*self.hidden, features), kernels, (2.0,) * (len(kernels) + 1))


@dataclass(frozen=True)
class LipschitzDenseNet(Contraction):
    """Makes contracting DenseNets, of vectors or images: each layer's outputs join its inputs.

        h_0 = x,   h_i+1 = (a_i h_i, b_i act(W_i h_i + b)),   g(x) = W h_n,    a_i^2 + b_i^2 = 1

    a_i and b_i are positive and learned, so that each layer has Lipschitz constant at most 1, and
    g at most `coefficient`.

    Attributes:
      growth: outputs of a layer, before the activation.
      depth: n.
      kernel_size: of the convolutions of images, odd; None for vectors. The last is 1x1.
      coefficient, activation, iterations: see `Contraction`.

    Reference: Perugachi-Diaz, Tomczak, Bhulai, i-DenseNets, 2021, https://arxiv.org/abs/2102.02694
    """

    growth: int = 64
    depth: int = 3
    kernel_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts("LipschitzDenseNet", growth=self.growth, depth=self.depth)
        if self.kernel_size is not None and (self.kernel_size < 1 or self.kernel_size % 2 == 0):
            raise ValueError(
                f"LipschitzDenseNet: kernel_size must be odd, or None; got {self.kernel_size}"
            )

    @property
    def lipschitz(self) -> float:
        return self.coefficient

    @property
    def event_ndim(self) -> int:
        return 1 if self.kernel_size is None else 3

    def __call__(self, features: int) -> nn.Module:
        return _Dense(self, features)


class _Network(nn.Module):
    """What the modules share: layers by name."""

    config: Any

    def _layer(self, name: str, features: int, kernel: Any, shape: Any, norms: Norms) -> Any:
        return LipschitzLinear(features, norms, kernel, name=name)(*shape)

    def _slope(self, i: int, x: Array) -> Array | None:
        """The learned number of an activation: positive, at first 0.97 (softplus(0.5))."""
        if not self.config.act.has_slope:
            return None
        start = nn.initializers.constant(0.5)
        return jax.nn.softplus(self.param(f"slope_{i}", start, (), x.dtype))

    def _by_context(self, x: Array, context: Array | None, width: int) -> Array | None:
        """What the context adds to the first layer."""
        if context is None:
            return None
        event_ndim = self.config.event_ndim
        context = broadcast_context(context, x.shape[: x.ndim - event_ndim]).astype(x.dtype)
        shift = Linear(width, Precision(), gain=0.1, name="context")(context)
        return shift if event_ndim == 1 else shift[..., None, None, :]


class _Stack(_Network):
    widths: tuple[int, ...]
    kernels: tuple[Any, ...]
    norms: tuple[float, ...]

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Partial:
        x, config = as_wide(x), self.config
        shape = x.shape[x.ndim - config.event_ndim :]
        layers, slopes = [], []
        for i, (width, kernel) in enumerate(zip(self.widths, self.kernels, strict=True)):
            norms = Norms(config.coefficient, self.norms[i], self.norms[i + 1], config.iterations)
            layers.append(self._layer(f"layer_{i}", width, kernel, (shape, x.dtype), norms))
            if i + 1 < len(self.widths):
                slopes.append(self._slope(i, x))
                width *= config.act.widening
            shape = (*shape[:-1], width)
        first = self._by_context(x, context, self.widths[0])
        return Partial(self._evaluate, layers, slopes, first)

    @nn.nowrap
    def _evaluate(self, layers: Any, slopes: Any, first: Array | None, x: Array) -> Array:
        for i, layer in enumerate(layers):
            x = affine(x, *layer)
            if i == 0 and first is not None:
                x = x + first
            if i < len(slopes):
                x = self.config.act(x, slopes[i], self.norms[i + 1])
        return x


class _Dense(_Network):
    features: int

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Partial:
        x, config = as_wide(x), self.config
        shape = x.shape[x.ndim - config.event_ndim :]
        size = () if config.kernel_size is None else (config.kernel_size,) * 2
        norms = Norms(config.coefficient, iterations=config.iterations)
        layers, slopes, shares = [], [], []
        for i in range(config.depth):
            layers.append(
                self._layer(f"layer_{i}", config.growth, size, (shape, x.dtype), norms)
            )
            slopes.append(self._slope(i, x))
            shares.append(self.param(f"shares_{i}", nn.initializers.zeros, (2,), x.dtype))
            shape = (*shape[:-1], shape[-1] + config.growth * config.act.widening)
        last = (1, 1) if size else ()
        layers.append(self._layer("last", self.features, last, (shape, x.dtype), norms))
        first = self._by_context(x, context, config.growth)
        return Partial(self._evaluate, layers, slopes, shares, first)

    @nn.nowrap
    def _evaluate(
        self, layers: Any, slopes: Any, shares: Any, first: Array | None, x: Array
    ) -> Array:
        for i, (slope, share) in enumerate(zip(slopes, shares, strict=True)):
            new = affine(x, *layers[i])
            if i == 0 and first is not None:
                new = new + first
            new = self.config.act(new, slope)
            share = jax.nn.softplus(share)
            share = share / jnp.sqrt(jnp.sum(jnp.square(share)))
            x = jnp.concatenate([share[0] * x, share[1] * new], axis=-1)
        return affine(x, *layers[-1])


def affine(x: Array, kernel: Array, bias: Array) -> Array:
    """W x + b, for a dense kernel (C, F) or one of a convolution (h, w, C, F)."""
    if kernel.ndim == 2:
        y = matmul_last(x, kernel)
    else:
        flat = x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:])
        y = conv2d(flat, kernel).reshape(*x.shape[:-1], kernel.shape[-1])
    return y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)


def _check_norms(owner: str, norms: tuple[float, ...], layers: int) -> None:
    if len(norms) != layers + 1 or norms[0] != norms[-1] or min(norms) < 1:
        raise ValueError(
            f"{owner}: norms must be {layers + 1} numbers of 1 or more, one on each side of each "
            f"layer, the last equal to the first; got {norms}"
        )
    for p, q in pairwise(norms):
        if p != 1 and not math.isinf(q) and (q == 1 or math.isinf(p)):
            raise ValueError(
                f"{owner}: the norm from p = {p:g} to q = {q:g} is not computable (NP-hard); q = 1 "
                "needs p = 1, and p = inf needs q = inf"
            )
