"""Networks and transforms that nflows has, and normflows after it."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from jflow.interop.weights.reading import Read, State, Steps, by_feature, by_parameter


@dataclass(frozen=True)
class Reading:
    """What a state does not tell, and how the two libraries differ.

    Attributes:
      owner: for errors.
      activation: of the networks.
      tail_bound, min_bin, min_derivative: of splines.
      normflows: whether its masked networks take the context as those of normflows do.
    """

    owner: str
    activation: str
    tail_bound: float
    min_bin: float
    min_derivative: float
    normflows: bool = False

    def spline(self, bins: int) -> tuple[Any, ...]:
        """The scalar transform of a spline with linear tails."""
        return "spline_to_base", bins, self.tail_bound, self.min_bin, self.min_derivative

    def bins(self, params: int) -> int:
        """Of how many bins a spline of so many parameters is.

        Raises:
          ValueError: none with linear tails has so many.
        """
        if params % 3 != 2 or params < 5:
            raise ValueError(
                f"{self.owner}: {params} parameters a feature are of no rational-quadratic spline "
                "with linear tails; other splines are not read"
            )
        return (params + 1) // 3


def masked_network(how: Reading, made: State, order: Any, rows: Any, **last: Any) -> Steps:
    """A MADE of theirs, for inputs in that order; rows, factors, offsets are of the last layer."""
    context = 0
    if "context_layer.weight" in made:
        context = made["context_layer.weight"].shape[1]
    elif made.has("blocks.0.context_layer"):
        context = made["blocks.0.context_layer.weight"].shape[1]
    net = Steps(how.activation, context)
    _ignore_degrees(made)
    net.steps.append(net.linear(made.under("initial_layer"), columns=order))
    blocks = [block for _, block in made.under("blocks").numbered()]
    residual = any(block.has("linear_layers") for block in blocks)
    if made.has("context_layer"):
        activation = () if how.normflows else (how.activation,)
        net.steps.append(net.of_context("add", made.under("context_layer"), *activation))
    if blocks and not residual and not how.normflows:
        net.steps.append(net.act)
    for block in blocks:
        if residual:
            net.steps.append(_residual(net, block, gate=how.normflows))
        else:
            net.steps += [net.linear(block.under("linear")), net.act]
    net.steps.append(net.linear(made.under("final_layer"), rows=rows, **last))
    return net


def _ignore_degrees(made: State) -> None:
    made.ignore(*[name for name in made.names() if name.endswith("degrees")])


def _residual(net: Steps, block: State, *, gate: bool) -> tuple[Any, ...]:
    first, second = (net.linear(block.under(f"linear_layers.{i}")) for i in (0, 1))
    steps = [net.act, first, net.act, second]
    if block.has("context_layer"):
        layer = block.under("context_layer")
        if gate:
            steps.append(net.of_context("gate", layer))
        else:
            steps.insert(2, net.of_context("add", layer))
    return "block", tuple(steps)


def residual_network(how: Reading, state: State, kept: int, **last: Any) -> Steps:
    """A ResidualNet of theirs, of so many inputs beside the context."""
    initial = state.under("initial_layer")
    context = initial["weight"].shape[1] - kept
    net = Steps(how.activation, context)
    net.steps = [("join",)] if context else []
    net.steps.append(net.linear(initial))
    for _, block in state.under("blocks").numbered():
        net.steps.append(_residual(net, block, gate=True))
    net.steps.append(net.linear(state.under("final_layer"), **last))
    return net


def natural_order(made: State, params: int) -> np.ndarray:
    """The features in the order of their dependence, by the degrees of the outputs."""
    degrees = np.asarray(made["final_layer.degrees"])[::params]
    return np.argsort(degrees, kind="stable")


def read_spline_autoregressive(read: Read, how: Reading, made: State) -> None:
    """MaskedPiecewiseRationalQuadraticAutoregressiveTransform."""
    size = made["initial_layer.weight"].shape[1]
    params = len(made["final_layer.weight"]) // size
    bins, order = how.bins(params), natural_order(made, params)
    rows = by_feature(order, range(params))
    net = masked_network(how, made, order, rows)
    read.autoregressive(order, how.spline(bins), net)


def read_spline_coupling(read: Read, how: Reading, layer: State) -> None:
    """PiecewiseRationalQuadraticCouplingTransform."""
    kept, moved = coupled(layer)
    net_state = layer.under("transform_net")
    final = net_state["final_layer.weight"]
    params = len(final) // len(moved)
    bins = how.bins(params)
    # Logits of widths and heights are divided by the root of the last hidden width.
    each = np.ones(params)
    each[: 2 * bins] = 1 / math.sqrt(final.shape[1])
    rows = by_parameter(len(moved), params)
    factor = np.tile(each, len(moved))
    net = residual_network(how, net_state, int(kept.sum()), rows=rows, factor=factor)
    read.coupling(kept, how.spline(bins), net)
    if layer.has("unconditional_transform"):
        free = layer.under("unconditional_transform")
        names = ("widths", "heights", "derivatives")
        logits = np.concatenate([free[f"unnormalized_{name}"] for name in names], axis=-1)
        read.constant(~kept, how.spline(how.bins(logits.shape[-1])), logits)


def coupled(layer: State) -> tuple[np.ndarray, np.ndarray]:
    """The mask of what is kept, and the indices of what is moved."""
    identity, moved = (np.asarray(layer[f"{n}_features"]) for n in ("identity", "transform"))
    kept = np.zeros(len(identity) + len(moved), bool)
    kept[identity] = True
    return kept, moved


def is_standard(loc: np.ndarray, log_scale: np.ndarray) -> bool:
    """Whether a Gaussian base is the standard one."""
    return not (loc.any() or log_scale.any())
