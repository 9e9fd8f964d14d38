"""Data that are read as they are needed: the same in every run, checked, and resumed."""

import chex
import jax
import numpy as np
import pytest

import jflow
from jflow import data, flows, train
from jflow.train.evaluation import of_flow
from jflow.train.run import Run

KEY = jax.random.key(0)
OPTIONS = {"key": KEY, "steps": 30, "batch_size": 16, "evaluate_every": 10}
Y = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)


def flow(**options):
    return flows.real_nvp(3, layers=2, hidden=(8,), **options)


def stream(data, batch_size=16, workers=0):
    return of_flow("data", flow(), data, batch_size=batch_size, workers=workers)


def taken(source, position, count):
    return source.take(0, position, count).examples.values[0]


def test_every_example_comes_once_in_an_epoch_and_each_epoch_has_its_order():
    source = data.arrays(np.arange(48, dtype=np.float32)[:, None] * np.ones(3, np.float32))
    one = stream(source)
    orders = [taken(one, position, 3)[:, :, 0].ravel() for position in (0, 3)]
    for order in orders:
        assert sorted(order) == list(range(48))
    assert list(orders[0]) != list(orders[1])
    assert list(orders[0]) != sorted(orders[0])


def test_batches_are_where_they_are_whatever_was_read_before():
    one, other = stream(data.arrays(Y)), stream(data.arrays(Y))
    assert taken(one, 0, 2).shape == (2, 16, 3)
    taken(one, 2, 4)
    np.testing.assert_array_equal(taken(one, 6, 3), taken(other, 6, 3))
    np.testing.assert_array_equal(taken(one, 0, 2), taken(other, 0, 2))
    np.testing.assert_array_equal(one.first(0).examples.values[0][0], taken(other, 0, 1)[0])


def test_processes_share_what_one_would_read(monkeypatch):
    source = data.arrays(Y)
    whole = taken(stream(source), 0, 4)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for process in (0, 1):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        part = taken(stream(source), 0, 4)
        np.testing.assert_array_equal(part, whole[:, 8 * process : 8 * (process + 1)])


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_on_a_stream_is_resumed_bit_for_bit(workers, tmp_path, monkeypatch):
    source = data.arrays(Y)
    whole, log = jflow.fit(flow(), source, **OPTIONS)
    advance = Run._advance

    def stop(self, pace):
        if self.step > 17:
            raise KeyboardInterrupt
        return min(3, advance(self, pace))

    monkeypatch.setattr(Run, "_advance", stop)
    options = {"directory": tmp_path, "checkpoint_every": 4, "workers": workers, **OPTIONS}
    with pytest.raises(KeyboardInterrupt):
        jflow.fit(flow(), source, **options)
    monkeypatch.undo()
    density, resumed = jflow.fit(flow(), source, resume=True, **options)
    chex.assert_trees_all_equal(dict(density.variables), dict(whole.variables))
    assert resumed.column("train_nll") == log.column("train_nll")
    with pytest.raises(ValueError, match="validation was float32"):
        jflow.fit(flow(), data.arrays(Y[::-1]), resume=True, **options)


class Counted:
    """A data set that tells how many of its examples were read."""

    def __init__(self, y):
        self.y, self.read = y, 0

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        self.read += 1
        return {"y": self.y[i], "weights": np.float32(1 + i % 2)}


def counted():
    return Counted(np.random.default_rng(1).normal(size=(1000, 3)).astype(np.float32))


def validated(held_out, directory, **given):
    held_out.read = 0
    options = {"validation": held_out, "directory": directory, **given}
    return jflow.fit(flow(), data.arrays(Y), **OPTIONS, **options)[1].rows


def test_validation_is_read_once_for_all_resumptions(tmp_path):
    held_out, file = counted(), tmp_path / "checkpoints" / "validation.npz"
    rows = validated(held_out, tmp_path)
    assert held_out.read > 1000
    assert validated(held_out, tmp_path, resume=True) == rows
    assert held_out.read < 300  # it is looked at, to see whether it is the same
    # A file that is missing or damaged is made again.
    content = file.read_bytes()
    for damaged in (None, content[:-30], b"", content[:500] + bytes(500) + content[1000:]):
        file.unlink() if damaged is None else file.write_bytes(damaged)
        validated(held_out, tmp_path, resume=True)
        assert held_out.read > 1000
        validated(held_out, tmp_path, resume=True)
        assert held_out.read < 300
    held_out.y = held_out.y[::-1]
    with pytest.raises(ValueError, match="validation was float32"):
        validated(held_out, tmp_path, resume=True)


