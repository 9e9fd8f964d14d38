"""Bridges: the same densities on both sides, laws of samplers, and what is refused."""

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorflow_probability.substrates import jax as tfp

import jflow
from jflow import bijectors as jb
from jflow import flows, testing
from jflow import transformers as jt
from jflow.functional import Interval
from jflow.interop import distrax as to_distrax
from jflow.interop import pulled_back
from jflow.interop import tfp as to_tfp

distrax = pytest.importorskip("distrax")
tfb, tfd = tfp.bijectors, tfp.distributions


@pytest.fixture(autouse=True)
def as_other_libraries_want():
    """They promote ranks and dtypes."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def made(flow, context=None, like=None):
    """A density whose parameters are not where they start."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(64, *flow.event_shape)) if like is None else like
    variables = jflow.init(flow, 0, y, context)
    moved = lambda a: a + 0.1 * rng.normal(size=a.shape)  # noqa: E731
    params = jax.tree.map(moved, variables["params"])
    return jflow.Density(flow, {**variables, "params": params})


@pytest.fixture(scope="module")
def density():
    return made(flows.maf(3, layers=2, hidden=(8,)))


@pytest.fixture(scope="module")
def y():
    return np.random.default_rng(1).normal(size=(20, 3))


@pytest.fixture(scope="module")
def context():
    return np.random.default_rng(2).normal(size=(20, 2))


@pytest.fixture(scope="module")
def conditional(context):
    return made(flows.maf(3, layers=2, hidden=(8,), context_shape=2), np.tile(context, (4, 1))[:64])


def close(a, b, tolerance=1e-9):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


BRIDGES = [to_distrax, to_tfp]


@pytest.mark.parametrize("bridge", BRIDGES)
def test_distributions_are_the_density(bridge, density, conditional, y, context):
    of = bridge.to_distribution(density)
    close(of.log_prob(y), density.log_prob(y))
    drawn = of.sample(seed=jax.random.key(0), sample_shape=(4,))
    assert drawn.shape == (4, 3)
    assert tuple(of.batch_shape) == ()
    assert tuple(of.event_shape) == (3,)
    of = bridge.to_distribution(conditional, context)
    assert tuple(of.batch_shape) == (20,)
    close(of.log_prob(y), conditional.log_prob(y, context))
    assert of.sample(seed=jax.random.key(0), sample_shape=(4,)).shape == (4, 20, 3)


@pytest.mark.parametrize("bridge", BRIDGES)
def test_distributions_in_float32(bridge, density, y):
    narrowed = lambda a: a.astype(np.float32) if a.dtype == np.float64 else a  # noqa: E731
    narrow = jflow.Density(density.flow, jax.tree.map(narrowed, density.variables))
    found = bridge.to_distribution(narrow).log_prob(np.float32(y))
    assert found.dtype == np.float32
    close(found, density.log_prob(y), 1e-5)


def test_bijectors_make_transformed_distributions(density, y):
    bases = [
        (distrax.Transformed, distrax.MultivariateNormalDiag(jnp.zeros(3)), to_distrax),
        (tfd.TransformedDistribution, tfd.MultivariateNormalDiag(jnp.zeros(3)), to_tfp),
    ]
    for transformed, base, bridge in bases:
        of = transformed(base, bridge.to_bijector(density))
        close(of.log_prob(y), density.log_prob(y))
        assert of.sample(seed=jax.random.key(0), sample_shape=(5,)).shape == (5, 3)
        bijector = bridge.to_bijector(density)
        z, log_det = density.latents(y, log_det=True)
        close(bijector.inverse(y), z)
        given = {} if bridge is to_distrax else {"event_ndims": 1}
        close(bridge.to_bijector(density).inverse_log_det_jacobian(y, **given), log_det)
        close(bridge.to_bijector(density).forward_log_det_jacobian(z, **given), -log_det)
    assert to_tfp.to_distribution(density).sample(4, seed=1).shape == (4, 3)


