"""Training: it learns, it repeats itself, it stops when it must, and it says what is wrong."""

import csv
import json
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jflow
from jflow import bijectors as jb
from jflow import flows, train
from jflow import transformers as jt
from jflow.data import batches
from jflow.distributions import examples
from jflow.functional import arrays
from jflow.train import (
    Arrays,
    Batch,
    MaximumLikelihood,
    NonFiniteLossError,
    evaluation,
    steps,
    terminal,
)
from jflow.train.evaluation import of_flow
from jflow.train.optimizer import build_optimizer

KEY = jax.random.key(0)
SMALL = {"steps": 60, "batch_size": 32, "evaluate_every": 20, "warmup_steps": 5}
# One object, because steps are compiled anew for each optimizer.
STILL = optax.sgd(0.0)


def flow():
    return flows.real_nvp(2, layers=2, hidden=(8,))


@pytest.fixture(scope="module")
def data():
    return (3 * np.random.default_rng(0).normal(size=(300, 2)) + 5).astype(np.float32)


@pytest.fixture(scope="module")
def fitted(data, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    return (*jflow.fit(flow(), data, key=KEY, directory=directory, **SMALL), directory)


def test_compiled_programs_are_kept(data, tmp_path):
    """The first test, because it drops what is compiled, and leaves the others what it reads."""
    settings = jax.config.jax_compilation_cache_dir
    jax.clear_caches()
    _, log = jflow.fit(flow(), data, key=KEY, cache=tmp_path / "programs", **SMALL)
    programs = {path.name for path in (tmp_path / "programs").iterdir()}
    assert any(name.startswith("jit_advance-") for name in programs)
    assert jax.config.jax_compilation_cache_dir == settings
    jax.clear_caches()
    _, again = jflow.fit(flow(), data, key=KEY, cache=tmp_path / "programs", **SMALL)
    assert {path.name for path in (tmp_path / "programs").iterdir()} == programs
    assert log.column("train_nll") == again.column("train_nll")
    with train.cache_compilations(tmp_path / "elsewhere"):
        jax.block_until_ready(jax.jit(lambda x: jnp.sort(jnp.sin(x)))(np.ones(1000)))
    assert list((tmp_path / "elsewhere").iterdir())

    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=r"compiled programs needs a directory; .*file"):
        jflow.fit(flow(), data, key=KEY, cache=tmp_path / "file", **SMALL)


@pytest.mark.oldest
def test_it_learns_and_keeps_the_best_parameters(data, fitted):
    density, log, _ = fitted
    steps, losses = log.column("validation_nll")
    assert steps == [20, 40, 60]
    assert min(losses) == losses[steps.index(log.best_step)]
    entropy = 2 * (0.5 * np.log(2 * np.pi * np.e) + np.log(3))
    assert jflow.evaluate(density, data, key=KEY).mean == pytest.approx(entropy, abs=0.3)


def test_metrics_are_written_as_jsonl_and_csv(fitted):
    _, log, directory = fitted
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert lines == log.rows
    with (directory / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["train_nll"]) for row in table] == log.column("train_nll")[1]


def test_the_state_is_used_up_but_not_what_was_given(data, fitted):
    """The loop's state lives in one place; the caller's variables and results stay good."""
    given = dict(fitted[0].variables)
    before = jax.tree.map(np.array, given)  # copies: a view would keep the arrays alive
    again, _ = jflow.fit(flow(), data, key=KEY, variables=given, ema_decay=0.9, **SMALL)
    chex.assert_trees_all_equal(given, before)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(again.variables))

    step = steps.gradient_step(MaximumLikelihood(flow()), optax.adam(1e-3), average=0.9)
    state = step.start(given)
    rows, one = jnp.zeros((1, 8), jnp.int32), jnp.asarray(1, jnp.int32)
    examples = Batch((jnp.asarray(data), None))
    compiled = steps.advance.lower(state, examples, rows, one, KEY, step=step).compile()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert compiled.memory_analysis().alias_size_in_bytes >= size


