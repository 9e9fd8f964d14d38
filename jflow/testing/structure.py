"""What holds whatever the numbers: fields, shapes, dtypes, kinds, one trace a program."""

from typing import Any

import jax
import jax.numpy as jnp

from jflow.bijectors.base import Bijector
from jflow.testing.kinds import has_loop_to_tolerance
from jflow.testing.mistakes import explain, network_instance
from jflow.testing.points import in_dtype
from jflow.testing.programs import FORWARD, INVERSE, run
from jflow.testing.report import Checks
from jflow.testing.subject import Subject

_NAMES = {FORWARD: "forward", INVERSE: "inverse"}


def check_fields(checks: Checks, bijector: Bijector) -> None:
    """Fields are hashable, and networks come from factories."""
    try:
        holds = hash(bijector) == hash(bijector.clone())
    except TypeError:
        holds = False
    fix = "Fields must be hashable: tuples in place of lists, dicts and arrays"
    checks.holds("fields are hashable", holds, fix=fix)
    network = network_instance(bijector)
    checks.holds("networks come from factories", network is None, fix=network or "")


def check_structure(subject: Subject) -> bool:
    """Shapes, dtypes and kinds, by tracing alone; False if a direction cannot be run at all."""
    methods = (INVERSE, FORWARD) if subject.has_forward else (INVERSE,)
    if not subject.has_forward:
        subject.checks.notes.append('forward, which is "missing"')
    programs = {method: _one_point(subject, method) for method in methods}
    if not all(programs.values()):
        return False
    _check_kinds(subject, {_NAMES[method]: program for method, program in programs.items()})
    return all([_check_batches(subject, method) for method in methods])


def _one_point(subject: Subject, method: str) -> Any:
    """The program of one direction at a single point, and which of its inputs are of the point.

    None if it has none, or a wrong result.
    """
    latent = method == FORWARD
    x = jnp.asarray((subject.x if latent else subject.y)[0], subject.wide)
    context = None if subject.shared is None else jnp.asarray(subject.shared, subject.wide)
    out = subject.event_shape if latent else subject.latent_shape
    try:
        jaxpr, results = jax.make_jaxpr(
            lambda v, x, c: run(subject.bijector, method, v, x, c, subject.programs.key),
            return_shape=True,
        )(subject.variables, x, context)
    except Exception as error:
        name = f"{_NAMES[method]} runs on one point"
        subject.checks.failed(name, error, explain(error, subject.bijector))
        return None
    name, wide = f"{_NAMES[method]}: shapes and dtypes", jnp.dtype(subject.wide)
    right = _check_result(subject, name, results, (out, (), wide))
    inputs = len(jaxpr.jaxpr.invars)
    points = 1 + (context is not None)
    return (jaxpr.jaxpr, [i >= inputs - points for i in range(inputs)]) if right else None


def _check_batches(subject: Subject, method: str) -> bool:
    """Batches of unknown and of zero size; bfloat16 input gives float32 results."""
    latent = method == FORWARD
    event = subject.latent_shape if latent else subject.event_shape
    out = subject.event_shape if latent else subject.latent_shape
    variables = in_dtype(subject.variables, "float32")
    (n,) = jax.export.symbolic_shape("n")
    holds = True
    for batch, what in (((n,), "a batch of any size, of bfloat16"), ((0, 2), "an empty batch")):
        dtype = jnp.bfloat16 if batch == (n,) else jnp.float32
        x = jax.ShapeDtypeStruct((*batch, *event), dtype)
        width = None if subject.context is None else subject.context.shape[1:]
        # A context for each point, and one for all.
        leading = batch if dtype == jnp.bfloat16 else ()
        context = None if width is None else jax.ShapeDtypeStruct((*leading, *width), jnp.float32)
        name = f"{_NAMES[method]}: {what}"
        try:
            results = jax.eval_shape(
                lambda v, x, c: run(subject.bijector, method, v, x, c, subject.programs.key),
                variables, x, context,
            )  # fmt: skip
        except Exception as error:
            subject.checks.failed(name, error, explain(error, subject.bijector))
            holds = False
            continue
        wanted = ((*batch, *out), batch, jnp.dtype(jnp.float32))
        holds &= _check_result(subject, name, results, wanted)
    return holds


def _check_result(subject: Subject, name: str, results: Any, wanted: Any) -> bool:
    value, log_det = results
    shape, batch, dtype = wanted
    fixes = []
    if value.shape != shape:
        fixes.append(f"the value must have shape {shape}; got {value.shape}")
    if log_det.shape != batch:
        fixes.append(
            f"log_det must have the batch shape {batch}; got {log_det.shape}. Sum the logarithms "
            "over the event axes, and broadcast what does not depend on the point"
        )
    for what, dtype_got in (("the value", value.dtype), ("log_det", log_det.dtype)):
        if dtype_got != dtype:
            fixes.append(f"{what} must be {dtype}; got {dtype_got}. Begin with x = as_wide(x)")
    subject.checks.holds(name, not fixes, fix="; ".join(fixes))
    return not fixes


def _check_kinds(subject: Subject, programs: dict[str, Any]) -> None:
    bijector, iterative = subject.bijector, False
    # Random series of log_dets are loops, too.
    exact = bijector.log_det_kind == "exact"
    for direction, program in programs.items():
        kind = getattr(bijector, f"{direction}_kind")
        iterative |= kind == "iterative"
        loops = exact and kind == "closed form" and has_loop_to_tolerance(*program)
        subject.checks.holds(
            f"{direction}_kind is true", not loops, fix=f"{direction}_kind is 'closed form', but "
            "the program runs a loop that stops at a tolerance: declare 'iterative'",
        )  # fmt: skip
    subject.checks.holds(
        "tolerance is true",
        not iterative or bijector.tolerance > 0,
        fix="an iterative direction stops at a tolerance above 0; it says 0",
    )


def check_traces(subject: Subject) -> None:
    """New points, contexts and parameters of the same shapes have not been traced again."""
    again = [name for name, count in subject.programs.traces.items() if count > 1]
    fix = f"traced again: {', '.join(again)}. Shapes and dtypes of variables must not change"
    subject.checks.holds("traced once", not again, fix=fix)
