"""What holds in the narrow dtype, on batches: agreement, independence, far points, gradients."""

from typing import Any

import jax
import numpy as np

from jflow.functional.supports import Circle, Integers, Interval, Support, entries
from jflow.testing.mistakes import explain
from jflow.testing.points import COUNT, direction_like, far_points, in_dtype, rounded
from jflow.testing.subject import LOG_DET, ROUND_TRIP, Subject

# Of finite differences, which are exact to 1e-6 or so; the gradients are float32.
_STEP = 1e-5


def check_robustness(subject: Subject, gradient: float) -> None:
    """One program of a batch, run on points near and far, on NaN, and on its own results."""
    try:
        _Batch(subject, gradient).check()
    except Exception as error:
        name = f"a batch compiles and differentiates, {subject.narrow}"
        subject.checks.failed(name, error, explain(error, subject.bijector))


class _Batch:
    """The batch program in the narrow dtype; everything is (COUNT, ...) outside of it."""

    def __init__(self, subject: Subject, gradient: float):
        self.subject, self.checks, self.dtype = subject, subject.checks, subject.narrow
        self.gradient = gradient
        self.variables = in_dtype(subject.variables, self.dtype)
        latent = subject.random.standard_normal((COUNT, *subject.latent_shape))
        self.weights = latent, subject.random.uniform(0.5, 1.5, COUNT)

    def run(self, x: Any, y: Any, context: Any, weights: Any = None) -> Any:
        """(y, log_det), (x, log_det) and gradients (by parameters, by y)."""
        s = self.subject
        x = x if s.has_forward else None
        given = (x, y, context, *(weights or self.weights))
        x, y, context, *weights = (
            None if v is None else in_dtype(s.batch(v), self.dtype) for v in given
        )
        shared = None if s.shared is None else in_dtype(s.shared, self.dtype)
        ahead, back, (by_params, by_y) = s.programs.both(
            self.variables, x, y, shared, context, weights
        )
        ahead = None if ahead is None else tuple(map(s.rows, ahead))
        return ahead, tuple(map(s.rows, back)), (by_params, s.rows(by_y))

    def check(self) -> None:
        s = self.subject
        ahead, back, gradients = self.run(s.x, s.y, s.context)
        self._check_dtypes(ahead, back)
        self._check_agreement(ahead, back)
        self._check_round_trips(ahead)
        self._check_rows(back)
        self._check_far()
        self._check_support()
        self._check_gradients(*gradients)

    def _check_dtypes(self, ahead: Any, back: Any) -> None:
        found = {str(a.dtype) for a in (*(ahead or ()), *back)}
        fix = f"results are {', '.join(sorted(found))}: a constant or a parameter promotes them"
        self.checks.holds(f"{self.dtype} gives {self.dtype}", found == {self.dtype}, fix=fix)

    def _check_agreement(self, ahead: Any, back: Any) -> None:
        """A batch in the narrow dtype against single points in the wide one."""
        s = self.subject
        y, context, shared = (in_dtype(v, s.wide) for v in (s.y, s.context, s.all_shared))
        _, *wanted = s.programs.inverse(s.variables, y, context)
        if not s.random_inverse:
            self._close("inverse", back, wanted, s.at(y=y, context=context))
        if ahead is None or s.random_forward:
            return
        x = in_dtype(s.x, s.wide)
        arrays = (s.batch(v) for v in (x, np.zeros_like(x), shared))
        *wanted, _ = map(s.rows, s.programs.forward(s.variables, *arrays))
        self._close("forward, one context for all" if s.context is not None else "forward",
                    ahead, wanted, s.at(x=x, context=shared))  # fmt: skip

    def _close(self, direction: str, found: Any, wanted: Any, at: Any) -> None:
        against = f"{self.dtype} batch = {self.subject.wide} points"
        fix = (
            "either the batch is not treated point by point (a sum, a mean or a context along the "
            f"wrong axis), or {self.dtype} loses digits; a check with dtype='float64' tells which"
        )
        value, log_det = wanted
        self.checks.close(f"{direction}: {against}", found[0], value,
                          ROUND_TRIP[self.dtype] * (1 + np.abs(value)), at, fix)  # fmt: skip
        if self.subject.bijector.log_det_kind == "exact":
            self.checks.close(f"log_det of {direction}: {against}", found[1], log_det,
                          LOG_DET[self.dtype], at, fix)  # fmt: skip

    def _check_round_trips(self, ahead: Any) -> None:
        s, dtype = self.subject, self.dtype
        if ahead is None:
            return
        _, (latents, log_det), _ = self.run(s.x, s.y, s.all_shared)
        (again, behind), (back, opposite), _ = self.run(latents, ahead[0], s.all_shared)
        s.check_round_trip("x", dtype, s.x, back, ahead[1], opposite, s.at(x=s.x))
        s.check_round_trip("y", dtype, s.y, again, log_det, behind, s.at(y=s.y))

    def _check_rows(self, back: Any) -> None:
        """Half of the rows become NaN: those stay NaN, and the others stay as they are."""
        s, half = self.subject, COUNT // 2
        x, y = s.x.copy(), s.y.copy()
        x[half:], y[half:] = np.nan, np.nan
        ahead, found, _ = self.run(x, y, s.context)
        values = (found[0], *(() if ahead is None else ahead[:1]))
        self.checks.holds(
            "NaN stays NaN", all(np.isnan(v[half:]).all() for v in values),
            fix="a comparison or a clip makes a number of NaN: missing values pass unnoticed",
        )  # fmt: skip
        at, fix = s.at(y=s.y), "another row of the batch changes the result of this one"
        for what, result, before in zip(("values", "log_dets"), found, back, strict=True):
            wanted = before[:half]
            allowed = 1e-5 * (1 + np.abs(wanted))
            name = f"{what} do not depend on other rows"
            self.checks.close(name, result[:half], wanted, allowed, at, fix)

    def _check_far(self) -> None:
        s = self.subject
        y = far_points(s.event_shape)
        weights = np.full((COUNT, *s.latent_shape), 1e-8), np.ones(COUNT)
        _, (latents, log_det), (_, by_y) = self.run(s.x, y, s.all_shared, weights)
        at, fix = s.at(y=y), "it overflows: bound the exponent, or keep the tails linear"
        log_det = np.where(np.isneginf(log_det), 0, log_det)
        self.checks.finite("far points: finite values", latents, at, fix)
        self.checks.finite("far points: finite log_dets, or -inf", log_det, at, fix)
        self.checks.finite("far points: finite gradients", by_y, at, fix)

    def _check_support(self) -> None:
        """If the base side may be the line, all of it is taken, and lands where it should."""
        s = self.subject
        if not s.has_forward or s.random_forward:
            return
        try:
            declared = s.bijector.data_support(Interval(), s.event_shape)
        except ValueError:
            return  # it takes less, and says so
        x = rounded(3 * s.random.standard_normal((COUNT, *s.latent_shape)))
        (y, log_det), _, _ = self.run(x, s.y, s.all_shared)
        at = s.at(x=x)
        fix = (
            "data_support takes the line, and forward does not: a flow would lose that part of its "
            "base. Define data_support and latent_support"
        )
        self.checks.finite("forward takes the line, as data_support says: values", y, at, fix)
        if s.bijector.log_det_kind == "bound":  # which loses what lies outside
            log_det = np.where(np.isneginf(log_det), 0, log_det)
        self.checks.finite("forward takes the line: log_dets", log_det, at, fix)
        ends = [_ends(part) for part in entries(declared, s.event_shape[-1] if y.ndim > 1 else 1)]
        low, high = np.transpose(ends)
        low, high = (low, high) if y.ndim > 1 else (low[0], high[0])
        beyond = np.maximum(np.maximum(low - y, y - high), 0)
        fix = f"data_support says {declared}: forward goes beyond it"
        self.checks.close("forward lands in data_support", beyond, 0, 1e-5, at, fix)

    def _check_gradients(self, by_params: Any, by_y: np.ndarray) -> None:
        leaves = [(jax.tree_util.keystr(path), np.asarray(leaf, np.float64))
                  for path, leaf in jax.tree.leaves_with_path(by_params)]  # fmt: skip
        bad = [name for name, leaf in leaves if not np.isfinite(leaf).all()]
        none = [name for name, leaf in leaves if not np.abs(leaf).max() > 0]
        self.checks.holds("every parameter has a finite gradient", not bad, ", ".join(bad))
        self.checks.holds(
            "every parameter has a gradient", not none, ", ".join(none),
            "nothing depends on it: look for stop_gradient, rounding or comparisons, or a "
            "parameter that is created and not used",
        )  # fmt: skip
        if not (bad or none) and self.subject.bijector.log_det_kind == "exact":
            self._check_differences(by_params, by_y)

    def _check_differences(self, by_params: Any, by_y: np.ndarray) -> None:
        """Gradients along random directions, against differences of values in the wide dtype."""
        s = self.subject
        if s.wide != "float64":
            self.checks.notes.append("gradients = differences, which take float64")
            return
        params, y = s.variables["params"], in_dtype(s.y, s.wide)
        along, step = direction_like(params, s.random), direction_like(y, s.random)
        self._compare(
            "parameters", by_params, along, lambda t: self._loss(_plus(params, along, t), y)
        )
        self._compare("y", by_y, step, lambda t: self._loss(params, y + t * step))

    def _compare(self, name: str, gradient: Any, along: Any, loss: Any) -> None:
        """A derivative along a direction lies between the differences to both sides.

        They are equal but where the step meets a kink, as of rectified units.
        """
        found, size = _dot(gradient, along), np.sqrt(_dot(gradient, gradient))
        below, here, above = (loss(t) for t in (-_STEP, 0.0, _STEP))
        wanted = np.clip(found, *sorted(((here - below) / _STEP, (above - here) / _STEP)))
        fix = "a part of the derivative is missing: look for stop_gradient and custom derivatives"
        allowed = self.gradient * (size + 1e-3)
        name = f"gradients by {name} = differences"
        self.checks.close(name, found, wanted, allowed, lambda _: "all points", fix)

    def _loss(self, params: Any, y: np.ndarray) -> float:
        s = self.subject
        variables = {**s.variables, "params": params}
        _, x, log_det = s.programs.inverse(variables, y, in_dtype(s.context, s.wide))
        inside = np.where(np.isneginf(log_det), 0, log_det)
        return float(np.sum(self.weights[0] * x) + np.sum(self.weights[1] * inside))


def _ends(support: Support) -> tuple[float, float]:
    """Between which numbers it lies."""
    if isinstance(support, Interval | Integers):
        return support.low, support.high
    return (-np.pi, np.pi) if isinstance(support, Circle) else (-np.inf, np.inf)


def _dot(a: Any, b: Any) -> float:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return float(sum(np.sum(np.asarray(p, np.float64) * np.asarray(q)) for p, q in pairs))


def _plus(params: Any, along: Any, step: float) -> Any:
    return jax.tree.map(lambda p, v: (p + step * v).astype(p.dtype), params, along)
