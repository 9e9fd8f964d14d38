"""Whether a program runs a loop that stops at a tolerance."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp


def has_loop_to_tolerance(jaxpr: Any, moves: Sequence[bool]) -> bool:
    """Whether a loop that depends on the point stops on values that are computed.

    Loops of counted steps, whose condition compares integers alone, do not; nor do those that read
    parameters only, such as power iterations for the norm of a kernel.

    Args:
      jaxpr: the program.
      moves: for each of its inputs, whether it is of the point.
    """
    return _look(jaxpr, moves)[0]


def _look(jaxpr: Any, moves: Sequence[bool]) -> tuple[bool, list[bool]]:
    """Whether there is such a loop, and which results depend on the point."""
    known = {id(v): moving for v, moving in zip(jaxpr.invars, moves, strict=True)}
    found = False
    for equation in jaxpr.eqns:
        inputs = [known.get(id(v), False) for v in equation.invars]
        if not any(inputs):
            continue
        if equation.primitive.name == "while":
            found |= not _counts(equation.params["cond_jaxpr"].jaxpr)
        outputs = [True] * len(equation.outvars)
        for inner in _programs(equation):
            same = len(inner.invars) == len(inputs)
            inside, moving = _look(inner, inputs if same else [True] * len(inner.invars))
            if equation.primitive.name == "scan":
                inside, moving = _look(inner, _carried(equation, inputs, moving))
            found |= inside
            if same and len(moving) == len(outputs):
                outputs = moving
        known |= {id(v): moving for v, moving in zip(equation.outvars, outputs, strict=True)}
    return found, [known.get(id(v), False) for v in jaxpr.outvars]


def _carried(equation: Any, inputs: list[bool], moving: list[bool]) -> list[bool]:
    """A scan's inputs, where what it carries depends on the point after a step."""
    consts, carry = equation.params["num_consts"], equation.params["num_carry"]
    after = [a or b for a, b in zip(inputs[consts : consts + carry], moving, strict=False)]
    return [*inputs[:consts], *after, *inputs[consts + carry :]]


def _programs(equation: Any) -> list[Any]:
    """The programs that an operation calls."""
    leaves = jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program)
    return [getattr(leaf, "jaxpr", leaf) for leaf in leaves if _is_program(leaf)]


def _is_program(value: Any) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")


def _counts(condition: Any) -> bool:
    """Whether all that a loop's condition reads are integers."""
    read = {id(v) for equation in condition.eqns for v in equation.invars}
    inputs = [v for v in condition.invars if id(v) in read]
    return all(jnp.issubdtype(v.aval.dtype, jnp.integer) for v in inputs)