def test_the_best_parameters_outlive_later_steps(data):
    """Here each step after the twentieth makes it worse."""
    optimizer = optax.sgd(lambda step: jnp.where(step < 20, 1e-2, -1e-2).astype(jnp.float32))
    density, log = jflow.fit(flow(), data, key=KEY, optimizer=optimizer, **SMALL)
    assert log.best_step == 20
    short, _ = jflow.fit(
        flow(), data, key=KEY, optimizer=optimizer, **{**SMALL, "steps": 20, "evaluate_every": 20}
    )
    chex.assert_trees_all_equal(dict(density.variables), dict(short.variables))


@pytest.mark.oldest
def test_two_runs_are_equal_bit_for_bit_and_another_key_is_not(data, fitted):
    again, log = jflow.fit(flow(), data, key=KEY, **SMALL)
    chex.assert_trees_all_equal(dict(again.variables), dict(fitted[0].variables))
    assert log.column("train_nll") == fitted[1].column("train_nll")
    other, _ = jflow.fit(flow(), data, key=jax.random.key(1), **SMALL)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(dict(other.variables), dict(fitted[0].variables))


def test_the_loop_equals_plain_optax_steps(data):
    """One dispatch of many steps does what the textbook loop does."""
    start = jflow.init(flow(), KEY, data)
    density, _ = jflow.fit(
        flow(), data, key=KEY, validation=None, variables=start, optimizer=optax.sgd(1e-2),
        warmup_steps=0, clip_norm=None, steps=7, batch_size=300, evaluate_every=4,
    )  # fmt: skip

    @jax.jit
    def step(params):
        def loss(params):
            given = {**start, "params": params}
            return -flow().apply(given, jnp.asarray(data), method="log_prob").mean()

        gradient = jax.grad(loss)(params)
        return jax.tree.map(lambda p, g: p - jnp.float32(1e-2) * g, params, gradient)

    params = start["params"]
    for _ in range(7):
        params = step(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
        density.variables["params"],
        params,
    )


def test_a_rate_falls_to_nothing_and_a_schedule_is_followed(data):
    """A number is that schedule which falls by half a cosine, whatever the number of steps."""
    options = {**SMALL, "warmup_steps": 0}
    cosine, constant = optax.cosine_decay_schedule(2e-3, 60), optax.constant_schedule(2e-3)
    usual, log = jflow.fit(flow(), data, key=KEY, **options)
    falling, same = jflow.fit(flow(), data, key=KEY, learning_rate=cosine, **options)
    level, _ = jflow.fit(flow(), data, key=KEY, learning_rate=constant, **options)
    chex.assert_trees_all_close(usual.variables["params"], falling.variables["params"], atol=1e-5)
    assert log.best_step == same.best_step
    assert _distance(level, falling) > 0.01

    before = steps.advance._cache_size()
    jflow.fit(flow(), data, key=KEY, **options)
    jflow.fit(flow(), data, key=KEY, **{**options, "steps": 80})
    assert steps.advance._cache_size() == before


def test_ema_warmup_and_clipping(data):
    options = {**SMALL, "steps": 20}  # one validation: the last parameters are the best
    plain, _ = jflow.fit(flow(), data, key=KEY, **options)
    averaged, _ = jflow.fit(flow(), data, key=KEY, ema_decay=0.9, **options)
    still, _ = jflow.fit(flow(), data, key=KEY, optimizer=STILL, **options)
    far = _distance(plain, still)
    assert 0 < _distance(averaged, still) < far
    clipped, _ = jflow.fit(
        flow(), data, key=KEY, optimizer=optax.sgd(1.0), **{**options, "clip_norm": 1e-3}
    )
    # Updates ramp up over 5 steps: 1/6 ... 5/6, then 1.
    assert 0 < _distance(clipped, still) <= 1e-3 * (15 / 6 + 15) * 1.001


