"""Runs that end early and go on: bit for bit, whatever happened to them or to their files."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import chex
import jax
import numpy as np
import optax
import pytest

import jflow
from jflow import flows, train
from jflow.train.checkpoints import CheckpointError, Checkpoints, open_checkpoints
from jflow.train.history import writer
from jflow.train.run import Run

KEY = jax.random.key(0)
OPTIONS = {
    "steps": 40, "batch_size": 16, "evaluate_every": 10, "checkpoint_every": 5, "warmup_steps": 5,
    "ema_decay": 0.9,
}  # fmt: skip


def flow():
    # Permutations are constants, which are drawn at init.
    return flows.real_nvp(3, layers=2, hidden=(8,), dropout=0.1)


@pytest.fixture(scope="module")
def data():
    return (2 * np.random.default_rng(0).normal(size=(100, 3)) + 1).astype(np.float32)


@pytest.fixture(scope="module")
def whole(data):
    """A run that nothing happened to."""
    return jflow.fit(flow(), data, key=KEY, **OPTIONS)


@pytest.fixture(scope="module")
def ended_once(data, tmp_path_factory):
    directory = tmp_path_factory.mktemp("ended")
    with pytest.MonkeyPatch.context() as monkeypatch:
        end_after(monkeypatch, 28)
        with pytest.raises(KeyboardInterrupt):
            jflow.fit(flow(), data, key=KEY, directory=directory, **OPTIONS)
    assert {p.name for p in (directory / "checkpoints").iterdir()} == {"15", "20", "25"}
    return directory


@pytest.fixture
def ended(ended_once, tmp_path):
    """The directory of a run that ended in its 28th step or so, to be done with as one likes."""
    return shutil.copytree(ended_once, tmp_path, dirs_exist_ok=True)


def end_after(monkeypatch, step):
    advance = Run._advance

    def stop(self, pace):
        if self.step + pace > step:
            raise KeyboardInterrupt
        return min(2, advance(self, pace))

    monkeypatch.setattr(Run, "_advance", stop)


def resumed(data, directory, **options):
    options = {"key": KEY, "directory": directory, "resume": True} | OPTIONS | options
    return jflow.fit(flow(), data, **options)


def numbers(rows):
    return [{name: v for name, v in row.items() if name != "seconds"} for row in rows]


def check_same(run, wanted):
    chex.assert_trees_all_equal(dict(run[0].variables), dict(wanted[0].variables))
    assert numbers(run[1].rows) == numbers(wanted[1].rows)
    assert run[1].best_step == wanted[1].best_step


@pytest.mark.oldest
def test_a_resumed_run_is_bit_identical(data, whole, ended):
    run = resumed(data, ended)
    check_same(run, whole)
    rows = [json.loads(line) for line in (ended / "metrics.jsonl").read_text().splitlines()]
    assert rows == run[1].rows
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)
    # A run that is complete is only read.
    check_same(resumed(data, ended), whole)


def test_a_longer_run_goes_on_where_the_shorter_ended(data, tmp_path):
    """With a schedule: a rate that is a number falls to 0 at the last step of each."""
    rate = {"learning_rate": optax.constant_schedule(2e-3)}
    resumed(data, tmp_path / "run", steps=20, **rate)  # there is nothing to resume: it starts
    whole = jflow.fit(flow(), data, key=KEY, **OPTIONS, **rate)
    check_same(resumed(data, tmp_path / "run", **rate), whole)


def test_sigterm_saves_and_exits_with_75(data, whole, tmp_path, monkeypatch):
    advance = Run._advance

    def signalled(self, pace):
        if self.step == 13:
            os.kill(os.getpid(), signal.SIGTERM)
        return advance(self, 1)

    monkeypatch.setattr(Run, "_advance", signalled)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(train.Preempted) as caught:
        jflow.fit(flow(), data, key=KEY, directory=tmp_path, **OPTIONS)
    assert caught.value.code == 75
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.undo()
    assert (tmp_path / "checkpoints" / "14").is_dir()
    check_same(resumed(data, tmp_path), whole)


def test_without_a_directory_sigterm_is_not_touched(data, monkeypatch):
    seen = []
    advance = Run._advance
    monkeypatch.setattr(
        Run, "_advance",
        lambda *given: (seen.append(signal.getsignal(signal.SIGTERM)), advance(*given))[1],
    )  # fmt: skip
    jflow.fit(flow(), data, key=KEY, **OPTIONS | {"steps": 10, "checkpoint_every": None})
    assert seen[0] is signal.getsignal(signal.SIGTERM)


def test_fits_outside_the_main_thread(data, tmp_path):
    thread = threading.Thread(
        target=jflow.fit,
        args=(flow(), data),
        kwargs={"key": KEY, "directory": tmp_path, **OPTIONS, "steps": 10},
    )
    thread.start()
    thread.join()
    assert (tmp_path / "checkpoints" / "5").is_dir()


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.oldest
@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda folder: flip_a_bit(largest(folder)), "is not as it was written"),
        (lambda folder: os.truncate(largest(folder), 10), "is not as it was written"),
        (lambda folder: largest(folder).unlink(), "is missing"),
        (lambda folder: (folder / "more").write_text("x"), "more does not belong to it"),
        (lambda folder: (folder / "seal.json").unlink(), "seal.json is missing"),
        (lambda folder: (folder / "seal.json").write_text("[]"), "seal.json cannot be read"),
        (lambda folder: shutil.rmtree(folder / "record"), "record/.* is missing"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_passed_over(data, whole, ended, damage, why):
    damage(ended / "checkpoints" / "25")
    with pytest.warns(UserWarning, match=rf"checkpoints/25 is damaged \(.*{why}.*from step 20"):
        run = resumed(data, ended)
    check_same(run, whole)
    assert (ended / "checkpoints" / "25.damaged").is_dir()


def largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_when_all_are_damaged_nothing_is_overwritten(data, ended):
    for step in (15, 20, 25):
        flip_a_bit(largest(ended / "checkpoints" / str(step)))
    with pytest.raises(train.CheckpointError, match=r"no checkpoint can be read\..*25.*20.*15"):
        resumed(data, ended)
    assert {p.name for p in (ended / "checkpoints").iterdir()} == {"15", "20", "25"}


def test_what_a_killed_save_leaves_is_removed(data, whole, ended):
    (ended / "checkpoints" / "30.orbax-checkpoint-tmp").mkdir()
    check_same(resumed(data, ended), whole)
    assert {p.name for p in (ended / "checkpoints").iterdir()} == {"30", "35", "40"}


def test_two_runs_in_one_directory_are_refused(data, tmp_path):
    held = threading.Event()
    errors = []

    def second():
        try:
            resumed(data, tmp_path)
        except FileExistsError as error:
            errors.append(str(error))
        held.set()

    def meanwhile(step):
        if not held.is_set():
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()
        return jax.numpy.asarray(1e-3, jax.numpy.float32)

    jflow.fit(
        flow(), data, key=KEY, directory=tmp_path, learning_rate=meanwhile, **OPTIONS | {"steps": 5}
    )
    assert len(errors) == 1
    assert "another run is writing into" in errors[0]


def test_a_run_is_not_overwritten(data, ended):
    with pytest.raises(FileExistsError, match="holds a run"):
        jflow.fit(flow(), data, key=KEY, directory=ended, **OPTIONS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 8}, r"25: batch_size was 16, and is 8 now"),
        ({"key": jax.random.key(1)}, r"key\[1\] was 0, and is 1 now"),
        ({"validation": None}, r"validation was float32\[10, 3\], checksum .* and is None now"),
        (
            {"optimizer": optax.sgd(1e-2)},
            r"or the optimizer, \['state'\]\['opt_state'\].* None",
        ),
        ({"ema_decay": None}, r"step.average was True, and is False now"),
    ],
)
def test_a_run_is_not_resumed_as_another(data, ended, change, message):
    with pytest.raises(ValueError, match=f"cannot resume from .*{message}"):
        jflow.fit(
            flow(), data, **{"key": KEY, "directory": ended, "resume": True} | OPTIONS | change
        )


def test_another_flow_is_not_resumed(data, ended):
    other = flows.real_nvp(3, layers=2, hidden=(8,), dropout=0.2)
    with pytest.raises(ValueError, match=r"flow\..*net.dropout was 0.1, and is 0.2 now"):
        jflow.fit(other, data, key=KEY, directory=ended, resume=True, **OPTIONS)


def test_the_learning_rate_may_change(data, whole, ended):
    slower = resumed(data, ended, learning_rate=1e-5)
    assert [r["step"] for r in slower[1].rows] == [10, 20, 30, 40]
    assert numbers(slower[1].rows[:2]) == numbers(whole[1].rows[:2])


def test_bad_arguments(data):
    for change, message in (
        ({"resume": True}, "resume=True needs a directory to look in"),
        (
            {"checkpoint_every": 0, "directory": "x"},
            "checkpoint_every must be a whole number",
        ),
        ({"keep": 0, "directory": "x"}, "keep must be a whole number, 1 or more; got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            jflow.fit(flow(), data, key=KEY, **change)


FULL_DISK = """
import resource, signal, sys
import jax, numpy as np
import jflow
from jflow import flows, train
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
data = np.ones((64, 3), np.float32) + np.arange(64, dtype=np.float32)[:, None]
run = dict(key=jax.random.key(0), batch_size=16, evaluate_every=5, validation=None)
flow = flows.real_nvp(3, layers=2, hidden=(8,))
jflow.fit(flow, data, directory=sys.argv[1], steps=5, **run)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    jflow.fit(flow, data, directory=sys.argv[1], steps=20, resume=True, **run)
except train.CheckpointError as error:
    print(error)
