"""Flows of normflows: RealNVP, MAF and neural spline flows."""

from typing import Any, Literal

import numpy as np

from jflow.distributions import Density
from jflow.interop.weights.blocks import (
    Reading,
    is_standard,
    masked_network,
    natural_order,
    read_spline_autoregressive,
    read_spline_coupling,
)
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

_OWNER = "from_normflows"
_LEAST = 1e-3
_SCALES: dict[str, tuple[Any, ...]] = {
    "exp": ("affine",),
    "sigmoid": ("sigmoid", -1.0, 0.0),
    "sigmoid_inv": ("sigmoid", 1.0, 0.0),
}
# What is kept, of so many features, by the name of a split.
_SPLITS = {
    "channel": lambda size: np.arange(size) < (size + 1) // 2,
    "checkerboard": lambda size: np.arange(size) % 2 == 1,
}


def from_normflows(
    state: Any, *, layers: int | None = None, activation: str = "relu", leaky: float = 0.0,
    scale_map: Literal["exp", "sigmoid", "sigmoid_inv"] = "exp",
    split_mode: str = "channel", tail_bound: float = 3.0, min_bin: float = 1e-3,
    min_derivative: float = 1e-3, check: Found = None,
) -> Density:  # fmt: skip
    """A trained flow of normflows as a density of jflow, whose log_prob is the same.

    It reads `NormalizingFlow` and `ConditionalNormalizingFlow` of a `DiagGaussian`, with
    `AffineCouplingBlock` (of an `MLP`), `MaskedAffineFlow`, `MaskedAffineAutoregressive`,
    `CoupledRationalQuadraticSpline`, `AutoregressiveRationalQuadraticSpline`, `ActNorm`, `Permute`
    and `LULinearPermute`. It does not need normflows. A state does not tell an `output_fn` of an
    `MLP`.

    Args:
      state: the state dict, names to arrays (of PyTorch, NumPy or a .safetensors file); or the
        module itself, which is compared with what was read, at 64 points.
      layers: how many the flow has. Those without arrays are taken for `Permute(mode="swap")`, and
        leave no trace at the end of a state; None if all have arrays, or for a module.
      activation: of the networks of splines and of masked networks, which a state does not tell.
      leaky: of the networks of affine couplings.
      scale_map: of affine couplings.
      split_mode: of affine couplings: "channel", "channel_inv", "checkerboard" or
        "checkerboard_inv".
      tail_bound: of splines.
      min_bin: the smallest share of a bin.
      min_derivative: the smallest slope of splines.
      check: (y, log_prob), or (y, context, log_prob), as the other library finds them; what was
        read is refused if it differs.

    Raises:
      TypeError: that is no state.
      ValueError: it holds what is not known, or has other densities than were found.

    Warns:
      UserWarning: nothing was compared, of a state without `check`.
    """
    check_activation(_OWNER, activation)
    if scale_map not in _SCALES or split_mode.removesuffix("_inv") not in _SPLITS:
        raise ValueError(
            f"{_OWNER}: scale_map must be one of {', '.join(_SCALES)}, and split_mode one of "
            f"{', '.join(_SPLITS)} or these with _inv; got {scale_map!r} and {split_mode!r}"
        )
    arrays = State.of(_OWNER, state)
    if hasattr(state, "flows"):
        layers = len(state.flows)
    how = Reading(_OWNER, activation, tail_bound, min_bin, min_derivative, normflows=True)
    loc, log_scale = (wide(arrays[f"q0.{name}"]).ravel() for name in ("loc", "log_scale"))
    read = Read(_OWNER, len(loc))
    parts = dict(arrays.under("flows").numbered())
    count = _counted(parts, layers)
    coupling = scale_map, split_mode, leaky
    for i in reversed(range(count)):
        _layer(read, how, parts.get(i), coupling)
    if not is_standard(loc, log_scale):
        read.scale(-log_scale, -loc * np.exp(-log_scale))
    arrays.ignore(*[name for name in arrays.names() if name.startswith("p.")])  # of the target
    arrays.check_all_read(_OWNER)
    of: Any = lambda y, c: state.log_prob(y) if c is None else state.log_prob(y, c)  # noqa: E731
    return compared(_OWNER, read.density(), state, check, of)


def _counted(parts: dict[int, State], layers: int | None) -> int:
    """How many layers there are, those without arrays among them."""
    traced = max(parts, default=-1) + 1
    if layers is None and len(parts) < traced:
        raise ValueError(
            f"{_OWNER}: some layers have no arrays, as Permute(mode='swap'), and there may be more "
            "after the last one that has: say how many there are by layers=, or give the module. "
            "All without arrays are taken for swaps"
        )
    if layers is not None and layers < traced:
        raise ValueError(f"{_OWNER}: layers is {layers}; the state has {traced} or more")
    return traced if layers is None else layers