def test_gradients_far_above_the_usual_are_limited():
    tx, _ = build_optimizer(optax.sgd(1.0), 1.0, 0, None, 10.0)
    free, _ = build_optimizer(optax.sgd(1.0), 1.0, 0, None, None)
    params = {"a": jnp.zeros(3, jnp.float32), "b": jnp.zeros(4, jnp.float32)}
    state, same = tx.init(params), free.init(params)
    found = []
    for size in (0.0, 1e-25, 2.0, 3.0, 1e9, 2.0, 0.0):
        grads = jax.tree.map(lambda p, size=size: jnp.full_like(p, size / 7**0.5), params)
        updates, state = tx.update(grads, state, params)
        assert jax.tree.map(jnp.dtype, updates) == jax.tree.map(jnp.dtype, params)
        found.append(float(optax.tree.norm(jax.tree.map(np.float64, updates))))
        others, same = free.update(grads, same, params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, -b), others, grads)
    # The average of 2 and 3, the later counting more.
    average = (0.98 * 2 + 3) / 1.98
    np.testing.assert_allclose(found, [0, 1e-25, 2, 3, 10 * average, 2, 0], rtol=1e-5)


def _distance(a, b):
    one, other = (jax.tree.leaves(jax.device_get(density.variables)) for density in (a, b))
    return np.sqrt(sum(np.sum(np.square(x - y)) for x, y in zip(one, other, strict=True)))


def test_early_stopping(data):
    _, log = jflow.fit(
        flow(), data, key=KEY, patience=2, optimizer=STILL, **{**SMALL, "steps": 400}
    )
    assert [row["step"] for row in log.rows] == [20, 40, 60]
    assert log.best_step == 20


def test_the_history_says_whether_training_overfitted():
    def made(*losses):
        rows = [
            {"step": 10 * i, "train_nll": t, "validation_nll": v}
            for i, (t, v) in enumerate(losses, 1)
        ]
        return train.History("nll", rows, 10 * (1 + int(np.argmin([v for _, v in losses]))))

    assert made((3.0, 3.1), (2.5, 2.9), (1.5, 4.5)).overfitted
    assert not made((3.0, 3.1), (2.5, 2.9), (2.4, 2.95)).overfitted  # less than training gained
    assert not made((3.0, 3.1), (2.5, 2.9)).overfitted
    assert not train.History("nll").overfitted
    assert str(made((3.0, 3.1), (2.5, 2.9), (1.5, 4.5))) == (
        "best of 30 steps: 20 (train_nll 2.5, validation_nll 2.9); overfitted from there on: more "
        "data, dropout or fewer layers would help"
    )


def test_grey_levels_use_one_validation_noise(data):
    image_flow = flows.glow((4, 4, 1), levels=1, steps=1, hidden=2, values=17)
    y = np.random.default_rng(0).integers(0, 17, (64, 4, 4, 1))
    _, log = jflow.fit(image_flow, y, key=KEY, optimizer=STILL, **SMALL)
    losses = log.column("validation_bits_per_dim")[1]
    assert losses[0] == losses[1] == losses[2]
    train_losses = log.column("train_bits_per_dim")[1]
    assert train_losses[0] != train_losses[1]


def test_context_is_learned(data):
    labels = np.repeat(np.eye(2, dtype=np.float32), 150, axis=0)
    y = (data - 5) / 3 + np.where(labels[:, :1] > 0, 4, -4).astype(np.float32)
    conditional = flows.real_nvp(2, layers=2, hidden=(8,), context_shape=2)
    density, _ = jflow.fit(
        conditional, y, context=labels, key=KEY, learning_rate=1e-2, **{**SMALL, "steps": 200}
    )
    one, other = (np.mean(density.log_prob(y[:150], c)) for c in np.eye(2))
    assert one > other + 1