def test_a_distrax_distribution_trains():
    optax = pytest.importorskip("optax")
    rng = np.random.default_rng(0)
    y = jnp.asarray(rng.normal(size=(256, 2)) @ [[1.0, 0.9], [0.0, 0.3]])
    flow = flows.real_nvp(2, layers=2, hidden=(8,))
    variables = jflow.init(flow, 0, y)
    rest = {name: part for name, part in variables.items() if name != "params"}
    optimizer = optax.adam(1e-2)

    def loss(params):
        of = to_distrax.to_distribution(jflow.Density(flow, {**rest, "params": params}))
        return -of.log_prob(y).mean()

    @jax.jit
    def fitted(params):
        def step(carry, _):
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(step, (params, optimizer.init(params)), length=200)[1]

    course = fitted(variables["params"])
    entropy = 1 + np.log(2 * np.pi) + np.log(0.3)
    assert course[0] > entropy + 0.3
    assert abs(course[-1] - entropy) < 0.15


LAYERS = [
    ("line", lambda: to_distrax.from_bijector(distrax.ScalarAffine(0.5, 2.0))),
    ("tanh", lambda: to_distrax.from_bijector(distrax.Tanh())),
    ("block", lambda: to_distrax.from_bijector(distrax.Block(distrax.Sigmoid(), 1))),
    ("softplus", lambda: to_tfp.from_bijector(tfb.Softplus())),
    ("chain", lambda: to_tfp.from_bijector(tfb.Chain([tfb.Exp(), tfb.Shift(np.float64(1))]))),
    ("triangle", lambda: to_tfp.from_bijector(tfb.ScaleMatvecTriL(np.array([[2.0, 0], [1, 3]])))),
]


@pytest.mark.parametrize(("name", "make"), LAYERS, ids=[name for name, _ in LAYERS])
def test_layers_of_others_keep_the_contract(name, make):
    flow = jflow.Flow(jb.Chain((make(), jb.Elementwise(jt.Affine()))), (2,))
    wanted = {
        "tanh": Interval(-1, 1), "block": Interval(0, 1), "softplus": Interval(0.0),
        "chain": Interval(0.0),
    }  # fmt: skip
    assert flow.support == wanted.get(name, Interval())
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, 2))
    y = make().apply({}, jnp.asarray(x), method="forward")
    if name in ("line", "tanh", "block"):  # TFP knows no batches of unknown size
        testing.check_bijector(make(), (2,), data=np.asarray(y))
        return
    back, log_det = make().apply({}, y, method="inverse_and_log_det")
    close(back, x, 1e-6)
    jacobian = jax.vmap(jax.jacfwd(lambda y: make().apply({}, y, method="inverse")))(y)
    close(log_det, np.linalg.slogdet(jacobian)[1], 1e-6)
    if name == "softplus":
        density = jflow.Density(jflow.Flow(make(), (2,)), {})
        assert density.log_prob(np.array([-1.0, 1.0])) == -np.inf
        assert np.isfinite(jax.grad(density.log_prob)(jnp.array([-1.0, 1.0]))).all()


def test_supports_that_do_not_meet_are_refused():
    with pytest.raises(ValueError, match="would not integrate to one"):
        jflow.Flow(to_tfp.from_bijector(tfb.Invert(tfb.Exp())), (2,))
    inside = to_distrax.from_bijector(distrax.Inverse(distrax.Sigmoid()))
    assert jflow.Flow(inside, (2,), jflow.StandardUniform()).support == Interval()
    last_first = distrax.Chain([distrax.Sigmoid(), distrax.ScalarAffine(0.0, 2.0)])
    assert jflow.Flow(to_distrax.from_bijector(last_first), (2,)).support == Interval(0, 1)
    odd = distrax.Lambda(lambda x: x**3)
    with pytest.raises(ValueError, match=r"where Lambda takes numbers from.*say so by supports="):
        to_distrax.from_bijector(odd)
    to_distrax.from_bijector(odd, supports=(Interval(), Interval()))
    with pytest.raises(TypeError, match=r"takes a distrax\.Bijector; got function"):
        to_distrax.from_bijector(lambda x: x)
    with pytest.raises(ValueError, match="events have 1 axes"):
        to_distrax.from_bijector(distrax.Block(distrax.Tanh(), 2))
    with pytest.raises(TypeError, match=r"takes a tfb\.Bijector"):
        to_tfp.from_bijector(distrax.Tanh())


