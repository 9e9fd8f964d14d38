"""What holds to rounding, in the wide dtype: log_dets, round trips, derivatives."""

from typing import Any

import jax
import numpy as np

from jflow.testing.mistakes import explain
from jflow.testing.points import direction_like, in_dtype
from jflow.testing.programs import INVERSE, run
from jflow.testing.subject import LOG_DET, ROUND_TRIP, Subject

_DRAWS = 64
_SIGMAS = 4.5


def check_exactness(subject: Subject, *, eager: bool) -> None:
    """Log_dets against autodiff's Jacobians, and both directions against each other."""
    wide = subject.wide
    y, x, context = (in_dtype(v, wide) for v in (subject.y, subject.x, subject.context))
    try:
        jacobian, latents, log_det = subject.programs.inverse(subject.variables, y, context)
        _check_log_det(subject, "inverse", jacobian, log_det, y, context)
        if eager and not subject.random_inverse:
            _check_eager(subject, y, context, (latents, log_det))
        if subject.has_forward:
            _check_forward(subject, x, context)
            _check_back(subject, y, context, latents, log_det)
    except Exception as error:
        name = "compiles and differentiates"
        subject.checks.failed(name, error, explain(error, subject.bijector))


def _check_forward(subject: Subject, x: np.ndarray, context: Any) -> None:
    """x -> y -> x, and the forward direction by the inverse's Jacobian at y."""
    checks, wide, tangent = subject.checks, subject.wide, direction_like(x, subject.random)
    arrays = (subject.batch(v) for v in (x, tangent, context))
    y, log_det, along = map(subject.rows, subject.programs.forward(subject.variables, *arrays))
    jacobian, again, opposite = subject.programs.inverse(subject.variables, y, context)
    at = subject.at(x=x, context=context)
    subject.check_round_trip("x", wide, x, again, log_det, opposite, at)
    if subject.random_inverse:
        return
    if not subject.random_forward:
        _check_log_det(subject, "forward", jacobian, -log_det, y, context, x=x)
    flat = along.reshape(len(y), -1)
    back = np.einsum("nij,nj->ni", jacobian, flat)
    size = np.einsum("nij,nj->ni", np.abs(jacobian), np.abs(flat))
    checks.close(
        f"forward's derivative is the inverse of the inverse's, {wide}", back,
        tangent.reshape(len(y), -1), ROUND_TRIP[wide] * (1 + size), at,
        "autodiff finds another derivative in forward than in inverse: look for stop_gradient, "
        "custom derivatives, and iterations that are differentiated",
    )  # fmt: skip


def _check_back(subject: Subject, y: Any, context: Any, latents: Any, log_det: Any) -> None:
    """y -> x -> y."""
    arrays = (subject.batch(v) for v in (latents, np.zeros_like(latents), context))
    again, opposite, _ = map(subject.rows, subject.programs.forward(subject.variables, *arrays))
    at = subject.at(y=y, context=context)
    subject.check_round_trip("y", subject.wide, y, again, log_det, opposite, at)


def _check_log_det(
    subject: Subject,
    direction: str,
    jacobian: np.ndarray,
    log_det: np.ndarray,
    y: Any,
    context: Any,
    **point: Any,
) -> None:
    """The log_det of the inverse at y, or minus that of forward there, by its declared kind."""
    if subject.random_inverse:
        subject.checks.notes.append(f"log_det of {direction}: inverse draws what it is of")
        return
    if subject.random_forward and jacobian.shape[1] < jacobian.shape[2]:
        subject.checks.notes.append(
            f"log_det of {direction}: forward draws what inverse leaves out"
        )
        return
    if jacobian.shape[1] != jacobian.shape[2]:
        subject.checks.holds(
            "as many numbers on both sides", False,
            fix=f"the Jacobian is {jacobian.shape[1:]}; latent_shape must keep the size",
        )  # fmt: skip
        return
    wanted = np.linalg.slogdet(jacobian.astype(np.float64))[1]
    name = f"log_det of {direction} is that of the Jacobian, {subject.wide}"
    at = subject.at(**(point or {"y": y}), context=context)
    kind, allowed = subject.bijector.log_det_kind, LOG_DET[subject.wide]
    if subject.random_forward:
        subject.checks.close(
            "log_det is that of the Jacobian, and the log share of the point",
            np.maximum(log_det, wanted), wanted, allowed, at, "the share of a point is above one",
        )  # fmt: skip
    elif kind == "exact":
        fix = _ratio(log_det, wanted)
        subject.checks.close(name, log_det, wanted, allowed, at, fix)
    elif kind == "biased":
        subject.checks.notes.append(f"log_det of {direction}, which is declared biased")
    elif direction == "inverse":
        _check_estimates(subject, kind, wanted, y, context)


def _ratio(log_det: np.ndarray, wanted: np.ndarray) -> str:
    """A guess at the mistake: a factor that is the same at all points, or a constant."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = log_det / wanted
    if np.ptp(ratio) < 1e-6 * abs(ratio.mean()):
        return f"log_det is {ratio.mean():.6g} times log|det| of the Jacobian"
    if np.ptp(log_det - wanted) < 1e-6:
        return f"log_det is log|det| of the Jacobian plus {np.mean(log_det - wanted):.6g}"
    return "compare with the logarithm of the determinant of the derivatives, factor by factor"


def _check_estimates(subject: Subject, kind: str, wanted: np.ndarray, y: Any, context: Any) -> None:
    """The mean of many draws: unbiased, or not above the exact value."""
    keys = jax.random.split(subject.programs.key, _DRAWS)
    draws = [subject.programs.inverse(subject.variables, y, context, key)[2] for key in keys]
    mean, error = np.mean(draws, axis=0), np.std(draws, axis=0, ddof=1) / np.sqrt(_DRAWS)
    if kind == "bound":
        mean = np.maximum(mean, wanted)
    subject.checks.close(
        f"log_det is {kind}, {_DRAWS} draws", mean, wanted, _SIGMAS * error + 1e-6,
        subject.at(y=y, context=context), f"it is declared {kind!r}, and its mean is not",
    )  # fmt: skip


def _check_eager(subject: Subject, y: Any, context: Any, wanted: Any) -> None:
    """The inverse outside of jit, on a batch."""
    arrays = subject.batch(y), subject.batch(context)
    results = run(subject.bijector, INVERSE, subject.variables, *arrays, subject.programs.key)
    found = (subject.rows(np.asarray(result)) for result in results)
    for what, value_found, value in zip(("values", "log_dets"), found, wanted, strict=True):
        subject.checks.close(
            f"the same {what} outside of jit, {subject.wide}", value_found, value,
            LOG_DET[subject.wide] + ROUND_TRIP[subject.wide] * np.abs(value),
            subject.at(y=y, context=context),
            "eager and compiled, a batch and single points differ",
        )  # fmt: skip
