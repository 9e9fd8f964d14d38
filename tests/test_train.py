"""One trainer: objectives of one's own, weights, losses, steps in turn, and ways to end."""

import dataclasses
import os
import pickle
import signal
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import jflow
from jflow import data, flows, train
from jflow.data import batches
from jflow.distributions.description import describe
from jflow.train.evaluation import of_flow

KEY = jax.random.key(0)
SMALL = {"steps": 60, "batch_size": 32, "evaluate_every": 20, "warmup_steps": 5, "progress": False}
RUN = {"steps": 30, "evaluate_every": 10, "progress": False}
Y = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
ADAM, SGD = optax.adam(1e-2), optax.sgd(0.1)


def flow(**options):
    return flows.real_nvp(2, layers=2, hidden=(8,), **options)


def same(density, other):
    chex.assert_trees_all_equal(dict(density.variables), dict(other.variables))


# A user's loss


def negative_log_prob(flow, y, context, key):
    return -flow.log_prob(y, context)


def test_a_loss_of_ones_own():
    """-log p, told by hand, is what `fit` minimises; others are told by their shape."""
    usual, log = jflow.fit(flow(), Y, key=KEY, **SMALL)
    own, told = jflow.fit(flow(), Y, key=KEY, loss=negative_log_prob, **SMALL)
    np.testing.assert_allclose(
        log.column("validation_nll")[1], told.column("validation_loss")[1], rtol=1e-5
    )
    assert own.flow == usual.flow
    with pytest.raises(
        ValueError, match="dimensions, validation_samples and check_drift are of -log"
    ):
        jflow.fit(flow(), Y, key=KEY, loss=negative_log_prob, validation_samples=4, **SMALL)
    # Data-dependent layers see what training sees, as for -log p.
    shifted = {"augment": lambda key, y: y + 5, "steps": 1, "evaluate_every": 1}
    found, wanted = (
        jflow.fit(flow(), Y, key=KEY, **given, **SMALL | shifted)[0].variables["constants"]
        for given in ({"loss": negative_log_prob}, {})
    )
    chex.assert_trees_all_equal(dict(found), dict(wanted))
    with pytest.raises(ValueError, match=r"loss must return one number for each .*got shape \(\)"):
        jflow.fit(flow(), Y, key=KEY, loss=lambda flow, *rest: 0.0, **SMALL)


# An objective of a user's own: the bound of a variational autoencoder


class Autoencoder(nn.Module):
    size: int = 1

    @nn.compact
    def __call__(self, y, key):
        mean, log_scale = jnp.split(nn.Dense(2 * self.size)(y), 2, axis=-1)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        x = mean + jnp.exp(log_scale) * noise
        error = y - nn.Dense(y.shape[-1])(x)
        kl = 0.5 * (mean**2 + jnp.exp(2 * log_scale) - 1) - log_scale
        return 0.5 * jnp.sum(error**2, -1) + jnp.sum(kl, -1)


@dataclasses.dataclass(frozen=True)
class Bound(train.Objective):
    model: Autoencoder
    unit = "nats"

    def init(self, key, batch):
        return self.model.init(key, batch, key)

    def losses(self, variables, batch, key, *, training) -> Any:
        return self.model.apply(variables, batch, key), {}


def test_an_objective_of_ones_own(tmp_path):
    y = Y[:, :1] * np.ones(3, np.float32)
    objective, source = Bound(Autoencoder()), train.Arrays(y[:200], 32)
    step = train.gradient_step(objective, ADAM, average=0.9)
    options = {"key": 0, "step": step, "validation": train.Arrays(y[200:], 32), **RUN}
    variables, log = train.train(objective, source, **options)
    losses = log.column("validation_nats")[1]
    assert losses[-1] < losses[0]
    assert log.ended == "done"
    assert set(variables["params"]) == {"Dense_0", "Dense_1"}
    # Stopped, and gone on with: the same.
    stop = lambda _, row: "stop" if row["step"] == 20 else None  # noqa: E731
    train.train(objective, source, directory=tmp_path, callback=stop, **options)
    again, resumed = train.train(objective, source, directory=tmp_path, resume=True, **options)
    chex.assert_trees_all_equal(again, variables)
    assert resumed.column("train_nats") == log.column("train_nats")
    other = Bound(Autoencoder(2))
    another = train.gradient_step(other, ADAM, average=0.9)
    with pytest.raises(ValueError, match=r"cannot resume .*objective"):
        train.train(other, source, directory=tmp_path, resume=True, **options | {"step": another})
    with pytest.raises(ValueError, match="the objective of the step is another than that of train"):
        train.train(other, source, **options)
    with pytest.raises(
        TypeError, match=r"validation must be train.Arrays or a train.Stream; got ndarray"
    ):
        train.train(objective, source, **options | {"validation": y})
    part = train.gradient_step(objective, ADAM, part="critic")
    with pytest.raises(ValueError, match=r"variables must have .* with a part"):
        train.train(objective, source, **options | {"step": part})
    bare = train.Objective()
    with pytest.raises(NotImplementedError, match="Objective has no init"):
        train.train(bare, source, key=0, step=train.gradient_step(bare, ADAM), **RUN)


