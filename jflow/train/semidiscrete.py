"""Optimal transport from the base to the data themselves, by one number for each example."""

import math
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jflow.distributions import Flow, init
from jflow.distributions.examples import check_examples
from jflow.functional.arguments import as_key, check_counts, check_numbers
from jflow.train.matching import continuous_layer, ends_of_paths
from jflow.train.pairs import Pairs

# Draws of the base at a time, and for each of the ascent's steps.
_DRAWS = 256
# The first step, over the mean cost; and what may be off in the shares of examples.
_RATE, _OFF = 1.5e-3, 0.1


def semidiscrete_pairs(
    flow: Flow,
    y: Any,
    key: Array | int,
    count: int,
    context: Any = None,
    *,
    regularization: float = 1e-3,
    context_weight: float = 100.0,
    steps: int = 2_000,
) -> Pairs:
    """Draws of the base, each with the example that optimal transport takes it to.

    Of all plans that take the base to the N examples, each getting its share 1/N, the one of least
    mean cost c(z, i), which is the squared distance, for each number of an event. It is known by
    a potential g of N numbers: z goes to i with a probability in proportion to
    exp((g_i - c(z, i)) / e), and g has the greatest

        mean_i g_i - e E_z log sum_i exp((g_i - c(z, i)) / e)

    found by stochastic ascent. Batches pair fewer points (`OptimalTransport`), so their paths cross
    more. `jflow.fit(flow, pairs, key=0)` then fits the flow to straight lines between them.

    Args:
      flow: whose base it is, and whose layers before the continuous one are where y is seen.
      y: examples, (N, *event).
      key: a JAX random key or a whole number.
      count: how many pairs.
      context: of the examples, (N, *context_shape), for conditional flows. Draws of the base have
        contexts of the data, and these are a part of the cost; see `OptimalTransport`.
      regularization: e, over the mean cost of any with any.
      context_weight: how much the contexts of a pair may differ.
      steps: of the ascent, of 256 draws each.

    Raises:
      TypeError, ValueError: the flow has no continuous layer nearest to the base, or an argument
        does not fit it.

    References: Genevay et al., 2016, https://arxiv.org/abs/1605.08527, algorithm 2; of flow
    matching, Mousavi-Hosseini et al., 2025, https://arxiv.org/abs/2509.25519
    """
    check_counts("semidiscrete_pairs", count=count, steps=steps)
    check_numbers("semidiscrete_pairs", above=0, regularization=regularization)
    check_numbers("semidiscrete_pairs", least=0, context_weight=context_weight)
    continuous_layer("semidiscrete_pairs", flow)
    y, context = check_examples("y", flow, y, context)
    own, *keys = jax.random.split(as_key("semidiscrete_pairs", key), 3)
    variables = init(flow, own, y, context)
    how = _How(flow, regularization, context_weight)
    z, partners = _found(how, variables, y, context, keys, steps, -(-count // _DRAWS))
    z, partners = (np.asarray(a).reshape(-1, *a.shape[2:])[:count] for a in (z, partners))
    _check_shares(partners, len(y))
    y, context = jax.tree.map(lambda a: np.asarray(a)[partners], (y, context))
    return Pairs(y, context, z)


@dataclass(frozen=True)
class _How:
    """What decides the plan, beside numbers."""

    flow: Flow
    regularization: float
    context_weight: float

    def coordinates(self, x: Array, context: Array | None) -> Array:
        """Of points with contexts, (n, size): the cost is the squared distance of these."""
        parts = [x.reshape(len(x), -1) / math.sqrt(x[0].size)]
        if context is not None and context.ndim > 1 and self.context_weight:
            flat = context.reshape(len(x), -1).astype(x.dtype)
            parts.append(flat * math.sqrt(self.context_weight / flat.shape[1]))
        return jnp.concatenate(parts, axis=1)

    def draw(self, variables: Any, context: Any, seen: Array | None, key: Array) -> Any:
        """Of the base, with contexts of the data: themselves, and their coordinates."""
        own, rows = jax.random.split(key)
        given = None
        if context is not None:
            count = len(jax.tree.leaves(context)[0])
            rows = jax.random.randint(rows, (_DRAWS,), 0, count)
            given = jax.tree.map(lambda a: a[rows], context)
            seen = None if seen is None or seen.ndim == 1 else seen[rows]
        args: Any = own, (_DRAWS,), given
        z: Any = self.flow.apply(variables, *args, method="sample_latents")
        return z, self.coordinates(z, seen)


@partial(jax.jit, static_argnums=(0, 5, 6))
def _found(
    how: _How, variables: Any, y: Array, context: Any, keys: Any, steps: int, draws: int
) -> tuple[Array, Array]:
    """Draws of the base, and the numbers of their examples, each (draws, _DRAWS)."""
    given, rngs = (y, context, keys[0]), {"noise": jax.random.fold_in(keys[0], steps)}
    start: Any = how.flow.apply(variables, *given, method=ends_of_paths, rngs=rngs)
    z, x, seen = start
    cost = jnp.mean(jnp.square(x)) + jnp.mean(jnp.square(z)) - 2 * jnp.mean(x.mean(0) * z.mean(0))
    ends = how.coordinates(x, seen)
    middle = jnp.mean(ends, 0, keepdims=True)  # products are small then, and their rounding
    ends = ends - middle
    squares = jnp.sum(jnp.square(ends), 1)
    draw = partial(how.draw, variables, context, seen)

    def shares(starts: Array, potential: Array) -> Array:
        """Of each draw, (_DRAWS, N), to a factor: the largest is 1."""
        dots = jnp.matmul(starts.astype(x.dtype) - middle, ends.T, precision="highest")
        scores = (2 * dots + (potential - squares)[None]) / (how.regularization * cost)
        return jnp.exp(scores - jnp.max(scores, axis=1, keepdims=True))

    def climb(potential: Array, now: tuple[Array, Array]) -> tuple[Array, None]:
        found = shares(draw(now[1])[1], potential)
        got = jnp.matmul(1 / jnp.sum(found, axis=1), found) * (len(y) / _DRAWS)
        return potential + now[0] * (1 - got), None

    falling = (1 + np.cos(math.pi * np.arange(steps) / steps)) / 2
    rates = _RATE * cost * jnp.asarray(falling, x.dtype), jax.random.split(keys[0], steps)
    potential, _ = lax.scan(climb, jnp.zeros(len(y), x.dtype), rates)

    def pair(key: Array) -> tuple[Array, Array]:
        own, chosen = jax.random.split(key)
        z, starts = draw(own)
        return z, _chosen(shares(starts, potential), chosen)

    return lax.map(pair, jax.random.split(keys[1], draws))


def _chosen(shares: Array, key: Array) -> Array:
    """One of each row, (n, N), in proportion: first a block of a row, then one of the block."""
    n, count = shares.shape
    width = math.isqrt(count - 1) + 1
    blocks = jnp.pad(shares, ((0, 0), (0, -count % width))).reshape(n, -1, width)
    sums = jnp.sum(blocks, axis=2)
    reached = jnp.cumsum(sums, axis=1)
    aim = jax.random.uniform(key, (n, 1), shares.dtype) * reached[:, -1:]
    block = jnp.sum(reached[:, :-1] <= aim, axis=1, keepdims=True)
    aim = aim - jnp.take_along_axis(reached - sums, block, 1)
    inside = jnp.take_along_axis(blocks, block[..., None], 1)[:, 0]
    place = jnp.sum(jnp.cumsum(inside, axis=1)[:, :-1] <= aim, axis=1)
    return jnp.minimum(block[:, 0] * width + place, count - 1)


def _check_shares(partners: np.ndarray, count: int) -> None:
    """Warns where examples are met much more often or less than they should be."""
    shares = np.bincount(partners, minlength=count) / len(partners)
    each = len(partners) / count
    least = math.floor(each)  # E |X / each - 1| / 2 with X ~ Poisson(each) is P(X = least)
    by_chance = math.exp(least * math.log(each) - each - math.lgamma(least + 1))
    if (off := np.abs(shares - 1 / count).sum() / 2 - by_chance) > _OFF:
        warnings.warn(
            f"semidiscrete_pairs: shares of examples are off by {off:.2f} in total variation; the "
            "ascent has not come to its end: give more steps, or more regularization",
            stacklevel=3,
        )