def test_a_loss_that_is_not_finite_stops_with_the_last_good_parameters(data):
    def explode(updates, state, params=None):
        factor = jnp.where(state == 7, jnp.inf, 1e-3)
        return jax.tree.map(lambda u: -u * factor.astype(u.dtype), updates), state + 1

    optimizer = optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), explode)
    with pytest.raises(NonFiniteLossError, match="not finite at step 8") as caught:
        jflow.fit(flow(), data, key=KEY, optimizer=optimizer, validation=None, **SMALL)
    assert caught.value.step == 8
    assert caught.value.density.flow == flow()

    def outlier(updates, state, params=None):
        return jax.tree.map(lambda u: -u * jnp.asarray(1e30, u.dtype), updates), state

    with pytest.raises(NonFiniteLossError, match="at step 1 ") as caught:
        jflow.fit(
            flow(), data, key=KEY, validation=None,
            optimizer=optax.GradientTransformation(lambda p: (), outlier), **SMALL,
        )  # fmt: skip
    assert all(np.isfinite(v).all() for v in jax.tree.leaves(caught.value.density.variables))


@pytest.mark.filterwarnings("ignore:.*interquartile ranges")
def test_bad_batches_are_skipped_and_counted(data):
    y = np.concatenate([data[:63], np.full((1, 2), 3e38, np.float32)])
    options = {**SMALL, "batch_size": 8, "steps": 40, "validation": data[:50]}
    start = jflow.init(flow(), KEY, data)
    density, log = jflow.fit(flow(), y, key=KEY, variables=start, max_skipped=1, **options)
    # One of the eight batches of an epoch has the outlier, and 40 steps are five epochs.
    assert sum(log.column("skipped")[1]) == 5
    assert [row["step"] for row in log.rows] == [20, 40]
    assert all(np.isfinite(row["train_nll"]) for row in log.rows)
    assert all(np.isfinite(v).all() for v in jax.tree.leaves(density.variables))
    with pytest.raises(NonFiniteLossError, match="may be skipped by max_skipped") as caught:
        jflow.fit(flow(), y, key=KEY, variables=start, **options)
    assert caught.value.step < 8


def test_too_many_bad_batches_in_a_row_stop_with_the_best_parameters(data):
    def explode(updates, state, params=None):
        factor = jnp.where(state == 25, jnp.inf, 1e-3)
        return jax.tree.map(lambda u: -u * factor.astype(u.dtype), updates), state + 1

    optimizer = optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), explode)
    with pytest.raises(NonFiniteLossError, match="not finite at step 29") as caught:
        jflow.fit(flow(), data, key=KEY, optimizer=optimizer, max_skipped=3, **SMALL)
    options = {**SMALL, "steps": 20, "max_skipped": 3}
    good, _ = jflow.fit(flow(), data, key=KEY, optimizer=optimizer, **options)
    chex.assert_trees_all_equal(dict(caught.value.density.variables), dict(good.variables))
    assert [row["step"] for row in caught.value.history.rows] == [20]


