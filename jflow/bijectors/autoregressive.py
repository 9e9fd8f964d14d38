"""Scalar transforms with parameters from the features before."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jflow.bijectors.base import DirectionKind, OfTransformer
from jflow.functional import autoregressive as ar
from jflow.functional.arrays import as_wide, permute, sum_event
from jflow.functional.convergence import failed_points
from jflow.functional.jacobi import jacobi
from jflow.nets.layers import checked_widths
from jflow.nets.made import MADE

_DIRECTIONS = ("inverse", "forward")
_ORDERS = ("natural", "reversed", "random")


@dataclass(frozen=True)
class Jacobi:
    """Solves the slow direction by sweeps over all features at once, until nothing changes.

    Exact after D sweeps at most; often far fewer are enough, which suits wide machines. Values
    are found to `tolerance`; where `max_sweeps` do not reach it, they are NaN, and errors outside
    of compiled programs. In `apply(..., mutable=["solver"])`, the collection "solver" holds
    `iterations`, and `residual`, the change that one more sweep would make.

    Attributes:
      tolerance: stops when no value changes by more than this times 1 + |value|.
      max_sweeps: stops after so many; None for D, which is exact.
    """

    tolerance: float = 1e-6
    max_sweeps: int | None = None

    def __post_init__(self) -> None:
        sweeps = self.max_sweeps
        whole = sweeps is None or (isinstance(sweeps, int) and sweeps >= 1)
        if not (self.tolerance >= 0 and whole):
            raise ValueError(
                "Jacobi: tolerance must be 0 or more and max_sweeps 1 or more (or None); got "
                f"{self.tolerance} and {sweeps}"
            )


class MaskedAutoregressive(OfTransformer):
    """Transforms each feature, with parameters that a masked network makes of those before it.

    With direction="inverse" (masked autoregressive flow, MAF) the network reads the data side:

        inverse   x_i = f^-1(y_i; p_i(y_<i, context))     one pass: fast likelihoods
        forward   y_i = f(x_i; p_i(y_<i, context))        feature by feature

    With direction="forward" (inverse autoregressive flow, IAF) it reads the base side:

        forward   y_i = f(x_i; p_i(x_<i, context))        one pass: fast samples
        inverse   x_i = f^-1(y_i; p_i(x_<i, context))     feature by feature

    The slow direction computes in each step the hidden units of one degree alone, so that all
    steps cost about one pass; its gradients are those of the implicit function theorem, by one
    more such run. log_dets are sums of log|df/dx| or log|df^-1/dy|.

    Attributes:
      transformer: the scalar transform f.
      hidden: widths of the network's hidden layers: short for net=MADE(hidden).
      net: makes the masked network; see `jflow.nets.MADE` and `jflow.nets.ResidualMADE`.
      direction: which direction is one pass.
      order: in which order features depend on each other: "natural" (0 first), "reversed",
        "random" (drawn when the parameters are initialised, kept in the collection "constants"),
        or the features in their order.
      solver: how the slow direction is computed: None for feature by feature, or `Jacobi`.

    Raises:
      ValueError: an unknown direction or order, an order that does not fit the event, or a
        transformer that takes no parameters.

    References: MAF, Papamakarios et al., 2017, eqs. 3-5, https://arxiv.org/abs/1705.07057; IAF,
    Kingma et al., 2016, eqs. 10-11, https://arxiv.org/abs/1606.04934; Jacobi sweeps, Song et al.,
    2021, https://arxiv.org/abs/2002.03629
    """

    hidden: tuple[int, ...] = (256, 256)
    net: MADE | None = None
    direction: Literal["inverse", "forward"] = "inverse"
    order: Any = "natural"
    solver: Jacobi | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", checked_widths("MaskedAutoregressive", self.hidden))
        object.__setattr__(self, "order", _checked_order(self.order))
        if self.direction not in _DIRECTIONS:
            raise ValueError(
                f"MaskedAutoregressive: direction must be one of {_DIRECTIONS}; "
                f"got {self.direction!r}"
            )
        if self.transformer.num_params == 0:
            raise ValueError(
                f"MaskedAutoregressive: {type(self.transformer).__name__} takes no parameters, so "
                "there is nothing to make of other features; use Elementwise"
            )
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._run("forward", x, context)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._run("inverse", y, context)

    @nn.compact
    def _run(self, method: str, x: Array, context: Array | None) -> tuple[Array, Array]:
        x = as_wide(x)
        self.latent_shape(x.shape[x.ndim - 1 :])
        order = self._order(x.shape[-1])
        x = x if order is None else permute(x, order)
        maker = (self.net or MADE(self.hidden))(self.transformer.num_params)
        net, weights, drop = maker.copy(name="conditioner")(x, context)
        if method == self.direction:
            _, params = net.states(weights, x, drop)
            params = jnp.swapaxes(params, -1, -2).astype(x.dtype)
            self._tell_saturation(x, params)
            y, log_det = self._scalar(method)(x, params)
            log_det = sum_event(log_det, 1)
        else:
            fast, slow = self._scalar(self.direction), self._scalar(method)
            y, log_det, report = ar.slow(net, fast, slow, self._solver, weights, x)
            self._tell(report)
            self._check_converged((y, 1), (x, 1), (context, 1))
        return y if order is None else permute(y, jnp.argsort(order)), log_det

    def _scalar(self, direction: str) -> ar.Scalar:
        return getattr(self.transformer, f"{direction}_and_log_det")

    @property
    def _solver(self) -> ar.Solver:
        if self.solver is None:
            return ar.solve
        options = {"tolerance": self.solver.tolerance, "max_sweeps": self.solver.max_sweeps}
        return partial(jacobi, **options)

    @nn.nowrap
    def _check_converged(self, *arrays: Any) -> None:
        if self.may_fail and failed_points(*arrays).any():
            raise FloatingPointError(
                f"MaskedAutoregressive: {self.solver} did not find a point to its tolerance; give "
                "it more sweeps, or max_sweeps=None for as many as it takes"
            )

    @property
    def may_fail(self) -> bool:
        return self.solver is not None and self.solver.max_sweeps is not None

    def _tell(self, report: ar.Report) -> None:
        """Leaves the report in the collection "solver", where that is asked for."""
        if self.solver is not None:
            self._report(iterations=lambda: report.iterations, residual=lambda: report.residual)

    @nn.nowrap
    def _order(self, features: int) -> Array | None:
        """The features in the order of their dependence; None for the natural one."""
        if self.order == "natural":
            return None
        if self.order == "reversed":
            return jnp.arange(features - 1, -1, -1, dtype=jnp.int32)
        if self.order == "random":
            return self.variable(
                "constants", "order", lambda: jax.random.permutation(self.make_rng(), features)
            ).value
        return jnp.asarray(self.order, jnp.int32)

    @property
    def inverse_kind(self) -> DirectionKind:
        return self._kind("inverse", self.transformer.inverse_kind)

    @property
    def forward_kind(self) -> DirectionKind:
        return self._kind("forward", self.transformer.forward_kind)

    def _kind(self, direction: str, kind: DirectionKind) -> DirectionKind:
        iterative = self.solver is not None and direction != self.direction
        return "iterative" if iterative and kind == "closed form" else kind

    @property
    def tolerance(self) -> float:
        return max(self.transformer.tolerance, self.solver.tolerance if self.solver else 0.0)

    @property
    def in_place(self) -> bool:
        return True

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        self._expect_event_ndim(event_shape, 1)
        if not isinstance(self.order, str) and len(self.order) != event_shape[0]:
            raise ValueError(
                f"MaskedAutoregressive: order has {len(self.order)} entries; the event shape is "
                f"{event_shape}"
            )
        return event_shape


def _checked_order(order: str | Sequence[int] | np.ndarray) -> Any:
    if isinstance(order, str) or np.ndim(order) != 1:
        if order not in _ORDERS:
            raise ValueError(
                f"MaskedAutoregressive: order must be one of {_ORDERS}, or a permutation; "
                f"got {order!r}"
            )
        return order
    given = tuple(int(i) for i in order)
    if sorted(given) != list(range(len(given))):
        raise ValueError(
            f"MaskedAutoregressive: order must be a permutation of 0..n-1; got {given}"
        )
    return given