def test_points_without_an_inverse_are_outside():
    """A chain's own support is not known to its end, where an affine map stands."""
    tanh = to_distrax.from_bijector(distrax.Chain([distrax.ScalarAffine(0.5, 0.5), distrax.Tanh()]))
    exp = to_tfp.from_bijector(tfb.Chain([tfb.Shift(np.float64(1)), tfb.Exp()]))
    for layer, inside, outside in ((tanh, 0.5, 2.0), (exp, 1.5, 0.5)):
        density = jflow.Density(jflow.Flow(layer, (2,)), {})
        assert np.isfinite(density.log_prob(np.full(2, inside)))
        assert density.log_prob(np.array([inside, outside])) == -np.inf
        assert np.isnan(density.log_prob(np.array([inside, np.nan])))
    doubled = distrax.Lambda(
        lambda x: 2 * x, forward_log_det_jacobian=lambda x: jnp.log(2.0), event_ndims_in=0,
        inverse=lambda y: y / 2, inverse_log_det_jacobian=lambda y: -jnp.log(2.0),
    )  # fmt: skip
    layer = to_distrax.from_bijector(doubled, supports=(Interval(), Interval()))
    close(layer.apply({}, jnp.zeros((4, 3)), method="forward_and_log_det")[1], 3 * np.log(2.0))
    with pytest.raises(TypeError, match="one Support each"):
        to_distrax.from_bijector(doubled, supports=(Interval(), (Interval(), Interval())))


@pytest.mark.parametrize("bridge", BRIDGES)
def test_values_broadcast_against_batches(bridge, conditional, y, context):
    of = bridge.to_distribution(conditional, context)
    close(of.log_prob(y[0]), conditional.log_prob(np.tile(y[0], (20, 1)), context))
    assert of.log_prob(y[:5, None]).shape == (5, 20)


class OneWay(jb.Bijector):
    def inverse_and_log_det(self, y, context=None):
        return y, jnp.zeros(y.shape[:-1], y.dtype)


def test_what_is_random_or_missing_is_refused(density):
    with pytest.raises(TypeError, match=r"A flow and its variables are jflow\.Density"):
        to_distrax.to_distribution(density.flow)
    grey = flows.glow((4, 4, 1), levels=1, steps=1, hidden=4, values=4)
    like = np.random.default_rng(0).integers(0, 4, size=(8, 4, 4, 1))
    levels = jflow.Density(grey, jflow.init(grey, 0, like))
    for bridge in BRIDGES:
        with pytest.raises(ValueError, match="are functions of points"):
            bridge.to_distribution(levels)
    with pytest.raises(ValueError, match="context is given to a flow without one"):
        to_distrax.to_distribution(density, np.zeros(2))
    one_way = jflow.Density(jflow.Flow(OneWay(), (2,)), {})
    with pytest.raises(ValueError, match="forward_kind is 'missing'"):
        to_distrax.to_bijector(one_way)
    residual = flows.i_resnet(2, layers=1, hidden=(8,), exact_up_to=1)
    estimated = jflow.Density(residual, jflow.init(residual, 0, np.zeros((4, 2))))
    with pytest.raises(ValueError, match=r"exchanged by density\.with_estimator"):
        to_tfp.to_bijector(estimated)


def test_pulled_back_densities(density):
    target = lambda y: -((y**2).sum(-1)) / 2  # noqa: E731
    p = pulled_back(density, target)
    z = p.start(0, (5, 4))
    y, log_det = density.from_latents(z, log_det=True)
    close(p.log_prob(z), target(y) + log_det)
    close(p.points(z), y)
    close(p.log_prob(z[0, 0]), p.log_prob(z)[0, 0])
    assert jax.grad(p.log_prob)(z[0, 0]).shape == (3,)
    # Where the target is what the flow is, the latents' density is the base.
    own = pulled_back(density, density.log_prob)
    close(own.log_prob(z), jax.scipy.stats.norm.logpdf(z).sum(-1), 1e-6)


def test_pulled_back_refuses(density):
    with pytest.raises(ValueError, match="one log-density for each y"):
        pulled_back(density, lambda y: y)
    circle = jflow.Flow(jb.Elementwise(jt.CircularSpline()), (2,), jflow.VonMises())
    angles = jflow.Density(circle, jflow.init(circle, 0, np.zeros((4, 2))))
    with pytest.raises(ValueError, match=r"latents must live on the line; .* on the circle"):
        pulled_back(angles, lambda y: y.sum(-1))


