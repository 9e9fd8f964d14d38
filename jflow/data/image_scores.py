"""Flows of images, their log p with noise that is of each image alone, and ways between latents."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jflow.data.anomalies import fingerprints_of
from jflow.data.parts import in_parts
from jflow.distributions import Density, Flow


def check_images_flow(flow: Flow) -> None:
    """Refuses flows that are not of images of whole numbers.

    Raises:
      ValueError: it is of other events, of continuous values, or conditional.
    """
    if len(flow.event_shape) != 3 or flow.integers is None or flow.integers.low != 0:
        raise ValueError(
            "the flow must be one of images (height, width, channels) of grey levels, such as "
            f"flows.glow(images.shape, values=images.values); its events are {flow.event_shape}, "
            f"{'of numbers' if flow.integers is None else flow.integers}"
        )
    if flow.context_shape is not None:
        raise ValueError(
            f"the flow must be unconditional; its context_shape is {flow.context_shape}. For "
            "conditional flows, fit arrays: fit(flow, images.train.y, context=...)"
        )


def fingerprints(images: np.ndarray) -> np.ndarray:
    """One number for each image, (N,), uint64: equal for equal images, rarely for others."""
    return fingerprints_of(images.reshape(len(images), -1))


def slerp(first: np.ndarray, last: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Points (N, ...) at t (N,), from 0 to 1, between two, along a circle about the origin."""
    length = np.linalg.norm(first) * np.linalg.norm(last)
    cosine = np.vdot(first, last) / max(float(length), np.finfo(np.float32).tiny)
    angle = float(np.arccos(np.clip(cosine, -1.0, 1.0)))
    t = t.reshape(-1, *(1,) * first.ndim).astype(first.dtype)
    if np.sin(angle) < 1e-4:
        return (1 - t) * first + t * last
    return (np.sin((1 - t) * angle) * first + np.sin(t * angle) * last) / np.sin(angle)


def log_prob(
    density: Density, y: np.ndarray, key: Array, draws: int, batch_size: int
) -> np.ndarray:
    """log p of images, (N,), so many at a time; the noise of each depends on it and the key."""
    found = np.empty(len(y))
    for part, index, end in _parts(y, batch_size):
        log_p = _log_prob(density, *part, key, draws)
        found[index:end] = np.asarray(log_p, np.float64)[: end - index]
    return found


def latents(density: Density, y: np.ndarray, key: Array, batch_size: int) -> np.ndarray:
    """Latents of images, (N, *latent), likewise."""
    found = [np.asarray(_latents(density, *part, key))[: end - index]
             for part, index, end in _parts(y, batch_size)]  # fmt: skip
    return np.concatenate(found)


def _parts(y: np.ndarray, most: int) -> Iterator[tuple[tuple[np.ndarray, np.ndarray], int, int]]:
    """Images with their fingerprints, where they are, and where they end."""
    places = fingerprints(y).astype(np.uint32)
    for index, end in in_parts(len(y), most):
        yield (y[index], places[index]), int(index[0]), end


@partial(jax.jit, static_argnums=4)
def _log_prob(density: Density, y: Array, places: Array, key: Array, draws: int) -> Array:
    def once(draw: Array) -> Array:
        return _each(density.log_prob, density, y, places, jax.random.fold_in(key, draw))

    return jax.nn.logsumexp(lax.map(once, jnp.arange(draws)), axis=0) - math.log(draws)


@jax.jit
def _latents(density: Density, y: Array, places: Array, key: Array) -> Array:
    return _each(density.latents, density, y, places, key)


def _each(method: Any, density: Density, y: Array, places: Array, key: Array) -> Array:
    """What a method finds of each image, with noise of its own where it draws some."""
    if not density.flow.bijector.needs_key("inverse"):
        return method(y)
    return jax.vmap(lambda y, place: method(y, key=jax.random.fold_in(key, place)))(y, places)
