"""BlackJAX: the No-U-Turn sampler in the latents of a flow.

    posterior, _ = jflow.fit_to_target(flow, target, key=0)
    chains = nuts(posterior, target, key=1)
    chains.y, chains.ess, chains.r_hat

Other samplers are given `jflow.interop.pulled_back(density, target).log_prob`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

if find_spec("blackjax") is None:
    raise ImportError("jflow.interop.blackjax needs blackjax: pip install 'jflow[interop]'")

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.diagnostics import effective_sample_size, potential_scale_reduction
from jax import Array

from jflow.distributions import Density
from jflow.distributions.base import default_promotion
from jflow.functional.arguments import as_key, check_counts
from jflow.interop.bound import Bound
from jflow.interop.pulled_back import PulledBack, pulled_back

__all__ = ["Chains", "nuts"]

# Draws of a chain, for diagnostics.
_FEWEST = 4


@dataclass(frozen=True, eq=False)
class Chains:
    """Draws of Markov chains, and how they went.

    Attributes:
      y: (chains, draws, *event), draws of the target.
      z: (chains, draws, *latent), where the chains moved.
      log_prob: (chains, draws), the target's log-density of each y, up to its constant.
      diverging: (chains, draws), whether the energy of a trajectory was lost.
      acceptance: (chains, draws), the mean probability to accept, of each trajectory.
      steps: (chains, draws), evaluations of the gradient.
    """

    y: np.ndarray
    z: np.ndarray
    log_prob: np.ndarray
    diverging: np.ndarray
    acceptance: np.ndarray
    steps: np.ndarray

    @property
    def ess(self) -> np.ndarray:
        """Effective sample size of each number of y, (*event), of all chains; NaN of few draws."""
        if self.y.shape[1] < _FEWEST:
            return np.full(self.y.shape[2:], np.nan)
        return np.asarray(effective_sample_size(jnp.asarray(self.y)))

    @property
    def r_hat(self) -> np.ndarray:
        """Gelman and Rubin's potential scale reduction, (*event): 1 where chains agree.

        NaN of one chain, or of few draws.
        """
        if len(self.y) < 2 or self.y.shape[1] < _FEWEST:
            return np.full(self.y.shape[2:], np.nan)
        return np.asarray(potential_scale_reduction(jnp.asarray(self.y)))

    def __repr__(self) -> str:
        chains, draws = self.log_prob.shape
        return (
            f"Chains({chains} of {draws:,} draws, least ess {self.ess.min():,.0f}, largest r_hat "
            f"{self.r_hat.max():.3f}, {int(self.diverging.sum())} diverging)"
        )


def nuts(
    density: Density, target: Callable[..., Array], *, key: Array | int = 0, chains: int = 4,
    warmup: int = 500, draws: int = 1_000, context: Any = None,
) -> Chains:  # fmt: skip
    """Exact draws of a target, by the No-U-Turn sampler in the latents of a flow.

    The sampler sees `jflow.interop.pulled_back(density, target)`, which is the rounder, the better
    the flow has learned the target. All chains run side by side in one compiled program, from draws
    of the flow, each with step size and mass matrix of its own, by Stan's windows.

    Args:
      density: of a flow that has learned the target, as by `jflow.fit_to_target`.
      target: of y (n, *event) to log-densities (n,), up to a constant.
      key: a JAX random key or a whole number.
      chains: how many.
      warmup: steps in which step size and mass matrix adapt, and which are not kept.
      draws: steps that are kept, of each chain.
      context: (*context_shape), of a conditional flow.

    Raises:
      TypeError: that is no density.
      ValueError: the flow's values are random, its latents do not live on the line, or the target
        gives something else than a number for each y.
      FloatingPointError: the target is not finite at draws of the flow.

    Reference: Hoffman and Gelman, The No-U-Turn sampler, 2014, https://arxiv.org/abs/1111.4246
    """
    check_counts("nuts", chains=chains, warmup=warmup, draws=draws)
    if warmup < 20:
        raise ValueError(f"nuts: warmup must be 20 steps or more, for Stan's windows; got {warmup}")
    p = pulled_back(density, target, context)
    start, run = jax.random.split(as_key("nuts", key))
    z = _finite_starts(p, start, chains)
    with default_promotion():
        # Compiled anew for each call: a target may read what has changed since the last one.
        program = jax.jit(partial(_run, target, warmup=warmup, draws=draws))
        found = program(p.bound, jax.random.split(run, chains), z)
    z = found["z"]
    flat = z.reshape(-1, *z.shape[2:])
    y, log_det = jax.jit(p.bound.forward)(flat)
    y = np.asarray(y).reshape(chains, draws, *density.flow.event_shape)
    log_prob = found.pop("log_density") - log_det.reshape(chains, draws)
    return Chains(y=y, log_prob=np.asarray(log_prob), **jax.tree.map(np.asarray, found))


def _finite_starts(p: PulledBack, key: Array, chains: int) -> Array:
    """Draws of the base at which the target is finite."""
    z = p.start(key, (16 * chains,))
    order = np.argsort(~np.isfinite(np.asarray(jax.jit(p.log_prob)(z))), kind="stable")
    z = z[order[:chains]]
    if not np.isfinite(np.asarray(p.log_prob(z))).all():
        raise FloatingPointError(
            f"nuts: of {16 * chains} draws of the flow, fewer than {chains} have a finite target; "
            "fit the flow to it first, or look at the target"
        )
    return z


def _run(
    target: Callable[..., Array], bound: Bound, keys: Array, z: Array, *, warmup: int, draws: int
) -> dict[str, Array]:
    log_density = PulledBack(bound, target).log_prob

    def chain(key: Array, z: Array) -> dict[str, Array]:
        first, second = jax.random.split(key)
        adapt: Any = blackjax.window_adaptation(
            blackjax.nuts, log_density, adaptation_info_fn=_nothing
        )
        (state, tuned), _ = adapt.run(first, z, num_steps=warmup)
        kernel: Any = blackjax.nuts(log_density, **tuned)

        def step(state: Any, key: Array) -> tuple[Any, dict[str, Array]]:
            state, info = kernel.step(key, state)
            told = {
                "z": state.position,
                "log_density": state.logdensity,
                "diverging": info.is_divergent,
                "acceptance": info.acceptance_rate,
                "steps": info.num_integration_steps,
            }
            return state, told

        return jax.lax.scan(step, state, jax.random.split(second, draws))[1]

    return jax.vmap(chain)(keys, z)


def _nothing(*_: Any) -> tuple[()]:
    """What is kept of each step of the warm-up."""
    return ()
