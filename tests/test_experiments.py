"""Every experiment runs: a few steps, and all of its files."""

import dataclasses
import json
from importlib import import_module

import jax
import numpy as np
import pytest

import jflow
from experiments import densities, train
from experiments.baselines import fit_baselines
from jflow import data

# Sizes that make each experiment's model small without changing its shape.
SMALL = {
    "digits_glow": {"steps": 1, "hidden": 4, "checkerboards": 1},
    "digits_residual_flow": {"layers": 1, "hidden": 4},
    "mnist_glow": {"steps": 1, "hidden": 4},
    "mnist_real_nvp": {"hidden": 4, "blocks": 1},
    "mnist_residual_flow": {"layers": 1, "hidden": 4},
}
FILES = {
    "config.json", "metrics.jsonl", "metrics.csv", "density", "samples.png",
    "interpolations.png", "curve.png", "result.json",
}  # fmt: skip


@pytest.fixture
def tiny_mnist(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5200, 28, 28), dtype=np.uint8)
    labels = np.zeros(5200, int)
    np.savez(
        tmp_path / "mnist.npz",
        x_train=images[:5150], y_train=labels[:5150], x_test=images[5150:], y_test=labels[5150:],
    )  # fmt: skip
    return str(tmp_path / "mnist.npz")


def test_every_experiment_is_tested():
    assert set(train.EXPERIMENTS) == set(SMALL)


@pytest.mark.parametrize(
    "name", ["digits_glow", *[pytest.param(n, marks=pytest.mark.slow) for n in list(SMALL)[1:]]]
)
def test_runs_and_writes_its_files(name, tmp_path, tiny_mnist):
    config = import_module(f"experiments.{name}").CONFIG
    config = dataclasses.replace(
        config,
        arguments={**config.arguments, **SMALL[name]},
        dataset="digits" if name.startswith("digits") else tiny_mnist,
        steps=2, evaluate_every=1, batch_size=32, test_samples=1, baselines=False,
    )  # fmt: skip
    result = train.run(config, tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    assert np.isfinite(result["test_bits_per_dim"])
    assert set(result) >= {"test_bits_per_dim", "standard_error", "baselines", "seconds"}
    density = jflow.load(tmp_path / "run" / "density")
    assert density.flow.values == (17 if name.startswith("digits") else 256)


def test_baselines_are_scored_as_the_flow_is():
    splits = data.digits()
    few = data.Splits(
        splits.train.take(slice(200)), splits.validation.take(slice(50)),
        splits.test.take(slice(50)), values=17,
    )  # fmt: skip
    baselines = fit_baselines(few, samples=1)
    assert set(baselines) == {"gaussian_mixture", "kernel_density"}
    assert all(2 < bits < 5 for bits in baselines.values())


def test_densities(tmp_path):
    config = densities.Config(
        densities=("banana", "checkerboard"), recipes=("real_nvp",), steps=2, batch_size=16,
        train_samples=64, test_samples=32, directory=tmp_path,
    )  # fmt: skip
    results = densities.run(config)
    assert results.keys() == {"banana", "checkerboard"}
    assert all(np.isfinite(r["real_nvp"]).all() for r in results.values())
    assert {p.name for p in tmp_path.iterdir()} == {
        "banana.png", "checkerboard.png", "results.json",
    }  # fmt: skip


def test_divergence_of_a_density_from_itself():
    density = data.toy("banana")
    assert densities.divergence(density, density, jax.random.key(0), 100) == (0, 0)


def test_unknown_experiment(monkeypatch):
    monkeypatch.setattr(train.sys, "argv", ["train", "nothing"])
    with pytest.raises(SystemExit, match=r"NAME: digits_glow, .*mnist_residual_flow"):
        train.main()


def test_command_line(monkeypatch, tmp_path):
    seen = {}

    def run(config, directory):
        seen.update(config=config, directory=directory)
        return {"test_bits_per_dim": 2.0, "standard_error": 0.1, "baselines": {}, "seconds": 1.0}

    monkeypatch.setattr(train, "run", run)
    arguments = ["train", "mnist_glow", "--steps", "7", "--dataset", "a.npz", "--directory", "x"]
    monkeypatch.setattr(train.sys, "argv", arguments)
    train.main()
    assert (seen["config"].steps, seen["config"].dataset) == (7, "a.npz")
    assert str(seen["directory"]) == "x"
