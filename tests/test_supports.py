"""Where parts live: what does not meet is refused when it is built, and the rest has mass one."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import flows, nets
from jflow import transformers as jt
from jflow.functional import Circle, Interval, wrap_angles
from jflow.functional.supports import back, onto
from tests.harness import perturbed

KEY = jax.random.key(0)
LINE, UNIT, TURN = Interval(), Interval(0.0, 1.0), Circle()
BASES = {
    "normal": (jflow.StandardNormal, LINE),
    "logistic": (jflow.StandardLogistic, LINE),
    "student": (jflow.StudentT, LINE),
    "mixture": (partial(jflow.GaussianMixture, 2), LINE),
    "uniform": (jflow.StandardUniform, UNIT),
    "box": (partial(jflow.BoxUniform, 0.25, 0.75), Interval(0.25, 0.75)),
    "positive box": (partial(jflow.BoxUniform, 0.5, 4.0), Interval(0.5, 4.0)),
    "angles": (partial(jflow.VonMises, 2.0), TURN),
}
POSITIVE = Interval(0.0, math.inf)
# With a side that is not the line: where x and y live.
BOUNDED = (
    (jt.Tanh(), LINE, Interval(-1.0, 1.0)),
    (jt.Sigmoid(), LINE, UNIT),
    (jt.Logit(), UNIT, LINE),
    (jt.Exp(), LINE, POSITIVE),
    (jt.Softplus(), LINE, POSITIVE),
    (jt.Power(3.0), POSITIVE, POSITIVE),
    (jt.LinearSpline(3, tails=None), UNIT, UNIT),
    (jt.QuadraticSpline(3, tails=None), UNIT, UNIT),
    (jt.CubicSpline(3, tails=None), UNIT, UNIT),
    (jt.RationalQuadraticSpline(3, tails=None), UNIT, UNIT),
    (jt.BernsteinPolynomial(5, tails=None), UNIT, UNIT),
    (jt.CircularSpline(3), TURN, TURN),
    (jt.CircularShift(), TURN, TURN),
    (jt.Inverted(jt.Sigmoid()), UNIT, LINE),
)


def name(transformer):
    return type(transformer).__name__


def mass(flow, support):
    """The integral of p over y = f(x), as that of p(f(x)) f'(x) over where x lives."""
    variables = perturbed(jflow.init(flow, KEY, np.full((4, 1), 0.5)), 0.3)
    if support == LINE:
        x = np.sinh(np.linspace(-7, 7, 8001))
    else:
        x = np.linspace(
            *((-math.pi, math.pi) if support == TURN else (support.low, support.high)), 8001
        )

    @jax.jit
    @jax.vmap
    def integrand(x):
        density = jflow.Density(flow, variables)
        y, slope = jax.jvp(density.from_latents, (x,), (jnp.ones_like(x),))
        return jnp.where(slope == 0, 0, jnp.exp(density.log_prob(y)) * slope[0])

    return np.trapezoid(integrand(x[:, None])[:, 0], x)


def outside(support):
    """Points that are not in a set."""
    if support == TURN:
        return [-3.2, 360.0]
    return [
        end + step for end, step in ((support.low, -0.1), (support.high, 0.1)) if abs(end) < 1e9
    ]


@pytest.mark.parametrize(
    ("transformer", "x", "y"),
    BOUNDED,
    ids=lambda value: name(value) if isinstance(value, jt.Transformer) else str(value),
)
def test_flows_meet_or_are_refused(transformer, x, y):
    """Each base: a mass of one, or an error that names both parts."""
    assert transformer.supports == (x, y)
    for make, support in BASES.values():
        build = partial(jflow.Flow, jb.Elementwise(transformer), (1,), make())
        if x.holds(support):
            flow = build()
            assert flow.support == y
            np.testing.assert_allclose(mass(flow, support), 1, atol=1e-3)
            variables = jflow.init(flow, KEY, np.full((4, 1), 0.5))
            for point in outside(y):
                assert jflow.Density(flow, variables).log_prob(np.asarray([point])) == -math.inf
        else:
            message = rf"Elementwise\({name(transformer)}\) takes .*, and {type(make()).__name__} g"
            with pytest.raises(ValueError, match=message):
                build()


