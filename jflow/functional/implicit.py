"""Solutions of equations, with derivatives of every order that do not go through the solver."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

Report = TypeVar("Report")


def solved(
    find: Callable[[Any, Array], tuple[Array, Report]],
    function: Callable[[Any, Array], Array],
    divide: Callable[[Any, Array, Array], Array],
    params: Any,
    y: Array,
) -> tuple[Array, Report]:
    """x with f(params, x) = y, and what `find` reports, which has no derivatives.

    Those of x are those of the implicit function theorem,

        dx = (df/dx)^-1 (dy - df/dparams dparams),

    in both modes, and so are those of them, at any depth.

    Args:
      find: of params and y, to x and a report; it need not be differentiable.
      function: f, of params and x.
      divide: of params, x and b: t with (df/dx) t = b.
      params: a pytree of what else f depends on.
      y: the values.
    """

    def tangent(primals: Any, tangents: Any, found: tuple[Array, Report]) -> Any:
        (params, _), (dparams, dy), (x, report) = primals, tangents, found
        moved = jax.jvp(lambda params: function(params, x), (params,), (dparams,))[1]
        return divide(params, x, dy - moved), jax.tree.map(no_tangent, report)

    return with_tangents(find, tangent, params, y)


def with_tangents(
    function: Callable[..., Any], tangent: Callable[[Any, Any, Any], Any], *args: Any
) -> Any:
    """function(*args), whose tangents are tangent(args, tangents of args, result).

    It is `jax.custom_jvp`, but for loops: there JAX drops its rules once they have been used, and
    derivatives of derivatives go through the function, such as a solver that has none. A primitive
    keeps its rule. What is traced must come to both functions through `args`: the rule may be
    asked for after what is around it has been left.
    """
    leaves, tree = jax.tree.flatten(args)
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    traced, shape = jax.make_jaxpr(lambda *a: function(*tree.unflatten(a)), return_shape=True)(
        *leaves
    )
    outputs = jax.tree.structure(shape)

    def rule(primals: Sequence[Any], tangents: Sequence[Any], found: Sequence[Any]) -> list[Any]:
        tangents = [
            no_tangent(p) if t is None else t for p, t in zip(primals, tangents, strict=True)
        ]
        given = tree.unflatten(primals), tree.unflatten(tangents), outputs.unflatten(found)
        return jax.tree.leaves(tangent(*given))

    # What the function has from outside becomes an argument, of which it has no derivatives.
    count, jaxpr = len(traced.consts), traced.jaxpr
    program = ClosedJaxpr(jaxpr.replace(constvars=(), invars=[*jaxpr.constvars, *jaxpr.invars]), ())
    found = _kept.bind(
        *traced.consts,
        *leaves,
        program=program,
        rule=lambda p, t, found: rule(p[count:], t[count:], found),
    )
    return outputs.unflatten(found)


def no_tangent(a: Any) -> Any:
    """The tangent of an array that has no derivative."""
    if jnp.issubdtype(jnp.result_type(a), jnp.floating):
        return jnp.zeros_like(a)
    return np.zeros(jnp.shape(a), jax.dtypes.float0)


_kept = Primitive("with_tangents")
_kept.multiple_results = True
_kept.def_impl(lambda *args, program, rule: jax.jit(jaxpr_as_fun(program))(*args))
_kept.def_abstract_eval(lambda *_, program, rule: program.out_avals)
mlir.register_lowering(
    _kept,
    mlir.lower_fun(
        lambda *args, program, rule: jaxpr_as_fun(program)(*args), multiple_results=True
    ),
)


def _jvp(primals: Any, tangents: Any, *, program: Any, rule: Any) -> Any:
    found = _kept.bind(*primals, program=program, rule=rule)
    # Whole numbers have none.
    tangents = [
        ad.instantiate_zeros(t) if jnp.issubdtype(p.dtype, jnp.floating) else None
        for p, t in zip(primals, tangents, strict=True)
    ]
    return found, rule(primals, tangents, found)


def _batch(args: Any, axes: Any, *, program: Any, rule: Any) -> Any:
    many = jax.vmap(jaxpr_as_fun(program), in_axes=axes)

    def batched(primals: Any, tangents: Any, found: Any) -> Any:
        of_tangents = [None if t is None else axis for t, axis in zip(tangents, axes, strict=True)]
        in_axes = (list(axes), of_tangents, 0)
        own = [leaf.dtype for leaf in program.out_avals]
        floating = [jnp.issubdtype(dtype, jnp.floating) for dtype in own]

        def one(*given: Any) -> Any:
            return [t if of else None for t, of in zip(rule(*given), floating, strict=True)]

        moved = jax.vmap(one, in_axes=in_axes)(list(primals), list(tangents), list(found))
        return [no_tangent(f) if t is None else t for t, f in zip(moved, found, strict=True)]

    found = _kept.bind(*args, program=jax.make_jaxpr(many)(*args), rule=batched)
    return found, [0] * len(found)


ad.primitive_jvps[_kept] = _jvp
batching.primitive_batchers[_kept] = _batch
