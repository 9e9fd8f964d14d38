"""Fields of potentials: derivatives against autodiff, and flows along them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import flows, nets
from jflow import functional as jf
from tests.test_matching import drawn

CONFIG = nets.Potential(width=6, layers=3, rank=2)


@pytest.fixture(scope="module")
def made():
    x, c = jnp.asarray(drawn(0, 5, 3)), jnp.asarray(drawn(1, 5, 2))
    net = CONFIG(3)
    variables = net.init(jax.random.key(0), x, c)
    return net, jax.tree.map(lambda a: a + 0.3 * drawn(2, *a.shape), variables), x, c


def test_derivatives_are_those_of_the_potential(made):
    net, variables, x, c = made
    p = variables["params"]

    def potential(s):
        u = jnp.logaddexp(a := s @ p["kernel_0"] + p["bias_0"], -a)
        for i in (1, 2):
            a = u @ p[f"kernel_{i}"] + p[f"bias_{i}"]
            u = u + jnp.logaddexp(a, -a)
        return u @ p["last"] + jnp.sum((p["quadratic"] @ s) ** 2) / 2 + s @ p["linear"]

    s = jnp.concatenate([x, c], axis=-1)
    gradient, hessian = jax.vmap(jax.grad(potential))(s), jax.vmap(jax.hessian(potential))(s)
    found = jax.jit(lambda *a: net.apply(*a, method="derivatives"))(variables, x, c)
    np.testing.assert_allclose(found.gradient, gradient[:, :3], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.by_context, gradient[:, 3:], rtol=1e-10, atol=1e-12)
    trace = jnp.trace(hessian[:, :3, :3], axis1=1, axis2=2)
    np.testing.assert_allclose(found.laplacian, trace, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(net.apply(variables, x, c), found.gradient)
    shared = net.apply(variables, x.reshape(5, 1, 3), c[0], method="derivatives")
    np.testing.assert_allclose(shared.gradient[0, 0], found.gradient[0], rtol=1e-10)


def test_penalties_of_a_linear_potential():
    # P = b . y + c t: the field is b, and dP/dt + |f|^2 / 2 is c + |b|^2 / 2, everywhere.
    flow = jflow.Flow(jb.Continuous(CONFIG, kinetic=2.0, hjb=3.0), (3,))
    y = drawn(3, 4, 3)
    variables = jax.tree.map(jnp.zeros_like, jflow.init(flow, 0, y))
    variables["params"]["bijector"]["net"]["linear"] = jnp.asarray([1.0, 2.0, -1.0, 0.5])
    log_p, sown = flow.apply(variables, y, method="log_prob", mutable=["losses"])
    (found,) = jax.tree.leaves(sown)
    assert found == pytest.approx((2 * 6 + 3 * (0.5 + 3)) / 3)
    moved = y - np.array([1.0, 2.0, -1.0])
    np.testing.assert_allclose(log_p, -(moved**2).sum(-1) / 2 - 1.5 * np.log(2 * np.pi), rtol=1e-8)


def test_ot_flow_fits_with_few_evaluations():
    y = np.concatenate([drawn(0, 300, 2) - 3, drawn(1, 300, 2) + 3]).astype(np.float32)
    density, _ = jflow.fit(
        flows.ot_flow(2, 16), y, key=0, steps=200, learning_rate=1e-2, progress=False
    )
    log_p, told = density.flow.apply(density.variables, y, mutable=["solver"])
    spent = [int(a) for path, a in jax.tree.leaves_with_path(told) if "evaluations" in str(path)]
    assert np.mean(log_p) > -3.9  # of the mixture -3.53, of one normal density -4.7
    assert spent[0] < 150


def test_bad_arguments(made):
    *_, x, c = made
    with pytest.raises(ValueError, match="as many numbers as x, 3; asked were 4"):
        CONFIG(4).init(jax.random.key(0), x, c)
    with pytest.raises(ValueError, match="rank must be"):
        nets.Potential(rank=0)
    for options in (
        {"net": nets.MLP((4,))}, {"net": CONFIG, "trace": jf.Hutchinson()},
        {"net": CONFIG, "frequencies": 2},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"hjb needs net=nets\.Potential"):
            jb.Continuous(hjb=0.1, **options)
    with pytest.raises(ValueError, match=r"nets\.Potential is of vectors, event_ndim=1; got 3"):
        jb.Continuous(CONFIG, event_ndim=3)
    with pytest.raises(ValueError, match="hjb must be a number at least 0"):
        jb.Continuous(CONFIG, hjb=-1.0)
    with pytest.raises(ValueError, match="features must be"):
        flows.ot_flow(0)
