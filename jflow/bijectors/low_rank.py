"""Planar, radial and Sylvester flows: the identity plus an update of low rank."""

import math
from abc import abstractmethod
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jflow.bijectors.base import Direction, DirectionKind
from jflow.bijectors.one_method import OneMethod
from jflow.functional import low_rank as lr
from jflow.functional.arguments import check_counts
from jflow.functional.arrays import as_wide
from jflow.functional.orthogonal import reflect
from jflow.functional.roots import tolerance
from jflow.nets.layers import Dense, Dtypes, aligned_context


class _LowRank(OneMethod):
    """What they share: free numbers, plus a linear function of the context where there is one."""

    event_ndim = 1

    @nn.compact
    def _run(self, method: Direction, x: Array, context: Array | None) -> tuple[Array, Array]:
        x = as_wide(x)
        self.latent_shape(x.shape[-1:])
        features, dtype = x.shape[-1], x.dtype
        init = lambda key: self._start(key, features, dtype)  # noqa: E731
        free = {k: v.astype(dtype) for k, v in self.param("numbers", init).items()}
        there, back = self._maps
        run = there if method == "forward" else back
        if context is None:
            return run(self._numbers(free, features), x)
        one_for_all = context.ndim == 1
        context = aligned_context(context, x.shape[:-1]).astype(dtype)

        def one(numbers: dict[str, Array], x: Array) -> tuple[Array, Array]:
            return run(self._numbers(numbers, features), x)

        batch, count = x.shape[:-1], math.prod(x.shape[:-1])
        moved = {}
        for name, value in free.items():
            linear = Dense(value.size, Dtypes(), gain=0.0, name=f"context_{name}")
            by_context = linear(context.reshape(-1, context.shape[-1]))
            moved[name] = value[None] + by_context.reshape(-1, *value.shape)
        if one_for_all:
            return one({name: value[0] for name, value in moved.items()}, x)
        y, log_det = jax.vmap(one)(moved, x.reshape(count, features))
        return y.reshape(x.shape), log_det.reshape(batch)

    @property
    @abstractmethod
    def _maps(self) -> tuple[lr.Map, lr.Map]:
        """The closed-form map, and its inverse."""

    @abstractmethod
    def _start(self, key: Array, features: int, dtype: Any) -> dict[str, Array]:
        """First values of the numbers."""

    @abstractmethod
    def _numbers(self, free: dict[str, Array], features: int) -> Any:
        """What the maps take."""

    @property
    def inverse_kind(self) -> DirectionKind:
        return "iterative"

    @property
    def tolerance(self) -> float:
        return tolerance(jnp.float32) if self.inverse_kind == "iterative" else 0.0


class Planar(_LowRank):
    """Planar flow: bends the space along one direction.

        y = z + u tanh(w z + b)          log|det| = log(1 + u w sech^2(w z + b))

    u is moved along w until u w > -1, so that the map is invertible. The inverse is one equation of
    one unknown, solved by iteration: samples and their log p are closed form. `Invert(Planar())`
    has closed-form likelihoods.

    w, u and b are free, plus linear functions of the context where there is one.

    Reference: Rezende and Mohamed, 2015, eqs. 10-13, https://arxiv.org/abs/1505.05770
    """

    @property
    def _maps(self) -> tuple[lr.Map, lr.Map]:
        return lr.planar, lr.planar_inverse

    def _start(self, key: Array, features: int, dtype: Any) -> dict[str, Array]:
        keys = jax.random.split(key)
        w, u = (jax.random.normal(k, (features,), dtype) / math.sqrt(features) for k in keys)
        return {"w": w, "u": 0.1 * u, "b": jnp.zeros((), dtype)}

    def _numbers(self, free: dict[str, Array], features: int) -> lr.Planar:
        return lr.Planar(**free)


class Radial(_LowRank):
    """Radial flow: contracts or expands around a centre c.

        y = z + k a (z - c) / (a + |z - c|)      a > 0,  k > -1

        log|det| = (D - 1) log(1 + k a h) + log(1 + k a^2 h^2),   h = 1 / (a + |z - c|)

    Both directions are closed form (the inverse is a root of a quadratic equation). The numbers
    are free, plus linear functions of the context where there is one.

    Reference: Rezende and Mohamed, 2015, eq. 14, https://arxiv.org/abs/1505.05770
    """

    @property
    def _maps(self) -> tuple[lr.Map, lr.Map]:
        return lr.radial, lr.radial_inverse

    @property
    def inverse_kind(self) -> DirectionKind:
        return "closed form"

    def _start(self, key: Array, features: int, dtype: Any) -> dict[str, Array]:
        centre = jax.random.normal(key, (features,), dtype)
        return {"centre": centre, "a": jnp.zeros((), dtype), "k": jnp.zeros((), dtype)}

    def _numbers(self, free: dict[str, Array], features: int) -> lr.Radial:
        return lr.Radial(**free)


