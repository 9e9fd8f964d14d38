"""What to look at when a flow trains badly: conditions, saturation, round trips, by layer."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax import Array
from jax.typing import ArrayLike

from jflow.bijectors.walk import rebuild
from jflow.distributions.density import Density
from jflow.distributions.examples import check_examples
from jflow.distributions.flow import Flow
from jflow.functional.arguments import as_key
from jflow.functional.arrays import as_wide


@dataclass(frozen=True)
class Health:
    """What the layers of a density say of themselves, on one batch.

    Attributes:
      layers: of what is reported ("condition", "saturation", and what else layers report), the
        values by the path of the layer: one, or one for each layer of a `Repeat`.
      round_trip: the largest |y - f(f^-1(y))| of the batch; of integers, in whole ones.
      log_prob: (N,), of the batch, in nats.
    """

    layers: dict[str, dict[str, np.ndarray]]
    round_trip: float
    log_prob: np.ndarray

    def worst(self, name: str) -> tuple[str, float]:
        """The path and the largest value of what is reported under a name.

        Raises:
          KeyError: no layer reports that.
        """
        values = self.layers[name]
        path = max(values, key=lambda path: float(np.max(values[path])))
        return path, float(np.max(values[path]))

    def __str__(self) -> str:
        finite = np.isfinite(self.log_prob)
        lines = [
            f"round trip: largest error {self.round_trip:.1e}",
            f"log_prob: {finite.sum()} of {finite.size} finite, mean "
            f"{self.log_prob[finite].mean() if finite.any() else np.nan:.4g} nats",
        ]
        for name, values in self.layers.items():
            lines.append(f"{name}:")
            for path, array in values.items():
                among = f" (largest of {array.size} layers: {int(np.argmax(array))})"
                lines.append(f"  {path:56s} {np.max(array):.4g}{among if array.size > 1 else ''}")
        return "\n".join(lines)


def health(
    density: Density,
    y: ArrayLike,
    context: Any = None,
    *,
    key: Array | int | None = None,
) -> Health:
    """Condition numbers, saturation, and the round trip of a density, layer by layer, on a batch.

    - condition: of the matrix of every 1x1 convolution and linear layer. Beyond about 1e4, float32
      has few digits left in its inverse.
    - saturation: the share of scalars in bounded scales near their bound, or beyond the ends of
      splines, where the layer cannot bend them further.
    - what iterative layers report of their solvers, and contractions of their norms.

    Args:
      density: what to look at.
      y: (N, *event).
      context: (N, *context_shape), or a dict of such, for a conditional flow.
      key: for noise; None for a fixed one.

    Raises:
      TypeError, ValueError: y does not fit the flow.
    """
    points, contexts = check_examples("y", density.flow, y, context)
    key = as_key("health", 0 if key is None else key)
    # Layers whose activations are computed backwards keep their reports to themselves.
    flow = rebuild(
        density.flow, lambda name, v: "store" if name == "memory" and v == "reversible" else v
    )
    values, log_prob, round_trip = _look(flow, density.variables, points, contexts, key)
    layers: dict[str, dict[str, np.ndarray]] = {}
    for path, value in flatten_dict(values).items():
        place = ".".join(path[:-1]).removeprefix("bijector.")
        layers.setdefault(path[-1], {})[place] = np.asarray(value)
    return Health(layers, float(round_trip), np.asarray(log_prob))


@partial(jax.jit, static_argnums=0)
def _look(flow: Flow, variables: Any, y: Array, context: Any, key: Array) -> Any:
    rngs = {"noise": key}
    log_prob, reports = flow.apply(
        variables, y, context, method="log_prob", mutable=["solver"], rngs=rngs
    )
    z = flow.apply(variables, y, context, method="latents", rngs=rngs)
    back: Any = flow.apply(variables, z, context, method="from_latents", rngs=rngs)
    largest = jnp.max(jnp.abs(as_wide(back) - as_wide(y)))
    return reports.get("solver", {}), log_prob, largest  # type: ignore[union-attr]