def test_flowjax_both_ways(density, conditional, y, context):
    pytest.importorskip("flowjax")
    import flowjax.bijections as bijections
    from flowjax.distributions import Normal, Transformed
    from flowjax.flows import masked_autoregressive_flow
    from flowjax.train import fit_to_data

    from jflow.interop import flowjax as bridge

    of = bridge.to_distribution(density)
    close(of.log_prob(y), density.log_prob(y))
    drawn, log_p = of.sample_and_log_prob(jax.random.key(0), (5,))
    close(density.log_prob(drawn), log_p, 1e-6)
    of = bridge.to_distribution(conditional)
    close(of.log_prob(y, context), conditional.log_prob(y, context))
    of = Transformed(Normal(jnp.zeros(3)), bridge.to_bijection(density))
    close(of.log_prob(y), density.log_prob(y))
    trained, _ = fit_to_data(
        jax.random.key(0), bridge.to_distribution(density), y, max_epochs=3, show_progress=False
    )
    after = trained.density
    assert after.log_prob(y).mean() > density.log_prob(y).mean()
    rest = [name for name in density.variables if name != "params"]
    for name in rest:
        jax.tree.map(np.testing.assert_array_equal, after.variables[name], density.variables[name])
    theirs = masked_autoregressive_flow(
        jax.random.key(0), base_dist=Normal(jnp.zeros(3)), cond_dim=2, flow_layers=2
    )
    flow = jflow.Flow(
        bridge.from_bijection(theirs.bijection), (3,), context_shape=2, standardize_context=False
    )
    variables = jflow.init(flow, 0, y, context)
    ours = jflow.Density(flow, variables)
    close(ours.log_prob(y, context), theirs.log_prob(y, context))
    assert jax.tree.leaves(variables["params"])
    power = bridge.from_bijection(bijections.Chain([bijections.Exp((3,)), bijections.Tanh((3,))]))
    assert jflow.Flow(power, (3,)).support == Interval(-1, 1)
    inside = bijections.Vmap(bijections.Exp(), axis_size=3)
    with pytest.raises(ValueError, match="may not live on the line; say where"):
        bridge.from_bijection(inside)

    class Own(bijections.Affine):
        pass

    with pytest.raises(ValueError, match=r"\['Own'\] in Own may not live on the line"):
        bridge.from_bijection(Own(jnp.zeros(3)))
    other = jflow.Flow(bridge.from_bijection(theirs.bijection), (3,), context_shape=5)
    with pytest.raises(ValueError, match=r"needs a context \(2,\), and is given \(5,\)"):
        jflow.init(other, 0, y, np.zeros((20, 5)))
    shapes = flows.maf(3, layers=1, hidden=(8,)).clone(context_shape={"a": (2,)}, encoder=Join())
    told = jflow.Density(shapes, jflow.init(shapes, 0, y, {"a": context}))
    with pytest.raises(ValueError, match="a condition of flowjax is one array"):
        bridge.to_distribution(told)
    with pytest.raises(ValueError, match=r"the bijection is of events \(3,\); got \(2,\)"):
        jflow.Flow(bridge.from_bijection(bijections.Flip((3,))), (2,))
    with pytest.raises(TypeError, match="takes a flowjax bijection"):
        bridge.from_bijection(theirs)