class Sylvester(_LowRank):
    """Sylvester flow: planar flows along `rank` orthogonal directions at once.

        y = z + Q R tanh(S Q^T z + b)    log|det| = sum_i log(1 + r_ii s_ii sech^2(a_i))

    with a = S Q^T z + b, R and S upper triangular and r_ii s_ii > -1. The inverse solves `rank`
    equations, each of one unknown, one after the other. All numbers are free, plus linear
    functions of the context where there is one.

    Attributes:
      rank: M, the columns of Q; at most D.
      basis: how Q is made orthogonal: "qr", by a QR decomposition, or "householder", the product
        of M reflections.

    Raises:
      ValueError: an unknown `basis`, or a `rank` below 1 or above D.

    Reference: van den Berg et al., 2018, https://arxiv.org/abs/1803.05649
    """

    rank: int = 8
    basis: Literal["qr", "householder"] = "qr"

    def __post_init__(self) -> None:
        check_counts("Sylvester", rank=self.rank)
        if self.basis not in ("qr", "householder"):
            raise ValueError(f"Sylvester: basis must be 'qr' or 'householder'; got {self.basis!r}")
        super().__post_init__()

    @property
    def _maps(self) -> tuple[lr.Map, lr.Map]:
        return lr.sylvester, lr.sylvester_inverse

    def _start(self, key: Array, features: int, dtype: Any) -> dict[str, Array]:
        keys, m = jax.random.split(key, 3), self.rank
        zeros = jnp.zeros((m,), dtype)
        return {
            "basis": jax.random.normal(keys[0], (m, features), dtype),
            "upper": 0.1 / math.sqrt(m) * jax.random.normal(keys[1], (m, m), dtype),
            "inner": 1 / math.sqrt(m) * jax.random.normal(keys[2], (m, m), dtype),
            "slopes": zeros,
            "rates": zeros,
            "b": zeros,
        }

    def _numbers(self, free: dict[str, Array], features: int) -> lr.Sylvester:
        vectors = free["basis"]
        if self.basis == "qr":
            rows = jnp.linalg.qr(vectors.T)[0].T
        else:
            rows = reflect(vectors, jnp.eye(self.rank, features, dtype=vectors.dtype))
        return lr.Sylvester(**{**free, "basis": rows})

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        super().latent_shape(event_shape)
        if self.rank > event_shape[0]:
            raise ValueError(
                f"Sylvester: rank must be at most the number of features, {event_shape[0]}; got "
                f"{self.rank}"
            )
        return event_shape


class ConvFlow(_LowRank):
    """Convolutional flow of vectors: bends each number by a convolution of it and of later ones.

        y_i = x_i + u_i tanh(a_i),   a_i = sum_k w_k x_i+k d + b_i     (x beyond the end is zero)

        log|det| = sum_i log(1 + u_i w_0 sech^2(a_i)),   u_i w_0 > -1

    Unlike in `Planar`, every number is bent, with few parameters. The inverse goes from the
    last numbers back, `dilation` of them at once: the structure needs features / dilation steps.

    Attributes:
      kernel_size: taps, 2 or more.
      dilation: d.

    Raises:
      ValueError: sizes that do not fit.

    Reference: Zheng et al., 2017, https://arxiv.org/abs/1711.02255
    """

    kernel_size: int = 3
    dilation: int = 1

    def __post_init__(self) -> None:
        check_counts("ConvFlow", kernel_size=self.kernel_size, dilation=self.dilation)
        if self.kernel_size < 2:
            raise ValueError(f"ConvFlow: kernel_size must be 2 or more; got {self.kernel_size}")
        super().__post_init__()

    @property
    def _maps(self) -> tuple[lr.Map, lr.Map]:
        return (
            lambda p, x: lr.conv_flow(p, self.dilation, x),
            lambda p, y: lr.conv_flow_inverse(p, self.dilation, y),
        )

    def _start(self, key: Array, features: int, dtype: Any) -> dict[str, Array]:
        keys = jax.random.split(key)
        w = jax.random.normal(keys[0], (self.kernel_size - 1,), dtype)
        slopes = 0.1 * jax.random.normal(keys[1], (features,), dtype)
        zeros = jnp.zeros((features,), dtype)
        return {"log_w": jnp.zeros((), dtype), "w": w, "slopes": slopes, "b": zeros}

    def _numbers(self, free: dict[str, Array], features: int) -> lr.ConvFlow:
        return lr.ConvFlow(**free)

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        super().latent_shape(event_shape)
        if self.dilation * (self.kernel_size - 1) >= event_shape[0]:
            raise ValueError(
                f"ConvFlow: kernel_size {self.kernel_size} with dilation {self.dilation} reaches "
                f"beyond {event_shape[0]} features; take smaller ones"
            )
        return event_shape
