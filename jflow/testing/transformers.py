"""The check of transformers: scalar functions whose parameters are given to them."""

import math
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from jflow.testing.kinds import has_loop_to_tolerance
from jflow.testing.points import FAR, in_dtype, precisions, rounded
from jflow.testing.programs import numpy_of
from jflow.testing.report import Checks, Report, describe
from jflow.testing.subject import LOG_DET, ROUND_TRIP
from jflow.transformers.base import Transformer

_COUNT = 96
_FORWARD, _INVERSE = "forward_and_log_det", "inverse_and_log_det"


def check_transformer(
    transformer: Transformer,
    *,
    x: ArrayLike | None = None,
    params: ArrayLike | None = None,
    dtype: DTypeLike | None = None,
    large: float = 20.0,
    seed: int = 0,
) -> Report:
    """Checks that a transformer is what it says, in both directions.

    - the log-derivative, if exact, is the logarithm of autodiff's slope (1e-10 in float64; that of
      forward in float32 is within 1e-4), and the directions undo each other (1e-9 in float64;
      forward(inverse(y)) = y within 1e-4 in float32);
    - each scalar is treated by itself, and NaN stays NaN;
    - a point outside of `domain` or `codomain` has log-derivative -inf, a finite value, and a
      gradient of zero; at an end that belongs to it, values are finite;
    - values and gradients, by x and by parameters, are finite from 0 to +-1e6, and with large
      parameters;
    - results have the shape of x and its dtype; `forward_kind` and `inverse_kind` are true.

    Args:
      transformer: what is checked.
      x: points of the domain, (N,); None for normals, or uniforms in a bounded domain.
      params: parameters to check at, (N, num_params); None for standard normals.
      dtype: None checks exactness in float64 and the rest in float32; "float32" or "float64" all
        in that one.
      large: the size of large parameters.
      seed: of what is drawn.

    Returns:
      The properties that were checked, with their errors: a table that prints.

    Raises:
      ContractError: properties do not hold; it names each, with its largest error and the point.
      TypeError: not a transformer.
      ValueError: points or parameters of the wrong shape.
    """
    if not isinstance(transformer, Transformer):
        raise TypeError(
            "check_transformer: transformer must be an instance of a jflow.transformers."
            f"Transformer; got {transformer!r}"
        )
    wide, narrow = precisions(dtype)
    with jax.enable_x64(True) if wide == "float64" else nullcontext():
        check = _Check(transformer, np.random.default_rng(seed), wide, narrow)
        check.draw(x, params)
        try:
            check.structure()
            check.exactness()
            check.robustness(large)
        except Exception as error:
            check.checks.failed("compiles and differentiates", error, f"{error!r}")
        return check.checks.report()


