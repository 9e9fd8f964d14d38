"""Layers that a user would write: a neural ODE, and causal attention with a cache."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jflow
from jflow import bijectors as jb
from jflow import functional as jf
from jflow import nets
from jflow import transformers as jt
from jflow.testing import check_bijector
from tests.harness import perturbed

KEY = jax.random.key(0)


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape)


class Field(nn.Module):
    """u tanh(w x + b), an ordinary Flax network."""

    @nn.compact
    def __call__(self, x):
        h = jnp.tanh(nn.Dense(2, param_dtype=x.dtype)(x))
        return nn.Dense(x.shape[-1], param_dtype=x.dtype)(h)


class NeuralODE(jb.Bijector):
    """dy/dt = field(y), d log_det/dt = tr d field/dy, by the classical Runge-Kutta method."""

    estimator: jf.TraceEstimator = jf.Hutchinson()
    count: int = 20

    def forward_and_log_det(self, x, context=None):
        return self._run(x, 1 / self.count)

    def inverse_and_log_det(self, y, context=None):
        return self._run(y, -1 / self.count)

    @nn.compact
    def _run(self, x, h):
        field = nets.as_function(Field(name="field"), x)
        key = self.make_rng("noise") if self.estimator.needs_key else None
        slope = lambda state: self.estimator.value_and_trace(field, state[0], key)  # noqa: E731
        along = lambda state, k, h: jax.tree.map(lambda s, k: s + h * k, state, k)  # noqa: E731

        def step(state, _):
            a = slope(state)
            b = slope(along(state, a, h / 2))
            c = slope(along(state, b, h / 2))
            d = slope(along(state, c, h))
            mean = jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, a, b, c, d)
            return along(state, mean, h), None

        return lax.scan(step, (x, jnp.zeros(x.shape[:-1], x.dtype)), length=self.count)[0]

    @property
    def log_det_kind(self):
        return self.estimator.kind

    @nn.nowrap
    def needs_key(self, direction):
        return self.estimator.needs_key


def test_a_neural_ode():
    y = normal(6, 3)
    flow = jflow.Flow(NeuralODE(), (3,))
    density = jflow.Density(flow, perturbed(jflow.init(flow, KEY, y), 0.3))
    exact = density.with_estimator(jf.ExactTrace())
    with pytest.raises(ValueError, match="give a key"):
        density.log_prob(y)
    latents = exact.latents(y)
    np.testing.assert_allclose(exact.from_latents(latents), y, atol=1e-6)
    jacobian = jax.jit(jax.vmap(jax.jacfwd(exact.latents)))(y)
    base = -0.5 * np.sum(latents**2, axis=-1) - 1.5 * np.log(2 * np.pi)
    wanted = base + np.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(exact.log_prob(y), wanted, atol=1e-6)
    assert flow.bijector.log_det_kind == "unbiased"
    draws = jax.jit(jax.vmap(lambda key: density.log_prob(y, key=key)))(jax.random.split(KEY, 400))
    error = np.std(draws, axis=0, ddof=1) / 20
    assert (error > 1e-3).all()
    np.testing.assert_array_less(np.abs(np.mean(draws, axis=0) - wanted), 4.5 * error)
    with pytest.raises(TypeError, match=r"layers of this flow estimate traces.*got ExactLogDet"):
        density.with_estimator(jf.ExactLogDet())
    grads = jax.jit(jax.grad(lambda v: -jnp.mean(flow.apply(
        v, y, method="log_prob", rngs={"noise": KEY}))))(density.variables)  # fmt: skip
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


class Dropping(nn.Module):
    """With running statistics, dropout, and a second method."""

    @nn.compact
    def __call__(self, x):
        count = self.variable("batch_stats", "count", lambda: jnp.zeros(()))
        if self.is_mutable_collection("batch_stats"):
            count.value = count.value + 1
        x = nn.Dense(3, param_dtype=x.dtype)(x)
        return nn.Dropout(0.5, deterministic=not self.has_rng("dropout"))(x)

    def doubled(self, x):
        return 2 * self(x)


class Loops(nn.Module):
    """Sums and differences of a network's results, in a loop."""

    method: str = "__call__"

    @nn.compact
    def __call__(self, x):
        f = nets.as_function(Dropping(name="net"), x, method=self.method)
        results = lax.map(lambda _: f(x), jnp.arange(3))
        slope = jax.grad(lambda x: jnp.sum(f(x)))(x)
        by_weights = jax.grad(lambda f: jnp.sum(f(x) ** 2), allow_int=True)(f)
        return results, slope, by_weights


