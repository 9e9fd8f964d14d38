"""Networks as functions of their inputs alone, for loops, solvers and derivatives."""

from dataclasses import dataclass, replace
from typing import Any

import flax.linen as nn
from jax.tree_util import Partial

# What a network may draw, if it is given the stream.
_STREAMS = ("dropout", "noise")


def as_function(module: nn.Module, *args: Any, method: str = "__call__") -> Partial:
    """A Flax module as a function of its inputs, and a pytree that holds its variables.

    It can be called where a module cannot: in `lax.scan` and `lax.while_loop`, in a solver of ODEs
    or of equations, under `jax.grad` and `jax.jvp`. It is what such functions take as an argument,
    and derivatives by it are those by the variables.

        f = as_function(MLP((64,))(features).copy(name="net"), x)
        end, _ = lax.scan(lambda x, _: (x + f(x) / 10, None), x, length=10)

    To be called inside another module, which `module` is a part of. It runs the module once while
    parameters are made, and never otherwise. What it draws (dropout, noise) is the same in each
    call of the function, which then holds keys: derivatives by it need `allow_int`. What it writes
    into collections other than parameters is dropped: running averages, sown values and losses.

    Args:
      module: the network, bound to its parent.
      args: inputs, for their shapes.
      method: what of the module is called.

    Raises:
      ValueError: the module is not a part of another one.
    """
    if module.scope is None:
        raise ValueError(
            f"as_function: {type(module).__name__} must be part of a module that runs; make it in "
            "a compact method, as_function(net(features).copy(name='net'), x)"
        )
    if module.is_initializing():
        getattr(module, method)(*args)
    rngs = {name: module.make_rng(name) for name in _STREAMS if module.has_rng(name)}
    unbound, variables = module.unbind()
    return Partial(_Apply(unbound, method), variables, rngs)


def other_method(function: Partial, method: str) -> Partial:
    """Another method of the module that `as_function` has bound, with the same variables."""
    apply: Any = function.func
    return Partial(replace(apply, method=method), *function.args)


def without_dropout(function: Partial) -> Partial:
    """What `as_function` has made, without what is dropped in training."""
    variables, rngs = function.args
    kept = {name: key for name, key in rngs.items() if name != "dropout"}
    return Partial(function.func, variables, kept)


@dataclass(frozen=True)
class _Apply:
    """A method of a module, given variables."""

    module: nn.Module
    method: str

    def __call__(self, variables: Any, rngs: Any, *args: Any) -> Any:
        return self.module.apply(variables, *args, rngs=rngs, method=self.method)
