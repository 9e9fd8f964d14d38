"""Products of Householder reflections, applied block by block."""

import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.linalg import solve_triangular

_BLOCK = 32
_EXACT = lax.Precision.HIGHEST


def reflect(vectors: Array, x: Array, *, inverse: bool = False) -> Array:
    """x Q, or x Q^T if `inverse`, of Q = H_1 H_2 ... H_K with H_k = I - 2 v_k v_k^T / |v_k|^2.

    A block of reflections is I - V^T T V, where V holds its unit vectors and T^-1 is upper
    triangular, with half of |v|^2 on the diagonal and the products V V^T above. So K reflections
    of N points of D numbers cost O(N D K), in matrix products, and Q is never formed. A zero vector
    reflects nothing.

    Args:
      vectors: (K, D), of any length.
      x: (N, D).
      inverse: whether to apply Q^T.
    """
    count, size = vectors.shape
    block = min(_BLOCK, count)
    padding = -count % block
    square = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    unit = vectors / jnp.sqrt(jnp.where(square > 0, square, 1))
    blocks = jnp.pad(unit, ((0, padding), (0, 0))).reshape(-1, block, size)

    def step(x: Array, v: Array) -> tuple[Array, None]:
        triangle = jnp.triu(_dot(v, v.T), 1) + 0.5 * jnp.eye(block, dtype=x.dtype)
        inner = solve_triangular(triangle, _dot(v, x.T), trans=0 if inverse else 1)
        return x - _dot(inner.T, v), None

    if len(blocks) == 1:
        return step(x, blocks[0])[0]
    return lax.scan(step, x, blocks, reverse=inverse)[0]


def _dot(x: Array, y: Array) -> Array:
    return jnp.matmul(x, y, precision=_EXACT)
