"""The check of bijectors: what is drawn, what is traced, and in which order properties follow."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import jax
from jax.typing import ArrayLike, DTypeLike

from jflow.bijectors.base import Bijector
from jflow.testing import exactness, robustness, structure
from jflow.testing.points import Sampler, precisions
from jflow.testing.report import Checks, Report
from jflow.testing.subject import Subject


def check_bijector(
    bijector: Bijector,
    event_shape: tuple[int, ...],
    *,
    context: ArrayLike | None = None,
    data: ArrayLike | Sampler | None = None,
    base: ArrayLike | Sampler | None = None,
    dtype: DTypeLike | None = None,
    variables: Mapping[str, Any] | None = None,
    scale: float = 0.3,
    gradient: float = 1e-3,
    seed: int = 0,
    eager: bool = False,
) -> Report:
    """Checks that a bijector is what it says: every property that flows rely on.

    - `log_det` is log|det| of the Jacobian that autodiff finds, in both directions: within 1e-10
      in float64, and 1e-4 in float32;
    - the directions undo each other (1e-9, 1e-4), with opposite log_dets, and the forward
      direction's derivative is the inverse of the inverse's;
    - each point of a batch is treated by itself, with its own context or a shared one;
    - values and gradients are finite from 0 to +-1e6, and NaN stays NaN, in its own row;
    - where `data_support` takes the line, forward does, and lands where it says;
    - every parameter has a gradient: finite, not zero, and that of finite differences;
    - results have the input's dtype, float32 at least; any batch shape, empty or symbolic, will do;
    - `forward_kind`, `inverse_kind`, `log_det_kind` and `tolerance` are true.

    Parameters are moved off their first values, at which many a layer is the identity, and six
    points are drawn. It takes three programs; the Jacobian asks for events of some 16 numbers at
    most. Estimates of log_det ("unbiased") are averaged over 64 draws.

    Args:
      bijector: what is checked.
      event_shape: of one event, on the data side.
      context: contexts to draw from, (N, C) or (N, S, C), for a conditional bijector.
      data: points of the data side to draw from, (N, *event), or a function that draws them of a
        NumPy generator and a shape; None for standard normals. They lie inside the support.
      base: the same for the base side.
      dtype: None checks exactness in float64 and the rest in float32; "float32" or "float64" all
        in that one. Gradients are compared with differences where float64 is one of them.
      variables: of the bijector, such as trained ones; None for new ones, moved by `scale`.
      scale: of the steps by which parameters are moved. Less for deep ones, whose condition number
        is the product of those of their layers.
      gradient: how far gradients may be from finite differences, relative to their norm. Norms of
        contracting layers are found by iterations that stop early, and are differentiated as if
        they had not; those layers ask for 1e-2.
      seed: of points, parameters and directions.
      eager: whether to run the inverse outside of jit too, which is slow, and compare.

    Returns:
      The properties that were checked, with their errors: a table that prints.

    Raises:
      ContractError: properties do not hold; it names each, with its largest error and the point.
      TypeError: not a bijector.
      ValueError: points or contexts of the wrong shape, or an event shape that it refuses.
    """
    if not isinstance(bijector, Bijector):
        raise TypeError(
            "check_bijector: bijector must be an instance of a jflow.bijectors.Bijector; got "
            f"{bijector!r}"
        )
    wide, narrow = precisions(dtype)
    with jax.enable_x64(True) if wide == "float64" else nullcontext():
        checks = Checks(f"{type(bijector).__name__} on events of shape {tuple(event_shape)}")
        structure.check_fields(checks, bijector)
        subject = Subject(checks, bijector, tuple(event_shape), (wide, narrow), seed)
        subject.draw(context, data, base)
        if subject.start(variables, scale) and structure.check_structure(subject):
            exactness.check_exactness(subject, eager=eager)
            robustness.check_robustness(subject, gradient)
            structure.check_traces(subject)
        return checks.report()
