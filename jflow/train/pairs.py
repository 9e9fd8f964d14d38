"""Latents with the points that they lead to: what reflow and students are fitted to."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jflow.distributions import Density, Flow, compiled
from jflow.distributions.arguments import arrays
from jflow.distributions.contexts import check_batch_of, each
from jflow.distributions.contractions import check_converged
from jflow.distributions.examples import check_examples
from jflow.functional.arguments import as_key, check_counts


@dataclass(frozen=True, eq=False)
class Pairs:
    """Points with their latents, which `jflow.fit` takes in place of data.

    Attributes:
      y: points, (N, *event).
      context: of those, (N, *context_shape); None without any.
      latents: what leads to them, (N, *latent), distributed as the base.
      log_prob: log p(y) of whoever made them, nats, (N,); None where that is not known exactly.
    """

    y: Any
    context: Any
    latents: Any
    log_prob: Any = None

    def __len__(self) -> int:
        return len(self.y)

    def checked(self, name: str, flow: Flow) -> tuple[Any, Any, Any, Any]:
        """All four, for the flow.

        Raises:
          TypeError, ValueError: they do not fit it; `name` is whose they are.
        """
        y, context = check_examples(f"{name}.y", flow, self.y, self.context)
        latents, told = _floats(f"{name}.latents", self.latents), self.log_prob
        if latents.shape != (len(y), *flow.latent_shape):
            raise ValueError(
                f"{name}.latents must be {(len(y), *flow.latent_shape)}, one of this flow's for "
                f"each point; got {latents.shape}"
            )
        if told is not None:
            told = _floats(f"{name}.log_prob", told)
            if told.shape != (len(y),):
                raise ValueError(
                    f"{name}.log_prob must be {(len(y),)}, or None; got shape {told.shape}"
                )
        return y, context, latents, told


def _floats(name: str, numbers: Any) -> np.ndarray:
    """Finite numbers, in float32 or wider.

    Raises:
      ValueError: they are not.
    """
    found = np.asarray(numbers)
    if not np.issubdtype(found.dtype, np.floating) or not np.isfinite(found).all():
        raise ValueError(
            f"{name} must be finite floating numbers; got dtype {found.dtype}"
            + (", some not finite" if found.dtype.kind == "f" else "")
        )
    return found.astype(np.promote_types(found.dtype, np.float32))


def draw_pairs(
    teacher: Density, key: Array | int, count: int, context: Any = None, *, batch_size: int = 4096
) -> Pairs:
    """Latents of a density, what it makes of them, and log p of that.

    `jflow.fit(flow, pairs, key=0)` then fits another flow to them:

    - a continuous one to straight lines between them ("reflow", Liu et al., 2023,
      https://arxiv.org/abs/2209.03003): a few steps solve it. With `variables=teacher.variables`
      it goes on from the teacher.
    - any other flow as a student of one pass; see `train.Distillation`.

    Args:
      teacher: a flow with its variables.
      key: a JAX random key or a whole number.
      count: how many pairs, N.
      context: of a conditional flow, for all of them or each, (N, *context_shape).
      batch_size: how many at a time.

    Raises:
      TypeError: the teacher is no density.
      ValueError: the flow is of whole numbers, or the context has another shape.
    """
    check_counts("draw_pairs", count=count, batch_size=batch_size)
    if not isinstance(teacher, Density):
        raise TypeError(
            f"draw_pairs: teacher must be a jflow.Density; got {type(teacher).__name__}. That of a "
            "table has one of numbers inside: table_density.density"
        )
    flow = teacher.flow
    if flow.integers is not None:
        raise ValueError(
            "draw_pairs: the teacher must be of continuous values; of this flow, points are whole "
            "numbers, which many latents lead to"
        )
    (context,) = arrays(context)
    key = as_key("draw_pairs", key)
    if not check_batch_of(flow.context_shape, context, (count,)):
        repeat = lambda shape, array: jnp.broadcast_to(array, (count, *shape))  # noqa: E731
        context = each(repeat, flow.context_shape, context)
    size, exact = min(batch_size, count), flow.bijector.log_det_kinds == {"exact"}
    parts = []
    for i in range(-(-count // size)):
        rows = np.minimum(np.arange(i * size, (i + 1) * size), count - 1)
        own = jax.tree.map(lambda array, rows=rows: array[rows], context)
        base, noise = jax.random.split(jax.random.fold_in(key, i))
        z = compiled.draw(flow, "sample_latents", teacher.variables, base, (size,), own)
        y, log_det, log_base = compiled.apply(
            flow, "pulled_back", teacher.variables, z, own, rng=noise
        )
        check_converged(flow.bijector, flow.bijector.forward_kind, (y, len(flow.event_shape)))
        parts.append((y, own, z, log_base - log_det if exact else None))
    return Pairs(*jax.tree.map(lambda *a: np.concatenate(a)[:count], *parts))
