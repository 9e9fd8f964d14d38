"""A density: a flow together with its variables."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jflow.distributions import compiled, saving
from jflow.distributions.arguments import arrays, noise, sizes
from jflow.distributions.base import as_temperature
from jflow.distributions.contexts import points
from jflow.distributions.contractions import check_converged
from jflow.distributions.estimates import LogProbEstimate, log_prob_estimate
from jflow.distributions.exchange import Exchangeable, replace_estimators
from jflow.distributions.exporting import export_density
from jflow.distributions.flow import Flow
from jflow.distributions.inspection import Inspected
from jflow.functional.arguments import as_key, check_counts
from jflow.functional.arrays import as_wide
from jflow.functional.dequantization import NO_INTEGER, check_importance_weighted, check_integers


@partial(jax.tree_util.register_dataclass, data_fields=["variables"], meta_fields=["flow"])
@dataclass(frozen=True, eq=False, repr=False)
class Density(Exchangeable, Inspected):
    """A flow and its variables: a distribution that can be called, mapped and saved.

    A pytree whose leaves are the variables: it passes through `jit` and `vmap` as an argument.
    (Differentiate with respect to `variables["params"]`: other collections may hold integers.)
    Its methods are compiled once for each shape. y and samples are (*batch, *event).

    Attributes:
      flow: the architecture.
      variables: what `jflow.init` or `jflow.fit` gave for it.
    """

    flow: Flow
    variables: Mapping[str, Any]

    def log_prob(
        self,
        y: ArrayLike,
        context: Any = None,
        *,
        key: Array | int | None = None,
        batch_size: int | None = None,
    ) -> Array:
        """log p(y) in nats, (*batch). -inf outside the support; NaN where y is NaN.

        Args:
          y: continuous values, or integers for a flow of whole numbers, such as grey levels.
          context: (*batch, *context_shape) or the last axes of that, for a conditional flow.
          key: for flows that draw noise on the way; see `flow.bijector.needs_key`.
          batch_size: how many points at a time, in one compiled loop, so that memory does not grow
            with their number; None for all at once.

        Raises:
          TypeError: y is not floating, or not integer where the flow is of integers.
          ValueError: y or context has the wrong shape, or the flow needs a key.
        """
        given = arrays(y, context)
        key = noise("log_prob", self.flow.bijector, "inverse", key)
        check_counts("log_prob", batch_size=1 if batch_size is None else batch_size)
        options: Any = {"key": key, "batch_size": batch_size}
        log_prob = compiled.log_prob(self.flow, self.variables, *given, **options)
        self._check_inverse(log_prob, 0, *given)
        return log_prob

    def log_prob_estimate(
        self,
        y: ArrayLike,
        key: Array | int,
        context: Any = None,
        *,
        probes: int = 16,
        terms: int | None = None,
    ) -> LogProbEstimate:
        """The mean of independent estimates of log p(y), with its errors, (*batch), nats.

        One error is that of chance: of truncated series (`PowerSeries`) the bias comes on top.
        Another one is that of solvers of continuous flows. For bounds (of dequantized levels), the
        first is the log of the mean of p: a tighter bound, which tends to log p(y) with their
        number (Burda et al., 2016, https://arxiv.org/abs/1509.00519), its error to first order; not
        where log_dets are estimated besides.

        Args:
          y: as for `log_prob`.
          key: a JAX random key or a whole number.
          context: for a conditional flow.
          probes: how many estimates, one after the other; 2 or more for an error.
          terms: terms that a series takes for certain, in place of the estimator's own number. More
            of them make estimates better, and dearer.
        """
        check_counts("log_prob_estimate", probes=probes)
        flow = self.flow
        if terms is not None:
            check_counts("log_prob_estimate", terms=terms)
            flow = replace_estimators(flow, lambda estimator: estimator.with_terms(terms))
        given = arrays(y, context)
        key = as_key("log_prob_estimate", key)
        estimate = log_prob_estimate(flow, self.variables, given[0], given[1], key, probes)
        self._check_inverse(estimate.mean, 0, *given)
        return estimate

    def sample(
        self,
        key: Array | int,
        shape: int | tuple[int, ...] = (),
        context: Any = None,
        temperature: float | Array = 1.0,
    ) -> Array:
        """Draws (*shape, *event), given context (C,), (*shape, C), or (N, C) for shape (..., N).

        Whole numbers are int32, of which the smallest stands for NaN.

        Args:
          key: a JAX random key or a whole number.
          shape: how many to draw; an int or a tuple.
          context: for a conditional flow.
          temperature: scales the spread of the base, that of each component of a mixture.

        Raises:
          ValueError: a temperature other than 1, and the base (uniform, angles) has none.
        """
        (context,) = arrays(context)
        key = as_key("sample", key)
        arguments = (self.variables, key, sizes(shape), context, as_temperature(temperature))
        y = compiled.draw(self.flow, "sample", *arguments)
        self._check_forward(y, context)
        return y

    def sample_and_log_prob(
        self, key: Array | int, shape: int | tuple[int, ...] = (), context: Any = None
    ) -> tuple[Array, Array]:
        """Draws (*shape, *event) and log p of each.

        In one pass, without rounding errors from inverting, unless the inverse draws noise.
        """
        (context,) = arrays(context)
        arguments = (self.variables, as_key("sample_and_log_prob", key), sizes(shape), context)
        y, log_prob = compiled.draw(self.flow, "sample_and_log_prob", *arguments)
        self._check_forward(y, context)
        return y, log_prob

    def latents(
        self, y: ArrayLike, context: Any = None, *, key: Array | int | None = None,
        log_det: bool = False,
    ) -> Any:  # fmt: skip
        """The latents z of y, (*batch, *latent): what the flow maps to y, exactly.

        Where there are several, `key` draws one. With `log_det`, also log|det dz/dy|, (*batch).
        """
        given, method = arrays(y, context), "latents_and_log_det" if log_det else "latents"
        key = noise("latents", self.flow.bijector, "inverse", key, values_alone=not log_det)
        found = compiled.apply(self.flow, method, self.variables, *given, rng=key)
        z = found[0] if log_det else found
        self._check_inverse(z, len(self.flow.latent_shape), *given)
        return found

    def from_latents(
        self, z: ArrayLike, context: Any = None, *, key: Array | int | None = None,
        log_det: bool = False,
    ) -> Any:  # fmt: skip
        """The y of latents z, (*batch, *event): the inverse of `latents`, with a key likewise.

        With `log_det`, also log|det dy/dz|, (*batch).
        """
        method = "from_latents_and_log_det" if log_det else "from_latents"
        given = arrays(z, context)
        key = noise("from_latents", self.flow.bijector, "forward", key, values_alone=not log_det)
        found = compiled.apply(self.flow, method, self.variables, *given, rng=key)
        y = found[0] if log_det else found
        self._check_forward(y, given[1], (given[0], len(self.flow.latent_shape)))
        return found

    def _check_inverse(self, found: Array, ndim: int, y: Array, context: Any) -> None:
        bijector = self.flow.bijector
        given = (y, len(self.flow.event_shape)), *points(self.flow.context_shape, context)
        check_converged(bijector, bijector.inverse_kind, (found, ndim), *given)

    def _check_forward(self, y: Array, context: Any, *given: tuple[Any, int]) -> None:
        if self.flow.bijector.may_fail and jnp.issubdtype(y.dtype, jnp.integer):
            y = jnp.where(y == NO_INTEGER, jnp.nan, as_wide(y))
        bijector, found = self.flow.bijector, (y, len(self.flow.event_shape))
        given = (*given, *points(self.flow.context_shape, context))
        check_converged(bijector, bijector.forward_kind, found, *given)

    def latent_levels(self, z: ArrayLike) -> tuple[Array, ...]:
        """Latents cut into the levels of a multi-scale flow, the finest first."""
        return self.flow.bijector.latent_levels(jnp.asarray(z))

    def bits_per_dim(
        self,
        y: ArrayLike,
        key: Array | int | None = None,
        context: Any = None,
        *,
        samples: int = 1,
        dimensions: int | None = None,
        importance_weighted: bool = False,
    ) -> Array:
        """-log_prob of whole numbers, such as grey levels, in bits per dimension, (*batch).

            -E_u log2 p(y, u) / D,     for dequantized levels -E_u log2 p((y + u) / k) / D + log2 k

        Where noise u is drawn, it is an upper bound on -log2 P(y) / D of the discrete model P(y),
        the integral of p over y's cell (Theis et al., 2016, https://arxiv.org/abs/1511.01844).

        Args:
          y: integers.
          key: for u, where it is drawn.
          context: for a conditional flow.
          samples: how many draws of u to average over.
          dimensions: D, if not the event's size: give the number of real pixels when images
            were padded. The bits of the padding still count.
          importance_weighted: whether to average p, not log p, over u; see `log_prob_estimate`.

        Raises:
          TypeError: y is not integer.
          ValueError: y has numbers out of range, the flow is of continuous values or needs a key,
            or p is to be averaged where it is an estimate.
        """
        flow = self.flow
        if (integers := flow.integers) is None:
            raise ValueError("bits_per_dim needs a flow of grey levels; build it with values=k")
        given = arrays(y, context)
        check_integers("y", given[0], integers)
        check_importance_weighted(importance_weighted, flow.bijector.log_det_kinds)
        check_counts("bits_per_dim", samples=samples)
        key = noise("bits_per_dim", flow.bijector, "inverse", key)
        given_too = key, samples, dimensions, importance_weighted
        bits = compiled.bits_per_dim(flow, self.variables, *given, *given_too)
        self._check_inverse(bits, 0, *given)
        return bits

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the directory `path`: config.json and variables-*.safetensors.

        A density that is there already is replaced, in one step.

        Raises:
          FileExistsError: `path` holds something that is not a saved density.
        """
        saving.save(path, self.flow, self.variables)

    def export(
        self, path: str | os.PathLike[str], *, platforms: Sequence[str] | None = None
    ) -> None:
        """Writes `log_prob` and `sample` as programs that run where only JAX is installed.

        The directory `path` gets one file for each, StableHLO that `jax.export` reads, with the
        parameters inside and any batch size, and export.json: their arguments, and versions.

            from jax import export, random
            read = lambda name: export.deserialize(bytearray(open(f"{path}/{name}", "rb").read()))
            read("log_prob.jaxexport").call(y)                     # y (batch, *event)
            seeds = random.key_data(random.split(random.key(0), 100))
            read("sample.jaxexport").call(seeds)                   # one sample for each seed

        A conditional flow takes the context, (batch, *context_shape), after these; a flow that
        draws noise a seed, (2,), after y and context. Integers are int32.

        Args:
          path: the directory. An export that is there already is replaced.
          platforms: where they shall run: "cpu", "cuda", "rocm", "tpu"; None for the one in use.
            JAX promises to read them for six months, and forward for three weeks.

        Raises:
          FileExistsError: `path` holds something that is not an export.
        """
        export_density(path, self.flow, self.variables, platforms)
