"""Every experiment runs: a few steps, and all of its files."""

import dataclasses
import json
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import jflow
from experiments import densities, distillation, train, vae
from experiments.baselines import fit_baselines
from experiments.config import ImageExperiment
from jflow import data, flows
from jflow.functional import Integers

FILES = {
    "config.json", "environment.json", "metrics.jsonl", "metrics.csv", "tensorboard", "checkpoints",
    "density", "result.json", ".lock",
}  # fmt: skip
PICTURES = {"samples", "samples.png", "interpolations.png", "curve.png"}
QUICK = ("table_nsf",)  # and a Glow of one level, below


def config_of(name):
    return import_module(f"experiments.{name}").CONFIG


@pytest.fixture
def one_device(monkeypatch):
    """Programs for one of the eight devices are compiled faster."""
    monkeypatch.setattr(train, "mesh", lambda config: None)


def test_all_results_that_are_promised_have_a_file():
    images = ("digits", "mnist", "fashion_mnist", "cifar10", "imagenet32", "imagenet64")
    wanted = {f"{d}_{r}" for d in images for r in ("nice", "real_nvp", "glow")}
    wanted |= {"digits_residual_flow", "mnist_residual_flow", "table_nsf", "table_maf"}
    wanted |= {f"{d}_flow_matching" for d in ("digits", "mnist", "cifar10", "table")}
    wanted |= {"digits_rnode", "mnist_rnode", "table_ffjord", "digits_tarflow_classes"}
    wanted |= {"digits_flow_pp", "digits_jet", "digits_dense_flow", "cifar10_flow_pp"}
    wanted |= {f"{d}_tarflow" for d in images} | {"imagenet64_jet"}
    assert set(train.EXPERIMENTS) == wanted
    for name in wanted:
        module = import_module(f"experiments.{name}")
        assert len(module.__doc__.splitlines()) > 1, name
        assert hash(module.CONFIG.name)


def check_run(config, directory):
    images = isinstance(config, ImageExperiment)
    result = train.run(config, directory)
    wanted = FILES | (PICTURES if images else set())
    assert {path.name for path in directory.iterdir()} == wanted
    assert json.loads((directory / "result.json").read_text()) == result
    assert np.isfinite(result["test_bits_per_dim" if images else "test_nll"])
    assert result["steps"] == 2
    density = jflow.load(directory / "density")
    assert density.flow.recipe.name == config.recipe
    if images:
        high = 16 if config.name.startswith("digits") else 255
        assert density.flow.integers == Integers(0, high)
        assert {p.name for p in (directory / "samples").iterdir()} == {
            "0000001.png", "0000002.png",
        }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in train.EXPERIMENTS],
)
def test_runs_and_writes_its_files(name, tmp_path):
    check_run(config_of(name).smoke(), tmp_path / "run")


@pytest.mark.usefixtures("one_device")
def test_a_glow_of_one_level_runs_and_writes_its_files(tmp_path):
    """The quick one on images that are not flat: the compiler takes a quarter of the time."""
    config = config_of("digits_glow").smoke()
    config = dataclasses.replace(config, arguments={**config.arguments, "levels": 1})
    check_run(config, tmp_path / "run")


@pytest.mark.usefixtures("one_device")
def test_a_run_is_resumed_profiled_and_not_overwritten(tmp_path, monkeypatch):
    config = config_of("table_maf").smoke()
    assert train.run(config, tmp_path / "run")["steps"] == 2
    with pytest.raises(FileExistsError, match="holds a run"):
        train.run(config, tmp_path / "run")
    longer = dataclasses.replace(config, steps=4)
    result = train.run(longer, tmp_path / "run", resume=True, profile=True)
    assert result["steps"] == 4
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1, 2, 3, 4]
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["packages"]["jflow"] == jflow.__version__
    monkeypatch.setattr(
        train.sys, "argv", ["train", "table_maf", "--smoke", "--directory", str(tmp_path / "run")]
    )
    with pytest.raises(SystemExit, match="Continue it with --resume"):
        train.main()


def test_images_are_checked_against_the_config(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5200, 6, 6), dtype=np.uint8)
    labels = np.zeros(5200, int)
    np.savez(
        tmp_path / "a.npz",
        x_train=images[:5150], y_train=labels[:5150], x_test=images[5150:], y_test=labels[5150:],
    )  # fmt: skip
    config = dataclasses.replace(config_of("mnist_glow"), dataset=str(tmp_path / "a.npz"))
    with pytest.raises(
        ValueError, match=r"a.npz has images of \(6, 6, 1\); the config says \(28, 28"
    ):
        config.load()
    splits = dataclasses.replace(config, shape=(6, 6, 1), bits=3).load()
    assert splits.values == 8
    assert splits.map(dataclasses.replace(config, shape=(6, 6, 1)).seen).test.y.shape[1:] == (
        32,
        32,
        1,
    )
    with pytest.raises(ValueError, match="flips and shifts are of images; leave out these"):
        dataclasses.replace(config, flat=True, flips=True).augment()
    with pytest.raises(ValueError, match="mirrored or moved; leave out flips or shifts"):
        dataclasses.replace(config, shifts=0.5, flips=True).augment()