def test_no_finite_validation_loss_is_an_error(data):
    positive = jflow.Flow(jb.Chain((jb.Elementwise(jt.Exp()), jb.ActNorm())), (2,))
    with pytest.raises(NonFiniteLossError, match="the validation loss was never finite"):
        jflow.fit(
            positive, np.abs(data) + 1, key=KEY, validation=np.zeros((2, 2), np.float32), **SMALL
        )
    fixed = jflow.Flow(jb.Reverse(), (2,))
    with pytest.raises(ValueError, match="the flow has no parameters to fit"):
        jflow.fit(fixed, data, key=KEY)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": np.ones((0, 2))}, ValueError, r"data is empty: it has shape \(0, 2\)"),
        (
            {"data": np.ones((5, 3))},
            ValueError,
            r"data must have shape \(N, \*\(2,\)\); got \(5, 3",
        ),
        ({"data": [1, 2]}, TypeError, "data must be an array .* got list"),
        ({"data": np.ones((5, 2), int)}, TypeError, "must be floating for a flow of continuous"),
        ({"data": np.asarray([[1, np.nan]] * 3)}, ValueError, "NaN or infinities, in 3 of 3"),
        ({"data": np.ones((5, 2), object)}, TypeError, "must hold numbers; got dtype object, such"),
        ({"data": np.ma.masked_less(np.ones((5, 2)), 2)}, ValueError, "data has 10 masked values"),
        ({"context": np.ones((300, 2))}, ValueError, "context of data is given, but the flow"),
        ({"validation": 1.5}, ValueError, r"validation must be a fraction in \(0, 1\)"),
        (
            {"validation": np.ones((4, 1))},
            ValueError,
            r"validation must have shape \(N, \*\(2,\)\)",
        ),
        ({"steps": 0}, ValueError, "steps must be a whole number, 1 or more; got 0"),
        ({"batch_size": 0}, ValueError, "fit: batch_size must be a whole number, 1 or more; got 0"),
        ({"warmup_steps": -1}, ValueError, "warmup_steps must be 0 or more; got -1"),
        ({"clip_norm": 0.0}, ValueError, "clip_norm must be positive, or None; got 0"),
        ({"clip_ratio": 1.0}, ValueError, "clip_ratio must be above 1, None, or 'auto'; got 1"),
        ({"clip_ratio": "some"}, ValueError, "clip_ratio must be above 1, None, or 'auto'; got"),
        ({"patience": 0}, ValueError, "fit: patience must be a whole number, 1 or more; got 0"),
        ({"patience": 2, "validation": None}, ValueError, "patience needs validation examples"),
        (
            {"validation_samples": 0},
            ValueError,
            "validation_samples must be a whole number",
        ),
        ({"max_skipped": -1}, ValueError, "max_skipped must be 0 or more; got -1"),
        ({"ema_decay": 1.0}, ValueError, r"ema_decay, must be in \[0, 1\) or None; got 1.0"),
    ],
)
def test_bad_arguments(data, change, error, message):
    with pytest.raises(error, match=message):
        jflow.fit(flow(), **{"data": data, "key": KEY, **change})


def test_advice_on_data():
    """Each with one column that has no density, or a heavy tail; and none where there is none."""
    random = np.random.default_rng(0)
    y = random.standard_normal((200, 3))
    options = {"key": 0, "steps": 1, "evaluate_every": 1, "batch_size": 8, "progress": False}
    small = flows.real_nvp(4, 2, (4,))
    far = np.where(np.arange(200) == 5, 1e4, y[:, 0] ** 2)
    fourth = {
        r"columns \[3\] are constant: they have no density": np.full(200, 1e3 / 3),
        r"columns \[1, 3\] are duplicates or sums of others": 1e6 * y[:, 1],
        r"columns \[0, 1, 2, 3\] are duplicates or sums": y.sum(axis=1) + 7,
        r"columns \[3\] have numbers 1,000 interquartile": far,
    }  # fmt: skip
    for message, column in fourth.items():
        data = np.column_stack([y, column]).astype(np.float32)
        with pytest.warns(UserWarning, match=message):
            jflow.fit(small, data, **options)
    swapped = np.column_stack([y, random.standard_t(3, 200)]).astype(">f4")
    jflow.fit(small, swapped, **options)


def test_bad_context_and_grey_levels(data):
    conditional = flows.real_nvp(2, layers=2, context_shape=3)
    with pytest.raises(ValueError, match=r"context of data must have shape \(300, 3\); got None"):
        jflow.fit(conditional, data, key=KEY)
    image_flow = flows.glow((4, 4, 1), levels=1, steps=1, hidden=2, values=17)
    pixels = np.zeros((5, 4, 4, 1))
    with pytest.raises(ValueError, match=r"data holds NaN; it must be integers, .* 16"):
        jflow.fit(image_flow, pixels * np.nan, key=KEY)
    with pytest.raises(TypeError, match=r"data must be integers, .* 0 to 16; got float64"):
        jflow.fit(image_flow, pixels, key=KEY)
    with pytest.raises(ValueError, match="got numbers from 200 to 200"):
        jflow.fit(image_flow, (pixels + 200).astype(np.uint8), key=KEY)


