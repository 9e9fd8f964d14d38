"""Gradients of convolutions inside a loop: `conv2d` against XLA's own, on this backend.

python -m benchmarks.convolution
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from benchmarks.glow import native_conv2d
from benchmarks.timing import interleaved, print_table
from jflow.functional import conv2d

Convolution = Callable[[Array, Array], Array]
LAYERS = 8


def loss(convolution: Convolution, unrolled: bool, kernels: list[Array], x: Array) -> Array:
    """The squared output of LAYERS residual blocks of 3x3, 1x1 and 3x3 convolutions."""

    def block(x: Array, kernels: list[Array]) -> tuple[Array, None]:
        h = jax.nn.relu(convolution(x, kernels[0]))
        h = jax.nn.relu(convolution(h, kernels[1]))
        return x + 0.1 * convolution(h, kernels[2]), None

    if unrolled:
        for i in range(LAYERS):
            x, _ = block(x, [kernel[i] for kernel in kernels])
    else:
        x, _ = lax.scan(block, x, kernels)
    return jnp.sum(x**2)


def main() -> None:
    """Forward and gradient, for few and for many channels."""
    for channels, hidden in ((6, 128), (64, 64)):
        keys = jax.random.split(jax.random.key(0), 4)
        x = jax.random.normal(keys[0], (16, 16, 16, channels))
        shapes = [(3, 3, channels, hidden), (1, 1, hidden, hidden), (3, 3, hidden, channels)]
        kernels = [
            0.05 * jax.random.normal(key, (LAYERS, *shape))
            for key, shape in zip(keys[1:], shapes, strict=True)
        ]
        programs = {}
        for name, convolution, unrolled in (
            ("unrolled, native", native_conv2d, True),
            ("scanned, native", native_conv2d, False),
            ("scanned, conv2d", conv2d, False),
        ):
            function = partial(loss, convolution, unrolled)
            for what, f in (("loss", function), ("gradient", jax.grad(function, (0, 1)))):
                programs[f"{name}: {what}"] = partial(jax.jit(f), kernels, x)
        print(f"\n{LAYERS} blocks, 16x16x16, {channels} and {hidden} channels")
        print_table(interleaved(programs, rounds=7), against="scanned, conv2d: gradient")


if __name__ == "__main__":
    main()