# Two steps in turn


@dataclasses.dataclass(frozen=True)
class Game(train.Objective):
    """A saddle: one goes down, the other up, and both have one point to meet."""

    sign: float

    def losses(self, variables, batch, key, *, training):
        x, y = variables["params"]["one"], variables["params"]["two"]
        value = (x - 1) ** 2 - (y - 2) ** 2 + (x - 1) * (y - 2)
        return self.sign * value * jnp.ones(len(batch)), {}


def test_steps_in_turn():
    start = {"params": {"one": jnp.zeros(()), "two": jnp.zeros(())}}
    first = train.gradient_step(Game(1.0), SGD, part="one")
    second = train.gradient_step(Game(-1.0), SGD, part="two", average=0.5)
    options = {"key": 0, "variables": start, "progress": False, "evaluate_every": 1}
    source = train.Arrays(np.zeros((8, 1), np.float32), 8)
    step = train.alternating(first, second, times=2)
    seen = []
    params = lambda variables, row: seen.append(variables["params"])  # noqa: E731
    train.train(Game(1.0), source, step=step, steps=4, callback=params, **options)
    # Twice the first, once the second; what the callback was given stays.
    x, y, wanted, average = 0.0, 0.0, [], [0.0]
    for i in range(4):
        if i % 3 < 2:
            x -= 0.1 * (2 * (x - 1) + (y - 2))
        else:
            average[0] = y
            y -= 0.1 * (2 * (y - 2) - (x - 1))
            average[0] += (y - average[0]) * (1 - (2 + i) / (11 + i))
        wanted.append(x)
    np.testing.assert_allclose([p["one"] for p in seen], wanted, rtol=1e-5)
    np.testing.assert_allclose(seen[-1]["two"], average[0], rtol=1e-5)
    step = train.alternating(first, dataclasses.replace(second, average=None))
    options |= {"evaluate_every": 200}
    (found, log) = train.train(Game(1.0), source, step=step, steps=200, **options)
    np.testing.assert_allclose([found["params"]["one"], found["params"]["two"]], [1, 2], atol=1e-3)
    assert {"one_loss", "two_loss"} <= set(log.rows[-1])
    with pytest.raises(ValueError, match="alternating needs steps of two parts"):
        train.alternating(first, first)


# Weights


def test_weights_count_as_repetitions():
    """In training, validation and evaluation; examples of weight zero are left out."""
    counts = np.random.default_rng(1).integers(0, 4, 300)
    repeated = np.repeat(Y, counts, axis=0)
    density, _ = jflow.fit(flow(), Y, key=KEY, **SMALL)
    found = jflow.evaluate(density, Y, key=0, weights=counts)
    wanted = jflow.evaluate(density, repeated, key=0)
    assert found.mean == pytest.approx(wanted.mean, rel=1e-6)
    assert found.examples.shape == (300,)
    few = np.where(np.arange(300) < 50, 3.0, 0.0)
    found = jflow.evaluate(density, Y, key=0, weights=few).standard_error
    assert found == pytest.approx(jflow.evaluate(density, Y[:50], key=0).standard_error)
    one = jflow.evaluate(density, Y, key=0, weights=np.full(300, 7.0))
    assert one.standard_error == pytest.approx(jflow.evaluate(density, Y, key=0).standard_error)

    whole = {"batch_size": 300, "validation": None, "warmup_steps": 0, "optimizer": SGD}
    start = jflow.init(flow(), KEY, Y)
    options = {**SMALL, "variables": start, "key": KEY, "steps": 3, "evaluate_every": 1}
    batch = {**whole, "batch_size": int((counts > 0).sum())}
    weighted, log = jflow.fit(flow(), Y, weights=5.0 * counts, **options | batch)
    plain, told = jflow.fit(flow(), repeated, **options | whole | {"batch_size": len(repeated)})
    chex.assert_trees_all_close(dict(weighted.variables), dict(plain.variables), atol=1e-5)
    np.testing.assert_allclose(log.column("train_nll")[1], told.column("train_nll")[1], rtol=1e-5)

    validation = (Y[:50], None, counts[:50])
    _, log = jflow.fit(flow(), Y, **options | whole | {"validation": validation})
    _, told = jflow.fit(
        flow(), Y, **options | whole | {"validation": repeated[: counts[:50].sum()]}
    )
    rows = [h.column("validation_nll")[1] for h in (log, told)]
    np.testing.assert_allclose(*rows, rtol=1e-5)