MLP = nets.MLP((4,))
FOLD = {  # a bijector, the supports of its base side, and of its data side
    "chain": (
        lambda: jb.Chain((jb.Elementwise(jt.Sigmoid()), jb.ActNorm(), jb.Reverse())),
        (LINE, UNIT), UNIT,
    ),
    "order": (lambda: jb.Permute((2, 0, 1)), (LINE, UNIT, TURN), (TURN, LINE, UNIT)),
    "random order": (lambda: jb.Permute(), (UNIT, Interval(2.0)), Interval(0.0)),
    "reverse": (lambda: jb.Reverse(), (LINE, UNIT), (UNIT, LINE)),
    "coupling": (lambda: jb.Coupling(jt.CircularSpline(), MLP), (LINE, TURN), (LINE, TURN)),
    "masked": (
        lambda: jb.Coupling(jt.Affine(), MLP, (False, True, True)), (UNIT, TURN, UNIT),
        (LINE, TURN, UNIT),
    ),
    "hint": (
        lambda: jb.HINT(jt.Affine(), MLP), (UNIT, UNIT, UNIT, UNIT), (UNIT, LINE, LINE, LINE),
    ),
    "torus": (
        lambda: jb.Repeat(jb.Chain((jb.Coupling(jt.CircularSpline(), MLP), jb.Reverse())), 3),
        TURN, TURN,
    ),
    "one by one": (lambda: jb.Repeat(jb.Permute((1, 2, 0)), 2), (LINE, UNIT, TURN),
                   (TURN, LINE, UNIT)),
    "autoregressive": (
        lambda: jb.MaskedAutoregressive(jt.RationalQuadraticSpline(tails=None), (4,)), UNIT, UNIT,
    ),
    "inverted": (lambda: jb.Invert(jb.Elementwise(jt.Exp())), Interval(1.0, 2.0), LINE),
    "linear": (lambda: jb.Linear(), (UNIT, LINE), LINE),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLD)
def test_supports_are_folded(case):
    make, base, data = FOLD[case]
    bijector = make()
    shape = (len(base) if isinstance(base, tuple) else 4,)
    assert bijector.data_support(base, shape) == data
    assert jb.Invert(bijector).latent_support(base, shape) == data
    if case in ("order", "reverse", "torus", "one by one", "autoregressive"):
        assert bijector.latent_support(data, shape) == base


class Fold(jb.Bijector):
    """Angles to [0, 1], by x / 2 pi + 1/2: a bijector of one's own."""

    def forward_and_log_det(self, x, context=None):
        return x / (2 * math.pi) + 0.5, jnp.full(x.shape[:-1], -x.shape[-1] * math.log(2 * math.pi))

    def data_support(self, support, event_shape):
        assert support == TURN
        return UNIT


def test_a_bijector_of_ones_own_says_where_it_lives():
    """Every combinator asks it."""
    for whole in (Fold(), jb.Chain((jb.Reverse(), Fold())), jb.Repeat(Fold(), 1)):
        assert jflow.Flow(whole, (2,), jflow.VonMises()).support == UNIT
    assert jb.Invert(Fold()).latent_support(TURN, (2,)) == UNIT


