"""Columns of a table as a flow sees them, on the device: numbers of cells to the line, and back.

A cell x became t = (x - offset) / unit on the host; here, where noise is drawn,

    v = t + u step / unit,    y = (curve(v) - center) / scale,    u uniform on [0, 1)

so that log p(x) = log p(y) + log|dy/dx| for a continuous column, and for one of a grid (integers,
categories, rounded numbers) log P(x) >= E_u log p(y) + log|dy/dx| + log(step), of which the last is
left out: log_prob is that of a density, and of a probability where steps are 1 (Theis et al., 2016,
https://arxiv.org/abs/1511.01844).

Programs are compiled for the layout of a table; its numbers are their arguments, so that tables
with columns of the same kinds share them.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# How near v may come to the ends of an interval: numbers at its ends are there, too.
_EDGE = 1e-6
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
# Kinds of columns in a layout; others are numbers of categories.
NUMBER, CIRCLE = 0, -1

# By name, one number for each column: "width" of a cell of its grid in v, "center", "scale",
# "log_unit" of the Jacobian; and truths: whether its curve is "log", "asinh" or "logit".
Numbers = Mapping[str, Any]


class Layout(NamedTuple):
    """What programs over the rows of a table are compiled for.

    Attributes:
      kinds: of the modelled columns: NUMBER, CIRCLE, or how many categories.
      conditionals: whether cells may be missing, or any columns be given.
    """

    kinds: tuple[int, ...]
    conditionals: bool

    @property
    def sizes(self) -> list[int]:
        """How many numbers tell each column to a network."""
        return [2 if kind == CIRCLE else kind or 1 for kind in self.kinds]


def spread(numbers: Numbers, t: Array, key: Array) -> tuple[Array, Array]:
    """y and log|dy/dx| of t, (..., D) each, with new noise in the cells of grids."""
    noise = jax.random.uniform(key, t.shape, t.dtype)
    return _curved(numbers, t + _like(numbers, t)["width"] * noise)


def _like(numbers: Numbers, t: Array) -> dict[str, Array]:
    """The numbers of each column, in the shape of t."""
    arrays = {name: jnp.asarray(value) for name, value in numbers.items()}
    dtypes = {name: bool if v.dtype == bool else t.dtype for name, v in arrays.items()}
    return {n: jnp.broadcast_to(v.astype(dtypes[n]), t.shape) for n, v in arrays.items()}


def _curved(numbers: Numbers, v: Array) -> tuple[Array, Array]:
    number = _like(numbers, v)
    inside = jnp.clip(jnp.where(number["logit"], v, 0.5), _EDGE, 1 - _EDGE)
    above = jnp.where(number["log"], v, 1.0)
    bent = jnp.where(number["asinh"], v, 0.0)
    y = jnp.where(number["logit"], jnp.log(inside) - jnp.log1p(-inside), v)
    y = jnp.where(number["log"], jnp.log(above), y)
    y = jnp.where(number["asinh"], jnp.arcsinh(bent), y)
    log_det = -jnp.log(inside) - jnp.log1p(-inside) - jnp.where(number["logit"], 0, 2 * math.log(2))
    log_det -= jnp.log(above) + jnp.log(jnp.hypot(1.0, bent)) + number["log_unit"]
    return (y - number["center"]) / number["scale"], log_det


def gather(numbers: Numbers, y: Array) -> Array:
    """v of y: where the curve came from, (..., D)."""
    number = _like(numbers, y)
    f = y * number["scale"] + number["center"]
    v = jnp.where(number["logit"], jax.nn.sigmoid(f), f)
    v = jnp.where(number["log"], jnp.exp(jnp.where(number["log"], f, 0)), v)
    return jnp.where(number["asinh"], jnp.sinh(jnp.where(number["asinh"], f, 0)), v)


def seen(
    layout: Layout, numbers: Numbers, values: Array, given: Array | None, asked: Array, key: Array
) -> tuple[Array, Array | None, Array]:
    """What a flow is given of rows: y (..., D), the context, and log|dy/dx| (...).

    A cell is asked for, or it is known, and told by the context, or it is missing. Where it is
    not asked for, y is noise e, N(0, 1), and -log N(e) is in log|dy/dx|: since noise has
    nothing to do with the rest, E log p(y) - log N(e) is at most log p of what is asked for.

    Args:
      layout: of the table.
      numbers: of the table.
      values: t, NaN where a cell is missing.
      given: what tells the given columns; None if there are none.
      asked: which cells are asked for, (..., D); where they are missing, they are not.
      key: for noise.
    """
    first, second = jax.random.split(key)
    missing = jnp.isnan(values)
    whole = jnp.where(missing, 0.5, values)
    y, log_det = spread(numbers, whole, first)
    if not layout.conditionals:
        return y, given, log_det.sum(-1)
    asked = asked & ~missing
    noise = jax.random.normal(second, y.shape, y.dtype)
    y = jnp.where(asked, y, noise)
    log_det = jnp.where(asked, log_det, noise**2 / 2 + _HALF_LOG_2PI)
    return y, context(layout, numbers, values, given, asked), log_det.sum(-1)


@partial(jax.jit, static_argnums=0)
def context(
    layout: Layout, numbers: Numbers, values: Array, given: Array | None, asked: Array
) -> Array | None:
    """What tells a flow the given columns and, of others, the cells that are known."""
    if not layout.conditionals:
        return given
    missing = jnp.isnan(values)
    known = ~missing & ~asked
    of_channel = np.repeat(np.arange(len(layout.kinds)), layout.sizes)
    cells = channels(layout, numbers, jnp.where(missing, 0.5, values))
    cells = jnp.where(known[..., of_channel], cells, 0)
    flags = [known.astype(values.dtype), (missing & ~asked).astype(values.dtype)]
    return jnp.concatenate([*([] if given is None else [given]), cells, *flags], -1)


@partial(jax.jit, static_argnums=0)
def channels(layout: Layout, numbers: Numbers, t: Array) -> Array:
    """What tells cells to a network, (..., C): categories one by one, angles as points."""
    middle, parts = t + _like(numbers, t)["width"] / 2, []
    y, _ = _curved(numbers, middle)
    for d, kind in enumerate(layout.kinds):
        if kind > 0:
            place = jnp.round(t[..., d] * kind).astype(int)
            parts.append(jax.nn.one_hot(place, kind, dtype=t.dtype))
        elif kind == CIRCLE:
            angle = 2 * jnp.pi * middle[..., d]
            parts.append(jnp.stack([jnp.sin(angle), jnp.cos(angle)], -1))
        else:
            parts.append(y[..., d : d + 1])
    return jnp.concatenate(parts, -1)
