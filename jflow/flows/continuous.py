"""Continuous flows: FFJORD, RNODE, augmented ones, OT-Flow."""

from typing import Literal

from jflow.bijectors import ActNorm, Augment, Bijector, Chain, Continuous, Repeat
from jflow.distributions import Flow, recipe
from jflow.functional import Adaptive, ExactTrace, FixedGrid, Hutchinson
from jflow.functional.arguments import check_counts
from jflow.nets import MLP, ConcatSquash, Potential


@recipe
def ffjord(
    features: int,
    layers: int = 1,
    hidden: tuple[int, ...] = (64, 64, 64),
    *,
    field: Literal["concat", "concat_squash"] = "concat",
    activation: str = "tanh",
    exact_up_to: int = 16,
    steps: int = 24,
    method: str = "rk4",
    tolerance: float | None = None,
    max_steps: int = 256,
    context_shape: int | tuple[int, ...] | None = None,
) -> Flow:
    """FFJORD: a continuous flow whose field is any network, and its trace exact or estimated.

    Training solves on a fixed grid; log p, latents and samples are solves to a tolerance. Unlike in
    the paper, an actnorm nearest to the data gives the flow the data's place and scale.

    Args:
      features: D.
      layers: paths one after the other, each with a field of its own.
      hidden: widths of the field's hidden layers.
      field: "concat", an `MLP` of y, time and context, which trains faster; or "concat_squash",
        `ConcatSquash`.
      activation: of the field: a smooth one.
      exact_up_to: traces of up to so many features are exact, by D products; otherwise
        Hutchinson's estimates of one probe, and log p draws: `density.log_prob(y, key=key)`, with
        its error `density.log_prob_estimate(y, key)`, exactly
        `density.with_estimator(ExactTrace())`.
      steps: of the grid of training. With fewer, it is faster, and its gradients are off by more;
        log p is not.
      method: of that grid; see `FixedGrid`.
      tolerance: of all other solves; None for 1e-6 in float32. See `Adaptive`.
      max_steps: of these.
      context_shape: shape of the context, or its width; None for an unconditional flow.

    Reference: Grathwohl et al., 2019, https://arxiv.org/abs/1810.01367
    """
    return _flow(
        "ffjord", features, layers, hidden, field, activation, exact_up_to,
        FixedGrid(steps, method), Adaptive(tolerance, max_steps=max_steps), context_shape,
    )  # fmt: skip


@recipe
def rnode(
    features: int,
    layers: int = 1,
    hidden: tuple[int, ...] = (64, 64, 64),
    *,
    kinetic: float = 0.03,
    jacobian: float = 0.03,
    field: Literal["concat", "concat_squash"] = "concat",
    activation: str = "tanh",
    exact_up_to: int = 16,
    steps: int = 16,
    method: str = "rk4",
    tolerance: float | None = None,
    max_steps: int = 256,
    context_shape: int | tuple[int, ...] | None = None,
) -> Flow:
    """RNODE: FFJORD with penalties that keep paths straight, so that few steps solve them.

    Args:
      features: D.
      layers: see `ffjord`.
      hidden: see `ffjord`.
      kinetic: weight of the mean of |f|^2 along paths.
      jacobian: weight of the mean of the squared norm of df/dy.
      field: see `ffjord`.
      activation: see `ffjord`.
      exact_up_to: see `ffjord`.
      steps: see `ffjord`.
      method: see `ffjord`.
      tolerance: see `ffjord`.
      max_steps: see `ffjord`.
      context_shape: see `ffjord`.

    Reference: Finlay et al., 2020, https://arxiv.org/abs/2002.02798
    """
    return _flow(
        "rnode", features, layers, hidden, field, activation, exact_up_to,
        FixedGrid(steps, method), Adaptive(tolerance, max_steps=max_steps), context_shape,
        kinetic, jacobian,
    )  # fmt: skip


