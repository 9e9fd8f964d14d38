"""Multilayer perceptrons and convolutional networks with a Lipschitz constant below 1."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from typing import Any

import flax.linen as nn
from jax import Array
from jax.tree_util import Partial

from jflow.functional.arrays import as_wide
from jflow.nets.contraction import Contraction, Network, affine
from jflow.nets.layers import checked_widths
from jflow.nets.lipschitz_layers import Norms


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
        kernels = tuple(self.kernels) if isinstance(self.kernels, Iterable) else ()
        odd = all(isinstance(k, Integral) and k > 0 and k % 2 == 1 for k in kernels)
        if not odd or len(kernels) != len(self.hidden) + 1:
            raise ValueError(
                "LipschitzConvNet: kernels must be odd sizes, one more than hidden; got "
                f"{self.kernels} with hidden {self.hidden}"
            )
        object.__setattr__(self, "kernels", tuple(int(k) for k in kernels))

    @property
    def lipschitz(self) -> float:
        return self.coefficient ** len(self.kernels)

    @property
    def event_ndim(self) -> int:
        return 3

    def __call__(self, features: int) -> nn.Module:
        kernels = tuple((k, k) for k in self.kernels)
        return _Stack(self, (*self.hidden, features), kernels, (2.0,) * (len(kernels) + 1))


class _Stack(Network):
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
            layers.append(self.layer(f"layer_{i}", width, kernel, (shape, x.dtype), norms))
            if i + 1 < len(self.widths):
                slopes.append(self.slope(i, x))
                width *= config.act.widening
            shape = (*shape[:-1], width)
        first = self.by_context(x, context, self.widths[0])
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


def _check_norms(owner: str, norms: tuple[float, ...], layers: int) -> None:
    if len(norms) != layers + 1 or norms[0] != norms[-1] or not all(p >= 1 for p in norms):
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
