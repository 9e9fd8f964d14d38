"""Flows of zuko: MAF, NSF, NICE and RealNVP."""

from typing import Any

import numpy as np

from jflow.distributions import Density
from jflow.interop.weights.checking import Found, compared
from jflow.interop.weights.reading import (
    Read,
    State,
    Steps,
    by_feature,
    by_parameter,
    check_activation,
    wide,
)

_OWNER = "from_zuko"


def from_zuko(
    state: Any, *, activation: str = "relu", bound: float = 5.0, slope: float = 1e-3,
    check: Found = None,
) -> Density:  # fmt: skip
    """A trained flow of zuko as a density of jflow, whose log_prob is the same.

    It reads `zuko.flows.MAF`, `NSF`, `NICE` and `RealNVP` of two features or more, whose scalar
    transforms are shifts, affine maps or rational-quadratic splines; also residual networks, those
    with layer normalisation, coupling by `passes`, and random orders. It does not need zuko.

    Args:
      state: the state dict, names to arrays (of PyTorch, NumPy or a .safetensors file); or the
        module itself, which is compared with what was read, at 64 points.
      activation: of the networks, which a state does not tell: "relu", "tanh", "elu", "silu", ...
      bound: of the splines.
      slope: the least slope of scales and splines.
      check: (y, log_prob), or (y, context, log_prob), as the other library finds them; what was
        read is refused if it differs.

    Raises:
      TypeError: that is no state.
      ValueError: it holds what is not known, or has other densities than were found.

    Warns:
      UserWarning: nothing was compared, of a state without `check`.
    """
    check_activation(_OWNER, activation)
    arrays = State.of(_OWNER, state)
    read = Read(_OWNER)
    transform = arrays.under("transform")
    parts = list(transform.under("transforms").numbered())
    if [place for place, _ in parts] != list(range(len(parts))):
        raise ValueError(f"{_OWNER}: some transforms have no arrays; what they do is not known")
    layers = [part for _, part in parts] or [transform]
    for layer in layers:
        _layer(read, layer, activation, bound, slope)
    base = arrays.under("base")
    loc, scale = wide(base["loc"]), wide(base["scale"])
    if loc.any() or (scale != 1).any():
        read.scale(-np.log(scale), -loc / scale)
    arrays.check_all_read(_OWNER)
    of: Any = lambda y, c: state(c).log_prob(y)  # noqa: E731
    return compared(_OWNER, read.density(), state, check, of)


def _layer(read: Read, layer: State, activation: str, bound: float, slope: float) -> None:
    linears = sorted(
        (name.removesuffix(".weight") for name in layer.under("hyper").names()
         if name.endswith(".weight")), key=lambda name: [int(i) for i in name.split(".")]
    )  # fmt: skip
    if not linears:
        raise ValueError(
            f"{_OWNER}: a layer without a network 'hyper'; flows of one feature, and kinds other "
            "than MAF, NSF, NICE and RealNVP, are not read"
        )
    hyper = layer.under("hyper")
    inputs = hyper.under(linears[0])["weight"].shape[1]
    outputs = len(hyper.under(linears[-1])["weight"])
    if "mask" in layer:  # of a coupling, whose kept part is True
        kept = np.asarray(layer["mask"], bool)
        moved = int((~kept).sum())
        scalar, params = _scalar(outputs, moved, bound, slope)
        context = inputs - int(kept.sum())
        rows = by_parameter(moved, params)
        net = _network(hyper, linears, activation, context, None, rows)
        read.coupling(kept, scalar, net)
        return
    if "order" not in layer:
        raise ValueError(f"{_OWNER}: flows of a graph (adjacency=) are not read")
    ranks = np.asarray(layer["order"])
    size = len(ranks)
    order, context = np.argsort(ranks, kind="stable"), inputs - size
    scalar, params = _scalar(outputs, size, bound, slope)
    rows = by_feature(order, range(params))
    columns = np.concatenate([order, np.arange(size, inputs)])
    net = _network(hyper, linears, activation, context, columns, rows)
    read.autoregressive(order, scalar, net)


def _scalar(outputs: int, moved: int, bound: float, slope: float) -> tuple[tuple[Any, ...], int]:
    params = outputs // moved
    if outputs % moved:
        raise ValueError(f"{_OWNER}: {outputs} outputs for {moved} features; they do not fit")
    if params == 1:
        return ("shift_to_base",), 1
    if params == 2:
        return ("softened_to_base", slope), 2
    if params % 3 != 2:
        raise ValueError(
            f"{_OWNER}: {params} parameters a feature are of no shift, affine map or "
            "rational-quadratic spline; other univariate transforms are not read"
        )
    return ("softened_spline_to_base", (params + 1) // 3, bound, slope), params


def _network(
    hyper: State, linears: list[str], activation: str, context: int, columns: Any, rows: Any
) -> Steps:
    """Of a list of modules, of which those between linear layers have no arrays."""
    net = Steps(activation, context)
    net.steps = [("join",)] if context else []
    before = -1
    blocks = sorted({name.split(".")[0] for name in linears}, key=int)
    for place in blocks:
        gap = int(place) - before - 1
        if before >= 0 and gap > 2:
            raise ValueError(f"{_OWNER}: {gap} modules between linear layers are not known")
        if before >= 0 and gap:
            net.steps += [net.act, *[("norm",)] * (gap == 2)]
        part, last = hyper.under(place), place == blocks[-1]
        if place in linears:
            given = {"columns": columns if place == blocks[0] else None}
            net.steps.append(net.linear(part, rows=rows if last else None, **given))
        else:
            first, second = (net.linear(part.under(name)) for name in ("0", "2"))
            net.steps.append(("block", (first, net.act, second)))
        before = int(place)
    return net
