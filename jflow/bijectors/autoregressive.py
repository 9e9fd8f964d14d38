"""Scalar transforms with parameters from the positions before."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jflow.bijectors.base import Direction, DirectionKind, OfTransformer
from jflow.bijectors.one_method import OneMethod
from jflow.functional import autoregressive as ar
from jflow.functional.arguments import check_counts, check_numbers
from jflow.functional.arrays import as_wide, permute, sum_event, with_flag
from jflow.functional.convergence import failed_points
from jflow.functional.guided import Guided
from jflow.functional.jacobi import jacobi
from jflow.functional.orders import checked_order, sorted_features, sorted_graph
from jflow.nets.layers import check_factory, checked_widths, context_ndim
from jflow.nets.made import MADE, MaskedWeights


@dataclass(frozen=True)
class Jacobi:
    """Solves the slow direction by sweeps over all positions at once, until nothing changes.

    Exact after as many sweeps as there are positions; often far fewer are enough, which suits wide
    machines: after as many as the longest chain of features that depend on each other. Values
    are found to `tolerance`; where `max_sweeps` do not reach it, they are NaN, and errors outside
    of compiled programs. Gradients take such sweeps, too. In `apply(..., mutable=["solver"])`, the
    collection "solver" holds `iterations`, and `residual`, the change that one more sweep would
    make.

    With `block`, so many positions are swept until nothing changes, and then the next ones
    (Gauss-Seidel-Jacobi), with what the network remembers of those before, as
    `nets.CausalTransformer` and `nets.TwoLevel` do. A block's sweep costs its share of a pass; all
    together cost less than whole sweeps where these would be many, as where positions depend on
    close ones, and more where few do. `iterations` then counts sweeps of all blocks, without the
    last one of each, which finds no change; a whole one at the end gives `residual`. Networks of
    half precision round otherwise in blocks than in log p, and so far the two then agree.

    Attributes:
      tolerance: stops when no value changes by more than this times 1 + |value|.
      max_sweeps: stops after so many, in each block; None for the number of its positions, which
        is exact.
      block: how many positions are swept together: tokens of a `CausalTransformer`, numbers of a
        `TwoLevel`, whose `size` divides it. None for all of them.
    """

    tolerance: float = 1e-6
    max_sweeps: int | None = None
    block: int | None = None

    def __post_init__(self) -> None:
        sweeps = self.max_sweeps
        whole = sweeps is None or (isinstance(sweeps, int) and sweeps >= 1)
        if not (self.tolerance >= 0 and whole):
            raise ValueError(
                "Jacobi: tolerance must be 0 or more and max_sweeps 1 or more (or None); got "
                f"{self.tolerance} and {sweeps}"
            )
        check_counts("Jacobi", block=1 if self.block is None else self.block)


class Solves:
    """What layers with a slow direction, forward, share: by whatever `solver` says."""

    solver: Jacobi | None

    def _solved(self: Any, of: ar.ScalarMap, net: ar.Causal, x: Array, *given: Any) -> Any:
        """y and log_det of x; `given` are pairs of what else may be NaN, and its event_ndim."""
        solver = ar.SEQUENTIAL
        if self.solver is not None:
            solver = jacobi(*astuple(self.solver))
        y, log_det, report = ar.slow(of, solver, net.without_dropout(), x)
        if self.solver is not None:
            self._report(iterations=lambda: report.iterations, residual=lambda: report.residual)
        ndim = net.event_ndim
        if self.may_fail and failed_points((y, ndim), (x, ndim), *given).any():
            raise FloatingPointError(
                f"{type(self).__name__}: {self.solver} did not find a point to its tolerance; give "
                "it more sweeps, or max_sweeps=None for as many as it takes"
            )
        return y, log_det

    @property
    def may_fail(self) -> bool:
        return self.solver is not None and self.solver.max_sweeps is not None


class PositionByPosition(Solves, OneMethod, OfTransformer):
    """What layers share that transform each position, with parameters made of those before."""

    def __post_init__(self) -> None:
        if self.transformer.num_params == 0:
            raise ValueError(
                f"{type(self).__name__}: {type(self.transformer).__name__} takes no parameters, so "
                "there is nothing to make of other positions; use Elementwise"
            )
        super().__post_init__()

    @property
    @abstractmethod
    def _maker(self) -> Callable[[int], nn.Module]:
        """What makes the network."""

    @nn.nowrap
    @abstractmethod
    def _arranged(self, x: Array) -> tuple[Array, Callable[[Array], Array]]:
        """x with its positions in the order of their dependence, and the way back."""

    @nn.compact
    def _run(self, method: Direction, x: Array, context: Array | None) -> tuple[Array, Array]:
        x, transformer = as_wide(x), self.transformer
        self.latent_shape(x.shape[x.ndim - self.event_ndim :])
        x, back = self._arranged(x)
        net = self._bound(self._maker(transformer.num_params).copy(name="conditioner"), x, context)
        if not isinstance(net, ar.Causal):
            raise TypeError(
                f"{type(self).__name__}: the module that net makes must return a Causal, bound to "
                "its weights, as nets.MADE and nets.CausalTransformer do (see jflow.functional); "
                f"got {type(net).__name__}"
            )
        if net.event_ndim != self.event_ndim:
            raise ValueError(
                f"{type(self).__name__}: the positions of {type(net).__name__} are the first of "
                f"{net.event_ndim} axes; what is given as net must have event_ndim = "
                f"{net.event_ndim}, too; got {self.event_ndim}"
            )
        if method == "inverse":
            params = net(x)
            self._tell_saturation(x, params)
            y, log_det = transformer.inverse_and_log_det(x, params)
            log_det = sum_event(log_det, net.event_ndim)
        else:
            of = ar.ScalarMap(transformer.inverse_and_log_det, transformer.forward_and_log_det)
            y, log_det = self._solved(of, net, x, (context, context_ndim(self._maker)))
        return back(y), log_det

    @nn.nowrap
    def _bound(self, net: Any, x: Array, context: Array | None) -> Any:
        """The network, given its inputs."""
        return net(x, context)

    @property
    def event_ndim(self) -> int:
        return getattr(self._maker, "event_ndim", 1)

    @property
    def forward_kind(self) -> DirectionKind:
        kind = self.transformer.forward_kind
        return "iterative" if self.solver is not None and kind == "closed form" else kind

    @property
    def tolerance(self) -> float:
        return max(self.transformer.tolerance, self.solver.tolerance if self.solver else 0.0)

    @property
    def in_place(self) -> bool:
        return True


class MaskedAutoregressive(PositionByPosition):
    """Transforms each feature, with parameters that a masked network makes of those before it.

        inverse   x_i = f^-1(y_i; p_i(y_<i, context))     one pass: fast likelihoods (MAF)
        forward   y_i = f(x_i; p_i(y_<i, context))        feature by feature

    `Invert(MaskedAutoregressive(...))` has fast samples (inverse autoregressive flow, IAF).

    The slow direction computes in each step the hidden units of one degree alone, so that all
    steps cost about one pass; its gradients are those of the implicit function theorem, by one
    more such run. log_dets are sums of log|df/dx| or log|df^-1/dy|.

    Attributes:
      transformer: the scalar transform f.
      hidden: widths of the network's hidden layers: short for net=MADE(hidden).
      net: makes the network, given how many parameters each feature needs: `jflow.nets.MADE`,
        `jflow.nets.ResidualMADE`, or another: a function of that number to a Flax module, which is
        called with x and context and returns a `jflow.functional.Causal`. If that is of events of
        several axes, `net.event_ndim` says how many; positions are counted along the first.
      order: in which order features depend on each other: "natural" (0 first), "reversed",
        "random" (drawn when the parameters are initialised, kept in the collection "constants"),
        the features in their order, or a graph: the (D, D) matrix of 0 and 1 whose entry i, j tells
        whether feature i depends on feature j (a `MADE` is needed, and no cycle).
      solver: how forward is computed: None for feature by feature, or `Jacobi`.
      guidance: w of parameters w p(context) + (1 - w) p(none), of a network that is also trained
        without its context: which it knows by a further number, 1 with and 0 without, and by zeros
        in place of a context that has NaN, one that is not known. Log p is that of the law that
        samples have: for w = 1 the one that was learned, for 0 that without contexts, and above 1
        one that follows them more. None for networks that always are given theirs.

    Raises:
      ValueError: an unknown order, one that does not fit the event, or a transformer that takes no
        parameters.
      TypeError: `net` is no such function.

    References: MAF, Papamakarios et al., 2017, eqs. 3-5, https://arxiv.org/abs/1705.07057; IAF,
    Kingma et al., 2016, eqs. 10-11, https://arxiv.org/abs/1606.04934; Jacobi sweeps, also in
    blocks, Song et al., 2021, https://arxiv.org/abs/2002.03629; guidance, Ho and Salimans, 2022,
    https://arxiv.org/abs/2207.12598, and TarFlow, https://arxiv.org/abs/2412.06329; graphs,
    Wehenkel and Louppe, 2021, https://arxiv.org/abs/2006.02548
    """

    hidden: tuple[int, ...] = (256, 256)
    net: Callable[[int], nn.Module] | None = None
    order: Any = "natural"
    solver: Jacobi | None = None
    guidance: float | None = None

    def __post_init__(self) -> None:
        check_numbers(
            "MaskedAutoregressive", guidance=0 if self.guidance is None else self.guidance
        )
        object.__setattr__(self, "hidden", checked_widths("MaskedAutoregressive", self.hidden))
        object.__setattr__(self, "order", checked_order(self.order))
        if self.net is not None:
            makes = ("causal functions",)
            check_factory("MaskedAutoregressive", self.net, sequences=True, makes=makes)
        if self._is_graph and not isinstance(self.net or MADE(self.hidden), MADE):
            raise ValueError("MaskedAutoregressive: an order that is a graph needs net=MADE(...)")
        super().__post_init__()

    @property
    def _maker(self) -> Callable[[int], nn.Module]:
        maker: Any = self.net or MADE(self.hidden)
        if self._is_graph:
            return partial(MaskedWeights, config=maker, graph=sorted_graph(self.order))
        return maker

    @nn.nowrap
    def _bound(self, net: Any, x: Array, context: Array | None) -> Any:
        if self.guidance is None:
            return net(x, context)
        if context is None:
            raise ValueError(
                "MaskedAutoregressive: guidance is towards a context: give the flow "
                "context_shape=, or leave out guidance"
            )
        known = ~jnp.any(jnp.isnan(context), axis=-1, keepdims=True)
        given = with_flag(jnp.where(known, context, 0), known)
        if self.guidance == 1:
            return net(x, given)
        return Guided(net(x, given), net(x, jnp.zeros_like(given)), self.guidance)

    @property
    def _is_graph(self) -> bool:
        return isinstance(self.order, tuple) and isinstance(self.order[0], tuple)

    @nn.nowrap
    def _arranged(self, x: Array) -> tuple[Array, Callable[[Array], Array]]:
        axis = -self.event_ndim
        order = self._order(x.shape[axis])
        if order is None:
            return x, lambda y: y
        return permute(x, order, axis), lambda y: permute(y, jnp.argsort(order), axis)

    @nn.nowrap
    def _order(self, positions: int) -> Array | None:
        """The positions in the order of their dependence; None for the natural one."""
        if self.order == "natural":
            return None
        if self.order == "reversed":
            return jnp.arange(positions - 1, -1, -1, dtype=jnp.int32)
        if self.order == "random":
            return self.variable(
                "constants", "order", lambda: jax.random.permutation(self.make_rng(), positions)
            ).value
        order = sorted_features(self.order) if self._is_graph else self.order
        return jnp.asarray(order, jnp.int32)

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        super().latent_shape(event_shape)
        if not isinstance(self.order, str) and len(self.order) != event_shape[0]:
            raise ValueError(
                f"MaskedAutoregressive: order has {len(self.order)} entries; the event shape is "
                f"{event_shape}"
            )
        return event_shape
