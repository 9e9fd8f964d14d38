"""Data sets: fixed splits, files, TensorFlow Datasets built here, and clear errors."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from jflow import data


def test_digits_are_split_as_stated():
    splits = data.digits()
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [1297, 200, 300]
    assert splits.values == 17
    assert splits.train.y.shape == (1297, 8, 8, 1)
    order = np.random.default_rng(0).permutation(1797)
    np.testing.assert_array_equal(splits.test.y[:, :, :, 0], load_digits().images[order[1497:]])
    np.testing.assert_array_equal(splits.train.labels, load_digits().target[order[:1297]])


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 4, 4), dtype=np.uint8)
    labels = rng.integers(0, 10, 30)
    return {
        "x_train": images[:20],
        "y_train": labels[:20],
        "x_test": images[20:],
        "y_test": labels[20:],
    }


def test_npz_files(arrays, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    splits = data.npz(tmp_path / "a.npz", validation=5)
    assert splits.train.y.shape == (15, 4, 4, 1)
    assert splits.values == 256
    np.testing.assert_array_equal(splits.test.y[..., 0], arrays["x_test"])
    together = np.concatenate([splits.train.y, splits.validation.y])[..., 0]
    assert sorted(map(bytes, together)) == sorted(map(bytes, arrays["x_train"]))


def test_npz_errors(arrays, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*; give the path of a .npz file"):
        data.npz(tmp_path / "none.npz")
    np.savez(tmp_path / "b.npz", x_train=arrays["x_train"])
    with pytest.raises(ValueError, match=r"lacks \['x_test', 'y_test', 'y_train'\]"):
        data.npz(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", **{**arrays, "x_train": arrays["x_train"] / 255})
    with pytest.raises(ValueError, match=r"images must be uint8 .*; got float64 \(20, 4, 4\)"):
        data.npz(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", **{**arrays, "y_test": arrays["y_test"][:3]})
    with pytest.raises(ValueError, match="10 images, but 3 labels"):
        data.npz(tmp_path / "d.npz")
    np.savez(tmp_path / "e.npz", **arrays)
    with pytest.raises(ValueError, match="validation must be 1 to 19 examples; got 20"):
        data.npz(tmp_path / "e.npz", validation=20)


@pytest.mark.filterwarnings("ignore")
def test_tensorflow_datasets(arrays, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    class TinyImages(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image = tfds.features.Tensor(shape=(4, 4, 1), dtype=np.uint8)
            label = tfds.features.Tensor(shape=(), dtype=np.int64)
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            return self.dataset_info_from_configs(features=features)

        def _split_generators(self, dl_manager):
            return {s: self._generate_examples(s) for s in ("train", "test")}

        def _generate_examples(self, split):
            pairs = zip(arrays[f"x_{split}"], arrays[f"y_{split}"], strict=True)
            for i, (image, label) in enumerate(pairs):
                yield i, {"image": image[..., None], "label": int(label)}

    splits = data.images("tiny_images", validation=5, data_dir=tmp_path)
    assert splits.train.y.shape == (15, 4, 4, 1)
    assert sorted(map(bytes, splits.test.y)) == sorted(map(bytes, arrays["x_test"]))
    assert sorted(splits.test.labels) == sorted(arrays["y_test"])


@pytest.mark.filterwarnings("ignore")
def test_data_sets_that_cannot_be_prepared(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(RuntimeError, match=r"cannot prepare 'no_such_data'.*jflow.data.npz"):
        data.tfds("no_such_data", data_dir=tmp_path)


def test_padding():
    images = np.ones((2, 28, 28, 1), np.uint8)
    padded = data.pad(images, 32, 32)
    assert padded.shape == (2, 32, 32, 1)
    np.testing.assert_array_equal(padded[:, 2:-2, 2:-2], images)
    assert padded.sum() == images.sum()
    with pytest.raises(ValueError, match=r"images of \(28, 28\) do not fit \(16, 28\)"):
        data.pad(images, 16, 28)


def test_dequantization_and_back():
    import jax

    y = np.arange(17)
    continuous = data.dequantize(jax.random.key(0), y, 17)
    assert 0 <= continuous.min() < continuous.max() < 1
    np.testing.assert_array_equal(data.quantize(continuous, 17), y)
    np.testing.assert_array_equal(data.quantize(np.asarray([-1.0, 2.0]), 17), [0, 16])
