"""The public checks find planted mistakes, name them, and pass what is right."""

import re
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import functional, nets, testing
from jflow import transformers as jt
from jflow.functional.arrays import align, as_wide

CONTEXT = np.random.default_rng(0).standard_normal((9, 2))


class ByContext(jb.Bijector):
    """y = x + w (sum of the context): a conditional bijector without a network."""

    wrong: bool = False

    def forward_and_log_det(self, x, context=None):
        x = as_wide(x)
        return x + self._shift(x, context), jnp.zeros(x.shape[:-1], x.dtype)

    def inverse_and_log_det(self, y, context=None):
        y = as_wide(y)
        return y - self._shift(y, context), jnp.zeros(y.shape[:-1], y.dtype)

    @nn.compact
    def _shift(self, x, context):
        weight = align(self.param("weight", nn.initializers.ones, x.shape[-1:], x.dtype), x)
        total = as_wide(context).sum(-1)
        if total.ndim == 0:
            return weight * total
        # With as many features as points, the wrong axis goes unnoticed.
        return weight * (total[..., None, :] if self.wrong else total[..., None])


class Mutant(jb.Bijector):
    """A bijector with a mistake that the checks must find."""

    original: jb.Bijector
    mistake: str

    @nn.compact
    def _mutated(self, method, x, context):
        x = as_wide(x)
        if self.mistake == "NaN swallowed":
            x = jnp.nan_to_num(x)
        if self.mistake == "context along the wrong axis" and context.ndim > 1:
            context = jnp.broadcast_to(context[..., :1, :], context.shape)
        run = lambda m, x: getattr(m, method)(x, context)  # noqa: E731
        if self.mistake == "gradient of log_det stopped":
            y, log_det = run(self.original, x)
            return y, jax.lax.stop_gradient(log_det)
        if self.mistake == "gradient of parameters stopped":
            stop = lambda v: jax.tree.map(jax.lax.stop_gradient, v)  # noqa: E731
            run = nn.map_variables(run, "params", trans_in_fn=stop, init=self.is_initializing())
        y, log_det = run(self.original, x)
        inverse = method.startswith("inverse")
        if self.mistake == "log_det times 1.01":
            log_det = 1.01 * log_det
        elif self.mistake == "sign of log_det":
            log_det = -log_det
        elif self.mistake == "a shift in one direction" and inverse:
            y = y + 1e-3
        elif self.mistake == "log_det wrong in float32" and x.dtype == jnp.float32:
            log_det = log_det + 1e-3 * (1 if inverse else -1)
        elif self.mistake == "a batch axis read as event" and log_det.ndim:
            log_det = jnp.broadcast_to(log_det.sum(-1, keepdims=True), log_det.shape)
        elif self.mistake == "iterative, declared closed form":
            # A few steps towards a fixed point that is reached at once.
            y = jax.lax.stop_gradient(_settle(y) - y) + y
        return y, log_det

    def forward_and_log_det(self, x, context=None):
        return self._mutated("forward_and_log_det", x, context)

    def inverse_and_log_det(self, y, context=None):
        return self._mutated("inverse_and_log_det", y, context)


def _settle(y):
    again = lambda carry: jnp.max(jnp.abs(carry[0] - carry[1])) > 1e-6  # noqa: E731
    return jax.lax.while_loop(again, lambda carry: (y, carry[0]), (y, y + 1))[0]


# Part of the name of a property that fails, and nothing else need fail.
MISTAKES = {
    "log_det times 1.01": "log_det of inverse is that of the Jacobian, float64",
    "sign of log_det": "log_det of forward is that of the Jacobian, float64",
    "a shift in one direction": "inverse(forward(x)) = x, float64",
    "NaN swallowed": "NaN stays NaN",
    "log_det wrong in float32": "log_det of inverse: float32 batch = float64 points",
    "context along the wrong axis": "inverse: float32 batch = float64 points",
    "gradient of parameters stopped": "every parameter has a gradient",
    "gradient of log_det stopped": "gradients by parameters = differences",
    "iterative, declared closed form": "inverse_kind is true",
    "a batch axis read as event": "log_det of inverse: float32 batch = float64 points",
}


def original(mistake, network):
    if mistake == "context along the wrong axis":
        return jb.Coupling(jt.Affine(), nets.MLP((5,))) if network else ByContext()
    return jb.Coupling(jt.Affine(), nets.MLP((5,))) if network else jb.Elementwise(jt.Affine())


