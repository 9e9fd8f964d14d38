"""What training for a target minimises: divergences from what is known up to a constant."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jflow.distributions import init
from jflow.distributions.exchange import guidance_of
from jflow.distributions.importance import quality
from jflow.distributions.smc import pulled_back
from jflow.distributions.targets import check_deterministic
from jflow.functional.annealing import anneal_by_steps, resample
from jflow.functional.arguments import check_counts
from jflow.train.objectives import MEMORY, Moving, OfFlow, check_trainable, without_memory

# From which power on the target is annealed.
_COLDEST = 0.01
# Points that a flow is initialised on.
_POINTS = 256
# The most that a point of the buffer counts above its share of draws (FAB, appendix).
_MOST = 10.0
# The first size of a step in Hamiltonian Monte Carlo, of latents.
_STEP = 0.2


@dataclass(frozen=True)
class OfTarget(OfFlow):
    """What objectives of targets share: samples y of the flow q, and p.

    A batch is the contexts to sample for, one sample each; without contexts, (n, 0).

    Attributes:
      target: log p, up to a constant: (n, *event) to (n,); with contexts, of (y, context).
      groups: how many contexts validation has, as many samples for each.
      anneal: so many steps the target is p^b, with b rising from .01 to 1, in equal ratios.
      through_samples: whether gradients flow through samples.
    """

    target: Callable[..., Array]
    groups: int = 1
    anneal: int = 0
    unit = "kl"
    through_samples = False
    cause = (
        "look at the target: if it is -inf or NaN for some y, end the flow where it is not; "
        "flow.clone(bijector=Chain((Elementwise(Sigmoid()), flow.bijector)), recipe=None) gives "
        "numbers in (0, 1), and Softplus() positive ones"
    )

    def init(self, key: Array, batch: Any) -> Mapping[str, Any]:
        """The flow's variables, from normal points: there is no data to standardise."""
        flow, rows = self.flow, jax.tree.leaves(batch)[0]
        if guidance_of(flow):
            raise ValueError(
                "a flow with guidance is trained by examples with and without their context, and "
                "not by a target: build it without guidance"
            )
        points = jax.random.normal(jax.random.fold_in(key, 3), (_POINTS, *flow.event_shape))
        chosen = jax.random.choice(jax.random.fold_in(key, 4), len(rows), (_POINTS,))
        context = None if flow.context_shape is None else jax.tree.map(lambda c: c[chosen], batch)
        found = check_trainable(init(flow, jax.random.fold_in(key, 0), points, context))
        return self.begun(found, batch, key)

    def begun(self, variables: Mapping[str, Any], batch: Any, key: Array) -> Mapping[str, Any]:
        """The variables, with what is to be remembered from step to step."""
        memory = self.memory(variables, batch, jax.random.fold_in(key, 5))
        return {**variables, MEMORY: memory} if memory else variables

    def memory(self, variables: Mapping[str, Any], batch: Any, key: Array) -> dict[str, Any]:
        """What is remembered from step to step, before the first."""
        return {"step": jnp.zeros((), jnp.int32)} if self.anneal else {}

    def drawn(
        self, variables: Mapping[str, Any], batch: Any, key: Array, *, training: bool
    ) -> tuple[Array, Array, Any, Moving]:
        """Samples y, log p^b(y) - log q(y), what layers have sown, and what has moved."""
        count = len(jax.tree.leaves(batch)[0])
        context = None if self.flow.context_shape is None else batch
        noise = jax.random.fold_in(key, 1)
        (y, log_q), penalty, moved = self.apply(
            variables, key, (count,), context, noise=noise, training=training,
            method="sample_jointly",
        )  # fmt: skip
        log_p = (self.target(y) if context is None else self.target(y, context)).astype(log_q.dtype)
        if self.anneal and training:
            step = variables[MEMORY]["step"]
            moved = {**moved, MEMORY: {"step": step + 1}}
            cold = jnp.maximum(1 - step / self.anneal, 0)
            log_p = log_p * (_COLDEST**cold).astype(log_q.dtype)
        return y, log_p - log_q, penalty, moved

    def losses(
        self, variables: Mapping[str, Any], batch: Any, key: Array, *, training: bool
    ) -> tuple[Array, Moving]:
        """See `Objective.losses`; in validation log q(y) - log p(y), whose mean is least for p."""
        if training:
            return self.training_losses(variables, batch, key)
        _, log_w, _, moved = self.drawn(variables, batch, key, training=False)
        return -log_w, moved

    def training_losses(
        self, variables: Mapping[str, Any], batch: Any, key: Array
    ) -> tuple[Array, Moving]:
        """See `losses`."""
        raise NotImplementedError

    def metrics(
        self, variables: Mapping[str, Any], batch: Any, losses: np.ndarray | None
    ) -> dict[str, float]:
        """The effective sample size, the log-normaliser and its standard error."""
        if losses is None:
            return {}
        found = quality(-losses.reshape(self.groups, -1))
        names = {"ess": "ess", "log_normalizer": "log_normalizer", "error": "log_normalizer_error"}
        return {column: found[name] for name, column in names.items()}