def test_networks_as_functions():
    x = normal(4, 3)
    variables = Loops().init(KEY, x)
    assert set(variables["params"]) == {"net"}
    assert float(variables["batch_stats"]["net"]["count"]) == 1
    inner = {name: tree["net"] for name, tree in variables.items()}
    results, slope, by_weights = jax.jit(Loops().apply)(variables, x)
    np.testing.assert_allclose(results[2], Dropping().apply(inner, x), atol=1e-12)
    np.testing.assert_allclose(
        slope, np.tile(inner["params"]["Dense_0"]["kernel"].sum(1), (4, 1)), atol=1e-12
    )
    assert jax.tree.structure(by_weights).num_leaves == 3
    twice, *_ = Loops("doubled").apply(variables, x)
    np.testing.assert_allclose(twice, 2 * results, atol=1e-12)
    dropped, *_ = Loops().apply(variables, x, rngs={"dropout": KEY})
    np.testing.assert_array_equal(dropped[0], dropped[1])
    assert (dropped[0] == 0).any()
    with pytest.raises(ValueError, match="as_function: Dropping must be part of a module"):
        nets.as_function(Dropping(), x)
    _, changed = Loops().apply(variables, x, mutable=["batch_stats"])
    assert float(changed["batch_stats"]["net"]["count"]) == 1


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Attention(jf.Causal):
    """One layer of causal attention; token i is u_i-1 at place i."""

    weights: dict

    def _token(self, place, before):
        h = jnp.einsum("...,h->...h", before, self.weights["embedding"])
        h = h + jnp.broadcast_to(place, h.shape)
        return h, *(h @ self.weights[name] for name in ("query", "key", "value"))

    def _read(self, h, scores, seen, values):
        shares = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf))
        h = h + jnp.einsum("...j,...jh->...h", shares, values)
        return jnp.tanh(h) @ self.weights["out"]

    def __call__(self, u):
        before = jnp.concatenate([jnp.zeros_like(u[..., :1]), u[..., :-1]], axis=-1)
        h, query, key, value = self._token(self.weights["places"], before)
        scores = jnp.einsum("...ih,...jh->...ij", query, key)
        seen = jnp.broadcast_to(jnp.tril(jnp.ones(scores.shape[-2:], bool)), scores.shape)
        return self._read(h, scores, seen, value[..., None, :, :])

    def start(self, like):
        def step(cache, i, before):
            h, query, key, value = self._token(self.weights["places"][i], before)
            keys, values = (
                c.at[..., i, :].set(n) for c, n in zip(cache, (key, value), strict=True)
            )
            scores = jnp.einsum("...h,...jh->...j", query, keys)
            places = lax.broadcasted_iota(i.dtype, scores.shape, scores.ndim - 1)
            return (keys, values), self._read(h, scores, places <= i, values)

        empty = jnp.zeros((*like.shape, self.weights["key"].shape[0]), like.dtype)
        return (empty, empty), step


class AttentionNet(nn.Module):
    outputs: int

    @nn.compact
    def __call__(self, u, context):
        n, start = 6, nn.initializers.normal(0.5)
        shapes = {"embedding": (n,), "places": (u.shape[-1], n), "out": (n, self.outputs)}
        shapes |= dict.fromkeys(("query", "key", "value"), (n, n))
        return Attention({k: self.param(k, start, s, u.dtype) for k, s in shapes.items()})


