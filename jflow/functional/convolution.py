"""A 2-D convolution that is fast inside a compiled loop on CPU."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import Array, lax


def conv2d(x: Array, kernel: Array) -> Array:
    """Stride-1 convolution that keeps the image size, with zeros outside.

        result[n, i, j, f] = sum over a, b, c of x[n, i + a - h//2, j + b - w//2, c] kernel[a, b, c, f]

    x is (N, H, W, C), kernel (h, w, C, F) with odd h and w, the result (N, H, W, F).

    On GPU and TPU this is the native convolution. XLA:CPU runs the gradients of a native
    convolution 10 to 40 times slower inside a loop body (`lax.scan`) than outside, so there it
    is a matrix product of shifted patches, in both directions of differentiation. The patches
    are not stored for the backward pass: making them again is faster than reading them.
    """  # noqa: E501
    if kernel.shape[:2] == (1, 1):
        return matmul_last(x, kernel[0, 0])
    if _for_any_platform.get():
        return lax.platform_dependent(x, kernel, cpu=_conv_by_products, default=_native)
    return (_conv_by_products if jax.default_backend() == "cpu" else _native)(x, kernel)


_for_any_platform: ContextVar[bool] = ContextVar("for_any_platform", default=False)


@contextmanager
def for_any_platform() -> Iterator[None]:
    """Inside, programs are traced that may run on other platforms than this one's.

    Convolutions then become what is fast on the platform that a program is compiled for. (Not
    always so: in derivatives, both ways would be kept.)
    """
    token = _for_any_platform.set(True)
    try:
        yield
    finally:
        _for_any_platform.reset(token)


def matmul_last(x: Array, matrix: Array, *, precision: lax.PrecisionLike = None) -> Array:
    """x @ matrix over the last axis, with all other axes flattened into one.

    XLA:CPU differentiates the flattened product about three times faster than an N-d one.
    """
    flat = jnp.matmul(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), matrix, precision=precision)
    return flat.reshape(*x.shape[:-1], matrix.shape[-1])


def _native(x: Array, kernel: Array) -> Array:
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


@partial(jax.checkpoint, prevent_cse=False)
def _conv_by_products(x: Array, kernel: Array) -> Array:
    # Shifts act on the side with fewer channels: on x before the product or on its result after.
    # Reverse mode turns the one into patches of x and the other into patches of the cotangent.
    height, width, channels, features = kernel.shape
    shifts = [(i - height // 2, j - width // 2) for i in range(height) for j in range(width)]
    if channels <= features:
        patches = jnp.concatenate([shift(x, *by) for by in shifts], axis=-1)
        return matmul_last(patches, kernel.reshape(-1, features))
    terms = matmul_last(x, jnp.moveaxis(kernel, 2, 0).reshape(channels, -1))
    parts = jnp.split(terms, len(shifts), axis=-1)
    return reduce(jnp.add, [shift(part, *by) for part, by in zip(parts, shifts, strict=True)])


def shift(x: Array, down: int, right: int) -> Array:
    """result[:, i, j] = x[:, i + down, j + right], and zero outside."""
    zero = jnp.zeros((), x.dtype)
    return lax.pad(x, zero, ((0, 0, 0), (-down, down, 0), (-right, right, 0), (0, 0, 0)))