class _Check:
    def __init__(self, transformer: Transformer, random: np.random.Generator, *dtypes: str):
        self.transformer, self.random = transformer, random
        self.wide, self.narrow = dtypes
        self.checks = Checks(repr(transformer))
        self.slopes, self.gradients = jax.jit(self._slopes), jax.jit(self._gradients)

    def draw(self, x: ArrayLike | None, params: ArrayLike | None) -> None:
        shape = (_COUNT, self.transformer.num_params)
        x = points_in(self.random, *self.transformer.domain) if x is None else np.asarray(x)
        params = self.random.standard_normal(shape) if params is None else np.asarray(params)
        if x.ndim != 1 or params.ndim != 2 or params.shape[1] != shape[1]:
            raise ValueError(
                f"x must be (N,) and params (N, {shape[1]}); got {x.shape} and {params.shape}"
            )
        self.x = rounded(np.resize(x.astype(np.float64), _COUNT))
        self.params = rounded(np.resize(params.astype(np.float64), shape))

    def structure(self) -> None:
        """Shapes, dtypes and kinds, by tracing."""
        dtype = jnp.dtype(self.narrow)
        x = jax.ShapeDtypeStruct((2, 3), dtype)
        params = jax.ShapeDtypeStruct((2, 3, self.transformer.num_params), dtype)
        for method in (_FORWARD, _INVERSE):
            run = getattr(self.transformer, method)
            jaxpr, results = jax.make_jaxpr(run, return_shape=True)(x, params)
            right = all((r.shape, r.dtype) == ((2, 3), dtype) for r in results)
            name = method.split("_")[0]
            fix = f"got {[(r.shape, str(r.dtype)) for r in results]}; wanted (2, 3) and {dtype}"
            self.checks.holds(f"{name}: shapes and dtypes", right, fix=fix)
            kind = getattr(self.transformer, f"{name}_kind")
            loops = kind == "closed form" and has_loop_to_tolerance(jaxpr.jaxpr, [True] * 2)
            fix = "it runs a loop that stops at a tolerance: declare 'iterative'"
            self.checks.holds(f"{name}_kind is true", not loops, fix=fix)

    def exactness(self) -> None:
        """Slopes and round trips in the wide dtype, and the narrow one against it."""
        wide, narrow = self.wide, self.narrow
        (y, log_det, slope), _ = self._run(self.slopes, self.x, self.x, wide)
        target = rounded(y)
        _, (x, opposite, inverse_slope) = self._run(self.slopes, self.x, target, wide)
        if self.transformer.log_det_kind == "exact":
            self._close("log-derivative of forward is that of the slope", log_det, _log(slope),
                        LOG_DET[wide], wide, x=self.x)  # fmt: skip
            self._close("log-derivative of inverse is that of the slope", opposite,
                        _log(inverse_slope), LOG_DET[wide], wide, y=target)  # fmt: skip
        else:
            kind = self.transformer.log_det_kind
            self.checks.notes.append(f"the log-derivative, which is declared {kind}")
        (again, behind, _), _ = self._run(self.slopes, x, target, wide)
        self._close("forward(inverse(y)) = y", again, target, _relative(wide, target), wide,
                    y=target)  # fmt: skip
        self._close("log-derivatives are opposite", behind, -opposite,
                    _relative(wide, opposite), wide, y=target)  # fmt: skip
        _, (x, _, _) = self._run(self.slopes, self.x, y, wide)
        self._close("inverse(forward(x)) = x", x, self.x, _relative(wide, self.x), wide, x=self.x)
        (found, log_found), (back, _) = self._run(self.gradients, self.x, target, narrow)[0]
        (again, _), _ = self._run(self.gradients, back, target, narrow)[0]
        self._close("forward(inverse(y)) = y", again, target, _relative(narrow, target), narrow,
                    y=target)  # fmt: skip
        self._close(f"forward: {narrow} = {wide}", found, y, _relative(narrow, y), narrow, x=self.x)
        self._close(f"log-derivative: {narrow} = {wide}", log_found, log_det, LOG_DET[narrow],
                    narrow, x=self.x)  # fmt: skip

    def robustness(self, large: float) -> None:
        """Far points, large parameters, NaN, and points outside."""
        t, half = self.transformer, _COUNT // 2
        x, y = self._far(t.domain, t.codomain), self._far(t.codomain, t.domain)
        self._finite("far points", x, y, self.params)
        if t.num_params:
            params = self.random.uniform(-large, large, self.params.shape)
            (y, _), _ = self._run(self.gradients, self.x, self.x, self.narrow, params)[0]
            self._finite("large parameters", self.x, y, params)
        x = self.x.copy()
        x[half:] = np.nan
        results, _ = self._run(self.gradients, x, x, self.narrow)
        whole, _ = self._run(self.gradients, self.x, self.x, self.narrow)
        for (value, _), (wanted, _), name in zip(
            results, whole, ("forward", "inverse"), strict=True
        ):
            self.checks.holds(f"{name}: NaN stays NaN", np.isnan(value[half:]).all())
            self._close(f"{name}: each scalar by itself", value[:half], wanted[:half],
                        1e-5 * (1 + np.abs(wanted[:half])), self.narrow, x=self.x)  # fmt: skip
        for index, interval in enumerate((t.domain, t.codomain)):
            self._outside(index, *interval)

    def _outside(self, index: int, low: float, high: float) -> None:
        """Beyond the ends of an interval, and at ends that do not belong to it."""
        points = [
            p
            for end, way in ((low, -1), (high, 1))
            if math.isfinite(end)
            for p in (end + way, end + 1e6 * way, *(() if self.transformer.closed else (end,)))
        ]
        if not points:
            return
        x, inside = np.resize(points, _COUNT), self.x
        args = (x, inside) if index == 0 else (inside, x)
        results, gradients = self._run(self.gradients, *args, self.narrow)
        (value, log_det), name = results[index], ("domain", "codomain")[index]
        at = lambda i: describe(x=x[i])  # noqa: E731
        self.checks.holds(f"outside of the {name}: -inf", np.isneginf(log_det).all(), "",
                          "give log-derivative -inf where there is no image")  # fmt: skip
        self.checks.finite(f"outside of the {name}: a finite value", value, at)
        self.checks.close(f"outside of the {name}: gradient zero", gradients[index], 0.0, 0.0, at)

    def _far(self, interval: tuple[float, float], other: tuple[float, float]) -> np.ndarray:
        """Large numbers in an interval, and its ends if they belong to it.

        Not the largest, if the other side is no line: exp(1e6) is no number.
        """
        low, high = interval
        most = 1e6 if other == (-math.inf, math.inf) else 50.0
        ends = [e for e in interval if math.isfinite(e)] if self.transformer.closed else []
        inner = [f for f in FAR if low < f < high and abs(f) <= most]
        middle = [(low + high) / 2] if math.isfinite(low + high) else []
        return np.resize(np.asarray([*inner, *middle, *ends], np.float32), _COUNT)

    def _finite(self, name: str, x: np.ndarray, y: np.ndarray, params: np.ndarray) -> None:
        results, gradients = self._run(self.gradients, x, y, self.narrow, params)
        for direction, points, result, index in (("forward", x, 0, 0), ("inverse", y, 1, 1)):
            at = lambda i, points=points: describe(x=points[i], params=params[i])  # noqa: E731
            value, log_det = results[result]
            if direction == "inverse" and math.isfinite(self.transformer.codomain[1]):
                # How far an interval reaches may depend on the parameters (SquareRootBins).
                log_det = np.where(np.isneginf(log_det), 0, log_det)
            values = np.stack([value, log_det, gradients[index]], axis=1)
            self.checks.finite(f"{direction}: finite at {name}", values, at)
        by_params = gradients[2]
        at = lambda i: describe(x=x[i], y=y[i], params=params[i])  # noqa: E731
        self.checks.finite(f"finite gradients by parameters at {name}", by_params, at)

    def _run(self, program: Any, x: Any, y: Any, dtype: str, params: Any = None) -> Any:
        params = self.params if params is None else params
        return numpy_of(program(*in_dtype((x, y, params), dtype)))

    def _slopes(self, x: Array, y: Array, params: Array) -> Any:
        def along(method: str, x: Array) -> Any:
            run = lambda x: getattr(self.transformer, method)(x, params)  # noqa: E731
            value, slope, log_det = jax.jvp(run, (x,), (jnp.ones_like(x),), has_aux=True)
            return value, log_det, slope

        return along(_FORWARD, x), along(_INVERSE, y)

    def _gradients(self, x: Array, y: Array, params: Array) -> Any:
        def loss(x: Array, y: Array, params: Array) -> Any:
            results = tuple(
                getattr(self.transformer, method)(v, params)
                for method, v in ((_FORWARD, x), (_INVERSE, y))
            )
            inside = [jnp.where(jnp.isneginf(d), jnp.zeros_like(d), d) for _, d in results]
            values = [v * 1e-6 for v, _ in results]
            return sum(jnp.sum(part) for part in (*inside, *values)), results

        gradients, results = jax.grad(loss, (0, 1, 2), has_aux=True)(x, y, params)
        return results, gradients

    def _close(
        self, name: str, found: Any, wanted: Any, allowed: Any, dtype: str, **at: Any
    ) -> None:
        place = lambda i: describe(**{k: v[i] for k, v in at.items()}, params=self.params[i])  # noqa: E731
        name = name if dtype in name else f"{name}, {dtype}"
        self.checks.close(name, found, wanted, allowed, place)


def points_in(random: np.random.Generator, low: float, high: float) -> np.ndarray:
    """Points of an interval, not too near to its ends."""
    if math.isfinite(low) and math.isfinite(high):
        return low + (high - low) * random.uniform(0.02, 0.98, _COUNT)
    x = 2 * random.standard_normal(_COUNT)
    if math.isfinite(low):
        return low + np.exp(x)
    return high - np.exp(x) if math.isfinite(high) else x


def _relative(dtype: str, values: Any) -> np.ndarray:
    return ROUND_TRIP[dtype] * (1 + np.abs(values))


def _log(slope: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log(np.abs(slope.astype(np.float64)))
