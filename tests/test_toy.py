"""Toy densities: mass one, samples that follow them, gradients, dtypes, errors."""

import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jflow import data
from jflow.data import TOY_NAMES, Checkerboard, ToyDensity, toy

SMOOTH = [name for name in TOY_NAMES if name != "checkerboard"]
FAR = np.asarray([[50.0, 50], [-50, 50], [50, -50], [-50, -50], [0, 50], [-50, 0], [0, 0]])
each = pytest.mark.parametrize("name", TOY_NAMES)
each_smooth = pytest.mark.parametrize("name", SMOOTH)


N = 20_000
# Midpoints of cells of width 0.1 that cover [-7, 7]^2.
LINE = (np.arange(140) - 69.5) / 10
GRID = np.stack(np.meshgrid(LINE, LINE, indexing="ij"), axis=-1).reshape(-1, 2)


@cache
def samples(name):
    y = toy(name).sample(jax.random.key(1), N)
    return np.asarray(y), np.asarray(toy(name).log_prob(y))


@cache
def on_grid(name, stretch=lambda points: points):
    # Padded to the size of the samples, for which log_prob is compiled already.
    points = np.concatenate([stretch(GRID), np.zeros((N - len(GRID), 2))])
    return np.asarray(toy(name).log_prob(points))[: len(GRID)]


def widened(points):
    return np.stack([points[:, 0], np.sinh(points[:, 1])], axis=-1)


@each
def test_mass_is_one(name):
    if name == "funnel":  # its mouth is wide: y2 = sinh u
        mass = np.exp(on_grid(name, widened)) * np.cosh(GRID[:, 1])
    else:
        mass = np.exp(on_grid(name))
    assert mass.sum() * 0.01 == pytest.approx(1, abs=1e-4)


def test_checkerboard_is_exact():
    centres = np.stack(np.meshgrid(*2 * [np.arange(-4.75, 5, 0.5)]), axis=-1)
    log_prob = np.asarray(Checkerboard().log_prob(centres))
    assert np.isfinite(log_prob).sum() * 0.25 == 32
    np.testing.assert_array_equal(log_prob[np.isfinite(log_prob)], -math.log(32))
    corners = np.asarray([[-4.0, -4], [0, 0], [-2, -4], [4, 4], [np.nan, 0], [np.inf, 0]])
    expected = [-math.log(32), -math.log(32), -np.inf, -np.inf, np.nan, -np.inf]
    np.testing.assert_array_equal(Checkerboard().log_prob(corners), expected)


@each
def test_samples_follow_the_density(name):
    edges = np.linspace(-7, 7, 29)
    counts = np.histogram2d(*samples(name)[0].T, bins=[edges, edges])[0].ravel()
    cells = np.exp(on_grid(name)).reshape(28, 5, 28, 5).sum(axis=(1, 3))
    expected = N * 0.01 * cells.ravel()
    assert counts[expected == 0].sum() == 0
    often = expected > 5
    counts = np.append(counts[often], N - counts[often].sum())
    expected = np.append(expected[often], max(N - expected[often].sum(), 1e-3))
    chi2, freedom = np.sum((counts - expected) ** 2 / expected), len(counts) - 1
    assert abs(chi2 - freedom) < 5 * math.sqrt(2 * freedom)


@each
def test_mean_log_prob_is_the_negative_entropy(name):
    if name == "funnel":
        negative_entropy = -math.log(2 * math.pi * math.e)
    elif name == "checkerboard":
        negative_entropy = -math.log(32)
    else:
        negative_entropy = np.sum(np.exp(on_grid(name)) * on_grid(name)) * 0.01
    log_prob = samples(name)[1]
    error = log_prob.std() / math.sqrt(N)
    assert abs(log_prob.mean() - negative_entropy) <= 5 * error + 1e-9


