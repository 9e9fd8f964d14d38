"""Gradients of potentials, whose divergence is known in closed form: those of OT-Flow."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jflow.functional.arguments import check_counts
from jflow.functional.arrays import align
from jflow.nets.layers import Dtypes, aligned_context


class Derivatives(NamedTuple):
    """Of a potential P(x, c), at a point.

    Attributes:
      gradient: by x, (*batch, D).
      laplacian: the sum of second derivatives by x, (*batch).
      by_context: the gradient by c, (*batch, C).
    """

    gradient: Array
    laplacian: Array
    by_context: Array


@dataclass(frozen=True)
class Potential(Dtypes):
    """Makes fields that are the gradient of a potential of x and the context c, such as time.

        P(s) = w . u_L(s) + |A s|^2 / 2 + b . s,    s = (x, c)
        u_1 = v(K_1 s + b_1),  u_l = u_l-1 + v(K_l u_l-1 + b_l),  v(a) = log(exp(a) + exp(-a))

    Paths of optimal transport follow such fields. The Laplacian, which is the trace of the field's
    Jacobian, is computed with the gradient, in one pass: `Continuous` with an `ExactTrace` takes
    it. w, the quadratic and the linear part start near zero, and so does the field.

    Attributes:
      width: of u.
      layers: L.
      rank: rows of A.
      dtype, param_dtype: see `Net`.

    Raises:
      ValueError: a number that is not positive.

    Reference: Onken et al., 2021, eqs. 10-17, https://arxiv.org/abs/2006.00104
    """

    makes: ClassVar[str] = "arrays"

    width: int = 64
    layers: int = 2
    rank: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts("Potential", width=self.width, layers=self.layers, rank=self.rank)

    def __call__(self, features: int) -> "PotentialField":
        """The field with that many outputs: as many as x has."""
        return PotentialField(features, self)


class PotentialField(nn.Module):
    """The gradient of a potential.

    Attributes:
      features: D.
      config: of the potential.
    """

    features: int
    config: Potential

    def __call__(self, x: Array, context: Array | None = None) -> Array:
        """Its gradient by x, (*batch, D)."""
        return self.derivatives(x, context).gradient

    @nn.compact
    def derivatives(self, x: Array, context: Array | None = None) -> Derivatives:
        """Its gradient and Laplacian; what is not used costs nothing under jit."""
        if x.shape[-1] != self.features:
            raise ValueError(
                f"Potential: a gradient has as many numbers as x, {x.shape[-1]}; asked were "
                f"{self.features}"
            )
        config = self.config
        dtype, param_dtype = config.of(x)
        s = x.astype(dtype)
        if context is not None:
            context = aligned_context(context, x.shape[:-1]).astype(dtype)
            context = jnp.broadcast_to(context, (*x.shape[:-1], context.shape[-1]))
            s = jnp.concatenate([s, context], axis=-1)

        def param(name: str, scale: float, *shape: int) -> Array:
            init = nn.initializers.normal(scale) if scale else nn.initializers.zeros
            return self.param(name, init, shape, param_dtype).astype(dtype)

        size, width = s.shape[-1], config.width
        first = param("kernel_0", size**-0.5, size, width)
        kernels = [
            param(f"kernel_{i}", 0.5 * width**-0.5, width, width) for i in range(1, config.layers)
        ]
        biases = [param(f"bias_{i}", 0.1, width) for i in range(config.layers)]
        out = param("last", 0.0, width)
        quadratic = param("quadratic", 0.1 * size**-0.5, config.rank, size)
        linear = param("linear", 0.0, size)
        gradient, laplacian = _of_network(s, self.features, first, kernels, biases, out)
        lifted = jnp.matmul(s, quadratic.T)
        gradient = gradient + jnp.matmul(lifted, quadratic) + align(linear, gradient)
        laplacian = laplacian + jnp.sum(jnp.square(quadratic[:, : self.features]))
        return Derivatives(
            gradient[..., : self.features], laplacian, gradient[..., self.features :]
        )


def _of_network(
    s: Array, features: int, first: Array, kernels: list[Array], biases: list[Array], out: Array
) -> tuple[Array, Array]:
    """The gradient of w . u_L by s, and its Laplacian by the first numbers of that."""
    reached = jnp.matmul(s, first)
    reached = reached + align(biases[0], reached)
    slopes, u = [jnp.tanh(reached)], jnp.logaddexp(reached, -reached)
    own = first[:features].T  # of what each unit takes, by x: (width, D)
    squares = [align(jnp.sum(jnp.square(own), axis=1), u)]
    jacobian = slopes[0][..., None] * align(own, slopes[0][..., None])
    for kernel, bias in zip(kernels, biases[1:], strict=True):
        reached = jnp.matmul(u, kernel)
        reached = reached + align(bias, reached)
        slopes.append(jnp.tanh(reached))
        moved = jnp.matmul(kernel.T, jacobian)
        squares.append(jnp.sum(jnp.square(moved), axis=-1))
        jacobian = jacobian + slopes[-1][..., None] * moved
        u = u + jnp.logaddexp(reached, -reached)
    z = jnp.broadcast_to(align(out, u), u.shape)
    laplacian = jnp.zeros(u.shape[:-1], u.dtype)
    for i in reversed(range(len(slopes))):
        laplacian = laplacian + jnp.sum((1 - jnp.square(slopes[i])) * z * squares[i], axis=-1)
        if i:
            z = z + jnp.matmul(slopes[i] * z, kernels[i - 1].T)
    return jnp.matmul(slopes[0] * z, first.T), laplacian