@pytest.mark.parametrize("network", [False, True], ids=["free", "network"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_planted_mistakes_are_found(mistake, network):
    context = CONTEXT if mistake.startswith("context") else None
    with pytest.raises(testing.ContractError) as caught:
        testing.check_bijector(Mutant(original(mistake, network), mistake), (3,), context=context)
    failed = [p.name for p in caught.value.report.failures]
    assert any(MISTAKES[mistake] in name for name in failed), failed
    assert MISTAKES[mistake] in str(caught.value)


class Faulty(jb.Bijector):
    """y = 2 x with one fault; it has no parameters."""

    fault: Any = ""

    def forward_and_log_det(self, x, context=None):
        x = as_wide(x)
        log_det = jnp.full(x.shape[:-1], x.shape[-1] * np.log(2), x.dtype)
        if self.fault == "forward's derivative stopped":
            x = jax.lax.stop_gradient(x)
        return 2 * x, self._noisy(log_det)

    def inverse_and_log_det(self, y, context=None):
        y = as_wide(y)
        log_det = jnp.full(y.shape[:-1], -y.shape[-1] * np.log(2), y.dtype)
        if self.fault == "far points overflow":
            log_det = log_det + 0 * jnp.exp(jnp.abs(y)).sum(-1)
        if self.fault == "a gradient stopped":
            y = jnp.where(y > 0, jax.lax.stop_gradient(y), y)
        if self.fault == "wide in float32":
            return (y / 2).astype(jnp.float64), log_det
        if self.fault == "no empty batch":
            y = y.reshape(y.shape[0], -1).reshape(y.shape)  # of nothing, no size can be inferred
        return y / 2, self._noisy(log_det)

    def _noisy(self, log_det):
        if not str(self.fault).startswith(("unbiased", "bound")):
            return log_det
        off = {"unbiased": 0.0, "unbiased, off": 0.1, "bound": -0.1}.get(self.fault, 0.1)
        noise = jax.random.normal(self.make_rng("noise"), log_det.shape, log_det.dtype)
        return log_det + 0.01 * noise + off

    @nn.nowrap
    def needs_key(self, direction):
        return str(self.fault).startswith(("unbiased", "bound")) and self.fault != "bound, unsaid"

    @property
    def log_det_kind(self):
        kind = str(self.fault).split(",")[0]
        return kind if kind in ("unbiased", "bound") else "exact"

    @property
    def inverse_kind(self):
        return "iterative" if self.fault == "tolerance" else "closed form"

    @property
    def forward_kind(self):
        return "missing" if self.fault == "no forward" else "closed form"


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("forward's derivative stopped", "forward's derivative is the inverse of the inverse's"),
        ("far points overflow", "far points: finite"),
        ("a gradient stopped", "gradients by y = differences"),
        ("wide in float32", "inverse: a batch of any size, of bfloat16"),
        ("no empty batch", "inverse: an empty batch"),
        ("tolerance", "tolerance is true"),
        ("unbiased, off", "log_det is unbiased, 64 draws"),
        ("bound, unsaid", "It draws noise where needs_key says that it does not"),
        ("bound, off", "log_det is bound, 64 draws"),
        (["a list"], "fields are hashable"),
    ],
)
def test_other_faults_are_found(fault, name):
    with pytest.raises(testing.ContractError, match=re.escape(name)):
        testing.check_bijector(Faulty(fault), (3,))


@pytest.mark.parametrize("fault", ["", "unbiased", "bound"])
def test_without_these_faults_it_passes(fault):
    assert not testing.check_bijector(Faulty(fault), (3,)).failures


def test_a_forward_direction_that_is_missing_is_not_checked():
    report = testing.check_bijector(Faulty("no forward"), (3,))
    assert "not checked: forward" in str(report)
    assert not any("forward" in p.name for p in report.properties)


def test_planted_mistakes_are_found_in_one_dtype():
    for dtype in ("float32", "float64"):
        with pytest.raises(testing.ContractError, match=f"that of the Jacobian, {dtype}"):
            testing.check_bijector(
                Mutant(jb.Elementwise(jt.Affine()), "log_det times 1.01"), (3,), dtype=dtype
            )


@pytest.mark.parametrize("network", [False, True], ids=["free", "network"])
def test_the_same_without_a_mistake_passes(network):
    mutant = Mutant(original("context along the wrong axis", network), "none")
    report = testing.check_bijector(mutant, (3,), context=CONTEXT, eager=True)
    assert not report.failures
    assert "properties hold" in str(report)
    assert report["NaN stays NaN"].holds
    with pytest.raises(KeyError, match="beauty was not checked; checked were: fields"):
        report["beauty"]


def test_a_context_along_the_wrong_axis_of_a_square_is_found():
    with pytest.raises(testing.ContractError, match="inverse: a batch of any size"):
        testing.check_bijector(ByContext(wrong=True), (3,), context=CONTEXT)