@dataclass(frozen=True)
class ReverseKL(OfTarget):
    """log q(y) - log p(y) of samples y of the flow q; the mean is KL(q || p) - log int p."""

    through_samples = True

    def training_losses(
        self, variables: Mapping[str, Any], batch: Any, key: Array
    ) -> tuple[Array, Moving]:
        """See `losses`."""
        _, log_w, penalty, moved = self.drawn(variables, batch, key, training=True)
        return penalty - log_w, moved


@dataclass(frozen=True)
class AlphaDivergence(OfTarget):
    """The divergence E_q[(p/q)^a], of samples of the flow q: with a = 2, the variance of weights.

    Its gradient is that of -log q(y) by self-normalised weights (p/q)^a of samples; that through
    the samples has far too much variance. So q covers p where it has samples; modes that it never
    draws, it cannot see (Midgley et al., 2023, https://arxiv.org/abs/2208.01893, section 3, without
    annealing). Training losses tell KL(p || q), by weights p/q.

    Attributes:
      alpha: a, above 1.

    Raises:
      ValueError: `alpha` is 1 or less, a flow with contexts, or one whose log_prob is an estimate.
    """

    alpha: float = 2.0

    def __post_init__(self) -> None:
        _check_one(self)

    def training_losses(
        self, variables: Mapping[str, Any], batch: Any, key: Array
    ) -> tuple[Array, Moving]:
        """See `losses`."""
        still = lax.stop_gradient(dict(variables))
        y, log_w, _, remembered = self.drawn(still, batch, key, training=True)
        n, log_z = len(log_w), jax.nn.logsumexp(log_w) - jnp.log(len(log_w))
        kl = n * jax.nn.softmax(log_w) * jnp.where(jnp.isneginf(log_w), 0, log_w - log_z)
        log_q, penalty, moved = self.apply(
            variables, y, None, noise=jax.random.fold_in(key, 2), training=True,
            method="log_prob",
        )  # fmt: skip
        share = n * jax.nn.softmax(self.alpha * log_w)
        return penalty + kl + share * (lax.stop_gradient(log_q) - log_q), {**remembered, **moved}


