"""Noise that was added to data, taken away from samples: by the slope of log p."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jflow.distributions.arguments import arrays
from jflow.distributions.density import Density
from jflow.distributions.flow import Flow
from jflow.functional.arguments import as_key, check_numbers
from jflow.functional.arrays import as_wide


def denoise(
    density: Density,
    y: ArrayLike,
    noise: float,
    context: Any = None,
    *,
    key: Array | int | None = None,
) -> Array:
    """The mean of clean data given noisy y = clean + noise * (a standard normal): (*batch, *event).

        E[clean | y] = y + noise^2 grad log p(y)

    where p is the density of *noisy* data: of a flow fitted with
    `augment=partial(data.add_noise, scale=noise)`, whose support is the line (of images,
    `alpha=None`, without a logit). Such densities are easier to learn than those of
    clean data that lie near a surface. What is drawn by

        denoise(density, density.sample(key, n), noise)

    has another law than p, whose density is not known; log p stays that of noisy data.

    Args:
      density: of noisy numbers. A flow of integers, which dequantizes them, has no such slope.
      y: noisy data, or samples.
      noise: the standard deviation of the noise that was added in training.
      context: as for `log_prob`.
      key: for flows that draw noise on the way.

    Raises:
      TypeError: `density` is no `Density` of numbers, or y is not floating.
      ValueError: `noise` is not above 0; or what `log_prob` refuses.

    References: Robbins, 1956; Miyasawa, 1961; TarFlow, section 2.5, https://arxiv.org/abs/2412.06329
    """
    if not isinstance(density, Density):
        raise TypeError(
            f"denoise: density must be a jflow.Density, of numbers; got {type(density).__name__}"
        )
    if density.flow.integers is not None:
        raise TypeError(
            "denoise: this flow is of integers, whose log p has no slope; fit one with values=None "
            "to numbers, as y / 255, that take all of the line (values=None, alpha=None), with "
            "augment=partial(data.add_noise, scale=noise)"
        )
    check_numbers("denoise", above=0, noise=noise)
    given = arrays(y, context)
    if not jnp.issubdtype(given[0].dtype, jnp.floating):
        raise TypeError(f"denoise: y must be floating; got {given[0].dtype}")
    if key is None and density.flow.bijector.needs_key("inverse"):
        raise ValueError("denoise: give a key: denoise(..., key=0). This flow draws noise")
    key = None if key is None else as_key("denoise", key)
    found = _denoised(density.flow, density.variables, *given, jnp.asarray(noise), key)
    density._check_inverse(found, len(density.flow.event_shape), *given)
    return found


@partial(jax.jit, static_argnums=0)
def _denoised(
    flow: Flow, variables: Any, y: Array, context: Any, noise: Array, key: Array | None
) -> Array:
    rngs = None if key is None else {"noise": key}

    def total(y: Array) -> Array:
        log_p: Any = flow.apply(variables, y, context, method="log_prob", rngs=rngs)
        return jnp.sum(log_p)

    slope = as_wide(jax.grad(total)(y))
    return (as_wide(y) + noise.astype(slope.dtype) ** 2 * slope).astype(y.dtype)
