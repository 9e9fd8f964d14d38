"""Data sets: fixed splits, files, TensorFlow Datasets built here, and clear errors."""

import shutil
from typing import Any

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


def test_archives_of_images_alone(arrays, tmp_path):
    np.savez(tmp_path / "a.npz", scans=arrays["x_train"], weights=np.ones(20))
    splits = data.images(tmp_path / "a.npz", validation=0.2, seed=1)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [12, 4, 4]
    parts = [part.y for part in (splits.train, splits.validation, splits.test)]
    together = np.concatenate(parts)[..., 0]
    assert sorted(map(bytes, together)) == sorted(map(bytes, arrays["x_train"]))
    assert (
        str(splits) == "examples of 4x4x1, 256 levels: 12 to train on, 4 to choose by, 4 to test on"
    )
    assert len(data.images(tmp_path / "a.npz").test) == 2  # a tenth
    without = {name: array for name, array in arrays.items() if name != "y_test"}
    np.savez(tmp_path / "b.npz", **without)
    assert not data.npz(tmp_path / "b.npz", validation=5).test.labels.any()
    for share in (1.0, 1.5):
        with pytest.raises(ValueError, match=rf"a whole number or a share below 1; got {share}"):
            data.images(tmp_path / "a.npz", validation=share)
    for options in ({"size": (2, 2)}, {"grey": True}):
        with pytest.raises(ValueError, match="size and grey are of folders of images"):
            data.images(tmp_path / "a.npz", **options)
    np.savez(tmp_path / "c.npz", scans=arrays["x_train"][:2])
    with pytest.raises(ValueError, match="must have 3 images to train on or more; it has 2"):
        data.images(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", scans=np.zeros((9, 3, 8, 8), np.uint8))
    with pytest.raises(ValueError, match=r"channels last.* got \(9, 3, 8, 8\)"):
        data.images(tmp_path / "d.npz")


def test_test_images_are_not_trained_on(arrays, tmp_path):
    np.savez(tmp_path / "a.npz", x_test=arrays["x_train"])
    splits = data.images(tmp_path / "a.npz", validation=0.2)
    parts = [part.y for part in (splits.train, splits.validation, splits.test)]
    assert sorted(map(bytes, np.concatenate(parts))) == sorted(map(bytes, arrays["x_train"]))
    np.savez(tmp_path / "B.NPZ", x_test=arrays["x_train"], y_test=arrays["y_train"])
    (tmp_path / "B.NPZ.npz").rename(tmp_path / "B.NPZ")
    splits = data.images(tmp_path / "B.NPZ", validation=4)
    of_label = {
        bytes(y): label for y, label in zip(arrays["x_train"], arrays["y_train"], strict=True)
    }
    assert [of_label[bytes(y)] for y in splits.train.y] == splits.train.labels.tolist()
    with pytest.raises(ValueError, match="of 20, 12 would be to choose by and as many to test on"):
        data.images(tmp_path / "B.NPZ", validation=0.6)
    with pytest.raises(TypeError, match=r"validation must be a number; got '0\.1'"):
        data.images(tmp_path / "B.NPZ", validation="0.1")
    with pytest.raises(ValueError, match="leave out all options"):
        data.images("digits", validation=0.5)


def test_npz_errors(arrays, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*; give the path of a .npz file"):
        data.npz(tmp_path / "none.npz")
    np.savez(tmp_path / "b.npz", a=arrays["x_train"], b=arrays["x_test"])
    with pytest.raises(ValueError, match=r"must have x_train, or one array of images.*'a': 'uint8"):
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


@pytest.fixture
def picture_folder(tmp_path):
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 4)):
        for kind in ("cats", "dogs"):
            (tmp_path / part / kind).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
                image.fromarray(pixels).save(tmp_path / part / kind / f"{i}.png")
    (tmp_path / "train" / "notes.txt").write_text("not an image")
    return tmp_path