"""


def test_a_full_disk_stops_with_the_last_good_checkpoint_intact(tmp_path):
    """Files that may not grow fail as they do on a full disk."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "could not write the checkpoint of step 10" in done.stdout, done.stdout + done.stderr
    assert "The last good one is of step 5. Make room" in done.stdout
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"5"}


def test_a_full_disk_does_not_hide_what_ended_the_run(tmp_path, monkeypatch):
    def full(self):
        raise CheckpointError("no room")

    with pytest.raises(KeyError, match="first") as caught:  # noqa: PT012
        with open_checkpoints(tmp_path, 3, False):
            monkeypatch.setattr(Checkpoints, "wait", full)
            raise KeyError("first")
    assert caught.value.__notes__ == ["no room"]
    with pytest.raises(CheckpointError, match="no room"), open_checkpoints(tmp_path, 3, True):
        pass


def test_nothing_that_is_not_numbers_is_read(ended):
    """The files are JSON and arrays: there is no pickle to load."""
    for file in (Path(ended) / "checkpoints").rglob("*"):
        assert not file.is_file() or not file.read_bytes().startswith(b"\x80\x04")


@pytest.mark.parametrize("step", [10, 12])
def test_sigterm_at_any_moment(data, whole, tmp_path, step):
    """Also while the row of a step is written that is saved right afterwards."""

    def signalled(density, row):
        if row["step"] == step:
            os.kill(os.getpid(), signal.SIGTERM)

    options = OPTIONS | {"evaluate_every": step, "checkpoint_every": step}
    with pytest.raises(train.Preempted):
        jflow.fit(flow(), data, key=KEY, directory=tmp_path, callback=signalled, **options)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == [str(step)]


