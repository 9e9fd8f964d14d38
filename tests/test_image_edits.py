"""Images completed, cleaned and enlarged, against the posteriors of a normal law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("PIL")

import jflow
from jflow import bijectors as jb
from jflow import transformers as jt
from jflow.data import ImageDensity, Restored
from jflow.data.restoring import as_normal, continuous

K, SHAPE, SPREAD = 200, (2, 2, 1), 0.1
# Of levels / K: mean 1/2, and this covariance.
MIX = np.array([[1.0, 0.8, 0.5, 0.3], [0.0, 0.6, 0.4, 0.2], [0.0, 0.0, 0.7, 0.5], [0, 0, 0, 0.6]])
COVARIANCE = SPREAD**2 * MIX.T @ MIX


@pytest.fixture(scope="module")
def density():
    """x = 1/2 + SPREAD z MIX, of standard normal z."""
    mix = jb.Linear(np.linalg.inv(MIX), event_ndim=3, axes="pixels")
    units = jb.Elementwise(jt.FixedAffine(0.5, SPREAD), event_ndim=3)
    flow = jflow.Flow(jb.Chain((jb.Dequantize(K, event_ndim=3), units, mix)), SHAPE)
    found = jflow.Density(flow, jflow.init(flow, 0, np.full((4, *SHAPE), 100)))
    return ImageDensity(found, correction=None)


@pytest.fixture(scope="module")
def images(density):
    return density.sample(6, key=3)


def given(known, values):
    """Mean and covariance of the other pixels, in levels, given what known ones are."""
    covariance, mean = K**2 * COVARIANCE, K / 2 - 0.5
    other = [i for i in range(4) if i not in known]
    gain = covariance[np.ix_(other, known)] @ np.linalg.inv(covariance[np.ix_(known, known)])
    spread = covariance[np.ix_(other, other)] - gain @ covariance[np.ix_(known, other)]
    return other, mean + (values - mean) @ gain.T, spread


def test_the_law_of_the_fixture(density):
    drawn = density.sample(4_000, key=1).reshape(-1, 4) / K
    np.testing.assert_allclose(np.cov(drawn, rowvar=False), COVARIANCE, atol=0.002)


EFFORT = {"particles": 64, "warm": 20, "steps": 60}


def test_missing_pixels_follow_the_posterior(density, images):
    missing = np.array([[True, False], [False, True]])
    found = density.inpaint(images, missing, key=1, **EFFORT)
    assert isinstance(found, Restored)
    other, mean, spread = given([1, 2], images.reshape(-1, 4)[:, [1, 2]])
    np.testing.assert_allclose(found.mean.reshape(-1, 4)[:, other], mean, atol=1.0)
    draws = found.draws.reshape(len(images), 64, 4)
    assert (draws[:, :, [1, 2]] == images.reshape(-1, 1, 4)[:, :, [1, 2]]).all()
    around = (draws[..., other] - mean[:, None]).reshape(-1, 2)
    np.testing.assert_allclose(np.cov(around, rowvar=False), spread, rtol=0.3, atol=10)
    assert (found.accepted > 0.5).all()
    assert draws.dtype == images.dtype
    again = density.inpaint(images, missing[None, ..., None], key=1, **EFFORT)
    np.testing.assert_array_equal(again.draws, found.draws)


def test_draws_start_near_the_posterior(density, images):
    missing = np.array([[True, False], [False, True]])
    found = density.inpaint(images, missing, particles=256, warm=1, steps=1)
    other, mean, _ = given([1, 2], images.reshape(-1, 4)[:, [1, 2]])
    assert np.abs(found.mean.reshape(-1, 4)[:, other] - mean).mean() < 1.5


def test_what_is_at_missing_pixels_does_not_matter(density, images):
    missing = np.array([[True, False], [False, False]])
    given = np.where(missing[None, ..., None], 199, images)
    effort = {"particles": 4, "warm": 5, "steps": 5}
    a, b = (density.inpaint(y, missing, **effort) for y in (images, given))
    np.testing.assert_array_equal(a.draws, b.draws)


def test_ascent_finds_the_mode(density, images):
    missing = np.array([[True, False], [False, True]])
    found = density.inpaint(images, missing, method="ascent", steps=200, particles=2)
    other, mean, _ = given([1, 2], images.reshape(-1, 4)[:, [1, 2]])
    modes = found.draws.reshape(len(images), 2, 4)[..., other]
    # Of the density of logits, which the slope of the logistic function moves a little.
    assert np.abs(modes - mean[:, None]).mean() < 4


def test_noise_is_taken_away(density, images):
    noise = 12.0
    told = images + noise * np.random.default_rng(0).normal(size=images.shape)
    found = density.denoise(told, noise, key=1, **EFFORT)
    covariance, mean = K**2 * COVARIANCE, K / 2 - 0.5
    gain = covariance @ np.linalg.inv(covariance + noise**2 * np.eye(4))
    exact = mean + (told.reshape(-1, 4) - mean) @ gain.T
    np.testing.assert_allclose(found.mean.reshape(-1, 4), exact, atol=1.2)
    error = lambda a: np.square(a.reshape(-1, 4) - images.reshape(-1, 4)).mean()  # noqa: E731
    assert error(found.mean) < error(told)


def test_small_images_are_enlarged(density, images):
    small = images.reshape(-1, 1, 4, 1).mean(axis=2, keepdims=True)
    found = density.enlarge(small, 2, noise=1.0, key=1, **EFFORT)
    covariance, mean = K**2 * COVARIANCE, K / 2 - 0.5
    means = np.full((1, 4), 1 / 4)
    gain = covariance @ means.T / (means @ covariance @ means.T + 1)
    exact = mean + (small.reshape(-1, 1) - mean) @ gain.T
    np.testing.assert_allclose(found.mean.reshape(-1, 4), exact, atol=1.5)
    of_draws = found.draws.reshape(len(images), -1, 4).mean(axis=2)
    assert np.abs(of_draws - small.reshape(-1, 1)).mean() < 2


def test_between_two_images_along_a_line(density, images):
    first, last = images[0], images[1]
    a, b = density.latents(images[:2])
    between = density.interpolate(first, last, 3, kind="linear")
    np.testing.assert_array_equal(between[1], density.from_latents((a + b)[None] / 2)[0])
    np.testing.assert_array_equal(between[[0, 2]], images[:2])
    with pytest.raises(ValueError, match='kind must be "slerp" or "linear"'):
        density.interpolate(first, last, kind="cubic")


def test_without_noise_the_density_is_that_of_numbers(density):
    numbers, x = continuous(density.density)[0], np.random.default_rng(0).random((5, *SHAPE))
    far = x.reshape(-1, 4) - 0.5
    expected = -np.einsum("ni,ij,nj->n", far, np.linalg.inv(COVARIANCE), far) / 2
    expected = expected - np.linalg.slogdet(2 * np.pi * COVARIANCE)[1] / 2
    np.testing.assert_allclose(numbers.log_prob(x), expected, rtol=1e-6)
    plain = jflow.Flow(jb.Elementwise(jt.FixedAffine(), event_ndim=3), SHAPE)
    with pytest.raises(ValueError, match="must begin with Dequantize"):
        continuous(jflow.Density(plain, {}))


def test_a_normal_law_of_few_images_can_be_inverted():
    x = np.random.default_rng(0).uniform(0.2, 0.8, size=(3, 4, 4, 1))
    law = as_normal(x)
    assert np.isfinite(np.asarray(law.precision)).all()
    assert law.precision.shape == (16, 16)


BAD = [
    (lambda d, y: d.inpaint(y, np.ones((3, 2), bool)), r"missing must be \(2, 2\)"),
    (lambda d, y: d.inpaint(y, np.full((2, 2), 0.5)), "True where a pixel is missing"),
    (lambda d, y: d.inpaint(y, np.ones((2, 2)), method="gibbs"), "method must be"),
    (lambda d, y: d.inpaint(y[:, :1], np.ones((1, 2))), r"missing must be|images must be"),
    (lambda d, y: d.denoise(y, 0.0), "noise must be a positive number"),
    (lambda d, y: d.denoise(y[:, :1], 1.0), r"denoise: images must be \(N, 2, 2, 1\)"),
    (lambda d, y: d.denoise(np.where(y > 0, np.nan, 0.0), 1.0), "images hold NaN"),
    (lambda d, y: d.enlarge(y, 3), "factor must divide height and width"),
    (lambda d, y: d.enlarge(y, 2), r"enlarge: images must be \(N, 1, 1, 1\)"),
    (lambda d, y: d.denoise(y, 1.0, particles=0), "particles"),
]


@pytest.mark.parametrize(("call", "match"), BAD, ids=range(len(BAD)))
def test_what_does_not_fit_is_refused(call, match, density, images):
    with pytest.raises(ValueError, match=match):
        call(density, images)


def test_large_images_are_refused():
    shape = (64, 64, 3)
    units = jb.Elementwise(jt.FixedAffine(0.5, 0.1), event_ndim=3)
    flow = jflow.Flow(jb.Chain((jb.Dequantize(K, event_ndim=3), units)), shape)
    large = ImageDensity(jflow.Density(flow, {}), correction=None)
    with pytest.raises(ValueError, match=r"have 12,288 numbers; .* 4,096 are the most"):
        large.denoise(np.zeros((1, *shape)), 1.0)


def test_in_float32(density, images):
    with jax.enable_x64(False):
        narrow = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), density.density)
        found = ImageDensity(narrow, correction=None).inpaint(
            images, np.array([[True, False], [False, False]]), particles=4, warm=5, steps=5
        )
    assert np.isfinite(found.mean).all()