def test_weights_of_streams_and_on_devices():
    w = np.linspace(0.5, 1.5, 300).astype(np.float32)
    grain = pytest.importorskip("grain")
    rows = grain.MapDataset.source([{"y": y, "weights": v} for y, v in zip(Y, w, strict=True)])
    source = of_flow("data", flow(), rows, batch_size=16)
    batch = source.take(0, 0, 1).examples
    assert batch.weights.shape == (1, 16)
    index = [int(np.flatnonzero((Y == y).all(1))[0]) for y in batch.values[0][0]]
    np.testing.assert_allclose(batch.weights[0], w[index])
    density, log = jflow.fit(flow(), rows, key=KEY, **SMALL)
    assert np.isfinite(log.column("validation_nll")[1]).all()
    found, wanted = (
        jflow.evaluate(density, y, key=0, **more) for y, more in ((rows, {}), (Y, {"weights": w}))
    )
    assert found.mean == pytest.approx(wanted.mean)
    alone, _ = jflow.fit(flow(), Y, weights=w, key=KEY, **SMALL)
    many, _ = jflow.fit(flow(), Y, weights=w, key=KEY, mesh=train.make_mesh(), **SMALL)
    chex.assert_trees_all_close(dict(alone.variables), dict(many.variables), atol=1e-4)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(3), r"weights must have shape \(300,\), one for each; got \(3,\)"),
        (-np.ones(300), "weights must be zero or more, and finite; the least is -1"),
        (np.full(300, np.nan), "weights must be zero or more, and finite"),
        (np.zeros(300), "weights are all zero: there is no example left"),
    ],
)
def test_bad_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        jflow.fit(flow(), Y, key=KEY, weights=weights, **SMALL)
    with pytest.raises(ValueError, match="weights of a stream is in its examples"):
        jflow.fit(flow(), data.arrays(Y), key=KEY, weights=weights, **SMALL)


# Ways to end


def test_a_callback_stops_a_run_and_keeps_what_it_was_given():
    seen = []

    def told(density, row):
        seen.append(density)
        return "stop" if len(seen) == 2 else "go on"

    density, log = jflow.fit(flow(), Y, key=KEY, callback=told, **SMALL)
    assert (log.ended, log.rows[-1]["step"]) == ("stopped", 40)
    assert "ended early: stopped" in str(log)
    values = [np.mean(d.log_prob(Y)) for d in seen]
    assert values[0] != values[1]
    same(density, seen[[20, 40].index(log.best_step)])


