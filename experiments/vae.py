"""A flow as the posterior of a variational autoencoder: what it gains over a diagonal normal.

python -m experiments.vae [--dataset mnist.npz] [--posteriors diagonal planar iaf] [--steps 5000]

Binarised images y, a code z with a standard normal prior, a decoder p(y|z), and a posterior q(z|y)
that is a normal with a mean and a diagonal covariance from y, followed by a flow that sees y, too
(Rezende and Mohamed, 2015, https://arxiv.org/abs/1505.05770; Kingma et al., 2016,
https://arxiv.org/abs/1606.04934). Printed are, in nats over test images with standard errors, the
evidence bound E_q[log p(y, z) - log q(z|y)], its gain over the first posterior's (image by image),
and the tighter bound log E_q[p/q] of many codes (Burda et al., 2016).
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jax import Array

import jflow
from jflow import bijectors as jb
from jflow import data, flows, train

Posterior = Literal["diagonal", "planar", "iaf"]


@dataclass(frozen=True)
class Config:
    """What decides the results.

    Attributes:
      dataset: "digits" (of scikit-learn, 8x8), or a path of an .npz of images such as MNIST's.
      posteriors: of these three; gains are over the first.
      code: how many numbers describe an image.
      features: what the posterior is told of an image, as many numbers.
      hidden: widths of encoder and decoder.
      layers: of planar flows and IAF, as in `posterior`.
      seeds: of parameters, order and noise, one after the other.
      steps: parameter updates; the best in validation count.
      batch_size: images for each.
      learning_rate: of Adam, at first; it falls to 0 by a cosine.
      draws: of codes for each test image.
      directory: of results.json.
    """

    dataset: str = "digits"
    posteriors: tuple[Posterior, ...] = ("diagonal", "planar", "iaf")
    code: int = 8
    features: int = 64
    hidden: tuple[int, ...] = (256, 256)
    layers: int = 4
    seeds: int = 1
    steps: int = 5_000
    batch_size: int = 128
    learning_rate: float = 1e-3
    draws: int = 64
    directory: Path = Path("runs/vae")


def posterior(kind: Posterior, config: Config) -> jflow.Flow:
    """q(z | features): "diagonal", "planar" (four times as many layers) or "iaf"."""
    given = {"context_shape": config.features, "base": jflow.ConditionalGaussian(())}
    bijectors: dict[Posterior, jb.Bijector] = {
        "diagonal": jb.Reverse(),  # which a normal with a diagonal covariance does not notice
        "planar": jb.Repeat(jb.Planar(), 4 * config.layers),
        "iaf": flows.iaf(config.code, config.layers, context_shape=config.features).bijector,
    }
    return jflow.Flow(bijectors[kind], (config.code,), standardize_context=False, **given)


def _network(widths: tuple[int, ...]) -> nn.Module:
    layers: list[Any] = [nn.Dense(widths[0], dtype=jnp.float32)]
    for width in widths[1:]:
        layers += [nn.silu, nn.Dense(width, dtype=jnp.float32)]
    return nn.Sequential(layers)


class Autoencoder(nn.Module):
    """Encoder, posterior and decoder."""

    posterior: jflow.Flow
    pixels: int
    features: int
    hidden: tuple[int, ...]

    def setup(self) -> None:
        """The two networks."""
        self.encoder = _network((*self.hidden, self.features))
        self.decoder = _network((*self.hidden[::-1], self.pixels))

    def __call__(self, y: Array, key: Array) -> Array:
        """log p(y, z) - log q(z|y) of one code z of each image, in nats: (n, pixels) to (n,)."""
        y = y.astype(jnp.float32)
        z, log_q = self.posterior.sample_and_log_prob(key, y.shape[:1], self.encoder(2 * y - 1))
        log_prior = jnp.sum(jax.scipy.stats.norm.logpdf(z), axis=-1)
        logits = self.decoder(z)
        log_likelihood = jnp.sum(y * logits - jax.nn.softplus(logits), axis=-1)
        return log_likelihood.astype(log_q.dtype) + log_prior - log_q


@dataclass(frozen=True)
class EvidenceBound(train.Objective):
    """The negative evidence bound of binary images, in nats.

    Attributes:
      model: with its posterior.
    """

    model: Autoencoder
    unit = "negative_bound"

    def init(self, key: Array, batch: Any) -> Any:
        """Variables of all parts."""
        return self.model.init(key, batch, key)

    def losses(self, variables: Any, batch: Any, key: Array, *, training: bool) -> tuple[Any, Any]:
        """See `Objective.losses`."""
        return -self.model.apply(variables, batch, key), {}  # type: ignore[operator]


def load(dataset: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training, validation and test images, (n, pixels) of 0 and 1, drawn once by grey level."""
    splits = data.digits() if dataset == "digits" else data.npz(dataset)
    rng = np.random.default_rng(seed)

    def binary(images: np.ndarray) -> np.ndarray:
        flat = images.reshape(len(images), -1) / (splits.values - 1)
        return (rng.random(flat.shape) < flat).astype(np.float32)

    return binary(splits.train.y), binary(splits.validation.y), binary(splits.test.y)