class NoLogDet(jb.Bijector):
    def forward_and_log_det(self, x, context=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        return x * 2

    def inverse_and_log_det(self, y, context=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        return y / 2


class OnePerElement(jb.Bijector):
    def forward_and_log_det(self, x, context=None):
        return as_wide(x) * 2, jnp.full(x.shape, np.log(2), as_wide(x).dtype)

    def inverse_and_log_det(self, y, context=None):
        return as_wide(y) / 2, jnp.full(y.shape, -np.log(2), as_wide(y).dtype)


class TwoPlaces(jb.Bijector):
    """The forward direction has a parameter of its own."""

    def forward_and_log_det(self, x, context=None):
        return self._scaled(x, "log_scale_of_forward", 1)

    def inverse_and_log_det(self, y, context=None):
        return self._scaled(y, "log_scale", -1)

    @nn.compact
    def _scaled(self, x, name, sign):
        x = as_wide(x)
        log_scale = sign * self.param(name, nn.initializers.zeros, x.shape[-1:], x.dtype)
        return x * jnp.exp(align(log_scale, x)), jnp.broadcast_to(log_scale.sum(), x.shape[:-1])


class HoldsANetwork(jb.Bijector):
    net: nn.Module

    def forward_and_log_det(self, x, context=None):
        return self._shifted(x, 1)

    def inverse_and_log_det(self, y, context=None):
        return self._shifted(y, -1)

    @nn.compact
    def _shifted(self, x, sign):
        a, b = jnp.split(as_wide(x), [1], axis=-1)
        return jnp.concatenate([a, b + sign * self.net(2)(a)], axis=-1), jnp.zeros(x.shape[:-1])


@pytest.mark.parametrize(
    ("bijector", "message"),
    [
        (NoLogDet(), r"NoPairError: inverse_and_log_det returned \w+\n.*Return the pair \(value"),
        (OnePerElement(), r"log_det must have the batch shape \(\); got \(3,\). Sum"),
        (TwoPlaces(), r"(?s)log_scale_of_forward.*in one @nn.compact method"),
        (HoldsANetwork(nn.Dense(2)), r"HoldsANetwork.net holds a network, Dense.*Give a factory"),
    ],
)
def test_usual_mistakes_are_named(bijector, message):
    with pytest.raises(testing.ContractError, match=message):
        testing.check_bijector(bijector, (3,))


@pytest.mark.parametrize(
    "build",
    [
        lambda net: jb.Coupling(jt.Affine(), net),
        lambda net: jb.HINT(jt.Affine(), net),
        lambda net: jb.RAD(net),
        lambda net: jb.RevNet(net),
    ],
)
def test_a_network_where_a_factory_is_wanted_is_refused_at_once(build):
    with pytest.raises(
        TypeError, match=r"net must be a factory .*nets.MLP.*; got a network, Dense"
    ):
        build(nn.Dense(4))


def test_the_example_of_the_design_page_with_a_factor_wrong():
    page = (Path(__file__).parent.parent / "docs" / "design.md").read_text()
    (code,) = re.findall(r"```python\n(.*?class Scale.*?)```", page, re.DOTALL)
    assert "jnp.sum(log_scale)" in code
    scope = {}
    exec(code, scope)
    assert not testing.check_bijector(scope["Scale"](), (3,)).failures
    exec(code.replace("jnp.sum(log_scale)", "2 * jnp.sum(log_scale)"), scope)
    with pytest.raises(testing.ContractError) as caught:
        testing.check_bijector(scope["Scale"](), (3,))
    assert "log_det is 2 times log|det| of the Jacobian" in str(caught.value)
    assert "y = [" in str(caught.value)


def test_estimated_log_dets_are_checked_on_average():
    from jflow import functional as jf

    net = nets.LipschitzMLP((4,), coefficient=0.7)
    report = testing.check_bijector(jb.Residual(net, jf.RussianRoulette()), (2,))
    assert report["log_det is unbiased, 64 draws"].holds
    report = testing.check_bijector(jb.Residual(net, jf.PowerSeries(3)), (2,))
    assert "declared biased" in str(report)


def test_arguments():
    norm = jb.ActNorm()
    with pytest.raises(
        TypeError, match=r"must be an instance of a jflow\.bijectors\.Bijector; got 3"
    ):
        testing.check_bijector(3, (2,))
    with pytest.raises(ValueError, match=r"data must be points of shape \(N, 3,\).*got \(4, 2\)"):
        testing.check_bijector(norm, (3,), data=np.ones((4, 2)))
    with pytest.raises(ValueError, match="dtype must be 'float32', 'float64' or None"):
        testing.check_bijector(norm, (3,), dtype="bfloat16")
    with pytest.raises(ValueError, match="the event shape must be"):
        testing.check_bijector(norm, (3, 2))
    with pytest.raises(
        TypeError, match=r"must be an instance of a jflow\.transformers\.Transformer"
    ):
        testing.check_transformer(norm)
    with pytest.raises(ValueError, match=r"x must be \(N,\) and params \(N, 2\); got"):
        testing.check_transformer(jt.Affine(), params=np.ones((3, 4)))
    with pytest.raises(ValueError, match="samples must be a whole number, 2 or more; got 1"):
        testing.check_flow(jflow.Flow(norm, (2,)), samples=1)
    with pytest.raises(TypeError, match=r"flow must be a jflow\.Flow"):
        testing.check_flow(norm)


class WrongSlope(jt.Affine):
    def _forward(self, x, params):
        y, log_det = super()._forward(x, params)
        return y, 1.01 * log_det


class Leaky(jt.Tanh):
    """Beyond its ends it gives what lies inside, without a word."""

    def inverse_and_log_det(self, y, params):
        return super().inverse_and_log_det(jnp.clip(y, -0.999, 0.999), params)


@pytest.mark.parametrize(
    ("transformer", "message"),
    [
        (WrongSlope(), "log-derivative of forward is that of the slope, float64"),
        (Leaky(), "outside of the codomain: -inf"),
    ],
)
def test_mistakes_of_transformers_are_found(transformer, message):
    with pytest.raises(testing.ContractError, match=re.escape(message)):
        testing.check_transformer(transformer)


def test_a_log_derivative_that_is_declared_biased_is_not_compared():
    report = testing.check_transformer(jt.UnconstrainedMonotonic(nodes=8))
    assert "not checked: the log-derivative, which is declared biased" in str(report)


@pytest.mark.parametrize("shape", [(1,), (2,), (3,)])
def test_flows(shape):
    right = jb.Chain((jb.Elementwise(jt.SinhArcsinh()), jb.Elementwise(jt.Affine())))
    report = testing.check_flow(jflow.Flow(right, shape))
    assert len(report.properties) == (5 if shape[0] < 3 else 4)
    mistake = "log_det times 1.01" if shape[0] < 3 else "sign of log_det"
    wrong = Mutant(jb.Elementwise(jt.Affine()), mistake)
    variables = {"params": {"bijector": {"original": {"transformer": np.full((*shape, 2), 1.5)}}}}
    density = "mass is one" if shape[0] < 3 else "samples follow log_prob"
    with pytest.raises(testing.ContractError, match=density):
        testing.check_flow(jflow.Flow(wrong, shape), variables=variables)


def test_an_angle_has_mass_one_within_its_bounds():
    flow = jflow.Flow(jb.Elementwise(jt.CircularShift()), (1,), base=jflow.VonMises(2.0))
    report = testing.check_flow(flow, bounds=((-np.pi, np.pi),))
    assert report["mass is one"].error < 1e-3


class Odds(jb.Bijector):
    """y = log(x / (1 - x)): it takes (0, 1), and does not say so."""

    def forward_and_log_det(self, x, context=None):
        x = as_wide(x)
        return jnp.log(x) - jnp.log1p(-x), -jnp.sum(jnp.log(x) + jnp.log1p(-x), axis=-1)

    def inverse_and_log_det(self, y, context=None):
        y = as_wide(y)
        log_det = jnp.sum(jax.nn.log_sigmoid(y) + jax.nn.log_sigmoid(-y), axis=-1)
        return jax.nn.sigmoid(y), log_det


class SaysUnit(jb.Bijector):
    """y = 2 x, declared to end in [0, 1]."""

    def forward_and_log_det(self, x, context=None):
        x = as_wide(x)
        return 2 * x, jnp.full(x.shape[:-1], x.shape[-1] * np.log(2.0), x.dtype)

    def inverse_and_log_det(self, y, context=None):
        y = as_wide(y)
        return y / 2, jnp.full(y.shape[:-1], -y.shape[-1] * np.log(2.0), y.dtype)

    @nn.nowrap
    def data_support(self, support, event_shape):
        return functional.Interval(0.0, 1.0)


@pytest.mark.parametrize(
    ("bijector", "property"),
    [
        (Odds(), "forward takes the line, as data_support says: values"),
        (SaysUnit(), "forward lands in data_support"),
    ],
)
def test_wrong_supports_are_found(bijector, property):
    inside = lambda random, shape: random.uniform(0.1, 0.9, shape)  # noqa: E731
    with pytest.raises(testing.ContractError) as caught:
        testing.check_bijector(bijector, (2,), base=inside)
    failed = {row.name for row in caught.value.report.properties if not row.holds}
    assert property in failed
    assert all("support" in name or "takes the line" in name for name in failed), failed
