"""ONE table of every bijector. The generic tests of test_bijectors.py run over all of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from jflow import bijectors as jb
from jflow import functional as jf
from jflow import nets
from jflow import transformers as jt
from jflow.bijectors.matrices import FAMILIES
from jflow.testing.points import Sampler


def real(random, shape):
    return random.standard_normal(shape)


def unit(random, shape):
    return random.uniform(0.02, 0.98, shape)


def symmetric(random, shape):
    return 2 * unit(random, shape) - 1


def positive(random, shape):
    return np.exp(real(random, shape))


def levels(random, shape):
    return random.integers(0, 4, shape)


# Feature 3 comes first, and 4 depends on all; 1 and 2 do not know of each other.
GRAPH = ((0, 0, 0, 1, 0), (1, 0, 0, 0, 0), (1, 0, 0, 1, 0), (0, 0, 0, 0, 0), (1, 1, 1, 1, 0))


@dataclass(frozen=True)
class Case:
    """A bijector to test.

    Attributes:
      make: builds it anew.
      event_shape: on the data side, of 8 numbers at most.
      context_shape: width of the context, or its shape, or None.
      data: draws from the data side, the domain of `inverse`.
      base: draws from the base side, the domain of `forward`.
      iterative: the directions that are not closed form.
      scale: of the steps by which parameters are moved off their first values. Less for deep
        ones, whose condition number is the product of those of their layers.
      drawn: the directions that draw one of several images of a point.
      seed: of points and parameters; another one where a point falls onto a knot at which slopes
        are zero, or all points where rectified units are.
      gradient: how far gradients may be from differences; see `check_bijector`.
    """

    make: Callable[[], jb.Bijector]
    event_shape: tuple[int, ...] = (5,)
    context_shape: int | tuple[int, ...] | None = None
    data: Sampler = real
    base: Sampler = real
    iterative: tuple[str, ...] = ()
    scale: float = 0.3
    drawn: tuple[str, ...] = ()
    seed: int = 0
    gradient: float = 1e-3


def inverted(case: Case) -> Case:
    """The inverse of what a case builds."""
    other = {"forward": "inverse", "inverse": "forward"}
    iterative = tuple(other[direction] for direction in case.iterative)
    return replace(case, make=lambda: jb.Invert(case.make()), iterative=iterative)


def elementwise(transformer: jt.Transformer, **kwargs) -> Case:
    return Case(lambda: jb.Elementwise(transformer), (3,), **kwargs)


def coupling(mask, event_shape=(5,), transformer=None, context_shape=None) -> Case:
    net = nets.ConvNet(4) if len(event_shape) == 3 else nets.MLP((7,))
    transformer = transformer or jt.Affine()
    return Case(lambda: jb.Coupling(transformer, net, mask), event_shape, context_shape)


def autoregressive(context_shape=None, seed=0, **options) -> Case:
    options = {"transformer": jt.Affine(), "hidden": (7, 9), **options}
    iterative = ("forward",) if "solver" in options else ()
    return Case(
        lambda: jb.MaskedAutoregressive(**options),
        (5,),
        context_shape,
        iterative=iterative,
        seed=seed,
    )


def every_use(transformer: jt.Transformer, data: Sampler = real, seed=0) -> dict[str, Case]:
    """The transformer with free parameters, in a coupling, and autoregressively."""
    name = type(transformer).__name__ + ("-unit" if data is unit else "")
    net = nets.MLP((5,))
    makers = {
        "Elementwise": lambda: jb.Elementwise(transformer),
        "Coupling": lambda: jb.Coupling(transformer, net),
        "Autoregressive": lambda: jb.MaskedAutoregressive(transformer, (5,)),
    }
    kinds = {"forward": transformer.forward_kind, "inverse": transformer.inverse_kind}
    iterative = tuple(name for name, kind in kinds.items() if kind != "closed form")
    return {
        f"{use}-{name}": Case(make, (3,), data=data, base=data, iterative=iterative, seed=seed)
        for use, make in makers.items()
    }


LEARNED = {
    name: case
    for transformer in (
        jt.Shift(),
        jt.Affine(),
        jt.SoftplusAffine(),
        jt.SinhArcsinh(),
        jt.LinearSpline(bins=3, bound=3.0),
        jt.QuadraticSpline(bins=3, bound=3.0),
        jt.CubicSpline(bins=3, bound=3.0),
        jt.RationalQuadraticSpline(bins=3, bound=3.0),
        jt.LogisticMixture(components=2),
        jt.NonlinearSquared(),
        jt.BernsteinPolynomial(degree=5, bound=3.0),
        jt.DeepSigmoid(units=2),
        jt.SumOfSquares(terms=2, degree=2, bound=3.0),
        jt.UnconstrainedMonotonic(units=2, bound=3.0),
        jt.Inverted(jt.SumOfSquares(terms=1, degree=2, bound=3.0)),
        jt.CircularSpline(bins=3),
        jt.CircularShift(),
    )
    for name, case in every_use(transformer).items()
}
ON_UNIT = {
    name: case
    for transformer in (
        jt.LinearSpline(bins=3, tails=None),
        jt.SquareRootBins(bins=3),
        jt.QuadraticSpline(bins=3, tails=None),
        jt.CubicSpline(bins=3, tails=None),
        jt.RationalQuadraticSpline(bins=3, tails=None),
        jt.BernsteinPolynomial(degree=5, tails=None),
    )
    for name, case in every_use(transformer, unit, seed=1).items()
}


def step() -> jb.Bijector:
    net = nets.MLP((6,))
    return jb.Chain((jb.ActNorm(), jb.Permute(), jb.Coupling(jt.Affine(), net)))


def residual(net=None, event_shape=(5,), context_shape=None, **options) -> Case:
    net = net or nets.LipschitzMLP((7, 6), coefficient=0.9)
    options = {"estimator": jf.ExactLogDet(), **options}
    return Case(
        lambda: jb.Residual(net, **options),
        event_shape,
        context_shape,
        iterative=("forward",),
        gradient=1e-2,
    )


def continuous(net=None, event_shape=(4,), context_shape=None, **options) -> Case:
    net = net or nets.MLP((6,), activation="tanh")
    return Case(
        lambda: jb.Continuous(net, event_ndim=len(event_shape), **options),
        event_shape,
        context_shape,
        iterative=("forward", "inverse"),
    )


def image_step(kind: str = "plu") -> jb.Bijector:
    net = nets.ConvNet(4)
    return jb.Chain((jb.ActNorm(3), jb.Conv1x1(kind), jb.Coupling(jt.Affine(), net, "channel")))


def ranked_multi_scale() -> jb.Bijector:
    level = jb.Chain((jb.Squeeze(), jb.Repeat(image_step(), 2)))
    return jb.MultiScale((level, image_step()), (2, 4, 1), split="likelihood")


def multi_scale() -> jb.Bijector:
    prior = jb.Coupling(jt.Affine(), nets.ZeroConvNet(), "channel")
    first = jb.Chain((jb.Squeeze(), jb.Repeat(image_step(), 2), prior))
    return jb.MultiScale((first, jb.Repeat(image_step(), 2)), (2, 4, 1))


IMAGE_MASK = (((1, 0), (0, 1)), ((1, 1), (0, 0)))

CASES: dict[str, Case] = {
    **LEARNED,
    **ON_UNIT,
    "Elementwise-Affine-unbounded": elementwise(jt.Affine(bound=float("inf"))),
    "Elementwise-FixedAffine": elementwise(jt.FixedAffine(shift=0.5, scale=-3.0)),
    "Elementwise-LeakyReLU": elementwise(jt.LeakyReLU(0.1)),
    "Elementwise-Tanh": elementwise(jt.Tanh(), data=symmetric),
    "Elementwise-Sigmoid": elementwise(jt.Sigmoid(), data=unit),
    "Elementwise-Sigmoid-alpha": elementwise(jt.Sigmoid(alpha=0.05), data=unit),
    "Elementwise-Logit": elementwise(jt.Logit(), base=unit),
    "Elementwise-Logit-alpha": elementwise(jt.Logit(alpha=0.05), base=unit),
    "Elementwise-Softplus": elementwise(jt.Softplus(), data=positive),
    "Elementwise-Exp": elementwise(jt.Exp(), data=positive),
    "Elementwise-Power": elementwise(jt.Power(0.5), data=positive, base=positive),
    "Elementwise-image": Case(lambda: jb.Elementwise(jt.Affine(), event_ndim=3), (2, 2, 2)),
    "Permute": Case(lambda: jb.Permute((2, 0, 1, 4, 3))),
    "Permute-random": Case(jb.Permute),
    "Permute-image": Case(lambda: jb.Permute((2, 0, 1), event_ndim=3), (1, 2, 3)),
    "Reverse": Case(jb.Reverse),
    "ActNorm": Case(jb.ActNorm),
    "ActNorm-image": Case(lambda: jb.ActNorm(3), (2, 2, 2)),
    "BatchNorm": Case(jb.BatchNorm),
    "BatchNorm-image": Case(lambda: jb.Repeat(jb.BatchNorm(3), 2), (2, 2, 2)),
    "Conv1x1-plu": Case(lambda: jb.Conv1x1("plu"), (2, 1, 3)),
    "Conv1x1-vector": Case(lambda: jb.Conv1x1(event_ndim=1), (4,)),
    "Conv1x1-dense": Case(lambda: jb.Conv1x1("dense"), (2, 1, 3)),
    **{
        f"Linear-{kind}": Case(lambda kind=kind: jb.Linear(kind), (4 if kind == "haar" else 5,))
        for kind in FAMILIES
        if kind not in ("plu", "dense")
    },
    "Linear-circulant-even": Case(lambda: jb.Linear("circulant"), (4,)),
    "Linear-butterfly-even": Case(lambda: jb.Linear("butterfly"), (8,)),
    "Linear-positions": Case(lambda: jb.Linear(event_ndim=2), (2, 3)),
    "Linear-rank": Case(lambda: jb.Linear("low_rank", rank=2)),
    "Linear-given": Case(lambda: jb.Linear(((2.0, 0.5), (0.1, 1.5))), (2,)),
    "Linear-pixels": Case(lambda: jb.Linear("upper", 3, axes="pixels"), (2, 2, 2)),
    "Conv1x1-qr": Case(lambda: jb.Conv1x1("qr"), (2, 1, 3)),
    "Coupling-half": coupling("half"),
    "Coupling-half-context": coupling("half", context_shape=3),
    "Coupling-half_swapped": coupling("half_swapped"),
    "Coupling-alternating": coupling("alternating"),
    "Coupling-alternating_swapped": coupling("alternating_swapped"),
    "Coupling-mask": coupling((1, 0, 0, 1, 1)),
    "Coupling-channel": coupling("channel", (2, 1, 3)),
    "Coupling-channel_swapped": coupling("channel_swapped", (2, 1, 3)),
    "Coupling-coordinates": coupling(((1, 0, 0),), (2, 3)),
    "Coupling-checkerboard": coupling("checkerboard", (2, 2, 2)),
    "Coupling-checkerboard_swapped": coupling("checkerboard_swapped", (3, 2, 1)),
    "Coupling-checkerboard-context": coupling("checkerboard", (2, 2, 2), context_shape=2),
    "Coupling-image-mask": coupling(IMAGE_MASK, (2, 2, 2)),
    "Coupling-residual-net": Case(
        lambda: jb.Coupling(jt.Affine(), nets.ResidualConvNet(4, 2), "checkerboard"),
        (2, 2, 2),
        context_shape=3,
    ),
    "Autoregressive": autoregressive(),
    "Autoregressive-context": autoregressive(context_shape=2),
    "Autoregressive-direct": autoregressive(net=nets.MADE((7, 9), direct=True)),
    "Autoregressive-few-units": autoregressive(hidden=(3, 2), seed=1),
    "Autoregressive-inverted": inverted(
        autoregressive(transformer=jt.Inverted(jt.Affine()), order="reversed", context_shape=2)
    ),
    "Autoregressive-random": autoregressive(order="random", net=nets.ResidualMADE(8, 1)),
    "Autoregressive-order": autoregressive(
        order=(3, 0, 4, 1, 2), net=nets.ResidualMADE(11, 2, direct=True), context_shape=2
    ),
    "Autoregressive-Jacobi": autoregressive(solver=jb.Jacobi(tolerance=1e-12)),
    "Autoregressive-Jacobi-context": autoregressive(
        solver=jb.Jacobi(tolerance=1e-12), context_shape=2
    ),
    "Autoregressive-graph": autoregressive(order=GRAPH, net=nets.MADE((7, 9), direct=True)),
    "Autoregressive-graph-context": autoregressive(order=GRAPH, context_shape=2),
    "Autoregressive-rows": Case(
        lambda: jb.MaskedAutoregressive(jt.Affine(), net=nets.RowNet(4), order="random"),
        (4, 2, 1),
    ),
    **{
        f"{kind.__name__}{name}": Case(
            lambda kind=kind, options=options: kind(**options),
            context_shape=2 if name else None,
            iterative=(slow,) if kind is not jb.Radial else (),
        )
        for kind, slow, options in (
            (jb.Planar, "inverse", {}),
            (jb.Radial, "inverse", {}),
            (jb.Sylvester, "inverse", {"rank": 3}),
            (jb.ConvFlow, "inverse", {}),
            (jb.BlockAutoregressive, "forward", {"units": 3}),
        )
        for name in ("", "-context")
    },
    "BlockAutoregressive-Jacobi": Case(
        lambda: jb.BlockAutoregressive(3, solver=jb.Jacobi(tolerance=1e-12)),
        context_shape=2,
        iterative=("forward",),
    ),
    "Sylvester-householder": Case(
        lambda: jb.Sylvester(rank=5, basis="householder"), iterative=("inverse",)
    ),
    "ConvFlow-dilated": Case(lambda: jb.ConvFlow(dilation=2), iterative=("inverse",)),
    "EmergingConv": Case(jb.EmergingConv, (2, 2, 2)),
    "EmergingConv-5": Case(lambda: jb.EmergingConv(5), (4, 2, 1)),
    "PeriodicConv": Case(jb.PeriodicConv, (2, 2, 2)),
    "PeriodicConv-3": Case(jb.PeriodicConv, (3, 3, 1)),
    "PeriodicConv-wide": Case(jb.PeriodicConv, (3, 4, 1)),
    "WoodburyConv": Case(lambda: jb.WoodburyConv(2, 3), (2, 2, 2)),
    "Autoregressive-tokens": Case(
        lambda: jb.MaskedAutoregressive(
            jt.Affine(), net=nets.CausalTransformer(4, 2, 2, context="film"), order="reversed"
        ),
        (3, 2),
        context_shape=2,
    ),
    "Autoregressive-tokens-cross": Case(
        lambda: jb.MaskedAutoregressive(
            jt.Affine(), net=nets.CausalTransformer(4, 2, 2, context="cross", qk_norm=True)
        ),
        (3, 2),
        context_shape=(3, 2),
    ),
    "Coupling-tokens-cross": Case(
        lambda: jb.Coupling(
            jt.Affine(), nets.Transformer(4, 1, 2, context="cross"), np.array([[1, 0]])
        ),
        (3, 2),
        context_shape=(2, 3),
    ),
    "Autoregressive-tokens-of-vectors": Case(
        lambda: jb.MaskedAutoregressive(
            jt.Affine(),
            net=nets.CausalTransformer(
                4, 2, 1, event_ndim=1, positions="rotary", gated=True, qk_norm=True, remat=True
            ),
        ),
    ),
    "Autoregressive-two-levels": Case(
        lambda: jb.MaskedAutoregressive(
            jt.Affine(),
            net=nets.TwoLevel(
                nets.CausalTransformer(4, 2, 2), nets.MADE((6,), direct=True), size=2
            ),
            order="reversed",
        ),
        (4,),
        context_shape=2,
    ),
    "Autoregressive-two-levels-of-an-image": Case(
        lambda: jb.MaskedAutoregressive(
            jt.Affine(),
            net=nets.TwoLevel(
                nets.CausalTransformer(4, 1, 2), nets.MADE((8,)), size=2, row=2, far=2.0
            ),
        ),
        (8,),
    ),
    "RowAutoregressive": Case(
        lambda: jb.RowAutoregressive(jt.Affine(), nets.RowNet(4, 2, 3)), (4, 2, 1)
    ),
    "RowAutoregressive-Jacobi": Case(
        lambda: jb.RowAutoregressive(
            jt.Affine(), nets.RowNet(4, 1, 3), "right", solver=jb.Jacobi(tolerance=1e-12)
        ),
        (2, 4, 1),
        iterative=("forward",),
    ),
    "RowAutoregressive-left": Case(
        lambda: jb.RowAutoregressive(jt.Affine(), nets.RowNet(4, 1, 3), "left"),
        (2, 2, 2),
        context_shape=2,
    ),
    "HINT": Case(lambda: jb.HINT(jt.Affine(), nets.MLP((5,)))),
    "HINT-context": Case(
        lambda: jb.HINT(jt.RationalQuadraticSpline(3), nets.MLP((5,)), depth=2),
        context_shape=2,
        scale=0.15,
    ),
    "Residual": residual(),
    "Residual-context": residual(
        nets.LipschitzMLP((6,), activation="clip_swish", coefficient=0.8), context_shape=2
    ),
    "Residual-inverted-context": inverted(residual(context_shape=2, anderson=3)),
    "Residual-norms": residual(nets.LipschitzMLP((6, 5), coefficient=0.9, norms=(2, 3, 1.5, 2))),
    "Residual-image": residual(
        nets.LipschitzConvNet((3, 4), coefficient=0.9, activation="sine"), (2, 2, 2)
    ),
    "Residual-dense": residual(nets.LipschitzDenseNet(3, 2, activation="clip_swish")),
    "Residual-dense-image": residual(
        nets.LipschitzDenseNet(3, 2, 3, coefficient=0.9), (2, 2, 2), context_shape=2
    ),
    "Residual-Repeat": Case(
        lambda: jb.Repeat(
            jb.Chain(
                (
                    jb.ActNorm(),
                    jb.Residual(nets.LipschitzMLP((6,), coefficient=0.8), jf.ExactLogDet()),
                )
            ),
            2,
        ),
        iterative=("forward",),
        scale=0.15,
        gradient=1e-2,
    ),
    "Continuous": continuous(),
    "Continuous-context": continuous(
        nets.ConcatSquash((6, 5), activation="tanh"), (3,), 2, frequencies=2
    ),
    "Continuous-potential": continuous(nets.Potential(5, 3, 2), (3,), 2, kinetic=0.1, hjb=0.1),
    "Continuous-image": continuous(nets.ConvNet(3, activation="tanh"), (2, 2, 1)),
    "SDE": Case(
        lambda: jb.SDE(nets.MLP((6,)), time_steps=3, frequencies=1),
        (3,),
        2,
        drawn=("forward", "inverse"),
    ),
    "SDE-image": Case(
        lambda: jb.SDE(nets.ConvNet(3), nets.ConvNet(2), time_steps=2, event_ndim=3),
        (2, 2, 1),
        drawn=("forward", "inverse"),
    ),
    "RevNet": Case(lambda: jb.RevNet(nets.MLP((6,)))),
    "RevNet-image": Case(lambda: jb.RevNet(nets.ConvNet(4), "channel"), (2, 1, 3)),
    "HaarSqueeze": Case(jb.HaarSqueeze, (2, 4, 1)),
    "Patchify": Case(lambda: jb.Patchify((4, 2, 1)), (4, 2, 1)),
    "CheckerboardSqueeze": Case(jb.CheckerboardSqueeze, (3, 2, 1)),
    "PairTokens": Case(jb.PairTokens, (4, 2)),
    "Reshape": Case(lambda: jb.Reshape((4, 2, 1), (8,)), (4, 2, 1)),
    "Reshape-inverted": Case(lambda: jb.Invert(jb.Reshape((4, 2, 1), (2, 4))), (2, 4)),
    "Patchify-inverted": Case(lambda: jb.Invert(jb.Patchify((4, 2, 1))), (2, 4)),
    "Squeeze": Case(jb.Squeeze, (2, 4, 1)),
    "MultiScale": Case(multi_scale, (2, 4, 1), scale=0.15),
    "MultiScale-likelihood": Case(ranked_multi_scale, (2, 4, 1), scale=0.15),
    "Dequantize": Case(lambda: jb.Dequantize(4), (3,), data=levels, base=unit, drawn=("inverse",)),
    "Dequantize-noise": Case(
        lambda: jb.Dequantize(
            4, 1, jb.Coupling(jt.RationalQuadraticSpline(3, tails=None), nets.MLP((5,)))
        ),
        (3,),
        context_shape=2,
        data=levels,
        base=unit,
        drawn=("inverse",),
    ),
    "Dequantize-Chain": Case(
        lambda: jb.Chain((jb.Dequantize(4, 3), image_step("dense"))),
        (2, 1, 3),
        data=levels,
        drawn=("inverse",),
    ),
    "Augment": Case(lambda: jb.Augment(2), (3,), drawn=("inverse",)),
    "Augment-context": Case(lambda: jb.Augment(2, nets.MLP((6,))), (3,), 2, drawn=("inverse",)),
    "Augment-image": Case(lambda: jb.Augment(1, nets.ConvNet(3), 3), (2, 1, 2), drawn=("inverse",)),
    "Slice": Case(lambda: jb.Invert(jb.Augment(2, nets.MLP((6,)))), (5,), 2, drawn=("forward",)),
    "AbsoluteValue": Case(jb.AbsoluteValue, (3,), base=positive, drawn=("forward",)),
    "AbsoluteValue-context": Case(
        lambda: jb.AbsoluteValue(nets.MLP((4,))), (3,), 2, base=positive, drawn=("forward",)
    ),
    "MaxPool": Case(jb.MaxPool, (2, 4, 1), drawn=("forward",)),
    "RAD": Case(jb.RAD, (3,), drawn=("forward",)),
    "RAD-context": Case(lambda: jb.RAD(nets.MLP((4,))), (3,), context_shape=2, drawn=("forward",)),
    "RAD-Repeat": Case(
        lambda: jb.Repeat(jb.Chain((jb.RAD(), jb.Linear())), 2), (3,), drawn=("forward",)
    ),
    "Chain": Case(lambda: jb.Chain((step(), jb.Reverse(), step()))),
    "Chain-context": Case(lambda: jb.Chain((step(), step())), context_shape=2),
    "Repeat": Case(lambda: jb.Repeat(step(), 3)),
    "Repeat-remat": Case(lambda: jb.Repeat(step(), 3, memory="remat")),
    "Repeat-unroll": Case(lambda: jb.Repeat(step(), 2, unroll=True)),
    "Repeat-context": Case(lambda: jb.Repeat(step(), 3), context_shape=2),
    "Repeat-image": Case(lambda: jb.Repeat(image_step("dense"), 2), (2, 1, 3)),
    "Invert": Case(lambda: jb.Invert(jb.Repeat(step(), 2))),
}

# For `make slow`: variants that take long to compile, and each transformer's uses in couplings and
# autoregressively, which are one mechanism. Quick are the affine ones, a spline, one that iterates,
# and one with a domain; and every transformer with free parameters.
QUICK_USES = ("Affine", "RationalQuadraticSpline", "LogisticMixture", "LinearSpline-unit")
SLOW = {
    "Autoregressive-Jacobi-forward",
    "Autoregressive-LogisticMixture",
    "Autoregressive-forward-context",
    "BlockAutoregressive-forward-context",
    "Continuous-image",
    "HINT-context",
    "MultiScale-likelihood",
    "RAD-Repeat",
    "Residual-Repeat",
    "Residual-context",
    "Residual-dense",
    "Residual-dense-image",
    "Residual-forward-context",
    "Residual-norms",
    "SDE-image",
    "Sylvester-forward-context",
    "Sylvester-householder",
} | {
    name
    for name in {**LEARNED, **ON_UNIT}
    if not name.startswith("Elementwise-") and name.partition("-")[2] not in QUICK_USES
}


def parts(module):
    """A bijector, its transformer, and those of the bijectors in it."""
    yield module
    if isinstance(module, jb.Bijector):
        if hasattr(module, "transformer"):
            yield module.transformer
        for part in module.parts:
            yield from parts(part)


def one_case_for_each_class(kind: type = object) -> set[str]:
    """Names of few cases in which every public class of a kind occurs, the first that will do."""
    seen, names = set(), set()
    for name, case in CASES.items():
        classes = {type(part).__name__ for part in parts(case.make()) if isinstance(part, kind)}
        if name not in SLOW and not classes <= seen:
            seen |= classes
            names.add(name)
    return names