def _layer(read: Read, how: Reading, layer: State | None, coupling: tuple[str, str, float]) -> None:
    if layer is None:
        size = read.features or 0
        half = (size + 1) // 2
        read.permute(np.concatenate([np.arange(half, size), np.arange(half)]))
    elif "perm" in layer:
        layer.ignore("perm")
        read.permute(np.asarray(layer["inv_perm"]))
    elif layer.has("linear") and layer.has("permutation"):
        read.permute(np.asarray(layer["permutation._permutation"]))
        read.lu(layer.under("linear"), _LEAST)
    elif layer.has("autoregressive_net"):
        _autoregressive(read, how, layer.under("autoregressive_net"))
    elif layer.has("mprqat"):
        _tail(layer.under("mprqat"), how)
        read_spline_autoregressive(read, how, layer.under("mprqat.autoregressive_net"))
    elif layer.has("prqct"):
        _tail(layer.under("prqct"), how)
        read_spline_coupling(read, how, layer.under("prqct"))
    elif layer.has("flows.1.param_map"):
        _affine_coupling(read, layer.under("flows.1.param_map.net"), *coupling)
    elif "b" in layer:
        _masked_affine(read, layer, coupling[2])
    elif "s" in layer and "t" in layer:
        layer.ignore("data_dep_init_done")
        s, t = (wide(layer[name]).ravel() for name in ("s", "t"))
        read.scale(-s, -t * np.exp(-s))
    else:
        raise ValueError(
            f"{_OWNER}: a layer with {sorted(layer.names())[:3]} is not known; see from_normflows "
            "for those that are"
        )


def _tail(layer: State, how: Reading) -> None:
    for name in [n for n in layer.names() if n.endswith("tail_bound")]:
        if not np.allclose(layer[name], how.tail_bound):
            raise ValueError(
                f"{_OWNER}: the state has splines of tail_bound {np.ravel(layer[name])[:3]}; give "
                "one for all by tail_bound="
            )


def _mlp(net: Steps, state: State, leaky: float, columns: Any, rows: Any) -> None:
    """Linear layers with leaky ReLUs between them."""
    linears = list(state.numbered())
    if any("weight" not in part for _, part in linears):
        raise ValueError(f"{_OWNER}: networks with scaled outputs are not read")
    for place, (_, part) in enumerate(linears):
        first, last = place == 0, place == len(linears) - 1
        step = net.linear(part, columns=columns if first else None, rows=rows if last else None)
        net.steps += [step] if last else [step, ("leaky", leaky)]


def _affine_coupling(
    read: Read, state: State, scale_map: str, split_mode: str, leaky: float
) -> None:
    size = read.features or 0
    kept = _SPLITS[split_mode.removesuffix("_inv")](size)
    kept = ~kept if split_mode.endswith("_inv") else kept
    moved = int((~kept).sum())
    outputs = len(list(state.numbered())[-1][1]["weight"])
    params = outputs // moved
    if params not in (1, 2) or outputs % moved:
        raise ValueError(f"{_OWNER}: {outputs} outputs for {moved} features; see split_mode")
    net = Steps("relu", 0)
    rows = by_parameter(moved, params)
    _mlp(net, state, leaky, None, rows)
    read.coupling(kept, _SCALES[scale_map] if params == 2 else ("shift",), net)


def _masked_affine(read: Read, layer: State, leaky: float) -> None:
    """From data: x = b y + (1 - b) (y - t(b y)) e^-s(b y)."""
    kept = np.asarray(layer["b"]).ravel() > 0.5
    seen, moved = np.flatnonzero(kept), np.flatnonzero(~kept)
    if not layer.has("t"):
        raise ValueError(f"{_OWNER}: a MaskedAffineFlow without t is not read")
    net, forks = Steps("relu", 0), []
    for name in ("t", "s") if layer.has("s") else ("t",):
        net.steps = []
        _mlp(net, layer.under(f"{name}.net"), leaky, seen, moved)
        forks.append(tuple(net.steps))
    net.steps = [("fork", *forks)]
    read.coupling(kept, ("affine",) if len(forks) == 2 else ("shift",), net)


def _autoregressive(read: Read, how: Reading, made: State) -> None:
    """Its fast direction is from base to data: y = z sigmoid(u(z) + 2) + shift(z)."""
    order = natural_order(made, 2)
    rows = by_feature(order, (1, 0))
    net = masked_network(how, made, order, rows)
    read.autoregressive(order, ("sigmoid_to_base", _LEAST), net, sequential=True)