def test_images():
    shape = (4, 4, 2)
    glow = flows.glow(shape, levels=2, steps=1, hidden=4, values=None).bijector
    assert glow.data_support(LINE, shape) == LINE
    bounded = jb.Chain((jb.Elementwise(jt.Sigmoid(), 3), glow))
    assert jflow.Flow(bounded, shape).support == UNIT
    halves = jb.MultiScale((jb.Squeeze(), jb.Elementwise(jt.Sigmoid(), 3)), shape)
    # Latents of the first level are those of the base.
    assert halves.data_support(LINE, shape) == LINE
    assert halves.data_support(UNIT, shape) == UNIT
    assert halves.latent_support(UNIT, shape) == LINE
    unit = jt.RationalQuadraticSpline(tails=None)
    bend = jb.Chain((jb.Elementwise(jt.Logit(), 3), jb.Squeeze()))
    below = jb.Chain((jb.Elementwise(unit, 3), jb.Squeeze()))
    # Only what the level before gives is what a level takes.
    assert jb.MultiScale((bend, below), shape).latent_support(LINE, shape) == UNIT
    board = jb.Coupling(jt.Affine(), nets.ConvNet(4), "checkerboard")
    assert board.data_support(UNIT, shape) == LINE
    with pytest.raises(
        ValueError, match=r"Coupling\(Affine\) takes the line, and VonMises gives the c"
    ):
        jflow.Flow(board, shape, jflow.VonMises())


def test_what_would_be_mixed_is_refused():
    angle_and_number = jflow.Product((jflow.VonMises(), jflow.StandardNormal()))
    with pytest.raises(
        ValueError, match="a random order would mix entries of the circle and the l"
    ):
        jflow.Flow(jb.Permute(), (2,), angle_and_number)
    with pytest.raises(ValueError, match="Linear takes the line, and VonMises gives the circle"):
        jflow.Flow(jb.Linear(), (2,), angle_and_number)
    with pytest.raises(ValueError, match="low must be below high; got 1 and 1"):
        Interval(1, 1)


def test_degrees_are_refused_and_can_be_wrapped():
    flow = jflow.Flow(jb.Elementwise(jt.CircularSpline()), (2,), jflow.VonMises())
    degrees = np.random.default_rng(0).uniform(0, 360, (64, 2))
    for y in (degrees, np.deg2rad(degrees)):
        with pytest.raises(
            ValueError, match=r"data holds angles beyond \[-pi, pi\], in \d+ of 64 ex"
        ):
            jflow.fit(flow, y, key=0, steps=1, progress=False)
    y = wrap_angles(np.deg2rad(degrees))
    np.testing.assert_allclose(np.sin(y), np.sin(np.deg2rad(degrees)), atol=1e-12)
    density, _ = jflow.fit(flow, y, key=0, steps=2, progress=False)
    assert np.isfinite(density.log_prob(y)).all()
    assert np.isneginf(density.log_prob(degrees + 4)).all()


def test_a_base_of_ones_own_says_where_it_lives():
    def normal(event_shape, dtype):
        return jflow.StandardNormal()(event_shape, dtype)

    class Positive(jflow.BoxUniform):
        def support(self, event_shape):
            return POSITIVE

    flow = partial(jflow.Flow, jb.Elementwise(jt.Power(2.0)), (1,))
    with pytest.raises(ValueError, match=r"Power\) takes .* and normal gives the line"):
        flow(normal)
    assert flow(Positive(0.0, 9.0)).support == POSITIVE


@pytest.mark.parametrize(
    "support", [LINE, UNIT, TURN, POSITIVE, Interval(-1.0, 3.0), Interval(-math.inf, 2.0)], ids=str
)
def test_maps_of_the_line_onto_a_support_and_back(support):
    x = jnp.linspace(-8.0, 8.0, 41)
    y, log_slope = jax.jit(onto(support))(x)
    np.testing.assert_allclose(jax.jit(back(support))(y), x, atol=1e-9)
    slope = jax.vmap(jax.grad(lambda x: onto(support)(x)[0]))(x)
    np.testing.assert_allclose(log_slope, jnp.log(slope), atol=1e-9)
    low, high = (-math.pi, math.pi) if support is TURN else (support.low, support.high)
    assert (y > low).all()
    assert (y < high).all()
    assert np.isfinite(back(support)(jnp.asarray([max(low, -9.0), min(high, 9.0)]))).all()
