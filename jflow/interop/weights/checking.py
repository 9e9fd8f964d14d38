"""What was read, beside the module that it was read from."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import jax.numpy as jnp
import numpy as np

from jflow.distributions import Density
from jflow.interop.weights.reading import as_array


def check_equal(
    owner: str, density: Density, module: Any, log_prob: Callable[[Any, Any], Any]
) -> Density:
    """The density, if the module it was read from agrees at a few points.

    Raises:
      ValueError: it does not: something that a state does not tell is other than was said.
    """
    torch = import_module("torch")
    flow = density.flow
    rng = np.random.default_rng(0)
    like = next(iter(module.parameters()))
    z = rng.normal(size=(64, *flow.latent_shape))
    context = None if flow.context_shape is None else rng.normal(size=(64, *flow.context_shape))
    y = np.asarray(density.from_latents(jnp.asarray(z, jnp.zeros(0).dtype), _jax(context)))

    def given(a: Any) -> Any:
        return None if a is None else torch.tensor(a, dtype=like.dtype, device=like.device)

    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            theirs = as_array(log_prob(given(y), given(context)))
    finally:
        module.train(training)
    ours = np.asarray(density.log_prob(y, _jax(context)))
    far = np.abs(ours - theirs) / (1 + np.abs(theirs))
    if not np.quantile(far, 0.9) < 1e-4:
        raise ValueError(
            f"{owner}: what was read has other densities than the module: by {np.median(far):.1g} "
            "of 1 + |log p|, in the median. A state does not tell activations, bounds and smallest "
            "slopes: give those that the module was built with"
        )
    return density


def _jax(context: Any) -> Any:
    return None if context is None else jnp.asarray(context, jnp.zeros(0).dtype)
