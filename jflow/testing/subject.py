"""What the checks of one bijector share: its points, its variables, its programs."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from jflow.bijectors.base import Bijector
from jflow.distributions.init import init
from jflow.testing.mistakes import explain
from jflow.testing.points import (
    BATCH,
    COUNT,
    Sampler,
    draw,
    draw_context,
    in_dtype,
    moved,
    rounded_variables,
)
from jflow.testing.programs import Programs
from jflow.testing.report import Checks, describe

LOG_DET = {"float32": 1e-4, "float64": 1e-10}
ROUND_TRIP = {"float32": 1e-4, "float64": 1e-9}
_OPPOSITE = {"float32": 1e-5, "float64": 1e-9}


class Subject:
    """A bijector, with points and variables to check it at.

    Attributes:
      wide: the dtype of the exact checks.
      narrow: that of the others.
      x, y, context: points of the base side, of the data side, and their contexts, (COUNT, ...).
      variables: with parameters off their first values.
      random_forward: whether a point has several images, of which forward draws one.
      random_inverse: the same of inverse.
    """

    def __init__(
        self,
        checks: Checks,
        bijector: Bijector,
        event_shape: tuple[int, ...],
        precisions: tuple[str, str],
        seed: int,
    ):
        """Nothing is drawn yet."""
        self.checks, self.bijector, self.event_shape = checks, bijector, event_shape
        self.latent_shape = bijector.latent_shape(event_shape)
        self.wide, self.narrow = precisions
        self.random = np.random.default_rng(seed)
        self.programs = Programs(bijector, jax.random.key(seed))
        self.random_forward = bijector.forward_kind == "random"
        self.random_inverse = bijector.inverse_kind == "random"
        self.has_forward = bijector.forward_kind != "missing"
        self.variables: dict[str, Any] = {}

    def draw(
        self,
        context: ArrayLike | None,
        data: ArrayLike | Sampler | None,
        base: ArrayLike | Sampler | None,
    ) -> None:
        """Draws the points."""
        self.y = draw("data", data, self.random, self.event_shape)
        self.x = draw("base", base, self.random, self.latent_shape)
        self.context = draw_context(context, self.random, 2 if self.bijector.takes_sequences else 1)

    def start(self, variables: Mapping[str, Any] | None, scale: float) -> bool:
        """Makes the variables, unless they are given; False if that failed."""
        name = "init makes finite variables"
        if variables is None:
            y, context = self.batch(self.y), self.batch(self.context)
            try:
                made = init(self.bijector, self.programs.key, in_dtype(y, self.wide), context)
            except Exception as error:
                self.checks.failed(name, error, explain(error, self.bijector))
                return False
            variables = rounded_variables(moved(made, scale, self.random))
        leaves = jax.tree.leaves_with_path(dict(variables))
        bad = [jax.tree_util.keystr(path) for path, leaf in leaves if not _all_finite(leaf)]
        self.checks.holds(name, not bad, ", ".join(bad), "Start parameters at finite values")
        self.variables = {"params": {}, **in_dtype(dict(variables), self.wide)}
        return True

    @property
    def shared(self) -> np.ndarray | None:
        """One context (C,), for all points."""
        return None if self.context is None else self.context[0]

    @property
    def all_shared(self) -> np.ndarray | None:
        """The shared context, repeated for each point."""
        return None if self.context is None else np.repeat(self.context[:1], COUNT, axis=0)

    @staticmethod
    def batch(values: Any) -> Any:
        """(COUNT, ...) as a batch of two axes."""
        return None if values is None else np.reshape(values, (*BATCH, *np.shape(values)[1:]))

    @staticmethod
    def rows(values: np.ndarray) -> np.ndarray:
        """A batch of two axes as (COUNT, ...)."""
        return values.reshape(COUNT, *values.shape[2:])

    def check_round_trip(
        self, side: str, dtype: str, start: Any, back: Any, log_det: Any, opposite: Any, at: Any
    ) -> None:
        """From a side ("x" or "y") to the other and back: the same point, opposite log_dets."""
        there, again = ("forward", "inverse") if side == "x" else ("inverse", "forward")
        if self.random_inverse if side == "x" else self.random_forward:
            self.checks.notes.append(
                f"{again}({there}({side})) = {side}: {again} draws one of several"
            )
            return
        self.checks.close(
            f"{again}({there}({side})) = {side}, {dtype}", back, start, ROUND_TRIP[dtype], at,
            "the directions do not undo each other",
        )  # fmt: skip
        kind = self.bijector.log_det_kind
        if kind != "exact" and not (kind == "bound" and self.random_inverse):
            return
        self.checks.close(
            f"log_dets of {side} and {there}({side}) are opposite, {dtype}", opposite, -log_det,
            ROUND_TRIP[dtype] + _OPPOSITE[dtype] * np.abs(log_det), at,
            "one of the two log_dets is wrong",
        )  # fmt: skip

    def at(self, **points: Any) -> Any:
        """Names the i-th point, for a report."""
        return lambda i: describe(**{k: None if v is None else v[i] for k, v in points.items()})


def _all_finite(leaf: Any) -> bool:
    leaf = np.asarray(leaf)
    return not np.issubdtype(leaf.dtype, np.floating) or bool(np.isfinite(leaf).all())
