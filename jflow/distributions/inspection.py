"""What a density is made of, in words, and what each of its layers does."""

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jflow.bijectors.base import Bijector
from jflow.bijectors.multiscale import MultiScale
from jflow.bijectors.walk import inside, layers
from jflow.distributions import compiled
from jflow.distributions.arguments import arrays, noise
from jflow.distributions.paths import Paths, paths
from jflow.functional.arguments import check_counts

Row = tuple[str, int, tuple[int, ...], tuple[int, ...], int, str, str, str]
_TITLES = "layer", "times", "data side", "base side", "parameters", "log_det", "forward", "inverse"


@partial(jax.tree_util.register_dataclass, data_fields=["values", "log_det"], meta_fields=["name"])
@dataclass(frozen=True, eq=False)
class Step:
    """What a layer makes of points on their way to the base.

    Attributes:
      name: of the layer; empty for the data.
      values: after it, (*batch, *shape).
      log_det: what it adds to log p, (*batch), nats.
    """

    name: str
    values: Array
    log_det: Array


class Summary(NamedTuple):
    """The layers of a density, from the data to the base; prints as a table.

    Attributes:
      title: what it is, in a line.
      rows: name, how often it is repeated, event shapes of its data and base sides, how many
        parameters all of these have, and the kinds of log_det, forward and inverse.
    """

    title: str
    rows: tuple[Row, ...]

    def _cells(self) -> list[list[str]]:
        told = lambda cell: f"{cell:,}" if isinstance(cell, int) else _shape(cell)  # noqa: E731
        return [[told(cell) for cell in row] for row in self.rows]

    def __str__(self) -> str:
        lines = [list(_TITLES), *self._cells()]
        widths = [max(len(line[i]) for line in lines) for i in range(len(_TITLES))]
        text = ("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines)
        return "\n".join([self.title, *(line.rstrip() for line in text)])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{title}</th>" for title in _TITLES)
        body = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in self._cells())
        rows = "".join(f"<tr>{row}</tr>" for row in body)
        return f"<p>{html.escape(self.title)}</p><table><tr>{head}</tr>{rows}</table>"


class Inspected:
    """What a `Density` tells of itself."""

    flow: Any
    variables: Mapping[str, Any]

    def _check_inverse(self, found: Array, ndim: int, y: Array, context: Any) -> None:
        raise NotImplementedError

    @property
    def num_params(self) -> int:
        """How many numbers are trained."""
        return count_of(self.variables)

    def summary(self) -> Summary:
        """The layers, from the data to the base: print it, or end a notebook's cell with it."""
        params = self.variables.get("params", {})
        rows = list(
            _rows(self.flow.bijector, inside(self.variables, "bijector"), self.flow.event_shape)
        )
        for name in sorted(set(params) - {"bijector"}):  # a base, or an encoder, with parameters
            rows.append((name, 1, (), (), _size(params[name]), "", "", ""))
        return Summary(repr(self), tuple(rows))

    def trajectory(
        self, y: ArrayLike, context: Any = None, *, key: Array | int | None = None
    ) -> tuple[Step, ...]:
        """Points on their way from the data to the base, layer by layer.

        The first step is y, the last one the latents. The log_dets, and log p of the latents under
        the base, are log p(y) together. Layers of a `Repeat` come one by one, those of a
        `MultiScale` and of an `Invert` together.

        Args:
          y: (*batch, *event).
          context: for a conditional flow.
          key: for flows that draw noise on the way; that noise is another than the one that
            `log_prob` and `latents` draw by the same key.
        """
        given = arrays(y, context)
        key = noise("trajectory", self.flow.bijector, "inverse", key)
        values, log_dets = compiled.apply(self.flow, "trajectory", self.variables, *given, rng=key)
        self._check_inverse(values[-1], len(self.flow.latent_shape), *given)
        names = ("", *(layer.name for layer in layers(self.flow.bijector)))
        return tuple(map(Step, names, values, log_dets))

    def paths(
        self, z: ArrayLike, context: Any = None, *, times: int = 33, key: Array | int | None = None
    ) -> Paths:
        """Latents z on their way to the data, with their densities: of continuous flows.

        Args:
          z: (*batch, *latent), such as draws of the base, or `density.latents(y)`.
          context: for a conditional flow.
          times: how many, from 0 to 1.
          key: for traces that are estimated.

        Raises:
          TypeError: the layer nearest to the base is no `Continuous`.
        """
        check_counts("paths", 2, times=times)
        (z, context), bijector = arrays(z, context), self.flow.bijector
        key = noise("paths", bijector, "forward", key)
        key = jax.random.key(0) if key is None else key
        return paths(self.flow, self.variables, z, context, times, key)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({told(self.flow)}, {self.num_params:,} parameters)"

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()


def told(flow: Any) -> str:
    """A flow in a line."""
    name = flow.recipe.name if flow.recipe else type(flow.bijector).__name__
    shapes: Any = flow.context_shape
    shapes = dict(shapes) if isinstance(shapes, Mapping) else shapes
    context = "" if shapes is None else f", context_shape={shapes}"
    integers = "" if flow.integers is None else f", {flow.integers}"
    return f"{name}, event_shape={flow.event_shape}{integers}{context}"


def count_of(variables: Mapping[str, Any]) -> int:
    """How many parameters there are."""
    return _size(variables.get("params", {}))


def _size(tree: Any) -> int:
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(tree))


def _rows(
    bijector: Bijector, variables: Mapping[str, Any], shape: tuple[int, ...], times: int = 1,
    place: str = "",
) -> Iterator[Row]:  # fmt: skip
    """Of layers, and, after a `MultiScale`, of those of its levels."""
    for layer in layers(bijector, variables, together=True, times=times, place=place):
        part, latent = layer.bijector, layer.bijector.latent_shape(shape)
        levels = part.levels if isinstance(part, MultiScale) else ()
        each = [inside(layer.variables, f"levels_{i}") for i in range(len(levels))]
        own = count_of(layer.variables) - sum(map(count_of, each))
        kinds = part.log_det_kind, part.forward_kind, part.inverse_kind
        yield (layer.name, layer.times, shape, latent, own, *kinds)
        here = shape
        for i, level in enumerate(levels):
            yield from _rows(level, each[i], here, layer.times, f"{layer.place}.{i}.".lstrip("."))
            *pixels, channels = level.latent_shape(here)
            here = (*pixels, channels // 2)
        shape = latent


def _shape(cell: Any) -> str:
    return "x".join(map(str, cell)) if isinstance(cell, tuple) else cell