def test_columns_may_change(data, ended):
    before = (ended / "metrics.jsonl").read_text().splitlines()
    assert len(before) == 2
    resumed(data, ended)
    with writer(ended, [json.loads(line) for line in before]) as write:
        write({"step": 30, "drift": math.inf})
        write({"step": 40, "drift": 1.0})
    lines = (ended / "metrics.csv").read_text().splitlines()
    assert lines[0].split(",")[-1] == "drift"
    assert [line.split(",")[-1] for line in lines[1:]] == ["", "", "", "1.0"]
    assert json.loads((ended / "metrics.jsonl").read_text().splitlines()[2])["drift"] is None
    with (ended / "metrics.jsonl").open() as file:
        assert sum(1 for _ in file) == 4
    resumed(data, ended, steps=50)
    assert len((ended / "metrics.csv").read_text().splitlines()) == 6


def test_metrics_of_a_run_without_checkpoints_are_not_overwritten(data, tmp_path, monkeypatch):
    end_after(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        jflow.fit(flow(), data, key=KEY, directory=tmp_path, **OPTIONS)
    monkeypatch.undo()
    with pytest.raises(FileExistsError, match="holds a run"):
        jflow.fit(flow(), data, key=KEY, directory=tmp_path, **OPTIONS)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=r"directory must be a folder; .*file is a file"):
        jflow.fit(flow(), data, key=KEY, directory=tmp_path / "file", **OPTIONS)
