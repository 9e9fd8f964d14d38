"""Traces of matrices known by their products with vectors alone."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.linalg import solve_triangular

from jflow.functional.arguments import as_key, check_counts
from jflow.functional.arrays import align, as_wide, batch_shape, sum_event

# v (*batch, *event) to A v, or to v^T A, of one matrix A for each element of the batch.
Product: TypeAlias = Callable[[Array], Array]
Distribution: TypeAlias = Literal["rademacher", "gaussian", "spherical"]
_DISTRIBUTIONS = ("rademacher", "gaussian", "spherical")
# So many products are written out: XLA:CPU differentiates them twice as fast as mapped ones.
FEW = 4


class Estimated(NamedTuple):
    """A random estimate.

    Attributes:
      mean: of the replicates.
      standard_error: their standard deviation / sqrt(their number); NaN of a single one.
    """

    mean: Array
    standard_error: Array


def mean_and_error(replicates: Array) -> Estimated:
    """Of independent estimates along the first axis."""
    count = replicates.shape[0]
    mean = jnp.mean(replicates, axis=0)
    if count == 1:
        return Estimated(mean, jnp.full_like(mean, jnp.nan))
    return Estimated(mean, jnp.std(replicates, axis=0, ddof=1) / math.sqrt(count))


def check_distribution(owner: str, distribution: Any) -> None:
    """Refuses names that are none of a distribution of probes."""
    if distribution not in _DISTRIBUTIONS:
        raise ValueError(
            f"{owner}: distribution must be one of {_DISTRIBUTIONS}; got {distribution!r}"
        )


def draw_probes(key: Array, like: Array, distribution: Distribution, event_ndim: int) -> Array:
    """A random v like `like`, with E[v v^T] = I over the event.

    "rademacher" is +-1, "gaussian" standard normal, and "spherical" uniform on the sphere of
    radius sqrt(D). Of symmetric matrices, Rademacher probes have the smallest variance: the
    diagonal does not count.

    Raises:
      ValueError: an unknown distribution.
    """
    check_distribution("draw_probes", distribution)
    if distribution == "rademacher":
        return jax.random.rademacher(key, like.shape, like.dtype)
    v = jax.random.normal(key, like.shape, like.dtype)
    if distribution == "gaussian":
        return v
    square = jnp.sum(jnp.square(v), axis=tuple(range(-event_ndim, 0)), keepdims=True)
    size = math.prod(like.shape[like.ndim - event_ndim :])
    return v * jnp.sqrt(size / jnp.maximum(square, jnp.finfo(v.dtype).tiny))


def hutchinson(
    product: Product,
    like: Array,
    key: Array | int,
    *,
    probes: int = 1,
    distribution: Distribution = "rademacher",
    event_ndim: int = 1,
) -> Estimated:
    """tr A by the mean of v^T A v over random probes v: unbiased, one product for each probe.

    Its variance is 2 ||S||_F^2 for Gaussian probes and 2 (||S||_F^2 - sum_i A_ii^2) for Rademacher
    ones, divided by the number of probes, with S = (A + A^T) / 2. It is always finite.

    Args:
      product: v (*batch, *event) to A v or v^T A.
      like: an array of v's shape and dtype.
      key: a JAX random key or a whole number.
      probes: how many, evaluated at once (`jax.vmap`).
      distribution: of the probes, see `draw_probes`: "rademacher", "gaussian" or "spherical".
      event_ndim: how many trailing axes A acts on.

    Returns:
      The trace and its standard error over probes, (*batch).

    Reference: Hutchinson, 1990, https://doi.org/10.1080/03610919008812866
    """
    check_counts("hutchinson", probes=probes)
    v = _draw(as_key("hutchinson", key), probes, like, distribution, event_ndim)
    return mean_and_error(sum_event(v * jax.vmap(product)(v), event_ndim))


def exact_trace(product: Product, like: Array, event_ndim: int = 1) -> Array:
    """tr A by D products, one for each element of the event, all at once: (*batch)."""
    basis = standard_basis(like, event_ndim)
    if len(basis) <= FEW:
        parts = (sum_event(vector * product(vector), event_ndim) for vector in basis)
        return sum(parts, jnp.zeros((), like.dtype))
    return jnp.sum(sum_event(basis * jax.vmap(product)(basis), event_ndim), axis=0)


def standard_basis(like: Array, event_ndim: int) -> Array:
    """The unit vectors of the event, for each element of the batch: (D, *batch, *event)."""
    event = like.shape[like.ndim - event_ndim :]
    size, batch = math.prod(event), batch_shape(like, event_ndim)
    unit = jnp.eye(size, dtype=like.dtype).reshape(size, *(1,) * len(batch), *event)
    return jnp.broadcast_to(unit, (size, *batch, *event))


def hutch_pp(
    product: Product,
    like: Array,
    key: Array | int,
    *,
    products: int,
    distribution: Distribution = "rademacher",
    event_ndim: int = 1,
) -> Estimated:
    """tr A by Hutch++: exactly on a sketch of A's range, and by Hutchinson's estimator off it.

        tr(Q^T A Q) + mean of g^T (I - Q Q^T) A (I - Q Q^T) g,     Q an orthonormal basis of A S

    A third of the products goes to each of A S, A Q and the probes g; the sketch S is of
    Rademacher probes. It is unbiased. Where A's singular values decay fast it needs far fewer
    products than Hutchinson's estimator, and otherwise somewhat more. With D products or more, the
    trace is exact, and has no error. The standard error is that of the probes, given the sketch.

    Args:
      product: v (*batch, *event) to A v.
      like: an array of v's shape and dtype.
      key: a JAX random key or a whole number.
      products: how many in all, 3 or more.
      distribution: of the probes g.
      event_ndim: how many trailing axes A acts on.

    Reference: Meyer et al., 2021, algorithm 1, https://arxiv.org/abs/2010.09649
    """
    check_counts("hutch_pp", products=products)
    if products < 3:
        raise ValueError(f"hutch_pp: products must be 3 or more; got {products}")
    if products >= math.prod(like.shape[like.ndim - event_ndim :]):
        return _without_error(exact_trace(product, like, event_ndim))
    sketch, count = products // 3, products - 2 * (products // 3)
    apply = _on_columns(product, like, event_ndim)
    first, second = jax.random.split(as_key("hutch_pp", key))
    vectors = _draw(first, sketch, like, "rademacher", event_ndim)
    basis = _orthonormal(apply(_columns(vectors, event_ndim)))
    g = _columns(_draw(second, count, like, distribution, event_ndim), event_ndim)
    off = g - basis @ (basis.mT @ g)
    rest = mean_and_error(jnp.moveaxis(jnp.sum(off * apply(off), axis=-2), -1, 0))
    seen = jnp.sum(basis * apply(basis), axis=(-2, -1))
    return Estimated(seen + rest.mean, rest.standard_error)


def xtrace(
    product: Product, like: Array, key: Array | int, *, products: int, event_ndim: int = 1
) -> Estimated:
    """tr A by XTrace: Hutch++ with every vector used for the sketch and as a probe.

    Each of the k = products / 2 vectors w_i is a probe for the sketch made of the others; the
    result is the mean of the k estimates

        tr(Q_i^T A Q_i) + w_i^T P A P w_i c_i,    P = I - Q_i Q_i^T,   Q_i a basis of A W without w_i

    with c_i = (D - k + 1) / |P w_i|^2, for w_i uniform on the sphere. It is unbiased, and better
    than Hutch++ at an equal number of products. With D products or more, the trace is exact.

    The standard error is that of the k estimates as if they were independent, which they are not:
    it is a heuristic (section 2.3 of the paper), and may be too small when k is.

    Args:
      product: v (*batch, *event) to A v.
      like: an array of v's shape and dtype.
      key: a JAX random key or a whole number.
      products: how many in all, 2 or more; an odd one is left out.
      event_ndim: how many trailing axes A acts on.

    Reference: Epperly, Tropp, Webber, 2024, https://arxiv.org/abs/2301.07825
    """  # noqa: E501
    check_counts("xtrace", products=products)
    if products < 2:
        raise ValueError(f"xtrace: products must be 2 or more; got {products}")
    size, k = math.prod(like.shape[like.ndim - event_ndim :]), products // 2
    if products >= size:
        return _without_error(exact_trace(product, like, event_ndim))
    apply = _on_columns(product, like, event_ndim)
    w = _columns(_draw(as_key("xtrace", key), k, like, "spherical", event_ndim), event_ndim)
    seen = apply(w)
    basis, left_out = _leave_one_out(seen)
    moved = apply(basis)
    inside = basis.mT @ moved
    traces = jnp.trace(inside, axis1=-2, axis2=-1)[..., None] - jnp.sum(
        left_out * (inside @ left_out), axis=-2
    )
    # P w_i = w_i - Q (I - s s^T) Q^T w_i, and A P w_i by linearity, without further products.
    shares = basis.mT @ w
    shares = shares - left_out * jnp.sum(left_out * shares, axis=-2, keepdims=True)
    off, moved_off = w - basis @ shares, seen - moved @ shares
    tiny = jnp.finfo(w.dtype).tiny
    scale = (size - k + 1) / jnp.maximum(jnp.sum(jnp.square(off), axis=-2), tiny)
    estimates = traces + scale * jnp.sum(off * moved_off, axis=-2)
    return mean_and_error(jnp.moveaxis(estimates, -1, 0))


def _without_error(trace: Array) -> Estimated:
    return Estimated(trace, jnp.zeros_like(trace))


def _draw(
    key: Array, count: int, like: Array, distribution: Distribution, event_ndim: int
) -> Array:
    """Probes (count, *batch, *event). Written out, hundreds would take minutes to compile."""
    draw = lambda key: draw_probes(key, like, distribution, event_ndim)  # noqa: E731
    return jax.vmap(draw)(jax.random.split(key, count))


def _columns(vectors: Array, event_ndim: int) -> Array:
    """Vectors (count, *batch, *event) as the columns of matrices, (*batch, D, count)."""
    size = math.prod(vectors.shape[vectors.ndim - event_ndim :])
    flat = vectors.reshape(*batch_shape(vectors, event_ndim), size)
    return as_wide(jnp.moveaxis(flat, 0, -1))


def _on_columns(product: Product, like: Array, event_ndim: int) -> Product:
    """The product with all columns of matrices (*batch, D, count) at once."""

    def apply(columns: Array) -> Array:
        stacked = jnp.moveaxis(columns, -1, 0)
        moved = jax.vmap(product)(stacked.reshape(len(stacked), *like.shape).astype(like.dtype))
        return jnp.moveaxis(as_wide(moved).reshape(stacked.shape), 0, -1)

    return apply


def _orthonormal(columns: Array) -> Array:
    """An orthonormal basis of at least their span. Constant: any basis gives unbiased gradients."""
    return jnp.linalg.qr(lax.stop_gradient(columns))[0]


def _leave_one_out(columns: Array) -> tuple[Array, Array]:
    """Q, and unit vectors s_i: Q (I - s_i s_i^T) Q^T projects onto all columns but column i.

    Column i of R^-T is orthogonal to the other columns of R; where R is singular, any unit vector
    serves, because then nothing of A is left off Q.
    """
    basis, upper = jnp.linalg.qr(lax.stop_gradient(columns))
    eye = align(jnp.eye(upper.shape[-1]), upper)
    diagonal = jnp.diagonal(upper, axis1=-2, axis2=-1)
    largest = jnp.max(jnp.abs(diagonal), axis=-1, keepdims=True)
    small = jnp.finfo(upper.dtype).eps * jnp.where(largest > 0, largest, 1)
    lift = jnp.where(jnp.abs(diagonal) < small, small - diagonal, 0)
    upper = upper + lift[..., None] * eye
    # R = scale U, with U's diagonal 1: R^-T has the rows of U^-T / scale, up to one factor here.
    scale = jnp.diagonal(upper, axis1=-2, axis2=-1)[..., None]
    rows = solve_triangular((upper / scale).mT, jnp.broadcast_to(eye, upper.shape), lower=True)
    left_out = rows * (small[..., None] / scale)
    length = jnp.sqrt(jnp.sum(jnp.square(left_out), axis=-2, keepdims=True))
    left_out = left_out / jnp.maximum(length, jnp.finfo(upper.dtype).tiny)
    return basis, jnp.where(jnp.isfinite(left_out), left_out, 0)