def test_baselines_are_scored_as_the_flow_is():
    splits = data.digits()
    few = data.Splits(
        splits.train.take(slice(200)), splits.validation.take(slice(50)),
        splits.test.take(slice(50)), values=17,
    )  # fmt: skip
    with threadpool_limits(1):  # the products are small: other threads would wait, at full speed
        baselines = fit_baselines(few, samples=1)
    assert set(baselines) == {"gaussian_mixture", "kernel_density"}
    assert all(2 < bits < 5 for bits in baselines.values())


def test_densities(tmp_path, monkeypatch):
    small = flows.real_nvp(2, layers=2, hidden=(8,))
    monkeypatch.setitem(densities.RECIPES, "nsf_autoregressive", lambda: small)
    monkeypatch.setitem(
        densities.RECIPES, "flow_matching", lambda: flows.flow_matching(2, (8,), frequencies=0)
    )
    config = densities.Config(
        densities=("banana", "checkerboard"), recipes=("nsf_autoregressive", "student"), steps=2,
        batch_size=16, train_samples=64, test_samples=32, pairs=32, directory=tmp_path,
    )  # fmt: skip
    results = densities.run(config)
    assert results.keys() == {"banana", "checkerboard"}
    for found in results.values():
        assert found.keys() == {"nsf_autoregressive", "student"}
        assert all(np.isfinite(pair).all() for pair in found.values())
    assert {p.name for p in tmp_path.iterdir()} == {
        "banana.png", "checkerboard.png", "results.json",
    }  # fmt: skip


def test_divergence_of_a_density_from_itself():
    density = data.toy("banana")
    assert densities.divergence(density, density, jax.random.key(0), 100) == (0, 0)


def test_unknown_experiment(monkeypatch):
    monkeypatch.setattr(train.sys, "argv", ["train", "nothing"])
    with pytest.raises(SystemExit, match=r"NAME: cifar10_flow_matching, .*mnist_residual_flow"):
        train.main()


def test_command_line(monkeypatch, tmp_path):
    seen = {}

    def run(config, directory, **options):
        seen.update(config=config, directory=directory, options=options)
        return {
            "test_bits_per_dim": 2.0, "test_bits_per_dim_importance_weighted": 1.9,
            "standard_error": 0.1, "baselines": {}, "seconds": 1.0,
        }  # fmt: skip

    monkeypatch.setattr(train, "run", run)
    arguments = ["train", "mnist_glow", "--steps", "7", "--dataset", "a.npz", "--directory", "x"]
    monkeypatch.setattr(train.sys, "argv", [*arguments, "--resume"])
    train.main()
    assert (seen["config"].steps, seen["config"].dataset) == (7, "a.npz")
    assert str(seen["directory"]) == "x"
    assert seen["options"] == {"resume": True, "profile": False}


def test_a_maf_teaches_an_iaf(tmp_path):
    config = distillation.Config(
        layers=1, hidden=(8,), student_layers=2, student_hidden=(8,), teacher_steps=20,
        student_steps=60, samples=32, test_samples=500, batch=10, directory=tmp_path,
    )  # fmt: skip
    np.save(tmp_path / "table.npy", np.random.default_rng(0).normal(size=(300, 3)) @ np.eye(3))
    config = dataclasses.replace(config, datasets=(str(tmp_path / "table.npy"),))
    result = distillation.run(config)["table"]
    assert json.loads((tmp_path / "results.json").read_text())["table"] == result
    assert -0.05 < result["kl"] < 0.3
    assert 0 < result["kl_error"] < 0.1
    assert result["teacher_samples_per_second"] > 0
    assert distillation.load("digits", 0).train.shape[1] == 64


def test_flows_are_posteriors_of_an_autoencoder(tmp_path):
    small = vae.Config(
        code=2, features=4, hidden=(8,), layers=1, steps=3, batch_size=16, draws=4,
        directory=tmp_path,
    )  # fmt: skip
    results = vae.run(small)
    assert list(results) == ["diagonal", "planar", "iaf"]
    for kind, found in results.items():
        assert found["bound"][0] < found["many"][0] < 0
        assert (found["gain"][0] == 0) == (kind == "diagonal")
    train_y, _, test_y = vae.load("digits")
    assert set(np.unique(train_y)) == {0, 1}
    assert train_y.shape[1:] == test_y.shape[1:] == (64,)


def test_bounds_of_an_autoencoder_whose_evidence_is_known():
    """Without a decoder's weights each pixel is 1 with probability 1/2: log p(y) is -log 2 each."""
    model = vae.Autoencoder(vae.posterior("diagonal", vae.Config(code=2, features=3)), 5, 3, (4,))
    y = jnp.asarray([[0.0, 1, 1, 0, 1]] * 4)
    variables = model.init(jax.random.key(0), y, jax.random.key(1))
    flat = jax.tree_util.tree_map_with_path(
        lambda path, leaf: 0 * leaf if "decoder" in str(path) else leaf, variables
    )
    one, many = vae._bounds(model, flat, y, jax.random.key(2), 256)
    np.testing.assert_allclose(many, -5 * np.log(2), atol=0.05)
    assert np.all(one <= many)