def recomputed(bijector, variables, x):
    """Samples by a full pass for each feature."""
    inverse = lambda y: bijector.apply(variables, y, method="inverse_and_log_det")  # noqa: E731

    def step(i, y):
        along = jnp.zeros_like(y).at[..., i].set(1)
        (now, _), (slope, _) = jax.jvp(inverse, (y,), (along,))
        return y.at[..., i].add((x[..., i] - now[..., i]) / slope[..., i])

    y = lax.fori_loop(0, x.shape[-1], step, jnp.zeros_like(x))
    return y, -inverse(y)[1]


@pytest.mark.parametrize("solver", [None, jb.Jacobi(tolerance=1e-7)])
def test_attention_with_a_cache(solver):
    bijector = jb.MaskedAutoregressive(jt.Affine(), net=AttentionNet, solver=solver)
    x = normal(5, 7).astype(np.float32)
    variables = jflow.init(bijector, KEY, x)
    cached = lambda v, x: bijector.apply(v, x, method="forward_and_log_det")  # noqa: E731
    plain = lambda v, x: recomputed(bijector, v, x)  # noqa: E731
    loss = lambda f: lambda v, x: sum(jnp.sum(jnp.sin(a)) for a in f(v, x))  # noqa: E731

    @jax.jit
    def run(v, x):
        return [(f(v, x), jax.grad(loss(f), (0, 1))(v, x)) for f in (cached, plain)]

    found, wanted = run(variables, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5), found, wanted)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sums(jf.Causal):
    """p_i is the sum of the tokens (2,) before, and their number; the cache counts them."""

    weight: jax.Array
    event_ndim = 2

    def __call__(self, u):
        sums = jnp.cumsum(u, axis=-2) - u
        counts = jnp.broadcast_to(jnp.arange(u.shape[-2], dtype=u.dtype)[:, None], u.shape)
        return jnp.stack([self.weight * sums, self.weight * counts], axis=-1)

    def start(self, like):
        def step(cache, i, before):
            total, count = cache
            sums = total.at[i].set(jnp.where(i == 0, 0, total[i - 1]) + before)
            counts = jnp.full_like(before, 0) + i.astype(before.dtype)
            params = jnp.stack([self.weight * sums[i], self.weight * counts], axis=-1)
            return (sums, count + 1), params

        total = jnp.zeros((like.shape[-2], *like.shape[:-2], 2), like.dtype)
        return (total, jnp.zeros((), jnp.int32)), step


class SumsNet(nn.Module):
    outputs: int
    event_ndim = 2

    @nn.compact
    def __call__(self, u, context):
        return Sums(self.param("weight", nn.initializers.constant(0.1), (), u.dtype))


@pytest.mark.parametrize("order", ["natural", "reversed"])
@pytest.mark.parametrize("solver", [None, jb.Jacobi(tolerance=1e-12)])
def test_tokens_of_several_numbers_and_caches_that_count(order, solver):
    bijector = jb.MaskedAutoregressive(jt.Affine(), net=SumsNet, order=order, solver=solver)
    check_bijector(bijector, (3, 2))


def test_axes_of_nets_and_their_makers_must_agree():
    bijector = jb.MaskedAutoregressive(jt.Affine(), net=lambda outputs: SumsNet(outputs))
    with pytest.raises(ValueError, match="must have event_ndim = 2, too; got 1"):
        jflow.init(bijector, KEY, normal(2, 3))


def test_attention_is_a_bijector():
    bijector = jb.MaskedAutoregressive(jt.Affine(), net=AttentionNet, order="random")
    check_bijector(bijector, (4,))


def test_what_is_no_causal_net_is_named():
    bijector = jb.MaskedAutoregressive(jt.Affine(), net=lambda outputs: nets.MLP((4,))(outputs))
    with pytest.raises(TypeError, match=r"must return a Causal, bound to its weights.*got"):
        jflow.init(bijector, KEY, normal(2, 3))
    with pytest.raises(TypeError, match="net must be a factory of networks"):
        jb.MaskedAutoregressive(jt.Affine(), net=nn.Dense(3))
