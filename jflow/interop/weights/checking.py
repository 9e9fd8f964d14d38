"""What was read, beside what the other library finds."""

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import jax.numpy as jnp
import numpy as np

from jflow.distributions import Density
from jflow.interop.weights.reading import as_array

# The other library's log p: with its points, and their contexts if the flow takes some.
Found = tuple[Any, ...] | None


def compared(
    owner: str, density: Density, state: Any, check: Found, log_prob: Callable[[Any, Any], Any]
) -> Density:
    """The density, if it agrees with what was found at some points; with a warning if nothing was.

    Args:
      owner: for errors.
      density: what was read.
      state: what it was read from; if it is a module, that is asked for log p.
      check: y and log p, or y, the context and log p.
      log_prob: what the module finds of y and the context.

    Raises:
      ValueError: they differ: something that a state does not tell is other than was said.
    """
    if check is not None:
        if len(check) != (2 if density.flow.context_shape is None else 3):
            raise ValueError(
                f"{owner}: check must be (y, log_prob), or (y, context, log_prob) of a conditional "
                f"flow; got {len(check)} parts"
            )
        y, *context, theirs = map(as_array, check)
        _check_equal(owner, density, y, context[0] if context else None, theirs)
    if hasattr(state, "state_dict"):
        _check_equal(owner, density, *_asked(density, state, log_prob))
    elif check is None:
        warnings.warn(
            f"{owner}: the state does not tell activations, bounds and kinds of splines, or what "
            "has no arrays, and nothing was compared: give check=(y, log_prob), as the other "
            "library finds it, or the module in place of its state",
            stacklevel=3,
        )
    return density


def _asked(density: Density, module: Any, log_prob: Callable[[Any, Any], Any]) -> tuple[Any, ...]:
    """Points of the density, their contexts, and what the module finds of them."""
    torch, flow, rng = import_module("torch"), density.flow, np.random.default_rng(0)
    like = next(iter(module.parameters()))
    z = rng.normal(size=(64, *flow.latent_shape))
    context = None if flow.context_shape is None else rng.normal(size=(64, *flow.context_shape))
    y = np.asarray(density.from_latents(_jax(z), _jax(context)))

    def given(a: Any) -> Any:
        return None if a is None else torch.tensor(a, dtype=like.dtype, device=like.device)

    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            return y, context, as_array(log_prob(given(y), given(context)))
    finally:
        module.train(training)


def _check_equal(owner: str, density: Density, y: Any, context: Any, theirs: Any) -> None:
    ours = np.asarray(density.log_prob(_jax(y), _jax(context)))
    far = np.abs(ours - theirs) / (1 + np.abs(theirs))
    if not np.quantile(far, 0.9) < 1e-4:
        raise ValueError(
            f"{owner}: what was read has other densities than the flow it was read from: by "
            f"{np.median(far):.1g} of 1 + |log p|, in the median. A state does not tell "
            "activations, bounds and smallest slopes: give those that the flow was built with"
        )


def _jax(a: Any) -> Any:
    return None if a is None else jnp.asarray(a, float)