@dataclass(frozen=True)
class FAB(OfTarget):
    """Flow annealed importance sampling bootstrap: cross-entropies with p^a q^(1-a).

    Every few steps, samples of q are annealed towards p^a q^(1-a), where a = 2 is where q is too
    thin, and kept with their weights in a buffer. A step draws from it by these weights, corrects
    them for how q has changed since, and raises log q there: where q has no sample, annealed ones
    may be, so modes are found and kept (Midgley et al., 2023, https://arxiv.org/abs/2208.01893,
    section 3 and algorithm 1). Training losses are log p(y) - log q(y) there.

    Attributes:
      alpha: a, above 1.
      temperatures: of annealing.
      leapfrogs: at each.
      every: so many steps, samples are annealed, as many as a batch has.
      rounds: of such samples the buffer holds.

    Raises:
      ValueError: a number out of range, `anneal`, a flow with contexts, or one whose log_prob is an
        estimate.
    """

    alpha: float = 2.0
    temperatures: int = 8
    leapfrogs: int = 5
    every: int = 4
    rounds: int = 32

    def __post_init__(self) -> None:
        _check_one(self)
        if self.anneal:
            raise ValueError(f"objective 'fab' anneals by itself; got anneal={self.anneal}")
        counts = {n: getattr(self, n) for n in ("temperatures", "leapfrogs", "every", "rounds")}
        check_counts("FAB", **counts)

    def memory(self, variables: Mapping[str, Any], batch: Any, key: Array) -> dict[str, Any]:
        """The buffer, with its first round."""
        size, shape = self.rounds * len(batch), self.flow.event_shape
        no, dtype = jnp.zeros((size,)), jnp.zeros(()).dtype
        empty = {
            "points": jnp.zeros((size, *shape), dtype), "log_weights": no - jnp.inf, "log_q": no,
            "log_p": no, "step": jnp.zeros((), jnp.int32), "size": jnp.zeros(()) + _STEP,
        }  # fmt: skip
        return self._another_round(empty, 0, variables, len(batch), key)

    def training_losses(
        self, variables: Mapping[str, Any], batch: Any, key: Array
    ) -> tuple[Array, Moving]:
        """See `losses`."""
        held, n = variables[MEMORY], len(batch)
        draw, anneal, noise = jax.random.split(key, 3)
        still = lax.stop_gradient(dict(variables))
        held = lax.cond(
            (held["step"] % self.every == self.every - 1)
            | jnp.all(jnp.isneginf(held["log_weights"])),
            lambda held: self._another_round(
                held, held["step"] // self.every + 1, still, n, anneal
            ),
            lambda held: held,
            held,
        )
        rows = resample(held["log_weights"], draw, n)
        log_q, penalty, moved = self.apply(
            variables, held["points"][rows], None, noise=noise, training=True,
            method="log_prob",
        )  # fmt: skip
        change = lax.stop_gradient((1 - self.alpha) * (log_q - held["log_q"][rows]))
        share = jnp.exp(jnp.minimum(change, jnp.log(_MOST)))
        held = held | {
            "log_weights": held["log_weights"].at[rows].set(held["log_weights"][rows] + change),
            "log_q": held["log_q"].at[rows].set(lax.stop_gradient(log_q)),
            "step": held["step"] + 1,
        }
        return penalty + share * (held["log_p"][rows] - log_q), {**moved, MEMORY: held}

    def _another_round(
        self, held: Any, number: int | Array, variables: Any, n: int, key: Array
    ) -> dict[str, Any]:
        """The buffer with samples of q that were annealed in place of the oldest."""
        (draw, walk), variables = jax.random.split(key), without_memory(variables)

        def at(x: Array) -> tuple[Array, Array, Array, Array]:
            y, log_det, log_base = pulled_back(self.flow, variables, x)
            return y, self.target(y).astype(log_base.dtype), log_base - log_det, log_base

        def path(x: Array) -> tuple[Array, Array]:
            _, p, q, log_base = at(x)
            return log_base, self.alpha * (p - q)

        x: Any = self.flow.apply(variables, draw, (n,), method="sample_latents")
        x, log_weights, size = anneal_by_steps(
            path, x, walk, held["size"], temperatures=self.temperatures, leapfrogs=self.leapfrogs
        )
        y, p, q, _ = at(x)
        fresh = {"points": y, "log_weights": log_weights, "log_q": q, "log_p": p}
        fresh["log_weights"] = jnp.where(jnp.isfinite(log_weights + p + q), log_weights, -jnp.inf)
        put = partial(lax.dynamic_update_slice_in_dim, start_index=number % self.rounds * n, axis=0)
        kept = {
            name: put(held[name], part.astype(held[name].dtype)) for name, part in fresh.items()
        }
        return held | kept | {"size": size}


def _check_one(objective: "AlphaDivergence | FAB") -> None:
    check_deterministic(type(objective).__name__, objective.flow)
    if not objective.alpha > 1:
        raise ValueError(f"alpha must be above 1; got {objective.alpha}")
    if objective.flow.context_shape is not None:
        raise ValueError(
            f"{type(objective).__name__} weighs all samples together, and each context has a "
            "normaliser of its own; got a flow with contexts. Use objective='reverse_kl'"
        )
