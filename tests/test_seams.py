"""What will come fits the seams: layers in a few lines, of which the whole knows enough."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import nets, testing
from jflow import transformers as jt
from jflow.functional import Circle, Integers, Interval, Support
from jflow.functional.arrays import as_wide
from jflow.functional.supports import entries

KEY = jax.random.key(0)


def moved(flow, y):
    """A density with parameters off their first values."""
    variables = jflow.init(flow, KEY, y)
    params = jax.tree.map(lambda p: p + 0.1, variables.get("params", {}))
    return jflow.Density(flow, {**variables, "params": params})


class Augment(jb.Bijector):
    """x = (y, e), with noise e from a normal that depends on y: a bound on log p(y)."""

    extra: int = 1

    def forward_and_log_det(self, x, context=None):
        x = as_wide(x)
        y, e = x[..., : -self.extra], x[..., -self.extra :]
        return y, self._log_q(y, e)

    def inverse_and_log_det(self, y, context=None):
        y = as_wide(y)
        mean, log_std = self._numbers(y)
        key = jax.random.key(0) if self.is_initializing() else self.make_rng("noise")
        e = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape, mean.dtype)
        return jnp.concatenate([y, e], axis=-1), -self._log_q(y, e)

    def _log_q(self, y, e):
        mean, log_std = self._numbers(y)
        return jnp.sum(jax.scipy.stats.norm.logpdf(e, mean, jnp.exp(log_std)), axis=-1)

    @nn.compact
    def _numbers(self, y):
        return jnp.split(nets.MLP((4,))(2 * self.extra).copy(name="net")(y), 2, axis=-1)

    @property
    def log_det_kind(self):
        return "bound"

    @property
    def inverse_kind(self):
        return "random"

    @nn.nowrap
    def needs_key(self, direction):
        return direction == "inverse"

    @nn.nowrap
    def latent_shape(self, event_shape):
        return (event_shape[0] + self.extra,)


@pytest.fixture(scope="module")
def augmented():
    step = jb.Coupling(jt.Affine(), nets.MLP((8,)))
    flow = jflow.Flow(jb.Chain((Augment(), step, jb.Reverse(), step.clone())), (1,))
    return moved(flow, np.zeros((4, 1)))


def test_an_augmenting_layer_is_a_bound(augmented):
    bijector = augmented.flow.bijector
    assert bijector.log_det_kind == "bound"
    assert bijector.needs_key("inverse")
    assert not bijector.needs_key("forward")
    y = np.linspace(-6, 6, 121)[:, None]
    bound = augmented.log_prob_estimate(y, KEY, probes=1).mean
    tight, error, _ = augmented.log_prob_estimate(y, KEY, probes=2000)
    # Of p itself: it integrates to one, and the bound lies below, the more so the farther.
    np.testing.assert_allclose(np.exp(tight).sum() * 0.1, 1, atol=0.02)
    many = np.mean([augmented.log_prob(y, key=i) for i in range(200)], axis=0)
    assert np.all(many < tight + 4 * error + 0.02)
    assert np.mean(tight - many) > 0.01
    assert np.all(np.isfinite(bound))
    # Far out, where y is rare, noise is drawn from the wrong place, and few draws count.
    middle = np.abs(y[:, 0]) < 2
    assert np.all((error[middle] > 0) & (error[middle] < 0.1))
    # Samples, whose extra entries are left out, follow it.
    samples = augmented.sample(KEY, 20_000)[:, 0]
    share = np.exp(tight)[y[:, 0] < 0].sum() * 0.1 + 0.05 * np.exp(tight)[60]
    np.testing.assert_allclose(np.mean(samples < 0), share, atol=0.02)


def test_noise_is_asked_for_where_it_is_drawn(augmented):
    y, z = np.zeros((3, 1)), np.zeros((3, 2))
    for method in ("log_prob", "latents"):
        with pytest.raises(ValueError, match=f"{method}: give a key: density.{method}"):
            getattr(augmented, method)(y)
    assert not np.allclose(augmented.latents(y, key=0), augmented.latents(y, key=1))
    assert augmented.from_latents(z).shape == (3, 1)
    density, history = jflow.fit(
        augmented.flow, np.random.default_rng(0).normal(size=(64, 1)), key=KEY, steps=3,
        evaluate_every=3, progress=False,
    )  # fmt: skip
    assert np.isfinite(history.rows[-1]["validation_nll"])
    assert np.isfinite(jflow.evaluate(density, y, key=KEY).mean)


def test_kinds_of_what_is_drawn():
    turned = jb.Invert(jb.RAD())
    assert (turned.log_det_kind, turned.inverse_kind) == ("bound", "random")
    assert turned.needs_key("inverse")
    density = moved(jflow.Flow(turned, (1,)), np.linspace(-1, 1, 5)[:, None])
    y = np.linspace(-0.5, 0.5, 5)[:, None]
    mean, error, _ = density.log_prob_estimate(y, KEY, probes=400)
    again = density.log_prob_estimate(y, 7, probes=400).mean
    assert np.all(error > 0)
    assert np.all(np.abs(mean - again) < 6 * error)


def test_drift_of_reversible_layers_after_noise():
    step = jb.Chain((jb.Coupling(jt.Affine(), nets.MLP((4,))), jb.Reverse()))
    flow = jflow.Flow(jb.Chain((Augment(), jb.Repeat(step, 2, memory="reversible"))), (1,))
    y = np.random.default_rng(0).normal(size=(64, 1)).astype(np.float32)
    _, history = jflow.fit(flow, y, key=KEY, steps=2, evaluate_every=2, check_drift=True,
                           progress=False)  # fmt: skip
    assert history.rows[-1]["drift"] < 1e-4


class Sphere(Support):
    """The unit sphere in three dimensions. Its volume is area."""

    def __str__(self):
        return "the sphere"

    def __eq__(self, other):
        return isinstance(other, Sphere)

    def __hash__(self):
        return 0

    def holds(self, other):
        return isinstance(other, Sphere)


class Cylinder(jb.Bijector):
    """The sphere as height and longitude, which keeps areas (Archimedes)."""

    def forward_and_log_det(self, x, context=None):
        height, angle = as_wide(x)[..., 0], as_wide(x)[..., 1]
        radius = jnp.sqrt(jnp.maximum(1 - height**2, 0))
        y = jnp.stack([radius * jnp.cos(angle), radius * jnp.sin(angle), height], axis=-1)
        return y, jnp.zeros_like(height)

    def inverse_and_log_det(self, y, context=None):
        y = as_wide(y)
        x = jnp.stack([y[..., 2], jnp.arctan2(y[..., 1], y[..., 0])], axis=-1)
        return x, jnp.zeros_like(y[..., 2])

    @nn.nowrap
    def latent_shape(self, event_shape):
        return (2,)

    @nn.nowrap
    def data_support(self, support, event_shape):
        wanted = Interval(-1, 1), Circle()
        if not all(w.holds(s) for w, s in zip(wanted, entries(support, 2), strict=True)):
            raise ValueError(f"Cylinder takes heights and angles; got {support}")
        return Sphere()


def test_a_density_on_the_sphere():
    heights = jflow.BoxUniform(-1.0, 1.0)
    base = jflow.Product((heights, jflow.VonMises()), (1, 1))
    flow = jflow.Flow(Cylinder(), (3,), base)
    assert flow.support == Sphere()
    with pytest.raises(ValueError, match="Cylinder takes heights and angles"):
        jflow.Flow(Cylinder(), (3,), jflow.Product((heights, heights), (1, 1)))
    density = jflow.Density(flow, {})
    samples = density.sample(KEY, 500)
    np.testing.assert_allclose(np.linalg.norm(samples, axis=-1), 1, rtol=1e-5)
    # Over areas, by a rule for the sphere: equal heights, equal longitudes.
    height, angle = np.meshgrid((np.arange(100) + 0.5) / 50 - 1, 2 * np.pi * np.arange(100) / 100)
    radius = np.sqrt(1 - height**2)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=-1)
    mass = np.exp(density.log_prob(points)).mean() * 4 * np.pi
    np.testing.assert_allclose(mass, 1, rtol=1e-5)


class WholeLogistic:
    """Logistic variables, rounded: a distribution of the whole numbers."""

    def __call__(self, event_shape, dtype):
        return _WholeLogistic(event_shape, dtype)

    def support(self, event_shape):
        return Integers()


class _WholeLogistic:
    def __init__(self, event_shape, dtype):
        self.event_shape, self.dtype = event_shape, dtype

    def mean(self):
        return jnp.zeros(self.event_shape, self.dtype)

    def sample(self, *, seed, sample_shape=()):
        shape = (*sample_shape, *self.event_shape)
        return jnp.round(3 * jax.random.logistic(seed, shape, self.dtype))

    def log_prob(self, x):
        above, below = (x + 0.5) / 3, (x - 0.5) / 3
        mass = jax.nn.sigmoid(above) - jax.nn.sigmoid(below)
        return jnp.sum(jnp.where(x == jnp.round(x), jnp.log(mass), -jnp.inf), axis=-1)


class RoundedShift(jb.Bijector):
    """y = (a, b + round(5 sin(net(a)))): whole numbers onto whole numbers."""

    def forward_and_log_det(self, x, context=None):
        return self._shifted(x, 1)

    def inverse_and_log_det(self, y, context=None):
        return self._shifted(y, -1)

    @nn.compact
    def _shifted(self, x, sign):
        x = as_wide(x)
        shift = jnp.round(5 * jnp.sin(nets.MLP((4,))(1).copy(name="net")(x[..., :1])))
        moved = jnp.concatenate([x[..., :1], x[..., 1:] + sign * shift], axis=-1)
        return moved, jnp.zeros(x.shape[:-1], x.dtype)

    @nn.nowrap
    def _support(self, direction, support, event_shape):
        return support


def test_probabilities_of_whole_numbers():
    flow = jflow.Flow(jb.Chain((RoundedShift(), jb.Reverse())), (2,), WholeLogistic())
    assert flow.support == Integers()
    with pytest.raises(ValueError, match=r"takes the line, and .* gives the whole numbers"):
        jflow.Flow(jb.ActNorm(), (2,), WholeLogistic())
    density = moved(flow, np.ones((4, 2), int))
    y = np.stack(np.meshgrid(*[np.arange(-60, 61)] * 2), axis=-1)
    np.testing.assert_allclose(np.exp(density.log_prob(y)).sum(), 1, rtol=1e-4)
    np.testing.assert_allclose(
        density.bits_per_dim(y[0]), -density.log_prob(y[0]) / np.log(4), rtol=1e-12
    )
    with pytest.raises(TypeError, match="y must be integers, the whole numbers; got float"):
        density.log_prob(np.asarray([0.5, 1.0]))
    samples = density.sample(KEY, 200)
    assert samples.dtype == jnp.int32
    assert density.latents(samples).dtype == jnp.int32
    back = density.from_latents(density.latents(samples))
    np.testing.assert_array_equal(back, samples)


def test_integers():
    assert Integers().holds(Integers(0, 7))
    assert not Integers(0, 7).holds(Integers())
    assert not Integers().holds(Interval())
    assert not Interval().holds(Integers(0, 7))
    assert str(Integers(0, 7)) == "the whole numbers from 0 to 7"
    with pytest.raises(ValueError, match="Integers: low must be below high; got 3 and 3"):
        Integers(3, 3)


class _Set(nn.Module):
    """Numbers for each particle, of all that are given."""

    features: int

    @nn.compact
    def __call__(self, x, context=None):
        h = nn.tanh(nn.Dense(6, param_dtype=x.dtype, name="each")(x))
        mean = jnp.broadcast_to(jnp.mean(h, axis=-2, keepdims=True), h.shape)
        h = jnp.concatenate([h, mean], axis=-1)
        return nn.Dense(self.features, param_dtype=x.dtype, name="last")(h)


def test_a_coupling_over_particles_in_space():
    kept = np.asarray([1, 0, 1, 0])[:, None]
    layer = jb.Coupling(jt.Affine(), _Set, kept)
    print(testing.check_bijector(layer, (4, 2)))
    # Kept particles are alike: their order is all the same to those that are moved.
    flow = jflow.Flow(jb.Chain((layer, jb.Coupling(jt.Affine(), _Set, 1 - kept))), (4, 2))
    y = jnp.asarray(np.random.default_rng(0).standard_normal((5, 4, 2)))
    density = moved(flow, y)
    np.testing.assert_allclose(density.log_prob(y[:, [2, 1, 0, 3]]), density.log_prob(y))
    np.testing.assert_allclose(density.from_latents(density.latents(y)), y, atol=1e-9)
