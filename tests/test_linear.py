"""Linear flows: what each matrix is, both ways of applying it, and what it costs to be told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

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


def started(kind, size=4, **options):
    layer = jb.Linear(kind, **options)
    variables = perturbed({"params": {}, **jflow.init(layer, KEY, jnp.ones((2, size)))}, 0.3)
    return layer, {name: value for name, value in variables.items() if value}


def matrix_of(layer, variables, size=4):
    return np.asarray(layer.apply(variables, jnp.eye(size), method="inverse"))


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("size", [1, 2, 5, 12, 64, 65])
def test_triangular_systems(size, lower):
    kernel = 0.3 * jax.random.normal(KEY, (size, size))
    triangle = jnp.tril(kernel, -1) if lower else jnp.triu(kernel, 1)
    triangle += jnp.diag(1 + jnp.abs(jnp.diagonal(kernel)))
    x = jax.random.normal(jax.random.key(1), (3, size))
    want = x @ np.linalg.inv(triangle)
    np.testing.assert_allclose(solve_rows(triangle, x, lower=lower), want, rtol=1e-10, atol=1e-12)
    single = triangle.astype(jnp.float32)
    found = np.asarray(triangular_inverse(single), np.float64)
    error = found - np.linalg.inv(np.asarray(single, np.float64))
    assert np.max(np.abs(error)) < 1e-5
    grads = [
        jax.grad(lambda t, f=f: jnp.sum(jnp.sin(f(t))))(triangle)
        for f in (triangular_inverse, jnp.linalg.inv)
    ]
    np.testing.assert_allclose(*grads, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("matrix", "determinant"), [(DIAGONAL, -20.0), (LOWER, 8.0)])
def test_determinants_of_problem_16_4(matrix, determinant):
    y = jax.random.normal(KEY, (3, 4))
    x, log_det = jb.Linear(matrix).apply({}, y, method="inverse_and_log_det")
    np.testing.assert_allclose(x, y @ matrix, atol=1e-12)
    np.testing.assert_allclose(log_det, np.log(abs(determinant)), atol=1e-12)
    kind = "diagonal" if determinant < 0 else "lower"
    params = {"log_scale": jnp.log(jnp.abs(jnp.diag(matrix))), "kernel": jnp.asarray(matrix)}
    if kind == "diagonal":
        del params["kernel"]
    x, log_det = jb.Linear(kind).apply({"params": params}, y, method="inverse_and_log_det")
    np.testing.assert_allclose(x, y @ np.abs(matrix) if determinant < 0 else y @ matrix, atol=1e-12)
    np.testing.assert_allclose(log_det, np.log(abs(determinant)), atol=1e-12)


@pytest.mark.parametrize("kind", FAMILIES)
def test_many_rows_and_few_give_the_same(kind):
    layer, variables = started(kind)
    matrix = matrix_of(layer, variables)
    y = jax.random.normal(KEY, (9, 4))
    for method, wanted in (("inverse", y @ matrix), ("forward", y @ np.linalg.inv(matrix))):
        many = layer.apply(variables, y, method=method)
        few = layer.apply(variables, y[:2], method=method)
        np.testing.assert_allclose(many, wanted, atol=1e-10)
        np.testing.assert_allclose(few, wanted[:2], atol=1e-10)


@pytest.mark.parametrize("kind", ["householder", "cayley", "expm", "dct", "haar"])
def test_orthogonal_kinds_are_orthogonal(kind):
    matrix = matrix_of(*started(kind))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(4), atol=1e-12)
    if kind in ("cayley", "expm"):
        assert np.linalg.det(matrix) == pytest.approx(1)


def test_fixed_transforms_are_those_of_their_names():
    x = jax.random.normal(KEY, (3, 8))
    dct = jb.Linear("dct").apply({}, x, method="inverse")
    np.testing.assert_allclose(dct, scipy.fft.dct(np.asarray(x), norm="ortho"), atol=1e-12)
    haar = jb.Linear("haar").apply({}, jnp.arange(4.0), method="inverse")
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
    vectors = jax.random.normal(KEY, (count, 6))
    wanted = np.eye(6)
    for v in np.asarray(vectors):
        wanted = wanted @ (np.eye(6) - 2 * np.outer(v, v) / (v @ v))
    np.testing.assert_allclose(reflect(vectors, jnp.eye(6)), wanted, atol=1e-12)
    np.testing.assert_allclose(reflect(vectors, jnp.eye(6), inverse=True), wanted.T, atol=1e-12)


def test_a_zero_vector_reflects_nothing_and_has_finite_gradients():
    run = lambda v: jnp.sum(reflect(v, jnp.ones((1, 3))) ** 3)  # noqa: E731
    np.testing.assert_allclose(reflect(jnp.zeros((1, 3)), jnp.eye(3)), np.eye(3))
    assert np.isfinite(jax.grad(run)(jnp.zeros((1, 3)))).all()


@pytest.mark.parametrize("kind", ["dense", "plu", "low_rank"])
def test_condition_number_on_request(kind):
    layer, variables = started(kind)
    y = jnp.ones((2, 4))
    _, told = layer.apply(variables, y, method="inverse", mutable=["solver"])
    wanted = np.linalg.cond(matrix_of(layer, variables))
    assert float(told["solver"]["condition"]) == pytest.approx(wanted, rel=1e-6)


def test_condition_numbers_of_a_repeat():
    layer = jb.Repeat(jb.Linear(), 3)
    variables = jflow.init(layer, KEY, jnp.ones((2, 4)))
    _, told = layer.apply(variables, jnp.ones((2, 4)), method="inverse", mutable=["solver"])
    np.testing.assert_allclose(told["solver"]["bijector"]["condition"], np.ones(3), rtol=1e-6)


@pytest.mark.parametrize("kind", ["diagonal", "lower", "plu", "qr", "householder", "butterfly"])
def test_large_matrices_in_float32(kind):
    size = 200
    layer = jb.Linear(kind)
    y = jax.random.normal(KEY, (3, size), jnp.float32)
    variables = perturbed(jflow.init(layer, KEY, y), 0.01)
    x, log_det = layer.apply(variables, y, method="inverse_and_log_det")
    again, opposite = layer.apply(variables, x, method="forward_and_log_det")
    np.testing.assert_allclose(again, y, atol=1e-4)
    np.testing.assert_allclose(log_det, -opposite, rtol=1e-6)
    matrix = np.asarray(layer.apply(variables, jnp.eye(size, dtype=y.dtype), method="inverse"))
    np.testing.assert_allclose(log_det, np.linalg.slogdet(matrix.astype(float))[1], atol=1e-3)


@pytest.mark.parametrize(
    "layer", [jb.Planar(), jb.Sylvester(rank=2), jb.BlockAutoregressive(2), jb.ConvFlow(), jb.RAD()]
)
@pytest.mark.parametrize("method", ["inverse_and_log_det", "forward_and_log_det"])
def test_empty_batches_of_vectors(layer, method):
    variables = jflow.init(layer, KEY, jnp.ones((2, 3)))
    rngs = {"branch": KEY}
    x, log_det = layer.apply(variables, jnp.zeros((0, 3)), method=method, rngs=rngs)
    assert (x.shape, log_det.shape) == ((0, 3), (0,))


@pytest.mark.parametrize(
    "layer", [jb.Conv1x1("low_rank", axes="pixels"), jb.Conv1x1("circulant"), jb.WoodburyConv(1, 1)]
)
def test_empty_batches(layer):
    variables = jflow.init(layer, KEY, jnp.ones((2, 4, 4, 2)))
    x, log_det = layer.apply(variables, jnp.zeros((0, 4, 4, 2)), method="inverse_and_log_det")
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
        (lambda: jb.Linear(event_ndim=2), "event_ndim must be 1 or 3; got 2"),
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
