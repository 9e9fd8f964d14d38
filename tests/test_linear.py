"""Linear flows: what each matrix is, both ways of applying it, and what it costs to be told."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
from jax.scipy.linalg import solve_triangular

import jflow
from jflow import bijectors as jb
from jflow.bijectors.matrices import FAMILIES
from jflow.functional.orthogonal import reflect
from jflow.functional.triangular import solve_rows, triangular_inverse
from tests.harness import perturbed

KEY = jax.random.key(0)
# Problem 16.4 of the textbook: determinants -20 and 8.
DIAGONAL = np.diag([2.0, -5.0, 1.0, 2.0])
LOWER = np.asarray([[1.0, 0, 0, 0], [2, 4, 0, 0], [1, -1, 2, 0], [4, -2, -2, 1]])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@partial(jax.jit, static_argnums=(0, 1))
def run(layer, method, variables, y, rngs=None):
    return layer.apply(variables, y, method=method, rngs=rngs)


@cache
def started(kind, size=4, **options):
    layer = jb.Linear(kind, **options)
    variables = perturbed({"params": {}, **jflow.init(layer, KEY, np.ones((2, size)))}, 0.3)
    return layer, {name: value for name, value in variables.items() if value}


def matrix_of(layer, variables, size=4):
    return np.asarray(run(layer, "inverse", variables, np.eye(size)))


@partial(jax.jit, static_argnums=2)
def triangular(triangle, x, lower):
    """x over the triangle, its inverse in float32, and gradients of two inverses."""
    sines = lambda t, inverse: jnp.sum(jnp.sin(inverse(t)))  # noqa: E731
    grads = [jax.grad(sines)(triangle, f) for f in (triangular_inverse, jnp.linalg.inv)]
    single = triangular_inverse(triangle.astype(jnp.float32))
    return solve_rows(triangle, x, lower=lower), single, grads


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("size", [1, 2, 5, 12, 64, 65])
def test_triangular_systems(size, lower):
    kernel = 0.3 * normal(size, size)
    triangle = np.tril(kernel, -1) if lower else np.triu(kernel, 1)
    triangle += np.diag(1 + np.abs(np.diagonal(kernel)))
    x = normal(3, size, seed=1)
    solved, single_inverse, grads = triangular(triangle, x, lower)
    want = x @ np.linalg.inv(triangle)
    np.testing.assert_allclose(solved, want, rtol=1e-10, atol=1e-12)
    single = triangle.astype(np.float32)
    assert single_inverse.dtype == np.float32
    error = np.asarray(single_inverse, np.float64) - np.linalg.inv(single.astype(np.float64))
    assert np.max(np.abs(error)) < 1e-5
    np.testing.assert_allclose(*grads, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("matrix", "determinant"), [(DIAGONAL, -20.0), (LOWER, 8.0)])
def test_determinants_of_problem_16_4(matrix, determinant):
    y = normal(3, 4)
    x, log_det = run(jb.Linear(matrix), "inverse_and_log_det", {}, y)
    np.testing.assert_allclose(x, y @ matrix, atol=1e-12)
    np.testing.assert_allclose(log_det, np.log(abs(determinant)), atol=1e-12)
    kind = "diagonal" if determinant < 0 else "lower"
    params = {"log_scale": np.log(np.abs(np.diag(matrix))), "kernel": matrix}
    if kind == "diagonal":
        del params["kernel"]
    x, log_det = run(jb.Linear(kind), "inverse_and_log_det", {"params": params}, y)
    np.testing.assert_allclose(x, y @ np.abs(matrix) if determinant < 0 else y @ matrix, atol=1e-12)
    np.testing.assert_allclose(log_det, np.log(abs(determinant)), atol=1e-12)


@pytest.mark.parametrize("kind", FAMILIES)
def test_many_rows_and_few_give_the_same(kind):
    layer, variables = started(kind)
    matrix = matrix_of(layer, variables)
    y = normal(9, 4)

    @jax.jit
    def results(variables, y):
        apply = partial(layer.apply, variables)
        both = ("inverse", "forward")
        return [(apply(y, method=method), apply(y[:2], method=method)) for method in both]

    inverse, forward = results(variables, y)
    for (many, few), wanted in ((inverse, y @ matrix), (forward, y @ np.linalg.inv(matrix))):
        np.testing.assert_allclose(many, wanted, atol=1e-10)
        np.testing.assert_allclose(few, wanted[:2], atol=1e-10)


@pytest.mark.parametrize("kind", ["householder", "cayley", "expm", "dct", "haar"])
def test_orthogonal_kinds_are_orthogonal(kind):
    matrix = matrix_of(*started(kind))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(4), atol=1e-12)
    if kind in ("cayley", "expm"):
        assert np.linalg.det(matrix) == pytest.approx(1)


def test_fixed_transforms_are_those_of_their_names():
    x = normal(3, 8)
    dct = run(jb.Linear("dct"), "inverse", {}, x)
    np.testing.assert_allclose(dct, scipy.fft.dct(x, norm="ortho"), atol=1e-12)
    haar = run(jb.Linear("haar"), "inverse", {}, np.arange(4.0))
    np.testing.assert_allclose(haar, [3, -2, -(0.5**0.5), -(0.5**0.5)], atol=1e-12)


def test_a_circulant_matrix_has_equal_diagonals():
    matrix = matrix_of(*started("circulant", 5), 5)
    for i in range(5):
        np.testing.assert_allclose(np.roll(matrix[0], i), matrix[i], atol=1e-12)


def test_low_rank_differs_from_a_diagonal_by_that_rank():
    layer, variables = started("low_rank", 6, rank=2)
    params = variables["params"]
    update = matrix_of(layer, variables, 6) / np.exp(params["log_scale"]) - np.eye(6)
    assert np.linalg.matrix_rank(update, tol=1e-10) == 2
    assert np.linalg.svd(update + np.eye(6))[1].min() >= 1 - 1e-12


@pytest.mark.parametrize("count", [1, 5, 32, 70])
def test_reflections_in_blocks(count):
    vectors = normal(count, 6)
    wanted = np.eye(6)
    for v in vectors:
        wanted = wanted @ (np.eye(6) - 2 * np.outer(v, v) / (v @ v))
    there, back = jax.jit(lambda v: (reflect(v, jnp.eye(6)), reflect(v, jnp.eye(6), inverse=True)))(
        vectors
    )
    np.testing.assert_allclose(there, wanted, atol=1e-12)
    np.testing.assert_allclose(back, wanted.T, atol=1e-12)


def test_a_zero_vector_reflects_nothing_and_has_finite_gradients():
    cubes = lambda v: jnp.sum(reflect(v, jnp.ones((1, 3))) ** 3)  # noqa: E731
    reflected, gradient = jax.jit(lambda v: (reflect(v, jnp.eye(3)), jax.grad(cubes)(v)))(
        np.zeros((1, 3))
    )
    np.testing.assert_allclose(reflected, np.eye(3))
    assert np.isfinite(gradient).all()


@partial(jax.jit, static_argnums=0)
def told_by(layer, variables, y):
    return layer.apply(variables, y, method="inverse", mutable=["solver"])


@pytest.mark.parametrize("kind", ["dense", "plu", "low_rank"])
def test_condition_number_on_request(kind):
    layer, variables = started(kind)
    _, told = told_by(layer, variables, np.ones((2, 4)))
    wanted = np.linalg.cond(matrix_of(layer, variables))
    assert float(told["solver"]["condition"]) == pytest.approx(wanted, rel=1e-6)


def test_condition_numbers_of_a_repeat():
    layer = jb.Repeat(jb.Linear(), 3)
    variables = jflow.init(layer, KEY, np.ones((2, 4)))
    _, told = told_by(layer, variables, np.ones((2, 4)))
    np.testing.assert_allclose(told["solver"]["bijector"]["condition"], np.ones(3), rtol=1e-6)


@pytest.mark.parametrize("kind", ["diagonal", "lower", "plu", "qr", "householder", "butterfly"])
def test_large_matrices_in_float32(kind):
    size = 200
    layer = jb.Linear(kind)
    y = normal(3, size).astype(np.float32)
    variables = perturbed(jflow.init(layer, KEY, y), 0.01)
    x, log_det = run(layer, "inverse_and_log_det", variables, y)
    again, opposite = run(layer, "forward_and_log_det", variables, x)
    np.testing.assert_allclose(again, y, atol=1e-4)
    np.testing.assert_allclose(log_det, -opposite, rtol=1e-6)
    matrix = np.asarray(run(layer, "inverse", variables, np.eye(size, dtype=y.dtype)))
    np.testing.assert_allclose(log_det, np.linalg.slogdet(matrix.astype(float))[1], atol=1e-3)


@pytest.mark.parametrize(
    "layer", [jb.Planar(), jb.Sylvester(rank=2), jb.BlockAutoregressive(2), jb.ConvFlow(), jb.RAD()]
)
@pytest.mark.parametrize("method", ["inverse_and_log_det", "forward_and_log_det"])
def test_empty_batches_of_vectors(layer, method):
    variables = jflow.init(layer, KEY, np.ones((2, 3)))
    x, log_det = run(layer, method, variables, np.zeros((0, 3)), {"noise": KEY})
    assert (x.shape, log_det.shape) == ((0, 3), (0,))


@pytest.mark.parametrize(
    "layer", [jb.Conv1x1("low_rank", axes="pixels"), jb.Conv1x1("circulant"), jb.WoodburyConv(1, 1)]
)
def test_empty_batches(layer):
    variables = jflow.init(layer, KEY, np.ones((2, 4, 4, 2)))
    x, log_det = run(layer, "inverse_and_log_det", variables, np.zeros((0, 4, 4, 2)))
    assert (x.shape, log_det.shape) == ((0, 4, 4, 2), (0,))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: jb.Linear("lu"), "Linear: kind must be one of .* or a square matrix; got 'lu'"),
        (lambda: jb.Linear(((1.0, 2.0),)), r"or a matrix \(D, D\); got \(\(1.0, 2.0\),\)"),
        (lambda: jb.Linear(np.ones((2, 2))), "must be invertible; its condition number"),
        (lambda: jb.Linear("plu", rank=2), "rank is for kinds"),
        (lambda: jb.Linear("low_rank", rank=0), "rank must be a whole number, 1 or more; got 0"),
        (lambda: jb.Linear(None), r"kind must be one of .* or a matrix \(D, D\); got None"),
        (lambda: jb.Linear(event_ndim=0), "event_ndim must be a whole number, 1 or more; got 0"),
        (lambda: jb.Linear(np.eye(3), rank=2), "rank is for kinds .* got it with a matrix"),
        (lambda: jb.Linear(axes="pixels"), "'pixels' with event_ndim=3"),
        (lambda: jb.Linear(np.eye(2)).latent_shape((3,)), "the matrix is for 2 numbers; got 3"),
        (lambda: jb.Linear("haar").latent_shape((6,)), "'haar' needs a power of two; got 6"),
        (lambda: jb.Linear("low_rank", rank=4).latent_shape((3,)), "rank must be at most 3"),
        (lambda: jb.Conv1x1("qr").latent_shape((3,)), "Conv1x1: the event shape must be"),
        (lambda: jb.HaarSqueeze(3), "HaarSqueeze: factor must be 2"),
    ],
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("lower", [True, False])
def test_badly_conditioned_triangles_are_solved_as_by_substitution(lower):
    random, size = np.random.default_rng(0), 48
    triangle = np.tril(0.7 * random.standard_normal((size, size)), -1)
    triangle = triangle + np.diag(np.exp(0.3 * random.standard_normal(size)))
    triangle = np.float32(triangle if lower else triangle.T)
    y = np.float32(random.standard_normal((50, size)))
    x = np.float32(y.astype(float) @ triangle)
    exact = np.linalg.solve(triangle.T.astype(float), x.T.astype(float)).T
    substituted = solve_triangular(triangle.T, x.T, lower=not lower).T
    found = jax.jit(partial(solve_rows, lower=lower))(triangle, x)
    error = lambda y: np.abs(np.asarray(y) - exact).max()  # noqa: E731
    assert 1e-5 < error(substituted) < 1e-1
    assert error(found) < 2 * error(substituted)
