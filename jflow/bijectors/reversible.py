"""Layers whose backward pass computes what they were given from what they gave."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from jflow.bijectors.base import Bijector
from jflow.functional.sharding import gathered
from jflow.nets.reports import report

_OPPOSITE = {
    "forward_and_log_det": "inverse_and_log_det",
    "inverse_and_log_det": "forward_and_log_det",
}
# What may be in the variables; other collections change from call to call.
_COLLECTIONS = {"params", "constants"}


class Layers(NamedTuple):
    """Bijectors to run one after the other, `length` times; hashable.

    Attributes:
      parts: each with the path to its variables, in the order in which they run.
      method: of all of them.
      length: None for once, without an axis of layers in the variables.
      reverse: whether the layers run from the last to the first.
    """

    parts: tuple[tuple[tuple[str, ...], Bijector], ...]
    method: str
    length: int | None = None
    reverse: bool = False

    @classmethod
    def of(
        cls, bijector: Bijector, method: str, length: int | None = None, reverse: bool = False
    ) -> "Layers":
        """The steps of a bijector, bound or not."""
        steps = tuple(
            (path, step.clone(parent=None, _deep_clone=True, _reset_names=True))
            for path, step in bijector.steps()
        )
        return cls(steps if method.startswith("inverse") else steps[::-1], method, length, reverse)


def is_reversible(bijector: Bijector) -> bool:
    """Whether a part of it keeps no activations."""
    own = getattr(bijector, "memory", None) == "reversible"
    return own or any(is_reversible(part) for part in bijector.parts)


def run_reversible(
    owner: nn.Module,
    bijector: Bijector,
    method: str,
    x: Array,
    context: Array | None,
    repeat: tuple[int, bool] | None = None,
) -> tuple[Array, Array]:
    """Runs the bijector of a bound module, and reports its drift where that is asked for.

    Args:
      owner: the module: the bijector itself, or what has it under the name "bijector".
      bijector: what to run.
      method: of the bijector.
      x: (*batch, *event).
      context: (C,) or (*batch, C), or None.
      repeat: how many layers, and whether from the last to the first; None for no axis of layers.
    """
    variables: Any = dict(owner.variables)
    if bijector is not owner:
        variables = {name: tree.get("bijector", {}) for name, tree in variables.items()}
    variables = {name: tree for name, tree in variables.items() if tree}
    length, reverse = repeat or (None, False)
    keys = None
    if owner.has_rng("dropout"):
        key = owner.make_rng("dropout")
        keys = key if length is None else jax.random.split(key, length)
    layers = Layers.of(bijector, method, length, reverse)
    report(owner, drift=lambda: drift(layers, variables, x, context, keys))
    return run(layers, variables, x, context, keys)


def run(
    layers: Layers, variables: Any, x: Array, context: Array | None, keys: Array | None
) -> tuple[Array, Array]:
    """The result, and the sum of log_dets. Activations of one layer are kept, of whatever depth.

    The backward pass goes through the parts one by one, from the last: it computes a part's input
    from its output by the other direction, then the part's vector-Jacobian product there. What
    both need, such as the network of a coupling, XLA computes once. There is no forward mode.

    Args:
      layers: what to run.
      variables: their collections "params" and "constants", stacked along a first axis if there is
        a length.
      x: (*batch, *event).
      context: (C,) or (*batch, C), or None.
      keys: for dropout, one for each layer if there is a length; None for none.

    Raises:
      ValueError: there are other collections, which change from call to call.
    """
    others = sorted(set(variables) - _COLLECTIONS)
    if others:
        raise ValueError(
            f"memory='reversible' is for layers without a state; these have {', '.join(others)}. "
            "Use memory='remat'"
        )
    params, constants = variables.get("params", {}), variables.get("constants", {})
    return _run(layers, params, (constants, keys), x, context)


def _forward(layers: Layers, params: Any, fixed: Any, x: Array, context: Array | None) -> Any:
    def layer(x: Array, given: Any) -> tuple[Array, Array]:
        params, fixed = given
        log_dets = []
        for i in range(len(layers.parts)):
            x, log_det = _part(layers, i, layers.method, params, fixed, x, context)
            log_dets.append(log_det)
        return x, sum(log_dets[1:], log_dets[0])

    if layers.length is None:
        return layer(x, (params, fixed))
    x, log_dets = lax.scan(layer, x, (params, fixed), layers.length, layers.reverse)
    return x, jnp.sum(log_dets, axis=0)


def _part(
    layers: Layers, i: int, method: str, params: Any, fixed: Any, x: Array, context: Any
) -> tuple[Array, Array]:
    path, bijector = layers.parts[i]
    constants, key = fixed
    variables = {"params": gathered(_at(params, path)), "constants": _at(constants, path)}
    rngs = None if key is None else {"dropout": jax.random.fold_in(key, i)}
    found, sown = bijector.apply(
        variables, x, context, method=method, rngs=rngs, mutable=["losses"]
    )
    if sown:
        raise ValueError(
            f"memory='reversible' would lose what {type(bijector).__name__} adds to the loss (the "
            "collection 'losses'). Use memory='remat'"
        )
    return found  # type: ignore[return-value]


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        tree = tree.get(name, {})
    return tree


def _nested(tree: Any, path: tuple[str, ...]) -> Any:
    for name in reversed(path):
        tree = {name: tree} if tree else {}
    return tree


def _merged(a: Any, b: Any) -> Any:
    return {
        name: _merged(a[name], b[name]) if name in a and name in b else a.get(name, b.get(name))
        for name in {**a, **b}
    }


_run = jax.custom_vjp(_forward, nondiff_argnums=(0,))


def _save(layers: Layers, params: Any, fixed: Any, x: Array, context: Array | None) -> Any:
    y, log_det = _forward(layers, params, fixed, x, context)
    return (y, log_det), (params, fixed, y, context)


def _backward(layers: Layers, saved: Any, cotangents: tuple[Array, Array]) -> Any:
    params, fixed, y, context = saved
    by_y, by_log_det = cotangents

    def layer(carry: Any, given: Any) -> tuple[Any, Any]:
        y, by_y, by_context = carry
        params, fixed = given
        by_params: Any = {}
        for i in reversed(range(len(layers.parts))):
            x, _ = _part(layers, i, _OPPOSITE[layers.method], params, fixed, y, context)

            def once(own: Any, x: Array, context: Any, i: int = i) -> Any:
                return _part(layers, i, layers.method, own, fixed, x, context)

            path = layers.parts[i][0]
            own = _nested(_at(params, path), path)
            by_own, by_y, share = jax.vjp(once, own, x, context)[1]((by_y, by_log_det))
            by_params = _merged(by_params, by_own)
            by_context = jax.tree.map(jnp.add, by_context, share)
            y = x
        return (y, by_y, by_context), by_params

    start = y, by_y, jax.tree.map(jnp.zeros_like, context)
    if layers.length is None:
        (_, by_x, by_context), by_params = layer(start, (params, fixed))
    else:
        (_, by_x, by_context), by_params = lax.scan(
            layer, start, (params, fixed), layers.length, not layers.reverse
        )
    return by_params, None, by_x, by_context


_run.defvjp(_save, _backward)


def drift(
    layers: Layers, variables: Any, x: Array, context: Array | None, keys: Array | None
) -> Array:
    """How far off the inputs of layers are that the backward pass finds: the largest |error|.

    One number for each layer, in the order of the variables; a scalar without a length.
    """
    fixed = variables.get("constants", {}), keys
    given = variables.get("params", {}), fixed

    def there(x: Array, given: Any) -> tuple[Array, Array]:
        params, fixed = given
        y = x
        for i in range(len(layers.parts)):
            y, _ = _part(layers, i, layers.method, params, fixed, y, context)
        return y, x

    def back(y: Array, given: Any) -> tuple[Array, Array]:
        (params, fixed), exact = given
        for i in reversed(range(len(layers.parts))):
            y, _ = _part(layers, i, _OPPOSITE[layers.method], params, fixed, y, context)
        return y, jnp.max(jnp.abs(y - exact), initial=0.0)

    if layers.length is None:
        y, x = there(x, given)
        return back(y, (given, x))[1]
    y, inputs = lax.scan(there, x, given, layers.length, layers.reverse)
    return lax.scan(back, y, (given, inputs), layers.length, not layers.reverse)[1]
