"""log p at four points, saved with a density, to find out later whether it computes the same."""

import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jflow.distributions import compiled
from jflow.distributions.contexts import each
from jflow.distributions.flow import Flow

_POINTS = 4
# Of |log p| + the event's size: other machines, and networks in lower precision, differ by less.
_TOLERANCE = 0.02


def witness(flow: Flow, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Four points, log p there, and what tells whether noise is drawn as it was then.

    Nothing, with a warning, where that cannot be computed: a density is saved in any case.
    """
    try:
        y = _points(flow, variables)
        return {"y": y, "log_prob": _log_prob(flow, variables, y), "noise": _noise()}
    except Exception as error:  # whatever: the work of days must not depend on it
        warnings.warn(f"saved without log_prob at four points, which failed: {error}", stacklevel=4)
        return {}


def check_witness(
    path: str, flow: Flow, variables: Mapping[str, Any], found: Mapping[str, np.ndarray]
) -> None:
    """Refuses a density whose log p is not what it was when it was saved.

    Raises:
      ValueError: by how much it differs, and what to do.
    """
    random = flow.bijector.needs_key("inverse")
    if not found or (random and not np.array_equal(found["noise"], _noise())):
        return
    then, now = found["log_prob"], _log_prob(flow, variables, found["y"])
    # By rounding, a sample may lie at the end of the support, within or without.
    finite = np.isfinite(then) & np.isfinite(now)
    far = np.abs(then - now)[finite] > _TOLERANCE * (np.abs(then[finite]) + found["y"][0].size)
    if far.any() or (np.isfinite(then).any() and not finite.any()):
        raise ValueError(
            f"{path}: log_prob at four points is {now}, and was {then} when it was saved: what "
            "computes it has changed since. Load it with the version of jflow in its "
            "config.json, or, if you know why, by load(path, check=False)"
        )


def _points(flow: Flow, variables: Mapping[str, Any]) -> np.ndarray:
    """Samples, where they are quickly drawn; otherwise normal ones."""
    if flow.bijector.forward_kind == "closed form":
        key, context = jax.random.key(0), _context(flow)
        return np.asarray(compiled.draw(flow, "sample", variables, key, (_POINTS,), context))
    rng, shape = np.random.default_rng(0), (_POINTS, *flow.event_shape)
    if flow.integers is not None:
        return rng.integers(0, int(min(flow.integers.high, 2**15)) + 1, shape).astype(np.int32)
    return rng.normal(size=shape).astype(np.float32)


def _context(flow: Flow) -> Any:
    def some(shape: tuple[int, ...]) -> Any:
        normal = np.random.default_rng(1).normal(size=(_POINTS, *shape))
        return jnp.asarray(normal, np.float32)

    return each(some, flow.context_shape)


def _log_prob(flow: Flow, variables: Mapping[str, Any], y: np.ndarray) -> np.ndarray:
    rng = jax.random.key(0)
    found = compiled.apply(flow, "log_prob", variables, jnp.asarray(y), _context(flow), rng=rng)
    return np.asarray(found)


def _noise() -> np.ndarray:
    return np.asarray(jax.random.uniform(jax.random.key(0), (_POINTS,)))