def test_evaluation_weighs_the_last_batch_right(data, fitted):
    density = fitted[0]
    estimate = jflow.evaluate(density, data, key=KEY, batch_size=64)
    wanted = -np.asarray(density.log_prob(data), np.float64)
    np.testing.assert_allclose(estimate.examples, wanted, rtol=1e-5)
    assert estimate.mean == pytest.approx(wanted.mean())
    assert estimate.standard_error == pytest.approx(wanted.std(ddof=1) / np.sqrt(300), rel=1e-4)
    assert str(estimate) == f"{estimate.mean:.4f} +- {estimate.standard_error:.4f}"


def test_evaluation_calls_one_program_for_many_batches(data, fitted, monkeypatch):
    density, calls, losses = fitted[0], [], evaluation._losses

    def counted(*args, **options):
        calls.append(args)
        return losses(*args, **options)

    monkeypatch.setattr(evaluation, "_losses", counted)
    many = np.tile(data, (3, 1))[:800]
    found = jflow.evaluate(density, many, key=KEY, batch_size=8).examples
    np.testing.assert_allclose(found, -np.asarray(density.log_prob(many)), rtol=1e-5)
    assert len(calls) == 2
    programs = losses._cache_size()
    jflow.evaluate(density, data, key=KEY, batch_size=8)  # of another number of examples
    assert losses._cache_size() == programs


def test_parts_of_the_data_share_its_arrays(data):
    parts = Arrays(data, 32).split(0.25, np.random.default_rng(0))
    assert parts[0].values is parts[1].values
    rows = [part.at(np.arange(len(part))).values for part in parts]
    assert [len(part) for part in rows] == [225, 75]
    np.testing.assert_array_equal(np.sort(np.concatenate(rows), axis=0), np.sort(data, axis=0))
    # Batches are of the training part alone.
    assert set(parts[0].take(0, 0, 20).rows.ravel()) == set(parts[0].places)


def test_large_arrays_are_not_held_twice(data, tmp_path, monkeypatch):
    options = {"key": KEY, "weights": np.arange(300.0), **SMALL}
    density, log = jflow.fit(flow(), data, **options)
    monkeypatch.setattr(batches, "_LARGE", data.nbytes - 1)
    assert Arrays(data).values is data
    assert isinstance(Arrays(data[1:]).values, jax.Array)
    np.save(tmp_path / "data.npy", data)
    mapped = np.load(tmp_path / "data.npy", mmap_mode="r")
    assert np.shares_memory(of_flow("data", flow(), mapped, batch_size=8).values[0], mapped)
    # Rows are gathered a few batches at a time.
    monkeypatch.setattr(batches, "_CALL_BYTES", 5 * 32 * data[0].nbytes)
    source = Arrays(data, 32)
    assert source.most == 5
    assert source.take(0, 3, 5).examples.values.shape == (5, 32, 2)
    again, same = jflow.fit(flow(), mapped, **options)
    chex.assert_trees_all_equal(density.variables, again.variables)
    for row, other in zip(log.rows, same.rows, strict=True):
        assert {**row, "seconds": 0} == {**other, "seconds": 0}


def test_processes_without_a_mesh_train_on_whole_batches(data, monkeypatch):
    chunk = Arrays(data, 32).take(0, 0, 4)
    monkeypatch.setattr(batches, "_LARGE", 0)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    of_host = Arrays(data, 32).take(0, 0, 4)
    assert of_host.whole
    np.testing.assert_array_equal(of_host.examples.values, chunk.examples.values[chunk.rows])


def test_small_arrays_are_copied_and_masks_are_not_lost(monkeypatch):
    # Memory that is aligned would be shared with the device, if that were allowed.
    room = np.zeros(1024 + 64, np.uint8)
    y = room[-room.ctypes.data % 64 :][:1024].view(np.float32).reshape(-1, 2)
    source = Arrays(y)
    y[:] = 9
    np.testing.assert_array_equal(source.values, 0)
    masked = np.ma.masked_array(y, y > 8)
    for large in (2**28, 0):
        monkeypatch.setattr(batches, "_LARGE", large)
        with pytest.raises(ValueError, match="values has 256 masked values"):
            Arrays(masked)