def test_folders_of_images(picture_folder):
    from PIL import Image

    source = data.folder(picture_folder / "train")
    assert len(source) == 12
    assert source[0]["y"].shape == (6, 8, 3)
    assert [source[i]["label"] for i in (0, 5, 6, 11)] == [0, 0, 1, 1]
    with Image.open(picture_folder / "train" / "dogs" / "2.png") as image:
        np.testing.assert_array_equal(source[8]["y"], np.asarray(image))
    small = data.folder(picture_folder / "train", size=(4, 4), grey=True)
    assert small[3]["y"].shape == (4, 4, 1)
    flat = data.folder(picture_folder / "train" / "cats")
    assert {flat[i]["label"] for i in range(6)} == {0}
    (picture_folder / "train" / "cats" / "0.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"0.png cannot be read as an image"):
        source[0]
    with pytest.raises(FileNotFoundError, match=r"no images \(.png, .*\) in .*nowhere"):
        data.folder(picture_folder / "nowhere")


def test_greys_are_found(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for place in range(30):
        image.fromarray(np.full((2, 2), place, np.uint8)).save(tmp_path / f"{place:02d}.png")
    assert data.images(tmp_path).shape == (2, 2, 1)
    assert data.images(tmp_path, grey=False).shape == (2, 2, 3)
    image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "30.png")
    assert data.images(tmp_path).shape == (2, 2, 3)
    assert data.images(tmp_path, grey=True).shape == (2, 2, 1)


def test_other_files_do_not_tell_greys(picture_folder):
    from PIL import Image

    for part in ("train", "test"):
        for file in (picture_folder / part).rglob("*.png"):
            Image.fromarray(np.zeros((6, 8), np.uint8)).save(file)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(picture_folder / "thumb.png")
    assert data.images(picture_folder, validation=4).shape == (6, 8, 1)


@pytest.mark.parametrize("stream", [False, True])
def test_images_of_folders_in_fewer_bits(picture_folder, stream):
    splits = data.images(picture_folder, validation=4, bits=5, stream=stream)
    eight = data.images(picture_folder, validation=4)
    assert splits.values == 32
    assert eight.values == 256
    np.testing.assert_array_equal(splits.test.y, eight.test.y // 8)
    np.testing.assert_array_equal(splits.validation.y, eight.validation.y // 8)
    assert list(eight.test.labels) == [0] * 4 + [1] * 4
    train: Any = data.load(splits.train) if stream else splits.train
    np.testing.assert_array_equal(train.y, eight.train.y // 8)
    np.testing.assert_array_equal(train.labels, eight.train.labels)
    padded = splits.map(lambda y: data.pad(y, 8, 8))
    assert padded.test.y.shape == (8, 8, 8, 3)
    assert padded.values == 32
    if stream:
        assert padded.train[0]["y"].shape == (8, 8, 3)


def saved(folder, name, pixels, **options):
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name, **options)


def test_labels_are_those_of_training_where_a_class_is_missing(picture_folder):
    shutil.rmtree(picture_folder / "test" / "cats")
    splits = data.images(picture_folder, validation=4)
    assert set(splits.test.labels) == {1}
    saved(picture_folder / "test" / "birds", "0.png", np.zeros((6, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"test has the classes \['birds'\], which are not among"):
        data.images(picture_folder, validation=4)


def test_what_lies_about_in_folders(picture_folder):
    train = picture_folder / "train"
    saved(train / ".ipynb_checkpoints", "a.png", np.zeros((6, 8, 3), np.uint8))
    (train / "cats" / "._0.png").write_bytes(b"resource fork")
    (train / "cats" / "more").symlink_to(picture_folder / "test" / "cats")
    (train / "dogs" / "loop").symlink_to(train)
    source = data.folder(train)
    assert len(source) == 16
    assert [data.load(source).labels.tolist().count(i) for i in (0, 1)] == [10, 6]
    (train / "eels").mkdir()
    with pytest.raises(FileNotFoundError, match=r"the classes \['eels'\] have no images; remove"):
        data.folder(train)
    (train / "eels").rmdir()
    saved(train, "stray.png", np.zeros((6, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"images beside the folders of its classes.*stray.png"):
        data.folder(train)


def test_a_folder_of_images_alone(picture_folder, tmp_path, monkeypatch):
    splits = data.images(picture_folder / "train" / "cats", validation=2)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [2, 2, 2]
    shutil.rmtree(picture_folder / "test")
    with pytest.raises(FileNotFoundError, match="has no folder 'test' beside the other"):
        data.images(picture_folder, validation=4)
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"give './digits' for the folder, or jflow.data.digits"):
        data.images("digits")


def test_pixels_of_all_kinds(tmp_path):
    from PIL import Image

    levels = np.linspace(0, 65535, 48).reshape(6, 8).astype(np.uint16)
    saved(tmp_path / "a", "0.png", levels)
    found = data.folder(tmp_path / "a", grey=True)[0]["y"][..., 0]
    np.testing.assert_array_equal(found, np.round(levels / 257))
    clear = np.zeros((6, 8, 4), np.uint8)
    clear[:3, :, 3] = 255  # above black, below transparent
    saved(tmp_path / "b", "0.png", clear)
    found = data.folder(tmp_path / "b")[0]["y"]
    assert (found[:3] == 0).all()
    assert (found[3:] == 255).all()
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees
    saved(tmp_path / "c", "0.jpg", np.zeros((6, 8, 3), np.uint8), exif=turned)
    assert data.folder(tmp_path / "c")[0]["y"].shape == (8, 6, 3)
    saved(tmp_path / "d", "0.tiff", np.zeros((6, 8), np.float32))
    with pytest.raises(ValueError, match=r"0.tiff has real numbers for pixels; convert it"):
        data.folder(tmp_path / "d")[0]


def test_sizes_and_damage(picture_folder):
    cats = picture_folder / "train" / "cats"
    saved(cats, "9.png", np.zeros((5, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"9.png has \(5, 8\) pixels, but .*; give size=\(height"):
        data.load(data.folder(cats))
    assert len(data.load(data.folder(cats, size=(4, 4)))) == 7
    (cats / "3.png").write_bytes((cats / "3.png").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"3.png cannot be read as an image"):
        data.load(data.folder(cats, size=(4, 4)))
    with pytest.warns(UserWarning, match=r"1 of 7 images cannot be read and are left out: .*3.png"):
        source = data.folder(cats, size=(4, 4), skip_damaged=True)
    assert len(data.load(source)) == 6


def test_images_errors(arrays, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    for options, message in (
        ({"name": "digits", "bits": 5}, "digits have 17 levels and a split"),
        ({"name": "mnist", "bits": 9}, "bits must be 1 to 8; got 9"),
        ({"name": tmp_path / "a.npz", "stream": True}, "a.npz is read whole, not streamed"),
    ):
        with pytest.raises(ValueError, match=message):
            data.images(**options)
    assert data.images(tmp_path / "a.npz", validation=5).values == 256
    assert data.images("digits").values == 17


def test_arrays_are_read_from_where_they_are(tmp_path):
    y = np.arange(20, dtype=np.float32).reshape(10, 2)
    np.save(tmp_path / "y.npy", y)
    source = data.arrays(np.load(tmp_path / "y.npy", mmap_mode="r"), labels=np.arange(10))
    np.testing.assert_array_equal(source[3]["y"], [6, 7])
    loaded = data.load(source)
    np.testing.assert_array_equal(loaded.y, y)
    np.testing.assert_array_equal(loaded.labels, np.arange(10))
    with pytest.raises(ValueError, match=r"one length, 1 or more; got {'y': 10, 'context': 3}"):
        data.arrays(y, np.zeros((3, 1)))


@pytest.mark.filterwarnings("ignore")
def test_tables_of_tensorflow_datasets(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    class TinyTable(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "age": tfds.features.Tensor(shape=(), dtype=np.int64),
                "sizes": tfds.features.Tensor(shape=(2,), dtype=np.float32),
                "label": tfds.features.Tensor(shape=(), dtype=np.int64),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(7):
                yield i, {"age": i, "sizes": np.full(2, i / 2, np.float32), "label": i % 2}

    source = data.tfds("tiny_table", "train[:5]", data_dir=tmp_path)
    assert len(source) == 5
    age = int(source[0]["y"][0])
    np.testing.assert_array_equal(source[0]["y"], [age, age / 2, age / 2])
    assert source[0]["label"] == age % 2
    with pytest.raises(ValueError, match=r"'tiny_table' has the splits \['train'\]; got 'test'"):
        data.tfds("tiny_table", "test", data_dir=tmp_path)
