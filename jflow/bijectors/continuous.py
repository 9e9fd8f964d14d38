"""Continuous flows: the ends of paths that an ordinary differential equation leads along."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jflow.bijectors.base import Direction, DirectionKind, LogDetKind
from jflow.bijectors.fields import Rules, check_solved, noise_key, solve, with_time, without_lost
from jflow.bijectors.leaps import check_leaps, check_mean_velocities, leaps
from jflow.bijectors.one_method import OneMethod
from jflow.functional.arguments import check_counts, check_numbers
from jflow.functional.arrays import as_wide, batch_shape, with_flag
from jflow.functional.estimators import ExactTrace, TraceEstimator
from jflow.functional.solvers import Adaptive, FixedGrid, MeanSteps, Solver
from jflow.nets.functions import as_function
from jflow.nets.layers import check_factory
from jflow.nets.potential import Potential, PotentialField


class Continuous(OneMethod):
    """The end of the path dy/dt = f(y, t; context) from t = 0, the base, to t = 1, the data.

        forward   y(0) -> y(1)      log|det dy(1)/dy(0)| = integral of tr df/dy(y(t), t) dt
        inverse   the same path, backwards

    f is any network: time is a part of its context, beside the flow's own. It needs no structure,
    for paths do not cross. Both directions are solves to a tolerance, by `evaluation`; training,
    where layers are asked for their losses, takes the fixed grid of `solver`, which costs a part of
    that. `apply(..., mutable=["solver"])` reports, beside the result, the steps and the evaluations
    of f.

    `log_det_kind` is that of `trace`: "exact" (to the tolerance), or "unbiased", and then it is
    drawn from the RNG stream "noise", with probes that stay the same along a path. With a fixed
    grid for `evaluation` it is "biased": a coarse one may tell higher densities than there are.

    `kinetic`, `jacobian` and `hjb` are weights of penalties that keep paths straight and solves
    short, in the collection "losses" in training: the mean over the batch, for each number of an
    event, of the integrals of |f|^2, of the squared Frobenius norm of df/dy (both of RNODE), and,
    where f is the gradient of a potential P, of |dP/dt + |f|^2 / 2| (OT-Flow), which is zero along
    paths of optimal transport. The trace of such fields is in closed form (`nets.Potential`).

    Attributes:
      net: makes f, given its number of outputs; see `jflow.nets`. Smooth ones: ReLU has a trace
        that jumps.
      trace: how tr df/dy is found: `ExactTrace`, `Hutchinson`, `HutchPP` or `XTrace`.
      solver: for training.
      evaluation: for all else.
      frequencies: how many sines and cosines of time the network is given besides.
      guidance: w of the field w f(y, t; context) + (1 - w) f(y, t; none), for networks that are
        also trained without the context, as `train.FlowMatching` then does: 1 for the law given the
        context, 0 for that without, above 1 for points that are more typical of it. None for
        networks that always have the context.
      mean_velocities: whether the network is also given a length of time, before time itself, and
        tells the mean velocity over that from there; f is that over none. `train.MeanFlow` teaches
        them, and with `evaluation=MeanSteps(n)`, paths are n steps of them.
      kinetic: weight of the first penalty.
      jacobian: weight of the second one.
      hjb: weight of the third one.
      event_ndim: 1 for vectors, 3 for images, of which f is a network of images.

    Raises:
      TypeError: `net` is a network or makes other ones, `trace` not an estimator of traces, or a
        solver none.
      ValueError: another argument is out of range; (on call) there is no key.
      FloatingPointError: (on call, outside jit) steps did not suffice. Inside jit, they give NaN.

    References: Chen et al., 2018, https://arxiv.org/abs/1806.07366; Grathwohl et al., 2019,
    https://arxiv.org/abs/1810.01367; Finlay et al., 2020, https://arxiv.org/abs/2002.02798
    """

    net: Any
    trace: TraceEstimator = ExactTrace()
    solver: FixedGrid = FixedGrid()
    evaluation: Solver = Adaptive()
    frequencies: int = 0
    guidance: float | None = None
    mean_velocities: bool = False
    kinetic: float = 0.0
    jacobian: float = 0.0
    hjb: float = 0.0
    event_ndim: int = 1

    def __post_init__(self) -> None:
        makes = ("arrays", "velocities")
        check_factory("Continuous", self.net, event_ndim=self.event_ndim, makes=makes)
        check_counts("Continuous", 0, frequencies=self.frequencies)
        for name, kind in (
            ("trace", TraceEstimator), ("solver", FixedGrid), ("evaluation", Solver),
        ):  # fmt: skip
            if not isinstance(getattr(self, name), kind):
                raise TypeError(
                    f"Continuous: {name} must be a {kind.__name__} of jflow.functional; got "
                    f"{getattr(self, name)!r}"
                )
        check_numbers("Continuous", least=0, **self._weights)
        check_numbers("Continuous", guidance=0 if self.guidance is None else self.guidance)
        if isinstance(self.net, Potential) and self.event_ndim != 1:
            raise ValueError(
                f"Continuous: nets.Potential is of vectors, event_ndim=1; got {self.event_ndim}"
            )
        closed = isinstance(self.net, Potential) and isinstance(self.trace, ExactTrace)
        if self.hjb and (not closed or self.frequencies):
            raise ValueError(
                "Continuous: hjb needs net=nets.Potential(...), trace=ExactTrace() and no "
                f"frequencies; got {self.net!r}, {self.trace!r} and {self.frequencies}"
            )
        check_mean_velocities(
            self.mean_velocities, self.evaluation, self.guidance, isinstance(self.net, Potential)
        )
        super().__post_init__()

    @property
    def _weights(self) -> dict[str, float]:
        return {"kinetic": self.kinetic, "jacobian": self.jacobian, "hjb": self.hjb}

    @nn.compact
    def _functions(self, x: Array, context: Array | None) -> tuple[Partial, Partial | None]:
        """F of x and of the context with time, bound to its variables; and all of a potential's."""
        net = self.net(x.shape[-1]).copy(name="net")
        given = x, self._timed(jnp.zeros((), x.dtype), self._given(context))
        of_potential = isinstance(net, PotentialField)
        closed = as_function(net, *given, method="derivatives") if of_potential else None
        return as_function(net, *given), closed

    @nn.nowrap
    def _given(self, context: Array | None, known: Array | float = 1.0) -> Array | None:
        """What the network is given of a context, where it is known, 1, or not, 0."""
        if self.guidance is None:
            return context
        if context is None:
            raise ValueError(
                "Continuous: guidance is towards a context: give the flow context_shape=, or leave "
                "out guidance"
            )
        return with_flag(context, known)

    @nn.nowrap
    def _timed(self, t: Array, context: Array | None, length: Array | None = None) -> Array:
        """What the network is given besides x."""
        if self.mean_velocities and length is None:
            length = jnp.zeros_like(t)
        if t.ndim and context is not None and context.ndim > t.ndim + 1:  # of pixels
            over = t.shape + (1,) * (context.ndim - 1 - t.ndim)
            t, length = t.reshape(over), None if length is None else length.reshape(over)
        return with_time(t, context, self.frequencies, length)

    def mean_velocity(
        self, x: Array, t: Array, length: Array, tangent: Array, context: Array | None = None
    ) -> tuple[Array, Array]:
        """The mean velocity u from t to t + length, and du/dt along a tangent dx/dt, the end fixed.

        x and the tangent are (*batch, *event), t and length (*batch).
        """
        f, _ = self._functions(x, context)
        moved = lambda x, t, length: as_wide(f(x, self._timed(t, context, length)))  # noqa: E731
        return jax.jvp(moved, (x, t, length), (tangent, jnp.ones_like(t), -jnp.ones_like(t)))

    def velocity(
        self, x: Array, t: Array, context: Array | None = None, known: Array | float = 1.0
    ) -> Array:
        """dx/dt = f(x, t; context): x (*batch, *event), t () or (*batch).

        With guidance, `known` tells where the context is given, 1, and where it is not, 0: a
        number, or one for each vector of the context.
        """
        x, t = as_wide(x), t.astype(as_wide(x).dtype)
        context = self._given(context, known)
        f, _ = self._functions(x, context)
        return as_wide(f(x, self._timed(t, context)))

    def forward(self, x: Array, context: Array | None = None) -> Array:
        return self._run("forward", x, context, wanted=False)[0]

    def inverse(self, y: Array, context: Array | None = None) -> Array:
        return self._run("inverse", y, context, wanted=False)[0]

    def _run(
        self, method: Direction, x: Array, context: Array | None, *, wanted: bool = True
    ) -> tuple[Array, Array]:
        leaping = isinstance(self.evaluation, MeanSteps)
        training = self.is_mutable_collection("losses") and not leaping
        weights = {name: w for name, w in self._weights.items() if training and w}
        with_trace = (wanted or training) and not leaping
        field, state, batch = self._start(x, context, tuple(weights), with_trace)
        if field is None:
            return state[:2]
        x = state[0]
        if leaping:
            return self._leap(field, method, x, wanted)
        zero, one = jnp.zeros((), x.dtype), jnp.ones((), x.dtype)
        start, end = (zero, one) if method == "forward" else (one, zero)
        solver = self.solver if training else self.evaluation
        solved = solve(solver, field, state, start, end, batch)
        y, *more = solved.y
        log_det, *spent = more or [jnp.zeros(batch, x.dtype)]
        if weights:
            costs = zip(weights.values(), spent, strict=True)
            total = sum(w * jnp.mean(jnp.abs(cost)) for w, cost in costs)
            self.sow("losses", "path", total / math.prod(x.shape[len(batch) :]))
        self._report(steps=lambda: solved.steps, evaluations=lambda: solved.evaluations)
        check_solved(y, x, self.event_ndim)
        return y, log_det

    @nn.nowrap
    def _leap(
        self, field: Any, method: Direction, x: Array, with_log_det: bool
    ) -> tuple[Array, Array]:
        steps = self.evaluation.steps  # type: ignore[attr-defined]
        y, log_det = leaps(field, method, x, 1, steps, self.event_ndim, with_log_det=with_log_det)
        self._report(steps=lambda: jnp.int32(steps), evaluations=lambda: jnp.int32(steps))
        check_leaps(y, x, self.event_ndim, steps)
        return y, log_det

    def states(self, x: Array, count: int, context: Array | None = None) -> tuple[Array, Array]:
        """The path from x at t = 0, and log|det dx(t)/dx|, at count + 1 equal times from 0 to 1.

        Shapes are (count + 1, *batch, *event) and (count + 1, *batch).
        """
        leaping = isinstance(self.evaluation, MeanSteps)
        field, state, batch = self._start(x, context, with_log_det=not leaping)
        times = jnp.arange(count + 1, dtype=state[0].dtype) / count
        if leaping:
            steps, ndim = self.evaluation.steps, self.event_ndim  # type: ignore[attr-defined]
            return jax.lax.map(
                lambda t: leaps(field, "forward", state[0], t, steps, ndim, with_log_det=True),
                times,
            )

        def move(state: Any, ends: tuple[Array, Array]) -> tuple[Any, Any]:
            after = solve(self.evaluation, field, state, *ends, batch).y
            return after, after

        _, states = jax.lax.scan(move, state, (times[:-1], times[1:]))
        both = (jnp.concatenate([a[None], b]) for a, b in zip(state, states, strict=True))
        values, log_dets = both
        return values, log_dets

    def _start(
        self,
        x: Array,
        context: Array | None,
        penalties: tuple[str, ...] = (),
        with_log_det: bool = True,
    ) -> tuple[Any, Any, tuple[int, ...]]:
        """The field of the state, the state, and the batch; no field while parameters are made."""
        x, ndim = as_wide(x), self.event_ndim
        self.latent_shape(x.shape[x.ndim - ndim :])
        batch = batch_shape(x, ndim)
        x, context = without_lost(x, context, len(batch))
        functions = self._functions(x, context)
        none = jnp.zeros(batch, x.dtype)
        state = (x, none, *(none for _ in penalties))
        if self.is_initializing():
            return None, state, batch
        both = self.guidance not in (None, 1)
        contexts = [self._given(context, known) for known in ((1.0, 0.0) if both else (1.0,))]
        shares = (self.guidance, 1 - self.guidance) if both else (1,)  # type: ignore[operator]
        trace = self.trace if with_log_det else None
        rules = Rules(
            trace, self.frequencies, self.mean_velocities, ndim, penalties, shares
        )  # fmt: skip
        key = noise_key(self, "jacobian" in penalties) if with_log_det else None
        state = state if with_log_det else (x,)
        return Partial(rules, functions, contexts, key), state, batch

    @property
    def log_det_kind(self) -> LogDetKind:
        kinds = {FixedGrid: "biased", MeanSteps: "exact"}
        return kinds.get(type(self.evaluation), self.trace.kind)  # type: ignore[return-value]

    @property
    def forward_kind(self) -> DirectionKind:
        return "iterative"

    @property
    def inverse_kind(self) -> DirectionKind:
        return "iterative"

    @nn.nowrap
    def needs_key(self, direction: Direction) -> bool:
        return self.trace.needs_key and not isinstance(self.evaluation, MeanSteps)

    @property
    def may_fail(self) -> bool:
        return True

    @property
    def tolerance(self) -> float:
        evaluation = self.evaluation
        return evaluation.tolerance_of(jnp.float32) if isinstance(evaluation, Adaptive) else 1e-3
