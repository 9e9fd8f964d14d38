"""Flows of nflows: MAF, RealNVP and neural spline flows, ready-made or composed."""

from typing import Any

import numpy as np

from jflow.distributions import Density
from jflow.interop.weights.blocks import (
    Reading,
    coupled,
    is_standard,
    masked_network,
    natural_order,
    read_spline_autoregressive,
    read_spline_coupling,
    residual_network,
)
from jflow.interop.weights.checking import Found, compared
from jflow.interop.weights.reading import (
    Read,
    State,
    by_feature,
    check_activation,
    wide,
)

_OWNER = "from_nflows"
# Of scales: the least, and that of diagonals of triangles.
_LEAST = 1e-3


def from_nflows(
    state: Any, *, activation: str = "relu", tail_bound: float = 1.0, min_bin: float = 1e-3,
    min_derivative: float = 1e-3, check: Found = None,
) -> Density:  # fmt: skip
    """A trained flow of nflows as a density of jflow, whose log_prob is the same.

    It reads compositions of permutations, `LULinear`, `PointwiseAffineTransform`, `ActNorm`, masked
    affine and rational-quadratic autoregressive transforms, and affine, additive and
    rational-quadratic couplings with residual networks; so `MaskedAutoregressiveFlow` and
    `SimpleRealNVP` without batch normalisation. It does not need nflows.

    Args:
      state: the state dict, names to arrays (of PyTorch, NumPy or a .safetensors file); or the
        module itself, which is compared with what was read, at 64 points.
      activation: of the networks, which a state does not tell: "relu", "tanh", "elu", "silu", ...
      tail_bound: of splines, with linear tails.
      min_bin: the smallest share of a bin: min_bin_width and min_bin_height of nflows, if equal.
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
    arrays = State.of(_OWNER, state)
    how = Reading(_OWNER, activation, tail_bound, min_bin, min_derivative)
    read = Read(_OWNER)
    _transforms(read, how, arrays.under("_transform"))
    base = arrays.under("_distribution")
    base.ignore("_log_z")
    if "mean_" in base:
        loc, log_scale = wide(base["mean_"]), wide(base["log_std_"])
        if not is_standard(loc, log_scale):
            read.scale(-log_scale, -loc * np.exp(-log_scale))
    arrays.check_all_read(_OWNER)
    of: Any = lambda y, c: state.log_prob(y, context=c)  # noqa: E731
    return compared(_OWNER, read.density(), state, check, of)


def _transforms(read: Read, how: Reading, part: State) -> None:
    if not part.has("_transforms"):
        _layer(read, how, part)
        return
    parts = list(part.under("_transforms").numbered())
    places = [place for place, _ in parts]
    if places != list(range(len(places))):
        raise ValueError(
            f"{_OWNER}: the state tells of transforms {places} alone; those between have no "
            "arrays, so that what they do is not known"
        )
    for _, inner in parts:
        _transforms(read, how, inner)


def _layer(read: Read, how: Reading, layer: State) -> None:
    if "_permutation" in layer:
        read.permute(np.asarray(layer["_permutation"]))
    elif "unconstrained_upper_diag" in layer:
        read.lu(layer, _LEAST)
    elif "_scale" in layer:
        scale = wide(layer["_scale"])
        if not (scale > 0).all():
            raise ValueError(f"{_OWNER}: scales below zero are not read")
        read.scale(np.log(scale), wide(layer["_shift"]))
    elif "log_scale" in layer:
        layer.ignore("initialized")
        read.scale(wide(layer["log_scale"]), wide(layer["shift"]))
    elif layer.has("autoregressive_net"):
        _autoregressive(read, how, layer.under("autoregressive_net"))
    elif layer.has("transform_net"):
        _coupling(read, how, layer)
    else:
        raise ValueError(
            f"{_OWNER}: a transform with {sorted(layer.names())[:3]} is not known; see from_nflows "
            "for those that are"
        )


def _autoregressive(read: Read, how: Reading, made: State) -> None:
    size = made["initial_layer.weight"].shape[1]
    params = len(made["final_layer.weight"]) // size
    if params != 2:
        read_spline_autoregressive(read, how, made)
        return
    order = natural_order(made, 2)
    # Theirs are (scale, shift); ours (shift, scale), with a scale of 1 at 0.
    rows = by_feature(order, (1, 0))
    offset = np.tile([-np.log(np.expm1(1 - _LEAST)), 0.0], size)
    net = masked_network(how, made, order, rows, offset=offset)
    read.autoregressive(order, ("softplus_to_base", _LEAST), net)


def _coupling(read: Read, how: Reading, layer: State) -> None:
    kept, moved = coupled(layer)
    params = len(layer["transform_net.final_layer.weight"]) // len(moved)
    if params > 2:
        read_spline_coupling(read, how, layer)
        return
    net = residual_network(how, layer.under("transform_net"), int(kept.sum()))
    scalar = ("shift_to_base",) if params == 1 else ("sigmoid_to_base", _LEAST)
    read.coupling(kept, scalar, net)