@recipe
def anode(
    features: int,
    layers: int = 1,
    hidden: tuple[int, ...] = (64, 64, 64),
    *,
    extra: int = 2,
    field: Literal["concat", "concat_squash"] = "concat",
    activation: str = "tanh",
    exact_up_to: int = 16,
    steps: int = 24,
    method: str = "rk4",
    tolerance: float | None = None,
    max_steps: int = 256,
    context_shape: int | tuple[int, ...] | None = None,
) -> Flow:
    """Augmented FFJORD: paths pass each other in `extra` dimensions more, which begin as noise.

    `density.log_prob(y, key=key)` is a bound in the mean, and `density.log_prob_estimate(y, key)` a
    tighter one; see `jflow.bijectors.Augment`.

    Args:
      features: D.
      layers: see `ffjord`.
      hidden: see `ffjord`.
      extra: dimensions besides.
      field: see `ffjord`.
      activation: see `ffjord`.
      exact_up_to: see `ffjord`; of features and extra dimensions together.
      steps: see `ffjord`.
      method: see `ffjord`.
      tolerance: see `ffjord`.
      max_steps: see `ffjord`.
      context_shape: see `ffjord`.

    Reference: Dupont et al., 2019, https://arxiv.org/abs/1904.01681
    """
    check_counts("anode", extra=extra)
    return _flow(
        "anode", features, layers, hidden, field, activation, exact_up_to,
        FixedGrid(steps, method), Adaptive(tolerance, max_steps=max_steps), context_shape,
        extra=extra,
    )  # fmt: skip


@recipe
def ot_flow(
    features: int,
    width: int = 64,
    *,
    potential_layers: int = 2,
    rank: int = 10,
    kinetic: float = 0.01,
    hjb: float = 0.02,
    steps: int = 10,
    method: str = "rk4",
    tolerance: float | None = None,
    max_steps: int = 256,
    context_shape: int | tuple[int, ...] | None = None,
) -> Flow:
    """OT-Flow: a continuous flow along the gradient of a potential, on nearly straight paths.

    Traces are exact and in closed form whatever the number of features, and few steps do.

    Args:
      features: D.
      width: of the potential's network; see `jflow.nets.Potential`.
      potential_layers: of that network.
      rank: of its quadratic part.
      kinetic: weight of the mean of |f|^2 along paths; see `jflow.bijectors.Continuous`.
      hjb: weight of what the potential is off the equation of Hamilton, Jacobi and Bellman.
      steps: of the grid of training; see `ffjord`.
      method: see `ffjord`.
      tolerance: see `ffjord`.
      max_steps: see `ffjord`.
      context_shape: see `ffjord`.

    Reference: Onken et al., 2021, https://arxiv.org/abs/2006.00104
    """
    check_counts("ot_flow", features=features)
    path = Continuous(
        Potential(width, potential_layers, rank), solver=FixedGrid(steps, method),
        evaluation=Adaptive(tolerance, max_steps=max_steps), kinetic=kinetic, hjb=hjb,
    )  # fmt: skip
    return Flow(Chain((ActNorm(), path)), (features,), context_shape=context_shape)


def _flow(
    name: str,
    features: int,
    layers: int,
    hidden: tuple[int, ...],
    field: str,
    activation: str,
    exact_up_to: int,
    solver: FixedGrid,
    evaluation: Adaptive,
    context_shape: int | tuple[int, ...] | None,
    kinetic: float = 0.0,
    jacobian: float = 0.0,
    extra: int = 0,
) -> Flow:
    nets = {"concat": MLP, "concat_squash": ConcatSquash}
    if field not in nets:
        raise ValueError(f"{name}: field must be 'concat' or 'concat_squash'; got {field!r}")
    check_counts(name, features=features, layers=layers)
    check_counts(name, 0, exact_up_to=exact_up_to)
    path = Continuous(
        nets[field](hidden, activation=activation),
        ExactTrace() if features + extra <= exact_up_to else Hutchinson(),
        solver,
        evaluation,
        kinetic=kinetic,
        jacobian=jacobian,
    )
    paths: Bijector = path if layers == 1 else Repeat(path, layers)
    wider = (Augment(extra),) if extra else ()
    return Flow(Chain((ActNorm(), *wider, paths)), (features,), context_shape=context_shape)