@pytest.fixture
def heard():
    """SIGINT as in a terminal: shells have the jobs of scripts in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("where", ["between", "validation"])
def test_ctrl_c_returns_the_best_and_resumes(where, tmp_path, monkeypatch):
    options = {"key": KEY, **SMALL}
    whole, log = jflow.fit(flow(), Y, **options)
    send = lambda: os.kill(os.getpid(), signal.SIGINT)  # noqa: E731
    if where == "between":
        more = {"callback": lambda density, row: send() if row["step"] == 20 else None}
    else:
        losses = train.run.all_losses

        def interrupted(*given):
            if calls.append(0) or len(calls) == 2:
                send()
            return losses(*given)

        calls, more = [], {}
        monkeypatch.setattr(train.run, "all_losses", interrupted)
    before = signal.getsignal(signal.SIGINT)
    density, ended = jflow.fit(flow(), Y, directory=tmp_path, **more, **options)
    assert signal.getsignal(signal.SIGINT) is before
    assert (ended.ended, ended.best_step, len(ended.rows)) == ("interrupted", 20, 1)
    first, _ = jflow.fit(flow(), Y, **options | {"callback": lambda *_: "stop"})
    same(density, first)
    monkeypatch.undo()
    again, resumed = jflow.fit(flow(), Y, directory=tmp_path, resume=True, **options)
    same(again, whole)
    assert resumed.column("validation_nll") == log.column("validation_nll")
    assert (resumed.ended, resumed.best_step) == ("done", log.best_step)


@pytest.mark.usefixtures("heard")
def test_ctrl_c_before_anything_was_validated_and_twice():
    calls = []

    def send(key, y):
        if not calls:
            calls.append(os.kill(os.getpid(), signal.SIGINT))
        return y

    density, log = jflow.fit(flow(), Y, key=KEY, augment=send, **SMALL)
    assert (log.ended, log.rows) == ("interrupted", [])
    assert log.best_step < 20  # of the parameters that are returned
    assert np.isfinite(density.log_prob(Y)).all()
    twice = lambda *_: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)]  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        jflow.fit(flow(), Y, key=KEY, callback=twice, **SMALL)


@pytest.mark.usefixtures("heard")
def test_a_source_that_fails_because_the_run_is_to_end():
    """As when Ctrl-C reaches the processes that read, too."""

    class Ended(train.Arrays):
        def take(self, seed, position, count):
            if position >= 40:
                os.kill(os.getpid(), signal.SIGINT)
                raise RuntimeError("Worker process was terminated unexpectedly")
            return super().take(seed, position, count)

    objective = train.MaximumLikelihood(flow())
    step = train.gradient_step(objective, ADAM)
    source = Ended((Y, None), 32)
    options = {"key": 0, "step": step, "steps": 80, "evaluate_every": 20, "progress": False}
    density, log = train.train(objective, source, validation=train.Arrays((Y, None)), **options)
    assert (log.ended, [row["step"] for row in log.rows]) == ("interrupted", [20, 40])
    assert np.isfinite(density.log_prob(Y)).all()


def test_sigterm_while_a_run_comes_to_its_end(tmp_path, monkeypatch):
    finish = train.MaximumLikelihood.finish

    def ended(self, variables):
        os.kill(os.getpid(), signal.SIGTERM)
        return finish(self, variables)

    monkeypatch.setattr(train.MaximumLikelihood, "finish", ended)
    with pytest.raises(train.Preempted):
        jflow.fit(flow(), Y, key=KEY, directory=tmp_path, **SMALL)
    monkeypatch.undo()
    assert (
        jflow.fit(flow(), Y, key=KEY, directory=tmp_path, resume=True, **SMALL)[1].ended == "done"
    )


def test_a_loss_of_minus_infinity_is_not_the_best():
    def loss(flow, y, context, key):
        return jnp.where(y[:, 0] > 100, -jnp.inf, -flow.log_prob(y))

    far = np.full((4, 2), 1e3, np.float32)
    with pytest.raises(train.NonFiniteLossError, match="validation loss was never finite"):
        jflow.fit(flow(), Y, key=KEY, loss=loss, validation=far, **SMALL)


def test_errors_hold_the_density_and_pickle(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    def told(density, row):
        monkeypatch.setattr(train.checkpoints, "seal", full)

    with pytest.raises(train.CheckpointError, match="could not write the checkpoint") as caught:
        jflow.fit(flow(), Y, key=KEY, directory=tmp_path, callback=told, **SMALL)
    assert caught.value.history.best_step >= 20
    assert np.isfinite(caught.value.density.log_prob(Y)).all()
    again = pickle.loads(pickle.dumps(caught.value))
    same(again.density, caught.value.density)
    assert again.history.rows == caught.value.history.rows


# Targets have the same machine


def banana(y):
    return -0.5 * y[:, 0] ** 2 - 0.5 * (y[:, 1] - y[:, 0] ** 2) ** 2


def test_a_run_to_a_target_is_resumed(tmp_path):
    iaf = flows.iaf(2, layers=2, hidden=(8,))
    options = {"key": 0, "samples": 32, "evaluation_samples": 64, "max_skipped": 2, **RUN}
    whole, log = jflow.fit_to_target(iaf, banana, ema_decay=0.9, **options)
    assert set(log.rows[0]) >= {"train_kl", "validation_kl", "ess", "log_normalizer", "skipped"}
    stop = lambda _, row: "stop" if row["step"] == 10 else None  # noqa: E731
    options |= {"ema_decay": 0.9, "directory": tmp_path}
    jflow.fit_to_target(iaf, banana, callback=stop, **options)
    with pytest.raises(FileExistsError, match="holds a run"):
        jflow.fit_to_target(iaf, banana, **options)
    density, again = jflow.fit_to_target(iaf, banana, resume=True, **options)
    same(density, whole)
    assert again.column("ess") == log.column("ess")
    with pytest.raises(ValueError, match=r"cannot resume .*target"):
        jflow.fit_to_target(iaf, lambda y: banana(y), resume=True, **options)


def test_few_contexts_have_their_order_drawn_at_once(monkeypatch):
    drawn = []
    order = batches._order
    monkeypatch.setattr(batches, "_order", lambda *a: (drawn.append(a), order(*a))[1])
    rows = train.Arrays(np.zeros((3, 1)), 64).take(0, 7, 400).rows
    assert len(drawn) < 9
    assert sorted(np.bincount(rows.ravel())) == [8533, 8533, 8534]


def test_targets_and_steps_are_told_apart():
    one, other = (jflow.fit(flow(), Y, key=k, **SMALL)[0] for k in (0, 1))
    assert describe(one.log_prob) == describe(one.log_prob)
    assert describe(one.log_prob) != describe(other.log_prob)
    assert describe(jax.jit(lambda y: y)) != describe(jax.jit(lambda y: 2 * y))


# Streams


def test_a_stream_that_failed_begins_anew():
    grain, calls = pytest.importorskip("grain"), []

    def read(batch):
        calls.append(batch)
        if len(calls) == 3:  # in the middle of what is taken
            raise OSError("gone")
        return train.Batch(batch)

    rows = grain.MapDataset.source(Y[:64])
    wanted, source = train.Stream(rows, 8), train.Stream(rows, 8, read)
    source.take(0, 0, 1)
    with pytest.raises(OSError, match="gone"):
        source.take(0, 1, 2)
    for position in (1, 3):
        found, other = (s.take(0, position, 2).examples.values for s in (source, wanted))
        np.testing.assert_array_equal(found, other)


def test_streams_are_told_apart_and_say_what_is_looked_at(tmp_path):
    source = of_flow("data", flow(), data.arrays(Y), batch_size=16)
    assert source.fingerprint().startswith("256 of 300 examples of a stream: float32[256, 2], ch")
    changed = Y.copy()
    changed[101] += 1
    assert len({of_flow("data", flow(), data.arrays(y), batch_size=16).fingerprint()
                for y in (Y[:256], changed[:256])}) == 2  # fmt: skip
    estimates = [
        jflow.evaluate(jflow.fit(flow(), Y, key=KEY, **SMALL)[0], y, key=0, batch_size=7)
        for y in (Y, data.arrays(Y))
    ]
    np.testing.assert_allclose(estimates[0].examples, estimates[1].examples, rtol=1e-6)


# What the history says


def test_what_the_history_says():
    density, log = jflow.fit(flow(), Y, key=KEY, validation=0.2, **SMALL)
    assert len(set(log.held_out)) == 60
    held_out = jflow.evaluate(density, Y[np.sort(log.held_out)], key=0).mean
    assert held_out == pytest.approx(log.best["validation_nll"], rel=1e-5)
    assert log.gap == pytest.approx(log.best["validation_nll"] - log.best["train_nll"])
    losses = [5 - 0.1 * i for i in range(20)]
    rows = [{"step": i + 1, "train_nll": v, "validation_nll": v} for i, v in enumerate(losses)]
    told = train.History("nll", rows, 20, "done")
    assert told.improving
    assert "still improving at the last step" in str(told)
    level = [{**row, "validation_nll": max(row["validation_nll"], 4 - 1e-4 * row["step"])}
             for row in rows]  # fmt: skip
    assert not train.History("nll", level, 20, "done").improving
    assert "3 steps were not finite" in str(train.History("nll", [{**rows[0], "skipped": 3}], 1))
    axes = told.plot()
    assert axes.get_ylabel() == "nll"
    assert len(axes.lines) == 3
    frame = pytest.importorskip("pandas") and told.to_pandas()
    assert list(frame.columns) == ["train_nll", "validation_nll"]