def test_validation_is_kept_for_its_own_run_alone(tmp_path):
    held_out, file = counted(), tmp_path / "checkpoints" / "validation.npz"

    def begin(batch):
        raise KeyError("killed")

    with pytest.raises(KeyError, match="killed"):
        validated(held_out, tmp_path, variables=begin)
    assert file.exists()
    held_out.y[1] += 1  # which is not looked at
    validated(held_out, tmp_path, resume=True)
    assert held_out.read > 1000
    with np.load(file) as arrays:
        np.testing.assert_array_equal(arrays["part_0"], held_out.y)


def test_a_full_disk_leaves_validation_to_be_read_again(tmp_path, monkeypatch):
    def full(path, **arrays):
        path.write_bytes(b"a part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.warns(UserWarning, match="could not be kept in .*No space left.*read again"):
        validated(counted(), tmp_path)
    assert [p for p in (tmp_path / "checkpoints").iterdir() if p.is_file()] == []


def test_contexts_and_validation_come_from_streams():
    context = np.eye(2, dtype=np.float32)[np.arange(100) % 2]
    source = data.arrays(Y + 4 * context[:, :1], context)
    conditional = flow(context_shape=2)
    options = {**OPTIONS, "steps": 200, "learning_rate": 1e-2}
    density, log = jflow.fit(conditional, source, validation=source, **options)
    assert len(log.column("validation_nll")[1]) == 20
    there, elsewhere = (np.mean(density.log_prob(Y[::2] + 4, c)) for c in np.eye(2))
    assert there > elsewhere + 1
    estimate = jflow.evaluate(density, source, key=KEY)
    assert len(estimate.examples) == 100


def test_images_are_moved():
    y = np.zeros((900, 5, 4, 2), np.uint8)
    y[:, 2, 1] = 9
    moved = np.asarray(data.shift(jax.random.key(0), y, share=0.5))
    assert moved.dtype == y.dtype
    assert (moved.sum((1, 2)) == 9).all()
    places, counts = np.unique(np.argwhere(moved[..., 0])[:, 1:], axis=0, return_counts=True)
    np.testing.assert_array_equal(places, [(i, j) for i in (1, 2, 3) for j in (0, 1, 2)])
    assert 450 < counts[4] < 550  # 1/2 + 1/18 of them stay
    assert counts.min() > 25
    np.testing.assert_array_equal(data.shift(jax.random.key(0), y, share=0.0), y)
    for wrong in ({"pixels": 0}, {"share": 1.5}):
        with pytest.raises(ValueError, match=f"shift: {next(iter(wrong))} must be"):
            data.shift(jax.random.key(0), y, **wrong)
    assert (np.asarray(data.shift(jax.random.key(0), y, 3)).sum((1, 2, 3)) == 0).any()  # gone


def test_augmentation_is_seen_in_training_alone():
    y = np.zeros((64, 4, 4, 1), np.uint8)
    y[:, :, 0] = 16
    image_flow = flows.glow((4, 4, 1), levels=1, steps=1, hidden=4, values=17)
    key = jax.random.key(1)
    flipped = np.asarray(data.flip_left_right(key, y))
    assert 10 < (flipped[:, 0, 0, 0] == 16).sum() < 54
    np.testing.assert_array_equal(flipped.sum(axis=(1, 2, 3)), y.sum(axis=(1, 2, 3)))

    def shift(key, y):
        return jax.numpy.roll(y, 1, axis=2)

    options = {**OPTIONS, "validation": y, "steps": 60, "learning_rate": 1e-2}
    _, plain = jflow.fit(image_flow, y, **options)
    _, shifted = jflow.fit(image_flow, y, augment=shift, **options)
    last = [log.rows[-1] for log in (plain, shifted)]
    assert abs(last[0]["train_bits_per_dim"] - last[0]["validation_bits_per_dim"]) < 1
    assert last[1]["validation_bits_per_dim"] > last[1]["train_bits_per_dim"] + 3


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (np.zeros((50, 2), np.float32), {}, r"examples of data must have shape \(3,\); got \(2,\)"),
        (np.zeros((50, 3), int), {}, "data must be floating for a flow of continuous values; got"),
        (np.full((50, 3), np.nan, np.float32), {}, "data holds NaN or infinities"),
        (Y, {"context": np.zeros((100, 2))}, "the context of a stream is in its examples"),
        (Y, {"validation": 1.5}, r"validation must be a fraction in \(0, 1\); got 1.5"),
    ],
)
def test_streams_that_do_not_fit(source, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        jflow.fit(flow(), data.arrays(source), **{"validation": None} | OPTIONS | options)
    with pytest.raises(ValueError, match=r"context of data must have shape \(N, 2\); got None"):
        jflow.fit(flow(context_shape=2), data.arrays(Y), **OPTIONS | {"validation": None})


@pytest.mark.slow
def test_the_number_of_workers_does_not_matter():
    source = data.arrays(Y)
    wanted = [taken(stream(source), 0, 4)]
    for workers in (1, 2):
        other = stream(source, workers=workers)
        taken(other, 3, 1)
        wanted.append(taken(other, 0, 4))
        np.testing.assert_array_equal(taken(other, 2, 2), wanted[0][2:4])
    np.testing.assert_array_equal(wanted[0], wanted[1])
    np.testing.assert_array_equal(wanted[0], wanted[2])


def test_streams_of_another_kind():
    grain = pytest.importorskip("grain")
    rows = grain.MapDataset.source(Y)
    for source, message in (
        (grain.MapDataset.source(Y.tolist()), r"examples of data must be arrays, or .*got \["),
        (rows.map(lambda y: {"x": y}), r"got a dict of \['x'\]"),
        (rows.repeat(), "it repeats for ever: leave out repeat"),
        (rows[:0], "it is empty"),
        (rows.filter(lambda y: False), "got None.*what filter"),
    ):
        with pytest.raises(ValueError, match=message):
            jflow.fit(flow(), source, **OPTIONS)
    with pytest.raises(ValueError, match="workers must be a whole number, 0 or more; got -1"):
        jflow.fit(flow(), rows, workers=-1, **OPTIONS)
    with pytest.raises(
        ValueError, match=r"validation must be \(y, context, weights\), if a tuple; got 4"
    ):
        jflow.fit(flow(), rows, **OPTIONS | {"validation": (Y, None, None, None)})
    with pytest.raises(TypeError, match=r"optimizer must be an optax\.Gradient"):
        jflow.fit(flow(), rows, optimizer=1e-3, **OPTIONS)


def test_a_bad_example_far_into_the_stream_is_found():
    y = Y.copy()
    y[37, 1] = np.inf
    with pytest.raises(ValueError, match="data holds NaN or infinities"):
        jflow.fit(flow(), data.arrays(y), **OPTIONS | {"validation": None})


class Indexed:
    """As PyTorch's map-style data sets."""

    def __init__(self, bad=()):
        self.bad = bad

    def __len__(self):
        return len(Y)

    def __getitem__(self, i):
        if i in self.bad:
            raise OSError("broken")
        return {"y": Y[i]}


def test_what_has_a_length_and_an_index_is_a_stream():
    wanted, _ = jflow.fit(flow(), data.arrays(Y), **OPTIONS)
    found, _ = jflow.fit(flow(), Indexed(), **OPTIONS)
    chex.assert_trees_all_equal(dict(found.variables), dict(wanted.variables))
    grain = pytest.importorskip("grain")
    in_order = grain.MapDataset.source(Y).to_iter_dataset()
    for source in (in_order, iter(Y), (y for y in Y)):
        with pytest.raises(TypeError, match="can only be read in order, and training shuffles"):
            jflow.fit(flow(), source, **OPTIONS)
    for source in ({"y": Y}, 3, "data.csv"):
        with pytest.raises(TypeError, match="data must be an array"):
            jflow.fit(flow(), source, **OPTIONS)


def test_corrupt_examples_are_named_and_passed_over():
    with pytest.raises(Exception, match="broken"):
        jflow.fit(flow(), Indexed({17}), **OPTIONS | {"validation": None})
    stream = data.skip_corrupt(Indexed({16, 17}))
    with pytest.warns(UserWarning, match="cannot be read") as warned:
        _, log = jflow.fit(flow(), stream, **OPTIONS)
    texts = [str(w.message) for w in warned]
    assert {text[:47] for text in texts} == {
        "example 16 cannot be read (OSError: broken); th",
        "example 17 cannot be read (OSError: broken); th",
    }
    assert any(text.endswith("2 so far") for text in texts)
    np.testing.assert_array_equal(stream[16]["y"], Y[18])
    assert np.isfinite(log.column("train_nll")[1]).all()
    every = data.skip_corrupt(Indexed(range(100)))
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(RuntimeError, match="100 e"),
    ):
        every[0]
    with pytest.raises(TypeError, match="data must be a stream; got ndarray"):
        data.skip_corrupt(Y)


def test_a_stream_on_a_mesh():
    source = data.arrays(Y)
    alone, _ = jflow.fit(flow(), source, **OPTIONS)
    density, _ = jflow.fit(flow(), source, mesh=train.make_mesh(), **OPTIONS)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
        dict(density.variables), dict(alone.variables),
    )  # fmt: skip