def test_numpyro_distributions(density, conditional, y, context):
    pytest.importorskip("numpyro")
    from numpyro.distributions import Normal, TransformedDistribution, constraints
    from numpyro.distributions.transforms import biject_to

    from jflow.interop import numpyro as bridge

    of = bridge.to_distribution(density)
    close(of.log_prob(y), density.log_prob(y))
    assert of.sample(jax.random.key(0), (4,)).shape == (4, 3)
    assert of.support == constraints.independent(constraints.real, 1)
    of = bridge.to_distribution(conditional, context)
    assert of.batch_shape == (20,)
    close(of.log_prob(y), conditional.log_prob(y, context))
    of = TransformedDistribution(Normal(jnp.zeros(3)).to_event(1), bridge.to_transform(density))
    close(of.log_prob(y), density.log_prob(y))
    # One number in (0, 1), one positive, one on the line.
    bounds = jflow.Product((jflow.StandardUniform(), jflow.StandardNormal()), (1, 2))
    mixed = jflow.Density(flow := jflow.Flow(Identity(), (3,), bounds), {})
    where = bridge.to_distribution(mixed).support
    assert flow.support != Interval()
    x = np.random.default_rng(0).normal(size=(7, 3))
    assert where is not None
    onto = biject_to(where)
    inside = onto(x)
    assert bool(where(inside).all())
    assert not bool(where(inside.at[:, 0].set(2.0)).any())
    np.testing.assert_allclose(onto.inv(inside), x, rtol=1e-6)
    assert not bool(where(inside.at[:, 0].set(0.0)).any())
    jacobian = jax.vmap(jax.jacfwd(onto))(x)
    close(onto.log_abs_det_jacobian(x, inside), np.linalg.slogdet(jacobian)[1])


class Join(nn.Module):
    """The only part of a context."""

    def __call__(self, context):
        return context["a"]


class Identity(jb.Bijector):
    """y = x."""

    def forward_and_log_det(self, x, context=None):
        return x, jnp.zeros(x.shape[:-1])

    def inverse_and_log_det(self, y, context=None):
        return y, jnp.zeros(y.shape[:-1])

    def _support(self, direction, support, event_shape):
        return support


@pytest.mark.slow
def test_numpyro_svi_nuts_and_neutra():
    optax = pytest.importorskip("optax")
    numpyro = pytest.importorskip("numpyro")
    import numpyro.distributions as dist
    from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
    from numpyro.infer.reparam import NeuTraReparam

    from jflow.interop import numpyro as bridge

    rng = np.random.default_rng(0)
    observed = 1 + rng.normal(size=30)

    def model(observed):
        mu = numpyro.sample("mu", dist.Normal(0, 2))
        tau = numpyro.sample("tau", dist.HalfNormal(1.0))
        numpyro.sample("x", dist.Normal(mu, tau), obs=observed)

    def chain(model, *given):
        mcmc = MCMC(NUTS(model), num_warmup=300, num_samples=2_000, progress_bar=False)
        mcmc.run(jax.random.key(1), *given)
        return mcmc.get_samples()

    exact = chain(model, observed)
    guide = bridge.AutoFlow(model)
    svi = SVI(model, guide, optax.adam(2e-3), Trace_ELBO(16))
    result = svi.run(jax.random.key(0), 1_500, observed, progress_bar=False)
    drawn = guide.sample_posterior(jax.random.key(2), result.params, sample_shape=(4_000,))
    neutra = NeuTraReparam(guide, result.params)
    latent = chain(neutra.reparam(model), observed)
    moved = neutra.transform_sample(latent["auto_shared_latent"])
    for name in ("mu", "tau"):
        spread = exact[name].std()
        for found in (drawn[name], moved[name]):
            assert abs(found.mean() - exact[name].mean()) < 0.2 * spread, name
            assert abs(found.std() / spread - 1) < 0.15, name
    density = guide.density(result.params)
    close(density.sample(0, 10).shape, (10, 2))

    bounded = jb.Chain((jb.Elementwise(jt.Sigmoid()), jb.Elementwise(jt.Affine())))
    unit = made(jflow.Flow(bounded, (2,)), like=rng.uniform(0.2, 0.8, size=(64, 2)))
    found = chain(lambda: numpyro.sample("x", bridge.to_distribution(unit)))["x"]
    assert np.abs(found.mean(0) - unit.sample(0, (4_000,)).mean(0)).max() < 0.03

    prior = made(flows.maf(2, layers=2, hidden=(8,)))
    found = chain(lambda: numpyro.sample("x", bridge.to_distribution(prior)))["x"]
    own = prior.sample(0, (4_000,))
    assert np.abs(found.mean(0) - own.mean(0)).max() < 0.15
    assert np.abs(found.std(0) / own.std(0) - 1).max() < 0.15


