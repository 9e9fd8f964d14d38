"""The slow direction of autoregressive flows, by sweeps over all features at once."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jflow.functional.autoregressive import Report, Scalar
from jflow.functional.masked import MaskedNet, Weights


def jacobi(
    net: MaskedNet,
    backward: Scalar,
    weights: Weights,
    v: Array,
    *,
    tolerance: float,
    max_sweeps: int | None = None,
) -> tuple[Array, Array, Report]:
    """u of v by sweeps over all features at once, log|du_i/dv_i|, and a report.

    Sweep k makes feature k - 1 exact whatever the rest is, so D sweeps are exact; it stops when no
    feature changes by more than `tolerance` times 1 + |u|. A value that is not finite, of a feature
    or a hidden unit, counts as zero for the network as long as it may change, so that it cannot
    spoil earlier features; that of a feature makes all later ones NaN in the end. Points that fewer
    than D sweeps have not brought within the tolerance are NaN.

    Args:
      net: the network.
      backward: the inverse of f.
      weights: of the network.
      v: (*batch, D).
      tolerance: of the stopping test.
      max_sweeps: at most so many; None for D.
    """
    limit = net.features if max_sweeps is None else min(max_sweeps, net.features)

    def finite(x: Array) -> Array:
        return jnp.where(jnp.isfinite(x), x, 0)

    def sweep(u: Array) -> tuple[Array, Array]:
        _, params = net.states(weights, finite(u), finite)
        return backward(v, jnp.swapaxes(params, -1, -2).astype(v.dtype))

    def goes_on(carry: Any) -> Array:
        _, report = carry
        return (report.iterations < limit) & ~(report.residual <= tolerance)

    def again(carry: Any) -> Any:
        u, report = carry
        new, _ = sweep(u)
        return new, Report(report.iterations + 1, _largest(_changes(u, new)))

    nothing = Report(jnp.zeros((), jnp.int32), jnp.asarray(jnp.inf, v.dtype))
    u, report = lax.while_loop(goes_on, again, (jnp.zeros_like(v), nothing))
    new, log_dets = sweep(u)
    changes = _changes(u, new)
    report = report._replace(residual=_largest(changes))
    wrong = (~jnp.isfinite(u)).astype(jnp.int32)
    bad = jnp.cumsum(wrong, axis=-1, dtype=jnp.int32) > wrong
    if limit < net.features:
        bad |= jnp.any(changes > tolerance, axis=-1, keepdims=True)
    return jnp.where(bad, jnp.nan, u), jnp.where(bad, jnp.nan, log_dets), report


def _changes(u: Array, new: Array) -> Array:
    """|new - u| / (1 + |new|); infinite if a value became or ceased to be finite."""
    same = (new == u) | (jnp.isnan(new) & jnp.isnan(u))
    change = jnp.where(same, 0, jnp.abs(new - u) / (1 + jnp.abs(new)))
    return jnp.where(jnp.isnan(change), jnp.inf, change)


def _largest(changes: Array) -> Array:
    return jnp.max(changes, initial=0)