@partial(jax.jit, static_argnums=(0, 4))
def _bounds(model: Autoencoder, variables: Any, y: Array, key: Array, draws: int) -> Any:
    """Both bounds of each image, (n,), from `draws` codes one after the other."""
    one = lambda key: model.apply(variables, y, key)  # noqa: E731
    found = jax.lax.map(one, jax.random.split(key, draws))
    return jnp.mean(found, 0), jax.nn.logsumexp(found, 0) - jnp.log(draws)


def fit(
    config: Config, kind: Posterior, seed: int, parts: tuple[np.ndarray, ...]
) -> list[np.ndarray]:
    """Bounds of the test images, as `_bounds`, after a fit."""
    model = Autoencoder(posterior(kind, config), parts[0].shape[1], config.features, config.hidden)
    objective = EvidenceBound(model)
    rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    variables, _ = train.train(
        objective, train.Arrays(parts[0], config.batch_size), key=seed, steps=config.steps,
        step=train.gradient_step(objective, optax.adam(rate)),
        validation=train.Arrays(parts[1], config.batch_size),
        evaluate_every=max(1, config.steps // 20),
    )  # fmt: skip
    pieces = np.array_split(parts[2], max(1, len(parts[2]) // 500))
    found = [_bounds(model, variables, y, jax.random.key(seed + 1), config.draws) for y in pieces]
    return [np.concatenate(bounds) for bounds in zip(*found, strict=True)]


def run(config: Config) -> dict[str, Any]:
    """Fits all posteriors with all seeds; prints a table, and writes results.json."""
    config.directory.mkdir(parents=True, exist_ok=True)
    parts, results, first = load(config.dataset), {}, np.zeros(())
    print("| posterior | bound | above the first | bound by many codes |\n|---|---|---|---|")
    for kind in config.posteriors:
        each = [fit(config, kind, seed, parts) for seed in range(config.seeds)]
        one, many = np.mean(each, axis=0)
        first = one if kind == config.posteriors[0] else first
        columns = {"bound": one, "gain": one - first, "many": many}
        found = {n: (float(v.mean()), float(v.std() / len(v) ** 0.5)) for n, v in columns.items()}
        found["by_seed"] = [float(one.mean()) for one, _ in each]  # type: ignore[assignment]
        results[kind] = found
        cells = (f"{found[n][0]:.2f} +- {found[n][1]:.2f}" for n in columns)
        print(f"| {kind} | " + " | ".join(cells) + " |")
        (config.directory / "results.json").write_text(json.dumps(results, indent=2))
    return results


if __name__ == "__main__":
    run(tyro.cli(Config, description=__doc__))