def test_guides_refuse_flows_that_do_not_fit():
    numpyro = pytest.importorskip("numpyro")
    import numpyro.distributions as dist

    from jflow.interop.numpyro import AutoFlow

    def model():
        numpyro.sample("x", dist.Normal(jnp.zeros(3), 1).to_event(1))

    def called(flow):
        with numpyro.handlers.seed(rng_seed=0):
            AutoFlow(model, flow)()

    with pytest.raises(ValueError, match=r"events \(3,\) without a context; got events \(2,\)"):
        called(lambda _: flows.iaf(2, layers=1, hidden=(4,)))
    with pytest.raises(TypeError, match="it gave int"):
        called(lambda size: size)
    with pytest.raises(TypeError, match="a flow was given"):
        AutoFlow(model, flows.iaf(3, layers=1, hidden=(4,)))
    with pytest.raises(ValueError, match="its base is StandardLogistic"):
        called(lambda size: flows.nice(size, layers=2, hidden=(4,)))


@pytest.mark.slow
def test_nuts_in_latents_draws_the_target_and_arviz_reads_it():
    pytest.importorskip("blackjax")
    from jflow.interop.blackjax import nuts

    def target(y):  # y0 normal, y1 | y0 normal around y0^2
        return -((y[:, 1] - y[:, 0] ** 2) ** 2) / (2 * 0.3**2) - y[:, 0] ** 2 / 2

    flow = flows.iaf(2, layers=4, hidden=(32, 32))
    posterior, _ = jflow.fit_to_target(flow, target, key=0, steps=2_000, progress=False)
    chains = nuts(posterior, target, key=0, draws=1_000)
    assert chains.y.shape == (4, 1_000, 2)
    y = chains.y.reshape(-1, 2)
    close(chains.log_prob.ravel(), target(y), 1e-6)
    assert abs(y[:, 0].mean()) < 0.1
    assert abs(y[:, 0].std() - 1) < 0.1
    assert abs((y[:, 1] - y[:, 0] ** 2).std() - 0.3) < 0.03
    assert (chains.r_hat < 1.02).all()
    assert (chains.ess > 400).all()
    assert "4 of 1,000 draws" in repr(chains)
    again = nuts(posterior, target, key=0, draws=1_000)
    np.testing.assert_array_equal(again.y, chains.y)
    alone = nuts(posterior, target, key=0, draws=3, chains=1)
    assert "1 of 3 draws, least ess nan" in repr(alone)

    class Moving:
        centre = 0.0

        def __call__(self, y):
            return -((y - self.centre) ** 2).sum(-1) / 2

    moving = Moving()
    nuts(posterior, moving, key=0, draws=50, warmup=50)
    moving.centre = 5.0
    assert np.abs(nuts(posterior, moving, key=0, draws=500).y.mean((0, 1)) - 5).max() < 1
    # However badly a flow has learned, the law is the target's: here a normal one.
    untrained = jflow.Density(flow, jflow.init(flow, 1, np.zeros((4, 2))))
    bad = nuts(untrained, lambda y: -((y - 3) ** 2).sum(-1) / 2, key=0, draws=1_000)
    assert np.abs(bad.y.mean((0, 1)) - 3).max() < 0.15
    assert np.abs(bad.y.std((0, 1)) - 1).max() < 0.1

    pytest.importorskip("arviz")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ warns of its next version when it is imported
        from jflow.interop.arviz import to_inference_data
    data = to_inference_data(chains, names=["a", "b"], prior=np.zeros((10, 2)))
    np.testing.assert_array_equal(data.posterior["b"], chains.y[..., 1])
    np.testing.assert_array_equal(data.sample_stats["diverging"], chains.diverging)
    assert data.prior["a"].shape == (1, 10)
    assert to_inference_data(chains.y).posterior["y"].shape == (4, 1_000, 2)
    with pytest.raises(ValueError, match="as many as numbers in an event; got 3"):
        to_inference_data(chains, names=["a", "b", "c"])


def test_nuts_refuses():
    pytest.importorskip("blackjax")
    from jflow.interop.blackjax import nuts

    flow = flows.iaf(2, layers=1, hidden=(4,))
    density = jflow.Density(flow, jflow.init(flow, 0, np.zeros((4, 2))))
    with pytest.raises(FloatingPointError, match="of 64 draws of the flow, fewer than 4"):
        nuts(density, lambda y: jnp.full(len(y), -jnp.inf))
    with pytest.raises(ValueError, match="warmup must be 20 steps or more"):
        nuts(density, lambda y: y.sum(-1), warmup=5)