def test_checksums_do_not_depend_on_how_arrays_lie(data, monkeypatch):
    whole = arrays.checksum(data)
    monkeypatch.setattr(arrays, "_ROWS", 7)
    assert arrays.checksum(data) == arrays.checksum(np.asfortranarray(data)) == whole
    assert arrays.checksum(data[::-1], np.arange(300)[::-1]) == whole


def test_large_arrays_are_looked_at_in_parts(data, monkeypatch):
    monkeypatch.setattr(examples, "_BYTES", 7 * data[0].nbytes)
    parts = list(examples._parts(data))
    assert max(map(len, parts)) == 7
    np.testing.assert_array_equal(np.concatenate(parts), data)
    bad = data.copy()
    bad[[3, 8, 299]] = np.nan
    with pytest.raises(ValueError, match="NaN or infinities, in 3 of 300"):
        jflow.fit(flow(), bad, key=KEY, **SMALL)


def test_batches_visit_every_example_equally_often():
    source = Arrays(np.zeros((10, 1)), 4)
    drawn = source.take(3, 0, 10).rows.ravel()
    np.testing.assert_array_equal(np.bincount(drawn), 4)
    assert sorted(drawn[:10]) == list(range(10))
    assert list(drawn[:10]) != list(drawn[10:20])
    again = [source.take(3, position, 2).rows for position in (8, 0, 2, 6, 4)]  # in any order
    whole = np.concatenate([again[i] for i in (1, 2, 4, 3, 0)])
    np.testing.assert_array_equal(whole.ravel(), drawn)


def test_a_terminal_sees_a_progress_bar(monkeypatch, capsys):
    def shown(kind):
        with terminal.show_progress(kind, 10, 32, "nll") as display:
            display.reach(1)
            display.show({"step": 5, "train_nll": 1.0, "validation_nll": 2.0})
        return capsys.readouterr().err

    assert shown(False) == ""
    losses = r"train_nll 1\.0000  validation_nll 2\.0000  best 2\.0000"
    assert re.fullmatch(rf"step 5/10  {losses}  [\d,]+/s  0:00:00 left\n", shown(True))
    monkeypatch.setattr(terminal.sys.stderr, "isatty", lambda: True, raising=False)
    assert "nll 1.0000 / 2.0000 (best 2.0000)" in shown(True)
    assert shown("log").startswith("step 5/10")
    with pytest.raises(ValueError, match=r"progress must be 'bar', 'log', True or False; got 'x'"):
        shown("x")


def test_dropout_is_active_in_training_only(data):
    dropped = flows.real_nvp(2, layers=2, hidden=(8,), dropout=0.9)
    density, log = jflow.fit(dropped, data, key=KEY, **SMALL)
    assert density.log_prob(data[0]) == density.log_prob(data[0])
    assert train.History is type(log)


@pytest.mark.parametrize("client", ["wandb", "mlflow"])
def test_rows_go_to_clients_that_are_offline(client, data, tmp_path):
    module = pytest.importorskip(client)
    if client == "wandb":
        module.init(mode="offline", dir=tmp_path)
        callback = lambda density, row: module.log(row, step=row["step"])  # noqa: E731
    else:
        module.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
        callback = lambda density, row: module.log_metrics(row, step=row["step"])  # noqa: E731
    _, log = jflow.fit(flow(), data, key=KEY, callback=callback, **SMALL)
    assert log.ended == "done"
    last = log.rows[-1]["validation_nll"]
    if client == "wandb":
        module.log({}, commit=True)  # a row is written when the next one comes
        assert module.run.summary["validation_nll"] == pytest.approx(last)
        module.finish()
    else:
        run = module.active_run().info.run_id
        told = module.MlflowClient().get_metric_history(run, "validation_nll")
        assert [point.value for point in told] == log.column("validation_nll")[1]
        module.end_run()