@each_smooth
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_and_gradients_are_finite(name, dtype):
    density = toy(name)
    y = np.concatenate([samples(name)[0][:20], FAR]).astype(dtype)

    @jax.jit
    def run(y):
        log_prob, pull = jax.vjp(density.log_prob, y)
        return log_prob, pull(jnp.ones_like(log_prob))[0]

    log_prob, gradients = jax.device_get(run(y))
    assert log_prob.dtype == gradients.dtype == dtype
    assert np.isfinite(log_prob).all()
    assert np.isfinite(gradients).all()
    assert log_prob[-7] < -1000  # at (50, 50)
    np.testing.assert_allclose(log_prob[:20], samples(name)[1][:20], atol=1e-3)
    if dtype == "float64":
        step = np.concatenate([1e-6 * np.random.default_rng(0).normal(size=(20, 2)), 0 * FAR])
        above, below = run(y + step)[0], run(y - step)[0]
        change = np.asarray(above) - np.asarray(below)
        np.testing.assert_allclose(change, 2 * np.sum(gradients * step, axis=-1), atol=1e-8)


@each
def test_jit_vmap_and_shapes(name):
    density = toy(name)

    @jax.jit
    def outer(key):
        y = density.sample(key, 6)
        batch = density.log_prob(y.reshape(3, 2, 2))
        return y, density.log_prob(y), jax.vmap(density.log_prob)(y), batch, density.log_prob(y[0])

    y, inside, mapped, batch, first = jax.device_get(outer(jax.random.key(5)))
    assert y.dtype == np.float64
    log_prob = density.log_prob(np.concatenate([y, [[np.nan, 0.0]]]))
    assert np.isnan(log_prob[6])
    assert (batch.shape, first.shape) == ((3, 2), ())
    for again in (inside, mapped, batch.ravel()):
        np.testing.assert_allclose(again, log_prob[:6], rtol=1e-12)
    np.testing.assert_allclose(first, log_prob[0], rtol=1e-12)
    np.testing.assert_allclose(density.sample(jax.random.key(5), 6), y, rtol=1e-12)


@each
def test_range(name):
    largest = np.abs(samples(name)[0]).max(axis=-1)
    assert 2.5 < np.quantile(largest, 0.98) < 5


@pytest.mark.parametrize("name", ["two_moons", "two_spirals", "swiss_roll"])
def test_quadrature_has_converged(name):
    density = toy(name)
    finer = type("Finer", (type(density),), {"_count": lambda self: 3 * density._count()})()
    y = np.random.default_rng(7).uniform(-5, 5, (200, 2))
    np.testing.assert_allclose(density.log_prob(y), finer.log_prob(y), rtol=0, atol=1e-7)


def test_small_radii():
    # A wide ring reflects: p(y) = p(r) / (2 pi r) stays the density of what is drawn.
    rings = data.Rings(std=2.0)
    r = np.abs(np.linalg.norm(rings.sample(jax.random.key(8), 20_000), axis=-1))
    line = (np.arange(2000) + 0.5) / 200
    y = np.stack([line, np.zeros_like(line)], axis=-1)
    radial = np.exp(rings.log_prob(y)) * 2 * math.pi * line / 200
    assert radial.sum() == pytest.approx(1, abs=1e-3)
    inside = radial[:200].sum()
    assert abs((r < 1).mean() - inside) < 5 * math.sqrt(inside * (1 - inside) / 20_000)


def test_no_points():
    assert data.TwoMoons().log_prob(np.zeros((3, 0, 2))).shape == (3, 0)
    assert data.TwoMoons().sample(jax.random.key(0), 0).shape == (0, 2)


def test_names_and_errors():
    assert len(set(map(toy, TOY_NAMES))) == len(TOY_NAMES)  # hashable, and different
    assert all(isinstance(toy(name), ToyDensity) for name in TOY_NAMES)
    assert all(type(toy(name)).__name__ in data.__all__ for name in TOY_NAMES)
    with pytest.raises(ValueError, match="no toy density 'moon'; there are eight_gaussians, "):
        toy("moon")
    with pytest.raises(ValueError, match=r"TwoMoons: std must be positive and finite; got 0.0"):
        data.TwoMoons(std=0.0)
    with pytest.raises(ValueError, match=r"y must have shape \(..., 2\), .*; got \(2, 3\)"):
        data.Rings().log_prob(np.zeros((2, 3)))
