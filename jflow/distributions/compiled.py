"""What the methods of a density run: compiled once for each flow and each shape."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from jflow.distributions.contexts import batch_of, each
from jflow.distributions.flow import Flow
from jflow.functional.arrays import batch_shape
from jflow.functional.dequantization import averaged, bits


@partial(jax.jit, static_argnums=(0, 1))
def apply(flow: Flow, method: str, variables: Any, *arrays: Any, rng: Array | None = None) -> Array:
    """A method of the flow; `rng` is for random estimates."""
    rngs = None if rng is None else {"noise": rng}
    return flow.apply(variables, *arrays, method=method, rngs=rngs)  # type: ignore[return-value]


def log_prob(
    flow: Flow,
    variables: Any,
    y: Array,
    context: Any,
    key: Array | None,
    batch_size: int | None,
) -> Array:
    """log p of y, all at once or `batch_size` points after the other."""
    ndim = y.ndim - len(flow.event_shape)
    own = batch_of(flow.context_shape, context)
    with_context = own is not None and own == y.shape[ndim - len(own) : ndim]
    # Of shapes that do not fit, the flow says what is wrong.
    if batch_size is None or y.shape[ndim:] != flow.event_shape or not with_context:
        return apply(flow, "log_prob", variables, y, context, rng=key)
    return log_prob_by_batches(flow, variables, y, context, key, batch_size)


@partial(jax.jit, static_argnums=(0, 5))
def log_prob_by_batches(
    flow: Flow, variables: Any, y: Array, context: Any, key: Array | None, size: int
) -> Array:
    """log p of y (*batch, *event), of `size` points after the other."""
    batch = batch_shape(y, len(flow.event_shape))
    count = math.prod(batch)
    given: dict[str, Any] = {"y": y.reshape(count, *flow.event_shape)}
    if batch_of(flow.context_shape, context):

        def flat(shape: tuple[int, ...], array: Array) -> Array:
            return jnp.broadcast_to(array, (*batch, *shape)).reshape(count, *shape)

        given["context"] = each(flat, flow.context_shape, context)

    def one(part: dict[str, Any], i: Array) -> Any:
        own = part.get("context", context)
        rngs = None if key is None else {"noise": jax.random.fold_in(key, i)}
        return flow.apply(variables, part["y"], own, method="log_prob", rngs=rngs)

    whole = count // size
    cut = lambda a: a[: whole * size].reshape(whole, size, *a.shape[1:])  # noqa: E731
    parts = [lax.map(lambda each: one(*each), (jax.tree.map(cut, given), jnp.arange(whole)))]
    if count % size:
        last = jax.tree.map(lambda a: a[whole * size :], given)
        parts.append(one(last, jnp.asarray(whole)))
    return jnp.concatenate([part.ravel() for part in parts]).reshape(batch)


@partial(jax.jit, static_argnums=(0, 1, 4))
def draw(
    flow: Flow, method: str, variables: Any, key: Array, shape: tuple[int, ...], *args: Any
) -> Any:
    """A method that draws."""
    # A layer with several images of a point draws one of them; log_dets may be estimates.
    rngs = {"noise": jax.random.fold_in(key, 1)}
    return flow.apply(variables, key, shape, *args, method=method, rngs=rngs)


@partial(jax.jit, static_argnums=(0, 5, 6, 7))
def bits_per_dim(
    flow: Flow,
    variables: Any,
    y: Array,
    context: Any,
    key: Array | None,
    samples: int,
    dimensions: int | None,
    importance_weighted: bool,
) -> Array:
    """Bits per dimension of whole numbers; without a key where no noise is drawn."""

    def log_prob(key: Array | None) -> Any:
        rngs = None if key is None else {"noise": key}
        return flow.apply(variables, y, context, method="log_prob", rngs=rngs), None

    if key is None:
        mean, _ = log_prob(None)
    else:
        mean, _ = averaged(log_prob, key, samples, importance_weighted)
    return bits(mean, flow.event_shape, dimensions)


@contextmanager
def cache_compilations(directory: str | os.PathLike[str] | None) -> Iterator[None]:
    """Within it, JAX keeps compiled programs in a directory, and takes from there what it finds.

    A later process that compiles the same program, on the same kind of device and with the same
    version of JAX, then starts in the time that tracing takes. Afterwards JAX's own settings
    (`jax_compilation_cache_dir`) are as before.

    Args:
      directory: made if it does not exist; ~ is the home directory; None changes nothing.

    Raises:
      NotADirectoryError: `directory` is a file.
    """
    if directory is None:
        yield
        return
    path = Path(directory).expanduser()
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"a cache of compiled programs needs a directory; {path} is none")
    new = {
        "jax_compilation_cache_dir": str(path),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    old = {name: getattr(jax.config, name) for name in new}
    _configure(new)
    try:
        yield
    finally:
        _configure(old)


def _configure(settings: dict[str, object]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    # JAX opens its cache once, and keeps to that directory whatever the settings say.
    jax_cache.reset_cache()
